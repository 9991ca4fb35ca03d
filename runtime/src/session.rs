//! One sequence on an engine: what a single text needs.

use crate::engine::{Engine, EngineOptions, KvType, Logits, LogitsRequest, Sequence, SequenceOptions};
use crate::load::Model;
use crate::{Profile, RuntimeError};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How a session runs.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Longest sequence in tokens; by default what the model was made for.
    pub context: Option<usize>,
    /// Worker threads; by default as many as the system grants this process, and never more but with `oversubscribe`.
    pub threads: Option<usize>,
    /// Start all of `threads`, even where they must share cores: slower, and of use only to test with.
    pub oversubscribe: bool,
    /// Element type of the KV cache; see [`Session::widened`].
    pub kv: KvType,
    /// Tokens of a prompt that run together.
    pub chunk: usize,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        let EngineOptions { threads, oversubscribe, rows: chunk } = EngineOptions::default();
        SessionOptions { context: None, threads, oversubscribe, kv: KvType::F16, chunk }
    }
}

/// A sequence with an engine to run it, its own or a shared one.
pub struct Session {
    engine: Arc<Engine>,
    sequence: Sequence,
    stop: Arc<AtomicBool>,
}

impl Session {
    /// A new, empty sequence, with an engine of its own.
    ///
    /// # Errors
    /// [`RuntimeError::Context`] and [`RuntimeError::Input`] where an option is out of range, [`RuntimeError::System`]
    /// where threads are refused.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session, RuntimeError> {
        let SessionOptions { context, threads, oversubscribe, kv, chunk } = options;
        let sequence = Sequence::new(model.clone(), SequenceOptions { context, kv })?;
        let rows = chunk.min(sequence.context_length());
        let engine = Engine::new(model, EngineOptions { threads, oversubscribe, rows })?;
        Ok(Session { engine: Arc::new(engine), sequence, stop: Arc::default() })
    }

    /// A new, empty sequence on an engine that others may use, too.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub fn on(engine: Arc<Engine>, options: SequenceOptions) -> Result<Session, RuntimeError> {
        let sequence = engine.sequence(options)?;
        Ok(Session { engine, sequence, stop: Arc::default() })
    }

    /// A session on the same engine whose sequence begins with the first `position` tokens of this one: see
    /// [`Sequence::fork`].
    pub fn fork(&self, position: usize) -> Session {
        let sequence = self.sequence.fork(position);
        Session { engine: self.engine.clone(), sequence, stop: self.stop.clone() }
    }

    /// Lets another thread end what the session does: while `stop` is set, passes end between two steps, the sequence
    /// is again as it was before the call, and the call gives [`RuntimeError::Interrupted`]. Whoever sets it resets it.
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

    /// Begins to measure where the engine's time goes, or begins anew.
    pub fn start_profile(&mut self) {
        self.engine.start_profile();
    }

    /// What was measured since [`Session::start_profile`].
    pub fn profile(&self) -> Option<Profile> {
        self.engine.profile()
    }

    /// Ends that, and gives what was measured.
    pub fn stop_profile(&mut self) -> Option<Profile> {
        self.engine.stop_profile()
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// Tokens in the sequence so far.
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

    /// Tokens of a prompt that run together at most.
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

    /// The position from which on the KV cache is one of f32, because f16 cannot hold the keys or values there.
    pub fn widened(&self) -> Option<usize> {
        self.sequence.widened()
    }

    /// Forgets all but the first `position` tokens; a shorter sequence stays as it is.
    pub fn truncate(&mut self, position: usize) {
        self.sequence.truncate(position);
    }

    /// Appends a prompt and gives the logits after its last token, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for no tokens or one outside the vocabulary, [`RuntimeError::ContextFull`],
    /// [`RuntimeError::NotFinite`] where a logit is no number, [`RuntimeError::System`] where memory is refused,
    /// [`RuntimeError::Interrupted`]. The sequence is unchanged then.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], RuntimeError> {
        self.advance(ids, &[LogitsRequest::All])?;
        match self.logits(0) {
            Some(Logits::All(logits)) => Ok(logits),
            _ => unreachable!("all were asked for"),
        }
    }

    /// Appends one token and gives the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], RuntimeError> {
        self.prefill(&[id])
    }

    /// Appends tokens and finds of the logits after each of the last `requests.len()` of them what its request says:
    /// see [`Session::logits`].
    ///
    /// # Errors
    /// As [`Session::prefill`], and [`RuntimeError::Input`] for more requests than tokens or than [`Session::chunk`].
    pub fn advance(&mut self, ids: &[u32], requests: &[LogitsRequest]) -> Result<(), RuntimeError> {
        self.engine.advance(&mut self.sequence, ids, requests, Some(&self.stop))
    }

    /// Appends the token `last` and those `drafted` to follow it, and finds what each request says, as
    /// [`Session::advance`] does, after as many as can be run. Gives how many, at least 1: others may be wrong guesses,
    /// of which nothing is to remain.
    ///
    /// # Errors
    /// As [`Session::prefill`], by `last` alone.
    pub(crate) fn advance_drafted(
        &mut self,
        last: u32,
        drafted: &[u32],
        requests: &[LogitsRequest],
    ) -> Result<usize, RuntimeError> {
        let ids = [&[last], drafted].concat();
        let mut batch = crate::engine::Batch::new();
        batch.interrupt_by(&self.stop);
        batch.push_drafted(&mut self.sequence, &ids, drafted.len(), requests);
        self.engine.step(&mut batch)?.remove(0)
    }

    /// What [`Session::advance`] was asked for after the `row`th of its rows that it was asked about; `None` where it
    /// was not.
    pub fn logits(&self, row: usize) -> Option<Logits<'_>> {
        self.sequence.logits(row)
    }

    /// Appends tokens and hands the logits after each to `each`, with its index in `ids`. Where it is interrupted, some
    /// have been handed out already.
    ///
    /// # Errors
    /// As [`Session::prefill`]; logits before the first that are no numbers have been handed over then.
    pub fn forward_all(
        &mut self,
        ids: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.engine.each_logits(&mut self.sequence, ids, each, Some(&self.stop))
    }

    /// Runs one layer alone on hidden states `[tokens, hidden_dim]` at positions `0..tokens`, and gives the hidden
    /// states after it. For looking into a model; the sequence stays as it is.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there is no such layer or `hidden` has another shape,
    /// [`RuntimeError::Interrupted`].
    pub fn run_layer(&mut self, layer: usize, hidden: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        let options = SequenceOptions { context: Some(self.context_length()), kv: self.sequence.kv() };
        self.engine.run_layer(layer, hidden, options, Some(&self.stop))
    }
}
