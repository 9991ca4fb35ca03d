//! What a rendering may take: steps, bytes, depth and time. The user can also end it.
//!
//! Templates come from strangers. Every step of the evaluator spends from one budget. Filters and methods pay in proportion to
//! the bytes and items that they touch, and they pay before they touch them.

use super::error::{Error, Kind, Result};
use super::memory;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Steps of one rendering: some hundred times what a conversation of a thousand messages takes, and a second or two.
const STEPS: u64 = 20_000_000;

/// Longest text, in bytes: the prompt, or anything made on the way to it. A hundred times the longest context in use.
const TEXT: usize = 64 << 20;

/// Bytes of values alive at one time.
const MEMORY: usize = 256 << 20;

/// Calls of the evaluator inside of each other. One takes less than a kilobyte of the stack.
const DEPTH: u32 = 400;

const TIME: Duration = Duration::from_secs(10);

/// Steps between two looks at the clock and at the user.
const POLL: u64 = 2_000;

/// Bytes that are copied in the time of a step.
const COPIED: usize = 256;

pub struct Budget<'a> {
    steps: Cell<u64>,
    until_poll: Cell<u64>,
    depth: Cell<u32>,
    text: usize,
    memory: usize,
    end: Instant,
    interrupted: &'a dyn Fn() -> bool,
}

fn exhausted<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Budget, message))
}

impl<'a> Budget<'a> {
    /// `input` is the size of what is rendered, in bytes: a long conversation may take more.
    pub fn new(input: usize, interrupted: &'a dyn Fn() -> bool) -> Budget<'a> {
        Budget {
            steps: Cell::new(STEPS + input as u64),
            until_poll: Cell::new(POLL),
            depth: Cell::new(0),
            text: TEXT + 2 * input,
            memory: memory::live() + MEMORY + 8 * input,
            end: Instant::now() + TIME,
            interrupted,
        }
    }

    /// # Errors
    /// Where the budget is spent, or the user asks to stop.
    pub fn spend(&self, steps: usize) -> Result<()> {
        let steps = steps as u64 + 1;
        match self.steps.get().checked_sub(steps) {
            Some(left) => self.steps.set(left),
            None => return exhausted("the template takes too many steps; it may never end"),
        }
        match self.until_poll.get().checked_sub(steps) {
            Some(left) => self.until_poll.set(left),
            None => return self.poll(),
        }
        Ok(())
    }

    fn poll(&self) -> Result<()> {
        self.until_poll.set(POLL);
        if (self.interrupted)() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        if memory::live() > self.memory {
            return exhausted(format!("the template keeps more than {} MiB of values", MEMORY >> 20));
        }
        if Instant::now() > self.end {
            return exhausted(format!("the template takes longer than {} s", TIME.as_secs()));
        }
        Ok(())
    }

    /// Asks for room for a text of so many bytes that is about to be made.
    pub fn text(&self, bytes: usize) -> Result<()> {
        self.grown(bytes, bytes)
    }

    /// Asks for room for a text that is about to grow to so many bytes, by so many.
    pub fn grown(&self, bytes: usize, by: usize) -> Result<()> {
        if bytes > self.text {
            return exhausted(format!("the template makes a text of more than {} MiB", self.text >> 20));
        }
        self.room(bytes)?;
        self.spend(by / COPIED)
    }

    /// Asks for room for a list of so many items.
    pub fn items(&self, items: usize) -> Result<()> {
        self.room(items.saturating_mul(64))?;
        self.spend(items)
    }

    fn room(&self, bytes: usize) -> Result<()> {
        if memory::live().saturating_add(bytes) > self.memory {
            return exhausted(format!("the template keeps more than {} MiB of values", MEMORY >> 20));
        }
        Ok(())
    }

    /// Pays for looking at each byte of a text.
    pub fn scan(&self, bytes: usize) -> Result<()> {
        self.spend(bytes / 16)
    }

    /// Enters a call of the evaluator; [`Budget::leave`] ends it.
    pub fn enter(&self) -> Result<()> {
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > DEPTH {
            return exhausted("the template calls itself too deep");
        }
        self.spend(0)
    }

    pub fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}
