//! Causal attention of a group of query heads over the cache of the KV head that they share.
//!
//! Positions are cut into chunks of [`CHUNK`]. For each chunk, a query row gets the largest score, the sum of the
//! weights and the weighted sum of the values; [`combine`] then adds the chunks up in order. Threads can share a long
//! context chunk by chunk ([`partial`]), or a block of rows can go through all of it ([`attend_rows`]). A row's result
//! is the same bits either way: it depends neither on the number of threads, nor on the rows computed together with it,
//! nor on the CPU.
//!
//! For one row and a cache of floats, with fused multiply-adds throughout:
//! - `score[p] = (sum over d, in order, of q[d] * key[p][d]) * (scale * log2(e))`,
//! - `w[p] = 2^(score[p] - max)`, `max` over the chunk; weights are summed in sixteen interleaved lanes, then by halves,
//! - `out[d] = sum over p, in order, of w[p] * value[p][d]`,
//! - two results with maxima `m0`, `m1` become `2^(m0 - m) * first + 2^(m1 - m) * second`, `m = max(m0, m1)`; the last
//!   one is multiplied by 1 / the sum of the weights.
//!
//! With a window, a row sees only that many positions: the last ones up to its own. The row's chunks are those that
//! hold a position it sees.
//!
//! A cache of int8 has a scale for each key and each value, and is multiplied in integers (`integer.rs`).
//!
//! A row gives NaN throughout if a score is NaN or infinity, or if no score is above minus infinity. A row without
//! positions gives 0. Positions that a row does not see never change its result, even where they hold NaN.

mod cache;
mod integer;
mod tile;

pub use cache::{
    BLOCK, KvElement, KvHead, KvHeadMut, VALUE_BLOCK, key_place, key_width, padded_positions, value_place,
    value_width,
};

use crate::isa::{LANES, Tier};
use std::ops::Range;

/// Positions that are scored, weighted and summed together. With 128 elements a head, keys and values widened to f32
/// take 256 KB, which stay in L2 while a block of rows is multiplied with them; the scores of a tile of rows take 32
/// KB.
pub const CHUNK: usize = 256;

/// Pairs of a row and a head that are multiplied with one chunk together. Keys and values come from L2 into L1 once for
/// all of them.
const TILE: usize = 32;

/// Most pairs for which keys and values are widened in registers. For more pairs they are widened to memory, once.
const NARROW: usize = 16;

