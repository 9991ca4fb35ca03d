//! Products of tiles whose groups of columns have scales: kernels give the sums of each group, which then become
//! floats.
//!
//! For a kernel, the groups of a tile are tiles of few columns, each with its own columns of the activations, and the
//! int8 digits of a float activation are rows of activations. Floats are added group after group with every kernel, so
//! results do not depend on the kernel. For blocks of rows of one digit some tiers have kernels that add the floats
//! themselves.

use super::{MatrixRef, Pass, Scratch, resized};
use crate::call::{Call, GroupedCall};
use crate::kernels::Kernel;
use crate::layout::Groups;
use crate::{Activations, AlignedMemory, GemmError};
use std::ops::Range;
use trit_format::kernel::KernelKind;
use trit_kernels::epilogue::{GroupSums, add_groups};

/// Most tiles that a worker takes at a time.
pub(super) const MOST_TILES: usize = 16;
/// Most groups in one call for a few rows.
const GROUPS_PER_CALL: usize = 32;
/// About how many sums a kernel writes before they become floats. They stay in L1 or near it.
const SUMS: usize = 12 << 10;
/// Activation rows, each digit counted, that are multiplied with a tile together by kernels for a few rows; below, by
/// block kernels.
const ROWS: usize = 24;
const BLOCK_ROWS: usize = 64;
/// Tiles that are multiplied together by kernels that add floats.
const GROUPED_TILES: usize = 2;

/// The operands of a call, without the memory that it writes to, which is borrowed separately.
struct Operands<'b, 'a> {
    matrix: &'b MatrixRef<'a>,
    input: &'b Activations<'a>,
    groups: Groups,
    digits: usize,
    block: Option<&'a Kernel>,
    /// The activations' sums, `[rows, digits, groups]` without gaps.
    activation_sums: &'b [i32],
}

impl Pass<'_, '_> {
    /// How many rows of activations, and how many groups, are handled together.
    fn together(&self) -> (usize, usize) {
        let digits = self.digits;
        match self.block {
            Some(_) => ((BLOCK_ROWS / digits).max(1), 1),
            None => {
                let rows = self.input.rows().min((ROWS / digits).max(1));
                let groups = SUMS / (rows * digits * self.matrix.layout.tile_rows());
                (rows, groups.clamp(1, GROUPS_PER_CALL))
            }
        }
    }

    fn groups(&self) -> Result<Groups, GemmError> {
        let error = GemmError::Grouping { asked: "sums of groups", has: "no groups" };
        self.matrix.layout.groups.ok_or(error)
    }

    /// Computes the totals of `tiles`: the sums of all groups, each times the scales of its activations and of its
    /// weights, added up. Calls `each(tile, row, totals)` for every tile and row of activations.
    ///
    /// # Errors
    /// [`GemmError::Tiles`] where there are no such tiles, [`GemmError::Grouping`] where the matrix has no groups.
    #[inline]
    pub fn totals(
        &mut self,
        tiles: Range<usize>,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), GemmError> {
        self.matrix.check(&tiles)?;
        let groups = self.groups()?;
        let (together, _) = self.together();
        let in_tile = self.matrix.layout.tile_rows();
        let rows = self.input.rows();
        let parts = move || (0..rows).step_by(together).map(move |first| first..(first + together).min(rows));
        let grouped = self.block.filter(|kernel| kernel.spec.kind == KernelKind::Grouped);
        let tiles_together = grouped.map_or(1, |_| GROUPED_TILES);
        let (first, end) = (tiles.start, tiles.end);
        let tiles = (first..end).step_by(tiles_together).map(|t| t..(t + tiles_together).min(end));
        let mut run = |rows: Range<usize>, tiles: Range<usize>| {
            let totals = match grouped {
                Some(kernel) => self.grouped_totals(kernel, groups, &tiles, &rows),
                None => self.total(groups, tiles.start, &rows),
            };
            for (row, totals) in rows.zip(totals.chunks_exact(tiles.len() * in_tile)) {
                let of_tiles = tiles.clone().zip(totals.chunks_exact(in_tile));
                of_tiles.for_each(|(tile, totals)| each(tile, row, totals));
            }
        };
        // With many rows their activations stay in L2 while all tiles are multiplied with them; with few, a tile does.
        if rows > 2 * together {
            parts().for_each(|rows| tiles.clone().for_each(|tiles| run(rows.clone(), tiles)));
        } else {
            tiles.for_each(|tiles| parts().for_each(|rows| run(rows, tiles.clone())));
        }
        Ok(())
    }

    /// [`Pass::totals`] of one tile for rows that are handled together, `[rows, tile_rows]`.
    fn total(&mut self, groups: Groups, tile: usize, rows: &Range<usize>) -> &[f32] {
        let (_, at_once) = self.together();
        let in_tile = self.matrix.layout.tile_rows();
        let Scratch { sums, totals, packed, block, .. } = &mut *self.scratch;
        let operands = Operands {
            matrix: &self.matrix,
            input: &self.input,
            groups,
            digits: self.digits,
            block: self.block,
            activation_sums: if self.packed { packed } else { self.input.sums().values },
        };
        let (scales, of_rows) =
            (self.matrix.layout.scales(self.matrix.weights, tile), self.input.all_scales());
        let totals = resized(totals, rows.len() * in_tile);
        totals.fill(0.0);
        for from in (0..groups.count).step_by(at_once) {
            let part = from..(from + at_once).min(groups.count);
            let sums = resized(sums, rows.len() * self.digits * part.len() * in_tile);
            operands.sums(tile, &part, rows, block, sums);
            let sums = GroupSums {
                sums,
                digits: self.digits,
                first: part.start,
                groups: part.len(),
                scales: &of_rows.values[rows.start * of_rows.stride..],
                scale_stride: of_rows.stride,
            };
            add_groups(&sums, scales, totals);
        }
        totals
    }

