//! Dot products of one stored row with several f32 rows.

use crate::isa::{Isa, LANES};
use crate::load_float::LoadFloat;

/// Input rows that are multiplied with one stored row together. Their sums fit the registers.
pub(crate) const GROUP: usize = 4;

/// `row . inputs[m]` for each `m`; all have `row.len()` elements. If `ahead` is not 0, each read prefetches the bytes
/// that are `ahead` bytes further.
///
/// Products are added in order, that of element `i` to lane `i % 32`; then lanes are added by halves. A result does not
/// depend on `M`.
#[inline(always)]
pub(crate) fn dots<I: Isa, E: LoadFloat, const M: usize>(
    isa: I,
    row: &[E::Raw],
    inputs: [&[f32]; M],
    ahead: usize,
) -> [f32; M] {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut x: [&[[f32; LANES]]; M] = [&[]; M];
    for m in 0..M {
        x[m] = &inputs[m].as_chunks().0[..chunks.len()];
    }
    let mut sums = [[isa.splat(0.0); 2]; M];
    let (pairs, single) = chunks.as_chunks::<2>();
    for (i, pair) in pairs.iter().enumerate() {
        if ahead > 0 {
            isa.prefetch(pair, ahead);
            if size_of_val(pair) > 64 {
                isa.prefetch(&pair[1], ahead);
            }
        }
        let wide = [E::widen(isa, &pair[0]), E::widen(isa, &pair[1])];
        for m in 0..M {
            sums[m][0] = isa.add(sums[m][0], isa.mul(wide[0], isa.load(&x[m][2 * i])));
            sums[m][1] = isa.add(sums[m][1], isa.mul(wide[1], isa.load(&x[m][2 * i + 1])));
        }
    }
    if let [chunk] = single {
        let wide = E::widen(isa, chunk);
        for m in 0..M {
            sums[m][0] = isa.add(sums[m][0], isa.mul(wide, isa.load(&x[m][chunks.len() - 1])));
        }
    }
    if !rest.is_empty() {
        let wide = E::widen(isa, &padded(rest));
        let lanes = single.len();
        for m in 0..M {
            let x = isa.load(&padded(&inputs[m][row.len() - rest.len()..row.len()]));
            sums[m][lanes] = isa.add(sums[m][lanes], isa.mul(wide, x));
        }
    }
    let mut out = [0.0; M];
    for m in 0..M {
        out[m] = isa.sum(isa.add(sums[m][0], sums[m][1]));
    }
    out
}

/// The elements of `part`, then zeros.
#[inline(always)]
pub(crate) fn padded<T: Copy + Default>(part: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all[..part.len()].copy_from_slice(part);
    all
}

/// [`dots`] spelled out for one input of f32, the same bits.
#[cfg(test)]
pub(crate) fn reference(row: &[f32], input: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    for (i, (a, b)) in row.iter().zip(input).enumerate() {
        lanes[i % 32] += a * b;
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}
