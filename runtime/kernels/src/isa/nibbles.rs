//! Products of 4-bit weights with 8-bit digits, sixteen sums at a time, on each instruction set.
//!
//! As for [`Isa`], every method does exactly what the one for [`Portable`] spells out.
//!
//! # Why sums are exact
//!
//! Sums are kept for at most one chunk. There a lane meets one block of [`MAX_BLOCK`] = 32 columns: [`MAX_VECTORS`] = 4
//! vectors, of each of which it takes 4 bytes a plane, that is 8 nibbles. A digit is at least -128.
//!
//! *In 16 bits* (AVX2, NEON) a nibble is at most 15. A 16-bit sum takes half of a lane's products with one digit of one
//! plane, because instructions add up pairs: 16 products, `16 * 15 * 128 = 30720 < 2^15`.
//!
//! *In 32 bits* (AVX-512) the instruction adds four products of an unsigned and a signed byte to an i32 and saturates
//! nowhere, so that only the i32 could overflow. [`Nibbles::add_products`] leaves high nibbles where they stand in
//! their bytes, at 16 times their value: a sum takes at most 16 products of low nibbles, of one plane, and 16 of high
//! nibbles, of the other, `16 * (15 + 240) * 128 < 2^19`. [`Nibbles::add_bytes`] multiplies bytes of up to 255: a sum
//! takes the products of all 32 columns with one digit, `32 * 255 * 128 < 2^20`.
//!
//! *The total* of a lane, its sums times their powers of 16, is at most `32 * 255 * (256 + 1) * 128 < 2^28` whichever
//! way it is summed, and twice that with `SHIFT` 1. Partial totals are less, since they leave terms out of the same
//! bound.

use super::{Isa, LANES, Portable};
use trit_format::planes::{MAX_BLOCK, STEP};

/// Most vectors of a row whose products are added to the same sums: those of a whole chunk.
const MAX_VECTORS: usize = MAX_BLOCK / STEP;

/// Products of a lane's low nibbles of one plane with one digit in a chunk, and as many of its high nibbles.
const PRODUCTS: usize = 4 * MAX_VECTORS;

// The bounds above.
const _: () = {
    assert!(2 * PRODUCTS == MAX_BLOCK);
    assert!(PRODUCTS * 15 * 128 < 1 << 15);
    assert!(PRODUCTS * (15 + 240) * 128 < 1 << 19);
    assert!(MAX_BLOCK * 255 * 128 < 1 << 20);
    assert!(MAX_BLOCK * 255 * (256 + 1) * 128 < 1 << 28);
};

/// What scans of two-plane tables need beside [`Isa`].
pub trait Nibbles: Isa {
    /// Sums of part of the lanes.
    type Sums: Copy;
    /// How many parts the lanes are divided into. Parts are summed one after the other, so that several rows' sums of
    /// one part fit the registers.
    const PARTS: usize;
    /// Whether sums have room for products of whole bytes. Where they have, scans of both planes for several hidden
    /// states use [`Nibbles::add_bytes`], which takes half as many multiplications as [`Nibbles::add_products`] for
    /// each plane. Putting bytes together costs a few instructions for each row, and pays because all hidden states
    /// share it.
    const BYTES: bool = false;

