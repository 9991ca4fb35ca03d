//! Rows of a matrix in another order, or some of them, as a matrix of its own.

use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::model::{Dense, Matrix, Ternary, TernaryRows};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Which rows: `run` of each `period`, from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) period: usize,
}

impl Runs {
    fn stored_at(self, row: usize) -> usize {
        row / self.run * self.period + self.first + row % self.run
    }
}

/// These rows of `matrix`, in order. `part` names them where messages name the matrix.
///
/// # Errors
/// Rows that are no whole number of periods.
pub(crate) fn select(matrix: &Matrix, runs: Runs, part: &str) -> Result<Matrix, CompileError> {
    let [all, _] = matrix.shape();
    let Runs { first, run, period } = runs;
    if run == 0 || first + run > period || !all.is_multiple_of(period) {
        let problem = format!("{} has {all} rows, which are no runs of {period}", matrix.name());
        return Err(CompileError::Internal(problem));
    }
    let name = format!("{} ({part})", matrix.name());
    rearranged(matrix, name, all / period * run, move |row| runs.stored_at(row))
}

/// A matrix `[rows, k]` whose row `row` is that row of `matrix` which `stored_at` gives. Trits are read where they are stored.
/// Floats are read as a whole matrix, so they are written once more, in order, to a temporary file.
///
/// # Errors
/// The temporary file cannot be written.
pub(super) fn rearranged(
    matrix: &Matrix,
    name: String,
    rows: usize,
    stored_at: impl Fn(usize) -> usize + Send + Sync + 'static,
) -> Result<Matrix, CompileError> {
    Ok(match matrix {
        Matrix::Ternary(ternary) => {
            let trits = Arc::new(Rearranged { stored: ternary.trits.clone(), stored_at });
            Matrix::Ternary(Ternary { name, rows, trits, ..ternary.clone() })
        }
        Matrix::Dense(dense) => {
            let [all, k] = matrix.shape();
            let stored = (*dense.data).as_ref();
            let row_bytes = stored.len().checked_div(all).unwrap_or(0);
            let file = MappedFile::temporary(Path::new(&dense.name), |out| {
                (0..rows)
                    .try_for_each(|row| out.write_all(&stored[stored_at(row) * row_bytes..][..row_bytes]))
            })?;
            dense.data.release();
            Matrix::Dense(Dense { name, shape: vec![rows, k], data: Arc::new(file.whole()), ..dense.clone() })
        }
    })
}

/// Trits of rows that are stored elsewhere in a matrix.
struct Rearranged<F> {
    stored: Arc<dyn TernaryRows>,
    stored_at: F,
}

impl<F: Fn(usize) -> usize + Send + Sync> TernaryRows for Rearranged<F> {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        self.stored.read_row((self.stored_at)(row), out)
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        self.stored.read_scales((self.stored_at)(row), out)
    }

    fn is_signs(&self) -> bool {
        self.stored.is_signs()
    }

    fn release(&self) {
        self.stored.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_each_period() {
        let runs = Runs { first: 2, run: 2, period: 5 };
        assert_eq!([0, 1, 2, 3, 4].map(|row| runs.stored_at(row)), [2, 3, 7, 8, 12]);
    }
}
