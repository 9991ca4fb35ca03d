//! Why a command ended early: one line for people, and one exit code for programs. Everything that people read goes through
//! here, where it is escaped, so that what a message repeats of a file cannot control a terminal.

use crate::remedies;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use trit_command::names::names;
use trit_command::remedy;
use trit_command::signals::INTERRUPTED;
use trit_runtime::format::trust::TrustError;
use trit_runtime::text::TextError;
use trit_runtime::text::causes::with_causes;
use trit_runtime::text::output::OutputError;
use trit_runtime::text::printable::{escape, escape_json, escape_lines};
use trit_runtime::{RuntimeError, Session};

/// The exit code of a command that did what it was asked for.
pub const DONE: u8 = 0;
const INTERNAL: u8 = 1;
/// The exit code where a line makes no sense.
pub const USAGE: u8 = 2;
const INVALID: u8 = 3;
#[cfg(feature = "serve")]
const REFUSED: u8 = 4;
const UNTRUSTED: u8 = 5;

/// A message and an exit code. Without a message nothing is printed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: Option<String>,
}

impl Failure {
    fn new(code: u8, message: impl Display) -> Failure {
        Failure { code, message: Some(message.to_string()) }
    }

    /// A defect, or a check that failed.
    pub fn internal(message: impl Display) -> Failure {
        Failure::new(INTERNAL, message)
    }

    /// The command line asks for something that is not possible.
    pub fn usage(message: impl Display) -> Failure {
        Failure::new(USAGE, message)
    }

    /// A file holds something else than it should, or cannot be read or written.
    pub fn invalid(path: &Path, problem: impl Display) -> Failure {
        Failure::new(INVALID, format_args!("{}: {problem}", path.display()))
    }

    /// The machine refuses what is asked for.
    #[cfg(feature = "serve")]
    pub fn refused(message: impl Display) -> Failure {
        Failure::new(REFUSED, message)
    }

    /// A key cannot be read, or cannot be relied on.
    pub fn key(error: TrustError) -> Failure {
        let code = match error {
            TrustError::Owner { .. } | TrustError::Writable { .. } => UNTRUSTED,
            _ => INVALID,
        };
        Failure::new(code, error)
    }

    /// A bundle could not be loaded or run.
    pub fn runtime(bundle: &Path, error: RuntimeError) -> Failure {
        if matches!(error, RuntimeError::Interrupted) {
            return Failure::interrupted();
        }
        let mut message = error.to_string();
        let bundle = bundle.display().to_string();
        if !message.starts_with(&bundle) {
            message = format!("{bundle}: {message}");
        }
        message = with_causes(message, error.source());
        if let Some(remedy) = remedies::of_error(&error) {
            message = format!("{message}; {remedy}");
        }
        Failure::new(remedies::exit_code(&error), message)
    }

    /// A prompt could not be made for a session, or is too long for it.
    pub fn prompt(session: &Session, error: TextError) -> Failure {
        let (model, context) = (session.model(), session.context_length());
        let TextError::TooLong { at_least, limit } = error else { return Failure::text(model.path(), error) };
        // For a conversation, the limit is smaller than the context, because it leaves room for an answer.
        let tokens = at_least + context.saturating_sub(limit);
        let longest = model.manifest().hyperparameters.context_length as usize;
        Failure::runtime(model.path(), RuntimeError::ContextFull { tokens, context, longest })
    }

    /// A bundle's tokenizer or chat template could not be used, or a text is too long for the model.
    pub fn text(bundle: &Path, error: TextError) -> Failure {
        match error {
            TextError::Interrupted => Failure::interrupted(),
            TextError::TooLong { .. } => Failure::usage(format_args!("{}: {error}", bundle.display())),
            _ => Failure::invalid(bundle, error),
        }
    }

    /// Standard output could not be written. It is no error if the reader closed it early, as `head` does: it has seen enough.
    pub fn stdout(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: 0, message: None },
            _ => Failure::invalid(Path::new("standard output"), format_args!("cannot be written: {error}")),
        }
    }

    /// The file to write may not be written.
    pub fn output(error: OutputError) -> Failure {
        Failure::usage(remedy::output(&error))
    }

    /// The user stopped it.
    pub fn interrupted() -> Failure {
        Failure { code: INTERRUPTED, message: None }
    }

    /// Prints the message and gives the exit code.
    pub fn report(&self) -> u8 {
        if let Some(message) = &self.message {
            note(message);
        }
        self.code
    }
}

/// Prints a line on standard error, which may be closed.
pub fn note(message: impl Display) {
    let _ = writeln!(io::stderr(), "{}: {}", names().runtime_program(), escape(&message.to_string()));
}

/// Prints lines on standard error, which may be closed.
pub fn note_lines(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", escape_lines(&text.to_string()));
}

/// Prints to standard output at once.
///
/// # Errors
/// [`Failure::stdout`].
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// [`print()`] for text that people read and that repeats parts of files.
///
/// # Errors
/// [`Failure::stdout`].
pub fn print_lines(text: impl Display) -> Result<(), Failure> {
    print(escape_lines(&text.to_string()))
}

/// Prints one JSON object on a line of its own.
///
/// # Errors
/// [`Failure::stdout`].
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(Failure::internal)?;
    let json = if io::stdout().is_terminal() { escape_json(&json) } else { json };
    print(format_args!("{json}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_start_with_the_file_and_name_each_cause_once() {
        let path = Path::new("a.trit");
        let io = RuntimeError::Io { path: path.into(), source: io::Error::other("no luck") };
        assert_eq!(Failure::runtime(path, io).message.unwrap(), "a.trit: no luck");
        let failure = Failure::runtime(path, RuntimeError::System("this system refuses it".into()));
        assert_eq!((failure.code, failure.message.unwrap().as_str()), (4, "a.trit: this system refuses it"));
        assert_eq!(Failure::text(path, TextError::Interrupted).code, INTERRUPTED);
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        let failure = Failure::stdout(io::ErrorKind::BrokenPipe.into());
        assert!(failure.message.is_none() && failure.code == 0);
        assert_eq!(Failure::stdout(io::ErrorKind::StorageFull.into()).code, INVALID);
    }
}
