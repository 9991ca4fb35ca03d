//! The session: one sequence with an engine to run it, which is all that a single text needs.

use crate::engine::{
    Engine, EngineOptions, KvType, Logits, LogitsRequest, Sequence, SequenceOptions, StateType,
};
use crate::load::Model;
use crate::saved::SavedSequences;
use crate::{Profile, RuntimeError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trit_text::output::Unfinished;

/// How a session runs.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Most tokens of the sequence; by default the model's context length.
    pub context: Option<usize>,
    /// Worker threads. By default they are as many as the system grants this process; they are never more, unless
    /// `oversubscribe` is set.
    pub threads: Option<usize>,
    /// Starts all of `threads`, even where they must share cores. That is slower, and useful only for tests.
    pub oversubscribe: bool,
    /// Element type of the KV cache; see [`Session::widened`].
    pub kv: KvType,
    /// Most tokens of a prompt that run together.
    pub chunk: usize,
    /// See [`SequenceOptions::state`].
    pub state: StateType,
    /// See [`SequenceOptions::snapshots`].
    pub snapshots: usize,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        let EngineOptions { threads, oversubscribe, rows: chunk } = EngineOptions::default();
        let SequenceOptions { context, kv, state, snapshots } = SequenceOptions::default();
        SessionOptions { context, threads, oversubscribe, kv, chunk, state, snapshots }
    }
}

/// A sequence with an engine to run it. The engine is the session's own, or is shared with other sessions.
pub struct Session {
    engine: Arc<Engine>,
    sequence: Sequence,
    stop: Arc<AtomicBool>,
    /// The position behind the token whose logits were found last, and their row.
    found: Option<(usize, usize)>,
}

