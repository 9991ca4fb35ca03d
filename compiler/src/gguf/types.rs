//! Types of tensors: their numbers in files, and how many bytes a row takes.

use crate::checkpoint::BlockType;

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

/// Types that are known and not read.
const OTHERS: [(u32, &str); 26] = [
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (335, "IQ2_BN_R4"),
];

impl TensorType {
    /// The type of the number `id`. For 42 it is the upstream type; `layout` tells the two types apart.
    ///
    /// # Errors
    /// The number is any other. The error has its name, where it has one, and what to do.
    pub(crate) fn of(id: u32) -> Result<TensorType, String> {
        Ok(match id {
            0 => TensorType::F32,
            1 => TensorType::F16,
            8 => TensorType::Block(BlockType::Q8_0),
            12 => TensorType::Block(BlockType::Q4K),
            14 => TensorType::Block(BlockType::Q6K),
            28 => TensorType::F64,
            30 => TensorType::Bf16,
            34 => TensorType::Block(BlockType::Tq1_0),
            35 => TensorType::Block(BlockType::Tq2_0),
            36 => TensorType::I2s,
            42 => TensorType::Block(BlockType::Q2_0),
            134 => TensorType::Block(BlockType::Iq1Bn),
            135 => TensorType::Block(BlockType::Iq2Bn),
            142 => TensorType::Block(BlockType::Pq2_0),
            143 => TensorType::Block(BlockType::Ptq1_0),
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
                     model's F16 file again, with ternary weights (TQ1_0, TQ2_0, Q2_0, PQ2_0, PTQ1_0, IQ1_BN, IQ2_BN) \
                     and all else F32, F16, BF16, Q8_0, Q6_K or Q4_K"
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
