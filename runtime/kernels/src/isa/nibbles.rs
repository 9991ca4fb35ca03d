//! Products of 4-bit weights with 8-bit digits, sixteen sums at a time, on each instruction set.
//!
//! As for [`Isa`], every method does exactly what the one for [`Portable`] spells out.

use super::{Isa, LANES, Portable};

/// What scans of two-plane tables need beside [`Isa`].
pub trait Nibbles: Isa {
    /// The nibbles of 64 bytes.
    type Weights: Copy;
    /// Sums that products are added to.
    type Sums: Copy;

    /// No products yet.
    fn no_sums(self) -> Self::Sums;
    /// The low and the high four bits of each byte.
    fn nibbles(self, from: &[u8; 64]) -> Self::Weights;
    /// Adds to lane `i` the products of low nibbles `4 i .. 4 i + 4` with those of `digits[0]`, and of high nibbles with
    /// those of `digits[1]`. Exact for four additions, which is what 16 bits hold of pairs: `8 * 2 * 15 * 128 < 2^15`.
    fn add_products(self, sums: Self::Sums, x: Self::Weights, digits: [&[i8; 64]; 2]) -> Self::Sums;
    /// The lanes times `2^SHIFT`, for `SHIFT` up to 13.
    fn shifted<const SHIFT: i32>(self, sums: Self::Sums) -> Self::I32;
    /// Asks for the cache line `ahead` bytes after `at`, which need not exist, in L2.
    fn prefetch_l2<T>(self, at: &T, ahead: usize);
    /// Sixteen consecutive i32.
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The nearest f32 of each lane.
    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// The values of sixteen bytes.
    fn widen_u8(self, from: &[u8; LANES]) -> Self::F32;
}

impl Nibbles for Portable {
    type Weights = [[u8; 64]; 2];
    type Sums = [i32; LANES];

