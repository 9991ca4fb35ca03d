//! In which order I2_S, type 36 of GGUF files, holds its trits.
//!
//! I2_S is the type of Microsoft's BitNet and of most BitNet files of others. A matrix of `n` weights takes `n / 4` bytes
//! of four codes each (trit + 1), followed by its scale as f32 in a trailer of 32 bytes. Which four weights share a byte
//! depends on the program that wrote the file, and no field of the file says which it was.
//!
//! | layout | weights of a byte, from the upper two bits to the lower two | written by |
//! |---|---|---|
//! | x86 | `j`, `j + 32`, `j + 64`, `j + 96` of 128 successive ones, in byte `j` of 32 | `quantize_i2_s` of microsoft/BitNet on x86, until November 2025 and since then where `ACT_PARALLEL` is defined, as it is by default; its Python converters everywhere |
//! | ARM | `j`, `j + 16`, `j + 32`, `j + 48` of 64 successive ones, in byte `j` of 16 | the same function on ARM |
//! | 1x4 | the same column of four successive rows; a byte for each column | the same function on x86 without `ACT_PARALLEL` |
//!
//! Sources: `src/ggml-bitnet-mad.cpp` (`QK_I2_S`, `quantize_i2_s`), `include/gemm-config.h`,
//! `utils/convert-hf-to-gguf-bitnet.py` (`quantize_to_i2_s`) of microsoft/BitNet at 16da220; the size of a tensor is that
//! of `ggml_nbytes` in Eddie-Wang1120/llama.cpp at 406a503. Programs on ARM that read files of x86 in their own layout
//! write noise (microsoft/BitNet issues 585, 598, 600, 610).

use std::fmt;

/// In which order an I2_S file holds its trits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum I2sLayout {
    /// Blocks of 128 weights, as programs on x86 write them.
    X86,
    /// Blocks of 64 weights, as programs on ARM write them.
    Arm,
    /// Four rows to a byte.
    FourRows,
}

impl I2sLayout {
    /// All layouts.
    pub const ALL: [I2sLayout; 3] = [I2sLayout::X86, I2sLayout::Arm, I2sLayout::FourRows];

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            I2sLayout::X86 => "x86",
            I2sLayout::Arm => "arm",
            I2sLayout::FourRows => "1x4",
        }
    }

    /// How many bytes stand side by side in a block of a matrix with rows of `k`.
    pub(crate) fn run(self, k: usize) -> usize {
        match self {
            I2sLayout::X86 => 32,
            I2sLayout::Arm => 16,
            I2sLayout::FourRows => k,
        }
    }

    /// Whether a matrix `[rows, k]` is a whole number of blocks.
    pub(crate) fn fits(self, [rows, k]: [usize; 2]) -> bool {
        let run = self.run(k);
        run > 0
            && rows.checked_mul(k).is_some_and(|n| n.is_multiple_of(4))
            && (rows * k / 4).is_multiple_of(run)
    }
}

impl fmt::Display for I2sLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
