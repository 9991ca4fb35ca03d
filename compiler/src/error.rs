//! What can go wrong while compiling, and what a user should know though nothing went wrong.
//!
//! Errors are data: a variant carries the file, the thing in it and the cause. Their words name no option of a command
//! line, because this library has none; a program that has options adds the remedy that fits a variant.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use trit_format::target::{Arch, Target};
use trit_format::trust::TrustError;

/// Why something could not be done. Messages name the file or tensor, and the remedy where it is one in the files.
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
    /// Something that the caller chose makes no sense for this model.
    #[error("{choice}: {problem}")]
    Choice {
        /// What was chosen.
        choice: Choice,
        /// Why that is not possible.
        problem: String,
    },
    /// A forward pass was asked for with token ids that the model does not have, or with none.
    #[error("{0}")]
    TokenIds(String),
    /// The file to write may not be written.
    #[error(transparent)]
    Output(trit_text::output::OutputError),
    /// The environment names no folder in which trusted bundles could be recorded.
    #[error("{0}")]
    TrustFolder(TrustError),
    /// The file of a private key holds none that can be used, or somebody else can read it.
    #[error("{path}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The file of a key cannot be read, is none, or is such that it does not count.
    #[error("{0}")]
    KeyFile(TrustError),
    /// A file that is to be made is there already, and nothing like it is ever replaced.
    #[error("{path}: is there already; keys are never replaced, name another file")]
    KeyExists {
        /// The file.
        path: PathBuf,
    },
    /// A bundle is not signed with the key that was asked for.
    #[error("{path}: {problem}")]
    NotSigned {
        /// The bundle, or the file of its signature.
        path: PathBuf,
        /// Why the signature does not hold, or that there is none.
        problem: String,
    },
    /// What was named as the runtime that a program is to begin with is none.
    #[error("{path}: {problem}")]
    Stub {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No runtime was found that a program could begin with.
    #[error("there is no runtime for {arch} to put a bundle after: none of {}", among(.tried))]
    NoStub {
        /// The architecture.
        arch: Arch,
        /// Where one was looked for.
        tried: Vec<PathBuf>,
    },
    /// A program is for one architecture, and the targets are of several.
    #[error("a program runs on one architecture, and the targets are of two: {}", names(.targets))]
    TwoArchitectures {
        /// The targets.
        targets: Vec<Target>,
    },
    /// A bundle has no kernel of that name, or for that target.
    #[error("{path}: {}", no_such_kernel(.kernels))]
    NoSuchKernel {
        /// The bundle.
        path: PathBuf,
        /// The kernels that it has, with their targets; none where it was compiled without code.
        kernels: Vec<String>,
    },
    /// The checkpoint or one of the files beside it is wrong.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that is no bundle was to be opened as one.
    #[error("{path}: is no .trit bundle")]
    NotABundle {
        /// The file or folder.
        path: PathBuf,
        /// Whether its name is one that checkpoints have.
        may_be_checkpoint: bool,
    },
    /// A bundle was to be read as a checkpoint.
    #[error("{path}: is a bundle, compiled already")]
    IsABundle {
        /// The bundle.
        path: PathBuf,
    },
    /// The tokenizer cannot be used. The model can be compiled without it.
    #[error("{path}: is not a tokenizer that can be used: {problem}")]
    UnusableTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A model that was made by hand is not what its sizes say.
    #[error("the model {0}")]
    Model(String),
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
    /// Float weights about which the configuration says nothing are not ternary. They could be rounded.
    #[error("{path}: tensor {tensor}: {problem}")]
    NotTernary {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where two magnitudes meet that share a scale, and what to declare if the weights are latent ones.
        problem: String,
    },
    /// A GGUF file's I2_S weights may be in any of three layouts, and do not say in which. It can be chosen.
    #[error(
        "{path}: has weights of type I2_S, whose layout depends on the program that wrote the file; the weights do not tell \
         which it is (squared correlations: {evidence})"
    )]
    UndecidedLayout {
        /// The file.
        path: PathBuf,
        /// How well the matrices go together in each layout.
        evidence: String,
    },
    /// Float weights are ternary but for rounding in a few groups. They could be read with that error.
    #[error("{path}: tensor {tensor}: {problem}")]
    NearlyTernary {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// In how many groups, how far, and where first.
        problem: String,
        /// The largest error relative to its group's scale.
        worst: f32,
    },
    /// Weights were to be rounded that are ternary already.
    #[error("{path}: tensor {tensor}: is {stored}, ternary already, and cannot be rounded")]
    AlreadyTernary {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type in the file.
        stored: String,
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
    /// The file is well-formed, but nothing that can be compiled.
    #[error("{path}: {problem}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported and what to do.
        problem: String,
    },
    /// The configuration has a key that is not known.
    #[error("{path}: {problem}{}", also_unknown(.others))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with the names of the objects around it.
        key: String,
        /// The key, its value, and why it is not passed over.
        problem: String,
        /// Whether the key's name says that it changes what the model computes. Such a key cannot be ignored.
        changes_arithmetic: bool,
        /// Other keys that are not known either.
        others: Vec<String>,
    },
    /// There is no emitter for a target, or none for this machine.
    #[error("{}", unsupported_target(*.target, .supported))]
    UnsupportedTarget {
        /// The target that was asked for; `None` for whatever this machine runs.
        target: Option<Target>,
        /// The targets that code can be generated for.
        supported: Vec<Target>,
    },
    /// The system did not give what compiling takes: memory, threads.
    #[error("{0}")]
    System(String),
    /// A kernel could not be generated.
    #[error("code generation failed for {kernel}: {problem}")]
    Codegen {
        /// The kernel's name.
        kernel: String,
        /// What the emitter said.
        problem: String,
    },
    /// The caller ended it: see [`Progress::is_stopped`](crate::progress::Progress::is_stopped).
    #[error("interrupted")]
    Interrupted,
    /// The finished bundle contradicts itself: a defect of the compiler.
    #[error("internal error: {0}; please report this")]
    Internal(String),
}

