//! One ternary product: a worker's tiles through a kernel, and the epilogue while the sums are in the cache.
#![allow(unsafe_code)]

use crate::arena::{Arena, Memory};
use crate::bind::{CodeKernels, ProductKernels};
use crate::grouped::Shape;
use crate::mapping::KernelFn;
use crate::pool::Worker;
use std::ops::Range;
use trit_format::kernel::KernelArgs;
use trit_format::manifest::{Product, RowOrder, Segment};
use trit_format::plan::{BufferId, Epilogue, Quantized};
use trit_format::tile;
use trit_kernels::epilogue::{self, Scale};
use trit_kernels::quantize::QuantizedRow;

/// Most tiles in one call for one row: enough to hide the call, few enough that their sums stay in L1.
const TILES_PER_CALL: usize = 64;
/// Tiles in one call of a block kernel, which decodes two at a time.
const BLOCK_TILES: usize = 2;

/// One ternary step with all that running it takes.
pub(crate) struct TernaryStep<'a> {
    pub product: &'a Product,
    pub weights: &'a [u8],
    pub kernels: &'a ProductKernels,
    pub arena: &'a Arena,
    pub input: Activations<'a>,
    pub epilogue: Epilogue,
    pub out: BufferId,
    /// Where in a row of `out` the first result goes.
    pub at: usize,
}

/// Quantized rows, in the arena or a worker's own.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    values: &'a [i8],
    rows: usize,
    /// Scales and sums of each row, and elements from row to row.
    scales: (&'a [f32], usize),
    sums: (&'a [i32], usize),
    /// How many of the sums of a row count.
    sums_a_row: usize,
}

impl<'a> Activations<'a> {
    /// Rows `rows` of a quantized buffer in the arena.
    ///
    /// # Safety
    /// No worker writes them while the result is used.
    pub unsafe fn in_arena(arena: &'a Arena, input: Quantized, rows: Range<usize>) -> Activations<'a> {
        // SAFETY: the caller's promise.
        let (values, scales, sums) = unsafe {
            (
                arena.span(input.values, rows.clone(), 0),
                arena.span(input.scale, rows.clone(), 0),
                arena.span(input.sum, rows.clone(), 0),
            )
        };
        Activations {
            values,
            rows: rows.len(),
            scales: (scales, arena.stride::<f32>(input.scale)),
            sums: (sums, arena.stride::<i32>(input.sum)),
            sums_a_row: arena.len(input.sum),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Bytes between rows, and how many of them are readable.
    pub fn stride(&self) -> usize {
        self.values.len() / self.rows
    }

    /// The values of row `row`, with its padding.
    fn row(&self, row: usize) -> &'a [i8] {
        &self.values[row * self.stride()..][..self.stride()]
    }

    /// The values of rows `rows`, counted in digits of `len` bytes.
    pub fn digits(&self, len: usize, rows: Range<usize>) -> &'a [i8] {
        &self.values[rows.start * len..rows.end * len]
    }

    /// What the integers of row `row` are scaled by: one number, or one for each group.
    pub fn scales(&self, row: usize) -> &'a [f32] {
        let (scales, stride) = self.scales;
        &scales[row * stride..][..stride]
    }

    /// The sums of each row without gaps, in `memory` where they have to be moved.
    pub fn packed_sums<'m>(&self, memory: &'m mut Vec<i32>) -> &'m [i32]
    where
        'a: 'm,
    {
        let (sums, stride) = self.sums;
        if stride == self.sums_a_row {
            return sums;
        }
        memory.clear();
        sums.chunks(stride).for_each(|row| memory.extend_from_slice(&row[..self.sums_a_row]));
        memory
    }
}

/// Quantized rows that a worker keeps for itself.
pub(crate) struct OwnRows {
    memory: Memory,
    stride: usize,
    /// `[rows, scales a row]`.
    scales: Vec<f32>,
    /// `[rows, sums a row]`.
    sums: Vec<i32>,
    rows: usize,
}

impl OwnRows {
    /// Room for `rows` rows of `stride` bytes, a multiple of 64, with so many scales and sums.
    pub fn new(
        rows: usize,
        stride: usize,
        scales: usize,
        sums: usize,
    ) -> Result<OwnRows, crate::RuntimeError> {
        let memory = Memory::new(rows, stride, "activations")?;
        Ok(OwnRows { memory, stride, scales: vec![0.0; rows * scales], sums: vec![0; rows * sums], rows })
    }

    /// Row `row`.
    pub fn row_mut(&mut self, row: usize) -> QuantizedRow<'_> {
        let bytes = &mut self.memory.bytes_mut()[row * self.stride..][..self.stride];
        // SAFETY: i8 and u8 have the same layout and every bit pattern.
        let values = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) };
        let (scales, sums) = (self.scales.len() / self.rows, self.sums.len() / self.rows);
        QuantizedRow {
            values,
            scales: &mut self.scales[row * scales..][..scales],
            sums: &mut self.sums[row * sums..][..sums],
        }
    }

    /// The first `rows` rows.
    pub fn first(&self, rows: usize) -> Activations<'_> {
        let bytes = &self.memory.bytes()[..rows * self.stride];
        // SAFETY: i8 and u8 have the same layout and every bit pattern.
        let values = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) };
        let (scales, sums) = (self.scales.len() / self.rows, self.sums.len() / self.rows);
        Activations {
            values,
            rows,
            scales: (&self.scales[..rows * scales], scales),
            sums: (&self.sums[..rows * sums], sums),
            sums_a_row: sums,
        }
    }
}

