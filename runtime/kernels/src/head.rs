//! The embedding and the language-model head: rows of a `[vocab, hidden]` table in the checkpoint's own type.

use crate::dot::{dot, dot_bf16};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;
use trit_format::plan::DType;

/// Elements widened at a time.
const CHUNK: usize = 256;

/// `out[i] = table[rows.start + i] . input` in f32, for `table` `[vocab, hidden]` of f32, f16 or bf16 as
/// little-endian bytes, `input` `[hidden]`, `out` `[rows.len()]`. A row's result does not depend on which rows are
/// computed together.
///
/// # Panics
/// If a slice is too short, or the type is an integer type (validation refuses such tables).
pub fn dot_rows(table: &[u8], dtype: DType, hidden: usize, rows: Range<usize>, input: &[f32], out: &mut [f32]) {
    assert!(input.len() == hidden && out.len() == rows.len());
    let bytes = hidden * dtype.size();
    for (row, y) in table[rows.start * bytes..rows.end * bytes].chunks_exact(bytes).zip(out) {
        *y = match dtype {
            DType::Bf16 => dot_bf16(row, input),
            _ => {
                let mut sum = 0.0;
                let mut wide = [0f32; CHUNK];
                for (piece, x) in row.chunks(CHUNK * dtype.size()).zip(input.chunks(CHUNK)) {
                    widen(piece, dtype, &mut wide[..x.len()]);
                    sum += dot(&wide[..x.len()], x);
                }
                sum
            }
        };
    }
}

/// Row `row` of such a table as f32, `[hidden]`.
///
/// # Panics
/// As [`dot_rows`].
pub fn widen_row(table: &[u8], dtype: DType, hidden: usize, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), hidden);
    let bytes = hidden * dtype.size();
    widen(&table[row * bytes..(row + 1) * bytes], dtype, out);
}

fn widen(bytes: &[u8], dtype: DType, out: &mut [f32]) {
    let pairs = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        DType::F32 => {
            for (b, y) in bytes.chunks_exact(4).zip(out) {
                *y = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        DType::Bf16 => pairs().zip(out).for_each(|(b, y)| *y = f32::from_bits(u32::from(b) << 16)),
        DType::F16 => {
            let mut halves = [f16::ZERO; CHUNK];
            for (from, to) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
                for (b, h) in from.chunks_exact(2).zip(&mut halves) {
                    *h = f16::from_le_bytes([b[0], b[1]]);
                }
                halves[..to.len()].convert_to_f32_slice(to);
            }
        }
        other => unreachable!("no float table: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;
    use half::bf16;

    #[test]
    fn dots_and_rows_of_every_type() {
        let (vocab, hidden) = (5, 300);
        let (values, x) = (floats(vocab * hidden, 10), floats(hidden, 11));
        let tables: [(DType, Vec<u8>); 3] = [
            (DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            (DType::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (DType::Bf16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ];
        for (dtype, table) in tables {
            let mut out = vec![0.0; 3];
            dot_rows(&table, dtype, hidden, 1..4, &x, &mut out);
            for (i, y) in out.iter().enumerate() {
                let mut row = vec![0.0; hidden];
                widen_row(&table, dtype, hidden, i + 1, &mut row);
                let exact: f64 = row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(*y) - exact).abs() < 1e-5, "{dtype:?} {y} {exact}");
                assert!(row.iter().zip(&values[(i + 1) * hidden..]).all(|(a, b)| (a - b).abs() < 1e-2));
            }
        }
    }
}
