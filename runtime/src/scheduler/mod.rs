//! The scheduler: many requests share one engine.
//!
//! Requests join and leave between steps of the engine (continuous batching; Yu et al. 2022, Orca). A step runs a token of
//! every answer that is being generated, and beside them as many tokens of prompts as lengthen the step by no more than a
//! fixed factor. What each request gets does not depend on the others: its tokens are those that it would get alone.
//!
//! The KV caches of texts that were run stay in memory as long as there is room ([`SchedulerOptions::kv_memory`]), and a
//! request that begins with the same tokens shares their pages. Where memory is short, the texts that were not used for
//! the longest time go first. Then the youngest requests wait: they lose their caches, keep their text, and run it again
//! when there is room. An answer that a guide restricts waits for the guide alone; others go on. Users take turns by the work that was done for them (Sheng et al. 2024, virtual token counters).
//!
//! ```no_run
//! # use std::ops::ControlFlow;
//! # use trit_runtime::scheduler::{Event, Request, Scheduler, SchedulerOptions};
//! # use trit_runtime::{Engine, EngineOptions, LoadOptions, Model};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("fables-12m.trit".as_ref(), &LoadOptions::default())?;
//! let request = Request::new(&model, vec![4093, 46, 1218, 605]);
//! let scheduler = Scheduler::new(Engine::new(model, EngineOptions::default())?, SchedulerOptions::default())?;
//! let (sender, events) = std::sync::mpsc::channel();
//! let ticket = scheduler.submit(request, move |event| match sender.send(event) {
//!     Ok(()) => ControlFlow::Continue(()),
//!     Err(_) => ControlFlow::Break(()),
//! })?;
//! for event in events {
//!     if let Event::Token(chosen) = event {
//!         println!("{}", chosen.id);
//!     }
//! }
//! # drop(ticket);
//! # Ok(())
//! # }
//! ```

mod board;
mod fair;
mod guided;
mod job;
mod pace;
mod prefixes;
mod request;
mod saved;
mod work;

pub use board::{Slot, Statistics};
pub use request::{Chosen, Ended, Event, Refused, Request, RequestError};

use crate::engine::{Engine, Sequence, SequenceOptions};
use crate::{RuntimeError, available};
use board::Board;
use job::Job;
use prefixes::Prefixes;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use work::Work;

/// How many requests run at a time, and what they may take.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Most requests that run at a time.
    pub slots: usize,
    /// Most requests that wait while all slots are taken.
    pub queue: usize,
    /// Most bytes that KV caches and recurrent states of all texts take. By default they are half of the memory that the
    /// system still grants, or what full slots need, whichever is less.
    pub kv_memory: Option<usize>,
    /// The options of every request's sequence.
    pub sequence: SequenceOptions,
    /// Whether to draft tokens where that saves time. The tokens are the same either way.
    pub draft: bool,
}

impl Default for SchedulerOptions {
    fn default() -> SchedulerOptions {
        // A branch of a conversation is worth a snapshot, and so is the end of each of the last turns.
        let sequence = SequenceOptions { snapshots: 4, ..SequenceOptions::default() };
        SchedulerOptions { slots: 16, queue: 256, kv_memory: None, sequence, draft: true }
    }
}

/// Runs requests on an engine, in a thread of its own.
pub struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and the thread share.
struct Shared {
    engine: Arc<Engine>,
    options: SchedulerOptions,
    /// [`SchedulerOptions::kv_memory`].
    kv_memory: usize,
    /// Most tokens of a text: what the options say, and no more than fit into the memory.
    context: usize,
    desk: Mutex<Desk>,
    /// Tells the thread that there is something to do.
    wake: Condvar,
    board: Mutex<Board>,
    /// Texts that were run before. Never locked together with the desk or the board.
    prefixes: Mutex<Prefixes>,
}

/// Where requests arrive.
struct Desk {
    /// Requests that wait for a slot, in the order in which they came. Those that were preempted stand in front.
    waiting: Vec<Job>,
    /// Requests that run.
    running: usize,
    /// Requests so far, which numbers them.
    requests: u64,
    /// Whether something was cancelled since the thread looked.
    cancelled: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Draining,
    Stopping,
}

impl Shared {
    /// The options of a text's sequence.
    fn sequence_options(&self) -> SequenceOptions {
        SequenceOptions { context: Some(self.context), ..self.options.sequence }
    }

