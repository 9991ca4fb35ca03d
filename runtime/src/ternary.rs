//! One ternary product: a worker's tiles through a kernel, and the epilogue while the sums are in the cache.
#![allow(unsafe_code)]

use crate::arena::{Arena, Memory};
use crate::bind::{CodeKernels, ProductKernels};
use crate::mapping::KernelFn;
use crate::pool::Worker;
use std::ops::Range;
use trit_format::kernel::KernelArgs;
use trit_format::manifest::{Product, RowOrder, Segment};
use trit_format::plan::{BufferId, Epilogue, Quantized};
use trit_format::tile;
use trit_kernels::epilogue::{self, Scale};

/// Most tiles in one call for one row: enough to hide the call, few enough that their sums stay in L1.
const TILES_PER_CALL: usize = 64;
/// Tiles in one call of a block kernel, which decodes two at a time.
const BLOCK_TILES: usize = 2;
/// Rows from which on decoding a tile to memory costs less than decoding it again for every few rows.
const BLOCK_ROWS: usize = 8;

/// One ternary step with all that running it takes.
pub(crate) struct TernaryStep<'a> {
    pub product: &'a Product,
    pub weights: &'a [u8],
    pub kernels: &'a ProductKernels,
    pub arena: &'a Arena,
    pub input: Activations<'a>,
    pub epilogue: Epilogue,
    pub out: BufferId,
}

/// Quantized rows, in the arena or a worker's own.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    values: *const i8,
    /// Bytes between rows, and how many of them are readable.
    stride: usize,
    scales: &'a [f32],
    sums: &'a [i32],
}

impl<'a> Activations<'a> {
    /// Rows `rows` of a quantized buffer in the arena.
    ///
    /// # Safety
    /// No worker writes them while the result is used.
    pub unsafe fn in_arena(arena: &'a Arena, input: Quantized, rows: Range<usize>) -> Activations<'a> {
        let stride = arena.stride::<i8>(input.values);
        // SAFETY: the caller's promise; validation gives scales and sums, single elements of 4 bytes, a stride of 4,
        // so that rows follow each other.
        let (scales, sums) =
            unsafe { (arena.rows(input.scale, rows.clone()), arena.rows(input.sum, rows.clone())) };
        Activations { values: arena.address(input.values, rows.start), stride, scales, sums }
    }

    fn len(&self) -> usize {
        self.scales.len()
    }

    /// The values of row `row`, with its padding.
    fn row(&self, row: usize) -> &'a [i8] {
        assert!(row < self.len());
        // SAFETY: `stride` bytes of each row are readable, by construction.
        unsafe { std::slice::from_raw_parts(self.values.add(row * self.stride), self.stride) }
    }
}

/// Quantized rows that a worker keeps for itself.
pub(crate) struct OwnRows {
    memory: Memory,
    stride: usize,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl OwnRows {
    /// Room for `rows` rows of `stride` bytes, a multiple of 64.
    pub fn new(rows: usize, stride: usize) -> Result<OwnRows, crate::RuntimeError> {
        let memory = Memory::new(rows, stride, "activations")?;
        Ok(OwnRows { memory, stride, scales: vec![0.0; rows], sums: vec![0; rows] })
    }

    /// Row `row`'s values, scale and sum.
    pub fn row_mut(&mut self, row: usize) -> (&mut [i8], &mut f32, &mut i32) {
        let bytes = &mut self.memory.bytes_mut()[row * self.stride..][..self.stride];
        // SAFETY: i8 and u8 have the same layout and every bit pattern.
        let values = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) };
        (values, &mut self.scales[row], &mut self.sums[row])
    }

    /// The first `rows` rows.
    pub fn first(&self, rows: usize) -> Activations<'_> {
        let values = self.memory.bytes().as_ptr().cast();
        Activations { values, stride: self.stride, scales: &self.scales[..rows], sums: &self.sums[..rows] }
    }
}

/// A worker's memory for products, kept from step to step.
#[derive(Default)]
pub(crate) struct ProductScratch {
    /// Integer results: row `r`, tile `t`, tile row `i` at `(r * tiles + t) * 80 + i`.
    sums: Vec<i32>,
    /// What block kernels work in.
    block: Option<Memory>,
}

impl ProductScratch {
    fn sums(&mut self, len: usize) -> &mut [i32] {
        if self.sums.len() < len {
            self.sums.resize(len, 0);
        }
        &mut self.sums[..len]
    }

    /// At least `bytes` bytes, or `None` where memory is refused.
    fn block(&mut self, bytes: usize) -> Option<*mut u8> {
        if self.block.as_ref().is_none_or(|m| m.bytes().len() < bytes) {
            self.block = Memory::new(1, bytes, "a block of activations").ok();
        }
        self.block.as_mut().map(|m| m.bytes_mut().as_mut_ptr())
    }
}

