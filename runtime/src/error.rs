//! What can go wrong while loading or running a bundle.

use crate::bundle::source::Change;
use crate::bundle::trust::NotTrusted;
use crate::generate::guide::GuideError;
use crate::kernels::notes::NoKernels;
use std::fmt;
use std::path::PathBuf;
use trit_format::FormatError;
use trit_format::saved::SavedError;
use trit_format::trust::TrustError;
use trit_text::TextError;
use trit_text::output::OutputError;

/// Why a bundle could not be loaded or run. A variant holds the facts: which file, what, how many. Its text names no
/// command's options; a program adds what its user can do.
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
    /// The file was changed after it was opened, and parts of it that are still needed are lost.
    #[error("{path}: changed while it was running: {how}")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        how: Change,
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
    #[error("{path}: {source}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TextError,
    },
    /// A file of saved sequences cannot be used.
    #[error("{path}: {source}")]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SavedError,
    },
    /// A file may not be written where it should stand.
    #[error("{0}")]
    Output(OutputError),
    /// The kernels that were asked for cannot run on this machine.
    #[error("{path}: {problem}")]
    Kernels {
        /// The bundle.
        path: PathBuf,
        /// Why they cannot.
        problem: NoKernels,
    },
    /// Embedded code was asked for, or trust is required, but nothing says that the bundle is trusted.
    #[error("{path}: the bundle is not trusted: {why}")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Why no rule allows it.
        why: NotTrusted,
    },
    /// The environment names the folder of trust records by a relative path.
    #[error("{0}")]
    TrustFolder(TrustError),
    /// An argument is out of range.
    #[error("{0}")]
    Input(String),
    /// No sequence can have the context that was asked for.
    #[error("a context of {asked} tokens is not possible; this bundle takes 1 to {longest}")]
    Context {
        /// Tokens that were asked for.
        asked: usize,
        /// The context length that the bundle was compiled for.
        longest: usize,
    },
    /// The sequence would outgrow its context.
    #[error("{tokens} tokens do not fit the context of {context}{}", of_longest(*context, *longest))]
    ContextFull {
        /// Tokens that the sequence would have, at least.
        tokens: usize,
        /// Tokens there is room for in this sequence.
        context: usize,
        /// The largest context that is possible: the one that the bundle was compiled for.
        longest: usize,
    },
    /// The caller ended the work: see [`crate::Session::interrupt_by`].
    #[error("interrupted")]
    Interrupted,
    /// A logit is infinite or NaN: the model's weights are damaged, or its activations are too large for f32.
    #[error(
        "the model's output is no number: {place} gives infinity or NaN, first for token {token} at position {position}; its weights are damaged or unfit for this runtime"
    )]
    NotFinite {
        /// The part of the forward pass where the hidden states stopped being finite.
        place: Place,
        /// Position of the first token whose hidden state is not finite.
        position: usize,
        /// That token.
        token: u32,
    },
    /// The bundle's rules for single tokens suppress every token.
    #[error(
        "after {tokens} tokens every token is suppressed by what the model's generation settings say of single tokens"
    )]
    Suppressed {
        /// Tokens of the text so far.
        tokens: usize,
    },
    /// The answer's guide gave up.
    #[error("the answer cannot go on: {0}")]
    Guide(#[from] GuideError),
    /// There is no memory for what running a sequence needs. A shorter context or fewer sequences need less.
    #[error("there is no memory for {what} of {rows} rows of {row_bytes} bytes")]
    SequenceMemory {
        /// What the memory is for.
        what: String,
        /// How many rows it should hold.
        rows: usize,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// The threads cannot be started.
    #[error("cannot start {count} threads: {problem}")]
    Threads {
        /// How many were asked for.
        count: usize,
        /// What the system said.
        problem: String,
    },
    /// The system refused memory for the model, or the right to write to it.
    #[error("{0}")]
    System(String),
}

/// The end of the sentence about a context that is too short: whether a longer one is possible.
fn of_longest(context: usize, longest: usize) -> String {
    match context < longest {
        true => format!("; this bundle takes up to {longest}"),
        false => ", which is all that this bundle was compiled for".to_owned(),
    }
}

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

impl From<trit_gemm::GemmError> for RuntimeError {
    /// Says what the system refused, or what this machine cannot do. Nothing else can fail, because all sizes come from
    /// a validated bundle.
    fn from(error: trit_gemm::GemmError) -> RuntimeError {
        match error {
            trit_gemm::GemmError::Memory { what, rows, row: row_bytes } => {
                RuntimeError::SequenceMemory { what, rows, row_bytes }
            }
            other => RuntimeError::System(other.to_string()),
        }
    }
}
