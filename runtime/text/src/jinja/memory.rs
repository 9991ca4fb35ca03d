//! Bytes of values that are alive on this thread.
//!
//! Every value adds itself when it is made and takes itself away when it is dropped. So a template that keeps too much is
//! stopped, and one that makes much and keeps little is not.

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