/// Something about a compilation that the caller may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The model's name, [`LoadOptions::name`](crate::load::LoadOptions::name).
    Name(String),
    /// The bundle's context length in tokens, [`LoadOptions::context`](crate::load::LoadOptions::context).
    Context(u32),
    /// A key to be ignored, one of
    /// [`LoadOptions::ignore_config_keys`](crate::load::LoadOptions::ignore_config_keys).
    IgnoredKey(String),
    /// The layout of I2_S weights, [`LoadOptions::i2s_layout`](crate::load::LoadOptions::i2s_layout).
    I2sLayout(&'static str),
    /// That float weights are rounded, [`LoadOptions::quantize`](crate::load::LoadOptions::quantize).
    Rounding,
    /// How far floats may be from ternary ones, [`LoadOptions::tolerance`](crate::load::LoadOptions::tolerance).
    Tolerance(String),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Name(name) => write!(f, "the name {}", trit_text::printable::escape(name)),
            Choice::Context(context) => write!(f, "a context of {context} tokens"),
            Choice::IgnoredKey(key) => write!(f, "the ignored key {key}"),
            Choice::I2sLayout(layout) => write!(f, "the I2_S layout {layout}"),
            Choice::Rounding => f.write_str("rounding float weights"),
            Choice::Tolerance(tolerance) => write!(f, "a tolerance of {tolerance}"),
        }
    }
}

fn among(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn names(targets: &[Target]) -> String {
    targets.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ")
}

fn no_such_kernel(kernels: &[String]) -> String {
    match kernels {
        [] => "holds no code".to_owned(),
        kernels => format!("has no such kernel; there are {}", kernels.join(", ")),
    }
}

fn also_unknown(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" (also unknown: {})", keys.join(", ")) }
}

fn unsupported_target(target: Option<Target>, supported: &[Target]) -> String {
    let works = supported.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ");
    match target {
        Some(target) => {
            format!("target {target}: no code can be generated for it yet; what works now: {works}")
        }
        None => {
            format!("this machine has none of the tiers that code is generated for (what works: {works})")
        }
    }
}

