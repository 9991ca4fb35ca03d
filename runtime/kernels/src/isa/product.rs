//! Products of a few rows with strided vectors: the inner loops of attention.

use super::{Isa, LANES, PACKED_ROWS, PackedQuad};
use crate::load_float::LoadFloat;

/// `sums[m][n] += sum over i of a[m][i] * b[i * row + n * column]`. `i` goes in order up to the length of `a[0]`, and
/// each product is rounded once together with its sum. With `stream`, each read prefetches the vector `N` columns
/// further.
///
/// # Panics
/// If another row of `a`, or `b`, is too short.
#[inline(always)]
pub fn multiply<I: Isa, E: LoadFloat, const M: usize, const N: usize>(
    isa: I,
    a: [&[f32]; M],
    b: &[[E::Raw; LANES]],
    row: usize,
    column: usize,
    stream: bool,
    sums: &mut [[I::F32; N]; M],
) {
    let len = a[0].len();
    if len == 0 || N == 0 {
        return;
    }
    // Bounds are checked once, here. Inside the loop the comparisons would take as many instruction slots as the
    // products.
    let end = (len - 1).checked_mul(row).zip((N - 1).checked_mul(column));
    let end = end.and_then(|(last, column)| last.checked_add(column));
    assert!(end.is_some_and(|end| end < b.len()) && a.iter().all(|a| a.len() >= len));
    for i in 0..len {
        let mut wide = [isa.splat(0.0); N];
        for n in 0..N {
            // SAFETY: `i < len` and `n < N`, so this is at most the `end` that was compared with the length above.
            let from = unsafe { b.get_unchecked(i * row + n * column) };
            if stream {
                isa.prefetch(from, N * column * size_of_val(from));
            }
            wide[n] = E::widen(isa, from);
        }
        for m in 0..M {
            // SAFETY: no row of `a` is shorter than `len`, by the assertion above.
            let factor = isa.splat(*unsafe { a[m].get_unchecked(i) });
            for n in 0..N {
                sums[m][n] = isa.mul_add(factor, wide[n], sums[m][n]);
            }
        }
    }
}

/// `sums[m][n] += a[i][row + m] * b[n * column + i]` over all quads `i` of `a`, whose rows [`Isa::pack_quads`] packs. With
/// `stream`, each read prefetches what is read `N` columns later.
///
/// # Panics
/// If there are no such rows, or `b` is too short.
#[inline(always)]
pub fn multiply_quads<I: Isa, const M: usize, const N: usize>(
    isa: I,
    a: &[PackedQuad],
    row: usize,
    b: &[[i8; 64]],
    column: usize,
    stream: bool,
    sums: &mut [[I::QuadSums; N]; M],
) {
    let len = a.len();
    if len == 0 || N == 0 {
        return;
    }
    // As in `multiply`, bounds are checked once.
    let end = (N - 1).checked_mul(column).and_then(|column| column.checked_add(len));
    assert!(end.is_some_and(|end| end <= b.len()) && row + M <= PACKED_ROWS);
    for (i, a) in a.iter().enumerate() {
        for n in 0..N {
            // SAFETY: `i < len` and `n < N`, so this is before the `end` that was compared with the length above.
            let from = unsafe { b.get_unchecked(n * column + i) };
            if stream {
                isa.prefetch(from, N * column * size_of_val(from));
            }
            let wide = isa.quads(from);
            for m in 0..M {
                // SAFETY: there are so many rows, by the assertion above.
                sums[m][n] = isa.dot_quads(sums[m][n], wide, unsafe { a.get_unchecked(row + m) });
            }
        }
    }
}
