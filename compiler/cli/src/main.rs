//! The `tritc` command: compiles checkpoints to bundles, and looks into bundles.
//!
//! `unsafe` stands in 2 files: `allocator.rs` (ending where memory ends), `truncated.rs` (the handler of the signal for a
//! mapped file that was cut off). The others deny it.
#![deny(unsafe_code)]

mod allocator;
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

use clap::Parser;
use failure::{CommandError, Failure};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use trit_text::printable::{escape, escape_lines};

#[global_allocator]
static ALLOCATOR: allocator::EndsWhereMemoryEnds = allocator::EndsWhereMemoryEnds;

fn main() -> ExitCode {
    trit_command::panics::report("tritc");
    let arguments = arguments::Arguments::parse();
    #[cfg(unix)]
    truncated::explain_truncated_files();
    match commands::run(arguments) {
        Ok(text) => print(&text),
        Err(Failure { error, text }) => {
            print(&text);
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what a command has to say, without what a terminal would obey. Whoever reads it may stop reading, as `head`
/// does.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(escape_lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            let error = CommandError::Output(source);
            report(&error);
            ExitCode::from(error.exit_code())
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The error and what caused it, where its own message does not say that already.
fn report(error: &CommandError) {
    let mut message = format!("tritc: {error}");
    let mut cause = error.cause();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message += &format!(": {text}");
        }
        cause = error.source();
    }
    // Where standard error is closed too there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", escape(&message));
}
