//! The meaning of every operation, in plain Rust.

use super::{Half, Isa, LANES, Single};

/// Runs on any CPU.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Isa for Portable {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type I8 = [i8; 64];

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
        // A f16's exponent and fraction, moved to where f32 has them, are the value times 2^-112, subnormals
        // included. Infinity and NaN get f32's largest exponent instead.
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

    #[inline(always)]
    fn prefetch<T>(self, _at: &T, _ahead: usize) {}
}
