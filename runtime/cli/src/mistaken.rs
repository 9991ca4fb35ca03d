//! Recognizes what was typed in the place of a bundle: a checkpoint, a misspelled command, a command of `tritc`.

use crate::args::Cli;
use crate::failure::Failure;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use trit_command::names::{Names, names};

/// Commands of the compiler.
const OF_TRITC: [&str; 8] =
    ["compile", "inspect", "disasm", "verify", "retarget", "extract", "keygen", "sign"];
/// Names that other programs have for what `trit-run` does without a command.
const RUN: [&str; 4] = ["run", "generate", "chat", "complete"];

/// Says early, and with what to do, that there is no bundle at `path`. Loading it finds whatever else may be wrong.
///
/// # Errors
/// A usage failure where a command was meant, else one of invalid input.
pub fn expect_bundle(path: &Path) -> Result<(), Failure> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let name = path.display();
            return Err(match path.to_str().and_then(command) {
                Some(meant) => Failure::usage(format_args!("there is no file {name}, and {meant}")),
                None => {
                    let Names { compiler, runtime } = names();
                    let problem = format_args!(
                        "no such file; {runtime} takes the .trit bundle that `{compiler} compile` makes"
                    );
                    Failure::invalid(path, problem)
                }
            });
        }
        Err(e) => return Err(Failure::invalid(path, e)),
    };
    let what = if metadata.is_dir() {
        "is a folder"
    } else if !metadata.is_file() {
        return Err(Failure::invalid(path, "is not an ordinary file"));
    } else if let Some(what) = checkpoint(path) {
        what
    } else {
        return Ok(());
    };
    let Names { compiler, runtime } = names();
    let problem = format_args!(
        "{what}, and {runtime} takes a .trit bundle; make one with `{compiler} compile {} -o model.trit`",
        path.display()
    );
    Err(Failure::invalid(path, problem))
}

/// Refuses a bundle and a text in the wrong order, and a command after the bundle.
///
/// # Errors
/// A usage failure.
pub fn expect_order(bundle: &Path, text: Option<&str>) -> Result<(), Failure> {
    let Some(text) = text else { return Ok(()) };
    let runtime = names().runtime;
    let misspelled = || bundle.to_str().and_then(command).is_some();
    if !bundle.exists() && Path::new(text).is_file() && !misspelled() {
        return Err(Failure::usage(format_args!("the bundle comes first: `{runtime} {text} TEXT`")));
    }
    if is_command(text) {
        return Err(Failure::usage(format_args!(
            "commands come first: `{runtime} {text} BUNDLE`; for {text} as a text to continue, type -p {text}"
        )));
    }
    Ok(())
}

/// What kind of file this is, if `tritc compile` may take it. The first bytes decide, and the name where they say nothing.
fn checkpoint(path: &Path) -> Option<&'static str> {
    let mut start = [0; 9];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    if matches!(&read, Err(e) if e.kind() != io::ErrorKind::UnexpectedEof) {
        return None;
    }
    let name = path.file_name()?.to_str()?.to_lowercase();
    match () {
        () if start.starts_with(b"GGUF") => Some("is a GGUF file"),
        // The length of a JSON text, then the text.
        () if start[8] == b'{' && start[5..8] == [0; 3] => Some("is a safetensors file"),
        () if name.ends_with(".index.json") || name == "config.json" => Some("is part of a checkpoint"),
        () => None,
    }
}

/// Whether `word` is a command of this program.
pub fn is_command(word: &str) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

/// What was meant by a word that stands where a command or a bundle could; `None` where nothing like it is known.
pub fn command(word: &str) -> Option<String> {
    let ours = Cli::command();
    let ours: Vec<&str> = ours.get_subcommands().map(clap::Command::get_name).collect();
    let lower = word.to_lowercase();
    let Names { compiler, runtime } = names();
    if OF_TRITC.contains(&lower.as_str()) {
        return Some(format!("{word} is a command of {compiler}: type `{compiler} {lower} ...`"));
    }
    if !cfg!(feature = "serve") && lower == "serve" {
        return Some(format!("this {runtime} was built without serve; build it with the feature serve"));
    }
    if RUN.contains(&lower.as_str()) {
        return Some(format!(
            "{word} is no command: `{runtime} BUNDLE` chats, `{runtime} BUNDLE TEXT` continues a text"
        ));
    }
    // One mistake is allowed for every three letters, so that `benhc` is `bench`, but a file called `mandel` is no `man`.
    let mistakes = |name: &&str| strsim::damerau_levenshtein(&lower, name);
    let name = ours.into_iter().filter(|name| mistakes(name) <= name.len() / 3).min_by_key(mistakes)?;
    Some(format!("no command {word}: did you mean `{runtime} {name}`?"))
}

/// What was meant by a line that could not be parsed: a text of several words, or, where its first word is neither a
/// file nor an option, a command.
pub fn line(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    // The parser takes a word after the text for a command.
    if let (ErrorKind::ArgumentConflict, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
        && !is_command(word)
    {
        return Some(format!("unexpected word {word}; a text of several words stands in quotes"));
    }
    let first = arguments.get(1)?;
    let word = first.to_str().filter(|word| !word.starts_with('-') && !is_command(word))?;
    match fs::metadata(word) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        _ => return None,
    }
    command(word).map(|meant| format!("there is no file {word}, and {meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_commands_are_recognized_and_file_names_are_not() {
        for (word, meant) in [
            ("benhc", "`trit-run bench`"),
            ("Bench", "`trit-run bench`"),
            ("perplexitiy", "`trit-run perplexity`"),
            ("self-test", "`trit-run selftest`"),
            ("logit", "`trit-run logits`"),
            ("compile", "`tritc compile ...`"),
            ("Sign", "`tritc sign ...`"),
            ("chat", "`trit-run BUNDLE`"),
            #[cfg(feature = "serve")]
            ("sevre", "`trit-run serve`"),
            #[cfg(not(feature = "serve"))]
            ("serve", "built without serve"),
        ] {
            assert!(command(word).is_some_and(|text| text.contains(meant)), "{word}: {:?}", command(word));
        }
        for name in ["model.trit", "fables-12m", "microsoft/bitnet", "mandel", "test", "", "x"] {
            assert_eq!(command(name), None, "{name}");
        }
    }
}
