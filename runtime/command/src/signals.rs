//! Signals that tell a process to end: unfinished files go first.

use trit_text::output::Unfinished;

/// Exit code after Ctrl-C: 128 and the signal's number, as shells count.
pub const INTERRUPTED: u8 = 130;

/// Whether Ctrl-C, too, ends the process at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// It does, with exit code [`INTERRUPTED`].
    Too,
    /// The program itself listens to it.
    Apart,
}

/// What a program does when it is told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It ends at once.
    Ends,
    /// It ends by itself, when it has done what it must.
    WillEnd,
}

/// Removes the files of `unfinished`, then ends the process with [`INTERRUPTED`]. For a program's own handler of Ctrl-C.
pub fn end_interrupted(unfinished: &Unfinished) {
    unfinished.abandon(|| std::process::exit(INTERRUPTED.into()));
}

/// Takes the handlers of the signals by which a process is told to end (SIGTERM) or loses its terminal (SIGHUP). From now
/// on such a signal runs `before`. Where that says so, it removes the files of `unfinished` and then ends the process as the
/// signal would have done without this. A signal that was ignored from the start, as `nohup` does, stays ignored.
pub fn clean_up_when_killed(
    interrupts: Interrupts,
    unfinished: &Unfinished,
    before: impl Fn() -> Told + Send + 'static,
) {
    let unfinished = unfinished.clone();
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let wait = move || {
            let wanted =
                [SIGTERM, SIGHUP].into_iter().chain((interrupts == Interrupts::Too).then_some(SIGINT));
            // Where the system refuses, the signal still ends the process: only files stay.
            let signals = signal_hook::iterator::Signals::new(wanted.filter(|&signal| !is_ignored(signal)));
            let Ok(mut signals) = signals else { return };
            for signal in signals.forever() {
                if before() == Told::WillEnd {
                    continue;
                }
                unfinished.abandon(|| {
                    if signal != SIGINT {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    std::process::exit(128 + signal);
                });
            }
        };
        // Handlers are set by the thread that listens: without it, the signals do what they did before.
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    }
    #[cfg(not(unix))]
    {
        let _ = before;
        if interrupts == Interrupts::Too {
            // Without a handler Ctrl-C still ends the process.
            let _ = ctrlc::set_handler(move || end_interrupted(&unfinished));
        }
    }
}

/// Whether whoever started this process wants it to go on in spite of the signal.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal n is bit n - 1. Where a system does not say, most programs are not started that way.
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
