//! Why a command failed: an error of the library, or one that only a command line can have.

use crate::words;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use tritc::CompileError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The library refused.
    #[error("{}", words::message(.0))]
    Compile(CompileError),
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A path leads nowhere.
    #[error("{path}: {problem}")]
    NoSuchFile {
        /// The path.
        path: PathBuf,
        /// What is missing, and what may have been meant.
        problem: String,
    },
    /// A path leads to a file that the command has no use for.
    #[error("{path}: {problem}")]
    WrongFile {
        /// The path.
        path: PathBuf,
        /// What is expected.
        problem: String,
    },
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The system starts no threads.
    #[error(
        "threads cannot be started: {0}; the system grants no more of them or has no memory for them, try fewer with \
         --threads"
    )]
    Threads(rayon::ThreadPoolBuildError),
    /// A manual page cannot be made: a defect of the program.
    #[error("internal error: {0}; please report this")]
    Internal(String),
}

impl From<CompileError> for CommandError {
    fn from(error: CompileError) -> CommandError {
        CommandError::Compile(error)
    }
}

impl CommandError {
    /// What caused the error. The library's error is no cause: the message is its own, in this program's words.
    pub fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CommandError::Compile(error) => error.source(),
            other => other.source(),
        }
    }

    /// The process exit code: 1 a defect of the compiler, 2 usage, 3 input that is invalid or a system that did not
    /// give what was asked of it (a file, memory, room on a disk), 4 unsupported.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Compile(error) => words::exit_code(error),
            CommandError::Internal(_) => 1,
            CommandError::Usage(_) => 2,
            CommandError::NoSuchFile { .. } | CommandError::Output(_) | CommandError::Threads(_) => 3,
            CommandError::WrongFile { .. } => 4,
        }
    }
}

/// Why a command failed, and what it has to say nevertheless.
pub struct Failure {
    /// Why it failed.
    pub error: Box<CommandError>,
    /// For standard output.
    pub text: String,
}

impl<E: Into<CommandError>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { error: Box::new(error.into()), text: String::new() }
    }
}