/// The query heads of one group, for rows at consecutive positions of one sequence.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// Heads of row `r` begin at `r * stride`, `[group, head_dim]` each.
    pub q: &'a [f32],
    /// Elements of `q` from row to row.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Query heads that share the KV head.
    pub group: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions that row 0 sees, including its own; each further row sees one more.
    pub visible: usize,
    /// Most positions that a row sees, at least 1. A row sees the last ones up to its own.
    pub window: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl<'a> Queries<'a> {
    /// Pairs of a row and a head: rows times heads.
    pub fn pairs(&self) -> usize {
        self.rows * self.group
    }

    /// The chunks that hold a position that some row sees; none if there are no rows.
    pub fn chunks(&self) -> Range<usize> {
        self.first_chunk(0)..self.last_visible().div_ceil(CHUNK)
    }

    /// The first chunk that holds a position that the row sees.
    fn first_chunk(&self, row: usize) -> usize {
        self.hidden(row) / CHUNK
    }

    /// Number of positions before the first one that the row sees.
    #[inline(always)]
    fn hidden(&self, row: usize) -> usize {
        (self.visible + row).saturating_sub(self.window)
    }

    /// The rows that see some position of a chunk. Rows before them stand before the chunk, and the windows of rows
    /// after them begin after it.
    fn rows_of(&self, chunk: usize) -> Range<usize> {
        let first = (chunk * CHUNK + 1).saturating_sub(self.visible).min(self.rows);
        let end =
            ((chunk + 1) * CHUNK).saturating_add(self.window).saturating_sub(self.visible).min(self.rows);
        first..end.max(first)
    }

    /// Elements of the partial results of one chunk, as [`partial`] writes them.
    pub fn partial_len(&self) -> usize {
        self.pairs() * (value_width(self.head_dim) + 2)
    }

    /// The same queries for some of the rows.
    ///
    /// # Panics
    /// If `rows` goes beyond the rows there are.
    pub fn part(&self, rows: Range<usize>) -> Queries<'a> {
        assert!(rows.end <= self.rows);
        let q = &self.q[(rows.start * self.stride).min(self.q.len())..];
        Queries { q, rows: rows.len(), visible: self.visible + rows.start, ..*self }
    }

    fn last_visible(&self) -> usize {
        if self.rows == 0 { 0 } else { self.visible + self.rows - 1 }
    }

    /// The query head `[head_dim]` of a pair. Pairs are ordered by row, then by head.
    #[inline(always)]
    fn head(&self, pair: usize) -> &'a [f32] {
        &self.q[pair / self.group * self.stride + pair % self.group * self.head_dim..][..self.head_dim]
    }

    /// How many positions of a chunk are not after the pair's own. Never less than for an earlier pair.
    #[inline(always)]
    fn visible_in(&self, chunk: usize, pair: usize) -> usize {
        (self.visible + pair / self.group).saturating_sub(chunk * CHUNK).min(CHUNK)
    }

    /// How many of those positions are before the pair's window. Never less than for an earlier pair.
    #[inline(always)]
    fn hidden_in(&self, chunk: usize, pair: usize) -> usize {
        self.hidden(pair / self.group).saturating_sub(chunk * CHUNK).min(self.visible_in(chunk, pair))
    }

    /// The rows cut into tiles, each of about [`TILE`] pairs.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let (rows, step) = (self.rows, (TILE / self.group.max(1)).max(1));
        (0..rows).step_by(step).map(move |from| from..(from + step).min(rows))
    }
}

/// Working memory, which is kept from call to call and grows as needed.
#[derive(Default)]
pub struct AttendScratch {
    /// Widened keys and values of a chunk.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[pairs of a tile, CHUNK]`.
    scores: Vec<f32>,
    /// Partial results of a tile.
    partial: Vec<f32>,
    /// Maxima and sums of every pair.
    totals: Vec<f32>,
    /// Queries and weights as integers.
    integers: integer::Integers,
}

/// `len` elements that begin at a cache line, so that no vector straddles two lines.
fn aligned(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    const LINE: usize = 64;
    if memory.len() < len + LANES {
        memory.resize(len + LANES, 0.0);
    }
    let from = memory.as_ptr().align_offset(LINE).min(LANES);
    &mut memory[from..from + len]
}

/// The partial results of one chunk of the cache, `stored`, for each row: `[pairs, value_width]` weighted values, then
/// `[pairs]` largest scores, then `[pairs]` sums of weights, together [`Queries::partial_len`] elements of `out`. For
/// rows that see no position of the chunk they are 0, minus infinity and 0.
///
/// # Panics
/// If a slice is too short, the chunk ends before the last row's position, or its heads have another width.
pub fn partial<T: KvElement>(
    queries: &Queries,
    stored: &KvHead<T>,
    chunk: usize,
    scratch: &mut AttendScratch,
    out: &mut [f32],
) {
    partial_on(Tier::best(), queries, stored, chunk, scratch, out);
}

