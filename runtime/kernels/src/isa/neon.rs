//! The operations on NEON. A vector is four registers.

use super::{Half, Isa, LANES, Single};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The proof. Every 64-bit Arm CPU that Rust's standard targets run on has NEON.
    pub fn detect() -> Option<Neon> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Applies `f` to each of four registers.
macro_rules! each {
    (|$i:ident| $f:expr) => {
        [
            {
                let $i = 0;
                $f
            },
            {
                let $i = 1;
                $f
            },
            {
                let $i = 2;
                $f
            },
            {
                let $i = 3;
                $f
            },
        ]
    };
}

impl Isa for Neon {
    type F32 = [float32x4_t; 4];
    type I32 = [int32x4_t; 4];
    type I8 = [int8x16_t; 4];
    type F64 = [float64x2_t; 8];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load<T: Single>(self, from: &[T; LANES]) -> Self::F32 {
        let at = from.as_ptr().cast::<f32>();
        // SAFETY: `self` proves the feature; the quarters lie inside the array.
        unsafe { each!(|i| vld1q_f32(at.add(4 * i))) }
    }
    #[inline(always)]
    fn store(self, x: Self::F32, to: &mut [f32; LANES]) {
        let at = to.as_mut_ptr();
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: `self` proves the feature; the quarters lie inside the array.
            unsafe { vst1q_f32(at.add(4 * i), x) }
        }
    }
    #[inline(always)]
    fn widen_f16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        #[inline(always)]
        fn widen(half: uint16x4_t) -> float32x4_t {
            let wide: float32x4_t;
            // The conversion belongs to the base architecture, but our compiler does not have its intrinsic yet.
            // SAFETY: this reads and writes the named registers only.
            unsafe {
                asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half, options(pure, nomem, nostack, preserves_flags));
            }
            wide
        }
        let at = from.as_ptr().cast::<u16>();
        // SAFETY: `self` proves the feature; the quarters lie inside the array.
        unsafe { each!(|i| widen(vld1_u16(at.add(4 * i)))) }
    }
    #[inline(always)]
    fn widen_bf16<T: Half>(self, from: &[T; LANES]) -> Self::F32 {
        let at = from.as_ptr().cast::<u16>();
        // SAFETY: `self` proves the feature; the quarters lie inside the array.
        unsafe { each!(|i| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(at.add(4 * i))))) }
    }
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { each!(|i| vaddq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { each!(|i| vmulq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // The maximum instruction would give NaN where either operand is NaN.
        // SAFETY: `self` proves the feature.
        unsafe { each!(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i])) }
    }
    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            let x = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::I32 {
        // SAFETY: `self` proves the feature.
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    fn to_array(self, x: Self::I32) -> [i32; LANES] {
        let mut out = [0; LANES];
        let at: *mut i32 = out.as_mut_ptr();
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: `self` proves the feature; the quarters lie inside the array.
            unsafe { vst1q_s32(at.add(4 * i), x) }
        }
        out
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; 64]) -> Self::I8 {
        let at = from.as_ptr().cast::<i8>();
        // SAFETY: `self` proves the feature; the quarters lie inside the array.
        unsafe { each!(|i| vld1q_s8(at.add(16 * i))) }
    }
    #[inline(always)]
    fn triple(self, x: Self::I8) -> Self::I8 {
        // SAFETY: `self` proves the feature.
        unsafe { each!(|i| vmulq_s8(x[i], vdupq_n_s8(3))) }
    }
    #[inline(always)]
    fn dot4(self, sum: Self::I32, x: Self::I8, a: [i8; 4]) -> Self::I32 {
        // SAFETY: `self` proves the feature. Single products fit i16, and they are added pairwise in i32.
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(a.map(|a| a as u8))));
            each!(|i| {
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(x[i]), vget_low_s8(a)));
                let high = vpaddlq_s16(vmull_high_s8(x[i], a));
                vaddq_s32(sum[i], vpaddq_s32(low, high))
            })
        }
    }

    /// Byte `i` of each four as i16: of the first eight of them, then of the others.
    type Quads = [[int16x8_t; 2]; 4];
    type QuadSums = [int32x4_t; 4];
    #[inline(always)]
    fn quads(self, from: &[i8; 64]) -> Self::Quads {
        // SAFETY: `self` proves the feature; the array is four registers.
        unsafe {
            let int8x16x4_t(a, b, c, d) = vld4q_s8(from.as_ptr());
            [a, b, c, d].map(|x| [vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)])
        }
    }
    #[inline(always)]
    fn no_quad_sums(self) -> Self::QuadSums {
        self.zero()
    }
    #[inline(always)]
    fn dot_quads(self, sums: Self::QuadSums, x: Self::Quads, a: &[u32; 2]) -> Self::QuadSums {
        let a = [a[0] as i16, a[1] as i16, (a[0] >> 16) as i16, (a[1] >> 16) as i16];
        let mut sums = sums;
        for (x, a) in x.iter().zip(a) {
            // SAFETY: `self` proves the feature.
            unsafe {
                sums[0] = vmlal_n_s16(sums[0], vget_low_s16(x[0]), a);
                sums[1] = vmlal_high_n_s16(sums[1], x[0], a);
                sums[2] = vmlal_n_s16(sums[2], vget_low_s16(x[1]), a);
                sums[3] = vmlal_high_n_s16(sums[3], x[1], a);
            }
        }
        sums
    }
    #[inline(always)]
    fn total(self, sums: Self::QuadSums, _of: i32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { sums.map(|sum| vcvtq_f32_s32(sum)) }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        let at = std::ptr::from_ref(at).cast::<u8>().wrapping_add(ahead);
        // SAFETY: a prefetch of any address is harmless.
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }

    const VECTORS: usize = 8;
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe { each!(|i| vfmaq_f32(c[i], a[i], b[i])) }
    }
    #[inline(always)]
    fn power_of_two(self, shifted: Self::F32) -> Self::F32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            each!(|i| {
                let n = vaddq_u32(vreinterpretq_u32_f32(shifted[i]), vdupq_n_u32(127));
                vreinterpretq_f32_u32(vshlq_n_u32::<23>(n))
            })
        }
    }
    #[inline(always)]
    fn no_squares(self) -> Self::F64 {
        // SAFETY: `self` proves the feature.
        unsafe { [vdupq_n_f64(0.0); 8] }
    }
    #[inline(always)]
    fn add_squares(self, sum: Self::F64, x: Self::F32) -> Self::F64 {
        // SAFETY: `self` proves the feature. As the square is exact, adding it at once rounds the same.
        unsafe {
            let wide = each!(|i| [vcvt_f64_f32(vget_low_f32(x[i])), vcvt_high_f64_f32(x[i])]);
            let mut sum = sum;
            for i in 0..8 {
                let x = wide[i / 2][i % 2];
                sum[i] = vfmaq_f64(sum[i], x, x);
            }
            sum
        }
    }
    #[inline(always)]
    fn to_array_f64(self, x: Self::F64) -> [f64; LANES] {
        let mut out = [0.0; LANES];
        for (part, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            // SAFETY: `self` proves the feature; the part is one register.
            unsafe { vst1q_f64(part.as_mut_ptr(), x) }
        }
        out
    }
    #[inline(always)]
    fn widen_i8(self, from: &[i8; LANES]) -> Self::F32 {
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe {
            let x = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))),
            ]
        }
    }
}
