//! Multiplies rows of planes with hidden states.

use super::hidden::{Chunk, Digits, EMPTY, Hidden};
use super::{Planes, ScanVariant};
use crate::isa::{Nibbles, Tier, dispatch};
use std::ops::Range;
use trit_format::planes::{LANES, MAX_BLOCK, Row, STEP, VECTOR};

/// How many entries of a list of scattered rows ahead [`tighten_bounds`] prefetches. The hardware prefetcher cannot guess
/// them.
const ROWS_AHEAD: usize = 6;
/// Rows that are multiplied with all hidden states before the next rows are read. So many rows stay in L2.
const ROWS_TOGETHER: usize = 64;
/// Vectors in a whole chunk.
const VECTORS: usize = MAX_BLOCK / STEP;
/// Added to each bound to cover underflow, 2^-90.
const LEAST_BOUND: f32 = f32::from_bits((127 - 90) << 23);
/// Bounds from here on become infinite, 2^100.
const MOST_BOUND: f32 = f32::from_bits((127 + 100) << 23);

/// Which planes a scan reads, and how.
pub(super) trait Pass {
    /// Whether both planes are read, or the high one alone.
    const FULL: bool;
    /// Whether lines are prefetched into L1 as well as into L2.
    const NEAR: bool;
    /// How the same planes are read for several hidden states. These are bound by computation, and each `Pass` is
    /// another copy of the code, so there is one for all of them, which does not prefetch into L1.
    type Several: Pass;
}
/// Reads both planes if `FULL`, else the high plane alone; prefetches into L1 if `NEAR`.
pub(super) struct Reading<const FULL: bool, const NEAR: bool>;
impl<const FULL: bool, const NEAR: bool> Pass for Reading<FULL, NEAR> {
    const FULL: bool = FULL;
    const NEAR: bool = NEAR;
    type Several = Reading<FULL, false>;
}

/// Approximate products of `rows` with each of `hidden`, from the high plane alone. `approx[m]` and `bound[m]` are
/// `[rows.len()]`, and `|approx[m][i] - exact| <= bound[m][i]`, where `exact` is what [`crate::head::dot_rows`]
/// computes for row `rows.start + i`. Planes are read once for all hidden states. Results do not depend on how rows and
/// hidden states are grouped, nor on the CPU.
///
/// # Panics
/// If a slice has another length, a row does not exist, or a hidden state was made for another layout.
pub fn scan_high(
    planes: &Planes,
    rows: Range<usize>,
    hidden: &[&Hidden],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    scan_as(Tier::best(), false, planes, rows, hidden, approx, bound);
}

/// [`scan_high`] from both planes in one pass. It reads twice the bytes, and its bounds are about 16 times tighter.
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
    scan_as(Tier::best(), true, planes, rows, hidden, approx, bound);
}

/// Picks the copy of [`scan_body`] for the planes that are read and for how they are prefetched.
pub(super) fn scan_as(
    tier: Tier,
    full: bool,
    planes: &Planes,
    rows: Range<usize>,
    hidden: &[&Hidden],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    match (full, planes.scan_variant(full).near > 0) {
        (false, false) => scan::<Reading<false, false>>(tier, planes, rows, hidden, approx, bound),
        (false, true) => scan::<Reading<false, true>>(tier, planes, rows, hidden, approx, bound),
        (true, false) => scan::<Reading<true, false>>(tier, planes, rows, hidden, approx, bound),
        (true, true) => scan::<Reading<true, true>>(tier, planes, rows, hidden, approx, bound),
    }
}