impl Session {
    /// A session with a new, empty sequence and an engine of its own.
    ///
    /// # Errors
    /// [`RuntimeError::Context`] and [`RuntimeError::Input`] where an option is out of range, [`RuntimeError::System`]
    /// where threads are refused.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session, RuntimeError> {
        let SessionOptions { context, threads, oversubscribe, kv, chunk, state, snapshots } = options;
        let sequence = Sequence::new(model.clone(), SequenceOptions { context, kv, state, snapshots })?;
        let rows = chunk.min(sequence.context_length());
        let engine = Engine::new(model, EngineOptions { threads, oversubscribe, rows })?;
        Ok(Session { engine: Arc::new(engine), sequence, stop: Arc::default(), found: None })
    }

    /// A session with a new, empty sequence on an engine that others may use too.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub fn on(engine: Arc<Engine>, options: SequenceOptions) -> Result<Session, RuntimeError> {
        let sequence = engine.sequence(options)?;
        Ok(Session { engine, sequence, stop: Arc::default(), found: None })
    }

    /// A session on the same engine whose sequence begins with the first `position` tokens of this one: see
    /// [`Sequence::fork`].
    pub fn fork(&self, position: usize) -> Session {
        let sequence = self.sequence.fork(position);
        Session { engine: self.engine.clone(), sequence, stop: self.stop.clone(), found: None }
    }

    /// Lets another thread end what the session does. While `stop` is set, a pass ends between two steps, the sequence
    /// becomes again what it was before the call, and the call returns [`RuntimeError::Interrupted`]. Whoever sets
    /// `stop` must also reset it.
    pub fn interrupt_by(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// The engine it runs on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Its sequence.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Starts to measure where the engine's time goes. What was measured before is dropped.
    pub fn start_profile(&mut self) {
        self.engine.start_profile();
    }

    /// What was measured since [`Session::start_profile`]; `None` where nothing is measured.
    pub fn profile(&self) -> Option<Profile> {
        self.engine.profile()
    }

    /// Stops measuring, and returns what was measured.
    pub fn stop_profile(&mut self) -> Option<Profile> {
        self.engine.stop_profile()
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// How many tokens the sequence has.
    pub fn position(&self) -> usize {
        self.sequence.position()
    }

    /// The tokens themselves.
    pub fn tokens(&self) -> &[u32] {
        self.sequence.tokens()
    }

    /// Most tokens the sequence can have.
    pub fn context_length(&self) -> usize {
        self.sequence.context_length()
    }

    /// Most tokens of a prompt that run together.
    pub fn chunk(&self) -> usize {
        self.engine.rows()
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.engine.threads()
    }

    /// Element type of the KV cache: the one that was asked for, or f32 after [`Session::widened`].
    pub fn kv(&self) -> KvType {
        self.sequence.kv()
    }

    /// The position from which on the KV cache stores f32, because f16 could not hold the keys or values there. `None`
    /// while the cache has the type that was asked for.
    pub fn widened(&self) -> Option<usize> {
        self.sequence.widened()
    }

    /// Forgets all but the first `position` tokens; a shorter sequence stays as it is.
    pub fn truncate(&mut self, position: usize) {
        if position < self.position() {
            self.found = None;
        }
        self.sequence.truncate(position);
    }

    /// Keeps a snapshot of the recurrent state at the present position: see [`Sequence::keep`].
    pub fn keep(&mut self) {
        self.sequence.keep();
    }

    /// Writes the sequence to a file that only its owner can read, so that another session need not run its tokens again.
    /// The file appears whole or not at all, and replaces no file of another kind. See [`saved`](crate::saved).
    ///
    /// # Errors
    /// As [`saved::save`](crate::saved::save).
    pub fn save(&self, path: &Path) -> Result<(), RuntimeError> {
        crate::saved::save(path, &[&self.sequence], &Unfinished::default())
    }

    /// Replaces the sequence by as much of `ids`, the tokens of the text that is to run, as a file holds. Returns how many
    /// of them that are. They are never all, because the last one must run to give logits. Where the file has nothing of
    /// the text, the sequence stays as it is, and the result is 0.
    ///
    /// # Errors
    /// As [`SavedSequences::open`] and [`SavedSequences::restore`]. The sequence stays as it is then.
    pub fn restore(&mut self, path: &Path, ids: &[u32]) -> Result<usize, RuntimeError> {
        let saved = SavedSequences::open(path, self.model())?;
        self.restore_from(&saved, ids)
    }

    /// As [`Session::restore`], from a file that was opened for the session's model.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where it was opened for another model, and as [`SavedSequences::restore`].
    pub fn restore_from(&mut self, saved: &SavedSequences, ids: &[u32]) -> Result<usize, RuntimeError> {
        let Some((index, known)) = saved.best(ids) else { return Ok(0) };
        self.found = None;
        self.sequence = saved.restore_on(&self.engine, index, known, self.sequence.asked())?;
        Ok(known)
    }

    /// Appends a prompt and returns the logits after its last token, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for no tokens or one outside the vocabulary, [`RuntimeError::ContextFull`],
    /// [`RuntimeError::NotFinite`] where a logit is no finite number, [`RuntimeError::System`] where memory is refused,
    /// [`RuntimeError::Interrupted`]. The sequence has not changed then.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], RuntimeError> {
        self.advance(ids, &[LogitsRequest::All])?;
        match self.logits(0) {
            Some(Logits::All(logits)) => Ok(logits),
            _ => unreachable!("all were asked for"),
        }
    }

    /// Appends one token and returns the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], RuntimeError> {
        self.prefill(&[id])
    }

    /// Appends tokens. `requests` belong to the last `requests.len()` of them; each says which logits after its token
    /// are to be found, and [`Session::logits`] gives them afterwards.
    ///
    /// # Errors
    /// As [`Session::prefill`], and [`RuntimeError::Input`] for more requests than tokens or than [`Session::chunk`].
    pub fn advance(&mut self, ids: &[u32], requests: &[LogitsRequest]) -> Result<(), RuntimeError> {
        self.found = None;
        self.engine.advance(&mut self.sequence, ids, requests, Some(&self.stop))?;
        self.found = requests.len().checked_sub(1).map(|row| (self.position(), row));
        Ok(())
    }

    /// Appends the token `last` and the tokens `drafted` after it, with a request for each, as [`Session::advance`]
    /// does. A draft that cannot be run ends the step without an error, because it may be wrong. Returns how many
    /// tokens were appended, at least 1.
    ///
    /// # Errors
    /// As [`Session::prefill`], for `last`; drafts cause no errors.
    pub(crate) fn advance_drafted(
        &mut self,
        last: u32,
        drafted: &[u32],
        requests: &[LogitsRequest],
    ) -> Result<usize, RuntimeError> {
        self.found = None;
        let ids = [&[last], drafted].concat();
        let mut batch = crate::engine::Batch::new();
        batch.interrupt_by(&self.stop);
        batch.push_drafted(&mut self.sequence, &ids, drafted.len(), requests);
        self.engine.step(&mut batch)?.remove(0)
    }

    /// Lets the block that drafts tokens follow the text from here on, where the model has one
    /// ([`Model::has_draft_block`]). Whatever is generated with drafts begins with this.
    pub fn let_block_follow(&mut self) {
        self.sequence.let_block_follow();
    }

    /// Guesses up to `most` tokens after `next`, which is to come after the last token. They are often none.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`], [`RuntimeError::Changed`] and [`RuntimeError::System`].
    pub fn draft(&mut self, next: u32, most: usize) -> Result<Vec<u32>, RuntimeError> {
        self.engine.draft(&mut self.sequence, next, most, &self.stop)
    }

    /// The logits that answer request `row` of the last [`Session::advance`]; `None` where it had no such request.
    pub fn logits(&self, row: usize) -> Option<Logits<'_>> {
        self.sequence.logits(row)
    }

    /// The logits after the last token, where the call that ran it asked for them. `None` where it did not, and where tokens
    /// were taken back since.
    pub fn last_logits(&self) -> Option<Logits<'_>> {
        self.logits(self.last_row()?)
    }

    /// The row of [`Session::last_logits`].
    pub(crate) fn last_row(&self) -> Option<usize> {
        self.found.filter(|(position, _)| *position == self.position()).map(|(_, row)| row)
    }

    /// Appends tokens, and calls `each` for every token with its index in `ids` and all logits after it. Where the call
    /// is interrupted, `each` has been called for some of them already.
    ///
    /// # Errors
    /// As [`Session::prefill`]. Where a logit is no finite number, `each` has been called for the tokens before.
    pub fn forward_all(
        &mut self,
        ids: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.found = None;
        self.engine.each_logits(&mut self.sequence, ids, each, Some(&self.stop))
    }

    /// Runs one layer alone on hidden states `[tokens, hidden_dim]` at positions `0..tokens`, and returns the hidden
    /// states after it. This is for looking into a model; the sequence does not change.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there is no such layer or `hidden` has another shape,
    /// [`RuntimeError::Interrupted`].
    pub fn run_layer(&mut self, layer: usize, hidden: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        self.engine.run_layer(layer, hidden, self.sequence.options(), Some(&self.stop))
    }
}
