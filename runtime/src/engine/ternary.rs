//! One ternary step. A worker claims tiles of the matrix and `trit_gemm` multiplies them. While the sums are still in
//! the CPU's cache, the epilogue turns them into results and writes these to the arena.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::pool::Worker;
use crate::RuntimeError;
use std::ops::Range;
use trit_format::manifest::{PackedMatrix, RowOrder, Segment};
use trit_format::plan::{BufferId, Epilogue, Quantized};
use trit_gemm::{Kernels, Layout, MatrixRef, QuantizedRows, Strided};
use trit_kernels::epilogue::{self, Scale};
use trit_kernels::quantize::QuantizedRow;

pub(crate) use trit_gemm::{Activations, Scratch as ProductScratch};

/// One ternary step, and everything that running it needs.
pub(crate) struct TernaryStep<'a> {
    pub packed: &'a PackedMatrix,
    pub weights: &'a [u8],
    pub kernels: &'a Kernels,
    pub arena: &'a Arena,
    pub input: Activations<'a>,
    pub epilogue: Epilogue,
    pub out: BufferId,
    /// The element of a row of `out` where the first result goes.
    pub at: usize,
}

/// Quantized activation rows that one worker keeps for itself.
pub(crate) struct OwnRows(QuantizedRows);

impl OwnRows {
    /// Room for `rows` rows of `stride` bytes (a multiple of 64), each with `scales` scales and `sums` sums.
    pub fn new(rows: usize, stride: usize, scales: usize, sums: usize) -> Result<OwnRows, RuntimeError> {
        Ok(OwnRows(QuantizedRows::new(rows, stride, scales, sums)?))
    }

    /// Row `row`.
    pub fn row_mut(&mut self, row: usize) -> QuantizedRow<'_> {
        self.0.row_mut(row).expect("one of the worker's few rows")
    }

    /// The first `rows` rows.
    pub fn first(&self, rows: usize) -> Activations<'_> {
        self.0.first(rows).expect("some of the worker's few rows")
    }
}

/// Rows `rows` of a quantized buffer in the arena.
///
/// # Safety
/// No worker writes them while the result is used.
pub(crate) unsafe fn in_arena(arena: &Arena, input: Quantized, rows: Range<usize>) -> Activations<'_> {
    // SAFETY: the caller's promise.
    let (values, scales, sums) = unsafe {
        (
            arena.span(input.values, rows.clone(), 0),
            arena.span(input.scale, rows.clone(), 0),
            arena.span(input.sum, rows.clone(), 0),
        )
    };
    let scales = Strided { values: scales, stride: arena.stride::<f32>(input.scale) };
    let sums = Strided { values: sums, stride: arena.stride::<i32>(input.sum) };
    Activations::new(rows.len(), values, scales, sums, arena.len(input.sum)).expect("rows of one arena")
}

impl TernaryStep<'_> {
    /// Computes the tiles that this worker claims. `rows` are the rows of the arena to write; they correspond to the
    /// rows of `input` one by one.
    ///
    /// # Safety
    /// All workers of one region call this between the same two barriers, for the same step and rows. Nobody writes
    /// `input` meanwhile, and nobody else touches `out`.
    pub unsafe fn run(&self, worker: &Worker, rows: Range<usize>, scratch: &mut ProductScratch) {
        assert_eq!(rows.len(), self.input.rows());
        let layout = Layout::of(self.packed).expect("validated");
        let matrix = MatrixRef::new(layout, self.weights, self.kernels).expect("bound to this product");
        let mut pass = matrix.pass(self.input, scratch).expect("validation saw to it that the input suits");
        for tiles in worker.claim(self.packed.tiles() as usize, pass.tiles_at_once()) {
            let done = match layout.groups() {
                Some(_) => pass.totals(tiles, |tile, r, totals| {
                    // SAFETY: a tile's outputs belong to the worker that claimed the tile.
                    unsafe { self.finish_values(tile, rows.start + r, totals) }
                }),
                None => pass.sums(tiles, |tile, r, sums| {
                    let s = self.input.scales(r).expect("a row of the input")[0];
                    // SAFETY: as above.
                    unsafe { self.finish(tile, rows.start + r, sums, s) }
                }),
            };
            done.expect("claimed tiles are tiles of the product");
        }
    }

    /// The index of the first result of tile `t`, and the place of the tile's results in row `row` of the output.
    ///
    /// # Safety
    /// No other worker touches the outputs of this tile for this row.
    #[allow(clippy::mut_from_ref)]
    unsafe fn results(&self, t: usize, row: usize) -> (usize, &mut [f32]) {
        let in_tile = self.packed.code.tile_rows();
        let (rows, width) = match self.packed.order {
            RowOrder::Paired => (u64::from(self.packed.segments[0].rows), in_tile / 2),
            _ => (self.packed.rows(), in_tile),
        };
        let (from, to) = (t * width, ((t + 1) * width).min(rows as usize));
        // SAFETY: by this function's contract.
        (from, unsafe { self.arena.row_mut::<f32>(self.out, row, self.at + from, self.at + to) })
    }

    /// Scales one tile's sums for one row and stores, adds or gates them.
    ///
    /// # Safety
    /// As [`TernaryStep::results`].
    unsafe fn finish(&self, t: usize, row: usize, sums: &[i32], s: f32) {
        // SAFETY: by this function's contract.
        let (from, out) = unsafe { self.results(t, row) };
        let segments = &self.packed.segments;
        let scale = |segment: &Segment| Scale { s, w: segment.scale, rule: segment.rule };
        if let Epilogue::Gate(activation) = self.epilogue {
            let (gate, up) = (&segments[0], &segments[1]);
            return epilogue::gate(activation, sums, scale(gate), &sums[sums.len() / 2..], scale(up), out);
        }
        let (to, mut start) = (from + out.len(), 0);
        for segment in segments {
            let end = start + segment.rows as usize;
            let (a, b) = (start.max(from), end.min(to));
            if a < b {
                let (sums, out) = (&sums[a - from..b - from], &mut out[a - from..b - from]);
                match self.epilogue {
                    Epilogue::Add => epilogue::add(sums, scale(segment), out),
                    _ => epilogue::store(sums, scale(segment), out),
                }
            }
            start = end;
        }
    }

    /// Stores, adds or gates one tile's results for one row.
    ///
    /// # Safety
    /// As [`TernaryStep::results`].
    unsafe fn finish_values(&self, t: usize, row: usize, values: &[f32]) {
        // SAFETY: by this function's contract.
        let (_, out) = unsafe { self.results(t, row) };
        match self.epilogue {
            Epilogue::Gate(activation) => {
                epilogue::gate_values(activation, values, &values[values.len() / 2..], out);
            }
            Epilogue::Add => epilogue::add_values(&values[..out.len()], out),
            _ => out.copy_from_slice(&values[..out.len()]),
        }
    }
}

#[cfg(test)]
mod tests;
