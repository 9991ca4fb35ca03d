//! What the outside sees of a scheduler.

use std::time::{Duration, Instant};

/// Counters since the start of a scheduler, and what is used now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Requests that have ended: their answers came to an end, they were cancelled, or they failed.
    pub finished: u64,
    /// See [`Statistics::finished`].
    pub cancelled: u64,
    /// See [`Statistics::finished`].
    pub failed: u64,
    /// Requests that wait for a slot.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Most requests that run at a time.
    pub slots: usize,
    /// Tokens of prompts that ran. What was preempted and ran again counts again.
    pub prompt_tokens: u64,
    /// Tokens of prompts that did not have to run.
    pub cached_tokens: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Tokens that were drafted, and how many of them were accepted.
    pub drafted_tokens: u64,
    /// See [`Statistics::drafted_tokens`].
    pub accepted_tokens: u64,
    /// How often a request lost its cache because memory was short.
    pub preempted: u64,
    /// Texts that are kept in memory for requests that begin alike.
    pub kept_texts: usize,
    /// How many such texts had to go.
    pub evicted_texts: u64,
    /// Bytes of KV caches and recurrent states of all texts.
    pub kv_bytes: usize,
    /// Most of these bytes.
    pub kv_memory: usize,
    /// Steps of the engine, and how long they took.
    pub steps: u64,
    /// See [`Statistics::steps`].
    pub busy: Duration,
}

/// A request that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The number of the request, from 1.
    pub request: u64,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// How many tokens of its text have run.
    pub position: usize,
    /// Tokens that were generated.
    pub generated: usize,
    /// When it was taken.
    pub arrived: Instant,
}

/// Weight of the newest request in the running mean of how long requests take.
const NEW: f64 = 0.1;

/// What was published last.
pub(super) struct Board {
    pub statistics: Statistics,
    pub slots: Vec<Slot>,
    /// Running mean of the seconds that a request has a slot.
    mean: f64,
}

impl Board {
    pub fn new(slots: usize, kv_memory: usize) -> Board {
        let statistics = Statistics { slots, kv_memory, ..Statistics::default() };
        Board { statistics, slots: Vec::new(), mean: 1.0 }
    }

    /// Learns how long a request had a slot.
    pub fn took(&mut self, time: Duration) {
        self.mean += NEW * (time.as_secs_f64() - self.mean);
    }

    /// When one of `waiting` requests will have got a slot, so that there is room for another.
    pub fn retry_after(&self, waiting: usize) -> Duration {
        let slots = self.statistics.slots.max(1);
        let seconds = self.mean / slots as f64 * (1.0 + waiting as f64 / slots as f64);
        Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
    }
}
