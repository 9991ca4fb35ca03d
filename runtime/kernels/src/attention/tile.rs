//! Attention of one tile of rows over one chunk of a cache: products with keys, weights, products with values.
//!
//! Both products are the same loop, [`multiply`]. For keys, lanes are positions and each sum runs over elements; for
//! values, lanes are elements and each sum runs over positions. Sums run in order, and no result depends on how many
//! sums share the registers.

use super::cache::{KvElement, Stored, VALUE_BLOCK, value_index};
use super::{CHUNK, Queries, value_width};
use crate::exp::exp2;
use crate::isa::{Isa, LANES, dispatch, multiply};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Elements from the scores of one pair to those of the next. This is not a power of two, so that the scores of all
/// pairs for one position do not compete for few sets of L1.
pub(super) const ROW: usize = CHUNK + LANES;

/// Positions whose values are multiplied with every pair before the next positions are read. 64 elements of each take
/// 16 KB of f32, which stay in L1 with the results. Where values come from memory, runs are as long as they can be
/// instead.
const POSITIONS: usize = 64;

dispatch!(
    /// Computes the partial results of a chunk in the layout of [`super::partial`]; `scores` is `[pairs, ROW]`.
    fn tile<T: KvElement>(
        queries: &Queries,
        chunk: usize,
        stored: &Stored<T>,
        scores: &mut [f32],
        partial: &mut [f32],
    ) = tile_body
);

#[inline(always)]
fn tile_body<I: Isa, T: KvElement>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    stored: &Stored<T>,
    scores: &mut [f32],
    partial: &mut [f32],
) {
    let (pairs, vectors) = (queries.pairs(), value_width(queries.head_dim) / LANES);
    let (values, totals) = partial.split_at_mut(pairs * vectors * LANES);
    let (max, sum) = totals.split_at_mut(pairs);
    values.fill(0.0);
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let (values, _) = values.as_chunks_mut::<LANES>();
    score(isa, queries, chunk, stored, scores);
    for (pair, scores) in scores.chunks_exact_mut(ROW / LANES).enumerate() {
        let seen = queries.hidden_in(chunk, pair)..queries.visible_in(chunk, pair);
        (max[pair], sum[pair]) = weigh(isa, seen, scores);
    }
    let weights = scores.as_flattened();
    let step = if stored.streamed { VALUE_BLOCK } else { POSITIONS };
    let seen = queries.visible_in(chunk, pairs - 1);
    let mut from = queries.hidden_in(chunk, 0) / step * step;
    while from < seen {
        let mut pair = 0;
        while pair < pairs {
            let (left, weights) = (pairs - pair, &weights[pair * ROW..]);
            let part = (pair, from..from + step, vectors);
            if I::VECTORS >= 32 && left >= 4 {
                sum_values::<I, T, 4, 4>(isa, queries, chunk, part, stored, weights, values);
                pair += 4;
            } else if left >= 4 {
                sum_values::<I, T, 4, 1>(isa, queries, chunk, part, stored, weights, values);
                pair += 4;
            } else if left >= 2 {
                sum_values::<I, T, 2, 2>(isa, queries, chunk, part, stored, weights, values);
                pair += 2;
            } else {
                sum_values::<I, T, 1, 4>(isa, queries, chunk, part, stored, weights, values);
                pair += 1;
            }
        }
        from += step;
    }
}

