//! The embedding and the language-model head, which read rows of a `[vocab, hidden]` table in the checkpoint's own
//! type.

use crate::dot::{GROUP, dots, padded};
use crate::isa::{Isa, LANES, Tier, dispatch};
use crate::load_float::{Bf16Bytes, F16Bytes, F32Bytes, LoadFloat};
use std::ops::Range;
use trit_format::plan::DType;

/// Table rows that are multiplied with every input before the next rows are read. So many rows stay in L2.
const ROWS_IN_CACHE: usize = 64;

/// How many bytes ahead of a read are prefetched. A core reads about that much in the time that memory takes to answer.
const PREFETCH: usize = 8 << 10;

/// `out[i] = table[rows.start + i] . input` in f32. `table` is `[vocab, hidden]` of f32, f16 or bf16 as little-endian
/// bytes, `input` is `[hidden]` and `out` is `[rows.len()]`. A row's result is the same bits on every CPU, whatever
/// rows and inputs are computed together with it.
///
/// # Panics
/// If a slice has another length or is too short, or the type is an integer type (validation refuses such tables).
pub fn dot_rows(
    table: &[u8],
    dtype: DType,
    hidden: usize,
    rows: Range<usize>,
    input: &[f32],
    out: &mut [f32],
) {
    dot_rows_block(table, dtype, hidden, rows, &[input], &mut [out]);
}

/// [`dot_rows`] for several inputs: `outs[m][i] = table[rows.start + i] . inputs[m]`. Each table row is read from memory
/// once.
///
/// # Panics
/// As [`dot_rows`], or if there are more or fewer outputs than inputs.
pub fn dot_rows_block(
    table: &[u8],
    dtype: DType,
    hidden: usize,
    rows: Range<usize>,
    inputs: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    assert!(inputs.len() == outs.len() && inputs.iter().all(|x| x.len() == hidden));
    assert!(outs.iter().all(|y| y.len() == rows.len()));
    if hidden == 0 {
        return outs.iter_mut().for_each(|out| out.fill(0.0));
    }
    let bytes = hidden * dtype.size();
    let table = &table[rows.start * bytes..rows.end * bytes];
    match dtype {
        DType::F32 => all_rows::<F32Bytes>(Tier::best(), table.as_chunks().0, hidden, inputs, outs),
        DType::F16 => all_rows::<F16Bytes>(Tier::best(), table.as_chunks().0, hidden, inputs, outs),
        DType::Bf16 => all_rows::<Bf16Bytes>(Tier::best(), table.as_chunks().0, hidden, inputs, outs),
        other => unreachable!("no float table: {other:?}"),
    }
}

dispatch!(
    fn all_rows<E: LoadFloat>(table: &[E::Raw], hidden: usize, inputs: &[&[f32]], outs: &mut [&mut [f32]]) = all_rows_body
);

#[inline(always)]
fn all_rows_body<I: Isa, E: LoadFloat>(
    isa: I,
    table: &[E::Raw],
    hidden: usize,
    inputs: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    for (t, rows) in table.chunks(ROWS_IN_CACHE * hidden).enumerate() {
        let (groups, rest) = inputs.as_chunks::<GROUP>();
        for (g, inputs) in groups.iter().enumerate() {
            some_rows::<I, E, GROUP>(isa, rows, t * ROWS_IN_CACHE, *inputs, &mut outs[g * GROUP..]);
        }
        for (input, out) in rest.iter().zip(&mut outs[groups.len() * GROUP..]) {
            some_rows::<I, E, 1>(isa, rows, t * ROWS_IN_CACHE, [input], std::slice::from_mut(out));
        }
    }
}

#[inline(always)]
fn some_rows<I: Isa, E: LoadFloat, const M: usize>(
    isa: I,
    rows: &[E::Raw],
    first: usize,
    inputs: [&[f32]; M],
    outs: &mut [&mut [f32]],
) {
    for (i, row) in rows.chunks_exact(inputs[0].len()).enumerate() {
        let sums = dots::<I, E, M>(isa, row, inputs, PREFETCH);
        for m in 0..M {
            outs[m][first + i] = sums[m];
        }
    }
}

