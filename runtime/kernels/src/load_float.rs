//! Loads stored numbers as f32, sixteen at a time.

use crate::isa::{Isa, LANES};
use half::f16;

/// A type in which a table or a cache stores numbers.
pub trait LoadFloat {
    /// One stored value.
    type Raw: Copy + Default;

    /// Loads sixteen consecutive values as f32.
    fn widen<I: Isa>(isa: I, from: &[Self::Raw; LANES]) -> I::F32;
}

/// f32 as little-endian bytes of any alignment.
pub struct F32Bytes;
/// f16 as little-endian bytes of any alignment.
pub struct F16Bytes;
/// bf16 as little-endian bytes of any alignment.
pub struct Bf16Bytes;

impl LoadFloat for F32Bytes {
    type Raw = [u8; 4];
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[[u8; 4]; LANES]) -> I::F32 {
        isa.load(from)
    }
}

impl LoadFloat for F16Bytes {
    type Raw = [u8; 2];
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[[u8; 2]; LANES]) -> I::F32 {
        isa.widen_f16(from)
    }
}

impl LoadFloat for Bf16Bytes {
    type Raw = [u8; 2];
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[[u8; 2]; LANES]) -> I::F32 {
        isa.widen_bf16(from)
    }
}

impl LoadFloat for f32 {
    type Raw = f32;
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[f32; LANES]) -> I::F32 {
        isa.load(from)
    }
}

impl LoadFloat for f16 {
    type Raw = f16;
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[f16; LANES]) -> I::F32 {
        isa.widen_f16(from)
    }
}

impl LoadFloat for i8 {
    type Raw = i8;
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[i8; LANES]) -> I::F32 {
        isa.widen_i8(from)
    }
}