    /// Sums of no products.
    fn no_sums(self) -> Self::Sums;
    /// Adds products of one vector of each of `R` rows to the sums of part `part`. Lane `i` takes the low nibbles of
    /// bytes `4 i .. 4 i + 4` of `from` times the digits `upper[0]` and `lower[0]` at the same places, and the high
    /// nibbles times those of `upper[1]` and `lower[1]`. An upper digit counts 256 times as much as a lower one, and a
    /// nibble of plane 1 counts 16 times as much as one of plane 0. Sums are exact for up to four vectors of each
    /// plane: see the module.
    fn add_products<const PLANE: usize, const R: usize>(
        self,
        part: usize,
        sums: &mut [Self::Sums; R],
        from: [&[u8; 64]; R],
        upper: &[[i8; 64]; 2],
        lower: &[[i8; 64]; 2],
    );
    /// Adds products of one vector of both planes: the same as [`Nibbles::add_products`] of `high` as plane 1 and of
    /// `low` as plane 0. Where [`Nibbles::BYTES`] is true, it first puts the two nibbles of each column together into
    /// the byte `16 * high + low`, and multiplies that byte with the two digits. Sums are exact for up to four calls:
    /// see the module.
    #[inline(always)]
    fn add_bytes<const R: usize>(
        self,
        part: usize,
        sums: &mut [Self::Sums; R],
        [high, low]: [[&[u8; 64]; R]; 2],
        upper: &[[i8; 64]; 2],
        lower: &[[i8; 64]; 2],
    ) {
        self.add_products::<1, R>(part, sums, high, upper, lower);
        self.add_products::<0, R>(part, sums, low, upper, lower);
    }
    /// Adds the sums of a part, times `2^SHIFT`, to its lanes of `to`, wrapping. `SHIFT` is 0 or 1.
    fn add_sums<const SHIFT: i32>(self, part: usize, sums: Self::Sums, to: &mut Self::I32);
    /// Prefetches the cache line `ahead` bytes after `at` into L2. No memory need exist there.
    fn prefetch_l2<T>(self, at: &T, ahead: usize);
    /// Sixteen consecutive i32.
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32;
    /// The f32 nearest to each lane.
    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// The values of sixteen bytes as f32.
    fn widen_u8(self, from: &[u8; LANES]) -> Self::F32;
}

impl Nibbles for Portable {
    type Sums = [i32; LANES];
    const PARTS: usize = 1;

