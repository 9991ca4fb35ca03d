//! Attention of one tile of rows over one chunk of a cache of int8, in integers.
//!
//! Keys and values are integers with a scale for each position. Queries become integers of 16 bits with a scale for
//! each head, and so do the weights of a chunk, times the values' scales. Products and their sums are then exact, which
//! the CPU's instructions for int8 compute several times as fast as floats, and the same on every CPU.
//!
//! For one row, with `round` to the nearest integer, half to even, and `most` from [`most`]:
//! - `step = max |q[d]| / most`, `a[d] = round(q[d] * (most * (1 / max |q[d]|)))`,
//! - `score[p] = ((sum over d of a[d] * key[p][d]) * key_scale[p]) * (step * (scale * log2(e)))`,
//! - `w[p] = 2^(score[p] - max)`, `max` over the chunk, as for floats, and `u[p] = w[p] * value_scale[p]`,
//! - `b[p] = round(u[p] * (most * (1 / max u[p])))`,
//! - `out[d] = (sum over p of b[p] * value[p][d]) * (max u[p] / most)`.
//!
//! A query is off by a 65,000th of its head's largest element, a weight by a 65,000th of the chunk's largest: a
//! hundredth of what int8 keys and values are off by.

use super::cache::{Stored, VALUE_BLOCK, VALUE_QUADS};
use super::tile::{ROW, largest, seen_scores, shift};
use super::{CHUNK, Queries, value_width};
use crate::exp::exp2;
use crate::isa::{Isa, LANES, PACKED_ROWS, PackedQuad, dispatch, multiply_quads};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Integers, or bytes, that one instruction multiplies and sums.
const QUAD: usize = 4;
/// Quads of the weights of a chunk.
const WEIGHT_QUADS: usize = CHUNK / QUAD;
/// Adding 1.5 * 2^23 to a float leaves the nearest integer in its low bits.
const MAGIC: f32 = 12_582_912.0;

/// The largest integer of queries and weights, so that the sums of `terms` products with int8 fit i32, and that both
/// bytes of an integer fit i8.
const fn most(terms: usize) -> f32 {
    if terms <= 512 { 32512.0 } else { 16256.0 }
}

/// Working memory, which is kept from call to call.
#[derive(Default)]
pub struct Integers {
    /// Queries, `[pairs / 8, quads, 8]`.
    queries: Vec<PackedQuad>,
    /// Weights, `[pairs / 8, WEIGHT_QUADS, 8]`.
    weights: Vec<PackedQuad>,
    /// For each pair what its queries, and what its weights, have in common.
    scales: Vec<[Scale; 2]>,
    /// Integers before they are packed.
    integers: Vec<i32>,
}

/// What the integers of a row have in common.
#[derive(Clone, Copy, Default)]
struct Scale {
    /// What 1 stands for; NaN where the row has no finite scale.
    step: f32,
    /// The sum of the integers.
    sum: i32,
}

dispatch!(
    /// Computes the partial results of a chunk in the layout of [`super::partial`]; `scores` is `[pairs, ROW]`.
    fn tile(
        queries: &Queries,
        chunk: usize,
        stored: &Stored<i8>,
        memory: &mut Integers,
        scores: &mut [f32],
        partial: &mut [f32],
    ) = tile_body
);

