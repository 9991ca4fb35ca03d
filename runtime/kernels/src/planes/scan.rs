//! Rows of planes times hidden states.

use super::Planes;
use super::hidden::{Chunk, Digits, EMPTY, Hidden};
use crate::isa::{Nibbles, Tier, dispatch};
use std::ops::Range;
use trit_format::planes::{LANES, MAX_BLOCK, Row, STEP, VECTOR};

/// Bytes ahead of a scan that are asked for in L2: what a core streams in the time memory takes to answer. Lines on
/// their way to L1 would fill the few buffers it has for misses.
const FAR: usize = 4 << 10;
/// Bytes ahead of a scan in each plane that are then asked for in L1. Expected of no use, since L2 answers within what
/// the CPU reorders; it takes 13.1 ms for a high plane of 164 MB to 11.3.
const NEAR: usize = 1280;
/// Rows ahead that are asked for of scattered ones, at which hardware cannot guess.
const ROWS_AHEAD: usize = 6;
/// Rows that all hidden states meet before the next: together they stay in L2.
const ROWS_TOGETHER: usize = 64;
/// Vectors of a whole chunk.
const VECTORS: usize = MAX_BLOCK / STEP;
/// Added to each bound for what may underflow, 2^-90.
const LEAST_BOUND: f32 = f32::from_bits((127 - 90) << 23);
/// Bounds from here on say nothing, 2^100.
const MOST_BOUND: f32 = f32::from_bits((127 + 100) << 23);

/// Which planes are read, and in which order.
pub(super) trait Pass {
    /// Both, or the high one alone.
    const FULL: bool;
    /// Whether rows follow one another, so that it pays to ask for what follows.
    const IN_ORDER: bool = true;
}
/// The high plane alone.
pub(super) struct High;
/// Both planes.
pub(super) struct Full;
/// Both planes of rows anywhere.
struct Scattered;
impl Pass for High {
    const FULL: bool = false;
}
impl Pass for Full {
    const FULL: bool = true;
}
impl Pass for Scattered {
    const FULL: bool = true;
    const IN_ORDER: bool = false;
}

/// Approximate products of `rows` with each of `hidden`, from the high plane: `|approx[m][i] - exact| <= bound[m][i]`
/// for row `rows.start + i` and the exact product of [`crate::head::dot_rows`], both `[rows.len()]`. All hidden
/// states share what is read. Results do not depend on how rows and hidden states are grouped, nor on the CPU.
///
/// # Panics
/// If a slice has another length, a row does not exist, or a hidden state is of another layout.
pub fn scan_high(
    planes: &Planes,
    rows: Range<usize>,
    hidden: &[&Hidden],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    scan::<High>(Tier::best(), planes, rows, hidden, approx, bound);
}

/// [`scan_high`] from both planes in one pass: twice the bytes, a bound about 16 times tighter.
///
/// # Panics
/// As [`scan_high`].
pub fn scan_full(
    planes: &Planes,
    rows: Range<usize>,
    hidden: &[&Hidden],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    scan::<Full>(Tier::best(), planes, rows, hidden, approx, bound);
}

/// [`scan_full`] for one hidden state and the rows `ids`, in any order: `approx` and `bound` are `[ids.len()]`.
///
/// # Panics
/// As [`scan_high`].
pub fn refine(planes: &Planes, ids: &[u32], hidden: &Hidden, approx: &mut [f32], bound: &mut [f32]) {
    refine_rows(Tier::best(), planes, ids, hidden, approx, bound);
}

dispatch!(
    fn scan<P: Pass>(
        planes: &Planes,
        rows: Range<usize>,
        hidden: &[&Hidden],
        approx: &mut [&mut [f32]],
        bound: &mut [&mut [f32]],
    ) = scan_body
);

#[inline(always)]
fn scan_body<I: Nibbles, P: Pass>(
    isa: I,
    planes: &Planes,
    rows: Range<usize>,
    hidden: &[&Hidden],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    assert!(hidden.len() == approx.len() && hidden.len() == bound.len());
    assert!(approx.iter().chain(bound.iter()).all(|out| out.len() == rows.len()));
    // More sums than these do not fit the registers. Groups take turns at a few rows, which stay in L2.
    let most = if P::FULL { 2 } else { 4 };
    let together = if hidden.len() > most { ROWS_TOGETHER } else { rows.len().max(1) };
    for first in (0..rows.len()).step_by(together) {
        let part = first..rows.len().min(first + together);
        for (g, group) in hidden.chunks(most).enumerate() {
            let (approx, bound) = (&mut approx[g * most..], &mut bound[g * most..]);
            let (start, part) = (rows.start, part.clone());
            match *group {
                [a] => some_rows::<I, P, 1>(isa, planes, start, part, [a], approx, bound),
                [a, b] => some_rows::<I, P, 2>(isa, planes, start, part, [a, b], approx, bound),
                [a, b, c] => some_rows::<I, P, 3>(isa, planes, start, part, [a, b, c], approx, bound),
                [a, b, c, d] => some_rows::<I, P, 4>(isa, planes, start, part, [a, b, c, d], approx, bound),
                _ => unreachable!("groups of 1 to 4"),
            }
        }
    }
}

