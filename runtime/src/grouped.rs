//! A ternary product with scales of groups: a tile's groups through a kernel, then their sums to floats.
//!
//! To a kernel the groups of a tile are tiles of few columns, each with its own columns of the activations, and the int8
//! digits of a float activation are rows of activations. Floats are added group after group whatever the kernel, so results
//! do not depend on it.
#![allow(unsafe_code)]

use crate::bind::{CodeKernels, ProductKernels};
use crate::mapping::KernelFn;
use crate::pool::Worker;
use crate::ternary::{OwnRows, ProductScratch, TernaryStep, resized};
use std::ops::Range;
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs};
use trit_format::manifest::{Grouping, Product};
use trit_format::plan::ActivationRule;
use trit_format::tile;
use trit_kernels::epilogue::{GroupSums, WeightScales, add_groups};

/// Most tiles that a worker takes at a time.
const MOST_TILES: usize = 16;
/// Most groups in one call for a few rows.
const GROUPS_PER_CALL: usize = 32;
/// Sums that are kept between a kernel and the floats, about: they stay in L1 or near it.
const SUMS: usize = 12 << 10;
/// Activation rows, digits counted, that meet a tile together: in kernels for a few rows, and in those for blocks.
const ROWS: usize = 24;
const BLOCK_ROWS: usize = 128;

/// What a grouped product looks like to a kernel.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    code: Code,
    columns: usize,
    groups: usize,
    /// Bytes of a group's codes, of all codes of a tile, of a tile.
    group_bytes: usize,
    code_bytes: usize,
    tile_bytes: usize,
    /// Groups that share a scale of the weights.
    shared: usize,
    grouping: Grouping,
    /// Bytes from one digit to the next.
    digit_len: usize,
}

impl Shape {
    pub fn of(product: &Product, grouping: Grouping) -> Shape {
        let columns = grouping.columns as usize;
        Shape {
            code: product.code,
            columns,
            groups: product.groups() as usize,
            group_bytes: tile::bytes(columns),
            code_bytes: product.code_bytes() as usize,
            tile_bytes: product.tile_bytes() as usize,
            shared: match grouping.scale_columns {
                0 => usize::MAX,
                scale_columns => scale_columns as usize / columns,
            },
            grouping,
            digit_len: ActivationRule::digit_len(product.k, grouping.columns) as usize,
        }
    }

    /// The codes of some groups of a tile.
    fn codes<'a>(&self, weights: &'a [u8], tile: usize, groups: &Range<usize>) -> &'a [u8] {
        let tile = &weights[tile * self.tile_bytes..][..self.code_bytes];
        &tile[groups.start * self.group_bytes..groups.end * self.group_bytes]
    }

    /// The scales of a tile's weights.
    fn scales<'a>(&self, weights: &'a [u8], tile: usize) -> WeightScales<'a> {
        let bytes = &weights[tile * self.tile_bytes..][self.code_bytes..self.tile_bytes];
        WeightScales { bytes, dtype: self.grouping.scale, groups: self.shared }
    }

    /// The weights of row `row` of a product of rows in sequence, `[k]`: trits times their scales.
    pub fn row(&self, weights: &[u8], row: usize, out: &mut [f32]) {
        let (tile, row) = (row / tile::ROWS, row % tile::ROWS);
        let scales = self.scales(weights, tile);
        for (g, out) in out.chunks_mut(self.columns).enumerate() {
            let codes = self.codes(weights, tile, &(g..g + 1));
            trit_kernels::ternary::row(codes, self.code, row, out);
            let scale = scales.one(g, row);
            out.iter_mut().for_each(|weight| *weight *= scale);
        }
    }
}

/// How a step goes over its rows.
#[derive(Clone, Copy)]
struct Course {
    shape: Shape,
    digits: usize,
    /// The kernel for blocks, with its memory, where one is used.
    block: Option<(KernelFn, *mut u8)>,
    /// Tokens, and groups, that are handled together.
    rows: usize,
    groups: usize,
}