    /// An empty sequence for a text.
    fn sequence(&self) -> Result<Sequence, RuntimeError> {
        self.engine.sequence(self.sequence_options())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prefixes(&self) -> MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scheduler {
    /// Starts the thread. The engine is the scheduler's own, or is shared with other users, whose steps take turns with
    /// those of the requests.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there are no slots, or more than a step of the engine has rows, or where the memory
    /// for KV caches holds no text at all; [`RuntimeError::Context`]; [`RuntimeError::System`] where the thread is refused.
    pub fn new(engine: impl Into<Arc<Engine>>, options: SchedulerOptions) -> Result<Scheduler, RuntimeError> {
        let engine = engine.into();
        if !(1..=engine.rows()).contains(&options.slots) {
            let (slots, rows) = (options.slots, engine.rows());
            return Err(RuntimeError::Input(format!(
                "{slots} slots; a step of this engine takes 1 to {rows}"
            )));
        }
        let empty = engine.sequence(options.sequence)?;
        let longest = empty.context_length();
        let snapshots = options.sequence.snapshots * engine.model().state_bytes();
        let full = empty.missing(longest) + snapshots;
        let kv_memory = options.kv_memory.unwrap_or_else(|| {
            let wanted = full.saturating_mul(options.slots);
            available().map_or(wanted, |free| wanted.min(free / 2))
        });
        let fits = |tokens: &usize| empty.missing(*tokens) <= kv_memory;
        let (mut context, mut more) = (0, longest);
        // The largest number of tokens that fit, by halving.
        while context < more {
            let middle = context + (more - context).div_ceil(2);
            match fits(&middle) {
                true => context = middle,
                false => more = middle - 1,
            }
        }
        if context == 0 {
            return Err(RuntimeError::Input(format!(
                "{kv_memory} bytes for KV caches hold no text; the shortest takes {}",
                empty.missing(1)
            )));
        }
        let desk =
            Desk { waiting: Vec::new(), running: 0, requests: 0, cancelled: false, state: State::Open };
        let shared = Arc::new(Shared {
            board: Mutex::new(Board::new(options.slots, kv_memory)),
            prefixes: Mutex::default(),
            engine,
            options,
            kv_memory,
            context,
            desk: Mutex::new(desk),
            wake: Condvar::new(),
        });
        let work = Work::new(shared.clone());
        let started = std::thread::Builder::new().name("scheduler".into()).spawn(move || work.run());
        let thread = started.map_err(|e| RuntimeError::Threads { count: 1, problem: e.to_string() })?;
        Ok(Scheduler { shared, thread: Some(thread) })
    }

    /// The engine that the requests run on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    /// How it was started.
    pub fn options(&self) -> &SchedulerOptions {
        &self.shared.options
    }

    /// Most bytes that KV caches and recurrent states take.
    pub fn kv_memory(&self) -> usize {
        self.shared.kv_memory
    }

    /// Most tokens of a text, its answer included.
    pub fn context_length(&self) -> usize {
        self.shared.context
    }

    /// Hands a request over. `receive` is called with everything that becomes of it, by the scheduler's thread, which
    /// waits until it returns. Where it returns `Break`, the request is cancelled.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit(
        &self,
        request: Request,
        receive: impl FnMut(Event) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Ticket, Refused> {
        let shared = &self.shared;
        shared.sequence()?.check(&request.ids)?;
        let mut desk = shared.desk();
        if desk.state != State::Open {
            return Err(Refused::Draining);
        }
        let free = shared.options.slots.saturating_sub(desk.running);
        if desk.waiting.len() >= shared.options.queue + free {
            let waiting = desk.waiting.len();
            drop(desk);
            return Err(Refused::Full { waiting, retry_after: shared.board().retry_after(waiting) });
        }
        desk.requests += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job::new(desk.requests, request, Box::new(receive), cancelled.clone());
        desk.waiting.push(job);
        shared.wake.notify_one();
        Ok(Ticket { shared: shared.clone(), cancelled })
    }

    /// Counters since the start, and what is used now.
    pub fn statistics(&self) -> Statistics {
        let (waiting, running) = {
            let desk = self.shared.desk();
            (desk.waiting.len(), desk.running)
        };
        let kv_bytes = self.shared.engine.sequence_bytes();
        Statistics { waiting, running, kv_bytes, ..self.shared.board().statistics.clone() }
    }

    /// What runs now.
    pub fn slots(&self) -> Vec<Slot> {
        self.shared.board().slots.clone()
    }

    /// Takes no more requests. Those that were taken run to their end.
    pub fn drain(&self) {
        let mut desk = self.shared.desk();
        if desk.state == State::Open {
            desk.state = State::Draining;
        }
    }
}

impl Drop for Scheduler {
    /// Ends the thread after its step. Requests that have not ended then end with [`RequestError::Stopped`].
    fn drop(&mut self) {
        self.shared.desk().state = State::Stopping;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened, and its requests have ended.
            let _ = thread.join();
        }
    }
}

/// A request that was taken. It is cancelled when this is dropped; one that has ended does not mind.
#[must_use = "a request is cancelled when its ticket is dropped"]
pub struct Ticket {
    shared: Arc<Shared>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.cancelled.swap(true, Ordering::Relaxed) {
            self.shared.desk().cancelled = true;
            self.shared.wake.notify_one();
        }
    }
}
