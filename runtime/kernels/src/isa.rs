//! The vector operations that kernels are written in, on each instruction set: on sixteen f32, sixteen i32 or
//! sixty-four i8 at a time.
//!
//! An [`Isa`] is a value that proves CPU support: it exists only where detection found the features, so its methods are
//! safe to call. On every instruction set, every method does exactly what [`Portable`] spells out, bit for bit. That is
//! why a product and its sum are rounded once where [`Isa::mul_add`] is written and twice elsewhere, and why lanes are
//! added by halves.
//!
//! A kernel is one generic `#[inline(always)]` function over `I: Isa`; [`dispatch!`] compiles it once for each
//! instruction set and picks one when called.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod neon;
mod nibbles;
mod portable;
mod product;
mod trits;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use nibbles::Nibbles;
pub use portable::Portable;
pub use product::{multiply, multiply_quads};
use std::sync::OnceLock;
#[cfg(target_arch = "x86_64")]
pub use trits::Avx512Vbmi;
pub(crate) use trits::dispatch_trits;
pub use trits::{CHUNK, CHUNK_TRITS, TritIsa, TritTier, bytes_of, bytes_of_mut};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Lanes of an f32 or i32 vector.
pub const LANES: usize = 16;

/// Four bytes that are a little-endian f32: an f32 itself, or its bytes at any alignment.
///
/// # Safety
/// The type must be 4 bytes without padding, which on little-endian machines are those of the value.
pub unsafe trait Single: Copy {
    /// The value.
    fn value(self) -> f32;
}
// SAFETY: this is the type itself.
unsafe impl Single for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}
// SAFETY: these are four bytes, read as little-endian.
unsafe impl Single for [u8; 4] {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_le_bytes(self)
    }
}

/// Two bytes that are a little-endian 16-bit float, at any alignment.
///
/// # Safety
/// The type must be 2 bytes without padding, which on little-endian machines are those of the bits.
pub unsafe trait Half: Copy {
    /// The bits of the value.
    fn bits(self) -> u16;
}
// SAFETY: `half::f16` is a transparent u16.
unsafe impl Half for half::f16 {
    #[inline(always)]
    fn bits(self) -> u16 {
        self.to_bits()
    }
}
// SAFETY: these are two bytes, read as little-endian.
unsafe impl Half for [u8; 2] {
    #[inline(always)]
    fn bits(self) -> u16 {
        u16::from_le_bytes(self)
    }
}