impl TernaryStep<'_> {
    fn course(&self, shape: Shape, scratch: &mut ProductScratch) -> Course {
        let digits = self.input.stride() / shape.digit_len;
        let rows = self.input.len();
        let block = match self.kernels {
            // Kernels for blocks read whole steps of columns, which must not reach into the next group.
            ProductKernels::Code(CodeKernels { block: Some((spec, kernel)), .. })
                if rows * digits >= spec.m as usize && shape.columns.is_multiple_of(BLOCK_COLUMNS) =>
            {
                scratch.block(spec.scratch_bytes(rows * digits)).map(|memory| (*kernel, memory))
            }
            _ => None,
        };
        match block {
            Some(_) => Course { shape, digits, block, rows: (BLOCK_ROWS / digits).max(1), groups: 1 },
            None => {
                let together = rows.min((ROWS / digits).max(1));
                let groups = SUMS / (together * digits * tile::ROWS);
                Course { shape, digits, block, rows: together, groups: groups.clamp(1, GROUPS_PER_CALL) }
            }
        }
    }

    /// [`TernaryStep::run`] of a product with groups.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn run_groups(
        &self,
        shape: Shape,
        worker: &Worker,
        rows: Range<usize>,
        scratch: &mut ProductScratch,
    ) {
        let course = self.course(shape, scratch);
        let ProductScratch { sums, totals, packed, .. } = scratch;
        let activation_sums = self.input.packed_sums(packed);
        for tile in worker.claim(self.product.tiles() as usize, MOST_TILES).flatten() {
            let scales = shape.scales(self.weights, tile);
            for first in (0..rows.len()).step_by(course.rows) {
                let part = first..(first + course.rows).min(rows.len());
                totals.clear();
                totals.resize(part.len(), [0.0; tile::ROWS]);
                for from in (0..shape.groups).step_by(course.groups) {
                    let groups = from..(from + course.groups).min(shape.groups);
                    let stride = groups.len() * tile::ROWS;
                    let sums = resized(sums, part.len() * course.digits * stride);
                    self.group_sums(&course, tile, &groups, &part, activation_sums, sums);
                    let of_rows = sums.chunks_exact(course.digits * stride);
                    for ((r, sums), totals) in part.clone().zip(of_rows).zip(&mut *totals) {
                        let (digits, first) = (course.digits, groups.start);
                        let scales_of = &self.input.scales(r)[groups.clone()];
                        add_groups(
                            &GroupSums { sums, stride, digits, first, scales: scales_of },
                            scales,
                            totals,
                        );
                    }
                }
                for (r, totals) in part.zip(&*totals) {
                    // SAFETY: a tile's outputs belong to the worker that claimed the tile.
                    unsafe { self.finish_values(tile, rows.start + r, totals) };
                }
            }
        }
    }

    /// The integer sums of some groups of a tile for tokens `rows`: `[rows, digits, groups, 80]`.
    fn group_sums(
        &self,
        course: &Course,
        tile: usize,
        groups: &Range<usize>,
        rows: &Range<usize>,
        activation_sums: &[i32],
        out: &mut [i32],
    ) {
        let shape = &course.shape;
        let stride = groups.len() * tile::ROWS;
        let (first, end) = (rows.start * course.digits, rows.end * course.digits);
        let mut row = first;
        while row < end {
            let (m, kernel) = match (self.kernels, course.block) {
                (ProductKernels::Portable, _) => (end - row, None),
                (_, Some(block)) => (end - row, Some(block)),
                (ProductKernels::Code(kernels), None) => {
                    let (m, kernel) = kernels.stream(end - row);
                    (m, Some((kernel, std::ptr::null_mut())))
                }
            };
            let call = GroupCall {
                shape,
                codes: shape.codes(self.weights, tile, groups),
                activations: &self.input.digits(shape.digit_len, row..row + m)
                    [groups.start * shape.columns..],
                sums: &activation_sums[row * shape.groups + groups.start..],
                rows: m,
            };
            let out = &mut out[(row - first) * stride..][..m * stride];
            match kernel {
                None => call.portable(out),
                // SAFETY: the kernel was generated for this number of columns, code and rows (`bind::assign`) and this CPU
                // (`bind`); a block kernel's memory was made for it, and its groups are whole steps of columns.
                Some((kernel, memory)) => unsafe { call.code(kernel, memory, out) },
            }
            row += m;
        }
    }
}

