//! How far a compilation has come, for whoever wants to show it.

use crate::error::{CompileError, Warning};
use trit_text::output::Unfinished;

/// Is told of the progress of a compilation. By default, every method does nothing.
pub trait Progress: Sync {
    /// A stage begins that takes `total` units: bytes for [`Stage::Pack`] and [`Stage::Write`], layers
    /// for [`Stage::Check`], which may end early, bytes of planes for [`Stage::Quantize`].
    fn begin(&self, _stage: Stage, _total: u64) {}

    /// That many units of the stage are done.
    fn advance(&self, _units: u64) {}

    /// Something came up that a user should know.
    fn warn(&self, _warning: Warning) {}

    /// All stages are over.
    fn end(&self) {}

    /// Whether the compilation is to end. It is asked whenever some units of a stage are done, and the compilation then
    /// ends with [`CompileError::Interrupted`].
    fn is_stopped(&self) -> bool {
        false
    }

    /// Where the bundle is listed while it is being written, for whoever may have to end the process meanwhile.
    fn unfinished(&self) -> Unfinished {
        Unfinished::default()
    }
}

/// Tells that units of a stage are done.
///
/// # Errors
/// [`CompileError::Interrupted`] where the compilation is to end.
pub(crate) fn advance(progress: &dyn Progress, units: u64) -> Result<(), CompileError> {
    progress.advance(units);
    expect_wanted(progress)
}

/// Ends a compilation that is to end.
///
/// # Errors
/// [`CompileError::Interrupted`].
pub(crate) fn expect_wanted(progress: &dyn Progress) -> Result<(), CompileError> {
    if progress.is_stopped() { Err(CompileError::Interrupted) } else { Ok(()) }
}

/// The long stages of a compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Tiles are made and written.
    Pack,
    /// The head's table is quantized to planes.
    Quantize,
    /// The reference forward pass computes known results.
    Check,
    /// Tensors are copied.
    Write,
}

impl Stage {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Pack => "packing",
            Stage::Quantize => "quantizing",
            Stage::Check => "checking",
            Stage::Write => "writing",
        }
    }
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {}
