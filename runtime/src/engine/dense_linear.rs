//! Linear layers whose weights are floats: the head, and matrices that are not ternary.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::pool::Worker;
use crate::load::Model;
use std::ops::Range;
use trit_format::plan::{BufferId, TensorId};
use trit_kernels::{epilogue, head};

/// Most table rows that make one unit of work. They stay in L2 while they are multiplied with every input row.
const ROWS: usize = 64;
/// Least units for each worker, so that a small table is shared out too.
const UNITS: usize = 2;
/// Most of these units that a worker takes at a time.
const MOST_UNITS: usize = 16;
/// Most input rows that are multiplied with a unit at a time.
const INPUTS: usize = 16;

/// The product of all rows of a table with rows of a buffer.
pub(crate) struct Dense<'a> {
    pub model: &'a Model,
    pub arena: &'a Arena,
    pub table: TensorId,
    pub input: BufferId,
    pub out: BufferId,
    /// The element of a row of `out` where the first result goes.
    pub at: usize,
    /// Whether results are added to what `out` holds.
    pub add: bool,
}

impl Dense<'_> {
    /// Computes the table rows that this worker claims; every worker of the region calls this with the same `rows`.
    ///
    /// # Safety
    /// Until all workers passed the next barrier nobody writes `input`, and nobody else touches `out`.
    pub unsafe fn run(&self, rows: Range<usize>, worker: &Worker) {
        // Every worker returns here, or none. A table that cannot be read any more makes the pass an error
        // (`Model::intact`).
        if self.model.table(self.table).is_none() {
            return;
        }
        let count = self.model.tensor(self.table).shape[0] as usize;
        let height = count.div_ceil(UNITS * worker.count).clamp(1, ROWS);
        for unit in worker.claim(count.div_ceil(height), MOST_UNITS).flatten() {
            let part = unit * height..((unit + 1) * height).min(count);
            for first in rows.clone().step_by(INPUTS) {
                let inputs = first..(first + INPUTS).min(rows.end);
                // SAFETY: by this function's contract; rows of the table are shared out.
                unsafe { self.multiply(part.clone(), inputs) };
            }
        }
    }

    /// Multiplies some rows of the table with a few inputs.
    ///
    /// # Safety
    /// As [`Dense::run`], and no other worker computes these rows of the table.
    unsafe fn multiply(&self, part: Range<usize>, rows: Range<usize>) {
        let tensor = self.model.tensor(self.table);
        let bytes = self.model.table(self.table).unwrap_or_default();
        let (dtype, columns) = (tensor.dtype, tensor.shape[1] as usize);
        let mut inputs: [&[f32]; INPUTS] = [&[]; INPUTS];
        let mut outs: [&mut [f32]; INPUTS] = std::array::from_fn(|_| &mut [][..]);
        for (i, r) in rows.clone().enumerate() {
            // SAFETY: by this function's contract; `input` and `out` do not overlap.
            (inputs[i], outs[i]) = unsafe {
                (
                    self.arena.row(self.input, r),
                    self.arena.row_mut(self.out, r, self.at + part.start, self.at + part.end),
                )
            };
        }
        let (inputs, outs) = (&inputs[..rows.len()], &mut outs[..rows.len()]);
        if !self.add {
            return head::dot_rows_block(bytes, dtype, columns, part, inputs, outs);
        }
        let mut sums = [[0.0; ROWS]; INPUTS];
        let mut into = sums.each_mut().map(|sums| &mut sums[..part.len()]);
        head::dot_rows_block(bytes, dtype, columns, part.clone(), inputs, &mut into[..rows.len()]);
        for (out, sums) in outs.iter_mut().zip(&sums) {
            epilogue::add_values(&sums[..part.len()], out);
        }
    }
}
