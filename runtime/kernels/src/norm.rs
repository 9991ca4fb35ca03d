//! RMSNorm, alone and with the quantization of its result.

use crate::dot::padded;
use crate::isa::{Isa, Tier, dispatch};
use crate::quantize::{QuantizedRow, by_magnitude, magnitude, quantize};
use trit_format::plan::ActivationRule;

/// `out = weight * (input * (1 / sqrt(mean(input^2) + eps)))`, all `[n]`, in f32 like `LlamaRMSNorm` of transformers,
/// but with the squares summed in f64.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(input.len() == weight.len() && input.len() == out.len());
    normalize(Tier::best(), input, weight, eps, out);
}

/// [`rms_norm`] where `out` is the same slice as `input`.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len());
    normalize_in_place(Tier::best(), x, weight, eps);
}

/// `out += rms_norm(input)`.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_add(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(input.len() == weight.len() && input.len() == out.len());
    normalize_and_add(Tier::best(), input, weight, eps, out);
}

/// [`rms_norm`], then [`quantize`] of its result. It gives the same bits as the two, and goes over the row one time less
/// where a row has one scale. `scratch` grows as needed.
///
/// # Panics
/// If `weight` has another length than `input`, or a part of `out` is too short.
pub fn norm_quantize(
    input: &[f32],
    weight: &[f32],
    eps: f32,
    rule: ActivationRule,
    scratch: &mut Vec<f32>,
    out: QuantizedRow,
) {
    assert_eq!(input.len(), weight.len());
    if scratch.len() < input.len() {
        scratch.resize(input.len(), 0.0);
    }
    let normed = &mut scratch[..input.len()];
    if let ActivationRule::AbsmaxPerToken { floor } = rule {
        let (values, tail) = out.values.split_at_mut(input.len());
        tail.fill(0);
        (out.scales[0], out.sums[0]) =
            normalize_and_quantize(Tier::best(), input, weight, eps, floor, normed, values);
    } else {
        normalize(Tier::best(), input, weight, eps, normed);
        quantize(normed, rule, out);
    }
}

dispatch!(fn normalize_and_quantize(input: &[f32], weight: &[f32], eps: f32, floor: f32, normed: &mut [f32], out: &mut [i8]) -> (f32, i32) = normalize_and_quantize_body);

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn normalize_and_quantize_body<I: Isa>(
    isa: I,
    input: &[f32],
    weight: &[f32],
    eps: f32,
    floor: f32,
    normed: &mut [f32],
    out: &mut [i8],
) -> (f32, i32) {
    let factor = factor(isa, input, eps);
    let mut max = 0;
    for ((y, x), w) in normed.iter_mut().zip(input).zip(weight) {
        *y = w * (x * factor);
        max = max.max(magnitude(*y));
    }
    by_magnitude(normed, max, floor, out)
}