#[inline(always)]
fn some_rows<I: Nibbles, P: Pass, const M: usize>(
    isa: I,
    planes: &Planes,
    start: usize,
    part: Range<usize>,
    hidden: [&Hidden; M],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    let planes_read = if P::FULL { 2 } else { 1 };
    let ahead = FAR.div_ceil(planes_read * planes.vectors * VECTOR);
    for i in part {
        let results = self::row::<I, P, M>(isa, planes, start + i, ahead, hidden);
        for m in 0..M {
            (approx[m][i], bound[m][i]) = results[m];
        }
    }
}

dispatch!(
    fn refine_rows(planes: &Planes, ids: &[u32], hidden: &Hidden, approx: &mut [f32], bound: &mut [f32]) =
        refine_rows_body
);

#[inline(always)]
fn refine_rows_body<I: Nibbles>(
    isa: I,
    planes: &Planes,
    ids: &[u32],
    hidden: &Hidden,
    approx: &mut [f32],
    bound: &mut [f32],
) {
    assert!(ids.len() == approx.len() && ids.len() == bound.len());
    for (i, &id) in ids.iter().enumerate() {
        let (row, next) = (id as usize, ids[(i + ROWS_AHEAD).min(ids.len() - 1)] as usize);
        // Earlier rows are a huge number of rows ahead, which wraps around.
        [(approx[i], bound[i])] =
            self::row::<I, Scattered, 1>(isa, planes, row, next.wrapping_sub(row), [hidden]);
    }
}

/// One row times each hidden state: the approximate product and its bound. Asks for what lies `ahead` rows later.
///
/// No closures here and below: they would be compiled without the instruction set.
#[inline(always)]
fn row<I: Nibbles, P: Pass, const M: usize>(
    isa: I,
    planes: &Planes,
    row: usize,
    ahead: usize,
    hidden: [&Hidden; M],
) -> [(f32, f32); M] {
    let (vectors, chunks) = (planes.vectors, planes.chunks);
    let high = &planes.high[row * vectors..][..vectors];
    let low = if P::FULL { &planes.low[row * vectors..][..vectors] } else { &[] };
    let scales = &planes.scales[row * chunks..][..chunks];
    let record = &planes.records[row];
    let plane_ahead = ahead.wrapping_mul(vectors * VECTOR);
    // Several rows' scales and records share a cache line; asking for each costs little.
    isa.prefetch(&scales[0], ahead.wrapping_mul(size_of_val(scales)));
    isa.prefetch(&scales[chunks - 1], ahead.wrapping_mul(size_of_val(scales)));
    isa.prefetch(record, ahead.wrapping_mul(size_of_val(record)));

    let mut totals = [[isa.splat(0.0); 2]; M];
    let (whole_high, rest_high) = high.as_chunks::<VECTORS>();
    let (whole_low, rest_low) = low.as_chunks::<VECTORS>();
    let whole = whole_high.len();
    let mut whole_digits: [&[[Digits; VECTORS]]; M] = [&[]; M];
    let mut rest_digits: [&[Digits]; M] = [&[]; M];
    let mut states: [&[Chunk]; M] = [&[]; M];
    for m in 0..M {
        let (digits, rest) = hidden[m].digits[..vectors].as_chunks::<VECTORS>();
        (whole_digits[m], rest_digits[m]) = (&digits[..whole], rest);
        states[m] = &hidden[m].chunks[..whole];
    }
    // Everything that is indexed below is known to be `whole` long: with checks in the loop, all of a chunk is loaded
    // before the first could fail, and registers run out.
    let whole_scales = &scales[..whole];
    for c in 0..whole {
        let low: &[[u8; VECTOR]] = if P::FULL { &whole_low[..whole][c] } else { &[] };
        let mut digits: [&[Digits]; M] = [&[]; M];
        for m in 0..M {
            digits[m] = &whole_digits[m][c];
        }
        let sums = chunk::<I, P, M>(isa, VECTORS, &whole_high[c], low, digits, plane_ahead);
        let mut state = [&EMPTY; M];
        for m in 0..M {
            state[m] = &states[m][c];
        }
        add_blocks::<I, P, M>(isa, &whole_scales[c], sums, state, &mut totals);
    }
    if !rest_high.is_empty() {
        let sums = chunk::<I, P, M>(isa, rest_high.len(), rest_high, rest_low, rest_digits, plane_ahead);
        let mut state = [&EMPTY; M];
        for m in 0..M {
            state[m] = &hidden[m].chunks[whole];
        }
        add_blocks::<I, P, M>(isa, &scales[whole], sums, state, &mut totals);
    }

    let record = Row::from_bytes(record);
    let c = if P::FULL { record.c_full } else { record.c_high };
    let mut out = [(0.0, 0.0); M];
    for m in 0..M {
        let h = hidden[m];
        // The high plane counts half steps.
        let t = if P::FULL { h.t } else { 0.5 * h.t };
        let factor = record.scale * (c * h.c_factor + h.c_offset);
        let bound = factor * isa.sum(totals[m][1]) + LEAST_BOUND;
        let bound = if bound < MOST_BOUND { bound } else { f32::INFINITY };
        out[m] = (t * record.scale * isa.sum(totals[m][0]), bound);
    }
    out
}

