//! One call of a kernel, generated or portable: the only place that makes [`KernelArgs`].
#![allow(unsafe_code)]

use crate::KernelShape;
use crate::kernels::Kernel;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelKind};
use trit_format::tile;

/// Alignment of weights, and of what block kernels read and work in, in bytes.
const LINE: usize = 64;

/// Some tiles and the rows of activations that they are multiplied with. For a kernel, the groups of a tile are tiles,
/// each with its own columns of the activations, and the digits of an activation are rows.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// Columns of a tile and how it is stored.
    pub shape: KernelShape,
    /// Codes of whole tiles.
    pub weights: &'a [u8],
    /// Activations from the first row on.
    pub activations: &'a [i8],
    /// Bytes from one row to the next.
    pub activation_stride: usize,
    /// Whether each tile is multiplied with the next columns and uses the next sums, as groups do.
    pub advances: bool,
    /// The sums of the activations, from those of the first row on.
    pub sums: &'a [i32],
    /// Sums from one row to the next.
    pub sum_stride: usize,
    /// Number of rows of activations.
    pub rows: usize,
}

impl Call<'_> {
    fn columns(&self) -> usize {
        self.shape.k as usize
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.weights.len() / tile::bytes(self.columns())
    }

    /// Writes the sums, `[rows, tiles, tile_rows]`, with the portable kernel.
    pub fn portable(&self, out: &mut [i32]) {
        let columns = self.columns();
        let in_tile = self.shape.code.tile_rows();
        let stride = self.tiles() * in_tile;
        let at_once = if self.advances { tile::bytes(columns) } else { self.weights.len().max(1) };
        for (part, weights) in self.weights.chunks(at_once).enumerate() {
            let (activations, out) = (&self.activations[part * columns..], &mut out[part * in_tile..]);
            trit_kernels::ternary::portable(
                weights,
                columns,
                self.shape.code,
                activations,
                self.activation_stride,
                self.rows,
                out,
                stride,
            );
        }
    }

    /// Writes the sums, `[rows, tiles, tile_rows]`, with a kernel. `scratch` is the working memory of block kernels.
    ///
    /// # Panics
    /// If the kernel is for another shape or number of rows, or a slice is too short or not aligned for it.
    pub fn code(&self, kernel: &Kernel, scratch: &mut [u8], out: &mut [i32]) {
        let (columns, tiles, before) = (self.columns(), self.tiles(), self.rows.wrapping_sub(1));
        let stride = tiles * self.shape.code.tile_rows();
        let (advance, sum_advance) = if self.advances { (columns, 1) } else { (0, 0) };
        let (align, row) = match kernel.spec.kind {
            KernelKind::Stream => {
                assert!(kernel.spec.m as usize == self.rows);
                (tile::QUAD, tile::padded_k(columns))
            }
            KernelKind::Block => {
                // A block kernel reads whole steps of columns, and does not advance from group to group.
                assert!(tiles == 1 || !self.advances);
                assert!(scratch.len() >= kernel.spec.scratch_bytes(self.rows));
                assert!(scratch.as_ptr().addr().is_multiple_of(LINE));
                (LINE, columns.next_multiple_of(BLOCK_COLUMNS))
            }
            // Kernels of other kinds are not called so.
            other => unreachable!("kernels of kind {other:?}"),
        };
        assert!(kernel.shape() == self.shape && self.rows > 0 && tiles > 0);
        assert!(self.weights.as_ptr().addr().is_multiple_of(LINE));
        assert!(self.activations.as_ptr().addr().is_multiple_of(align));
        assert!(self.activation_stride.is_multiple_of(align) && advance.is_multiple_of(tile::QUAD));
        assert!(self.activations.len() >= before * self.activation_stride + (tiles - 1) * advance + row);
        assert!(self.sums.len() > before * self.sum_stride + (tiles - 1) * sum_advance);
        assert!(out.len() >= self.rows * stride);
        let args = KernelArgs {
            weights: self.weights.as_ptr(),
            activations: self.activations.as_ptr(),
            sums: self.sums.as_ptr(),
            out: out.as_mut_ptr(),
            tiles: tiles as u64,
            activation_stride: self.activation_stride as u64,
            sum_stride: self.sum_stride as u64,
            out_stride: stride as u64,
            rows: self.rows as u64,
            scratch: scratch.as_mut_ptr(),
            activation_advance: advance as u64,
            sum_advance: sum_advance as u64,
            ..KernelArgs::NOTHING
        };
        // SAFETY: a `Kernel` does what its specification says and runs on this CPU; that it is for these columns, this
        // code and these rows, that every slice holds what it reads and writes, and that all are aligned, was asserted
        // above. Kernels touch nothing else.
        unsafe { (kernel.entry)(&args) };
    }
}

