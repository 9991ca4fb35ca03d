//! One ternary product: a worker's tiles through a kernel, and the epilogue while the sums are in L1.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::bind::ProductKernels;
use crate::pool::Worker;
use std::ops::Range;
use trit_format::kernel::KernelArgs;
use trit_format::manifest::{Product, RowOrder};
use trit_format::plan::{Activation, BufferId, Epilogue, Quantized, ScaleRule};
use trit_format::tile;
use trit_kernels::epilogue;

/// Tiles handed to a kernel in one call: enough to hide the call, few enough that their sums stay in L1.
const TILES_PER_CALL: usize = 8;
/// Most activation rows one kernel call handles, by validation.
const MAX_BLOCK: usize = 16;

/// One ternary step with all that running it takes.
pub(crate) struct TernaryStep<'a> {
    pub product: &'a Product,
    pub weights: &'a [u8],
    pub kernels: &'a ProductKernels,
    pub arena: &'a Arena,
    pub input: Quantized,
    pub epilogue: Epilogue,
    pub out: BufferId,
}

/// Integer results of some tiles for some rows: row `r`, tile `t`, tile row `i` at `r * stride + t * 80 + i`.
pub(crate) struct Sums {
    data: Vec<i32>,
}

impl Sums {
    /// Room for one kernel call.
    pub fn new() -> Sums {
        Sums { data: vec![0; MAX_BLOCK * TILES_PER_CALL * tile::ROWS] }
    }
}

impl TernaryStep<'_> {
    /// Computes this worker's share of the tiles for activation rows `rows`.
    ///
    /// # Safety
    /// Between two barriers, with workers of one region calling this for the same step and rows: nobody writes
    /// `input`, and nobody else touches `out`.
    pub unsafe fn run(&self, worker: &Worker, rows: Range<usize>, sums: &mut Sums) {
        let tiles = worker.share(self.product.tiles() as usize);
        let block = match self.kernels {
            ProductKernels::Portable => 1,
            ProductKernels::Code { block, .. } => block.map_or(1, |(m, _)| m),
        };
        // Rows inside, tiles outside: a tile comes from memory once and meets every row from the cache.
        let per_call = if rows.len() == 1 { TILES_PER_CALL } else { 1 };
        for first in tiles.clone().step_by(per_call) {
            let count = per_call.min(tiles.end - first);
            let mut row = rows.start;
            while row < rows.end {
                let m = if row + block <= rows.end { block } else { 1 };
                self.sums(first..first + count, row, m, &mut sums.data);
                for r in row..row + m {
                    // SAFETY: the quantized input is not written in this step.
                    let scale = unsafe { self.arena.row::<f32>(self.input.scale, r) }[0];
                    for t in first..first + count {
                        let at = ((r - row) * count + t - first) * tile::ROWS;
                        // SAFETY: a tile's outputs belong to the worker that has the tile; tiles are shared out
                        // without overlap.
                        unsafe { self.finish(t, r, &sums.data[at..at + tile::ROWS], scale) };
                    }
                }
                row += m;
            }
        }
    }

    /// The integer sums of `tiles` for activation rows `row..row + m`.
    fn sums(&self, tiles: Range<usize>, row: usize, m: usize, out: &mut [i32]) {
        let (arena, input) = (self.arena, self.input);
        let k = self.product.k as usize;
        let stride = tiles.len() * tile::ROWS;
        let weights = &self.weights[tiles.start * tile::bytes(k)..tiles.end * tile::bytes(k)];
        assert!(m * stride <= out.len());
        match self.kernels {
            ProductKernels::Portable => {
                for r in 0..m {
                    // SAFETY: as promised to `run`, nobody writes the input.
                    let activations = unsafe { arena.row::<i8>(input.values, row + r) };
                    run_portable(self.product, weights, activations, &mut out[r * stride..(r + 1) * stride]);
                }
            }
            ProductKernels::Code { single, block } => {
                let kernel = match block {
                    Some((size, kernel)) if *size == m => *kernel,
                    _ => *single,
                };
                let args = KernelArgs {
                    weights: weights.as_ptr(),
                    activations: arena.address(input.values, row),
                    sums: arena.address(input.sum, row),
                    out: out.as_mut_ptr(),
                    tiles: tiles.len() as u64,
                    activation_stride: arena.stride::<i8>(input.values) as u64,
                    sum_stride: arena.stride::<i32>(input.sum) as u64,
                    out_stride: stride as u64,
                    rows: 0,
                    scratch: std::ptr::null_mut(),
                };
                // SAFETY: the kernel was generated for this k, code and m (`bind::assign`) and this CPU (`bind`).
                // `weights` holds the tiles; the arena rows hold padded activations and a sum each (validated
                // strides); `out` has room by the assertion. Kernels touch nothing else.
                unsafe { kernel(&args) };
            }
        }
    }

    /// Scales one tile's sums for one row and stores, adds or gates them.
    ///
    /// # Safety
    /// No other worker touches the outputs of this tile for this row.
    unsafe fn finish(&self, t: usize, row: usize, sums: &[i32], scale: f32) {
        let segments = &self.product.segments;
        match (self.product.order, self.epilogue) {
            (RowOrder::Paired, Epilogue::Gate(activation)) => {
                let half = tile::ROWS / 2;
                let (gate, up) = (&segments[0], &segments[1]);
                let from = t * half;
                let to = (from + half).min(gate.rows as usize);
                // SAFETY: by this function's contract.
                let out = unsafe { self.arena.row_mut::<f32>(self.out, row, from, to) };
                for (i, y) in out.iter_mut().enumerate() {
                    let g = epilogue::scale(sums[i], scale, gate.scale, gate.rule);
                    let u = epilogue::scale(sums[half + i], scale, up.scale, up.rule);
                    *y = activate(activation, g) * u;
                }
            }
            (RowOrder::Sequential, epilogue @ (Epilogue::Store | Epilogue::Add)) => {
                let from = t * tile::ROWS;
                let to = (from + tile::ROWS).min(self.product.rows() as usize);
                // SAFETY: by this function's contract.
                let out = unsafe { self.arena.row_mut::<f32>(self.out, row, from, to) };
                let mut start = 0;
                for segment in segments {
                    let end = start + segment.rows as usize;
                    let (a, b) = (start.max(from), end.min(to));
                    if a < b {
                        let (sums, out) = (&sums[a - from..b - from], &mut out[a - from..b - from]);
                        write(sums, scale, segment.scale, segment.rule, epilogue == Epilogue::Add, out);
                    }
                    start = end;
                }
            }
            // Validation admits only the pairs above.
            (order, epilogue) => unreachable!("{epilogue:?} on {order:?} rows"),
        }
    }
}