    #[inline(always)]
    fn no_sums(self) -> Self::Sums {
        [0; LANES]
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; 64]) -> Self::Weights {
        [from.map(|b| b & 0xf), from.map(|b| b >> 4)]
    }
    #[inline(always)]
    fn add_products(self, mut sums: Self::Sums, x: Self::Weights, digits: [&[i8; 64]; 2]) -> Self::Sums {
        for (x, digits) in x.iter().zip(digits) {
            for (i, (&x, &d)) in x.iter().zip(digits).enumerate() {
                sums[i / 4] += i32::from(i16::from(x) * i16::from(d));
            }
        }
        sums
    }
    #[inline(always)]
    fn shifted<const SHIFT: i32>(self, sums: Self::Sums) -> Self::I32 {
        sums.map(|s| s << SHIFT)
    }
    #[inline(always)]
    fn prefetch_l2<T>(self, _at: &T, _ahead: usize) {}
    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::I32 {
        *from
    }
    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
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
        type Weights = [[__m256i; 2]; 2];
        /// Pairs as i16.
        type Sums = [__m256i; 2];

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm256_setzero_si256(); 2] }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; 64]) -> Self::Weights {
            let at = from.as_ptr().cast::<__m256i>();
            // SAFETY: `self` proves the feature; both halves lie inside the array.
            unsafe {
                let x = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
                let mask = _mm256_set1_epi8(0xf);
                let high = [_mm256_srli_epi16::<4>(x[0]), _mm256_srli_epi16::<4>(x[1])];
                [
                    [_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)],
                    [_mm256_and_si256(high[0], mask), _mm256_and_si256(high[1], mask)],
                ]
            }
        }
        #[inline(always)]
        fn add_products(self, sums: Self::Sums, x: Self::Weights, digits: [&[i8; 64]; 2]) -> Self::Sums {
            let [mut a, mut b] = sums;
            for (x, digits) in x.into_iter().zip(digits) {
                let at = digits.as_ptr().cast::<__m256i>();
                // SAFETY: `self` proves the feature; both halves lie inside the array.
                unsafe {
                    a = _mm256_add_epi16(a, _mm256_maddubs_epi16(x[0], _mm256_loadu_si256(at)));
                    b = _mm256_add_epi16(b, _mm256_maddubs_epi16(x[1], _mm256_loadu_si256(at.add(1))));
                }
            }
            [a, b]
        }
        #[inline(always)]
        fn shifted<const SHIFT: i32>(self, sums: Self::Sums) -> Self::I32 {
            // SAFETY: `self` proves the feature. The factor fits i16.
            unsafe {
                let factor = _mm256_set1_epi16(1 << SHIFT);
                [_mm256_madd_epi16(sums[0], factor), _mm256_madd_epi16(sums[1], factor)]
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
        fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
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
        /// High nibbles where they stand, 16 times what they are: products of bytes do not overflow here.
        type Weights = [__m512i; 2];
        /// Of low and of high nibbles, apart: one chain of additions would wait for itself.
        type Sums = [__m512i; 2];

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [_mm512_setzero_si512(); 2] }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; 64]) -> Self::Weights {
            // SAFETY: `self` proves the features; the array is one register.
            unsafe {
                let x = _mm512_loadu_si512(from.as_ptr().cast());
                [_mm512_and_si512(x, _mm512_set1_epi8(0xf)), _mm512_and_si512(x, _mm512_set1_epi8(-16))]
            }
        }
        #[inline(always)]
        fn add_products(self, sums: Self::Sums, x: Self::Weights, digits: [&[i8; 64]; 2]) -> Self::Sums {
            let [low, high] = digits;
            // SAFETY: `self` proves the features; each array is one register.
            unsafe {
                [
                    _mm512_dpbusd_epi32(sums[0], x[0], _mm512_loadu_si512(low.as_ptr().cast())),
                    _mm512_dpbusd_epi32(sums[1], x[1], _mm512_loadu_si512(high.as_ptr().cast())),
                ]
            }
        }
        #[inline(always)]
        fn shifted<const SHIFT: i32>(self, sums: Self::Sums) -> Self::I32 {
            // SAFETY: `self` proves the feature. Shifts by constants become immediate; the one to the right loses
            // nothing of a multiple of 16.
            unsafe {
                let low = _mm512_sllv_epi32(sums[0], _mm512_set1_epi32(SHIFT));
                let high = match SHIFT >= 4 {
                    true => _mm512_sllv_epi32(sums[1], _mm512_set1_epi32(SHIFT - 4)),
                    false => _mm512_srav_epi32(sums[1], _mm512_set1_epi32(4 - SHIFT)),
                };
                _mm512_add_epi32(low, high)
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
        fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
            // SAFETY: `self` proves the feature.
            unsafe { _mm512_add_epi32(a, b) }
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
        type Weights = [[int8x16_t; 4]; 2];
        /// Pairs as i16.
        type Sums = [int16x8_t; 4];

        #[inline(always)]
        fn no_sums(self) -> Self::Sums {
            // SAFETY: `self` proves the feature.
            unsafe { [vdupq_n_s16(0); 4] }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; 64]) -> Self::Weights {
            let at = from.as_ptr();
            // SAFETY: `self` proves the feature; the quarters lie inside the array.
            unsafe {
                let x: [uint8x16_t; 4] = from_fn(|i| vld1q_u8(at.add(16 * i)));
                let mask = vdupq_n_u8(0xf);
                [
                    x.map(|x| vreinterpretq_s8_u8(vandq_u8(x, mask))),
                    x.map(|x| vreinterpretq_s8_u8(vshrq_n_u8::<4>(x))),
                ]
            }
        }
        #[inline(always)]
        fn add_products(self, mut sums: Self::Sums, x: Self::Weights, digits: [&[i8; 64]; 2]) -> Self::Sums {
            for (x, digits) in x.into_iter().zip(digits) {
                let at: *const i8 = digits.as_ptr();
                for i in 0..4 {
                    // SAFETY: `self` proves the feature; the quarters lie inside the array.
                    unsafe {
                        let d = vld1q_s8(at.add(16 * i));
                        let low = vmull_s8(vget_low_s8(x[i]), vget_low_s8(d));
                        sums[i] = vaddq_s16(sums[i], vpaddq_s16(low, vmull_high_s8(x[i], d)));
                    }
                }
            }
            sums
        }
        #[inline(always)]
        fn shifted<const SHIFT: i32>(self, sums: Self::Sums) -> Self::I32 {
            // SAFETY: `self` proves the feature.
            unsafe { sums.map(|s| vshlq_s32(vpaddlq_s16(s), vdupq_n_s32(SHIFT))) }
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
        fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
            // SAFETY: `self` proves the feature.
            from_fn(|i| unsafe { vaddq_s32(a[i], b[i]) })
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

    fn all_body<I: Nibbles>(isa: I, weights: &[[u8; 64]; 4], digits: &[[i8; 64]; 8]) -> Vec<u32> {
        let mut sums = isa.no_sums();
        for (w, d) in weights.iter().zip(digits.as_chunks::<2>().0) {
            sums = isa.add_products(sums, isa.nibbles(w), [&d[0], &d[1]]);
        }
        let mut offsets = [0; LANES];
        offsets.iter_mut().zip(digits[0]).for_each(|(o, d)| *o = i32::from(d) << 20);
        let sums = [isa.shifted::<0>(sums), isa.shifted::<4>(sums), isa.shifted::<13>(sums)];
        let mut bits: Vec<u32> = Vec::new();
        for s in sums {
            let s = isa.add_i32(s, isa.load_i32(&offsets));
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
    dispatch!(fn all(weights: &[[u8; 64]; 4], digits: &[[i8; 64]; 8]) -> Vec<u32> = all_body);

    #[test]
    fn every_tier_does_what_the_portable_one_does() {
        eprintln!("tiers on this CPU: {:?}", Tier::supported());
        let mut random = Random(5);
        for round in 0..2000 {
            let mut weights: [[u8; 64]; 4] =
                std::array::from_fn(|_| std::array::from_fn(|_| random.next() as u8));
            let mut digits: [[i8; 64]; 8] =
                std::array::from_fn(|_| std::array::from_fn(|_| random.next() as i8));
            match round {
                // The largest sums of either sign.
                0 => (weights, digits) = ([[0xff; 64]; 4], [[-128; 64]; 8]),
                1 => (weights, digits) = ([[0xff; 64]; 4], [[127; 64]; 8]),
                _ => {}
            }
            let expected = all(Tier::Portable(Portable), &weights, &digits);
            for tier in Tier::supported() {
                assert_eq!(all(tier, &weights, &digits), expected, "{tier:?}");
            }
        }
    }
}
