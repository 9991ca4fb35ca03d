//! The operations on AVX2 and on AVX-512.

use super::{Half, Isa, LANES, PackedQuad, Single};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2, FMA and F16C. A vector is two registers.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, where the CPU and the system support it.
    pub fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Avx2(()))
    }
}

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI, and what [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, where the CPU and the system support it.
    pub fn detect() -> Option<Avx512> {
        (Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni"))
        .then_some(Avx512(()))
    }
}

/// The sum of eight lanes by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sum8(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// `sum` plus the dot product of each four bytes. The instruction multiplies unsigned by signed bytes, so it is given
/// `|a|` and `sign(x, a)`. The pairs that it adds are at most 2 * 128 * 127, which fits i16.
#[inline]
#[target_feature(enable = "avx2")]
fn dot4_32(sum: __m256i, x: __m256i, a: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(x, a));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

impl Isa for Avx2 {
    type F32 = [__m256; 2];
    type I32 = [__m256i; 2];
    type I8 = [__m256i; 2];
    type F64 = [__m256d; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load<T: Single>(self, from: &[T; LANES]) -> Self::F32 {
        let at = from.as_ptr().cast::<f32>();
        // SAFETY: `self` proves the feature; both halves lie inside the array.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; LANES]) {
        let at = to.as_mut_ptr();
        // SAFETY: `self` proves the feature; both halves lie inside the array.
        unsafe {
            _mm256_storeu_ps(at, x[0]);
            _mm256_storeu_ps(at.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn widen_f16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        let at = from.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves the features; both halves lie inside the array.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
    }
    #[inline(always)]
    fn widen_bf16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        let at = from.as_ptr().cast::<__m128i>();
        // SAFETY: `self` proves the features; both halves lie inside the array.
        unsafe {
            let wide = [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(at)),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(1))),
            ];
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[0])),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide[1])),
            ]
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature. The instruction gives `b` where either is NaN, as the contract says.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the feature.
        unsafe { sum8(_mm256_add_ps(x[0], x[1])) }
    }

    #[inline(always)]
    fn zero(self) -> Self::I32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    fn to_array(self, x: Self::I32) -> [i32; LANES] {
        let mut out = [0; LANES];
        let at = out.as_mut_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the feature; both halves lie inside the array.
        unsafe {
            _mm256_storeu_si256(at, x[0]);
            _mm256_storeu_si256(at.add(1), x[1]);
        }
        out
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 64]) -> Self::I8 {
        let at = from.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the feature; both halves lie inside the array.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }
    #[inline(always)]
    fn triple(self, x: Self::I8) -> Self::I8 {
        // SAFETY: `self` proves the feature.
        unsafe {
            [
                _mm256_add_epi8(x[0], _mm256_add_epi8(x[0], x[0])),
                _mm256_add_epi8(x[1], _mm256_add_epi8(x[1], x[1])),
            ]
        }
    }
    #[inline(always)]
    fn dot4(self, sum: Self::I32, x: Self::I8, a: [i8; 4]) -> Self::I32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            let a = _mm256_set1_epi32(i32::from_le_bytes(a.map(|a| a as u8)));
            [dot4_32(sum[0], x[0], a), dot4_32(sum[1], x[1], a)]
        }
    }

    /// The first and third byte of each four as i16, then the second and fourth, of either half.
    type Quads = [[__m256i; 2]; 2];
    type QuadSums = [__m256i; 2];
    #[inline(always)]
    fn quads(self, from: &[i8; 64]) -> Self::Quads {
        let at = from.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the feature; both halves lie inside the array.
        unsafe {
            let x = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
            [
                x.map(|x| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x))),
                x.map(|x| _mm256_srai_epi16::<8>(x)),
            ]
        }
    }
    #[inline(always)]
    fn no_quad_sums(self) -> Self::QuadSums {
        self.zero()
    }
    #[inline(always)]
    fn dot_quads(self, sums: Self::QuadSums, x: Self::Quads, a: &[u32; 2]) -> Self::QuadSums {
        // SAFETY: `self` proves the feature.
        unsafe {
            let (a, b) = (_mm256_set1_epi32(a[0] as i32), _mm256_set1_epi32(a[1] as i32));
            let low = _mm256_add_epi32(sums[0], _mm256_madd_epi16(x[0][0], a));
            let high = _mm256_add_epi32(sums[1], _mm256_madd_epi16(x[0][1], a));
            [
                _mm256_add_epi32(low, _mm256_madd_epi16(x[1][0], b)),
                _mm256_add_epi32(high, _mm256_madd_epi16(x[1][1], b)),
            ]
        }
    }
    #[inline(always)]
    fn total(self, sums: Self::QuadSums, _of: i32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast::<i8>().wrapping_add(ahead)) }
    }

    const VECTORS: usize = 8;
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn power_of_two(self, shifted: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            shifted.map(|x| {
                let n = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            })
        }
    }
    #[inline(always)]
    fn no_squares(self) -> Self::F64 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_setzero_pd(); 4] }
    }
    #[inline(always)]
    fn add_squares(self, sum: Self::F64, x: Self::F32) -> Self::F64 {
        // SAFETY: `self` proves the features. As the square is exact, adding it at once rounds the same.
        unsafe {
            let a = _mm256_cvtps_pd(_mm256_castps256_ps128(x[0]));
            let b = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x[0]));
            let c = _mm256_cvtps_pd(_mm256_castps256_ps128(x[1]));
            let d = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x[1]));
            [
                _mm256_fmadd_pd(a, a, sum[0]),
                _mm256_fmadd_pd(b, b, sum[1]),
                _mm256_fmadd_pd(c, c, sum[2]),
                _mm256_fmadd_pd(d, d, sum[3]),
            ]
        }
    }
    #[inline(always)]
    fn to_array_f64(self, x: Self::F64) -> [f64; LANES] {
        let mut out = [0.0; LANES];
        for (part, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: `self` proves the feature; the part is one register.
            unsafe { _mm256_storeu_pd(part.as_mut_ptr(), x) }
        }
        out
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe {
            let x = _mm_loadu_si128(from.as_ptr().cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))),
            ]
        }
    }
}

