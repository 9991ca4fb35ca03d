//! Quantization with a scale for each group of columns, to one int8 digit or to three.

use super::{magnitude, round_half_even};
use crate::isa::{Isa, dispatch};
use trit_format::plan::{ActivationRule, FIXED_24};

dispatch!(
    /// Quantizes by [`ActivationRule::AbsmaxPerGroup`].
    fn absmax_groups(input: &[f32], columns: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) =
        absmax_groups_body
);
dispatch!(
    /// Quantizes by [`ActivationRule::Fixed24PerGroup`].
    fn fixed_groups(input: &[f32], columns: usize, values: &mut [i8], scales: &mut [f32], sums: &mut [i32]) =
        fixed_groups_body
);

/// Zeroes the places that no value will be written to: the end of each of `digits` digits, and all after the last
/// digit. Returns the length of a digit.
#[inline(always)]
fn digits_of(values: &mut [i8], k: usize, columns: usize, digits: usize) -> usize {
    let len = ActivationRule::digit_len(k as u32, columns as u32) as usize;
    let (used, rest) = values.split_at_mut(digits * len);
    used.chunks_exact_mut(len.max(1)).for_each(|digit| digit[k..].fill(0));
    rest.fill(0);
    len
}

/// The largest magnitude, or NaN if there is one.
#[inline(always)]
fn absmax(group: &[f32]) -> f32 {
    f32::from_bits(group.iter().fold(0, |max, x| max.max(magnitude(*x))))
}

/// The scale of a group whose values become zeros. It is 0, or NaN or infinity where the largest magnitude is, so that
/// the group's products are NaN then.
#[inline(always)]
fn scale_of_zeros(a: f32) -> f32 {
    if a.is_finite() { 0.0 } else { a }
}

#[inline(always)]
fn absmax_groups_body<I: Isa>(
    _isa: I,
    input: &[f32],
    columns: usize,
    values: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    digits_of(values, input.len(), columns, 1);
    let groups = input.chunks(columns).zip(values.chunks_mut(columns));
    for (((group, values), scale), sum) in groups.zip(scales).zip(sums) {
        let a = absmax(group);
        let factor = 127.0 * (1.0 / a);
        *sum = 0;
        if !a.is_finite() || !factor.is_finite() {
            values[..group.len()].fill(0);
            *scale = scale_of_zeros(a);
            continue;
        }
        *scale = a / 127.0;
        for (q, x) in values.iter_mut().zip(group) {
            *q = round_half_even(x * factor);
            *sum += i32::from(*q);
        }
    }
}

#[inline(always)]
fn fixed_groups_body<I: Isa>(
    _isa: I,
    input: &[f32],
    columns: usize,
    values: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) {
    let len = digits_of(values, input.len(), columns, 3);
    let count = input.len().div_ceil(columns);
    let (low, rest) = values.split_at_mut(len);
    let (middle, high) = rest.split_at_mut(len);
    for (g, group) in input.chunks(columns).enumerate() {
        let at = g * columns..g * columns + group.len();
        let digits = [&mut low[at.clone()], &mut middle[at.clone()], &mut high[at]];
        let (scale, found) = fixed_group(group, digits);
        scales[g] = scale;
        for (d, sum) in found.into_iter().enumerate() {
            sums[d * count + g] = sum;
        }
    }
}

/// One group's scale, its digits, and their sums.
#[inline(always)]
fn fixed_group(group: &[f32], [low, middle, high]: [&mut [i8]; 3]) -> (f32, [i32; 3]) {
    let a = absmax(group);
    if !a.is_finite() || a == 0.0 {
        [low, middle, high].into_iter().for_each(|digit| digit.fill(0));
        return (scale_of_zeros(a), [0; 3]);
    }
    let factor = f64::from(FIXED_24) / f64::from(a);
    let mut sums = [0; 3];
    for (((x, low), middle), high) in group.iter().zip(low).zip(middle).zip(high) {
        let q = round(f64::from(*x) * factor);
        let rest = (q - i32::from(q as i8)) >> 8;
        (*low, *middle) = (q as i8, rest as i8);
        *high = ((rest - i32::from(rest as i8)) >> 8) as i8;
        sums[0] += i32::from(*low);
        sums[1] += i32::from(*middle);
        sums[2] += i32::from(*high);
    }
    (a / FIXED_24 as f32, sums)
}

/// The nearest integer, half to even, of a number within i32. It is computed as in [`round_half_even`].
#[inline(always)]
fn round(x: f64) -> i32 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (x + MAGIC).to_bits() as i32
}

