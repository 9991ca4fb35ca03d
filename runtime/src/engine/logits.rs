//! What is asked of the logits after a token, and what is found.

/// A token with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

/// Which logits after a token are to be known. The others need not be computed.
#[derive(Clone, Debug, PartialEq)]
pub enum LogitsRequest {
    /// Every one.
    All,
    /// The `count` largest, and those less than `within` below the largest.
    Largest {
        /// How many, at least 1.
        count: usize,
        /// How far below the largest.
        within: f32,
        /// Tokens whose logits are wanted however small. What is outside the vocabulary is passed over.
        forced: Vec<u32>,
    },
}

impl LogitsRequest {
    /// The largest logit alone.
    pub fn largest() -> LogitsRequest {
        LogitsRequest::Largest { count: 1, within: 0.0, forced: Vec::new() }
    }
}

/// Logits after a token.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// All, `[vocab_size]`.
    All(&'a [f32]),
    /// Those asked for, perhaps with others, each with the logit it has among all; by id.
    Candidates(&'a [Candidate]),
}

impl Logits<'_> {
    /// Whether all are numbers.
    pub(super) fn are_finite(&self) -> bool {
        match self {
            Logits::All(logits) => all_finite(logits),
            Logits::Candidates(candidates) => candidates.iter().all(|c| c.logit.is_finite()),
        }
    }
}

/// Without a branch, so that a vocabulary takes some microseconds.
pub(super) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !values.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT))
}

/// The logits of one row, in memory that is used again.
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
