//! Products of a few rows with strided vectors: the inner loop of attention.

use super::{Isa, LANES};
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