impl Isa for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type I8 = __m512i;
    type F64 = [__m512d; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load<T: Single>(self, from: &[T; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn widen_f16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the features; the array is half a register.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn widen_bf16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the features; the array is half a register.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature. The instruction gives `b` where either is NaN, as the contract says.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let high = _mm512_castps_pd(x);
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(high));
            sum8(_mm256_add_ps(_mm512_castps512_ps256(x), high))
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::I32 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn to_array(self, x: Self::I32) -> [i32; LANES] {
        let mut out = [0; LANES];
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
        out
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 64]) -> Self::I8 {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn triple(self, x: Self::I8) -> Self::I8 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi8(x, _mm512_add_epi8(x, x)) }
    }
    #[inline(always)]
    fn dot4(self, sum: Self::I32, x: Self::I8, a: [i8; 4]) -> Self::I32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let a = _mm512_set1_epi32(i32::from_le_bytes(a.map(|a| a as u8)));
            // This is as in `dot4_32`, with a masked negation in place of the sign instruction, which AVX-512 lacks.
            let signed = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(a), _mm512_setzero_si512(), x);
            _mm512_dpbusd_epi32(sum, _mm512_abs_epi8(a), signed)
        }
    }

    /// 128 more than each byte, because the instruction multiplies unsigned by signed bytes.
    type Quads = __m512i;
    /// With the low bytes of integers, as signed bytes, and with what is left of them.
    type QuadSums = [__m512i; 2];
    #[inline(always)]
    fn quads(self, from: &[i8; 64]) -> Self::Quads {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(from.as_ptr().cast()), _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    fn pack_quads(self, x: &[i32], row: usize, to: &mut [PackedQuad]) {
        assert!(x.len() == to.len() * 4);
        for (x, to) in x.chunks(LANES).zip(to.chunks_mut(LANES / 4)) {
            let mut words = [0u64; LANES / 4];
            // SAFETY: `self` proves the features. Of `x` no more lanes are read than it has, and `words` is two registers.
            unsafe {
                let x = _mm512_maskz_loadu_epi32(((1u32 << x.len()) - 1) as u16, x.as_ptr());
                // What is left after the low byte was taken as a signed one.
                let left = _mm512_srai_epi32::<8>(_mm512_add_epi32(x, _mm512_set1_epi32(128)));
                let (low, left) = (_mm512_cvtepi32_epi8(x), _mm512_cvtepi32_epi8(left));
                let at = words.as_mut_ptr().cast::<__m128i>();
                _mm_storeu_si128(at, _mm_unpacklo_epi32(low, left));
                _mm_storeu_si128(at.add(1), _mm_unpackhi_epi32(low, left));
            }
            for (to, word) in to.iter_mut().zip(words) {
                to[row] = [word as u32, (word >> 32) as u32];
            }
        }
    }
    #[inline(always)]
    fn no_quad_sums(self) -> Self::QuadSums {
        [self.zero(); 2]
    }
    #[inline(always)]
    fn dot_quads(self, sums: Self::QuadSums, x: Self::Quads, a: &[u32; 2]) -> Self::QuadSums {
        // SAFETY: `self` proves the features.
        unsafe {
            [
                _mm512_dpbusd_epi32(sums[0], x, _mm512_set1_epi32(a[0] as i32)),
                _mm512_dpbusd_epi32(sums[1], x, _mm512_set1_epi32(a[1] as i32)),
            ]
        }
    }
    #[inline(always)]
    fn total(self, sums: Self::QuadSums, of: i32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            let sum = _mm512_add_epi32(sums[0], _mm512_slli_epi32::<8>(sums[1]));
            // Each byte counted as 128 more.
            let more = _mm512_set1_epi32(of.wrapping_mul(128));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, more))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast::<i8>().wrapping_add(ahead)) }
    }

    const VECTORS: usize = 32;
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn power_of_two(self, shifted: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            let n = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
        }
    }
    #[inline(always)]
    fn no_squares(self) -> Self::F64 {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm512_setzero_pd(); 2] }
    }
    #[inline(always)]
    fn add_squares(self, sum: Self::F64, x: Self::F32) -> Self::F64 {
        // SAFETY: `self` proves the features. As the square is exact, adding it at once rounds the same.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
            let (low, high) = (_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(high));
            [_mm512_fmadd_pd(low, low, sum[0]), _mm512_fmadd_pd(high, high, sum[1])]
        }
    }
    #[inline(always)]
    fn to_array_f64(self, x: Self::F64) -> [f64; LANES] {
        let mut out = [0.0; LANES];
        for (part, x) in out.as_chunks_mut::<8>().0.iter_mut().zip(x) {
            // SAFETY: `self` proves the feature; the part is one register.
            unsafe { _mm512_storeu_pd(part.as_mut_ptr(), x) }
        }
        out
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the feature; the array is a quarter of a register.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
}
