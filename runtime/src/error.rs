//! What can go wrong while loading or running a bundle.

use std::path::PathBuf;
use trit_format::FormatError;

/// Why a bundle could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no valid bundle.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The bundle's tokenizer or chat template cannot be used.
    #[error("{path}: {problem}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// This machine cannot do what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// Embedded code was asked for, but nothing says that it may run.
    #[error(
        "{path}: the bundle's machine code is not trusted: it was not compiled by this user on this machine; pass --trust if you know where it comes from, or --kernels jit to regenerate the code here"
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
    },
    /// An argument is out of range.
    #[error("{0}")]
    Input(String),
    /// The sequence would outgrow the session's context.
    #[error(
        "{tokens} tokens do not fit the context of {context}; shorten the prompt or allow a longer context with -c"
    )]
    ContextFull {
        /// Tokens the sequence would have.
        tokens: usize,
        /// Tokens there is room for.
        context: usize,
    },
    /// The bundle's rules for single tokens leave none to choose.
    #[error(
        "after {tokens} tokens every token is suppressed by what the model's generation settings say of single tokens"
    )]
    Suppressed {
        /// Tokens of the text so far.
        tokens: usize,
    },
    /// The system refused memory or threads.
    #[error("{0}")]
    System(String),
}

impl RuntimeError {
    /// The process exit code: 1 internal, 2 usage, 3 invalid input, 4 unsupported, 5 untrusted.
    pub fn exit_code(&self) -> u8 {
        match self {
            RuntimeError::Io { .. }
            | RuntimeError::Format { .. }
            | RuntimeError::Text { .. }
            | RuntimeError::Suppressed { .. } => 3,
            RuntimeError::Input(_) | RuntimeError::ContextFull { .. } => 2,
            RuntimeError::Unsupported(_) => 4,
            RuntimeError::Untrusted { .. } => 5,
            RuntimeError::System(_) => 1,
        }
    }
}
