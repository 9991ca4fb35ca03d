//! What runs together in one step.

use super::logits::LogitsRequest;
use super::sequence::Sequence;
use crate::RuntimeError;
use std::sync::atomic::AtomicBool;

/// Rows of a step: tokens of any mix of sequences, parts of prompts and single tokens.
#[derive(Default)]
pub struct Batch<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) stop: Option<&'a AtomicBool>,
}

/// The rows of one sequence.
pub(super) struct Part<'a> {
    pub sequence: &'a mut Sequence,
    pub ids: &'a [u32],
    /// For the last rows, one each.
    pub requests: &'a [LogitsRequest],
    /// How many of the last tokens are drafted.
    pub drafted: usize,
    /// Takes the logits, with the index of their row in `ids`; else the sequence keeps them.
    pub each: Option<&'a mut dyn FnMut(usize, super::Logits)>,
    /// Tokens appended so far.
    pub done: usize,
    pub error: Option<RuntimeError>,
}

impl<'a> Batch<'a> {
    /// No rows.
    pub fn new() -> Batch<'a> {
        Batch::default()
    }

    /// Appends `ids` to `sequence` in the step, and finds of the logits after each of the last `requests.len()` of them what
    /// its request says: see [`Sequence::logits`]. Gives the part's index in what [`Engine::step`](super::Engine::step) returns.
    pub fn push(
        &mut self,
        sequence: &'a mut Sequence,
        ids: &'a [u32],
        requests: &'a [LogitsRequest],
    ) -> usize {
        self.push_drafted(sequence, ids, 0, requests)
    }

    /// As [`Batch::push`], where the last `drafted` of the tokens are guesses: where one of them cannot be run, the step ends
    /// before it for this sequence, which is no error. At least one token is none.
    pub fn push_drafted(
        &mut self,
        sequence: &'a mut Sequence,
        ids: &'a [u32],
        drafted: usize,
        requests: &'a [LogitsRequest],
    ) -> usize {
        let drafted = drafted.min(ids.len().saturating_sub(1));
        self.parts.push(Part { sequence, ids, requests, drafted, each: None, done: 0, error: None });
        self.parts.len() - 1
    }

    /// While `stop` is set, the step ends between two of the model's steps, and no sequence changes.
    pub fn interrupt_by(&mut self, stop: &'a AtomicBool) {
        self.stop = Some(stop);
    }

    /// Tokens of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.ids.len()).sum()
    }

    /// Parts.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Part<'_> {
    /// Whether rows are left to run.
    pub fn is_open(&self) -> bool {
        self.error.is_none() && self.done < self.ids.len() - self.drafted
    }

    /// The request for a row of `ids`, if there is one.
    pub fn request(&self, row: usize) -> Option<&LogitsRequest> {
        let unasked = self.ids.len() - self.requests.len();
        row.checked_sub(unasked).map(|asked| &self.requests[asked])
    }

    /// Whether a row may be missing in the end.
    pub fn is_drafted(&self, row: usize) -> bool {
        row >= self.ids.len() - self.drafted
    }
}
