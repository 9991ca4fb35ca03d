//! Causal attention of one group of query heads over one KV head.

use crate::dot::{axpy, dot};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Element type of a KV cache.
pub trait KvFloat: Copy + Send + Sync {
    /// Widens a row to f32.
    fn widen(from: &[Self], to: &mut [f32]);
    /// Rounds a row from f32, to nearest even.
    fn narrow(from: &[f32], to: &mut [Self]);
}

impl KvFloat for f32 {
    fn widen(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl KvFloat for f16 {
    fn widen(from: &[f16], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }
    fn narrow(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

/// Writes one row of keys or values to a cache.
///
/// # Panics
/// If the lengths differ.
pub fn store<T: KvFloat>(row: &[f32], to: &mut [T]) {
    assert_eq!(row.len(), to.len());
    T::narrow(row, to);
}

/// Largest head that fits the conversion buffer; validation refuses larger ones.
pub const MAX_HEAD_DIM: usize = 1024;

/// `out = softmax(q k^T * scale) v` for each query head of a group.
///
/// `q` and `out` are `[group, head_dim]`; row `p` of `keys` and `values` starts at `p * kv_stride` and has `head_dim`
/// elements; `scores` has room for `group * positions`. Each key and value row is read once for the whole group.
///
/// # Panics
/// If a slice is too short or `head_dim` exceeds [`MAX_HEAD_DIM`].
#[allow(clippy::too_many_arguments)]
pub fn attend<T: KvFloat>(
    q: &[f32],
    keys: &[T],
    values: &[T],
    kv_stride: usize,
    positions: usize,
    head_dim: usize,
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let group = q.len() / head_dim;
    assert!(group * head_dim == q.len() && q.len() == out.len());
    let mut buffer = [0f32; MAX_HEAD_DIM];
    let row = &mut buffer[..head_dim];
    let scores = &mut scores[..group * positions];
    for p in 0..positions {
        T::widen(&keys[p * kv_stride..][..head_dim], row);
        for (g, q) in q.chunks_exact(head_dim).enumerate() {
            scores[g * positions + p] = dot(q, row) * scale;
        }
    }
    scores.chunks_exact_mut(positions).for_each(softmax);
    out.fill(0.0);
    for p in 0..positions {
        T::widen(&values[p * kv_stride..][..head_dim], row);
        for (g, out) in out.chunks_exact_mut(head_dim).enumerate() {
            axpy(scores[g * positions + p], row, out);
        }
    }
}

/// Softmax in place, `[n]`: shifted by the maximum, so that nothing overflows.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    let factor = 1.0 / sum;
    x.iter_mut().for_each(|v| *v *= factor);
}

/// [`attend`] for one query head in f64, for tests. `keys` and `values` are `[positions, head_dim]`.
pub fn reference(q: &[f32], keys: &[f32], values: &[f32], scale: f32) -> Vec<f32> {
    let dim = q.len();
    let score = |k: &[f32]| k.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(scale);
    let scores: Vec<f64> = keys.chunks_exact(dim).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let value = |i: usize| values.chunks_exact(dim).zip(&weights).map(|(v, w)| f64::from(v[i]) * w).sum::<f64>() / sum;
    (0..dim).map(|i| value(i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    #[test]
    fn matches_the_reference_for_both_cache_types() {
        for (positions, dim, group) in [(1, 4, 1), (7, 32, 2), (65, 100, 3), (130, 128, 4)] {
            let stride = dim + 8;
            let q = floats(group * dim, 5);
            let (keys, values) = (floats(positions * stride, 6), floats(positions * stride, 7));
            let narrow = |x: &[f32]| {
                let mut y = vec![f16::ZERO; x.len()];
                store(x, &mut y);
                y
            };
            let (mut exact, mut half) = (vec![0.0; q.len()], vec![0.0; q.len()]);
            let mut scores = vec![0.0; group * positions];
            attend(&q, &keys, &values, stride, positions, dim, 0.125, &mut scores, &mut exact);
            attend(&q, &narrow(&keys), &narrow(&values), stride, positions, dim, 0.125, &mut scores, &mut half);
            let compact = |x: &[f32]| x.chunks(stride).flat_map(|r| r[..dim].to_vec()).collect::<Vec<f32>>();
            for g in 0..group {
                let expected = reference(&q[g * dim..(g + 1) * dim], &compact(&keys), &compact(&values), 0.125);
                for (i, e) in expected.iter().enumerate() {
                    assert!((exact[g * dim + i] - e).abs() < 1e-5);
                    assert!((half[g * dim + i] - e).abs() < 5e-3);
                }
            }
        }
    }
}
