//! GGUF files hold some rows and columns in another order. This module undoes it, so that the rest of the compiler sees
//! one order.
//!
//! - Rows of q and k of Llama models are interleaved, because RoPE there rotates neighbours and not the halves of a
//!   head: row `i` of the first half of a head is stored at `2 * i`, row `i` of the second half at `2 * i + 1`.
//! - Value heads of a gated DeltaNet are tiled ([`TiledHeads`]): rows of the products that make them, columns of the one
//!   that takes them. Where heads are columns their scales move with them, in units of 32 columns.

use crate::checkpoint::{Axis, RawTensor, TiledHeads};
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::model::{Matrix, Scales, TernaryRows};
use crate::weights::coded;
use crate::weights::rows::rearranged;
use crate::weights::scale_scan::UNIT;
use std::io::Write;
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
pub(crate) fn in_order(matrix: &Matrix, heads: usize) -> Result<Matrix, CompileError> {
    let [rows, _] = matrix.shape();
    let head_dim = rows.checked_div(heads).unwrap_or(0);
    if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim * heads != rows {
        let problem = format!("{} has {rows} rows, which are no {heads} heads of even size", matrix.name());
        return Err(CompileError::Internal(problem));
    }
    let order = Interleaved { head_dim };
    let name = matrix.name().to_owned();
    rearranged(matrix, name, rows, move |row| order.stored_at(row))
}

/// Where each unit of 32 columns of the usual order is stored; `None` where columns stand in that order, or heads are no
/// whole number of units.
pub(super) fn units(tensor: &RawTensor, k: usize) -> Option<Vec<usize>> {
    let heads = tensor.tiled_heads.filter(|heads| heads.axis == Axis::Columns)?;
    let whole = heads.head_dim.is_multiple_of(UNIT) && heads.before.is_multiple_of(UNIT);
    whole.then(|| (0..k / UNIT).map(|unit| heads.stored_at(unit * UNIT) / UNIT).collect())
}

/// Trits of the tensor in the usual order; `stored` gives them as they are stored. Where heads are columns and share
/// scales by columns, it gives a scale for each unit of 32 columns.
///
/// # Errors
/// Heads that are no whole number of units, and whose columns have scales of their own.
pub(super) fn untiled(
    tensor: &RawTensor,
    scales: Scales,
    k: usize,
    stored: Arc<dyn TernaryRows>,
) -> Result<Arc<dyn TernaryRows>, CompileError> {
    let Some(heads) = tensor.tiled_heads else { return Ok(stored) };
    let columns = match scales {
        Scales::Rows { columns, .. } => columns as usize,
        Scales::Tensor { .. } => 0,
    };
    let units = units(tensor, k);
    if heads.axis == Axis::Columns && columns > 0 && units.is_none() {
        return Err(tensor.unsupported(format!(
            "has value heads of {} columns in another order than the model's, and scales by columns; whole groups of \
             {UNIT} columns cannot be moved with them. Use the model's safetensors checkpoint",
            heads.head_dim
        )));
    }
    Ok(Arc::new(Untiled { stored, heads, k, columns, units }))
}

/// Trits of a matrix with tiled heads.
struct Untiled {
    stored: Arc<dyn TernaryRows>,
    heads: TiledHeads,
    k: usize,
    /// How many columns share a scale, 0 where rows or the matrix do.
    columns: usize,
    units: Option<Vec<usize>>,
}

impl Untiled {
    fn row(&self, row: usize) -> usize {
        if self.heads.axis == Axis::Rows { self.heads.stored_at(row) } else { row }
    }
}

impl TernaryRows for Untiled {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        if self.heads.axis == Axis::Rows {
            return self.stored.read_row(self.row(row), out);
        }
        let mut stored = vec![0; self.k];
        self.stored.read_row(row, &mut stored)?;
        let (before, heads) = out.split_at_mut(self.heads.before);
        before.copy_from_slice(&stored[..self.heads.before]);
        let starts = (self.heads.before..).step_by(self.heads.head_dim);
        for (head, start) in heads.chunks_exact_mut(self.heads.head_dim).zip(starts) {
            head.copy_from_slice(&stored[self.heads.stored_at(start)..][..self.heads.head_dim]);
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        let Some(units) = self.units.as_ref().filter(|_| self.columns > 0) else {
            return self.stored.read_scales(self.row(row), out);
        };
        let mut stored = vec![0.0; units.len()];
        self.stored.read_scales(row, &mut stored)?;
        out.fill(0.0);
        for (unit, &at) in units.iter().enumerate() {
            // All units of a group that are not zero have the same scale.
            if let Some(out) = out.get_mut(unit * UNIT / self.columns) {
                *out = out.max(stored[at]);
            }
        }
        Ok(())
    }

    fn is_signs(&self) -> bool {
        self.stored.is_signs()
    }

    fn release(&self) {
        self.stored.release();
    }
}

/// A tensor of floats with its heads in the usual order, written once more to a temporary file. Where heads are rows, it may
/// be one of blocks.
///
/// # Errors
/// A shape that is not that of the heads; a temporary file that cannot be written.
pub(crate) fn rewritten(tensor: RawTensor) -> Result<RawTensor, CompileError> {
    let Some(heads) = tensor.tiled_heads else { return Ok(tensor) };
    let size = match (tensor.dtype.float(), heads.axis) {
        (Some(float), _) => float.dtype().size(),
        // Whole rows are moved.
        (None, Axis::Rows) if coded::kind(&tensor).is_some() => 1,
        (None, _) => {
            let problem = format!("is {}, which is not supported; expected BF16, F16 or F32", tensor.dtype);
            return Err(tensor.unsupported(problem));
        }
    };
    heads.expect(&tensor)?;
    let stored = tensor.bytes.as_ref();
    let row_bytes = stored.len() / tensor.shape[0];
    let file = MappedFile::temporary(tensor.bytes.path(), |out| {
        let rows = stored.chunks_exact(row_bytes);
        match heads.axis {
            Axis::Rows => (0..tensor.shape[0])
                .try_for_each(|row| out.write_all(&stored[heads.stored_at(row) * row_bytes..][..row_bytes])),
            Axis::Columns => rows.into_iter().try_for_each(|row| {
                (0..row_bytes / size)
                    .try_for_each(|column| out.write_all(&row[heads.stored_at(column) * size..][..size]))
            }),
        }
    })?;
    tensor.bytes.release();
    Ok(RawTensor { bytes: file.whole(), tiled_heads: None, ..tensor })
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
