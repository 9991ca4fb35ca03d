//! Exponential functions. They give the same bits on every CPU and have no branches, so that loops over them vectorize.

use crate::isa::Isa;

/// `e^x` within 2 units in the last place; 0 below -104, infinity above 88.73, NaN for NaN. Results below the smallest
/// normal float are rounded twice.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the polynomial for `e^r` is that of Cephes `expf` (S. Moshier).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // After this is added, the low bits are the nearest integer.
    const MAGIC: f32 = 12_582_912.0;
    // ln 2 in two parts. The first is 355 / 512, whose product with n is exact; the second is the rest.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Comparisons with NaN are false, so NaN stays NaN.
    let x = if x < -110.0 { -110.0 } else { x };
    let x = if x > 90.0 { 90.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + coefficient;
    }
    p = p * (r * r) + r + 1.0;
    // 2^n in two factors, because n reaches 130 and -159.
    let n = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(n >> 1) * power(n - (n >> 1))
}

/// `2^x` of lanes that are not above 127, within one unit in the last place: 1 for 0, 0 below -126.5, NaN for NaN. It
/// takes half as many operations as [`exp`] and serves the weights of attention.
///
/// `x = n + r` with `|r| <= 1 / 2`; the polynomial for `2^r` is the minimax one among those that are 1 at 0: its
/// largest relative error, 2e-9, is the least possible.
#[inline(always)]
pub(crate) fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    use std::f32::consts::LN_2;
    const MAGIC: f32 = 12_582_912.0;
    // `max` gives the second operand where one is NaN, so NaN stays NaN. From -126.5 down, the factor 2^n is 0.
    let x = isa.max(isa.splat(-127.0), x);
    let shifted = isa.add(x, isa.splat(MAGIC));
    let n = isa.add(shifted, isa.splat(-MAGIC));
    let r = isa.mul_add(isa.splat(-1.0), n, x);
    let mut p = isa.splat(1.535_336_2e-4);
    for coefficient in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_4e-2, 0.240_226_48, LN_2, 1.0] {
        p = isa.mul_add(p, r, isa.splat(coefficient));
    }
    isa.mul(p, isa.power_of_two(shifted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{LANES, Tier, dispatch};

    dispatch!(fn lanes(x: &[f32; LANES]) -> [f32; LANES] = lanes_body);
    fn lanes_body<I: Isa>(isa: I, x: &[f32; LANES]) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        isa.store(exp2(isa, isa.load(x)), &mut out);
        out
    }

    #[test]
    fn powers_of_two_are_within_one_unit_in_the_last_place_and_the_same_on_every_tier() {
        for i in (-1_265_000..=1_265_000).step_by(LANES) {
            let x: [f32; LANES] = std::array::from_fn(|lane| (i + lane as i32) as f32 * 1e-4);
            let ours = lanes(Tier::best(), &x);
            for (x, y) in x.iter().zip(ours) {
                let exact = f64::from(*x).exp2();
                let unit = f64::from(f32::EPSILON) * exact.max(f64::from(f32::MIN_POSITIVE));
                assert!((f64::from(y) - exact).abs() < unit, "{x}: {y} {exact}");
            }
            for tier in if i % 64 == 0 { Tier::supported() } else { Vec::new() } {
                assert_eq!(lanes(tier, &x), ours, "{tier:?}");
            }
        }
        for tier in Tier::supported() {
            for (x, y) in [(0.0, 1.0), (-0.0, 1.0), (-127.0, 0.0), (-1e9, 0.0), (f32::NEG_INFINITY, 0.0)] {
                assert_eq!(lanes(tier, &[x; LANES]), [y; LANES], "{tier:?}");
            }
            assert!(lanes(tier, &[f32::NAN; LANES]).iter().all(|y| y.is_nan()), "{tier:?}");
        }
    }

    #[test]
    fn is_within_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -1_050_000..=887_200 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact.max(f64::from(f32::MIN_POSITIVE));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn ends_and_strange_values() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        for x in [-105.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0);
        }
        for x in [89.0, 1e30, f32::INFINITY] {
            assert_eq!(exp(x), f32::INFINITY);
        }
        assert!(exp(f32::NAN).is_nan());
    }
}
