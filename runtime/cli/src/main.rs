//! `trit-run`: runs `.trit` bundles.
//!
//! Arguments enter as [`args`] describes them; each command is a module whose `run` gives the exit code or a
//! [`Failure`]. Results go to standard output, everything else to standard error.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod chat;
mod failure;
mod generate;
#[cfg(feature = "guide")]
mod grammar;
mod interrupt;
mod json_file;
mod logits;
mod mistaken;
mod open;
mod perplexity;
mod profile;
mod prompt_cache;
mod remedies;
mod scripts;
mod selftest;
#[cfg(feature = "serve")]
mod serve;
mod template;
mod tokenize;
mod values;
mod version;

use args::{Cli, Command};
use clap::Parser;
use failure::{Failure, note_lines};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use trit_runtime::text::printable::escape_lines;

/// What is said of a bundle that was cut off while it was mapped.
const CHANGED: &str = "changed while it was running: it was cut off, or its disk failed; copy it again";

fn main() -> ExitCode {
    trit_command::truncation::report("trit-run", CHANGED);
    trit_command::panics::report("trit-run");
    interrupt::clean_up_when_killed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answer_line(&answer),
    };
    // A panic of a worker is printed where it happens. Here it gets the documented exit code.
    let result = catch_unwind(AssertUnwindSafe(|| run(&cli)));
    match result
        .unwrap_or_else(|_| Err(Failure::internal("stopped by a defect; please report the message above")))
    {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Answers a line that asks for help or the version, or makes no sense.
fn answer_line(answer: &clap::Error) -> ExitCode {
    if !answer.use_stderr() {
        return answer.print().map_or_else(|e| Failure::stdout(e).report(), |()| ExitCode::SUCCESS);
    }
    if let Some(meant) = mistaken::line(answer) {
        return Failure::usage(meant).report();
    }
    let plain = answer.render().to_string();
    // The answer repeats what was typed, and a shell may have filled that in from file names.
    if escape_lines(&plain) == plain {
        // Where standard error is closed there is nobody to tell.
        let _ = answer.print();
    } else {
        note_lines(plain);
    }
    ExitCode::from(2)
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        None => generate::run(&cli.generate),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Perplexity(args)) => perplexity::run(args),
        Some(Command::Logits(args)) => logits::run(args),
        Some(Command::Selftest(args)) => selftest::run(args),
        #[cfg(feature = "serve")]
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Tokenize(args)) => tokenize::run(args),
        Some(Command::Template(args)) => template::run(args),
        Some(Command::Completions(args)) => scripts::completions(args),
        Some(Command::Man(args)) => scripts::man(args),
    }
}
