//! The `tritc` command as a library, so that another program can be it too: the one that comes with the Python package.
//!
//! A program calls [`own_process`] and then [`run_command`]. Both take the process for their own: commands print, take
//! Ctrl-C while they compile, and end the process where a signal says so. Whoever wants to compile inside of a program
//! of their own uses `tritc`.
#![forbid(unsafe_code)]

mod arguments;
mod bar;
mod commands;
#[cfg(all(test, target_os = "linux"))]
mod disturbed;
mod failure;
mod scripts;
#[cfg(unix)]
mod truncated;
mod version;
mod words;

use arguments::Arguments;
use clap::{CommandFactory, FromArgMatches};
use failure::{CommandError, Failure};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use trit_command::names::names;
use trit_text::causes::with_causes;
use trit_text::printable::{escape, escape_lines};

/// Sets what a process has once: its hook for panics and its handler of SIGBUS. Messages begin with the program's name,
/// so [`trit_command::names::set`] comes before.
pub fn own_process() {
    trit_command::panics::report(names().compiler);
    #[cfg(unix)]
    truncated::explain_truncated_files();
}

/// The definition of the command line.
pub fn command() -> clap::Command {
    Arguments::command().display_name(names().compiler)
}

/// Runs a command line and gives the exit code. The first of `arguments` is how the program was called: help and usage
/// say it.
pub fn run_command(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let parsed = command().try_get_matches_from(arguments);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Where the output is closed there is nobody to tell.
            let _ = answer.print();
            return u8::try_from(answer.exit_code()).unwrap_or(2);
        }
    };
    match commands::run(arguments) {
        Ok(text) => print(&text),
        Err(Failure { error, text }) => {
            print(&text);
            report(&error);
            error.exit_code()
        }
    }
}

/// Prints what a command has to say, without what a terminal would obey. Whoever reads it may stop reading, as `head`
/// does.
fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(escape_lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            let error = CommandError::Output(source);
            report(&error);
            error.exit_code()
        }
        _ => 0,
    }
}

/// The error and what caused it, where its own message does not say that already.
fn report(error: &CommandError) {
    let message = with_causes(format!("{}: {error}", names().compiler), error.cause());
    // Where standard error is closed too there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", escape(&message));
}