#[inline(always)]
fn tile_body<I: Isa>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    stored: &Stored<i8>,
    memory: &mut Integers,
    scores: &mut [f32],
    partial: &mut [f32],
) {
    let (pairs, quads) = (queries.pairs(), queries.head_dim.div_ceil(QUAD));
    let (values, totals) = partial.split_at_mut(pairs * value_width(queries.head_dim));
    let (max, sum) = totals.split_at_mut(pairs);
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let (values, _) = values.as_chunks_mut::<LANES>();
    let Integers { queries: q, weights, scales, integers } = memory;
    let eights = pairs.div_ceil(PACKED_ROWS);
    q.resize(eights * quads, PackedQuad::default());
    weights.resize(eights * WEIGHT_QUADS, PackedQuad::default());
    scales.resize(pairs, [Scale::default(); 2]);
    integers.resize(CHUNK.max(quads * QUAD), 0);
    for pair in 0..pairs {
        let (eight, row) = (pair / PACKED_ROWS, pair % PACKED_ROWS);
        scales[pair][0] =
            pack_query(isa, queries.head(pair), integers, row, &mut q[eight * quads..][..quads]);
    }
    score(isa, queries, chunk, stored, q, scales, scores);
    for (pair, scores) in scores.chunks_exact_mut(ROW / LANES).enumerate() {
        let seen = queries.hidden_in(chunk, pair)..queries.visible_in(chunk, pair);
        let (eight, row) = (pair / PACKED_ROWS, pair % PACKED_ROWS);
        let packed = &mut weights[eight * WEIGHT_QUADS..][..WEIGHT_QUADS];
        (max[pair], sum[pair], scales[pair][1]) =
            weigh(isa, seen, stored.value_scales, scores, integers, row, packed);
    }
    let seen = queries.hidden_in(chunk, 0)..queries.visible_in(chunk, pairs - 1);
    sum_values(isa, seen, stored, weights, scales, values);
}

/// The integers of one head, packed to row `row` of `to`, `[quads]`.
#[inline(always)]
fn pack_query<I: Isa>(isa: I, q: &[f32], integers: &mut [i32], row: usize, to: &mut [PackedQuad]) -> Scale {
    let (factor, step) = factor_and_step(largest_magnitude(isa, q), most(q.len()));
    let integers = &mut integers[..to.len() * QUAD];
    let (now, rest) = integers.split_at_mut(q.len());
    rest.fill(0);
    let sum = round(q, factor, now);
    isa.pack_quads(integers, row, to);
    Scale { step, sum }
}

/// The largest magnitude; NaN where a number is not finite.
#[inline(always)]
fn largest_magnitude<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (vectors, rest) = x.as_chunks::<LANES>();
    let (zero, negative) = (isa.splat(0.0), isa.splat(-1.0));
    // The maximum of NaN and a number is the number, so that NaN is looked for beside it.
    let (mut lanes, mut strange) = (zero, zero);
    for x in vectors {
        let x = isa.load(x);
        lanes = isa.max(isa.mul(x, negative), isa.max(x, lanes));
        strange = isa.mul_add(x, zero, strange);
    }
    let (mut max, mut strange) = (largest(isa, lanes), isa.sum(strange));
    for &x in rest {
        max = if x.abs() > max { x.abs() } else { max };
        strange += x * 0.0;
    }
    max + strange
}

/// By what numbers with the largest magnitude `max` are multiplied to become integers, and what 1 then stands for.
#[inline(always)]
fn factor_and_step(max: f32, most: f32) -> (f32, f32) {
    let factor = most * (1.0 / max);
    match (max.is_finite(), factor.is_finite()) {
        (false, _) => (0.0, f32::NAN),
        // So small, or all of them 0, that their products do not count.
        (true, false) => (0.0, 0.0),
        (true, true) => (factor, max * (1.0 / most)),
    }
}