dispatch!(fn normalize(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = normalize_body);
dispatch!(fn normalize_and_add(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = normalize_and_add_body);
dispatch!(fn normalize_in_place(x: &mut [f32], weight: &[f32], eps: f32) = normalize_in_place_body);

#[inline(always)]
fn normalize_body<I: Isa>(isa: I, input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = factor(isa, input, eps);
    for ((y, x), w) in out.iter_mut().zip(input).zip(weight) {
        *y = w * (x * factor);
    }
}

#[inline(always)]
fn normalize_and_add_body<I: Isa>(isa: I, input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = factor(isa, input, eps);
    for ((y, x), w) in out.iter_mut().zip(input).zip(weight) {
        *y += w * (x * factor);
    }
}

#[inline(always)]
fn normalize_in_place_body<I: Isa>(isa: I, x: &mut [f32], weight: &[f32], eps: f32) {
    let factor = factor(isa, x, eps);
    for (x, w) in x.iter_mut().zip(weight) {
        *x = w * (*x * factor);
    }
}

/// `1 / sqrt(mean(x^2) + eps)`. Squares of f32 are exact in f64. They are summed in 16 interleaved lanes and then by
/// halves, which is the same order on every CPU.
#[inline(always)]
fn factor<I: Isa>(isa: I, x: &[f32], eps: f32) -> f32 {
    let mean = (sum_of_squares(isa, x) / x.len() as f64) as f32;
    1.0 / (mean + eps).sqrt()
}

/// The sum of squares, as [`factor`] takes it.
#[inline(always)]
pub(crate) fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f64 {
    let (chunks, rest) = x.as_chunks();
    let mut sums = isa.no_squares();
    for chunk in chunks {
        sums = isa.add_squares(sums, isa.load(chunk));
    }
    let mut lanes = isa.to_array_f64(isa.add_squares(sums, isa.load(&padded(rest))));
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// [`rms_norm`] in f64, for tests.
pub fn reference(input: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean = input.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / input.len() as f64;
    let factor = 1.0 / (mean + f64::from(eps)).sqrt();
    input.iter().zip(weight).map(|(&x, &w)| (f64::from(w) * f64::from(x) * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn matches_the_reference_with_the_same_bits_on_every_tier() {
        for n in [1, 5, 15, 16, 17, 384, 2560, 6912] {
            let (x, w) = (floats(n, 1), floats(n, 2));
            let mut out = vec![0.0; n];
            rms_norm(&x, &w, 1e-5, &mut out);
            for (a, b) in out.iter().zip(&reference(&x, &w, 1e-5)) {
                // There are six roundings: of the mean, its sum with eps, the root, the reciprocal and two products.
                assert!((a - b).abs() <= 6.0 * 0.5 * f32::EPSILON * b.abs(), "n={n}: {a} {b}");
            }
            let mut same = x.clone();
            rms_norm_in_place(&mut same, &w, 1e-5);
            assert_eq!(same, out);
            for tier in Tier::supported() {
                let mut again = vec![0.0; n];
                normalize(tier, &x, &w, 1e-5, &mut again);
                assert_eq!(again, out, "{tier:?} n={n}");
                let mut sum = w.clone();
                normalize_and_add(tier, &x, &w, 1e-5, &mut sum);
                let expected: Vec<f32> = w.iter().zip(&out).map(|(w, y)| w + y).collect();
                assert_eq!(sum, expected, "{tier:?} n={n}");
            }
        }
    }

    #[test]
    fn with_quantization_it_is_one_after_the_other_on_every_tier() {
        let mut scratch = Vec::new();
        for n in [0, 1, 5, 15, 16, 17, 100, 2560, 6912] {
            let w = floats(n, 2);
            let mut strange = floats(n, 3);
            strange.iter_mut().skip(3).step_by(11).for_each(|x| *x = f32::NAN);
            let small: Vec<f32> = floats(n, 4).iter().map(|x| x * 1e-20).collect();
            for x in [floats(n, 1), vec![0.0; n], small, strange] {
                for floor in [0.0, 1e-5] {
                    let rule = ActivationRule::AbsmaxPerToken { floor };
                    let (mut normed, mut expected, mut out) = (vec![0.0; n], vec![5; n + 7], vec![9; n + 7]);
                    rms_norm(&x, &w, 1e-5, &mut normed);
                    let (s, sum) = crate::quantize::per_token(&normed, floor, &mut expected);
                    let (mut ours, mut our_sum) = ([0.0], [0]);
                    let row = QuantizedRow { values: &mut out, scales: &mut ours, sums: &mut our_sum };
                    norm_quantize(&x, &w, 1e-5, rule, &mut scratch, row);
                    let ([ours], [our_sum]) = (ours, our_sum);
                    assert_eq!((our_sum, &out), (sum, &expected), "n={n}");
                    assert!(
                        ours.to_bits() == s.to_bits() || ours.is_nan() && s.is_nan(),
                        "n={n}: {ours} {s}"
                    );
                    for tier in Tier::supported() {
                        let mut again = vec![1; n];
                        let (ours, our_sum) =
                            normalize_and_quantize(tier, &x, &w, 1e-5, floor, &mut normed, &mut again);
                        assert_eq!((our_sum, &again[..]), (sum, &expected[..n]), "{tier:?} n={n}");
                        assert!(
                            ours.to_bits() == s.to_bits() || ours.is_nan() && s.is_nan(),
                            "{tier:?} n={n}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn with_quantization_in_groups_it_is_one_after_the_other() {
        let (n, mut scratch) = (300, Vec::new());
        let (x, w) = (floats(n, 1), floats(n, 2));
        let mut normed = vec![0.0; n];
        rms_norm(&x, &w, 1e-5, &mut normed);
        for rule in [
            ActivationRule::AbsmaxPerGroup { columns: 128 },
            ActivationRule::Fixed24PerGroup { columns: 128 },
        ] {
            let run = |f: &mut dyn FnMut(QuantizedRow)| {
                let (mut values, mut scales, mut sums) = (vec![9; 3 * 384], [0.0; 3], [0; 9]);
                f(QuantizedRow { values: &mut values, scales: &mut scales, sums: &mut sums });
                (values, scales, sums)
            };
            let expected = run(&mut |row| quantize(&normed, rule, row));
            assert_eq!(run(&mut |row| norm_quantize(&x, &w, 1e-5, rule, &mut scratch, row)), expected);
        }
    }

    #[test]
    fn squares_beyond_f32_do_not_overflow() {
        let mut x = [1e25f32, -1e25];
        let mut small = [0.0f32; 2];
        // The mean square itself is beyond f32, so that the factor is 0. It must not be NaN.
        rms_norm_in_place(&mut x, &[1.0; 2], 1e-5);
        rms_norm_in_place(&mut small, &[1.0; 2], 1e-5);
        assert_eq!((x, small), ([0.0, -0.0], [0.0; 2]));
    }
}
