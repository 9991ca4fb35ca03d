//! Requests for the logits after a token, and the logits that answer them.

use super::token_set::TokenSet;
use std::sync::Arc;

/// A token with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

/// Which logits after a token are wanted. The others need not be computed.
#[derive(Clone, Debug, PartialEq)]
pub enum LogitsRequest {
    /// All logits.
    All,
    /// The `count` largest logits, and those that are less than `within` below the largest.
    Largest {
        /// How many of the largest, at least 1.
        count: usize,
        /// How far below the largest logit others are still wanted. Infinity asks for all of those that are allowed.
        within: f32,
        /// The tokens among which the largest are looked for; `None` stands for the whole vocabulary. Where these are
        /// few, their logits alone are computed.
        allowed: Option<Arc<TokenSet>>,
        /// Tokens whose logits are wanted however small they are. Ids outside the vocabulary are ignored.
        forced: Vec<u32>,
    },
    /// No logits. [`Logits::Hidden`] is found instead.
    Hidden,
}

impl LogitsRequest {
    /// Asks for the largest logit alone.
    pub fn largest() -> LogitsRequest {
        LogitsRequest::Largest { count: 1, within: 0.0, allowed: None, forced: Vec::new() }
    }

    /// Asks for the logits of tokens of a set alone: for the largest among them, or for all of them.
    pub fn among(self, set: &Arc<TokenSet>) -> LogitsRequest {
        let allowed = Some(set.clone());
        match self {
            LogitsRequest::All => {
                LogitsRequest::Largest { count: 1, within: f32::INFINITY, allowed, forced: Vec::new() }
            }
            LogitsRequest::Largest { count, within, mut forced, .. } => {
                forced.retain(|&id| set.contains(id));
                LogitsRequest::Largest { count, within, allowed, forced }
            }
            LogitsRequest::Hidden => LogitsRequest::Hidden,
        }
    }
}

/// Logits after a token, or what the head would compute them from.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// All logits, `[vocab_size]`.
    All(&'a [f32]),
    /// The logits that were asked for and perhaps some others, in the order of ids. Each has the same bits as among all
    /// logits.
    Candidates(&'a [Candidate]),
    /// The hidden state after the model's last norm, `[hidden_dim]`: see [`LogitsRequest::Hidden`].
    Hidden(&'a [f32]),
}

impl Logits<'_> {
    /// The token with the largest logit, the first of several; `None` where there are no logits.
    pub(super) fn largest(&self) -> Option<u32> {
        let greater = |best: Candidate, c: Candidate| if c.logit > best.logit { c } else { best };
        let best = match *self {
            Logits::All(values) => {
                let all = values.iter().enumerate();
                all.map(|(id, &logit)| Candidate { id: id as u32, logit }).reduce(greater)
            }
            Logits::Candidates(candidates) => candidates.iter().copied().reduce(greater),
            Logits::Hidden(_) => None,
        };
        best.map(|best| best.id)
    }

    /// Whether all are finite numbers.
    pub(super) fn are_finite(&self) -> bool {
        match self {
            Logits::All(values) | Logits::Hidden(values) => all_finite(values),
            Logits::Candidates(candidates) => candidates.iter().all(|c| c.logit.is_finite()),
        }
    }
}

/// Whether all values are finite. The loop has no branch, so that a whole vocabulary takes some microseconds.
pub(super) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !values.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT))
}

/// The logits of one row that a sequence keeps. The memory is used again for later rows.
#[derive(Clone, Default)]
pub(super) struct OwnLogits {
    /// All logits, or the hidden state.
    values: Vec<f32>,
    candidates: Vec<Candidate>,
    kind: Kind,
}

/// Which of [`Logits`] a row has.
#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    All,
    Candidates,
    Hidden,
}

impl OwnLogits {
    pub fn set(&mut self, logits: Logits) {
        match logits {
            Logits::All(values) | Logits::Hidden(values) => {
                self.values.clear();
                self.values.extend_from_slice(values);
            }
            Logits::Candidates(candidates) => {
                self.candidates.clear();
                self.candidates.extend_from_slice(candidates);
            }
        }
        self.kind = match logits {
            Logits::All(_) => Kind::All,
            Logits::Candidates(_) => Kind::Candidates,
            Logits::Hidden(_) => Kind::Hidden,
        };
    }

    pub fn get(&self) -> Logits<'_> {
        match self.kind {
            Kind::All => Logits::All(&self.values),
            Kind::Candidates => Logits::Candidates(&self.candidates),
            Kind::Hidden => Logits::Hidden(&self.values),
        }
    }
}
