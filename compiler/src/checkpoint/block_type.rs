//! Types that store weights in blocks, as GGUF files have them: how many weights and bytes a block has.

use crate::checkpoint::integer_type::IntegerType;
use std::fmt;

/// A type that stores weights in blocks. `weights::trits` says what is in a block of the ternary
/// ones.
///
/// | type | id | weights | bytes | scale | bits per weight | from |
/// |---|---|---|---|---|---|---|
/// | TQ1_0 | 34 | 256 | 54 | f16 | 1.6875 | llama.cpp |
/// | TQ2_0 | 35 | 256 | 66 | f16 | 2.0625 | llama.cpp |
/// | Q1_0 | 41 | 128 | 18 | f16 | 1.125 | llama.cpp |
/// | STQ1_0 | 43, first 42 | 256 | 42 | f16 | 1.3125 | Tencent's llama.cpp |
/// | Q2_0 | 42 | 64 | 18 | f16 | 2.25 | llama.cpp |
/// | Q2_0 | 42 | 128 | 34 | f16 | 2.125 | PrismML's llama.cpp before upstream took the number |
/// | PQ2_0 | 142 | 128 | 34 | f16 | 2.125 | PrismML's llama.cpp |
/// | PTQ1_0 | 143 | 128 | 28 | f16 | 1.75 | PrismML's llama.cpp |
/// | IQ1_BN | 134 | 64 | 13 | f16 at the start of a row | 1.625 | ik_llama.cpp |
/// | IQ2_BN | 135 | 64 | 16 | f32 at the start of a row | 2 | ik_llama.cpp |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BlockType {
    /// Integers that are no trits.
    Integers(IntegerType),
    Tq1_0,
    Tq2_0,
    Q1_0,
    /// Upstream's, 64 weights.
    Q2_0,
    /// PrismML's early one under the same number, 128 weights.
    Q2_0Prism,
    Pq2_0,
    Ptq1_0,
    /// Tencent's: one of four weights is zero.
    Stq1_0,
    Iq1Bn,
    Iq2Bn,
}

impl BlockType {
    /// Weights of a block.
    pub(crate) fn weights(self) -> usize {
        match self {
            BlockType::Integers(kind) => kind.weights(),
            BlockType::Q2_0 | BlockType::Iq1Bn | BlockType::Iq2Bn => 64,
            BlockType::Q1_0 | BlockType::Q2_0Prism | BlockType::Pq2_0 | BlockType::Ptq1_0 => 128,
            BlockType::Tq1_0 | BlockType::Tq2_0 | BlockType::Stq1_0 => 256,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            BlockType::Integers(kind) => kind.bytes(),
            BlockType::Q2_0Prism | BlockType::Pq2_0 => 34,
            BlockType::Tq1_0 => 54,
            BlockType::Tq2_0 => 66,
            BlockType::Q1_0 | BlockType::Q2_0 => 18,
            BlockType::Ptq1_0 => 28,
            BlockType::Stq1_0 => 42,
            BlockType::Iq1Bn => 13,
            BlockType::Iq2Bn => 16,
        }
    }

    /// Bytes before the first block of each row. They hold the scale, where the type has one for a whole row.
    pub(crate) fn row_header(self) -> usize {
        match self {
            BlockType::Iq1Bn => 2,
            BlockType::Iq2Bn => 4,
            _ => 0,
        }
    }

    /// Bytes of a row of `k` weights; `None` where the row is no whole number of blocks or larger than any memory.
    pub(crate) fn row_bytes(self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.weights()) {
            return None;
        }
        (k / self.weights()).checked_mul(self.bytes())?.checked_add(self.row_header())
    }

    /// Whether its weights are trits times a scale; signs are trits too.
    pub(crate) fn is_ternary(self) -> bool {
        !matches!(self, BlockType::Integers(_))
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlockType::Integers(kind) => kind.name(),
            BlockType::Tq1_0 => "TQ1_0",
            BlockType::Tq2_0 => "TQ2_0",
            BlockType::Q1_0 => "Q1_0",
            BlockType::Q2_0 => "Q2_0",
            BlockType::Q2_0Prism => "Q2_0 (128 weights)",
            BlockType::Pq2_0 => "PQ2_0",
            BlockType::Ptq1_0 => "PTQ1_0",
            BlockType::Stq1_0 => "STQ1_0",
            BlockType::Iq1Bn => "IQ1_BN",
            BlockType::Iq2Bn => "IQ2_BN",
        })
    }
}
