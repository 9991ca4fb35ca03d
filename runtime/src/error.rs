//! What can go wrong while loading or running a bundle.

use std::fmt;
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
    /// The file is no longer the one that was opened, and what is still needed of it is lost.
    #[error(
        "{path}: changed while it was running: {how}; run it again, and replace bundles by renaming, not by writing into them"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        how: String,
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
        "{path}: the bundle's machine code is not trusted: {why}; pass --trust if you know where it comes from, or --kernels jit to regenerate the code here"
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Why it is not.
        why: String,
    },
    /// An argument is out of range.
    #[error("{0}")]
    Input(String),
    /// The sequence would outgrow the session's context.
    #[error("{tokens} tokens do not fit the context of {context}; {}", longer(*context, *longest))]
    ContextFull {
        /// Tokens the sequence would have, or more.
        tokens: usize,
        /// Tokens there is room for in this session.
        context: usize,
        /// Tokens there could be room for: as many as the bundle was compiled for.
        longest: usize,
    },
    /// The caller wanted no more: see [`crate::Session::interrupt_by`].
    #[error("interrupted")]
    Interrupted,
    /// The model's numbers are no numbers: its weights are damaged, or its activations outgrow f32.
    #[error(
        "the model's output is no number: {place} gives infinity or NaN, first for token {token} at position {position}; its weights are damaged or unfit for this runtime"
    )]
    NotFinite {
        /// Where the residual stream stopped being finite.
        place: Place,
        /// Position of the first token for which it did.
        position: usize,
        /// That token.
        token: u32,
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

/// What helps where a context is too short. Only the session's own limit can be raised when it is run.
fn longer(context: usize, longest: usize) -> String {
    if context < longest {
        return format!(
            "shorten the prompt, or allow a longer context with -c: this bundle takes up to {longest}"
        );
    }
    format!("that is all this bundle was compiled for: shorten the prompt; {LONGER_BUNDLE}")
}

/// What helps where a bundle's context is too short, whatever the session asks for.
pub(crate) const LONGER_BUNDLE: &str =
    "`tritc compile --context N` makes a bundle for longer texts where the model has positions for them";
/// A part of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// What comes before the first layer.
    Embedding,
    /// A layer, from 0.
    Layer(usize),
    /// What turns the last layer's result into logits.
    Head,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Embedding => f.write_str("the embedding"),
            Place::Layer(layer) => write!(f, "layer {layer}"),
            Place::Head => f.write_str("the head"),
        }
    }
}

impl RuntimeError {
    /// The process exit code: 1 internal, 2 usage, 3 invalid input, 4 unsupported by this program or refused by this
    /// machine, 5 untrusted, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            RuntimeError::Io { .. }
            | RuntimeError::Changed { .. }
            | RuntimeError::Format { .. }
            | RuntimeError::Text { .. }
            | RuntimeError::NotFinite { .. }
            | RuntimeError::Suppressed { .. } => 3,
            RuntimeError::Input(_) | RuntimeError::ContextFull { .. } => 2,
            RuntimeError::Unsupported(_) | RuntimeError::System(_) => 4,
            RuntimeError::Untrusted { .. } => 5,
            RuntimeError::Interrupted => 130,
        }
    }
}

impl From<trit_gemm::GemmError> for RuntimeError {
    /// What the system refused, or what this machine cannot do: sizes are those of a validated bundle.
    fn from(error: trit_gemm::GemmError) -> RuntimeError {
        let less = match error {
            trit_gemm::GemmError::Memory { .. } => "; a shorter context or fewer threads need less",
            _ => "",
        };
        RuntimeError::System(format!("{error}{less}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_limit_that_c_sets_is_said_to_be_raised_by_c() {
        let full = |context, longest| RuntimeError::ContextFull { tokens: 70, context, longest }.to_string();
        assert!(full(64, 1024).contains("with -c: this bundle takes up to 1024"), "{}", full(64, 1024));
        let own = full(64, 64);
        assert!(!own.contains("with -c") && own.contains("tritc compile --context"), "{own}");
    }
}
