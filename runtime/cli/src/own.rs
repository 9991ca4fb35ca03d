//! A program of one file: this executable with a bundle after it, which every command then takes without being told.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use trit_runtime::source::is_program;

/// What every command calls the argument that names a bundle.
const BUNDLE: &str = "bundle";

static OWN: OnceLock<PathBuf> = OnceLock::new();

/// Looks for a bundle after this executable, once, before the command line is read.
///
/// # Errors
/// The executable's path and what is wrong, where it is a program that was damaged.
pub fn look() -> Result<(), (PathBuf, io::Error)> {
    // Where the system does not say what it runs, or does not let it be read, it is taken for the plain program.
    let Ok(path) = std::env::current_exe() else { return Ok(()) };
    match is_program(&path) {
        Ok(true) => {
            // Nobody else sets it.
            let _ = OWN.set(path);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err((path, error)),
        Ok(false) | Err(_) => Ok(()),
    }
}

/// The program, where it has a bundle.
pub fn program() -> Option<&'static Path> {
    OWN.get().map(PathBuf::as_path)
}

/// Whether `path` is the program's own bundle. Who runs the program trusts it.
pub fn is_own(path: &Path) -> bool {
    program() == Some(path)
}

/// Whether a command takes a bundle.
fn takes_bundle(command: &clap::Command) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == BUNDLE)
}

/// The definition of the command line without its bundles.
pub fn without_bundles(command: clap::Command) -> clap::Command {
    // In their places, which a single changed argument would lose.
    let hide = |command: clap::Command| match takes_bundle(&command) {
        true => {
            command.mut_args(|arg| if arg.get_id() == BUNDLE { arg.hide(true).required(false) } else { arg })
        }
        false => command,
    };
    hide(command).mut_subcommands(hide)
}

/// Puts the bundle into a line as it was typed: after the command, if there is one that takes a bundle.
pub fn with_bundle(command: &clap::Command, mut line: Vec<OsString>, bundle: &Path) -> Vec<OsString> {
    let first = line.get(1).and_then(|word| word.to_str());
    let at = match first.map(|word| (word, command.find_subcommand(word))) {
        Some((_, Some(of))) if takes_bundle(of) => 2,
        Some((_, Some(_)) | ("help", None)) => return line,
        _ => 1.min(line.len()),
    };
    line.insert(at, bundle.into());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, FromArgMatches};

    fn line(typed: &str) -> Vec<OsString> {
        let typed = typed.split(' ').map(OsString::from).collect();
        with_bundle(&Cli::command(), typed, Path::new("/m"))
    }

    #[test]
    fn the_bundle_stands_where_each_command_takes_it() {
        for (typed, expected) in [
            ("m", "m /m"),
            ("m text", "m /m text"),
            ("m -p x -n 3", "m /m -p x -n 3"),
            ("m bench -r 2", "m bench /m -r 2"),
            ("m tokenize hello", "m tokenize /m hello"),
            ("m man bench", "m man bench"),
            ("m completions bash", "m completions bash"),
            ("m help bench", "m help bench"),
            ("m --version", "m /m --version"),
        ] {
            assert_eq!(line(typed), expected.split(' ').map(OsString::from).collect::<Vec<_>>(), "{typed}");
        }
    }

    #[test]
    fn lines_without_bundles_parse_and_help_shows_none() {
        let command = without_bundles(Cli::command());
        command.clone().debug_assert();
        for typed in ["m", "m text", "m -p x", "m bench -n 3", "m selftest"] {
            let matches = command.clone().try_get_matches_from(line(typed)).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            assert!(cli.command.is_some() || cli.generate.bundle == Some("/m".into()), "{typed}");
        }
        for name in [None, Some("bench"), Some("perplexity")] {
            let mut command = command.clone();
            let shown = match name {
                None => &mut command,
                Some(name) => command.find_subcommand_mut(name).unwrap(),
            };
            let help = shown.render_long_help().to_string();
            assert!(!help.contains("<BUNDLE>") && !help.contains("[BUNDLE]"), "{help}");
        }
    }
}
