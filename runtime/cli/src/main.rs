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
mod interrupt;
mod logits;
mod open;
mod perplexity;
mod profile;
mod selftest;
mod template;
mod tokenize;

use args::{Cli, Command};
use clap::Parser;
use failure::Failure;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A worker's panic is printed where it happens; its exit code is the documented one.
    let result = catch_unwind(AssertUnwindSafe(|| run(&cli)));
    match result
        .unwrap_or_else(|_| Err(Failure::internal("stopped by a defect; please report the message above")))
    {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        None => generate::run(&cli.generate),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Perplexity(args)) => perplexity::run(args),
        Some(Command::Logits(args)) => logits::run(args),
        Some(Command::Selftest(args)) => selftest::run(args),
        Some(Command::Tokenize(args)) => tokenize::run(args),
        Some(Command::Template(args)) => template::run(args),
    }
}
