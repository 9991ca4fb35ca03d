//! Panics: a message that a terminal only shows, and none where a library turns the panic into an error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use trit_text::printable::escape_lines;

/// Sets the process's panic hook. A panic's message may repeat what a file says, so it is escaped; it begins with
/// `program`. A panic that `trit-text` expects and gives as an error ([`trit_text::panic_is_expected`]) prints nothing.
pub fn report(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        if trit_text::panic_is_expected() {
            return;
        }
        // Standard error may be closed; then there is nobody to tell.
        let _ = writeln!(io::stderr(), "{}", escape_lines(&format!("{program}: {panic}")));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = writeln!(io::stderr(), "{}", escape_lines(&backtrace.to_string()));
        }
    }));
}
