//! The command `trit-run` as a library, so that another program can be it too: the one that comes with the Python package.
//!
//! A program calls [`own_process`] and then [`run_command`]. Both take the process for their own: commands take Ctrl-C,
//! read standard input, print, and end the process where a signal says so. Whoever wants to run bundles inside of a
//! program of their own uses `trit-runtime`.
//!
//! Arguments enter as `args` describes them; each command is a module whose `run` gives the exit code or a `Failure`.
//! Results go to standard output, everything else to standard error.
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
mod own;
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
use clap::{CommandFactory, FromArgMatches};
use failure::{DONE, Failure, USAGE, note_lines};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use trit_command::names::{self, Names, names};
use trit_runtime::text::printable::escape_lines;

/// What is said of a bundle that was cut off while it was mapped.
const CHANGED: &str = "changed while it was running: it was cut off, or its disk failed; copy it again";

/// Sets what a process has once: its hook for panics, and its handlers of SIGBUS, SIGTERM and SIGHUP. Messages begin with
/// the program's name, so [`trit_command::names::set`] comes before.
pub fn own_process() {
    let program = names().runtime_program();
    trit_command::truncation::report(program, CHANGED);
    trit_command::panics::report(program);
    interrupt::clean_up_when_killed();
}

/// All that the program does: [`own_process`], then [`run_command`], with the bundle after the executable where there is
/// one.
pub fn run_program(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let found = own::look();
    if own::program().is_some() {
        names::set(Names { runtime: called(&arguments), ..names() });
    }
    own_process();
    match found {
        Ok(()) => run_command(arguments),
        Err((path, problem)) => Failure::invalid(&path, problem).report(),
    }
}

/// How a program with a bundle in it was called, without the folder.
fn called(arguments: &[OsString]) -> &'static str {
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    // It lasts as long as the process.
    Box::leak(
        name.map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned()).into_boxed_str(),
    )
}

/// The definition of the command line.
pub fn command() -> clap::Command {
    let command = Cli::command().display_name(names().runtime);
    match own::program() {
        Some(_) => own::without_bundles(command),
        None => command,
    }
}

/// Runs a command line and gives the exit code. The first of `arguments` is how the program was called: help and usage
/// say it. No panic leaves this function.
pub fn run_command(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(program) = own::program() {
        arguments = own::with_bundle(&command(), arguments, program);
    }
    let parsed = command().try_get_matches_from(&arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(answer) => return answer_line(&answer, &arguments),
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
fn answer_line(answer: &clap::Error, arguments: &[OsString]) -> u8 {
    if !answer.use_stderr() {
        return answer.print().map_or_else(|e| Failure::stdout(e).report(), |()| DONE);
    }
    if let Some(meant) = mistaken::line(answer, arguments) {
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
    USAGE
}

fn run(cli: &Cli) -> Result<u8, Failure> {
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
