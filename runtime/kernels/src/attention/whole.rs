//! Attention over caches of rows, in one piece.

use crate::dot::{GROUP, dots, padded};
use crate::element::Element;
use crate::isa::{Isa, LANES, Tier, dispatch};
use crate::softmax;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Element type of a KV cache: f32 or f16.
pub trait KvFloat: Element<Raw = Self> + Copy + Default + Send + Sync {
    /// Rounds a row from f32, to nearest even; what f16 cannot hold becomes infinite.
    fn narrow(from: &[f32], to: &mut [Self]);
}

impl KvFloat for f32 {
    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl KvFloat for f16 {
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

/// Positions whose values meet every query head before the next are read: together they stay in L1.
const POSITIONS_IN_CACHE: usize = 64;

/// Rows of the cache between the key that is read and the one that is prefetched.
const ROWS_AHEAD: usize = 8;

/// `out = softmax(q k^T * scale) v` for each query head of a group.
///
/// `q` and `out` are `[group, head_dim]`; row `p` of `keys` and `values` starts at `p * kv_stride` and has `head_dim`
/// elements; `scores` has room for `group * positions`. Each key and value row comes from memory once for the whole
/// group. A head's result is the same bits whatever heads are computed with it, on every CPU. Without positions it is 0.
///
/// # Panics
/// If a slice is too short for the shapes.
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
    let group = q.len().checked_div(head_dim).unwrap_or(0);
    assert!(group * head_dim == q.len() && q.len() == out.len());
    out.fill(0.0);
    if positions == 0 || group == 0 {
        return;
    }
    let end = (positions - 1) * kv_stride + head_dim;
    let (keys, values, scores) = (&keys[..end], &values[..end], &mut scores[..group * positions]);
    group_of_heads::<T>(Tier::best(), q, keys, values, kv_stride, head_dim, scale, scores, out);
}

dispatch!(
    fn group_of_heads<T: KvFloat>(
        q: &[f32],
        keys: &[T],
        values: &[T],
        kv_stride: usize,
        head_dim: usize,
        scale: f32,
        scores: &mut [f32],
        out: &mut [f32],
    ) = group_of_heads_body
);

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn group_of_heads_body<I: Isa, T: KvFloat>(
    isa: I,
    q: &[f32],
    keys: &[T],
    values: &[T],
    kv_stride: usize,
    head_dim: usize,
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let heads = q.len() / head_dim;
    let positions = scores.len() / heads;
    for p in 0..positions {
        let key = &keys[p * kv_stride..][..head_dim];
        for line in key.chunks(64 / size_of::<T>()) {
            isa.prefetch(&line[0], ROWS_AHEAD * kv_stride * size_of::<T>());
        }
        let mut head = 0;
        while head < heads {
            let (q, scores) = (&q[head * head_dim..], &mut scores[head * positions + p..]);
            if head + GROUP <= heads {
                score::<I, T, GROUP>(isa, q, key, scale, scores, positions);
                head += GROUP;
            } else {
                score::<I, T, 1>(isa, q, key, scale, scores, positions);
                head += 1;
            }
        }
    }
    scores.chunks_exact_mut(positions).for_each(|scores| softmax::in_place(isa, scores));
    for from in (0..positions).step_by(POSITIONS_IN_CACHE) {
        let block = from..(from + POSITIONS_IN_CACHE).min(positions);
        let mut head = 0;
        while head < heads {
            let weights = &scores[head * positions..];
            if head + GROUP <= heads {
                let out = &mut out[head * head_dim..(head + GROUP) * head_dim];
                weigh::<I, T, GROUP>(isa, weights, positions, block.clone(), values, kv_stride, out);
                head += GROUP;
            } else {
                let out = &mut out[head * head_dim..(head + 1) * head_dim];
                weigh::<I, T, 1>(isa, weights, positions, block.clone(), values, kv_stride, out);
                head += 1;
            }
        }
    }
}

/// `scores[m * positions] = (q[m] . key) * scale` for `M` query heads.
#[inline(always)]
fn score<I: Isa, T: KvFloat, const M: usize>(
    isa: I,
    q: &[f32],
    key: &[T],
    scale: f32,
    scores: &mut [f32],
    positions: usize,
) {
    let mut heads: [&[f32]; M] = [&[]; M];
    for m in 0..M {
        heads[m] = &q[m * key.len()..][..key.len()];
    }
    let dots = dots::<I, T, M>(isa, key, heads, 0);
    for m in 0..M {
        scores[m * positions] = dots[m] * scale;
    }
}

/// `out[m] += sum over p in block of weights[m, p] * values[p]` for `M` heads, `out` `[M, head_dim]`, one position after
/// the other.
#[inline(always)]
fn weigh<I: Isa, T: KvFloat, const M: usize>(
    isa: I,
    weights: &[f32],
    positions: usize,
    block: Range<usize>,
    values: &[T],
    kv_stride: usize,
    out: &mut [f32],
) {
    let head_dim = out.len() / M;
    let mut w: [&[f32]; M] = [&[]; M];
    for m in 0..M {
        w[m] = &weights[m * positions..][block.clone()];
    }
    let mut at = 0;
    while at + 2 * LANES <= head_dim {
        let mut sums = [[isa.splat(0.0); 2]; M];
        for m in 0..M {
            sums[m] =
                [isa.load(chunk(out, m * head_dim + at)), isa.load(chunk(out, m * head_dim + at + LANES))];
        }
        for i in 0..block.len() {
            let row = (block.start + i) * kv_stride + at;
            let value = [T::widen(isa, chunk(values, row)), T::widen(isa, chunk(values, row + LANES))];
            for m in 0..M {
                let w = isa.splat(w[m][i]);
                sums[m] =
                    [isa.add(sums[m][0], isa.mul(w, value[0])), isa.add(sums[m][1], isa.mul(w, value[1]))];
            }
        }
        for m in 0..M {
            isa.store(sums[m][0], chunk_mut(out, m * head_dim + at));
            isa.store(sums[m][1], chunk_mut(out, m * head_dim + at + LANES));
        }
        at += 2 * LANES;
    }
    while at < head_dim {
        let width = LANES.min(head_dim - at);
        for m in 0..M {
            let out = &mut out[m * head_dim + at..][..width];
            let mut sum = isa.load(&padded(out));
            for i in 0..block.len() {
                let value = T::widen(isa, &padded(&values[(block.start + i) * kv_stride + at..][..width]));
                sum = isa.add(sum, isa.mul(isa.splat(w[m][i]), value));
            }
            let mut lanes = [0.0; LANES];
            isa.store(sum, &mut lanes);
            out.copy_from_slice(&lanes[..width]);
        }
        at += width;
    }
}

/// The sixteen elements from `at`.
#[inline(always)]
fn chunk<T>(from: &[T], at: usize) -> &[T; LANES] {
    from[at..].first_chunk().expect("sixteen elements")
}

/// The sixteen elements from `at`.
#[inline(always)]
fn chunk_mut<T>(from: &mut [T], at: usize) -> &mut [T; LANES] {
    from[at..].first_chunk_mut().expect("sixteen elements")
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;
    use crate::testing::floats;

    const SCALE: f32 = 0.35;

    fn run<T: KvFloat>(
        tier: Tier,
        q: &[f32],
        keys: &[T],
        values: &[T],
        stride: usize,
        positions: usize,
        dim: usize,
    ) -> Vec<f32> {
        let mut scores = vec![f32::NAN; q.len() / dim * positions];
        let mut out = vec![0.0; q.len()];
        group_of_heads::<T>(tier, q, keys, values, stride, dim, SCALE, &mut scores, &mut out);
        out
    }

    /// Both cache types against the f64 reference, and every tier and grouping of heads with the same bits.
    fn check<T: KvFloat>(positions: usize, dim: usize, group: usize, widen: impl Fn(T) -> f32) {
        let stride = dim + 8;
        let q = floats(group * dim, 5);
        let cache = |seed| {
            let mut rows = vec![T::default(); positions * stride];
            store(&floats(rows.len(), seed), &mut rows);
            rows
        };
        let (keys, values) = (cache(6), cache(7));
        let compact =
            |x: &[T]| x.chunks(stride).flat_map(|r| r[..dim].iter().map(|&v| widen(v))).collect::<Vec<f32>>();
        let (wide_keys, wide_values) = (compact(&keys), compact(&values));
        let (mut out, mut scores) = (vec![f32::NAN; q.len()], vec![f32::NAN; group * positions + 3]);
        attend(&q, &keys, &values, stride, positions, dim, SCALE, &mut scores, &mut out);
        for (g, q) in q.chunks(dim).enumerate() {
            let ours = &out[g * dim..][..dim];
            for (y, e) in ours.iter().zip(reference(q, &wide_keys, &wide_values, SCALE)) {
                // Values are below 1 and weights sum to 1; scores reach 20 and are off by 1e-6 of that.
                assert!((y - e).abs() < 2e-5, "positions={positions} dim={dim}: {y} {e}");
            }
            for tier in Tier::supported() {
                assert_eq!(
                    run(tier, q, &keys, &values, stride, positions, dim),
                    ours,
                    "{tier:?}, a head alone"
                );
            }
        }
        for tier in Tier::supported() {
            assert_eq!(run(tier, &q, &keys, &values, stride, positions, dim), out, "{tier:?}");
        }
    }

    #[test]
    fn matches_the_reference_for_both_cache_types() {
        for (positions, dim, group) in [
            (1, 4, 1),
            (2, 1, 2),
            (7, 32, 2),
            (15, 48, 4),
            (16, 64, 5),
            (65, 100, 3),
            (130, 128, 4),
            (1000, 80, 6),
        ] {
            check::<f32>(positions, dim, group, |v| v);
            check::<f16>(positions, dim, group, f16::to_f32);
        }
    }

    #[test]
    fn scores_of_any_size_do_not_overflow() {
        let (q, keys, values) = (
            [1e4f32; 8],
            [[1e4f32; 8], [-1e4; 8], [1e4; 8]].concat(),
            [[1.0f32; 8], [5.0; 8], [2.0; 8]].concat(),
        );
        let (mut out, mut scores) = ([0.0; 8], [0.0; 3]);
        attend(&q, &keys, &values, 8, 3, 8, 1.0, &mut scores, &mut out);
        assert_eq!(out, [1.5; 8]);
    }

    #[test]
    fn no_positions_give_zero_and_nan_is_not_hidden() {
        let (mut out, mut scores) = ([1.0; 4], [0.0; 2]);
        attend::<f32>(&[1.0; 4], &[], &[], 4, 0, 4, 1.0, &mut scores, &mut out);
        assert_eq!(out, [0.0; 4]);
        attend(&[f32::NAN; 4], &[1.0f32; 8], &[1.0; 8], 4, 2, 4, 1.0, &mut scores, &mut out);
        assert!(out.iter().all(|y| y.is_nan()));
    }

    #[test]
    fn f16_rows_are_rounded_to_nearest_even() {
        let x = [1.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 65504.0, 1e6, -1e-8, 6e-8, 0.333_333_34, -2.5];
        let mut rows = [f16::ZERO; 9];
        store(&x, &mut rows);
        assert_eq!(rows, x.map(f16::from_f32));
        assert_eq!(rows[1].to_f32(), 1.0);
    }
}
