//! The engine: runs many sequences on one model.
//!
//! An [`Engine`] owns what a process needs once: threads, the arena that steps work in, RoPE tables. A [`Sequence`]
//! owns what one text needs: its tokens and its KV cache. A [`Batch`] says which tokens of which sequences run in one
//! [`Engine::step`]. The step reads the weights from memory once for all of them, and each sequence gets exactly the
//! logits that it would get alone.
//!
//! ```no_run
//! # use trit_runtime::{Batch, Engine, EngineOptions, LoadOptions, LogitsRequest, Model, SequenceOptions, RuntimeError};
//! # fn main() -> Result<(), RuntimeError> {
//! let model = Model::load("fables-12m.trit".as_ref(), &LoadOptions::default())?;
//! let engine = Engine::new(model, EngineOptions::default())?;
//! let mut first = engine.sequence(SequenceOptions::default())?;
//! let mut second = engine.sequence(SequenceOptions::default())?;
//! let request = [LogitsRequest::largest()];
//! let mut batch = Batch::new();
//! batch.push(&mut first, &[4093, 46, 1218, 605], &request);
//! batch.push(&mut second, &[4093, 46], &request);
//! for ran in engine.step(&mut batch)? {
//!     ran?;
//! }
//! println!("{:?} {:?}", first.logits(0), second.logits(0));
//! # Ok(())
//! # }
//! ```

mod arena;
mod asked;
mod attend;
mod batch;
mod core;
mod dense_linear;
mod elementwise;
mod embed;
mod execute;
mod finite;
mod follower;
mod kv;
mod live;
mod logits;
mod pool;
pub(crate) mod profile;
mod quantizing;
mod recur;
mod ropes;
pub mod saved;
mod screening;
mod sequence;
pub(crate) mod state;
mod step;
mod ternary;
mod token_set;
mod turns;

pub use batch::Batch;
pub use embed::Pooling;
pub use kv::KvType;
pub use logits::{Candidate, Logits, LogitsRequest};
pub use sequence::{Sequence, SequenceOptions};
pub use state::StateType;
pub use token_set::TokenSet;

use self::core::Core;
use self::live::LiveBytes;
use self::turns::{Turn, Turns};
use crate::RuntimeError;
use crate::load::Model;
use profile::Profile;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How an engine runs.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Worker threads. By default they are as many as the system grants this process; they are never more, unless
    /// `oversubscribe` is set.
    pub threads: Option<usize>,
    /// Starts all of `threads`, even where they must share cores. That is slower, and useful only for tests.
    pub oversubscribe: bool,
    /// Most rows of a step. Address space for their activations is reserved; the system provides the memory as it is
    /// used.
    pub rows: usize,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { threads: None, oversubscribe: false, rows: 512 }
    }
}

/// A model with the threads and the memory to run it. One engine suffices for a process.
///
/// An engine can be shared between threads by reference. Its steps run one after the other, in the order in which they are
/// asked for.
pub struct Engine {
    model: Arc<Model>,
    threads: usize,
    rows: usize,
    /// The memory of its sequences.
    live: LiveBytes,
    /// In the order in which steps are asked for, they run.
    turns: Turns,
    core: Mutex<Core>,
}

/// The core, for the length of a turn. It is given back before the turn is.
struct Taken<'a> {
    core: MutexGuard<'a, Core>,
    _turn: Turn<'a>,
}

impl Deref for Taken<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Engine {
    /// Starts the threads, and reserves memory for the options' rows.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where an option is out of range, [`RuntimeError::System`] where threads or memory are
    /// refused.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Engine, RuntimeError> {
        if options.rows == 0 {
            return Err(RuntimeError::Input("a step needs at least 1 row".into()));
        }
        let granted = pool::granted();
        let threads = match options.threads {
            None => granted,
            Some(threads) if options.oversubscribe => threads,
            Some(threads) => threads.min(granted),
        };
        let longest = model.manifest().hyperparameters.context_length as usize;
        let rows = options.rows.min(longest);
        let core = Mutex::new(Core::new(&model, threads, rows)?);
        Ok(Engine { model, threads, rows, live: LiveBytes::default(), turns: Turns::default(), core })
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Most rows of a step.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that KV caches and recurrent states take of all sequences that were made by [`Engine::sequence`], or are
    /// forks of these. What sequences share counts once.
    pub fn sequence_bytes(&self) -> usize {
        self.live.get()
    }

    /// A new, empty sequence of the engine's model.
    ///
    /// # Errors
    /// As [`Sequence::new`].
    pub fn sequence(&self, options: SequenceOptions) -> Result<Sequence, RuntimeError> {
        Sequence::counted(self.model.clone(), options, &self.live)
    }

