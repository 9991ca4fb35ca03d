//! Every operation in plain Rust, which defines what the other instruction sets must give.

use super::{Half, Isa, LANES, Single};

/// Plain Rust, which runs on any CPU.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Isa for Portable {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type I8 = [i8; 64];
    type F64 = [f64; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }
    #[inline(always)]
    fn load<T: Single>(self, from: &[T; LANES]) -> Self::F32 {
        from.map(T::value)
    }
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn widen_f16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        // The exponent and fraction of an f16, moved to where f32 has them, are the value times 2^-112, subnormals
        // included. Infinity and NaN get the largest exponent of f32 instead.
        const TWO_112: f32 = f32::from_bits((127 + 112) << 23);
        from.map(|h| {
            let h = u32::from(h.bits());
            let finite = (f32::from_bits((h & 0x7fff) << 13) * TWO_112).to_bits();
            let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
            f32::from_bits(finite | special | (h & 0x8000) << 16)
        })
    }
    #[inline(always)]
    fn widen_bf16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        from.map(|b| f32::from_bits(u32::from(b.bits()) << 16))
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sum(self, mut x: Self::F32) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }

    #[inline(always)]
    fn zero(self) -> Self::I32 {
        [0; LANES]
    }
    #[inline(always)]
    fn to_array(self, x: Self::I32) -> [i32; LANES] {
        x
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 64]) -> Self::I8 {
        from.map(|b| b as i8)
    }
    #[inline(always)]
    fn triple(self, x: Self::I8) -> Self::I8 {
        x.map(|b| b.wrapping_mul(3))
    }
    #[inline(always)]
    fn dot4(self, sum: Self::I32, x: Self::I8, a: [i8; 4]) -> Self::I32 {
        let product = |lane: usize, i: usize| i32::from(x[lane * 4 + i]) * i32::from(a[i]);
        std::array::from_fn(|lane| (0..4).fold(sum[lane], |sum, i| sum.wrapping_add(product(lane, i))))
    }

    type Quads = [i8; 64];
    type QuadSums = [i32; LANES];
    #[inline(always)]
    fn quads(self, from: &[i8; 64]) -> Self::Quads {
        *from
    }
    #[inline(always)]
    fn no_quad_sums(self) -> Self::QuadSums {
        [0; LANES]
    }
    #[inline(always)]
    fn dot_quads(self, sums: Self::QuadSums, x: Self::Quads, a: &[u32; 2]) -> Self::QuadSums {
        let a = [a[0] as i16, a[1] as i16, (a[0] >> 16) as i16, (a[1] >> 16) as i16].map(i32::from);
        let product = |lane: usize, i: usize| i32::from(x[lane * 4 + i]) * a[i];
        std::array::from_fn(|lane| (0..4).fold(sums[lane], |sum, i| sum.wrapping_add(product(lane, i))))
    }
    #[inline(always)]
    fn total(self, sums: Self::QuadSums, _of: i32) -> Self::F32 {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn prefetch<T>(self, _at: &T, _ahead: usize) {}

    const VECTORS: usize = 8;
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| fused(a[i], b[i], c[i]))
        }
    }
    #[inline(always)]
    fn power_of_two(self, shifted: Self::F32) -> Self::F32 {
        // The low bits are n, because those of 1.5 * 2^23 are 0. With the bias added they become the exponent.
        shifted.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn no_squares(self) -> Self::F64 {
        [0.0; LANES]
    }
    #[inline(always)]
    fn add_squares(self, sum: Self::F64, x: Self::F32) -> Self::F64 {
        std::array::from_fn(|i| sum[i] + f64::from(x[i]) * f64::from(x[i]))
    }
    #[inline(always)]
    fn to_array_f64(self, x: Self::F64) -> [f64; LANES] {
        x
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Self::F32 {
        from.map(f32::from)
    }
}

/// `a * b + c` rounded once, for targets whose `mul_add` is a library call. It has no branches, so that it vectorizes.
///
/// The product of two f32 is exact in f64. Its sum with `c` is rounded to odd: where the sum is inexact, the last bit
/// is set. Rounding it to f32, which has fewer than half the bits, then gives what rounding the exact sum would give
/// (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
#[inline(always)]
pub(super) fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // `lost` is exactly what the addition lost (Knuth's two-sum). Where the sum is infinite it is NaN, and both
    // comparisons fail.
    let added = sum - product;
    let lost = (product - (sum - added)) + (c - added);
    let bits = sum.to_bits();
    let even = 1 - (bits & 1);
    let away = u64::from((lost > 0.0) & (sum > 0.0) | (lost < 0.0) & (sum < 0.0)) & even;
    let toward = u64::from((lost < 0.0) & (sum > 0.0) | (lost > 0.0) & (sum < 0.0)) & even;
    f64::from_bits(bits + away - toward) as f32
}