/// [`scan_full`] for one hidden state and the rows `ids`, in any order; `approx` and `bound` are `[ids.len()]`. It gives
/// the rows of a shortlist tighter bounds than those of the high plane.
///
/// # Panics
/// As [`scan_high`].
pub fn tighten_bounds(planes: &Planes, ids: &[u32], hidden: &Hidden, approx: &mut [f32], bound: &mut [f32]) {
    tighten_rows(Tier::best(), planes, ids, hidden, approx, bound);
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
    // The sums of more hidden states do not fit the registers. Groups of states take turns at a few rows, which stay in
    // L2.
    let most = if P::FULL && !I::BYTES { 2 } else { 4 };
    let together = if hidden.len() > most { ROWS_TOGETHER } else { rows.len().max(1) };
    for first in (0..rows.len()).step_by(together) {
        let part = first..rows.len().min(first + together);
        for (g, group) in hidden.chunks(most).enumerate() {
            let (approx, bound) = (&mut approx[g * most..], &mut bound[g * most..]);
            let (start, part) = (rows.start, part.clone());
            match *group {
                [a] => some_rows::<I, P, 1>(isa, planes, start, part, [a], approx, bound),
                [a, b] => some_rows::<I, P::Several, 2>(isa, planes, start, part, [a, b], approx, bound),
                // This condition is constant, so that no code is made for groups that do not occur.
                _ if P::FULL && !I::BYTES => unreachable!("groups of 1 or 2"),
                [a, b, c] => {
                    some_rows::<I, P::Several, 3>(isa, planes, start, part, [a, b, c], approx, bound);
                }
                [a, b, c, d] => {
                    some_rows::<I, P::Several, 4>(isa, planes, start, part, [a, b, c, d], approx, bound);
                }
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
    let ScanVariant { rows, far, near } = planes.scan_variant(P::FULL);
    let far = far / if P::FULL { 2 } else { 1 };
    // Scales and records take fewer bytes a row, so the distance for them is counted in rows.
    let distance = PrefetchDistance { far, near, rows: far.div_ceil(planes.vectors * VECTOR) };
    let mut i = part.start;
    // Several states are bound by computation, and their sums fill the registers: their rows go one by one.
    if M == 1 && rows > 1 {
        while i + 2 <= part.end {
            some::<I, P, 2, M>(isa, planes, start, i, distance, hidden, approx, bound);
            i += 2;
        }
    }
    while i < part.end {
        some::<I, P, 1, M>(isa, planes, start, i, distance, hidden, approx, bound);
        i += 1;
    }
}

/// Writes the results of the `R` rows from `start + i` on to position `i` and those after it.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn some<I: Nibbles, P: Pass, const R: usize, const M: usize>(
    isa: I,
    planes: &Planes,
    start: usize,
    i: usize,
    distance: PrefetchDistance,
    hidden: [&Hidden; M],
    approx: &mut [&mut [f32]],
    bound: &mut [&mut [f32]],
) {
    let results = products::<I, P, R, M>(isa, planes, start + i, distance, hidden);
    for m in 0..M {
        for r in 0..R {
            (approx[m][i + r], bound[m][i + r]) = results[m][r];
        }
    }
}

dispatch!(
    fn tighten_rows(planes: &Planes, ids: &[u32], hidden: &Hidden, approx: &mut [f32], bound: &mut [f32]) =
        tighten_rows_body
);

#[inline(always)]
fn tighten_rows_body<I: Nibbles>(
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
        // A row that stands before this one is a huge number of rows ahead; adding that number wraps around to it.
        let rows = next.wrapping_sub(row);
        let distance = PrefetchDistance { far: rows.wrapping_mul(planes.vectors * VECTOR), near: 0, rows };
        [[(approx[i], bound[i])]] =
            products::<I, Reading<true, false>, 1, 1>(isa, planes, row, distance, [hidden]);
    }
}

/// How far ahead lines are prefetched.
#[derive(Clone, Copy)]
struct PrefetchDistance {
    /// Bytes in each plane, into L2.
    far: usize,
    /// Bytes in each plane, into L1.
    near: usize,
    /// Rows of scales and records.
    rows: usize,
}

/// The approximate products, and their bounds, of `R` consecutive rows from `first` on with each hidden state.
///
/// There are no closures here and below, because they would be compiled without the instruction set.
#[inline(always)]
fn products<I: Nibbles, P: Pass, const R: usize, const M: usize>(
    isa: I,
    planes: &Planes,
    first: usize,
    distance: PrefetchDistance,
    hidden: [&Hidden; M],
) -> [[(f32, f32); R]; M] {
    let (vectors, chunks) = (planes.vectors, planes.chunks);
    let whole = vectors / VECTORS;
    let high = &planes.high[first * vectors..][..R * vectors];
    // Where only the high plane is read, `low` is never read; the high plane stands in for it.
    let low = if P::FULL { &planes.low[first * vectors..][..R * vectors] } else { high };
    let scales = &planes.scales[first * chunks..][..R * chunks];
    let records: &[_; R] = planes.records[first..].first_chunk().expect("rows exist");
    // Several rows' scales and records share a cache line. Some lines are prefetched repeatedly, which costs little.
    isa.prefetch(&scales[0], distance.rows.wrapping_mul(chunks * LANES));
    isa.prefetch(&scales[R * chunks - 1], distance.rows.wrapping_mul(chunks * LANES));
    isa.prefetch(&records[0], distance.rows.wrapping_mul(size_of_val(&records[0])));

    // Every slice that the loop indexes is cut to `whole` here, so that the compiler knows its length. With checks of
    // bounds in the loop, it would load all of a chunk before the first check, and run out of registers.
    let mut whole_high: [&[[[u8; VECTOR]; VECTORS]]; R] = [&[]; R];
    let mut whole_low: [&[[[u8; VECTOR]; VECTORS]]; R] = [&[]; R];
    let mut whole_scales: [&[[u8; LANES]]; R] = [&[]; R];
    for r in 0..R {
        whole_high[r] = &high[r * vectors..].as_chunks().0[..whole];
        whole_scales[r] = &scales[r * chunks..][..whole];
        if P::FULL {
            whole_low[r] = &low[r * vectors..].as_chunks().0[..whole];
        }
    }
    let mut whole_digits: [&[[Digits; VECTORS]]; M] = [&[]; M];
    let mut states: [&[Chunk]; M] = [&[]; M];
    for m in 0..M {
        whole_digits[m] = &hidden[m].digits.as_chunks().0[..whole];
        states[m] = &hidden[m].chunks[..whole];
    }
    let mut totals = [[[isa.splat(0.0); 2]; R]; M];
    for c in 0..whole {
        let mut chunk = Rows { high: [&[]; R], low: [&[]; R], scales: [&[0; LANES]; R] };
        for r in 0..R {
            chunk.high[r] = &whole_high[r][c];
            chunk.scales[r] = &whole_scales[r][c];
            if P::FULL {
                chunk.low[r] = &whole_low[r][c];
            }
        }
        let (mut digits, mut state): ([&[Digits]; M], _) = ([&[]; M], [&EMPTY; M]);
        for m in 0..M {
            digits[m] = &whole_digits[m][c];
            state[m] = &states[m][c];
        }
        let prefetches = Prefetches { high: &high[0], low: &low[0], distance, vector: c * VECTORS * R };
        add_chunk::<I, P, R, M>(isa, VECTORS, chunk, digits, state, prefetches, &mut totals);
    }
    let rest = vectors - whole * VECTORS;
    if rest > 0 {
        let mut chunk = Rows { high: [&[]; R], low: [&[]; R], scales: [&[0; LANES]; R] };
        for r in 0..R {
            chunk.high[r] = &high[(r + 1) * vectors - rest..][..rest];
            chunk.scales[r] = &scales[r * chunks + whole];
            if P::FULL {
                chunk.low[r] = &low[(r + 1) * vectors - rest..][..rest];
            }
        }
        let (mut digits, mut state): ([&[Digits]; M], _) = ([&[]; M], [&EMPTY; M]);
        for m in 0..M {
            digits[m] = &hidden[m].digits[whole * VECTORS..][..rest];
            state[m] = &hidden[m].chunks[whole];
        }
        let prefetches = Prefetches { high: &high[0], low: &low[0], distance, vector: whole * VECTORS * R };
        add_chunk::<I, P, R, M>(isa, rest, chunk, digits, state, prefetches, &mut totals);
    }

    let mut out = [[(0.0, 0.0); R]; M];
    for r in 0..R {
        let record = Row::from_bytes(&records[r]);
        let c = if P::FULL { record.c_full } else { record.c_high };
        for m in 0..M {
            let h = hidden[m];
            // The high plane counts half steps.
            let t = if P::FULL { h.t } else { 0.5 * h.t };
            let factor = record.scale * (c * h.c_factor + h.c_offset);
            let bound = factor * isa.sum(totals[m][r][1]) + LEAST_BOUND;
            let bound = if bound < MOST_BOUND { bound } else { f32::INFINITY };
            out[m][r] = (t * record.scale * isa.sum(totals[m][r][0]), bound);
        }
    }
    out
}

/// One chunk of each of `R` rows.
#[derive(Clone, Copy)]
struct Rows<'a, const R: usize> {
    high: [&'a [[u8; VECTOR]]; R],
    low: [&'a [[u8; VECTOR]]; R],
    scales: [&'a [u8; LANES]; R],
}

/// What is prefetched while rows are read. One vector is prefetched for each that is read; they are prefetched in the
/// order in which they stand in memory, although rows are read side by side.
#[derive(Clone, Copy)]
struct Prefetches<'a> {
    /// The rows' first vectors.
    high: &'a [u8; VECTOR],
    low: &'a [u8; VECTOR],
    distance: PrefetchDistance,
    /// How many vectors of these rows were read before.
    vector: usize,
}

/// Adds one chunk of each row: products times their blocks' scales to the first of the two totals, scales times norms
/// to the second.
#[inline(always)]
fn add_chunk<I: Nibbles, P: Pass, const R: usize, const M: usize>(
    isa: I,
    n: usize,
    rows: Rows<R>,
    digits: [&[Digits]; M],
    states: [&Chunk; M],
    prefetches: Prefetches,
    totals: &mut [[[I::F32; 2]; R]; M],
) {
    // The offset of the rows' nibbles, times the hidden state: in steps, or for the high plane in half steps.
    let mut products = [[isa.zero(); R]; M];
    for m in 0..M {
        let offset = if P::FULL { &states[m].offset_full } else { &states[m].offset_high };
        products[m] = [isa.load_i32(offset); R];
    }
    // This is not a loop, because a loop would not be unrolled.
    add_part::<I, P, R, M>(isa, 0, n, &rows, digits, prefetches, &mut products);
    if I::PARTS > 1 {
        add_part::<I, P, R, M>(isa, 1, n, &rows, digits, prefetches, &mut products);
    }
    if I::PARTS > 2 {
        add_part::<I, P, R, M>(isa, 2, n, &rows, digits, prefetches, &mut products);
        add_part::<I, P, R, M>(isa, 3, n, &rows, digits, prefetches, &mut products);
    }
    for r in 0..R {
        let scale = isa.widen_u8(rows.scales[r]);
        for m in 0..M {
            let norm = if P::FULL { &states[m].norm_full } else { &states[m].norm_high };
            let [product, norms] = &mut totals[m][r];
            *product = isa.add(*product, isa.mul(isa.to_f32(products[m][r]), scale));
            *norms = isa.add(*norms, isa.mul(scale, isa.load(norm)));
        }
    }
}

/// Adds to the products of one chunk those of its `n` vectors of each row, in part `part` of the lanes.
#[inline(always)]
fn add_part<I: Nibbles, P: Pass, const R: usize, const M: usize>(
    isa: I,
    part: usize,
    n: usize,
    rows: &Rows<R>,
    digits: [&[Digits]; M],
    prefetches: Prefetches,
    products: &mut [[I::I32; R]; M],
) {
    let PrefetchDistance { far, near, .. } = prefetches.distance;
    let mut sums = [[isa.no_sums(); R]; M];
    if P::FULL && I::BYTES && M > 1 {
        for v in 0..n {
            let (mut high, mut low) = ([&[0; VECTOR]; R], [&[0; VECTOR]; R]);
            for r in 0..R {
                (high[r], low[r]) = (&rows.high[r][v], &rows.low[r][v]);
                let at = far.wrapping_add((prefetches.vector + v * R + r) * VECTOR);
                isa.prefetch_l2(prefetches.high, at);
                isa.prefetch_l2(prefetches.low, at);
            }
            for m in 0..M {
                let Digits { upper, lower } = &digits[m][v];
                isa.add_bytes::<R>(part, &mut sums[m], [high, low], upper, lower);
            }
        }
        for m in 0..M {
            for r in 0..R {
                isa.add_sums::<0>(part, sums[m][r], &mut products[m][r]);
            }
        }
        return;
    }
    for v in 0..n {
        let mut from = [&[0; VECTOR]; R];
        for r in 0..R {
            from[r] = &rows.high[r][v];
            if part == 0 {
                let at = (prefetches.vector + v * R + r) * VECTOR;
                isa.prefetch_l2(prefetches.high, far.wrapping_add(at));
                if P::NEAR {
                    isa.prefetch(prefetches.high, near.wrapping_add(at));
                }
            }
        }
        for m in 0..M {
            let Digits { upper, lower } = &digits[m][v];
            isa.add_products::<1, R>(part, &mut sums[m], from, upper, lower);
        }
    }
    if P::FULL {
        for v in 0..n {
            let mut from = [&[0; VECTOR]; R];
            for r in 0..R {
                from[r] = &rows.low[r][v];
                if part == 0 {
                    let at = (prefetches.vector + v * R + r) * VECTOR;
                    isa.prefetch_l2(prefetches.low, far.wrapping_add(at));
                    if P::NEAR {
                        isa.prefetch(prefetches.low, near.wrapping_add(at));
                    }
                }
            }
            for m in 0..M {
                let Digits { upper, lower } = &digits[m][v];
                isa.add_products::<0, R>(part, &mut sums[m], from, upper, lower);
            }
        }
    }
    for m in 0..M {
        for r in 0..R {
            match P::FULL {
                true => isa.add_sums::<0>(part, sums[m][r], &mut products[m][r]),
                false => isa.add_sums::<1>(part, sums[m][r], &mut products[m][r]),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tiers {
    //! Scans on a chosen tier.
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
        scan_as(tier, full, planes, rows, hidden, approx, bound);
    }
}