    #[inline(always)]
    fn no_sums(self) -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    fn add_products<const PLANE: usize, const R: usize>(
        self,
        _part: usize,
        sums: &mut [Self::Sums; R],
        from: [&[u8; 64]; R],
        upper: &[[i8; 64]; 2],
        lower: &[[i8; 64]; 2],
    ) {
        for (sums, from) in sums.iter_mut().zip(from) {
            for (i, byte) in from.iter().enumerate() {
                for (n, nibble) in [byte & 0xf, byte >> 4].into_iter().enumerate() {
                    let digits = 256 * i32::from(upper[n][i]) + i32::from(lower[n][i]);
                    sums[i / 4] += (i32::from(nibble) * digits) << (4 * PLANE);
                }
            }
        }
    }
    #[inline(always)]
    fn add_sums<const SHIFT: i32>(self, _part: usize, sums: Self::Sums, to: &mut Self::I32) {
        to.iter_mut().zip(sums).for_each(|(to, s)| *to = to.wrapping_add(s << SHIFT));
    }
    #[inline(always)]
    fn prefetch_l2<T>(self, _at: &T, _ahead: usize) {}
    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        *from
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I32) -> Self::F32 {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn widen_u8(self, from: &[u8; LANES]) -> Self::F32 {
        from.map(f32::from)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Nibbles};
    use crate::isa::{Avx2, Avx512};
    use std::arch::x86_64::*;

    impl Nibbles for Avx2 {
        /// Pairs as i16, by power of 16 that they count.
        type Sums = [__m256i; 4];
        const PARTS: usize = 2;

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm256_setzero_si256(); 4] }
        }
        #[inline(always)]
        fn add_products<const PLANE: usize, const R: usize>(
            self,
            part: usize,
            sums: &mut [Self::Sums; R],
            from: [&[u8; 64]; R],
            upper: &[[i8; 64]; 2],
            lower: &[[i8; 64]; 2],
        ) {
            // SAFETY: `self` proves the feature; both halves lie inside each array.
            unsafe {
                let mask = _mm256_set1_epi8(0xf);
                let upper_low = _mm256_loadu_si256(upper[0].as_ptr().cast::<__m256i>().add(part));
                let upper_high = _mm256_loadu_si256(upper[1].as_ptr().cast::<__m256i>().add(part));
                let lower_low = _mm256_loadu_si256(lower[0].as_ptr().cast::<__m256i>().add(part));
                let lower_high = _mm256_loadu_si256(lower[1].as_ptr().cast::<__m256i>().add(part));
                for r in 0..R {
                    let x = _mm256_loadu_si256(from[r].as_ptr().cast::<__m256i>().add(part));
                    let low = _mm256_and_si256(x, mask);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(x), mask);
                    let sum = &mut sums[r][PLANE + 2];
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(low, upper_low));
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(high, upper_high));
                    let sum = &mut sums[r][PLANE];
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(low, lower_low));
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(high, lower_high));
                }
            }
        }
        #[inline(always)]
        fn add_sums<const SHIFT: i32>(self, part: usize, sums: Self::Sums, to: &mut Self::I32) {
            // SAFETY: `self` proves the feature. The factors, at most 2^13, fit i16.
            unsafe {
                for place in 0..4 {
                    let factor = _mm256_set1_epi16(1 << (4 * place as i32 + SHIFT));
                    to[part] = _mm256_add_epi32(to[part], _mm256_madd_epi16(sums[place], factor));
                }
            }
        }
        #[inline(always)]
        fn prefetch_l2<T>(self, at: &T, ahead: usize) {
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(at).cast::<i8>().wrapping_add(ahead)) }
        }
        #[inline(always)]
        fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
            let at = from.as_ptr().cast::<__m256i>();
            // SAFETY: `self` proves the feature; both halves lie inside the array.
            unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
        }
        #[inline(always)]
        fn to_f32(self, x: Self::I32) -> Self::F32 {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
        }
        #[inline(always)]
        fn widen_u8(self, from: &[u8; LANES]) -> Self::F32 {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe {
                let x = _mm_loadu_si128(from.as_ptr().cast());
                let wide = [_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x))];
                [_mm256_cvtepi32_ps(wide[0]), _mm256_cvtepi32_ps(wide[1])]
            }
        }
    }

    impl Nibbles for Avx512 {
        /// Sum `p` counts `16^(p - 1)`: high nibbles are multiplied where they stand in their bytes, at 16 times their
        /// value, so that they need no shift. The module says why these sums do not overflow.
        type Sums = [__m512i; 5];
        const PARTS: usize = 1;
        const BYTES: bool = true;

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm512_setzero_si512(); 5] }
        }
        #[inline(always)]
        fn add_products<const PLANE: usize, const R: usize>(
            self,
            _part: usize,
            sums: &mut [Self::Sums; R],
            from: [&[u8; 64]; R],
            upper: &[[i8; 64]; 2],
            lower: &[[i8; 64]; 2],
        ) {
            // SAFETY: `self` proves the features; each array is one register.
            unsafe {
                let upper_low = _mm512_loadu_si512(upper[0].as_ptr().cast());
                let upper_high = _mm512_loadu_si512(upper[1].as_ptr().cast());
                let lower_low = _mm512_loadu_si512(lower[0].as_ptr().cast());
                let lower_high = _mm512_loadu_si512(lower[1].as_ptr().cast());
                for r in 0..R {
                    let x = _mm512_loadu_si512(from[r].as_ptr().cast());
                    let low = _mm512_and_si512(x, _mm512_set1_epi8(0xf));
                    let high = _mm512_and_si512(x, _mm512_set1_epi8(-16));
                    let sums = &mut sums[r];
                    sums[PLANE + 3] = _mm512_dpbusd_epi32(sums[PLANE + 3], low, upper_low);
                    sums[PLANE + 2] = _mm512_dpbusd_epi32(sums[PLANE + 2], high, upper_high);
                    sums[PLANE + 1] = _mm512_dpbusd_epi32(sums[PLANE + 1], low, lower_low);
                    sums[PLANE] = _mm512_dpbusd_epi32(sums[PLANE], high, lower_high);
                }
            }
        }
        #[inline(always)]
        fn add_bytes<const R: usize>(
            self,
            _part: usize,
            sums: &mut [Self::Sums; R],
            [high, low]: [[&[u8; 64]; R]; 2],
            upper: &[[i8; 64]; 2],
            lower: &[[i8; 64]; 2],
        ) {
            // SAFETY: `self` proves the features; each array is one register.
            unsafe {
                let upper_low = _mm512_loadu_si512(upper[0].as_ptr().cast());
                let upper_high = _mm512_loadu_si512(upper[1].as_ptr().cast());
                let lower_low = _mm512_loadu_si512(lower[0].as_ptr().cast());
                let lower_high = _mm512_loadu_si512(lower[1].as_ptr().cast());
                let mask = _mm512_set1_epi8(0xf);
                for r in 0..R {
                    let high = _mm512_loadu_si512(high[r].as_ptr().cast());
                    let low = _mm512_loadu_si512(low[r].as_ptr().cast());
                    // Bits come from the second operand where the mask has a 1, and from the third elsewhere. The
                    // shifts carry bits from byte to byte only into places that the other operand fills.
                    let bytes_low =
                        _mm512_ternarylogic_epi32::<0xca>(mask, low, _mm512_slli_epi16::<4>(high));
                    let bytes_high =
                        _mm512_ternarylogic_epi32::<0xca>(mask, _mm512_srli_epi16::<4>(low), high);
                    let sums = &mut sums[r];
                    // At most 32 products of at most 255 * 128 in each lane: see the module.
                    sums[3] = _mm512_dpbusd_epi32(sums[3], bytes_low, upper_low);
                    sums[3] = _mm512_dpbusd_epi32(sums[3], bytes_high, upper_high);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], bytes_low, lower_low);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], bytes_high, lower_high);
                }
            }
        }
        #[inline(always)]
        fn add_sums<const SHIFT: i32>(self, _part: usize, sums: Self::Sums, to: &mut Self::I32) {
            // SAFETY: `self` proves the feature. The shift to the right is exact, because `sums[0]` is a multiple of
            // 16.
            unsafe {
                let mut total = _mm512_add_epi32(_mm512_slli_epi32::<4>(sums[4]), sums[3]);
                total = _mm512_add_epi32(_mm512_slli_epi32::<4>(total), sums[2]);
                total = _mm512_add_epi32(_mm512_slli_epi32::<4>(total), sums[1]);
                total = _mm512_add_epi32(total, _mm512_srai_epi32::<4>(sums[0]));
                *to = _mm512_add_epi32(*to, if SHIFT == 1 { _mm512_add_epi32(total, total) } else { total });
            }
        }
        #[inline(always)]
        fn prefetch_l2<T>(self, at: &T, ahead: usize) {
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(at).cast::<i8>().wrapping_add(ahead)) }
        }
        #[inline(always)]
        fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }
        #[inline(always)]
        fn to_f32(self, x: Self::I32) -> Self::F32 {
            // SAFETY: `self` proves the feature.
            unsafe { _mm512_cvtepi32_ps(x) }
        }
        #[inline(always)]
        fn widen_u8(self, from: &[u8; LANES]) -> Self::F32 {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{LANES, Nibbles};
    use crate::isa::Neon;
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::array::from_fn;

    impl Nibbles for Neon {
        /// Pairs as i16, by power of 16 that they count.
        type Sums = [int16x8_t; 4];
        const PARTS: usize = 4;

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [vdupq_n_s16(0); 4] }
        }
        #[inline(always)]
        fn add_products<const PLANE: usize, const R: usize>(
            self,
            part: usize,
            sums: &mut [Self::Sums; R],
            from: [&[u8; 64]; R],
            upper: &[[i8; 64]; 2],
            lower: &[[i8; 64]; 2],
        ) {
            // SAFETY: `self` proves the feature; the quarters lie inside each array.
            unsafe {
                let load = |d: &[i8; 64]| vld1q_s8(d.as_ptr().add(16 * part));
                let digits = [(PLANE + 2, upper), (PLANE, lower)];
                let digits = digits.map(|(place, d)| (place, load(&d[0]), load(&d[1])));
                for r in 0..R {
                    let x = vld1q_u8(from[r].as_ptr().add(16 * part));
                    let low = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(0xf)));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(x));
                    for (place, digits_low, digits_high) in digits {
                        // The products of both nibbles of a byte, at most `2 * 15 * 128`, fit i16.
                        let first = vmull_s8(vget_low_s8(low), vget_low_s8(digits_low));
                        let first = vmlal_s8(first, vget_low_s8(high), vget_low_s8(digits_high));
                        let second = vmlal_high_s8(vmull_high_s8(low, digits_low), high, digits_high);
                        sums[r][place] = vaddq_s16(sums[r][place], vpaddq_s16(first, second));
                    }
                }
            }
        }
        #[inline(always)]
        fn add_sums<const SHIFT: i32>(self, part: usize, sums: Self::Sums, to: &mut Self::I32) {
            for (place, sums) in sums.into_iter().enumerate() {
                // SAFETY: `self` proves the feature.
                unsafe {
                    let shift = vdupq_n_s32(4 * place as i32 + SHIFT);
                    to[part] = vaddq_s32(to[part], vshlq_s32(vpaddlq_s16(sums), shift));
                }
            }
        }
        #[inline(always)]
        fn prefetch_l2<T>(self, at: &T, ahead: usize) {
            let at = std::ptr::from_ref(at).cast::<u8>().wrapping_add(ahead);
            // SAFETY: a prefetch of any address is harmless.
            unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
        }
        #[inline(always)]
        fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
            let at: *const i32 = from.as_ptr();
            // SAFETY: `self` proves the feature; the quarters lie inside the array.
            from_fn(|i| unsafe { vld1q_s32(at.add(4 * i)) })
        }
        #[inline(always)]
        fn to_f32(self, x: Self::I32) -> Self::F32 {
            // SAFETY: `self` proves the feature.
            x.map(|x| unsafe { vcvtq_f32_s32(x) })
        }
        #[inline(always)]
        fn widen_u8(self, from: &[u8; LANES]) -> Self::F32 {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe {
                let x = vld1q_u8(from.as_ptr());
                let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x));
                [
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                    vcvtq_f32_u32(vmovl_high_u16(low)),
                    vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                    vcvtq_f32_u32(vmovl_high_u16(high)),
                ]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Tier, dispatch};
    use crate::testing::Random;

    fn all_body<I: Nibbles>(isa: I, weights: &[[u8; 64]; 8], digits: &[[[i8; 64]; 2]; 8]) -> Vec<u32> {
        let mut offsets = [0; LANES];
        offsets.iter_mut().zip(digits[0][0]).for_each(|(o, d)| *o = i32::from(d) << 20);
        let mut all = [[isa.load_i32(&offsets); 2]; 5];
        for part in 0..I::PARTS {
            let mut sums = [[isa.no_sums(); 2]; 4];
            for v in 0..4 {
                let (rows, [upper, lower]) = ([&weights[v], &weights[v + 4]], [&digits[v], &digits[v + 4]]);
                isa.add_products::<1, 2>(part, &mut sums[0], rows, upper, lower);
                isa.add_products::<0, 2>(part, &mut sums[1], rows, upper, lower);
                isa.add_products::<1, 2>(part, &mut sums[2], rows, upper, lower);
                isa.add_products::<0, 2>(part, &mut sums[2], [rows[1], rows[0]], upper, lower);
                isa.add_bytes::<2>(part, &mut sums[3], [rows, [rows[1], rows[0]]], upper, lower);
            }
            for r in 0..2 {
                (0..4).for_each(|i| isa.add_sums::<0>(part, sums[i][r], &mut all[i][r]));
                isa.add_sums::<1>(part, sums[0][r], &mut all[4][r]);
            }
        }
        let mut bits: Vec<u32> = Vec::new();
        for s in all.into_iter().flatten() {
            bits.extend(isa.to_array(s).map(|s| s as u32));
            let mut out = [0.0; LANES];
            isa.store(isa.to_f32(s), &mut out);
            bits.extend(out.map(f32::to_bits));
        }
        let mut out = [0.0; LANES];
        isa.store(isa.widen_u8(weights[0].first_chunk().unwrap()), &mut out);
        bits.extend(out.map(f32::to_bits));
        bits
    }
    dispatch!(fn all(weights: &[[u8; 64]; 8], digits: &[[[i8; 64]; 2]; 8]) -> Vec<u32> = all_body);

    #[test]
    fn every_tier_does_what_the_portable_one_does() {
        eprintln!("tiers on this CPU: {:?}", Tier::supported());
        let mut random = Random(5);
        for round in 0..2000 {
            let mut weights: [[u8; 64]; 8] =
                std::array::from_fn(|_| std::array::from_fn(|_| random.next() as u8));
            let mut digits: [[[i8; 64]; 2]; 8] = std::array::from_fn(|_| {
                std::array::from_fn(|_| std::array::from_fn(|_| random.next() as i8))
            });
            match round {
                // The largest sums of either sign.
                0 => (weights, digits) = ([[0xff; 64]; 8], [[[-128; 64]; 2]; 8]),
                1 => (weights, digits) = ([[0xff; 64]; 8], [[[127; 64]; 2]; 8]),
                _ => {}
            }
            let expected = all(Tier::Portable(Portable), &weights, &digits);
            // The third and the fourth results add the same products, nibble by nibble and as bytes; each is two rows
            // of sums, as integers and as floats.
            let (nibbles, bytes) = expected[2 * 4 * LANES..4 * 4 * LANES].split_at(4 * LANES);
            assert_eq!(nibbles, bytes);
            for tier in Tier::supported() {
                assert_eq!(all(tier, &weights, &digits), expected, "{tier:?}");
            }
        }
    }
}