/// Computes the scores of every pair with each block that holds a position that it sees.
#[inline(always)]
fn score<I: Isa, T: KvElement>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    stored: &Stored<T>,
    scores: &mut [[f32; LANES]],
) {
    let pairs = queries.pairs();
    let (keys, _) = stored.keys.as_chunks::<LANES>();
    let blocks = queries.visible_in(chunk, pairs - 1).div_ceil(LANES);
    let mut block = queries.hidden_in(chunk, 0) / LANES;
    while block < blocks {
        let wide = I::VECTORS >= 32;
        // With more blocks at once the CPU prefetches more. With 8 pairs or more, the registers do not hold their sums.
        let four = wide && stored.streamed && pairs < 8 && block + 4 <= blocks;
        let two = wide && block + 2 <= blocks;
        let keys = &keys[block * queries.head_dim..];
        let mut pair = 0;
        while pair < pairs {
            let left = pairs - pair;
            let to = &mut scores[pair * (ROW / LANES) + block..];
            let of = (pair, block);
            let done = match left {
                4.. if four => score_group::<I, T, 4, 4>(isa, queries, chunk, of, keys, stored, to),
                2.. if four => score_group::<I, T, 2, 4>(isa, queries, chunk, of, keys, stored, to),
                1.. if four => score_group::<I, T, 1, 4>(isa, queries, chunk, of, keys, stored, to),
                8.. if two => score_group::<I, T, 8, 2>(isa, queries, chunk, of, keys, stored, to),
                4.. if two => score_group::<I, T, 4, 2>(isa, queries, chunk, of, keys, stored, to),
                2.. if two => score_group::<I, T, 2, 2>(isa, queries, chunk, of, keys, stored, to),
                1 if two => score_group::<I, T, 1, 2>(isa, queries, chunk, of, keys, stored, to),
                4.. => score_group::<I, T, 4, 1>(isa, queries, chunk, of, keys, stored, to),
                2.. => score_group::<I, T, 2, 1>(isa, queries, chunk, of, keys, stored, to),
                _ => score_group::<I, T, 1, 1>(isa, queries, chunk, of, keys, stored, to),
            };
            pair += done;
        }
        block += if four {
            4
        } else if two {
            2
        } else {
            1
        };
    }
}

/// Computes the scores of `M` pairs with `N` blocks and returns `M`.
#[inline(always)]
fn score_group<I: Isa, T: KvElement, const M: usize, const N: usize>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    (pair, block): (usize, usize),
    keys: &[[T; LANES]],
    stored: &Stored<T>,
    to: &mut [[f32; LANES]],
) -> usize {
    let end = (block + N) * LANES;
    if queries.visible_in(chunk, pair + M - 1) <= block * LANES || queries.hidden_in(chunk, pair) >= end {
        return M;
    }
    let mut q: [&[f32]; M] = [&[]; M];
    for m in 0..M {
        q[m] = queries.head(pair + m);
    }
    let mut sums = [[isa.splat(0.0); N]; M];
    multiply::<I, T, M, N>(isa, q, keys, 1, queries.head_dim, stored.streamed && pair == 0, &mut sums);
    let scale = isa.splat(queries.scale * LOG2_E);
    for n in 0..N {
        for m in 0..M {
            isa.store(isa.mul(sums[m][n], scale), &mut to[m * (ROW / LANES) + n]);
        }
    }
    M
}

/// Turns the scores of one pair into weights. Positions outside `seen` get no weight. Returns the largest score, and the
/// sum of the weights.
#[inline(always)]
fn weigh<I: Isa>(isa: I, seen: Range<usize>, scores: &mut [[f32; LANES]]) -> (f32, f32) {
    if seen.is_empty() {
        return (f32::NEG_INFINITY, 0.0);
    }
    let (scores, max) = seen_scores(isa, seen, scores);
    let shift = isa.splat(shift(max));
    let mut sums = isa.splat(0.0);
    for weights in scores {
        let weight = exp2(isa, isa.mul_add(shift, isa.splat(-1.0), isa.load(weights)));
        sums = isa.add(sums, weight);
        isa.store(weight, weights);
    }
    (max, isa.sum(sums))
}

