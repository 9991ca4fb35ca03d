//! Ctrl-C: stops what is being generated, or else the program.

use crate::failure::INTERRUPTED;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Nothing runs that could be stopped alone.
const IDLE: u8 = 0;
/// Something runs that looks at [`Stoppable::requested`].
const RUNNING: u8 = 1;
/// The user wants it to stop.
const REQUESTED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// While this lives, the first Ctrl-C is a request; the second ends the program.
pub struct Stoppable(());

/// Begins something that can be stopped.
///
/// The signal is taken over the first time, not when the program starts: the line editor takes it when it is made,
/// and would keep it.
pub fn stoppable() -> Stoppable {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // Where there is no handler, Ctrl-C ends the program at once: nothing is lost.
        let _ = ctrlc::set_handler(|| {
            if STATE.compare_exchange(RUNNING, REQUESTED, Relaxed, Relaxed).is_err() {
                std::process::exit(INTERRUPTED.into());
            }
        });
    });
    STATE.store(RUNNING, Relaxed);
    Stoppable(())
}

impl Stoppable {
    /// Whether the user wants it to stop.
    pub fn requested(&self) -> bool {
        STATE.load(Relaxed) == REQUESTED
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        STATE.store(IDLE, Relaxed);
    }
}