    /// Runs the rows of a batch in one pass, or in several where a cache must be widened in between. Returns one result
    /// for each part. It is the number of tokens that were appended, which are all tokens of the part except perhaps
    /// some drafted ones; or it is the error for which none was appended. The part's sequence has not changed then, and
    /// the other parts have run.
    ///
    /// # Errors
    /// No sequence has changed where the step itself fails. It fails with [`RuntimeError::Input`] where there are more
    /// rows than [`Engine::rows`], [`RuntimeError::Interrupted`] (see [`Batch::interrupt_by`]),
    /// [`RuntimeError::Changed`] where the bundle's file was changed, [`RuntimeError::System`] where memory is refused.
    ///
    /// A part fails with [`RuntimeError::Input`] for no tokens, a token outside the vocabulary, more requests than
    /// tokens, or a sequence of another model; with [`RuntimeError::ContextFull`]; with [`RuntimeError::NotFinite`]
    /// where a logit is no finite number; and with [`RuntimeError::System`] where memory for its cache is refused.
    pub fn step(&self, batch: &mut Batch) -> Result<Vec<Result<usize, RuntimeError>>, RuntimeError> {
        self.core().step(&self.model, self.rows, batch)
    }

    /// Appends any number of tokens to one sequence, in as many steps as they need. `requests` belong to the last
    /// `requests.len()` tokens; each says which logits after its token are to be found. While `stop` is set, the call
    /// ends.
    ///
    /// # Errors
    /// Those of [`Engine::step`] and of its parts, and [`RuntimeError::Input`] for more requests than a step has rows.
    /// The sequence has not changed then.
    pub fn advance(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        requests: &[LogitsRequest],
        stop: Option<&AtomicBool>,
    ) -> Result<(), RuntimeError> {
        let start = sequence.position();
        let result = self.advance_by_steps(sequence, ids, requests, stop);
        if result.is_err() {
            sequence.truncate(start);
            sequence.forget_logits();
        }
        result
    }

    fn advance_by_steps(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        requests: &[LogitsRequest],
        stop: Option<&AtomicBool>,
    ) -> Result<(), RuntimeError> {
        sequence.check(ids)?;
        if requests.len() > ids.len().min(self.rows) {
            return Err(RuntimeError::Input(format!(
                "logits of {} rows are asked for, of {} tokens in steps of up to {}",
                requests.len(),
                ids.len(),
                self.rows
            )));
        }
        // The last step must hold all rows that are asked for logits.
        let last = ((ids.len() - 1) % self.rows + 1).max(requests.len());
        let (before, last) = ids.split_at(ids.len() - last);
        for (chunk, requests) in
            before.chunks(self.rows).map(|chunk| (chunk, &[][..])).chain([(last, requests)])
        {
            let mut batch = Batch { stop, ..Batch::new() };
            batch.push(sequence, chunk, requests);
            self.step(&mut batch)?.into_iter().collect::<Result<Vec<usize>, RuntimeError>>()?;
        }
        Ok(())
    }

    /// Appends tokens to one sequence. Calls `each` for every token, with its index in `ids` and all logits after it,
    /// `[vocab_size]`.
    ///
    /// # Errors
    /// Those of [`Engine::advance`]. `each` has then been called for the tokens before the error.
    pub fn each_logits(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
        stop: Option<&AtomicBool>,
    ) -> Result<(), RuntimeError> {
        sequence.check(ids)?;
        let start = sequence.position();
        let all = vec![LogitsRequest::All; self.rows.min(ids.len())];
        for (index, chunk) in ids.chunks(self.rows).enumerate() {
            let mut batch = Batch { stop, ..Batch::new() };
            let mut hand_over = |row: usize, logits: Logits| {
                if let Logits::All(logits) = logits {
                    each(index * self.rows + row, logits);
                }
            };
            batch.push(sequence, chunk, &all[..chunk.len()]);
            batch.parts[0].each = Some(&mut hand_over);
            let result = self.step(&mut batch);
            drop(batch);
            if let Err(error) = result.and_then(|mut parts| parts.remove(0)) {
                sequence.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs one layer alone on hidden states `[tokens, hidden_dim]` at positions `0..tokens`, and returns the hidden
    /// states after it. This is for looking into a model.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there is no such layer or `hidden` has another shape,
    /// [`RuntimeError::Interrupted`] while `stop` is set.
    pub fn run_layer(
        &self,
        layer: usize,
        hidden: &[f32],
        options: SequenceOptions,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>, RuntimeError> {
        self.core().run_layer(self.sequence(options)?, layer, hidden, stop)
    }

    /// Starts to measure where time goes. What was measured before is dropped.
    pub fn start_profile(&self) {
        self.core().profile = Some(Profile::default());
    }

    /// What was measured since [`Engine::start_profile`]; `None` where nothing is measured.
    pub fn profile(&self) -> Option<Profile> {
        self.core().profile.clone()
    }

    /// Stops measuring, and returns what was measured.
    pub fn stop_profile(&self) -> Option<Profile> {
        self.core().profile.take()
    }

    fn core(&self) -> Taken<'_> {
        let turn = self.turns.wait();
        Taken { core: self.core.lock().unwrap_or_else(PoisonError::into_inner), _turn: turn }
    }
}
