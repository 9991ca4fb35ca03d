//! Quantizes activations to int8.

use crate::isa::{Isa, Tier, dispatch};
use trit_format::plan::ActivationRule;

mod groups;

use groups::{absmax_groups, fixed_groups};
pub use groups::{absmax_reference, fixed_reference};

/// Where a quantized row is written. It has one scale and one sum, or with a rule that has groups as many as
/// [`Quantized`](trit_format::plan::Quantized) says.
pub struct QuantizedRow<'a> {
    /// At least as long as the rule's result; the rest is zeroed.
    pub values: &'a mut [i8],
    /// One for each group.
    pub scales: &'a mut [f32],
    /// One for each group of each digit, digit after digit.
    pub sums: &'a mut [i32],
}

/// Quantizes one row as `rule` documents.
///
/// A group or row with NaN or infinity gets zeros and a scale that makes each of its products NaN, so that no product
/// is a plausible number.
///
/// # Panics
/// If a part of `out` is too short.
pub fn quantize(input: &[f32], rule: ActivationRule, out: QuantizedRow) {
    let QuantizedRow { values, scales, sums } = out;
    match rule {
        ActivationRule::AbsmaxPerToken { floor } => (scales[0], sums[0]) = per_token(input, floor, values),
        ActivationRule::AbsmaxPerGroup { columns } => {
            absmax_groups(Tier::best(), input, columns as usize, values, scales, sums);
        }
        ActivationRule::Fixed24PerGroup { columns } => {
            fixed_groups(Tier::best(), input, columns as usize, values, scales, sums);
        }
        // Validation refuses rules this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

/// Quantizes one row: `a = max(max|x|, floor)`, `s = 127 * (1 / a)`, `q = clamp(round_half_even(x * s), -128, 127)`.
/// Returns `s` and the sum of `q`. `out` may be longer than `input`; its tail is zeroed.
///
/// A row with NaN gives a NaN scale and zeros, and a row with infinity gives the scale 0 and zeros. So each of their
/// products is NaN, as it is in torch, and no plausible number. A row whose maximum is too small for its reciprocal
/// gives an infinite scale and zeros.
///
/// Source: transformers, `integrations/bitnet.py`, `ActQuant`.
///
/// # Panics
/// If `out` is shorter than `input`.
pub fn per_token(input: &[f32], floor: f32, out: &mut [i8]) -> (f32, i32) {
    let (out, tail) = out.split_at_mut(input.len());
    tail.fill(0);
    absmax_per_token(Tier::best(), input, floor, out)
}

dispatch!(fn absmax_per_token(input: &[f32], floor: f32, out: &mut [i8]) -> (f32, i32) = absmax_per_token_body);

#[inline(always)]
fn absmax_per_token_body<I: Isa>(_isa: I, input: &[f32], floor: f32, out: &mut [i8]) -> (f32, i32) {
    let max = input.iter().fold(0, |max, x| max.max(magnitude(*x)));
    by_magnitude(input, max, floor, out)
}

/// The bits of `|x|`. Floats without their signs have the same order as their bits, and NaN is last.
#[inline(always)]
pub(crate) fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// [`per_token`] of a row whose largest magnitude is known.
#[inline(always)]
pub(crate) fn by_magnitude(input: &[f32], max: u32, floor: f32, out: &mut [i8]) -> (f32, i32) {
    let max = f32::from_bits(max);
    let max = if max < floor { floor } else { max };
    let s = 127.0 * (1.0 / max);
    if !max.is_finite() || !s.is_finite() {
        out.fill(0);
        return (s, 0);
    }
    let mut sum = 0;
    for (q, x) in out.iter_mut().zip(input) {
        *q = round_half_even(x * s);
        sum += i32::from(*q);
    }
    (s, sum)
}

/// The nearest i8, half to even. Adding 1.5 * 2^23 leaves no bits for a fraction, the addition itself rounds half to
/// even, and the low bits are then the integer. This vectorizes on every CPU, while `round_ties_even` is a library call
/// before SSE4.1.
#[inline(always)]
fn round_half_even(x: f32) -> i8 {
    const MAGIC: f32 = 12_582_912.0;
    let x = if x > 127.0 { 127.0 } else { x };
    let x = if x < -128.0 { -128.0 } else { x };
    (x + MAGIC).to_bits() as i8
}

/// [`per_token`] with the standard library's rounding, for tests; `input` is finite.
pub fn reference(input: &[f32], floor: f32) -> (Vec<i8>, f32) {
    let max = input.iter().fold(floor, |max, x| max.max(x.abs()));
    let s = 127.0 * (1.0 / max);
    (input.iter().map(|x| (x * s).round_ties_even().clamp(-128.0, 127.0) as i8).collect(), s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    const FLOOR: f32 = 1e-5;

    #[test]
    fn ties_go_to_even() {
        let mut q = [9; 8];
        let (s, sum) = per_token(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5], FLOOR, &mut q);
        assert_eq!(s, 1.0);
        assert_eq!(q, [127, 0, 2, 2, 0, -2, -126, 0]);
        assert_eq!(sum, 3);
    }

    #[test]
    fn every_half_step_and_its_neighbours_round_as_the_standard_library_rounds() {
        for i in -300..=300 {
            let x = i as f32 * 0.5;
            for x in [x.next_down(), x, x.next_up()] {
                assert_eq!(round_half_even(x), x.round_ties_even().clamp(-128.0, 127.0) as i8, "{x}");
            }
        }
    }

    #[test]
    fn matches_the_reference_on_every_tier() {
        for n in [1, 15, 16, 17, 63, 64, 65, 1000] {
            for magnitude in [1e-30f32, 1e-5, 1.0, 3e38] {
                let x: Vec<f32> = floats(n, 3).iter().map(|v| v * magnitude).collect();
                let (expected, s) = reference(&x, FLOOR);
                let sum = expected.iter().map(|&q| i32::from(q)).sum::<i32>();
                let mut q = vec![1; n + 4];
                assert_eq!(per_token(&x, FLOOR, &mut q), (s, sum));
                assert_eq!((&q[..n], &q[n..]), (&expected[..], &[0; 4][..]));
                for tier in Tier::supported() {
                    let mut q = vec![1; n];
                    assert_eq!(absmax_per_token(tier, &x, FLOOR, &mut q), (s, sum), "{tier:?}");
                    assert_eq!(q, expected, "{tier:?}");
                }
            }
        }
    }

    #[test]
    fn rows_that_have_no_scale_are_marked_and_zero() {
        let mut q = [9; 4];
        assert_eq!(per_token(&[0.0; 4], FLOOR, &mut q), (127.0 * (1.0 / FLOOR), 0));
        assert_eq!(q, [0; 4]);
        for (strange, is_marked) in [
            ([f32::NAN, f32::INFINITY, -1.0, 0.0], f32::is_nan as fn(f32) -> bool),
            ([1.0, f32::NEG_INFINITY, -1.0, 0.0], |s| s == 0.0),
        ] {
            q = [9; 4];
            let (s, sum) = per_token(&strange, FLOOR, &mut q);
            assert!(is_marked(s) && sum == 0 && q == [0; 4]);
            assert!((sum as f32 / s).is_nan());
        }
        let (s, _) = per_token(&[1e-40; 4], 0.0, &mut q);
        assert!(s == f32::INFINITY && q == [0; 4]);
        assert_eq!(per_token(&[], FLOOR, &mut q).1, 0);
    }
}