    /// The same of `tiles`, `[rows, tiles, tile_rows]`, by a kernel that adds the floats.
    fn grouped_totals(
        &mut self,
        kernel: &Kernel,
        groups: Groups,
        tiles: &Range<usize>,
        rows: &Range<usize>,
    ) -> &[f32] {
        let (matrix, layout, input) = (&self.matrix, &self.matrix.layout, &self.input);
        let Scratch { totals, packed, weight_scales, block, .. } = &mut *self.scratch;
        let stride = tiles.len() * layout.tile_rows();
        let totals = resized(totals, rows.len() * stride);
        totals.fill(0.0);
        let weight_scales = resized(weight_scales, groups.count * stride);
        let of_tile = groups.count * layout.tile_rows();
        for (tile, scales) in tiles.clone().zip(weight_scales.chunks_exact_mut(of_tile)) {
            layout.scales(matrix.weights, tile).widen(scales);
        }
        let (scales, sums) = (input.all_scales(), if self.packed { packed } else { input.sums().values });
        let call = GroupedCall {
            shape: layout.shape,
            groups: groups.count,
            weights: &matrix.weights[tiles.start * layout.tile_bytes..tiles.end * layout.tile_bytes],
            tile_bytes: layout.tile_bytes,
            weight_scales,
            activations: input.digits(groups.digit_len, rows.clone()),
            activation_stride: groups.digit_len,
            activation_scales: &scales.values[rows.start * scales.stride..],
            activation_scale_stride: scales.stride,
            sums: &sums[rows.start * groups.count..],
            sum_stride: groups.count,
            rows: rows.len(),
        };
        call.add(kernel, block.as_mut().map_or(&mut [][..], AlignedMemory::bytes_mut), totals);
        totals
    }

    /// The integer sums of every group of one tile for one row of activations, `[digits, groups, tile_rows]`, exact and
    /// without any scale.
    ///
    /// # Errors
    /// [`GemmError::Tiles`] where there is no such tile, [`GemmError::Grouping`] where the matrix has no groups,
    /// [`GemmError::Activations`] where there is no such row.
    pub fn group_sums(&mut self, tile: usize, row: usize) -> Result<&[i32], GemmError> {
        self.matrix.check(&(tile..tile + 1))?;
        let groups = self.groups()?;
        if row >= self.input.rows() {
            let problem = format!("row {row} was asked for, and there are {}", self.input.rows());
            return Err(GemmError::Activations { problem });
        }
        let Scratch { sums, packed, .. } = &mut *self.scratch;
        let operands = Operands {
            matrix: &self.matrix,
            input: &self.input,
            groups,
            digits: self.digits,
            // A block kernel does not go from group to group.
            block: None,
            activation_sums: if self.packed { packed } else { self.input.sums().values },
        };
        let out = resized(sums, self.digits * groups.count * self.matrix.layout.tile_rows());
        operands.sums(tile, &(0..groups.count), &(row..row + 1), &mut None, out);
        Ok(out)
    }
}

impl Operands<'_, '_> {
    /// The integer sums of some groups of a tile for rows `rows`: `[rows, digits, groups, tile_rows]`.
    fn sums(
        &self,
        tile: usize,
        groups: &Range<usize>,
        rows: &Range<usize>,
        block_memory: &mut Option<AlignedMemory>,
        out: &mut [i32],
    ) {
        let layout = &self.matrix.layout;
        let Groups { count, digit_len, .. } = self.groups;
        let stride = groups.len() * layout.tile_rows();
        let (first, end) = (rows.start * self.digits, rows.end * self.digits);
        let codes = layout.codes(self.matrix.weights, tile, groups);
        let call = |row: usize, rows: usize| Call {
            shape: layout.shape,
            weights: codes,
            activations: &self.input.digits(digit_len, row..row + rows)[groups.start * layout.columns..],
            activation_stride: digit_len,
            advances: true,
            sums: &self.activation_sums[row * count + groups.start..],
            sum_stride: count,
            rows,
        };
        let Some(code) = self.matrix.kernels.code() else {
            return call(first, end - first).portable(out);
        };
        if let Some(block) = self.block {
            let memory = block_memory.as_mut().map_or(&mut [][..], AlignedMemory::bytes_mut);
            return call(first, end - first).code(block, memory, out);
        }
        let mut row = first;
        while row < end {
            let kernel = code.stream(end - row);
            let rows = kernel.spec.m as usize;
            call(row, rows).code(kernel, &mut [], &mut out[(row - first) * stride..]);
            row += rows;
        }
    }
}