/// Values of one digit, scales and sums by the documented rule, with the standard library's rounding, for tests.
/// `input` must be finite.
pub fn absmax_reference(input: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>, Vec<i32>) {
    let (mut values, mut scales, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for group in input.chunks(columns) {
        let a = group.iter().fold(0f32, |max, x| max.max(x.abs()));
        let factor = 127.0 * (1.0 / a);
        let quantized = |x: &f32| if factor.is_finite() { (x * factor).round_ties_even() as i8 } else { 0 };
        let first = values.len();
        values.extend(group.iter().map(quantized));
        scales.push(if factor.is_finite() { a / 127.0 } else { 0.0 });
        sums.push(values[first..].iter().map(|&q| i32::from(q)).sum());
    }
    (values, scales, sums)
}

/// The 24-bit integers and scales by the documented rule, for tests. `input` must be finite.
pub fn fixed_reference(input: &[f32], columns: usize) -> (Vec<i32>, Vec<f32>) {
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for group in input.chunks(columns) {
        let a = group.iter().fold(0f32, |max, x| max.max(x.abs()));
        let factor = f64::from(FIXED_24) / f64::from(a);
        let quantized = |x: &f32| if a > 0.0 { (f64::from(*x) * factor).round_ties_even() as i32 } else { 0 };
        values.extend(group.iter().map(quantized));
        scales.push(a / FIXED_24 as f32);
    }
    (values, scales)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Tier;
    use crate::quantize::{QuantizedRow, quantize};
    use crate::testing::floats;

    const SIZES: [(usize, usize); 9] =
        [(1, 32), (31, 32), (64, 64), (65, 64), (100, 128), (128, 128), (300, 256), (2560, 128), (1000, 32)];

    fn inputs(n: usize) -> Vec<Vec<f32>> {
        let scaled = |by: f32| floats(n, 7).iter().map(|x| x * by).collect::<Vec<f32>>();
        let mut some_zero = floats(n, 9);
        some_zero[..n.min(40)].fill(0.0);
        let largest = (0..n).map(|i| if i % 2 == 0 { 127.0 } else { -127.0 }).collect();
        vec![scaled(1.0), scaled(1e-30), scaled(3e38), scaled(1e-40), vec![0.0; n], some_zero, largest]
    }

    #[test]
    fn int8_matches_the_reference_on_every_tier() {
        for (n, columns) in SIZES {
            for x in inputs(n) {
                let (expected, scales, sums) = absmax_reference(&x, columns);
                let len = ActivationRule::digit_len(n as u32, columns as u32) as usize;
                for tier in Tier::supported() {
                    let (mut q, mut s, mut sum) =
                        (vec![9; len + 3], vec![9.0; scales.len()], vec![9; sums.len()]);
                    absmax_groups(tier, &x, columns, &mut q, &mut s, &mut sum);
                    assert_eq!(
                        (&q[..n], &s, &sum),
                        (&expected[..], &scales, &sums),
                        "{tier:?} {n} {columns}"
                    );
                    assert!(q[n..].iter().all(|&q| q == 0));
                }
            }
        }
    }

    #[test]
    fn three_digits_are_the_integers_of_the_reference_on_every_tier() {
        for (n, columns) in SIZES.into_iter().filter(|(_, columns)| *columns <= 128) {
            for x in inputs(n) {
                let (expected, scales) = fixed_reference(&x, columns);
                let len = ActivationRule::digit_len(n as u32, columns as u32) as usize;
                for tier in Tier::supported() {
                    let (mut q, mut s, mut sums) =
                        (vec![9; 3 * len + 3], vec![9.0; scales.len()], vec![9; 3 * scales.len()]);
                    fixed_groups(tier, &x, columns, &mut q, &mut s, &mut sums);
                    assert_eq!(s, scales);
                    let digit = |d: usize, i: usize| i32::from(q[d * len + i]);
                    let value = |i: usize| digit(0, i) + 256 * digit(1, i) + 65536 * digit(2, i);
                    assert_eq!((0..n).map(value).collect::<Vec<i32>>(), expected, "{tier:?} {n} {columns}");
                    for d in 0..3 {
                        assert!(q[d * len + n..(d + 1) * len].iter().all(|&q| q == 0));
                        for g in 0..scales.len() {
                            let of = g * columns..((g + 1) * columns).min(n);
                            assert_eq!(sums[d * scales.len() + g], of.map(|i| digit(d, i)).sum::<i32>());
                        }
                    }
                    assert_eq!(q[3 * len..], [0; 3]);
                }
            }
        }
    }

    #[test]
    fn three_digits_are_as_precise_as_f32_is_for_the_largest() {
        let x = floats(128, 3);
        let (q, s) = fixed_reference(&x, 128);
        let a = x.iter().fold(0f32, |max, x| max.max(x.abs()));
        for (x, q) in x.iter().zip(q) {
            assert!((f64::from(*x) - f64::from(q) * f64::from(s[0])).abs() < f64::from(a) * 2f64.powi(-23));
        }
    }

    /// NaN or infinity makes the products of its group NaN, and changes no other group.
    #[test]
    fn groups_with_strange_numbers_are_marked_and_zero() {
        for rule in
            [ActivationRule::AbsmaxPerGroup { columns: 32 }, ActivationRule::Fixed24PerGroup { columns: 32 }]
        {
            for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1.0; 96];
                x[40] = strange;
                let (mut values, mut scales, mut sums) = ([9; 384], [9.0; 3], [9; 9]);
                let out = QuantizedRow { values: &mut values, scales: &mut scales, sums: &mut sums };
                quantize(&x, rule, out);
                assert_eq!(values[32..64], [0; 32]);
                assert!((sums[1] as f32 * (scales[1] * 0.5)).is_nan() && sums[1] == 0);
                assert!(scales[0].is_finite() && scales[0] > 0.0 && scales[2] == scales[0]);
            }
        }
    }
}