/// The portable kernel over some tiles.
pub(crate) fn run_portable(product: &Product, weights: &[u8], activations: &[i8], out: &mut [i32]) {
    let k = product.k as usize;
    let stride = out.len();
    trit_kernels::ternary::portable(weights, k, product.code, activations, activations.len(), 1, out, stride);
}

/// The bound single-row kernel over some tiles, apart from any session: for self-tests.
pub(crate) fn run_bound(
    kernels: &ProductKernels,
    product: &Product,
    weights: &[u8],
    activations: &[i8],
) -> Vec<i32> {
    let tiles = weights.len() / tile::bytes(product.k as usize);
    let mut out = vec![0; tiles * tile::ROWS];
    match kernels {
        ProductKernels::Portable => run_portable(product, weights, activations, &mut out),
        ProductKernels::Code { single, .. } => {
            // Kernels read whole quads, 4-byte aligned.
            assert!(activations.len() == tile::padded_k(product.k as usize));
            let quads: Vec<i32> = activations
                .chunks_exact(4)
                .map(|q| i32::from_ne_bytes([0, 1, 2, 3].map(|i| q[i] as u8)))
                .collect();
            let sum: i32 = activations.iter().map(|&a| i32::from(a)).sum();
            let args = KernelArgs {
                weights: weights.as_ptr(),
                activations: quads.as_ptr().cast(),
                sums: &sum,
                out: out.as_mut_ptr(),
                tiles: tiles as u64,
                activation_stride: activations.len() as u64,
                sum_stride: 1,
                out_stride: (tiles * tile::ROWS) as u64,
                rows: 0,
                scratch: std::ptr::null_mut(),
            };
            // SAFETY: bound for this product and CPU; every pointer covers what the convention says.
            unsafe { single(&args) };
        }
    }
    out
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Relu2 => epilogue::relu2(x),
        Activation::Silu => epilogue::silu(x),
        // Validation refuses activations this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

fn write(sums: &[i32], s: f32, w: f32, rule: ScaleRule, add: bool, out: &mut [f32]) {
    for (&sum, y) in sums.iter().zip(out) {
        let value = epilogue::scale(sum, s, w, rule);
        *y = if add { *y + value } else { value };
    }
}
