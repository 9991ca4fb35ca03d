//! The operations on NEON.

use super::tier::each;
use super::{CHUNK, CHUNK_TRITS, TritIsa};
use crate::isa::Neon;
use std::arch::aarch64::*;

impl TritIsa for Neon {
    type Bytes = uint8x16_t;
    const BYTES: usize = 16;

    #[inline(always)]
    fn load(self, from: &[u8; CHUNK], part: usize) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { vld1q_u8(from.as_chunks::<16>().0[part].as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: Self::Bytes, to: &mut [u8; CHUNK], part: usize) {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { vst1q_u8(to.as_chunks_mut::<16>().0[part].as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn splat(self, x: u8) -> Self::Bytes {
        // SAFETY: `self` proves the feature.
        unsafe { vdupq_n_u8(x) }
    }
    each! {
        and(a, b) = vandq_u8(a, b);
        or(a, b) = vorrq_u8(a, b);
        xor(a, b) = veorq_u8(a, b);
        and_not(a, b) = vbicq_u8(a, b);
        add(a, b) = vaddq_u8(a, b);
        sub(a, b) = vsubq_u8(a, b);
        min(a, b) = vminq_u8(a, b);
        max(a, b) = vmaxq_u8(a, b);
        min_signed(a, b) = vreinterpretq_u8_s8(vminq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)));
        max_signed(a, b) = vreinterpretq_u8_s8(vmaxq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)));
        upper(x) = vshrq_n_u8::<4>(x);
        upper_mixed(x) = vshrq_n_u8::<4>(x);
        mul_trits(a, b) = vmulq_u8(a, b);
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], index: Self::Bytes) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the table is one register. The instruction gives 0 from 16 on.
        unsafe { vqtbl1q_u8(vld1q_u8(table.as_ptr()), index) }
    }
    #[inline(always)]
    fn lookup_wide(self, table: &[u8; 32], index: Self::Bytes) -> Self::Bytes {
        let (halves, _) = table.as_chunks::<16>();
        // SAFETY: `self` proves the feature; the halves are one register each.
        unsafe { vqtbl2q_u8(uint8x16x2_t(vld1q_u8(halves[0].as_ptr()), vld1q_u8(halves[1].as_ptr())), index) }
    }
    #[inline(always)]
    fn shuffle(self, x: Self::Bytes, index: &[u8; 16]) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the indices are one register. The instruction gives 0 from 16 on.
        unsafe { vqtbl1q_u8(x, vld1q_u8(index.as_ptr())) }
    }
    #[inline(always)]
    fn load_piece(self, from: &[u8; CHUNK_TRITS], part: usize, piece: usize) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { vld1q_u8(from.as_chunks::<16>().0[5 * part + piece].as_ptr()) }
    }
    #[inline(always)]
    fn store_piece(self, x: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize, piece: usize) {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { vst1q_u8(to.as_chunks_mut::<16>().0[5 * part + piece].as_mut_ptr(), x) }
    }
}
