//! What a program that compiles does when it is asked to end: no unfinished file stays behind.

use crate::writer::abandon_and_exit;

/// From here on, Ctrl-C, SIGTERM and SIGHUP (a terminal that closes) end the process with 128 and the signal's number, and
/// first remove the temporary files of bundles that are being written. A signal that was ignored from the start, as `nohup`
/// does, stays ignored. For programs: it takes the signals' handlers.
#[cfg(unix)]
pub fn leave_nothing_behind() {
    use crate::ingest::is_ignored;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    let wait = || {
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
        if let Ok(mut signals) = Signals::new(wanted)
            && let Some(signal) = signals.forever().next()
        {
            // As shells report it.
            abandon_and_exit(128 + signal)
        }
    };
    // Handlers are set by the thread that listens: without it, the signals do what they did before.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
}

/// From here on, Ctrl-C ends the process with 130, and first removes the temporary files of bundles that are being written.
#[cfg(not(unix))]
pub fn leave_nothing_behind() {
    // Without a handler Ctrl-C still ends the process.
    let _ = ctrlc::set_handler(|| abandon_and_exit(130));
}