/// The vectors that hold scores of positions `seen`, of which there are some, and the largest of those scores. Other
/// positions in these vectors get minus infinity.
#[inline(always)]
pub(super) fn seen_scores<I: Isa>(
    isa: I,
    seen: Range<usize>,
    scores: &mut [[f32; LANES]],
) -> (&mut [[f32; LANES]], f32) {
    let scores = &mut scores[seen.start / LANES..seen.end.div_ceil(LANES)];
    if let Some(last) = scores.last_mut().filter(|_| !seen.end.is_multiple_of(LANES)) {
        last[seen.end % LANES..].fill(f32::NEG_INFINITY);
    }
    scores[0][..seen.start % LANES].fill(f32::NEG_INFINITY);
    let mut lanes = isa.splat(f32::NEG_INFINITY);
    for scores in &*scores {
        lanes = isa.max(isa.load(scores), lanes);
    }
    (scores, largest(isa, lanes))
}

/// The largest lane. No lane is NaN.
#[inline(always)]
pub(super) fn largest<I: Isa>(isa: I, lanes: I::F32) -> f32 {
    let mut all = [0.0; LANES];
    isa.store(lanes, &mut all);
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            all[i] = if all[i] > all[i + half] { all[i] } else { all[i + half] };
        }
    }
    all[0]
}

/// What is subtracted from scores with that maximum before they become exponents. It is 0 where all scores are minus
/// infinity, because their difference to the maximum would be NaN, and they must have no weight.
#[inline(always)]
pub(super) fn shift(max: f32) -> f32 {
    if max == f32::NEG_INFINITY { 0.0 } else { max }
}

/// Adds the weighted values of some positions to the results of `M` pairs; `values` is `[pairs, vectors]`.
#[inline(always)]
fn sum_values<I: Isa, T: KvElement, const M: usize, const N: usize>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    (pair, positions, vectors): (usize, Range<usize>, usize),
    stored: &Stored<T>,
    weights: &[f32],
    values: &mut [[f32; LANES]],
) {
    let stream = stored.streamed && pair == 0;
    let (stored, _) = stored.values.as_chunks::<LANES>();
    let to = &mut values[pair * vectors..(pair + M) * vectors];
    let part = |m: usize| {
        let hidden = queries.hidden_in(chunk, pair + m).clamp(positions.start, positions.end);
        hidden..queries.visible_in(chunk, pair + m).clamp(hidden, positions.end)
    };
    // The last pair's window begins latest, and the first pair's positions end earliest: all pairs see what lies
    // between.
    let common = part(M - 1).start..part(0).end;
    if common.is_empty() {
        for m in 0..M {
            sum_alone::<I, T, N>(isa, m, part(m), weights, stored, vectors, to);
        }
        return;
    }
    for m in 0..M - 1 {
        sum_alone::<I, T, N>(isa, m, part(m).start..common.start, weights, stored, vectors, to);
    }
    let mut w: [&[f32]; M] = [&[]; M];
    for m in 0..M {
        w[m] = &weights[m * ROW + common.start..m * ROW + common.end];
    }
    let from = &stored[value_index(common.start, 0, vectors)..];
    sum_block::<I, T, M, N>(isa, w, from, vectors, stream, to);
    for m in 1..M {
        sum_alone::<I, T, N>(isa, m, common.end..part(m).end, weights, stored, vectors, to);
    }
}

/// Adds the weighted values of some positions to the result of pair `m` of a group.
#[inline(always)]
fn sum_alone<I: Isa, T: KvElement, const N: usize>(
    isa: I,
    m: usize,
    positions: Range<usize>,
    weights: &[f32],
    stored: &[[T; LANES]],
    vectors: usize,
    to: &mut [[f32; LANES]],
) {
    if positions.is_empty() {
        return;
    }
    let stored = &stored[value_index(positions.start, 0, vectors)..];
    let weights = &weights[m * ROW..][positions];
    sum_block::<I, T, 1, N>(isa, [weights], stored, vectors, false, &mut to[m * vectors..]);
}