fn partial_on<T: KvElement>(
    tier: Tier,
    queries: &Queries,
    stored: &KvHead<T>,
    chunk: usize,
    scratch: &mut AttendScratch,
    out: &mut [f32],
) {
    assert_eq!(queries.head_dim, stored.head_dim());
    let (pairs, width) = (queries.pairs(), value_width(queries.head_dim));
    let (values, totals) = out[..queries.partial_len()].split_at_mut(pairs * width);
    let (max, sum) = totals.split_at_mut(pairs);
    each_tile(tier, queries, stored, chunk, scratch, |rows, tile| {
        let pairs = rows.start * queries.group..rows.end * queries.group;
        values[pairs.start * width..pairs.end * width].copy_from_slice(tile.values);
        max[pairs.clone()].copy_from_slice(tile.max);
        sum[pairs].copy_from_slice(tile.sum);
    });
}

/// The partial results of one tile of rows.
struct Partial<'a> {
    /// `[pairs, value_width]`.
    values: &'a [f32],
    /// `[pairs]`.
    max: &'a [f32],
    /// `[pairs]`.
    sum: &'a [f32],
}

/// Computes one chunk, `stored`, for one tile of rows after the other, and gives the results of each tile to `done`.
fn each_tile<T: KvElement>(
    tier: Tier,
    queries: &Queries,
    stored: &KvHead<T>,
    chunk: usize,
    scratch: &mut AttendScratch,
    mut done: impl FnMut(Range<usize>, Partial),
) {
    if queries.pairs() == 0 || queries.head_dim == 0 {
        return;
    }
    let positions = queries.last_visible().saturating_sub(chunk * CHUNK).min(CHUNK);
    let narrow = queries.pairs() <= NARROW;
    let stored = stored.positions(positions, narrow);
    let width = value_width(queries.head_dim);
    let AttendScratch { keys, values, scores, partial, integers, .. } = scratch;
    let of_integers = T::integers(stored.keys).zip(T::integers(stored.values));
    let cache::Stored { key_scales, value_scales, streamed, .. } = stored;
    let of_integers =
        of_integers.map(|(keys, values)| cache::Stored { keys, values, key_scales, value_scales, streamed });
    let widened = (!narrow && !T::IS_F32 && of_integers.is_none()).then(|| {
        let (keys, values) = (aligned(keys, stored.keys.len()), aligned(values, stored.values.len()));
        tile::widen::<T>(tier, stored.keys, keys);
        tile::widen::<T>(tier, stored.values, values);
        cache::Stored { keys: &*keys, values: &*values, key_scales, value_scales, streamed: false }
    });
    for rows in queries.tiles() {
        let part = queries.part(rows.clone());
        let scores = aligned(scores, part.pairs() * tile::ROW);
        let partial = aligned(partial, part.partial_len());
        match (&of_integers, &widened) {
            (Some(stored), _) => integer::tile(tier, &part, chunk, stored, integers, scores, partial),
            (None, Some(stored)) => tile::tile::<f32>(tier, &part, chunk, stored, scores, partial),
            (None, None) => tile::tile::<T>(tier, &part, chunk, &stored, scores, partial),
        }
        let (values, totals) = partial.split_at(part.pairs() * width);
        let (max, sum) = totals.split_at(part.pairs());
        done(rows, Partial { values, max, sum });
    }
}

/// Writes the result of row `row`, `out` `[group, head_dim]`, from the partial results of [`Queries::chunks`],
/// `partials` `[chunks, partial_len]`. Only chunks that hold a position that the row sees are read.
///
/// # Panics
/// If a slice is too short or there is no such row.
pub fn combine(queries: &Queries, row: usize, partials: &[f32], out: &mut [f32]) {
    combine_on(Tier::best(), queries, row, partials, out);
}