/// Of what kind an error is: who or what has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller chose something that makes no sense.
    Choice,
    /// A file is wrong, or the system did not give what was asked of it: a file, memory, room on a disk.
    Input,
    /// Everything is well-formed, but not supported.
    Unsupported,
    /// Everything is well-formed, but not by whom it should be.
    NotTrusted,
    /// The caller ended it.
    Interrupted,
    /// The compiler has a defect.
    Defect,
}

impl CompileError {
    /// Of what kind the error is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CompileError::Choice { .. }
            | CompileError::TokenIds(_)
            | CompileError::Output(_)
            | CompileError::TrustFolder(_)
            | CompileError::KeyExists { .. }
            | CompileError::TwoArchitectures { .. }
            | CompileError::NoSuchKernel { .. } => ErrorKind::Choice,
            CompileError::Io { .. }
            | CompileError::Invalid { .. }
            | CompileError::NotABundle { .. }
            | CompileError::IsABundle { .. }
            | CompileError::Key { .. }
            | CompileError::KeyFile(_)
            | CompileError::Stub { .. }
            | CompileError::NoStub { .. }
            | CompileError::UnusableTokenizer { .. }
            | CompileError::Model(_)
            | CompileError::Tensor { .. }
            | CompileError::NotTernary { .. }
            | CompileError::NearlyTernary { .. }
            | CompileError::AlreadyTernary { .. }
            | CompileError::System(_) => ErrorKind::Input,
            CompileError::Unsupported { .. }
            | CompileError::UnsupportedTensor { .. }
            | CompileError::UndecidedLayout { .. }
            | CompileError::UnknownKey { .. }
            | CompileError::UnsupportedTarget { .. } => ErrorKind::Unsupported,
            CompileError::NotSigned { .. } => ErrorKind::NotTrusted,
            CompileError::Interrupted => ErrorKind::Interrupted,
            CompileError::Codegen { .. } | CompileError::Internal(_) => ErrorKind::Defect,
        }
    }
}

/// Something that a user should know. The model is compiled all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// One sentence.
    Text(String),
    /// LongRoPE has two lists of factors, one for texts of up to `change` tokens and one for longer texts. The bundle
    /// has the first, and a context of `change` tokens.
    ShortFactors {
        /// Longest text of the short factors.
        change: u32,
        /// The context length that the model is made for.
        longest: u32,
    },
    /// The bundle has LongRoPE's long factors for all of its texts, also for those that the short ones are made for.
    LongFactors {
        /// Longest text of the short factors.
        change: u32,
        /// The bundle's context length.
        context: u32,
    },
    /// The model magnifies rounding errors so much that no result of it can be known.
    NoKnownResult,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Text(text) => f.write_str(text),
            Warning::ShortFactors { change, .. } => write!(
                f,
                "LongRoPE has short factors for texts of up to {change} tokens and long ones beyond; the bundle has the \
                 short ones and a context of {change} tokens"
            ),
            Warning::LongFactors { change, context } => write!(
                f,
                "texts of up to {change} tokens get LongRoPE's long factors too, which this bundle has for its context of \
                 {context}"
            ),
            Warning::NoKnownResult => f.write_str(
                "the model magnifies rounding so much that two correct programs disagree (as with random weights); the \
                 bundle has no known results",
            ),
        }
    }
}

impl From<String> for Warning {
    fn from(text: String) -> Warning {
        Warning::Text(text)
    }
}

/// Warnings, in the order in which they came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<Warning>);

impl Warnings {
    /// Adds one.
    pub fn push(&mut self, warning: impl Into<Warning>) {
        self.0.push(warning.into());
    }

    /// Adds that the block that drafts tokens, so many tensors, is left out because of `problem`.
    pub(crate) fn draft_left_out(&mut self, tensors: usize, problem: &str) {
        self.push(format!(
            "the block that drafts tokens ({tensors} tensors) is left out: it {problem}. Texts do not depend on it, but come \
             more slowly"
        ));
    }

    /// Adds several.
    pub fn extend(&mut self, warnings: impl IntoIterator<Item = impl Into<Warning>>) {
        self.0.extend(warnings.into_iter().map(Into::into));
    }
}

impl Deref for Warnings {
    type Target = [Warning];

    fn deref(&self) -> &[Warning] {
        &self.0
    }
}
