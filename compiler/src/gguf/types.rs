//! Types of tensors: their numbers in files, and how many bytes a row takes.

use crate::checkpoint::{BlockType, IntegerType};

/// A tensor's type as its number says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TensorType {
    F32,
    F16,
    Bf16,
    F64,
    Block(BlockType),
    /// Codes in blocks that differ between programs, see `checkpoint::i2s_layout`.
    I2s,
}

/// microsoft/BitNet's types for lookup tables. Upstream has MXFP4 under the second number, in which no ternary layer is.
const TL1: u32 = 38;
const TL2: u32 = 39;

/// Types that are known and not read.
const OTHERS: [(u32, &str); 15] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (40, "NVFP4"),
    (335, "IQ2_BN_R4"),
];

impl TensorType {
    /// The type of the number `id`. For 42 it is the upstream type; `layout` tells the three types apart. `is_float` says
    /// whether it is a tensor that may be of floats, such as an embedding.
    ///
    /// # Errors
    /// The number is any other. The error has its name, where it has one, and what to do.
    pub(crate) fn of(id: u32, is_float: bool) -> Result<TensorType, String> {
        if let Some(kind) = IntegerType::of(id)
            && (is_float || id != TL2)
        {
            return Ok(TensorType::Block(BlockType::Integers(kind)));
        }
        Ok(match id {
            0 => TensorType::F32,
            1 => TensorType::F16,
            28 => TensorType::F64,
            30 => TensorType::Bf16,
            34 => TensorType::Block(BlockType::Tq1_0),
            35 => TensorType::Block(BlockType::Tq2_0),
            36 => TensorType::I2s,
            41 => TensorType::Block(BlockType::Q1_0),
            42 => TensorType::Block(BlockType::Q2_0),
            43 => TensorType::Block(BlockType::Stq1_0),
            134 => TensorType::Block(BlockType::Iq1Bn),
            135 => TensorType::Block(BlockType::Iq2Bn),
            142 => TensorType::Block(BlockType::Pq2_0),
            143 => TensorType::Block(BlockType::Ptq1_0),
            TL1 | TL2 => {
                let name = if id == TL1 { "TL1" } else { "TL2" };
                return Err(format!(
                    "is of type {name} ({id}) of microsoft/BitNet, whose weights are cut and ordered for the lookup tables of \
                     one model on one kind of CPU; use the same model as I2_S, which its setup_env.py makes with -q i2_s, or \
                     its safetensors checkpoint"
                ));
            }
            335 => {
                return Err(
                    "is of type IQ2_BN_R4 (335), whose rows are interleaved for one program; use the same \
                            model as IQ2_BN"
                        .to_owned(),
                );
            }
            other => {
                let name = OTHERS.iter().find(|(id, _)| *id == other).map(|(_, name)| *name);
                let name = name
                    .map_or_else(|| format!("the unknown type {other}"), |n| format!("type {n} ({other})"));
                return Err(format!(
                    "is of {name}, which is neither ternary nor read for embeddings, heads and norms; quantize the \
                     model's F16 file again, with ternary weights (TQ1_0, TQ2_0, Q1_0, Q2_0, PQ2_0, PTQ1_0, STQ1_0, IQ1_BN, IQ2_BN) \
                     and all else F32, F16, BF16, Q8_0 or one of Q2_K to Q6_K"
                ));
            }
        })
    }

    /// Bytes of a row of `k` elements; `None` where the row is no whole number of blocks or larger than any memory.
    pub(crate) fn row_bytes(self, k: usize) -> Option<usize> {
        match self {
            TensorType::F32 => k.checked_mul(4),
            TensorType::F16 | TensorType::Bf16 => k.checked_mul(2),
            TensorType::F64 => k.checked_mul(8),
            TensorType::Block(block) => block.row_bytes(k),
            TensorType::I2s => k.checked_div(4),
        }
    }
}