/// A worker's memory for products, kept from step to step.
#[derive(Default)]
pub(crate) struct ProductScratch {
    /// Integer results: row `r`, tile `t`, tile row `i` at `(r * tiles + t) * 80 + i`.
    pub sums: Vec<i32>,
    /// Sums of groups as floats, by row of activations.
    pub totals: Vec<[f32; tile::ROWS]>,
    /// The activations' own sums without gaps.
    pub packed: Vec<i32>,
    /// What block kernels work in.
    block: Option<Memory>,
}

impl ProductScratch {
    /// At least `bytes` bytes, or `None` where memory is refused.
    pub fn block(&mut self, bytes: usize) -> Option<*mut u8> {
        if self.block.as_ref().is_none_or(|m| m.bytes().len() < bytes) {
            self.block = Memory::new(1, bytes, "a block of activations").ok();
        }
        self.block.as_mut().map(|m| m.bytes_mut().as_mut_ptr())
    }
}

/// `len` elements of memory that grows as needed; what they are is of no matter.
pub(crate) fn resized(memory: &mut Vec<i32>, len: usize) -> &mut [i32] {
    if memory.len() < len {
        memory.resize(len, 0);
    }
    &mut memory[..len]
}

impl TernaryStep<'_> {
    /// Computes the tiles that this worker claims, for activation rows `rows` of the output, which are those of `input`.
    ///
    /// # Safety
    /// Between two barriers, with workers of one region calling this for the same step and rows: nobody writes
    /// `input`, and nobody else touches `out`.
    pub unsafe fn run(&self, worker: &Worker, rows: Range<usize>, scratch: &mut ProductScratch) {
        assert_eq!(rows.len(), self.input.len());
        if let Some(grouping) = self.product.grouping {
            let shape = Shape::of(self.product, grouping);
            // SAFETY: by this function's contract.
            return unsafe { self.run_groups(shape, worker, rows, scratch) };
        }
        let block = match self.kernels {
            ProductKernels::Code(CodeKernels { block: Some((spec, kernel)), .. })
                if rows.len() >= spec.m as usize =>
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
            let sums = resized(&mut scratch.sums, rows.len() * stride);
            match block {
                Some((kernel, memory)) => self.call(kernel, tiles.clone(), 0, rows.len(), sums, memory),
                None => self.streams(tiles.clone(), sums),
            }
            for (r, sums) in sums.chunks_exact(stride).enumerate() {
                for (t, sums) in tiles.clone().zip(sums.chunks_exact(tile::ROWS)) {
                    // SAFETY: a tile's outputs belong to the worker that claimed the tile.
                    unsafe { self.finish(t, rows.start + r, sums, self.input.scales(r)[0]) };
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
                    let (m, kernel) = kernels.stream(self.input.len() - row);
                    self.call(kernel, tiles.clone(), row, m, out, std::ptr::null_mut());
                    m
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
            activations: self.input.digits(self.input.stride(), row..row + m).as_ptr(),
            sums: self.input.sums.0[row..row + m].as_ptr(),
            out: out.as_mut_ptr(),
            tiles: tiles.len() as u64,
            activation_stride: self.input.stride() as u64,
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

    /// The results of tile `t` for row `row`, and the first one's index.
    ///
    /// # Safety
    /// No other worker touches the outputs of this tile for this row.
    #[allow(clippy::mut_from_ref)]
    unsafe fn results(&self, t: usize, row: usize) -> (usize, &mut [f32]) {
        let (rows, width) = match self.product.order {
            RowOrder::Paired => (u64::from(self.product.segments[0].rows), tile::ROWS / 2),
            _ => (self.product.rows(), tile::ROWS),
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
        let segments = &self.product.segments;
        let scale = |segment: &Segment| Scale { s, w: segment.scale, rule: segment.rule };
        if let Epilogue::Gate(activation) = self.epilogue {
            let (gate, up) = (&segments[0], &segments[1]);
            return epilogue::gate(activation, sums, scale(gate), &sums[tile::ROWS / 2..], scale(up), out);
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
    pub(crate) unsafe fn finish_values(&self, t: usize, row: usize, values: &[f32; tile::ROWS]) {
        // SAFETY: by this function's contract.
        let (_, out) = unsafe { self.results(t, row) };
        match self.epilogue {
            Epilogue::Gate(activation) => {
                epilogue::gate_values(activation, values, &values[tile::ROWS / 2..], out);
            }
            Epilogue::Add => epilogue::add_values(&values[..out.len()], out),
            _ => out.copy_from_slice(&values[..out.len()]),
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
