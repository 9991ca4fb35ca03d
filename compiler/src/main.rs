//! The `tritc` command: compiles checkpoints to bundles, and looks into bundles.
#![forbid(unsafe_code)]

mod bar;
mod cli;
mod commands;
mod scripts;
mod version;

use clap::Parser;
use commands::Failure;
use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use trit_text::printable::{escape, escape_lines};
use tritc::CompileError;

#[global_allocator]
static ALLOCATOR: tritc::EndsWhereMemoryEnds = tritc::EndsWhereMemoryEnds;

fn main() -> ExitCode {
    trit_command::panics::report("tritc");
    let arguments = cli::Arguments::parse();
    #[cfg(unix)]
    tritc::ingest::explain_truncated_files();
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
            let error = CompileError::Io { path: "standard output".into(), source };
            report(&error);
            ExitCode::from(error.exit_code())
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The error and what caused it, where its own message does not say that already.
fn report(error: &CompileError) {
    let mut message = match error {
        CompileError::Output(output) => format!("tritc: {}", trit_command::remedy::output(output)),
        _ => format!("tritc: {error}"),
    };
    let mut cause = error.source();
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
