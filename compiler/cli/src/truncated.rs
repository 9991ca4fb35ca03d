//! A checkpoint that gets shorter while it is mapped ends the program in a message, not in SIGBUS without a word.

use trit_command::names::names;
use trit_command::truncation;

/// From here on, a mapped file that gets shorter while it is read ends the process with exit code 3 and a message that
/// names it.
pub fn explain_truncated_files() {
    truncation::report(
        names().compiler,
        "got shorter while it was read, or cannot be read from its disk any more. No bundle was written; compile again when \
         nothing writes to it",
    );
    tritc::files::on_mapping(|path, bytes| Box::new(truncation::enter(path, bytes)));
}