/// The vectors of one instruction set, and the operations on them that kernels need.
pub trait Isa: Copy {
    /// Sixteen f32.
    type F32: Copy;
    /// Sixteen i32.
    type I32: Copy;
    /// Sixty-four i8.
    type I8: Copy;
    /// Sixteen f64.
    type F64: Copy;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// Sixteen consecutive f32.
    fn load<T: Single>(self, from: &[T; LANES]) -> Self::F32;
    /// Writes sixteen consecutive f32.
    fn store(self, x: Self::F32, to: &mut [f32; LANES]);
    /// The f32 values of sixteen f16.
    fn widen_f16<T: Half>(self, from: &[T; LANES]) -> Self::F32;
    /// The f32 values of sixteen bf16.
    fn widen_bf16<T: Half>(self, from: &[T; LANES]) -> Self::F32;
    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Sum of the lanes by halves: lane `i` plus lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, x: Self::F32) -> f32;

    /// Zero in every lane.
    fn zero(self) -> Self::I32;
    /// The lanes in order.
    fn to_array(self, x: Self::I32) -> [i32; LANES];
    /// Sixty-four consecutive bytes.
    fn load_bytes(self, from: &[u8; 64]) -> Self::I8;
    /// `3 * x` modulo 256.
    fn triple(self, x: Self::I8) -> Self::I8;
    /// Adds to lane `i` the products of bytes `4 i .. 4 i + 4` of `x` with the four of `a`, wrapping. No byte of `x`
    /// may be -128.
    fn dot4(self, sum: Self::I32, x: Self::I8, a: [i8; 4]) -> Self::I32;

    /// Sixty-four i8 as [`Isa::dot_quads`] takes them.
    type Quads: Copy;
    /// Sixteen i32 sums of products that are not finished.
    type QuadSums: Copy;
    /// Sixty-four consecutive i8, none of them -128.
    fn quads(self, from: &[i8; 64]) -> Self::Quads;
    /// Packs integers of 16 bits for [`Isa::dot_quads`]: each four of `x` to two words, row `row` of a [`PackedQuad`]. How is
    /// the instruction set's own matter.
    ///
    /// # Panics
    /// If the length of `x` is no multiple of 4, or `to` has another length than a quarter of it.
    #[inline(always)]
    fn pack_quads(self, x: &[i32], row: usize, to: &mut [PackedQuad]) {
        // As pairs of i16: of each four the first and the third, then the others.
        assert!(x.len() == to.len() * 4);
        let pair = |a: i32, b: i32| (a as u32 & 0xffff) | (b as u32) << 16;
        for (x, to) in x.as_chunks::<4>().0.iter().zip(to) {
            to[row] = [pair(x[0], x[2]), pair(x[1], x[3])];
        }
    }
    /// No products.
    fn no_quad_sums(self) -> Self::QuadSums;
    /// Adds to sum `i` the products of bytes `4 i .. 4 i + 4` of `x` with four integers as [`Isa::pack_quads`] packs them.
    fn dot_quads(self, sums: Self::QuadSums, x: Self::Quads, a: &[u32; 2]) -> Self::QuadSums;
    /// The sums as f32, wrapped to i32. `of` is the sum of all integers that bytes were multiplied with.
    fn total(self, sums: Self::QuadSums, of: i32) -> Self::F32;

    /// Prefetches the cache line `ahead` bytes after `at`. No memory need exist there.
    fn prefetch<T>(self, at: &T, ahead: usize);

    /// How many vectors of sixteen f32 the registers hold.
    const VECTORS: usize;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `2^n` for each lane that is `n + 1.5 * 2^23` with a whole number `-127 < n <= 127`, and 0 for `n = -127`. Other
    /// lanes give some number, which is the same on every CPU.
    fn power_of_two(self, shifted: Self::F32) -> Self::F32;
    /// Zero in every lane.
    fn no_squares(self) -> Self::F64;
    /// `sum + x * x` in f64, where the square is exact.
    fn add_squares(self, sum: Self::F64, x: Self::F32) -> Self::F64;
    /// The lanes in order.
    fn to_array_f64(self, x: Self::F64) -> [f64; LANES];
    /// The values of sixteen i8.
    fn widen_i8(self, from: &[i8; LANES]) -> Self::F32;
}

/// Rows that are packed side by side, so that kernels read all of them through one pointer.
pub const PACKED_ROWS: usize = 8;

/// Four integers of 16 bits of each of eight rows, packed by [`Isa::pack_quads`].
pub type PackedQuad = [[u32; 2]; PACKED_ROWS];

