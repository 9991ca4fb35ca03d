//! RMSNorm.

/// Lanes of the running sum: a fixed order of summation, whatever the CPU.
const LANES: usize = 16;

/// Mean of squares of `x`, summed in 16 interleaved f32 lanes and then pairwise.
fn mean_square(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v * v;
    }
    pairwise(lanes) / x.len() as f32
}

/// Sum of 16 lanes by halves.
pub(crate) fn pairwise(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// `out = weight * (input * (1 / sqrt(mean(input^2) + eps)))`, all `[n]`, as transformers' LlamaRMSNorm in f32.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(input.len() == weight.len() && input.len() == out.len());
    let factor = 1.0 / (mean_square(input) + eps).sqrt();
    for ((y, x), w) in out.iter_mut().zip(input).zip(weight) {
        *y = w * (x * factor);
    }
}

/// [`rms_norm`] with `out` the same as `input`.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len());
    let factor = 1.0 / (mean_square(x) + eps).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x = w * (*x * factor);
    }
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
    fn matches_the_reference() {
        for n in [1, 5, 16, 17, 384, 2560, 6912] {
            let (x, w) = (floats(n, 1), floats(n, 2));
            let mut out = vec![0.0; n];
            rms_norm(&x, &w, 1e-5, &mut out);
            let expected = reference(&x, &w, 1e-5);
            for (a, b) in out.iter().zip(&expected) {
                assert!((a - b).abs() <= 2e-6 * b.abs().max(1e-6), "{a} {b}");
            }
            let mut same = x.clone();
            rms_norm_in_place(&mut same, &w, 1e-5);
            assert_eq!(same, out);
        }
    }
}
