//! How far a compilation has come, for whoever wants to show it.

use crate::error::Warning;
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

    /// Where the bundle is listed while it is being written, for whoever may have to end the process meanwhile.
    fn unfinished(&self) -> Unfinished {
        Unfinished::default()
    }
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
