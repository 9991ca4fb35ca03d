//! Activations to int8.

use trit_format::plan::ActivationRule;

/// Quantizes one row: `a = max(max|x|, floor)`, `s = 127 * (1 / a)`, `q = clamp(round_half_even(x * s), -128, 127)`.
/// Gives `s` and the sum of `q`. `out` may be longer than `input`; its tail is zeroed. A NaN becomes 0, as torch's
/// conversion makes it on the CPUs we know.
///
/// Source: transformers, `integrations/bitnet.py`, `ActQuant`.
///
/// # Panics
/// If `out` is shorter than `input`.
pub fn quantize(input: &[f32], rule: ActivationRule, out: &mut [i8]) -> (f32, i32) {
    let ActivationRule::AbsmaxPerToken { floor } = rule else { unreachable!("validated: {rule:?}") };
    let (out, tail) = out.split_at_mut(input.len());
    tail.fill(0);
    let mut lanes = [floor; 16];
    for chunk in input.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            let a = x.abs();
            *lane = if a > *lane { a } else { *lane };
        }
    }
    let max = lanes.into_iter().fold(floor, f32::max);
    let s = 127.0 * (1.0 / max);
    let mut sum = 0;
    for (q, x) in out.iter_mut().zip(input) {
        let value = round_half_even(x * s) as i8;
        sum += i32::from(value);
        *q = value;
    }
    (s, sum)
}

/// Rounds values in -2^22..2^22 half to even: adding 1.5 * 2^23 leaves no fraction bits, and the addition itself
/// rounds half to even. Vectorizes on every CPU, where `round_ties_even` is a library call before SSE4.1.
#[inline(always)]
fn round_half_even(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    const RULE: ActivationRule = ActivationRule::AbsmaxPerToken { floor: 1e-5 };

    #[test]
    fn ties_go_to_even() {
        let mut q = [0; 8];
        let (s, sum) = quantize(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5], RULE, &mut q);
        assert_eq!(s, 1.0);
        assert_eq!(q, [127, 0, 2, 2, 0, -2, -126, 0]);
        assert_eq!(sum, 3);
    }

    #[test]
    fn matches_the_standard_library_rounding() {
        for n in [1, 15, 16, 17, 1000] {
            let x = floats(n, 3);
            let mut q = vec![1; n + 4];
            let (s, sum) = quantize(&x, RULE, &mut q);
            let max = x.iter().fold(1e-5f32, |m, v| m.max(v.abs()));
            assert_eq!(s, 127.0 * (1.0 / max));
            for (v, q) in x.iter().zip(&q) {
                assert_eq!(i32::from(*q), ((v * s).round_ties_even() as i32).clamp(-128, 127));
            }
            assert_eq!(sum, q.iter().map(|&q| i32::from(q)).sum::<i32>());
            assert_eq!(q[n..], [0; 4]);
        }
    }

    #[test]
    fn small_and_strange_rows_do_not_panic() {
        let mut q = [9; 4];
        assert_eq!(quantize(&[0.0; 4], RULE, &mut q), (127.0 * (1.0 / 1e-5), 0));
        assert_eq!(q, [0; 4]);
        quantize(&[f32::NAN, f32::INFINITY, -1.0, 0.0], RULE, &mut q);
        assert_eq!(q[0], 0);
    }
}