/// Some tiles in groups of columns and the rows of activations that they are multiplied with, each of one int8 digit.
#[derive(Clone, Copy)]
pub(crate) struct GroupedCall<'a> {
    /// Columns of a group and how it is stored.
    pub shape: KernelShape,
    /// Number of groups of a tile.
    pub groups: usize,
    /// Tiles, each of whose first bytes are the codes of its groups.
    pub weights: &'a [u8],
    /// Bytes from one tile to the next.
    pub tile_bytes: usize,
    /// The scales of the weights, `[tiles, groups, tile_rows]`.
    pub weight_scales: &'a [f32],
    /// Activations from the first row on.
    pub activations: &'a [i8],
    /// Bytes from one row to the next.
    pub activation_stride: usize,
    /// The scales of the activations from those of the first row on, and how many elements the next row's are apart.
    pub activation_scales: &'a [f32],
    pub activation_scale_stride: usize,
    /// The sums of the activations, likewise.
    pub sums: &'a [i32],
    pub sum_stride: usize,
    /// Number of rows of activations.
    pub rows: usize,
}

impl GroupedCall<'_> {
    /// Adds the sums of all groups, times their scales, to the totals `[rows, tiles, tile_rows]`.
    ///
    /// # Panics
    /// If the kernel is of another kind or for another shape, or a slice is too short or not aligned for it.
    pub fn add(&self, kernel: &Kernel, scratch: &mut [u8], totals: &mut [f32]) {
        let (columns, before) = (self.shape.k as usize, self.rows.wrapping_sub(1));
        let tiles = self.weights.len() / self.tile_bytes;
        let stride = tiles * self.shape.code.tile_rows();
        assert!(kernel.spec.kind == KernelKind::Grouped && kernel.shape() == self.shape);
        assert!(self.rows > 0 && tiles > 0 && self.groups > 0);
        assert!(self.tile_bytes.is_multiple_of(LINE) && self.weights.as_ptr().addr().is_multiple_of(LINE));
        assert!(self.tile_bytes >= self.groups * tile::bytes(columns));
        assert!(self.weight_scales.len() >= self.groups * stride);
        assert!(self.activation_stride.is_multiple_of(LINE));
        assert!(self.activations.as_ptr().addr().is_multiple_of(LINE));
        assert!(self.activations.len() >= before * self.activation_stride + self.groups * columns);
        assert!(self.activation_scales.len() >= before * self.activation_scale_stride + self.groups);
        assert!(self.sums.len() >= before * self.sum_stride + self.groups);
        assert!(totals.len() >= self.rows * stride);
        assert!(scratch.len() >= kernel.spec.scratch_bytes(self.rows));
        assert!(scratch.as_ptr().addr().is_multiple_of(LINE));
        let args = KernelArgs {
            weights: self.weights.as_ptr(),
            activations: self.activations.as_ptr(),
            sums: self.sums.as_ptr(),
            out: totals.as_mut_ptr().cast(),
            tiles: tiles as u64,
            activation_stride: self.activation_stride as u64,
            sum_stride: self.sum_stride as u64,
            out_stride: stride as u64,
            rows: self.rows as u64,
            scratch: scratch.as_mut_ptr(),
            weight_scales: self.weight_scales.as_ptr(),
            activation_scales: self.activation_scales.as_ptr(),
            activation_scale_stride: self.activation_scale_stride as u64,
            groups: self.groups as u64,
            weight_stride: self.tile_bytes as u64,
            ..KernelArgs::NOTHING
        };
        // SAFETY: as in [`Call::code`].
        unsafe { (kernel.entry)(&args) };
    }
}
