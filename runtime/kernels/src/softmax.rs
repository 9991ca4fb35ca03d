//! Softmax.

use crate::dot::padded;
use crate::exp::exp;
use crate::isa::{Isa, LANES, Tier, dispatch};

/// Softmax of one row in place, `[n]`, shifted by its maximum so that nothing overflows. NaN anywhere, or an infinite
/// score, makes every result NaN.
pub fn softmax(x: &mut [f32]) {
    row(Tier::best(), x);
}

dispatch!(fn row(x: &mut [f32]) = in_place);

/// [`softmax`]: the sum runs in sixteen interleaved lanes, then by halves.
#[inline(always)]
pub(crate) fn in_place<I: Isa>(isa: I, x: &mut [f32]) {
    let max = max(isa, x);
    for v in x.iter_mut() {
        *v = exp(*v - max);
    }
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = isa.splat(0.0);
    for chunk in chunks {
        sums = isa.add(sums, isa.load(chunk));
    }
    let factor = 1.0 / isa.sum(isa.add(sums, isa.load(&padded(rest))));
    for v in x.iter_mut() {
        *v *= factor;
    }
}

/// The largest of `x` that is no NaN.
#[inline(always)]
fn max<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = isa.splat(f32::NEG_INFINITY);
    for chunk in chunks {
        lanes = isa.max(isa.load(chunk), lanes);
    }
    let mut all = [0.0; LANES];
    isa.store(lanes, &mut all);
    all.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn matches_f64_with_the_same_bits_on_every_tier() {
        for n in [1, 2, 15, 16, 17, 31, 33, 1000] {
            let x: Vec<f32> = floats(n, 21).iter().map(|v| v * 20.0).collect();
            let mut out = x.clone();
            softmax(&mut out);
            let weights: Vec<f64> = x.iter().map(|&v| f64::from(v).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (y, w) in out.iter().zip(&weights) {
                // The difference from the maximum is rounded once, to 2^-20 where it is 32 or more.
                assert!((f64::from(*y) - w / sum).abs() <= 4e-6 * (w / sum) + 1e-38, "{y} {}", w / sum);
            }
            for tier in Tier::supported() {
                let mut again = x.clone();
                row(tier, &mut again);
                assert_eq!(again, out, "{tier:?} n={n}");
            }
        }
    }

    #[test]
    fn large_scores_and_nan() {
        let mut x = [3e38, 3e38, -3e38];
        softmax(&mut x);
        assert_eq!(x, [0.5, 0.5, 0.0]);
        let mut x = [1.0, f32::NAN, 2.0];
        softmax(&mut x);
        assert!(x.iter().all(|v| v.is_nan()));
        softmax(&mut []);
    }
}
