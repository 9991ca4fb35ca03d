//! What the block that drafts tokens knows of a text, and how it guesses the tokens after it.
//!
//! Row `p` of the block takes token `p + 1` and the model's hidden state after token `p`. So the block follows the model
//! through a text: every pass of the model leaves hidden states, and each waits until the token after it is known. Guesses
//! go on with the block's own hidden states; those rows are taken back afterwards, because the model's states for them come
//! later. What was guessed changes no token, so the block may miss parts of a text: it then guesses less well.

use super::Engine;
use super::core::{Chunk, Core, Steps};
use super::logits::{Logits, LogitsRequest};
use super::sequence::{Sequence, SequenceOptions};
use crate::RuntimeError;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How many hidden states may wait. Those of a prompt then run, those of tokens that came one by one are dropped: nobody
/// asks for guesses, which would have used them.
const WAITING: usize = 64;
/// From how many rows of a pass on they are a prompt's.
const PROMPT: usize = 16;

/// A text as the block has followed it.
pub(super) struct Follower {
    /// The block's rows, which are a sequence of its own.
    rows: Sequence,
    /// For each row the position of the token whose hidden state it came with.
    positions: Vec<usize>,
    /// Hidden states that no row has come with: those after the tokens from position `from` on.
    states: Vec<Vec<f32>>,
    from: usize,
    /// How many came last.
    newest: usize,
}

/// A guess: a token, and the block's hidden state before it.
struct Guess {
    id: u32,
    state: Vec<f32>,
}

impl Follower {
    /// Takes the hidden states after the tokens from `position` on.
    pub fn push(&mut self, position: usize, states: Vec<Vec<f32>>) {
        if self.from + self.states.len() != position {
            self.states.clear();
            self.from = position;
        }
        self.newest = states.len();
        self.states.extend(states);
    }

    /// Forgets all that comes from tokens after the first `position`.
    pub fn truncate(&mut self, position: usize) {
        let rows = self.positions.partition_point(|&at| at + 1 < position);
        self.positions.truncate(rows);
        self.rows.truncate(rows);
        self.states.truncate(position.saturating_sub(self.from));
    }

    /// The same for a sequence with the first `position` tokens.
    pub fn fork(&self, position: usize) -> Follower {
        let rows = self.rows.fork(self.rows.position());
        let (positions, states) = (self.positions.clone(), self.states.clone());
        let mut fork = Follower { rows, positions, states, ..*self };
        fork.truncate(position);
        fork
    }

    /// Bytes that it would take from the system for `count` more tokens.
    pub fn missing(&self, count: usize) -> usize {
        self.rows.missing(self.states.len() + count)
    }
}

impl Sequence {
    /// Lets the block that drafts tokens follow this sequence from here on, where the model has one.
    pub(crate) fn let_block_follow(&mut self) {
        let model = self.model().draft().filter(|_| self.follower.is_none()).cloned();
        let options = SequenceOptions { context: Some(self.context_length()), ..self.options() };
        if let Some(Ok(rows)) = model.map(|model| Sequence::counted(model, options, &self.cache.live())) {
            let (positions, states) = (Vec::new(), Vec::new());
            self.follower = Some(Box::new(Follower { rows, positions, states, from: 0, newest: 0 }));
        }
    }

    /// Whether hidden states are wanted of every pass.
    pub(super) fn is_followed(&self) -> bool {
        self.follower.is_some()
    }

    /// Takes the hidden states after the last tokens.
    pub(super) fn follow(&mut self, states: Vec<Vec<f32>>) {
        let position = self.position() - states.len();
        if let Some(follower) = &mut self.follower {
            follower.push(position, states);
        }
    }
}

impl Core {
    /// Runs the block for hidden states that wait, where they are many. It no longer follows the sequence where its cache
    /// could not hold them.
    pub fn let_follow(&mut self, sequence: &mut Sequence, stop: &AtomicBool) -> Result<(), RuntimeError> {
        let Some(mut follower) = sequence.follower.take_if(|follower| follower.states.len() > WAITING) else {
            return Ok(());
        };
        if follower.newest < PROMPT {
            let dropped = follower.states.len() - WAITING / 2;
            follower.states.drain(..dropped);
            follower.from += dropped;
            sequence.follower = Some(follower);
            return Ok(());
        }
        // The last token is not known whose state is the last.
        let ids = &sequence.tokens[follower.from + 1..];
        let ran = self.run_block(&mut follower, ids, false, stop);
        if !matches!(ran, Ok(None)) {
            sequence.follower = Some(follower);
        }
        ran.map(drop)
    }

