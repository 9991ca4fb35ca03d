//! Requests for the logits after a token, and the logits that answer them.

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
        /// How far below the largest logit others are still wanted.
        within: f32,
        /// Tokens whose logits are wanted however small they are. Ids outside the vocabulary are ignored.
        forced: Vec<u32>,
    },
}

impl LogitsRequest {
    /// Asks for the largest logit alone.
    pub fn largest() -> LogitsRequest {
        LogitsRequest::Largest { count: 1, within: 0.0, forced: Vec::new() }
    }
}

/// Logits after a token.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// All logits, `[vocab_size]`.
    All(&'a [f32]),
    /// The logits that were asked for and perhaps some others, in the order of ids. Each has the same bits as among all
    /// logits.
    Candidates(&'a [Candidate]),
}

impl Logits<'_> {
    /// Whether all are finite numbers.
    pub(super) fn are_finite(&self) -> bool {
        match self {
            Logits::All(logits) => all_finite(logits),
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
    all: Vec<f32>,
    candidates: Vec<Candidate>,
    is_all: bool,
}

impl OwnLogits {
    pub fn set(&mut self, logits: Logits) {
        match logits {
            Logits::All(logits) => {
                self.all.clear();
                self.all.extend_from_slice(logits);
                self.is_all = true;
            }
            Logits::Candidates(candidates) => {
                self.candidates.clear();
                self.candidates.extend_from_slice(candidates);
                self.is_all = false;
            }
        }
    }

    pub fn get(&self) -> Logits<'_> {
        match self.is_all {
            true => Logits::All(&self.all),
            false => Logits::Candidates(&self.candidates),
        }
    }
}
