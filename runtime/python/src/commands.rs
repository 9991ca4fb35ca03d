//! `trit` and `python -m trit`: the commands of `tritc` and `trit-run` in one program.
//!
//! `trit compile`, `inspect`, `disasm` and `verify` are `tritc`'s; `trit run BUNDLE` is `trit-run BUNDLE`, and `trit-run`'s
//! commands stand beside it (`trit serve`), as well as behind it (`trit run serve`).

use crate::interrupt::defect;
use clap::Command;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use trit_command::names::{self, Names};
use trit_command::scripts;

/// What a user types.
const NAMES: Names = Names { compiler: "trit", runtime: "trit run" };
/// Commands of the program itself, which each of the two has for itself.
const OWN: [&str; 3] = ["completions", "man", "help"];
/// The exit code of a line that makes no sense.
const USAGE: u8 = 2;

/// Runs a command line, whose first item is the program's name, and gives the exit code. It takes the process for its
/// own: its signals, its panic hook, its standard input and output.
#[pyfunction]
#[pyo3(signature = (arguments, /))]
pub fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<u8> {
    py.detach(|| {
        let code = catch_unwind(AssertUnwindSafe(|| dispatch(arguments)));
        // Python ends the process without what the program does at its end.
        let _ = io::stdout().flush();
        code
    })
    .map_err(|panic| defect(&*panic))
}

/// Whose a command is.
enum Owner {
    Compiler,
    Runtime,
    Both,
}

fn dispatch(arguments: Vec<OsString>) -> u8 {
    names::set(NAMES);
    let words: Vec<&str> = arguments.iter().skip(1).take(2).map(|word| word.to_str().unwrap_or("")).collect();
    let rest = |from: usize| arguments.iter().skip(from).cloned();
    match words[..] {
        // What follows is a line for `trit-run`, unless it asks for what only the whole program has.
        ["run", own, ..] if OWN[..2].contains(&own) => {
            both(std::iter::once("trit".into()).chain(rest(2)).collect())
        }
        ["run", ..] => runtime("trit run", rest(2)),
        [word, ..] => match owner(word) {
            Owner::Compiler => compiler(rest(1)),
            Owner::Runtime => runtime("trit", rest(1)),
            Owner::Both => both(arguments),
        },
        [] => both(arguments),
    }
}

fn owner(word: &str) -> Owner {
    let has = |command: Command| !OWN.contains(&word) && command.find_subcommand(word).is_some();
    match () {
        () if has(tritc_cli::command()) => Owner::Compiler,
        () if has(trit_run::command()) => Owner::Runtime,
        () => Owner::Both,
    }
}

fn compiler(arguments: impl Iterator<Item = OsString>) -> u8 {
    tritc_cli::own_process();
    tritc_cli::run_command(std::iter::once("trit".into()).chain(arguments))
}

fn runtime(name: &str, arguments: impl Iterator<Item = OsString>) -> u8 {
    trit_run::own_process();
    trit_run::run_command(std::iter::once(name.into()).chain(arguments))
}

/// The whole program, for help and completions.
fn whole() -> Command {
    let run = trit_run::command().name("run").display_name("trit run").bin_name("trit run");
    let about = "Continue a text with a .trit bundle, or chat, as trit-run does";
    let not_own = |command: &&Command| !OWN.contains(&command.get_name());
    // Under `run` the commands are the same again.
    let run_alone = run.clone().about(about).long_about(about).mut_subcommands(|command| command.hide(true));
    let compiler: Vec<Command> = tritc_cli::command().get_subcommands().filter(not_own).cloned().collect();
    let runtime: Vec<Command> = run.get_subcommands().filter(not_own).cloned().collect();
    let commands = compiler.into_iter().chain([run_alone]).chain(runtime);
    let commands = commands.enumerate().map(|(at, command)| command.display_order(at));
    let shell = clap::Arg::new("shell")
        .required(true)
        .value_parser(clap::value_parser!(scripts::Shell))
        .help("The shell");
    let page = clap::Arg::new("command").help("One of the commands");
    Command::new("trit")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Ternary language models: compile them to bundles, run and serve bundles")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
        .subcommand(Command::new("completions").about("Print a completion script for a shell").arg(shell))
        .subcommand(
            Command::new("man")
                .about("Print the manual page of this program, or of one of its commands")
                .arg(page),
        )
}

fn both(arguments: Vec<OsString>) -> u8 {
    let matches = match whole().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(answer) => {
            // Where the output is closed there is nobody to tell.
            let _ = answer.print();
            hint(&arguments);
            return u8::try_from(answer.exit_code()).unwrap_or(USAGE);
        }
    };
    let text = match matches.subcommand() {
        Some(("completions", given)) => match given.get_one::<scripts::Shell>("shell") {
            Some(&shell) => scripts::completions(whole(), shell),
            None => return USAGE,
        },
        Some(("man", given)) => {
            let name = given.get_one::<String>("command").map(String::as_str);
            match scripts::man(whole(), name) {
                Some(Ok(page)) => page,
                Some(Err(error)) => return say(&error.to_string(), 1),
                None => return say(&format!("trit has no command {}", name.unwrap_or_default()), USAGE),
            }
        }
        _ => return USAGE,
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("standard output: {error}"), 3)
        }
        _ => 0,
    }
}

/// Says what was meant by a bundle or a checkpoint in the place of a command.
fn hint(arguments: &[OsString]) {
    let Some(path) = arguments.get(1).map(std::path::Path::new).filter(|path| path.exists()) else { return };
    let command = if tritc::bundle::is_bundle(path) { "run" } else { "compile" };
    say(&format!("{} is no command: type `trit {command} {}`", path.display(), path.display()), 0);
}

/// Says something on standard error, which may be closed.
fn say(text: &str, code: u8) -> u8 {
    let _ = writeln!(io::stderr(), "trit: {}", trit_runtime::text::printable::escape(text));
    code
}