fn combine_on(tier: Tier, queries: &Queries, row: usize, partials: &[f32], out: &mut [f32]) {
    assert!(row < queries.rows && out.len() == queries.group * queries.head_dim);
    let (pairs, width) = (queries.pairs(), value_width(queries.head_dim));
    let chunks = queries.first_chunk(row)..(queries.visible + row).div_ceil(CHUNK);
    if queries.pairs() == 0 || queries.head_dim == 0 || chunks.is_empty() {
        return out.fill(0.0);
    }
    // Earlier rows may see earlier chunks that this row does not see.
    let skipped = chunks.start - queries.chunks().start;
    for (head, out) in out.chunks_exact_mut(queries.head_dim).enumerate() {
        let pair = row * queries.group + head;
        let mut total = [f32::NEG_INFINITY, 0.0];
        let partials = partials.chunks_exact(queries.partial_len()).skip(skipped).take(chunks.len());
        for (i, partial) in partials.enumerate() {
            let (values, totals) = partial.split_at(pairs * width);
            let next = [totals[pair], totals[pairs + pair]];
            tile::merge(tier, i == 0, &mut total, out, next, &values[pair * width..][..width]);
        }
        tile::divide(tier, total[1], out);
    }
}

/// Writes the result of every row, `outs[r]` `[group, head_dim]`. `stored(chunk)` gives a chunk of the cache; it is
/// called only for [`Queries::chunks`].
///
/// # Panics
/// If a slice is too short, a chunk ends before the last row's position, or its heads have another width.
pub fn attend_rows<'a, T: KvElement>(
    queries: &Queries,
    stored: &dyn Fn(usize) -> KvHead<'a, T>,
    scratch: &mut AttendScratch,
    outs: &mut [&mut [f32]],
) {
    attend_rows_on(Tier::best(), queries, stored, scratch, outs);
}

fn attend_rows_on<'a, T: KvElement>(
    tier: Tier,
    queries: &Queries,
    stored: &dyn Fn(usize) -> KvHead<'a, T>,
    scratch: &mut AttendScratch,
    outs: &mut [&mut [f32]],
) {
    let (dim, group, width) = (queries.head_dim, queries.group, value_width(queries.head_dim));
    assert!(outs.len() == queries.rows);
    assert!(outs.iter().all(|out| out.len() == group * dim));
    if queries.pairs() == 0 || dim == 0 {
        return;
    }
    let mut totals = std::mem::take(&mut scratch.totals);
    totals.clear();
    totals.extend([f32::NEG_INFINITY, 0.0].iter().cycle().take(2 * queries.pairs()));
    let totals_of = |pair: usize| 2 * pair..2 * pair + 2;
    for chunk in queries.chunks() {
        let of = queries.rows_of(chunk);
        let (first, part) = (of.start, queries.part(of));
        let stored = stored(chunk);
        assert_eq!(dim, stored.head_dim());
        each_tile(tier, &part, &stored, chunk, scratch, |rows, tile| {
            for (i, row) in rows.enumerate() {
                let is_first = part.first_chunk(row) == chunk;
                for (head, out) in outs[first + row].chunks_exact_mut(dim).enumerate() {
                    let pair = i * group + head;
                    let total = &mut totals[totals_of((first + row) * group + head)];
                    let next = [tile.max[pair], tile.sum[pair]];
                    let values = &tile.values[pair * width..][..width];
                    tile::merge(tier, is_first, total.try_into().expect("two"), out, next, values);
                }
            }
        });
    }
    for (row, out) in outs.iter_mut().enumerate() {
        if queries.visible + row == 0 {
            out.fill(0.0);
            continue;
        }
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            tile::divide(tier, totals[totals_of(row * group + head)][1], out);
        }
    }
    scratch.totals = totals;
}

/// Attention of one query head in f64, for tests. `keys` and `values` are `[positions, head_dim]`.
pub fn reference(q: &[f32], keys: &[f32], values: &[f32], scale: f32) -> Vec<f32> {
    let dim = q.len();
    let score = |k: &[f32]| {
        k.iter().zip(q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(scale)
    };
    let scores: Vec<f64> = keys.chunks_exact(dim).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let value = |i: usize| {
        values.chunks_exact(dim).zip(&weights).map(|(v, w)| f64::from(v[i]) * w).sum::<f64>() / sum
    };
    (0..dim).map(|i| value(i) as f32).collect()
}

#[cfg(test)]
mod tests;