    /// Guesses the tokens after `next`, which comes after the sequence's last token.
    fn draft(
        &mut self,
        sequence: &mut Sequence,
        next: u32,
        most: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<u32>, RuntimeError> {
        let position = sequence.position();
        let is_ready = |follower: &mut Box<Follower>| {
            !follower.states.is_empty() && follower.from + follower.states.len() == position
        };
        let Some(mut follower) = sequence.follower.take_if(is_ready) else { return Ok(Vec::new()) };
        let last = follower.states.last().cloned();
        let ids = [&sequence.tokens[follower.from + 1..], &[next]].concat();
        let guesses = self.guesses(&mut follower, &ids, most, stop);
        // Another token than `next` may come, so the row with it goes too, and its state waits again.
        follower.truncate(position);
        (follower.from, follower.states) = (position - 1, last.into_iter().collect());
        if !matches!(guesses, Ok(None)) {
            sequence.follower = Some(follower);
        }
        Ok(guesses?.unwrap_or_default())
    }

    /// Guesses up to `most` tokens after `ids`, which come after the waiting states; `None` as [`Core::run_block`].
    fn guesses(
        &mut self,
        follower: &mut Follower,
        ids: &[u32],
        most: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<u32>>, RuntimeError> {
        let mut guesses = Vec::new();
        let mut ids = ids.to_vec();
        loop {
            let Some(guess) = self.run_block(follower, &ids, true, stop)? else { return Ok(None) };
            let Some(Guess { id, state }) = guess else { return Ok(Some(guesses)) };
            guesses.push(id);
            if guesses.len() >= most || follower.rows.position() == follower.rows.context_length() {
                return Ok(Some(guesses));
            }
            follower.states.push(state);
            ids = vec![id];
        }
    }

    /// Runs the block for tokens that come after the first waiting states, and guesses the token after the last of them
    /// where that is wanted. `None` where its cache could not hold them, or the guess is no number.
    fn run_block(
        &mut self,
        follower: &mut Follower,
        ids: &[u32],
        guessing: bool,
        stop: &AtomicBool,
    ) -> Result<Option<Option<Guess>>, RuntimeError> {
        let Some(core) = self.draft.as_deref_mut() else { return Ok(None) };
        let model: Arc<_> = follower.rows.model().clone();
        let (largest, hidden) = (LogitsRequest::largest(), LogitsRequest::Hidden);
        let mut guess = None;
        let mut left = ids;
        while !left.is_empty() {
            let (ids, after) = left.split_at(left.len().min(core.arena.capacity()));
            let last = ids.len() - 1;
            if follower.rows.reserve(ids.len()).is_err() {
                return Ok(None);
            }
            let states: Vec<f32> = follower.states.drain(..ids.len()).flatten().collect();
            let wanted = guessing && after.is_empty();
            let requests = if wanted { vec![(last, &largest), (last, &hidden)] } else { Vec::new() };
            let position = follower.rows.position();
            let chunk = Chunk { hidden: &states, requests, ..Chunk::of(&follower.rows, position, ids) };
            let found = core.pass(&model, &[chunk], &Steps::All, stop)?;
            if found.ran[0] < ids.len() {
                return Ok(None);
            }
            let (mut id, mut state) = (None, Vec::new());
            for (_, _, logits) in core.logits(&model, &found) {
                match logits {
                    other if !other.are_finite() => return Ok(None),
                    Logits::Hidden(values) => state = values.to_vec(),
                    logits => id = logits.largest(),
                }
            }
            guess = id.map(|id| Guess { id, state });
            follower.rows.append(ids, ids.len(), ids.len());
            follower.positions.extend(follower.from..follower.from + ids.len());
            follower.from += ids.len();
            left = after;
        }
        Ok(Some(guess))
    }
}

impl Engine {
    /// Guesses up to `most` tokens after `next`, which is to come after the sequence's last token. They are none where no
    /// block follows the sequence, or where it has not seen the last token.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`] while `stop` is set, [`RuntimeError::Changed`] where the bundle's file was changed,
    /// [`RuntimeError::System`] where memory is refused.
    pub(crate) fn draft(
        &self,
        sequence: &mut Sequence,
        next: u32,
        most: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<u32>, RuntimeError> {
        match most {
            0 => Ok(Vec::new()),
            _ => self.core().draft(sequence, next, most, stop),
        }
    }
}