/// Adds weighted values to the results of `M` pairs, `N` vectors at a time.
#[inline(always)]
fn sum_block<I: Isa, T: KvElement, const M: usize, const N: usize>(
    isa: I,
    weights: [&[f32]; M],
    stored: &[[T; LANES]],
    vectors: usize,
    stream: bool,
    to: &mut [[f32; LANES]],
) {
    let mut at = 0;
    while at + N <= vectors {
        sum_vectors::<I, T, M, N>(isa, weights, &stored[at * VALUE_BLOCK..], vectors, stream, &mut to[at..]);
        at += N;
    }
    while at < vectors {
        sum_vectors::<I, T, M, 1>(isa, weights, &stored[at * VALUE_BLOCK..], vectors, stream, &mut to[at..]);
        at += 1;
    }
}

#[inline(always)]
fn sum_vectors<I: Isa, T: KvElement, const M: usize, const N: usize>(
    isa: I,
    weights: [&[f32]; M],
    stored: &[[T; LANES]],
    vectors: usize,
    stream: bool,
    to: &mut [[f32; LANES]],
) {
    let mut sums = [[isa.splat(0.0); N]; M];
    for m in 0..M {
        for n in 0..N {
            sums[m][n] = isa.load(&to[m * vectors + n]);
        }
    }
    multiply::<I, T, M, N>(isa, weights, stored, 1, VALUE_BLOCK, stream, &mut sums);
    for m in 0..M {
        for n in 0..N {
            isa.store(sums[m][n], &mut to[m * vectors + n]);
        }
    }
}

dispatch!(
    /// Widens whole vectors to f32.
    fn widen<T: KvElement>(from: &[T], to: &mut [f32]) = widen_body
);

#[inline(always)]
fn widen_body<I: Isa, T: KvElement>(isa: I, from: &[T], to: &mut [f32]) {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        isa.store(T::widen(isa, from), to);
    }
}

dispatch!(
    /// Adds the result of the next chunk to that of the chunks before it. `total` and `next` are the largest score and
    /// the sum of weights; of `values`, the first `out.len()` elements count. The first chunk's result is taken as it
    /// is.
    fn merge(first: bool, total: &mut [f32; 2], out: &mut [f32], next: [f32; 2], values: &[f32]) = merge_body
);

#[inline(always)]
fn merge_body<I: Isa>(
    isa: I,
    first: bool,
    total: &mut [f32; 2],
    out: &mut [f32],
    next: [f32; 2],
    values: &[f32],
) {
    if first {
        *total = next;
        return out.copy_from_slice(&values[..out.len()]);
    }
    let max = if next[0] > total[0] { next[0] } else { total[0] };
    let old = exp2(isa, isa.splat(total[0] - shift(max)));
    let new = exp2(isa, isa.splat(next[0] - shift(max)));
    let mut lanes = [0.0; LANES];
    add_scaled(isa, old, &[total[1]; LANES], new, &[next[1]; LANES], &mut lanes);
    *total = [max, lanes[0]];
    let (values, _) = values.as_chunks();
    let (outs, rest) = out.as_chunks_mut::<LANES>();
    for (out, values) in outs.iter_mut().zip(values) {
        add_scaled(isa, old, &out.clone(), new, values, out);
    }
    if !rest.is_empty() {
        add_scaled(isa, old, &crate::dot::padded(rest), new, &values[outs.len()], &mut lanes);
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

/// `to = old * a + new * b`.
#[inline(always)]
fn add_scaled<I: Isa>(
    isa: I,
    old: I::F32,
    a: &[f32; LANES],
    new: I::F32,
    b: &[f32; LANES],
    to: &mut [f32; LANES],
) {
    isa.store(isa.mul_add(new, isa.load(b), isa.mul(old, isa.load(a))), to);
}

dispatch!(
    /// Multiplies `out` by `1 / sum`.
    fn divide(sum: f32, out: &mut [f32]) = divide_body
);

#[inline(always)]
fn divide_body<I: Isa>(_isa: I, sum: f32, out: &mut [f32]) {
    let factor = 1.0 / sum;
    for v in out {
        *v *= factor;
    }
}
