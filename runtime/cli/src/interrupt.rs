//! Ctrl-C stops what is being generated; where nothing is, it ends the program. SIGTERM and a lost terminal end the program.
//! In each case no unfinished file stays, and the terminal is left as it was. A server ends in its own time: see [`drain_by`].

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Once, OnceLock};
use trit_command::signals;
use trit_runtime::text::output::Unfinished;

/// Nothing runs that could be stopped without ending the program.
const IDLE: u8 = 0;
/// Something runs that looks at [`Stoppable::requested`].
const RUNNING: u8 = 1;
/// The user wants it to stop.
const REQUESTED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// What [`flag`] gives.
static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// What the first signal asks for, where it is not an end at once.
static DRAIN: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// A flag that is set while something is to stop. [`trit_runtime::Session::interrupt_by`] takes it.
pub fn flag() -> Arc<AtomicBool> {
    FLAG.clone()
}

/// The files that are being written: they are removed when the process is told to end.
pub fn unfinished() -> &'static Unfinished {
    static UNFINISHED: LazyLock<Unfinished> = LazyLock::new(Unfinished::default);
    &UNFINISHED
}

/// While this lives, the first Ctrl-C is a request; the second ends the program.
pub struct Stoppable(());

/// Begins something that can be stopped.
///
/// The signal is taken over the first time that this is called, not when the program starts, because the line editor takes it
/// when it is made and would keep it.
pub fn stoppable() -> Stoppable {
    static INSTALL: Once = Once::new();
    // Before the signal is taken over: whoever sees that it is may send one at once.
    FLAG.store(false, Relaxed);
    STATE.store(RUNNING, Relaxed);
    INSTALL.call_once(|| {
        // If no handler can be set, Ctrl-C ends the program at once, and nothing is lost.
        let _ = ctrlc::set_handler(|| match STATE.compare_exchange(RUNNING, REQUESTED, Relaxed, Relaxed) {
            Ok(_) => {
                FLAG.store(true, Relaxed);
                if let Some(drain) = DRAIN.get() {
                    drain();
                }
            }
            Err(_) => signals::end_interrupted(unfinished()),
        });
    });
    Stoppable(())
}

/// Begins something that ends in its own time: the first signal of any kind calls `drain`, the second ends the program.
#[cfg(feature = "serve")]
pub fn drain_by(drain: impl Fn() + Send + Sync + 'static) -> Stoppable {
    // A program serves once.
    let _ = DRAIN.set(Box::new(drain));
    stoppable()
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
        FLAG.store(false, Relaxed);
    }
}

/// Takes over the signals that ask a program to end. The line editor changes how the terminal reads; when a signal ends the
/// program, the editor cannot change it back, so this does.
#[cfg(unix)]
pub fn clean_up_when_killed() {
    use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
    use nix::unistd::{getpgrp, tcgetpgrp};
    use std::io::{self, IsTerminal, Write};
    let saved = tcgetattr(io::stdin()).ok();
    signals::clean_up_when_killed(signals::Interrupts::Apart, unfinished(), move || {
        if let Some(drain) = DRAIN.get()
            && STATE.compare_exchange(RUNNING, REQUESTED, Relaxed, Relaxed).is_ok()
        {
            drain();
            return signals::Told::WillEnd;
        }
        // In the background, the terminal belongs to another program, and changing it would stop this one.
        let Some(saved) = saved.as_ref().filter(|_| tcgetpgrp(io::stdin()) == Ok(getpgrp())) else {
            return signals::Told::Ends;
        };
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, saved);
        if io::stderr().is_terminal() {
            // Ends bracketed paste, which the line editor begins. It is not written to standard output, which may be locked.
            let _ = io::stderr().write_all(b"\x1b[?2004l\n");
        }
        signals::Told::Ends
    });
}

/// Nothing asks that way here.
#[cfg(not(unix))]
pub fn clean_up_when_killed() {}
