//! What can go wrong while compiling.

use std::path::PathBuf;

/// Why a checkpoint could not be compiled. Messages name the file or tensor and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The file to write may not be written.
    #[error(transparent)]
    Output(trit_text::output::OutputError),
    /// The checkpoint or one of its companions is wrong.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A tensor is missing or wrong.
    #[error("{path}: tensor {tensor}: {problem}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A tensor is of a type or form that is known, or may be, and cannot be compiled.
    #[error("{path}: tensor {tensor}: {problem}")]
    UnsupportedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is not supported and what to do.
        problem: String,
    },
    /// Well-formed, but nothing we can compile.
    #[error("{path}: {problem}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported and what to do.
        problem: String,
    },
    /// The system did not give what compiling takes: memory, threads.
    #[error("{0}")]
    System(String),
    /// No code could be generated.
    #[error("code generation failed for {kernel}: {problem}")]
    Codegen {
        /// The kernel's name.
        kernel: String,
        /// What the emitter said.
        problem: String,
    },
    /// The finished bundle contradicts itself: a defect of the compiler.
    #[error("internal error: {0}; please report this")]
    Internal(String),
}

impl CompileError {
    /// The process exit code: 1 a defect of the compiler, 2 usage, 3 input that is invalid or a system that did not
    /// give what was asked of it (a file, memory, room on a disk), 4 unsupported.
    pub fn exit_code(&self) -> u8 {
        match self {
            CompileError::Usage(_) | CompileError::Output(_) => 2,
            CompileError::Invalid { .. }
            | CompileError::Tensor { .. }
            | CompileError::Io { .. }
            | CompileError::System(_) => 3,
            CompileError::Unsupported { .. } | CompileError::UnsupportedTensor { .. } => 4,
            CompileError::Codegen { .. } | CompileError::Internal(_) => 1,
        }
    }
}
