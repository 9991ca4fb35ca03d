//! One tensor of a checkpoint, as its file stores it.

use crate::checkpoint::block_type::BlockType;
use crate::checkpoint::head_order::TiledHeads;
use crate::checkpoint::i2s_layout::I2sLayout;
use crate::error::CompileError;
use crate::files::mapped::MappedSlice;
use crate::model::float::FloatType;
use crate::model::{Found, TensorBytes, TensorReport};
use safetensors::Dtype;
use std::fmt;
use std::sync::Arc;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    F32,
    F16,
    Bf16,
    F64,
    /// Bytes. Where a matrix is packed, each holds four trits.
    U8,
    /// Blocks of weights, in GGUF files.
    Block(BlockType),
    /// I2_S of GGUF files. The layout is `None` until all of the file's matrices were looked at.
    I2s(Option<I2sLayout>),
    /// Codes of so many bits, one after the other, with [`RawTensor::affine`]: what mlx-lm writes. Those of 1 and 2 bits may be
    /// ternary. The shape is that of the weights.
    Codes(u8),
    /// Any other type of safetensors. No tensor of a model has one.
    Other(Dtype),
}

impl ElementType {
    /// The float type, where it is one that tensors of models have.
    pub(crate) fn float(self) -> Option<FloatType> {
        match self {
            ElementType::F32 => Some(FloatType::F32),
            ElementType::F16 => Some(FloatType::F16),
            ElementType::Bf16 => Some(FloatType::Bf16),
            _ => None,
        }
    }
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> ElementType {
        match dtype {
            Dtype::F32 => ElementType::F32,
            Dtype::F16 => ElementType::F16,
            Dtype::BF16 => ElementType::Bf16,
            Dtype::F64 => ElementType::F64,
            Dtype::U8 => ElementType::U8,
            other => ElementType::Other(other),
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::F32 => "F32",
            ElementType::F16 => "F16",
            ElementType::Bf16 => "BF16",
            ElementType::F64 => "F64",
            ElementType::U8 => "U8",
            ElementType::Block(block) => return block.fmt(f),
            ElementType::I2s(Some(layout)) => return write!(f, "I2_S ({layout})"),
            ElementType::I2s(None) => "I2_S",
            ElementType::Codes(bits) => return write!(f, "MLX {bits}-bit"),
            ElementType::Other(dtype) => return dtype.fmt(f),
        })
    }
}

/// One tensor as the file stores it.
#[derive(Clone)]
pub(crate) struct RawTensor {
    /// Its name in the checkpoint.
    pub(crate) name: String,
    /// Element type.
    pub(crate) dtype: ElementType,
    /// Row-major shape.
    pub(crate) shape: Vec<usize>,
    /// Little-endian elements.
    pub(crate) bytes: MappedSlice,
    /// Heads whose rows are stored interleaved, see [`crate::weights::order::in_order`].
    pub(crate) interleaved_heads: Option<usize>,
    /// Value heads that are stored in another order, see [`crate::weights::order`].
    pub(crate) tiled_heads: Option<TiledHeads>,
    /// Scales and biases of [`ElementType::Codes`].
    pub(crate) affine: Option<Arc<Affine>>,
    /// How far floats may be from ternary ones, relative to their scale; `None` where they must be exact.
    pub(crate) tolerance: Option<f32>,
}

/// What codes are multiplied with and what is added: one scale and one bias for each `group` columns of a row.
pub(crate) struct Affine {
    /// Columns that share a scale.
    pub(crate) group: usize,
    /// Floats `[rows, k / group]`.
    pub(crate) scales: RawTensor,
    /// Of the same type and shape.
    pub(crate) biases: RawTensor,
}

impl RawTensor {
    /// An error about this tensor.
    pub(crate) fn error(&self, problem: impl Into<String>) -> CompileError {
        CompileError::Tensor {
            path: self.bytes.path().to_owned(),
            tensor: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// An error: the tensor is of a type that cannot be compiled.
    pub(crate) fn unsupported(&self, problem: impl Into<String>) -> CompileError {
        CompileError::UnsupportedTensor {
            path: self.bytes.path().to_owned(),
            tensor: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// The report of this tensor, in which nothing was counted.
    pub(crate) fn report(&self, found: Found) -> TensorReport {
        TensorReport {
            name: self.name.clone(),
            shape: self.shape.clone(),
            stored: self.dtype.to_string(),
            found,
            scales: None,
            zeros: None,
            rounded: None,
        }
    }

    /// Row `row` of those that are `len` bytes long each.
    ///
    /// # Errors
    /// [`CompileError::Internal`] where the tensor has no such row.
    pub(crate) fn row(&self, row: usize, len: usize) -> Result<&[u8], CompileError> {
        let range = row.checked_mul(len).and_then(|start| Some(start..start.checked_add(len)?));
        range.and_then(|range| self.bytes.as_ref().get(range)).ok_or_else(|| {
            CompileError::Internal(format!("tensor {} has no row {row} of {len} bytes", self.name))
        })
    }

    /// Checks the shape; `what` says where the expectation comes from.
    pub(crate) fn expect_shape(&self, expected: &[usize], what: &str) -> Result<(), CompileError> {
        if self.shape == expected {
            return Ok(());
        }
        Err(self.error(format!("has shape {:?}, expected {expected:?} ({what})", self.shape)))
    }
}

impl TensorBytes for MappedSlice {
    fn release(&self) {
        MappedSlice::release(self);
    }
}