/// An instruction set, which decides which copy of each kernel runs.
#[derive(Clone, Copy, Debug)]
pub enum Tier {
    /// Any CPU.
    Portable(Portable),
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Tier {
    /// The tiers that this CPU can run, the least capable first.
    pub fn supported() -> Vec<Tier> {
        let mut tiers = vec![Tier::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            tiers.extend(Avx2::detect().map(Tier::Avx2));
            tiers.extend(Avx512::detect().map(Tier::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        tiers.extend(Neon::detect().map(Tier::Neon));
        tiers
    }

    /// The most capable tier that this CPU can run.
    #[inline]
    pub fn best() -> Tier {
        static BEST: OnceLock<Tier> = OnceLock::new();
        *BEST.get_or_init(|| Tier::supported().pop().unwrap_or(Tier::Portable(Portable)))
    }
}

/// Defines `fn name(tier: Tier, args..)`, which calls the generic `body(isa, args..)` compiled for `tier`.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident $(<$T:ident: $bound:path>)?($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        pub(crate) fn $name$(<$T: $bound>)?(tier: crate::isa::Tier, $($arg: $type),*) $(-> $ret)? {
            match tier {
                #[cfg(target_arch = "x86_64")]
                crate::isa::Tier::Avx512(isa) => {
                    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
                    fn run$(<$T: $bound>)?(isa: crate::isa::Avx512, $($arg: $type),*) $(-> $ret)? {
                        $body::<_ $(, $T)?>(isa, $($arg),*)
                    }
                    // SAFETY: `isa` exists only where `Avx512::detect` found these features.
                    unsafe { run$(::<$T>)?(isa, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                crate::isa::Tier::Avx2(isa) => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn run$(<$T: $bound>)?(isa: crate::isa::Avx2, $($arg: $type),*) $(-> $ret)? {
                        $body::<_ $(, $T)?>(isa, $($arg),*)
                    }
                    // SAFETY: `isa` exists only where `Avx2::detect` found these features.
                    unsafe { run$(::<$T>)?(isa, $($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                crate::isa::Tier::Neon(isa) => $body::<_ $(, $T)?>(isa, $($arg),*),
                crate::isa::Tier::Portable(isa) => $body::<_ $(, $T)?>(isa, $($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, floats};

    fn all_body<I: Isa>(
        isa: I,
        x: &[f32; 16],
        y: &[f32; 16],
        halves: &[[u8; 2]; 16],
        bytes: &[u8; 64],
        a: [i8; 4],
    ) -> Vec<u32> {
        let (vx, vy) = (isa.load(x), isa.load(y));
        let mut bits = Vec::new();
        for v in [
            isa.splat(x[3]),
            isa.add(vx, vy),
            isa.mul(vx, vy),
            isa.max(vx, vy),
            isa.widen_f16(halves),
            isa.widen_bf16(halves),
            isa.mul_add(vx, vy, isa.splat(x[5])),
            isa.mul_add(isa.widen_f16(halves), vx, isa.widen_bf16(halves)),
            isa.power_of_two(isa.add(isa.splat(12_582_912.0), isa.mul(vx, isa.splat(127.0)))),
            isa.power_of_two(vx),
            isa.widen_i8(&std::array::from_fn(|i| bytes[i] as i8)),
        ] {
            let mut out = [0.0; 16];
            isa.store(v, &mut out);
            // It is not defined which NaN a NaN becomes.
            bits.extend(out.map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }));
        }
        bits.push(isa.sum(vx).to_bits());
        let squares = isa.add_squares(isa.add_squares(isa.no_squares(), vx), vy);
        bits.extend(
            isa.to_array_f64(squares).map(f64::to_bits).iter().flat_map(|b| [*b as u32, (b >> 32) as u32]),
        );
        let b = isa.load_bytes(bytes);
        let sums = isa.dot4(isa.dot4(isa.zero(), b, a), isa.triple(b), [a[1], a[0], a[3], a[2]]);
        bits.extend(isa.to_array(sums).map(|v| v as u32));
        bits
    }
    dispatch!(fn all(x: &[f32; 16], y: &[f32; 16], halves: &[[u8; 2]; 16], bytes: &[u8; 64], a: [i8; 4]) -> Vec<u32> = all_body);

    /// Compares every operation with the portable one, with all 65536 halves, and prints which tiers this CPU cannot run.
    #[test]
    fn every_tier_does_what_the_portable_one_does() {
        eprintln!("tiers on this CPU: {:?}", Tier::supported());
        let mut random = Random(31);
        for round in 0..4096u32 {
            let x: [f32; 16] = floats(16, u64::from(round) + 1).try_into().unwrap();
            let y: [f32; 16] = floats(16, u64::from(round) + 9999).try_into().unwrap();
            let halves: [[u8; 2]; 16] =
                std::array::from_fn(|i| ((round * 16) as u16 + i as u16).to_le_bytes());
            let bytes: [u8; 64] = std::array::from_fn(|_| match random.next() as u8 {
                // The contract of `dot4` excludes -128, also as a result of tripling.
                0x80 => 0x7f,
                b => b,
            });
            let a = [random.next() as i8, random.next() as i8, -128, 127];
            let expected = all(Tier::Portable(Portable), &x, &y, &halves, &bytes, a);
            for tier in Tier::supported() {
                assert_eq!(all(tier, &x, &y, &halves, &bytes, a), expected, "{tier:?}");
            }
        }
    }

    /// Compares with the standard library on values for which doubles alone would round twice: near halves of f32, with
    /// cancellation, subnormal and beyond the range.
    #[inline(always)]
    fn quads_body<I: Isa>(isa: I, x: &[[i8; 64]], a: &[i32]) -> Vec<u32> {
        let mut packed = vec![[[9; 2]; PACKED_ROWS]; x.len()];
        isa.pack_quads(a, 5, &mut packed);
        let mut sums = isa.no_quad_sums();
        for (x, packed) in x.iter().zip(&packed) {
            assert!((0..PACKED_ROWS).all(|row| row == 5 || packed[row] == [9; 2]));
            sums = isa.dot_quads(sums, isa.quads(x), &packed[5]);
        }
        let mut out = [0.0; LANES];
        isa.store(isa.total(sums, a.iter().sum()), &mut out);
        out.map(f32::to_bits).to_vec()
    }

    dispatch!(fn quads(x: &[[i8; 64]], a: &[i32]) -> Vec<u32> = quads_body);

    /// The largest integers and bytes, each sign of both, and random ones; for every length of the packed integers.
    #[test]
    fn products_of_quads_are_exact_on_every_tier() {
        let mut random = crate::testing::Random(3);
        for n in 1..80 {
            for kind in 0..3 {
                let mut integer = |most: i32| match kind {
                    0 => most,
                    1 => [most, -most][random.next() as usize % 2],
                    _ => (random.next() % (2 * most as u64 + 1)) as i32 - most,
                };
                let x: Vec<[i8; 64]> = (0..n).map(|_| std::array::from_fn(|_| integer(127) as i8)).collect();
                let a: Vec<i32> = (0..4 * n).map(|_| integer(32512)).collect();
                let exact: Vec<u32> = (0..LANES)
                    .map(|lane| {
                        let product = |i: usize| i64::from(a[i]) * i64::from(x[i / 4][lane * 4 + i % 4]);
                        ((0..4 * n).map(product).sum::<i64>() as i32 as f32).to_bits()
                    })
                    .collect();
                for tier in Tier::supported() {
                    assert_eq!(quads(tier, &x, &a), exact, "{tier:?}, {n} quads");
                }
            }
        }
    }

    #[test]
    fn the_portable_fused_product_is_rounded_once() {
        let mut random = Random(77);
        let mut once = 0;
        for _ in 0..1 << 20 {
            let mut float = |spread: u32| {
                let exponent = 127 + random.next() as u32 % spread - spread / 2;
                f32::from_bits((random.next() as u32 & 0x807f_ffff) | exponent << 23)
            };
            let (a, b, huge) = (float(30), float(30), float(250));
            for c in [float(60), -(a * b), a * b * float(3) * 16_777_216.0, huge] {
                let (ours, exact) = (portable::fused(a, b, c), a.mul_add(b, c));
                assert_eq!(ours.to_bits(), exact.to_bits(), "{a} {b} {c}");
                once += u32::from(exact != (f64::from(a) * f64::from(b) + f64::from(c)) as f32);
            }
            let tiny = f32::from_bits(random.next() as u32 & 0x00ff_ffff);
            for (a, b, c) in [(a * 1e-20, b * 1e-20, tiny), (huge, huge, a), (huge, b, -huge)] {
                assert_eq!(portable::fused(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a} {b} {c}");
            }
        }
        // (1 + 2^-12)(1 + 2^-12 - 2^-23) lies just below a half. With 2^-60 added, a double holds exactly the half.
        let (a, b) = (1.0 + 2f32.powi(-12), 1.0 + 2f32.powi(-12));
        for c in [2f32.powi(-60), -2f32.powi(-60)] {
            assert_eq!(portable::fused(a, b, c), a.mul_add(b, c));
            once += u32::from(a.mul_add(b, c) != (f64::from(a) * f64::from(b) + f64::from(c)) as f32);
        }
        assert!(once > 0, "no operands that tell one rounding from two");
        assert!(portable::fused(f32::INFINITY, 1.0, f32::NEG_INFINITY).is_nan());
        assert_eq!(portable::fused(f32::INFINITY, 1.0, 1.0), f32::INFINITY);
        assert_eq!(portable::fused(1.0, 1.0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    }

    #[test]
    fn the_portable_conversions_are_those_of_half() {
        for first in (0..=u16::MAX).step_by(16) {
            let bits: [u16; 16] = std::array::from_fn(|i| first + i as u16);
            let (f16s, bf16s) = (
                Portable.widen_f16(&bits.map(u16::to_le_bytes)),
                Portable.widen_bf16(&bits.map(u16::to_le_bytes)),
            );
            for i in 0..16 {
                let expected = half::f16::from_bits(bits[i]).to_f32();
                assert!(f16s[i].to_bits() == expected.to_bits() || f16s[i].is_nan() && expected.is_nan());
                let expected = half::bf16::from_bits(bits[i]).to_f32();
                assert!(bf16s[i].to_bits() == expected.to_bits() || bf16s[i].is_nan() && expected.is_nan());
            }
        }
    }
}
