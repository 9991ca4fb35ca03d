//! Bytes of values that are alive on this thread.
//!
//! Values count themselves when they are made and when they are dropped, so that a template which keeps what it makes
//! is stopped, and one which makes much and keeps little is not.

use std::cell::Cell;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

pub fn charge(bytes: usize) {
    LIVE.with(|live| live.set(live.get().saturating_add(bytes)));
}

pub fn release(bytes: usize) {
    LIVE.with(|live| live.set(live.get().saturating_sub(bytes)));
}

pub fn live() -> usize {
    LIVE.with(Cell::get)
}
