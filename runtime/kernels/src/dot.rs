//! Dot products and scaled additions of f32, with bf16 rows widened on the way.
//!
//! Sums run in 32 interleaved lanes, then by halves, with separate multiplication and addition: the same bits on
//! every CPU. Each function is compiled once for the baseline and once for AVX2 and AVX-512, from the same source.
#![allow(unsafe_code)]

const LANES: usize = 32;

/// Defines `$name` as `$body` compiled for several x86-64 tiers, chosen when called.
macro_rules! for_each_tier {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($arg:ident: $type:ty),*) $(-> $ret:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
                fn avx512($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the CPU has these features; avx512bw implies avx512f and avx2.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has this feature.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

for_each_tier!(
    /// Sum of products of two f32 rows of equal length.
    dot, dot_body, (a: &[f32], b: &[f32]) -> f32
);
for_each_tier!(
    /// Sum of products of a row of bf16, as little-endian bytes, and an f32 row.
    dot_bf16, dot_bf16_body, (row: &[u8], x: &[f32]) -> f32
);
for_each_tier!(
    /// `y += a * x`.
    axpy, axpy_body, (a: f32, x: &[f32], y: &mut [f32])
);

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = ca.remainder().iter().zip(cb.remainder());
    for (a, b) in ca.zip(cb) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane += a * b;
    }
    halves(lanes)
}

#[inline(always)]
fn dot_bf16_body(row: &[u8], x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (cr, cx) = (row.chunks_exact(2 * LANES), x.chunks_exact(LANES));
    let rest = cr.remainder().chunks_exact(2).zip(cx.remainder());
    for (r, x) in cr.zip(cx) {
        for i in 0..LANES {
            lanes[i] += bf16(r[2 * i], r[2 * i + 1]) * x[i];
        }
    }
    for (lane, (r, x)) in lanes.iter_mut().zip(rest) {
        *lane += bf16(r[0], r[1]) * x;
    }
    halves(lanes)
}

#[inline(always)]
fn axpy_body(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

#[inline(always)]
fn bf16(low: u8, high: u8) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([low, high])) << 16)
}

#[inline(always)]
fn halves(mut lanes: [f32; LANES]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn every_tier_gives_the_same_bits_near_the_exact_sum() {
        for n in [1, 31, 32, 33, 100, 2560] {
            let (a, b) = (floats(n, 8), floats(n, 9));
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert_eq!(dot(&a, &b).to_bits(), dot_body(&a, &b).to_bits());
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-4);
            let rounded: Vec<f32> = a.iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect();
            let bytes: Vec<u8> = rounded.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
            assert_eq!(dot_bf16(&bytes, &b).to_bits(), dot_body(&rounded, &b).to_bits());
            let (mut y, mut z) = (b.clone(), b.clone());
            axpy(0.3, &a, &mut y);
            axpy_body(0.3, &a, &mut z);
            assert_eq!(y, z);
        }
    }
}
