//! The types that elements of tensors and buffers have.

use crate::coded;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Element type of a tensor or buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed byte.
    I8,
    /// Signed 32-bit integer.
    I32,
    /// Rows of int8 codes with an f32 scale for each block of columns, as [`crate::coded`] says. Tables alone are of it.
    I8Blocks {
        /// Columns of a block, one of [`crate::coded::BLOCK_COLUMNS`].
        columns: u32,
        /// Whether each block has an f32 offset too.
        offsets: bool,
    },
}

impl DType {
    /// Bytes of one element. Of [`DType::I8Blocks`] those of a code: [`DType::row_bytes`] counts the scales too.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 | DType::I8Blocks { .. } => 1,
        }
    }

    /// Bytes of a row of `k` elements. `None` where it overflows, or where blocks of such a type cannot make up the row.
    pub fn row_bytes(self, k: u64) -> Option<u64> {
        match self {
            DType::I8Blocks { columns, offsets } => coded::row_bytes(columns, offsets, k),
            other => k.checked_mul(other.size() as u64),
        }
    }

    /// Bits of an element with its share of scales and offsets, without what fills up rows.
    pub const fn bits(self) -> u32 {
        let floats = match self {
            DType::I8Blocks { columns: columns @ 1.., offsets } => (1 + offsets as u32) * 32 / columns,
            _ => 0,
        };
        8 * self.size() as u32 + floats
    }

    /// Whether elements are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::Bf16)
    }

    /// Whether a table may be of that type: its elements are floats, or stand for some.
    pub const fn is_of_tables(self) -> bool {
        self.is_float() || matches!(self, DType::I8Blocks { .. })
    }
}

/// The name in small letters, as plans in text have it.
impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded, because plans have columns.
        f.pad(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I8 => "i8",
            DType::I32 => "i32",
            DType::I8Blocks { columns, offsets } => {
                let more = if *offsets { "+offset" } else { "" };
                return f.pad(&format!("i8/{columns}{more}"));
            }
        })
    }
}