/// Writes row `row` of such a table to `out`, `[hidden]`, as f32.
///
/// # Panics
/// As [`dot_rows`].
pub fn widen_row(table: &[u8], dtype: DType, hidden: usize, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), hidden);
    let bytes = hidden * dtype.size();
    let row = &table[row * bytes..(row + 1) * bytes];
    match dtype {
        DType::F32 => widen::<F32Bytes>(Tier::best(), row.as_chunks().0, out),
        DType::F16 => widen::<F16Bytes>(Tier::best(), row.as_chunks().0, out),
        DType::Bf16 => widen::<Bf16Bytes>(Tier::best(), row.as_chunks().0, out),
        other => unreachable!("no float table: {other:?}"),
    }
}

dispatch!(fn widen<E: LoadFloat>(row: &[E::Raw], out: &mut [f32]) = widen_body);

#[inline(always)]
fn widen_body<I: Isa, E: LoadFloat>(isa: I, row: &[E::Raw], out: &mut [f32]) {
    for (from, to) in row.chunks(LANES).zip(out.chunks_mut(LANES)) {
        let mut wide = [0.0; LANES];
        isa.store(E::widen(isa, &padded(from)), &mut wide);
        to.copy_from_slice(&wide[..to.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::reference;
    use crate::testing::floats;
    use half::{bf16, f16};

    /// A table as bytes, and the values of its rows in f32.
    fn table(dtype: DType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (bytes, wide): (Vec<Vec<u8>>, Vec<f32>) = values
            .iter()
            .map(|&v| match dtype {
                DType::F16 => (f16::from_f32(v).to_le_bytes().to_vec(), f16::from_f32(v).to_f32()),
                DType::Bf16 => (bf16::from_f32(v).to_le_bytes().to_vec(), bf16::from_f32(v).to_f32()),
                _ => (v.to_le_bytes().to_vec(), v),
            })
            .unzip();
        (bytes.concat(), wide)
    }

    #[test]
    fn every_row_is_the_reference_bit_for_bit_on_every_tier_and_in_every_block() {
        let vocab = ROWS_IN_CACHE + 6;
        for hidden in [1, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100, 384] {
            let inputs: Vec<Vec<f32>> = (0..7).map(|m| floats(hidden, 11 + m)).collect();
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let (bytes, wide) = table(dtype, &floats(vocab * hidden, 10));
                for m in [1, 2, 4, 7] {
                    let inputs: Vec<&[f32]> = inputs[..m].iter().map(Vec::as_slice).collect();
                    let mut expected = Vec::new();
                    for input in &inputs {
                        expected
                            .push(wide.chunks(hidden).map(|row| reference(row, input)).collect::<Vec<f32>>());
                    }
                    for tier in Tier::supported() {
                        let mut outs = vec![vec![f32::NAN; vocab]; m];
                        let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                        match dtype {
                            DType::F32 => {
                                all_rows::<F32Bytes>(tier, bytes.as_chunks().0, hidden, &inputs, &mut slices)
                            }
                            DType::F16 => {
                                all_rows::<F16Bytes>(tier, bytes.as_chunks().0, hidden, &inputs, &mut slices)
                            }
                            _ => {
                                all_rows::<Bf16Bytes>(tier, bytes.as_chunks().0, hidden, &inputs, &mut slices)
                            }
                        }
                        assert_eq!(outs, expected, "{tier:?} {dtype:?} hidden={hidden} m={m}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_of_rows_is_those_rows_near_the_exact_product() {
        let (vocab, hidden) = (9, 2560);
        let x = floats(hidden, 12);
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let (bytes, wide) = table(dtype, &floats(vocab * hidden, 13));
            let mut out = [0.0; 4];
            dot_rows(&bytes, dtype, hidden, 3..7, &x, &mut out);
            for (i, y) in out.iter().enumerate() {
                let row = &wide[(3 + i) * hidden..(4 + i) * hidden];
                let terms = || row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let magnitude: f64 = terms().map(f64::abs).sum();
                // Each lane adds 80 products, and adding the lanes takes 5 more steps.
                assert!(
                    (f64::from(*y) - terms().sum::<f64>()).abs() < magnitude * 85.0 * f64::from(f32::EPSILON)
                );
            }
        }
    }

    #[test]
    fn rows_widen_exactly() {
        for hidden in [1, 16, 45] {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let (bytes, wide) = table(dtype, &floats(3 * hidden, 14));
                let mut out = vec![0.0; hidden];
                for row in 0..3 {
                    widen_row(&bytes, dtype, hidden, row, &mut out);
                    assert_eq!(out, wide[row * hidden..(row + 1) * hidden]);
                }
            }
        }
    }
}