impl TernaryStep<'_> {
    /// Computes the tiles that this worker claims, for activation rows `rows` of the output, which are those of `input`.
    ///
    /// # Safety
    /// Between two barriers, with workers of one region calling this for the same step and rows: nobody writes
    /// `input`, and nobody else touches `out`.
    pub unsafe fn run(&self, worker: &Worker, rows: Range<usize>, scratch: &mut ProductScratch) {
        assert_eq!(rows.len(), self.input.len());
        let block = match self.kernels {
            ProductKernels::Code(CodeKernels { block: Some((spec, kernel)), .. })
                if rows.len() >= BLOCK_ROWS =>
            {
                scratch.block(spec.scratch_bytes(rows.len())).map(|memory| (*kernel, memory))
            }
            _ => None,
        };
        // Rows inside, tiles outside: a tile comes from memory once and meets every row from the cache.
        let most = match (block, rows.len()) {
            (Some(_), _) => BLOCK_TILES,
            (None, 1) => TILES_PER_CALL,
            (None, _) => 1,
        };
        for tiles in worker.claim(self.product.tiles() as usize, most) {
            let stride = tiles.len() * tile::ROWS;
            let sums = scratch.sums(rows.len() * stride);
            match block {
                Some((kernel, memory)) => self.call(kernel, tiles.clone(), 0, rows.len(), sums, memory),
                None => self.streams(tiles.clone(), sums),
            }
            for (r, sums) in sums.chunks_exact(stride).enumerate() {
                for (t, sums) in tiles.clone().zip(sums.chunks_exact(tile::ROWS)) {
                    // SAFETY: a tile's outputs belong to the worker that claimed the tile.
                    unsafe { self.finish(t, rows.start + r, sums, self.input.scales[r]) };
                }
            }
        }
    }

    /// The integer sums of `tiles` for all rows, by kernels for one row or a few.
    fn streams(&self, tiles: Range<usize>, out: &mut [i32]) {
        let stride = tiles.len() * tile::ROWS;
        let weights = self.tiles(tiles.clone());
        let mut row = 0;
        while row < self.input.len() {
            let out = &mut out[row * stride..];
            row += match self.kernels {
                ProductKernels::Portable => {
                    run_portable(self.product, weights, self.input.row(row), &mut out[..stride]);
                    1
                }
                ProductKernels::Code(kernels) => {
                    let left = self.input.len() - row;
                    let (m, kernel) =
                        kernels.streams[..].iter().find(|(m, _)| *m <= left).expect("one takes one row");
                    self.call(*kernel, tiles.clone(), row, *m, out, std::ptr::null_mut());
                    *m
                }
            };
        }
    }

    /// The weight bytes of `tiles`.
    fn tiles(&self, tiles: Range<usize>) -> &[u8] {
        let bytes = tile::bytes(self.product.k as usize);
        &self.weights[tiles.start * bytes..tiles.end * bytes]
    }

    /// Calls a kernel that takes `m` rows from `row` on; `scratch` is what it asks for.
    fn call(
        &self,
        kernel: KernelFn,
        tiles: Range<usize>,
        row: usize,
        m: usize,
        out: &mut [i32],
        scratch: *mut u8,
    ) {
        let stride = tiles.len() * tile::ROWS;
        assert!(row + m <= self.input.len() && m * stride <= out.len());
        let args = KernelArgs {
            weights: self.tiles(tiles.clone()).as_ptr(),
            activations: self.input.row(row).as_ptr(),
            sums: &self.input.sums[row],
            out: out.as_mut_ptr(),
            tiles: tiles.len() as u64,
            activation_stride: self.input.stride as u64,
            sum_stride: 1,
            out_stride: stride as u64,
            rows: m as u64,
            scratch,
            activation_advance: 0,
            sum_advance: 0,
        };
        // SAFETY: the kernel was generated for this k, code and m (`bind::assign`) and this CPU (`bind`). The weights hold
        // the tiles; the rows hold activations, zero from k to the end of their stride, a multiple of 64, and a sum each;
        // `out` has room by the assertion, and a block kernel's scratch was made for it. Kernels touch nothing else.
        unsafe { kernel(&args) };
    }

    /// Scales one tile's sums for one row and stores, adds or gates them.
    ///
    /// # Safety
    /// No other worker touches the outputs of this tile for this row.
    unsafe fn finish(&self, t: usize, row: usize, sums: &[i32], s: f32) {
        let segments = &self.product.segments;
        let scale = |segment: &Segment| Scale { s, w: segment.scale, rule: segment.rule };
        match (self.product.order, self.epilogue) {
            (RowOrder::Paired, Epilogue::Gate(activation)) => {
                let half = tile::ROWS / 2;
                let (gate, up) = (&segments[0], &segments[1]);
                let from = t * half;
                let to = (from + half).min(gate.rows as usize);
                // SAFETY: by this function's contract.
                let out = unsafe { self.arena.row_mut::<f32>(self.out, row, from, to) };
                epilogue::gate(activation, sums, scale(gate), &sums[half..], scale(up), out);
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
                        match epilogue {
                            Epilogue::Add => epilogue::add(sums, scale(segment), out),
                            _ => epilogue::store(sums, scale(segment), out),
                        }
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
        ProductKernels::Code(kernels) => {
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
                activation_advance: 0,
                sum_advance: 0,
            };
            // SAFETY: bound for this product and CPU; every pointer covers what the convention says.
            unsafe { kernels.single()(&args) };
        }
    }
    out
}
