//! A batch: the tokens of several sequences that run together in one step.

use super::logits::{Logits, LogitsRequest};
use super::sequence::Sequence;
use crate::RuntimeError;
use std::sync::atomic::AtomicBool;

/// The rows of one step. They are tokens of any mix of sequences: chunks of prompts beside single tokens.
#[derive(Default)]
pub struct Batch<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) stop: Option<&'a AtomicBool>,
}

/// A function that receives the logits of a row, and the index of the row among its part's ids.
pub(super) type LogitsReceiver<'a> = dyn FnMut(usize, Logits) + 'a;

/// The rows of one sequence.
pub(super) struct Part<'a> {
    pub sequence: &'a mut Sequence,
    pub ids: &'a [u32],
    /// What is asked of the logits after the last rows: one request for each.
    pub requests: &'a [LogitsRequest],
    /// How many of the last tokens are drafted.
    pub drafted: usize,
    /// A function that receives the logits. Without one, the sequence keeps them.
    pub each: Option<&'a mut LogitsReceiver<'a>>,
    /// Tokens appended so far.
    pub done: usize,
    pub error: Option<RuntimeError>,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub fn new() -> Batch<'a> {
        Batch::default()
    }

    /// Adds a part to the batch: the step appends `ids` to `sequence`. `requests` belong to the last `requests.len()`
    /// tokens; each says which logits after its token are to be found, and [`Sequence::logits`] gives them afterwards.
    /// Returns the index of the part in what [`Engine::step`](super::Engine::step) returns.
    pub fn push(
        &mut self,
        sequence: &'a mut Sequence,
        ids: &'a [u32],
        requests: &'a [LogitsRequest],
    ) -> usize {
        self.push_drafted(sequence, ids, 0, requests)
    }

    /// As [`Batch::push`], but the last `drafted` tokens are drafts. If one of them cannot be run, the step ends before
    /// it for this sequence, and that is no error. The first token never counts as a draft.
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

    /// Lets another thread end the step: while `stop` is set, it ends between two steps of the model's plan, and no
    /// sequence changes.
    pub fn interrupt_by(&mut self, stop: &'a AtomicBool) {
        self.stop = Some(stop);
    }

    /// How many tokens all parts have together.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.ids.len()).sum()
    }

    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether the batch has no parts.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Part<'_> {
    /// Whether rows that are no drafts are left to run.
    pub fn is_open(&self) -> bool {
        self.error.is_none() && self.done < self.ids.len() - self.drafted
    }

    /// The request for a row of `ids`, if there is one.
    pub fn request(&self, row: usize) -> Option<&LogitsRequest> {
        let unasked = self.ids.len() - self.requests.len();
        row.checked_sub(unasked).map(|asked| &self.requests[asked])
    }

    /// Whether a row is a draft, which may fail to run without an error.
    pub fn is_drafted(&self, row: usize) -> bool {
        row >= self.ids.len() - self.drafted
    }
}