/// Multiplies and rounds to the nearest integers, and returns their sum. Numbers that are not finite become some integer.
#[inline(always)]
fn round(x: &[f32], factor: f32, to: &mut [i32]) -> i32 {
    let mut sum = 0i32;
    for (to, x) in to.iter_mut().zip(x) {
        let integer = ((x * factor + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
        *to = integer;
        sum = sum.wrapping_add(integer);
    }
    sum
}

/// Computes the scores of every pair with each block that holds a position that some pair sees.
#[inline(always)]
fn score<I: Isa>(
    isa: I,
    queries: &Queries,
    chunk: usize,
    stored: &Stored<i8>,
    q: &[PackedQuad],
    scales: &[[Scale; 2]],
    scores: &mut [[f32; LANES]],
) {
    let (pairs, quads) = (queries.pairs(), queries.head_dim.div_ceil(QUAD));
    let blocks = queries.hidden_in(chunk, 0) / LANES..queries.visible_in(chunk, pairs - 1).div_ceil(LANES);
    let wide = I::VECTORS >= 32;
    let mut block = blocks.start;
    while block < blocks.end {
        // With few pairs keys come from memory, and from four blocks at once they come faster.
        let four = wide && pairs < PACKED_ROWS && block + 4 <= blocks.end;
        let mut pair = 0;
        while pair < pairs {
            let (q, row) = (&q[pair / PACKED_ROWS * quads..][..quads], pair % PACKED_ROWS);
            let of = (pair, row, block);
            pair += match pairs - pair {
                2.. if four => score_group::<I, 2, 4>(isa, queries, of, stored, q, scales, scores),
                _ if four => score_group::<I, 1, 4>(isa, queries, of, stored, q, scales, scores),
                8.. if wide => score_group::<I, 8, 1>(isa, queries, of, stored, q, scales, scores),
                4.. => score_group::<I, 4, 1>(isa, queries, of, stored, q, scales, scores),
                _ => score_group::<I, 1, 1>(isa, queries, of, stored, q, scales, scores),
            };
        }
        block += if four { 4 } else { 1 };
    }
}

/// Computes the scores of `M` pairs, which begin at row `row` of `q`, with `N` blocks, and returns `M`.
#[inline(always)]
fn score_group<I: Isa, const M: usize, const N: usize>(
    isa: I,
    queries: &Queries,
    (pair, row, block): (usize, usize, usize),
    stored: &Stored<i8>,
    q: &[PackedQuad],
    scales: &[[Scale; 2]],
    scores: &mut [[f32; LANES]],
) -> usize {
    let keys = &stored.keys.as_chunks().0[block * q.len()..];
    let mut sums = [[isa.no_quad_sums(); N]; M];
    multiply_quads::<I, M, N>(isa, q, row, keys, q.len(), stored.streamed && pair == 0, &mut sums);
    let factor = queries.scale * LOG2_E;
    for n in 0..N {
        let key_scales = isa.load(&stored.key_scales.as_chunks().0[block + n]);
        for m in 0..M {
            let Scale { step, sum } = scales[pair + m][0];
            let score = isa.mul(isa.total(sums[m][n], sum), key_scales);
            let to = &mut scores[(pair + m) * (ROW / LANES) + block + n];
            isa.store(isa.mul(score, isa.splat(step * factor)), to);
        }
    }
    M
}

/// Turns the scores of one pair into weights times the values' scales, as integers. Positions outside `seen` get 0.
/// Returns the largest score, the sum of the weights without the scales, and what the integers have in common.
#[inline(always)]
fn weigh<I: Isa>(
    isa: I,
    seen: Range<usize>,
    value_scales: &[f32],
    scores: &mut [[f32; LANES]],
    integers: &mut [i32],
    row: usize,
    packed: &mut [PackedQuad],
) -> (f32, f32, Scale) {
    if seen.is_empty() {
        packed.iter_mut().for_each(|quad| quad[row] = [0; 2]);
        return (f32::NEG_INFINITY, 0.0, Scale::default());
    }
    let blocks = seen.start / LANES..seen.end.div_ceil(LANES);
    let (first, last) = (seen.start % LANES, seen.end.next_multiple_of(LANES) - seen.end);
    let (scores, max) = seen_scores(isa, seen, scores);
    let (shift, zero) = (isa.splat(shift(max)), isa.splat(0.0));
    let (mut sums, mut most_lanes, mut strange) = (zero, zero, zero);
    let value_scales = &value_scales.as_chunks::<LANES>().0[blocks.clone()];
    for i in 0..scores.len() {
        let mut scales = value_scales[i];
        // What stands outside may be NaN, because its scale was never written.
        if i == 0 {
            scales[..first].fill(0.0);
        }
        if i + 1 == value_scales.len() {
            scales[LANES - last..].fill(0.0);
        }
        let weight = exp2(isa, isa.mul_add(shift, isa.splat(-1.0), isa.load(&scores[i])));
        sums = isa.add(sums, weight);
        let scaled = isa.mul(weight, isa.load(&scales));
        most_lanes = isa.max(scaled, most_lanes);
        // The maximum of NaN and a number is the number, so that NaN is looked for beside it.
        strange = isa.mul_add(scaled, zero, strange);
        isa.store(scaled, &mut scores[i]);
    }
    let (factor, step) = factor_and_step(largest(isa, most_lanes) + isa.sum(strange), most(CHUNK));
    let all = &mut integers[..CHUNK];
    let from = blocks.start * LANES;
    let sum = round(scores.as_flattened(), factor, &mut all[from..][..scores.len() * LANES]);
    all[..from].fill(0);
    all[blocks.end * LANES..].fill(0);
    isa.pack_quads(all, row, packed);
    (max, isa.sum(sums), Scale { step, sum })
}

/// Writes the weighted sums of the values at positions `seen`, `[pairs, vectors]`.
#[inline(always)]
fn sum_values<I: Isa>(
    isa: I,
    seen: Range<usize>,
    stored: &Stored<i8>,
    weights: &[PackedQuad],
    scales: &[[Scale; 2]],
    values: &mut [[f32; LANES]],
) {
    let (pairs, vectors, wide) = (scales.len(), values.len() / scales.len(), I::VECTORS >= 32);
    let mut vector = 0;
    while vector < vectors {
        let four = wide && pairs < PACKED_ROWS && vector + 4 <= vectors;
        let mut pair = 0;
        while pair < pairs {
            let (weights, row) = (&weights[pair / PACKED_ROWS * WEIGHT_QUADS..], pair % PACKED_ROWS);
            let of = (pair, row, vector, vectors);
            pair += match pairs - pair {
                2.. if four => sum_group::<I, 2, 4>(isa, of, &seen, stored, weights, scales, values),
                _ if four => sum_group::<I, 1, 4>(isa, of, &seen, stored, weights, scales, values),
                8.. if wide => sum_group::<I, 8, 1>(isa, of, &seen, stored, weights, scales, values),
                4.. => sum_group::<I, 4, 1>(isa, of, &seen, stored, weights, scales, values),
                _ => sum_group::<I, 1, 1>(isa, of, &seen, stored, weights, scales, values),
            };
        }
        vector += if four { 4 } else { 1 };
    }
}

/// Writes `N` vectors of the weighted sums of `M` pairs, which begin at row `row` of `weights`, and returns `M`.
#[inline(always)]
fn sum_group<I: Isa, const M: usize, const N: usize>(
    isa: I,
    (pair, row, vector, vectors): (usize, usize, usize, usize),
    seen: &Range<usize>,
    stored: &Stored<i8>,
    weights: &[PackedQuad],
    scales: &[[Scale; 2]],
    values: &mut [[f32; LANES]],
) -> usize {
    let (streamed, stored) = (stored.streamed && pair == 0, stored.values.as_chunks().0);
    let mut sums = [[isa.no_quad_sums(); N]; M];
    for block in seen.start / VALUE_BLOCK..seen.end.div_ceil(VALUE_BLOCK) {
        let quads = (seen.end - block * VALUE_BLOCK).min(VALUE_BLOCK).div_ceil(QUAD);
        let weights = &weights[block * VALUE_QUADS..][..quads];
        let stored = &stored[(block * vectors + vector) * VALUE_QUADS..];
        multiply_quads::<I, M, N>(isa, weights, row, stored, VALUE_QUADS, streamed, &mut sums);
    }
    for m in 0..M {
        let Scale { step, sum } = scales[pair + m][1];
        for n in 0..N {
            let total = isa.mul(isa.total(sums[m][n], sum), isa.splat(step));
            isa.store(total, &mut values[(pair + m) * vectors + vector + n]);
        }
    }
    M
}