/// Some groups of a tile with some rows of activations.
struct GroupCall<'a> {
    shape: &'a Shape,
    /// Codes of whole groups.
    codes: &'a [u8],
    /// From the first group of the first row on.
    activations: &'a [i8],
    /// The activations' sums, `[rows, groups of the product]`, from the first group of the first row on.
    sums: &'a [i32],
    rows: usize,
}

impl GroupCall<'_> {
    fn groups(&self) -> usize {
        self.codes.len() / self.shape.group_bytes
    }

    /// Writes `[rows, groups, 80]` by the portable kernel.
    fn portable(&self, out: &mut [i32]) {
        let Shape { code, columns, digit_len, .. } = *self.shape;
        let stride = self.groups() * tile::ROWS;
        for (g, codes) in self.codes.chunks_exact(self.shape.group_bytes).enumerate() {
            let (activations, out) = (&self.activations[g * columns..], &mut out[g * tile::ROWS..]);
            trit_kernels::ternary::portable(
                codes,
                columns,
                code,
                activations,
                digit_len,
                self.rows,
                out,
                stride,
            );
        }
    }

    /// Writes `[rows, groups, 80]` by a kernel.
    ///
    /// # Safety
    /// The kernel is for this shape, these rows and this CPU. A kernel for blocks gets one group and the `scratch` it asks
    /// for.
    unsafe fn code(&self, kernel: KernelFn, scratch: *mut u8, out: &mut [i32]) {
        let Shape { columns, digit_len, .. } = *self.shape;
        let (groups, before) = (self.groups(), self.rows - 1);
        let stride = groups * tile::ROWS;
        assert!(groups > 0 && out.len() >= self.rows * stride);
        assert!(self.activations.len() >= before * digit_len + groups * columns);
        assert!(self.sums.len() >= before * self.shape.groups + groups);
        let args = KernelArgs {
            weights: self.codes.as_ptr(),
            activations: self.activations.as_ptr(),
            sums: self.sums.as_ptr(),
            out: out.as_mut_ptr(),
            tiles: groups as u64,
            activation_stride: digit_len as u64,
            sum_stride: self.shape.groups as u64,
            out_stride: stride as u64,
            rows: self.rows as u64,
            scratch,
            activation_advance: columns as u64,
            sum_advance: 1,
        };
        // SAFETY: by this function's contract the kernel fits; by the assertions every slice holds what it reads and
        // writes: groups of `columns` bytes, a multiple of 32, on from each other, in rows of `digit_len`.
        unsafe { kernel(&args) };
    }
}

/// One tile of a grouped product with one row of activations, apart from any session: `[groups, 80]`. `activations` are
/// `[digit_len]`. For self-tests.
pub(crate) fn run_tile(
    kernel: Option<KernelFn>,
    shape: &Shape,
    weights: &[u8],
    tile: usize,
    activations: &OwnRows,
) -> Vec<i32> {
    let input = activations.first(1);
    let mut packed = Vec::new();
    let call = GroupCall {
        shape,
        codes: shape.codes(weights, tile, &(0..shape.groups)),
        activations: input.digits(shape.digit_len, 0..1),
        sums: input.packed_sums(&mut packed),
        rows: 1,
    };
    let mut out = vec![0; shape.groups * tile::ROWS];
    match kernel {
        None => call.portable(&mut out),
        // SAFETY: the caller gives the kernel that is bound for one row of this product.
        Some(kernel) => unsafe { call.code(kernel, std::ptr::null_mut(), &mut out) },
    }
    out
}

#[cfg(test)]
mod tests;
