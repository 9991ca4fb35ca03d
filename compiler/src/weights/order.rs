//! GGUF files of Llama models hold the rows of q and k in another order, because RoPE there rotates neighbours and
//! not the halves of a head. This module undoes it, so that the rest of the compiler sees one order.
//!
//! Row `i` of the first half of a head is stored at `2 * i`, row `i` of the second half at `2 * i + 1`.

use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::model::{Dense, Matrix, Ternary, TernaryRows};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Rows of heads, stored interleaved.
#[derive(Clone, Copy)]
struct Interleaved {
    head_dim: usize,
}

impl Interleaved {
    fn stored_at(self, row: usize) -> usize {
        let (head, row) = (row - row % self.head_dim, row % self.head_dim);
        let half = self.head_dim / 2;
        head + 2 * (row % half) + row / half
    }
}

/// The matrix of q or k with its rows in the usual order. `matrix` stores the rows of each of its `heads`
/// interleaved.
///
/// # Errors
/// Rows that are no whole number of such heads.
pub(crate) fn in_order(matrix: Matrix, heads: usize) -> Result<Matrix, CompileError> {
    let [rows, _] = matrix.shape();
    let head_dim = rows.checked_div(heads).unwrap_or(0);
    if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim * heads != rows {
        let problem = format!("{} has {rows} rows, which are no {heads} heads of even size", matrix.name());
        return Err(CompileError::Internal(problem));
    }
    let order = Interleaved { head_dim };
    Ok(match matrix {
        Matrix::Ternary(ternary) => {
            let trits = Arc::new(Reordered { stored: ternary.trits.clone(), order });
            Matrix::Ternary(Ternary { trits, ..ternary })
        }
        Matrix::Dense(dense) => Matrix::Dense(copied(dense, order, rows)?),
    })
}

/// Trits of rows that are stored in another order.
struct Reordered {
    stored: Arc<dyn TernaryRows>,
    order: Interleaved,
}

impl TernaryRows for Reordered {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        self.stored.read_row(self.order.stored_at(row), out)
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        self.stored.read_scales(self.order.stored_at(row), out)
    }

    fn is_signs(&self) -> bool {
        self.stored.is_signs()
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// Floats are read as a whole matrix, so they are written once more, in order, to a temporary file.
fn copied(dense: Dense, order: Interleaved, rows: usize) -> Result<Dense, CompileError> {
    let stored = (*dense.data).as_ref();
    let row_bytes = stored.len() / rows;
    let file = MappedFile::temporary(Path::new(&dense.name), |out| {
        (0..rows).try_for_each(|row| out.write_all(&stored[order.stored_at(row) * row_bytes..][..row_bytes]))
    })?;
    dense.data.release();
    Ok(Dense { data: Arc::new(file.whole()), ..dense })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `weights.reshape(heads, 2, head_dim / 2).swapaxes(1, 2)` in llama.cpp's converter, of two heads of six rows.
    #[test]
    fn rows_are_found_where_converters_put_them() {
        let stored = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let order = Interleaved { head_dim: 6 };
        for row in 0..12 {
            assert_eq!(stored[order.stored_at(row)], row);
        }
    }
}