/// Adds the blocks of a chunk times their scales: products to the first total, norms to the second.
#[inline(always)]
fn add_blocks<I: Nibbles, P: Pass, const M: usize>(
    isa: I,
    scales: &[u8; LANES],
    sums: [I::I32; M],
    states: [&Chunk; M],
    totals: &mut [[I::F32; 2]; M],
) {
    let scale = isa.widen_u8(scales);
    for m in 0..M {
        let state = states[m];
        let (offset, norm) = match P::FULL {
            true => (&state.offset_full, &state.norm_full),
            false => (&state.offset_high, &state.norm_high),
        };
        let sum = isa.to_f32(isa.add_i32(sums[m], isa.load_i32(offset)));
        totals[m][0] = isa.add(totals[m][0], isa.mul(sum, scale));
        totals[m][1] = isa.add(totals[m][1], isa.mul(scale, isa.load(norm)));
    }
}

/// The sums of one chunk, a lane a block, without the rows' offset: in steps, or for the high plane in half steps.
#[inline(always)]
fn chunk<I: Nibbles, P: Pass, const M: usize>(
    isa: I,
    n: usize,
    high: &[[u8; VECTOR]],
    low: &[[u8; VECTOR]],
    digits: [&[Digits]; M],
    ahead: usize,
) -> [I::I32; M] {
    let mut sums = [[isa.no_sums(); 4]; M];
    for v in 0..n {
        isa.prefetch_l2(&high[v], ahead);
        if P::IN_ORDER {
            isa.prefetch(&high[v], NEAR);
        }
        let weights = isa.nibbles(&high[v]);
        for m in 0..M {
            let Digits { upper, lower } = &digits[m][v];
            sums[m][0] = isa.add_products(sums[m][0], weights, [&upper[0], &upper[1]]);
            sums[m][1] = isa.add_products(sums[m][1], weights, [&lower[0], &lower[1]]);
        }
        if P::FULL {
            isa.prefetch_l2(&low[v], ahead);
            if P::IN_ORDER {
                isa.prefetch(&low[v], NEAR);
            }
            let weights = isa.nibbles(&low[v]);
            for m in 0..M {
                let Digits { upper, lower } = &digits[m][v];
                sums[m][2] = isa.add_products(sums[m][2], weights, [&upper[0], &upper[1]]);
                sums[m][3] = isa.add_products(sums[m][3], weights, [&lower[0], &lower[1]]);
            }
        }
    }
    let mut out = [isa.zero(); M];
    for m in 0..M {
        let [high_upper, high_lower, low_upper, low_lower] = sums[m];
        out[m] = match P::FULL {
            true => isa.add_i32(
                isa.add_i32(isa.shifted::<12>(high_upper), isa.shifted::<4>(high_lower)),
                isa.add_i32(isa.shifted::<8>(low_upper), isa.shifted::<0>(low_lower)),
            ),
            false => isa.add_i32(isa.shifted::<13>(high_upper), isa.shifted::<5>(high_lower)),
        };
    }
    out
}

#[cfg(test)]
pub(super) mod tiers {
    //! The same on a chosen tier.
    use super::*;

    pub fn on(
        tier: Tier,
        full: bool,
        planes: &Planes,
        rows: Range<usize>,
        hidden: &[&Hidden],
        approx: &mut [&mut [f32]],
        bound: &mut [&mut [f32]],
    ) {
        match full {
            true => scan::<Full>(tier, planes, rows, hidden, approx, bound),
            false => scan::<High>(tier, planes, rows, hidden, approx, bound),
        }
    }
}
