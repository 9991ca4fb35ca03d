//! Multiplies a packed matrix with rows of activations, by whatever kernels there are, behind a safe interface.
//!
//! Sizes are checked where a [`MatrixRef`] and a [`Pass`] are made. Going over tiles then checks only the tiles' range.

use crate::call::Call;
use crate::kernels::Kernel;
use crate::{Activations, AlignedMemory, GemmError, Kernels, Layout};
use std::ops::Range;
use trit_format::kernel::BLOCK_COLUMNS;

mod groups;

/// Most tiles in one call for one row. They are enough to hide the cost of a call, and few enough for their sums to
/// stay in L1.
const TILES_PER_CALL: usize = 64;
/// Tiles in one call of a block kernel, which decodes two at a time.
const BLOCK_TILES: usize = 2;

/// Borrowed packed tiles, with the kernels that multiply them.
#[derive(Clone, Copy)]
pub struct MatrixRef<'a> {
    layout: Layout,
    weights: &'a [u8],
    tiles: usize,
    kernels: &'a Kernels,
}

impl<'a> MatrixRef<'a> {
    /// Whole tiles of `layout`. Bytes that encode no trits give some number.
    ///
    /// # Errors
    /// [`GemmError::Length`] if `weights` is not whole tiles, [`GemmError::Alignment`] if machine code would read them and
    /// they are not at a multiple of 64 bytes, [`GemmError::Kernels`] if the kernels are for another shape.
    pub fn new(layout: Layout, weights: &'a [u8], kernels: &'a Kernels) -> Result<MatrixRef<'a>, GemmError> {
        let tiles = weights.len() / layout.tile_bytes;
        if tiles * layout.tile_bytes != weights.len() || tiles == 0 {
            let expected = tiles.max(1) * layout.tile_bytes;
            return Err(GemmError::Length {
                what: "weights, in bytes of whole tiles",
                expected,
                found: weights.len(),
            });
        }
        kernels.fit(layout.shape)?;
        if kernels.code().is_some() && !weights.as_ptr().addr().is_multiple_of(64) {
            return Err(GemmError::Alignment { what: "weights", bytes: 64 });
        }
        Ok(MatrixRef { layout, weights, tiles, kernels })
    }

    /// The layout of its tiles.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    /// Writes the weights of row `row`, counted from the first tile on: trits, times their scales if there are groups.
    ///
    /// # Errors
    /// [`GemmError::Tiles`] where there is no such row, [`GemmError::Length`] where `out` is not `[k]`.
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<(), GemmError> {
        let layout = &self.layout;
        if out.len() != layout.k {
            return Err(GemmError::Length {
                what: "a row of weights `[k]`",
                expected: layout.k,
                found: out.len(),
            });
        }
        let (tile, row) = (row / layout.tile_rows(), row % layout.tile_rows());
        self.check(&(tile..tile + 1))?;
        let scales = layout.scales(self.weights, tile);
        for (g, out) in out.chunks_mut(layout.columns).enumerate() {
            let codes = layout.codes(self.weights, tile, &(g..g + 1));
            trit_kernels::ternary::row(codes, layout.shape.code, row, out);
            if layout.groups.is_some() {
                let scale = scales.one(g, row);
                out.iter_mut().for_each(|weight| *weight *= scale);
            }
        }
        Ok(())
    }

    #[inline]
    fn check(&self, range: &Range<usize>) -> Result<(), GemmError> {
        match range.start <= range.end && range.end <= self.tiles {
            true => Ok(()),
            false => Err(GemmError::Tiles { range: range.clone(), tiles: self.tiles }),
        }
    }

    /// Prepares the product of this matrix with `input`. It works in the memory of `scratch`.
    ///
    /// # Errors
    /// [`GemmError::Activations`] where rows, scales or sums of `input` do not suit the matrix.
    pub fn pass<'s>(
        &self,
        input: Activations<'a>,
        scratch: &'s mut Scratch,
    ) -> Result<Pass<'a, 's>, GemmError> {
        Pass::new(*self, input, scratch)
    }
}

/// A thread's memory for products, kept from pass to pass.
#[derive(Default)]
pub struct Scratch {
    /// Integer results. That of activation row `r`, tile `t` and tile row `i` stands at
    /// `(r * tiles + t) * tile_rows + i`.
    sums: Vec<i32>,
    /// Totals over groups as floats, `[rows of activations, tile_rows]`.
    totals: Vec<f32>,
    /// A copy of the activations' sums without gaps.
    packed: Vec<i32>,
    /// The scales of some tiles' weights, widened.
    weight_scales: Vec<f32>,
    /// The working memory of block kernels.
    block: Option<AlignedMemory>,
}

/// Makes sure that block kernels have at least `bytes` bytes to work in. Returns false if memory is refused.
fn block_memory(block: &mut Option<AlignedMemory>, bytes: usize) -> bool {
    if block.as_ref().is_none_or(|m| m.len() < bytes) {
        *block = AlignedMemory::new(1, bytes, "a block of activations").ok();
    }
    block.is_some()
}

/// `len` elements of memory that grows as needed, from the beginning of a line of the cache on: a vector that lies in two lines
/// costs twice as much. They may hold anything.
fn resized<T: Copy + Default>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    const LINE: usize = 64;
    let most = len + LINE / size_of::<T>() - 1;
    if memory.len() < most {
        memory.resize(most, T::default());
    }
    // It is in elements, and less than a line's.
    let start = memory.as_ptr().align_offset(LINE).min(most - len);
    &mut memory[start..][..len]
}

/// A matrix and rows of activations that suit each other. Every thread has a pass of its own for the tiles that it
/// takes.
pub struct Pass<'a, 's> {
    matrix: MatrixRef<'a>,
    input: Activations<'a>,
    scratch: &'s mut Scratch,
    /// The block kernel, or of a matrix with groups that which turns their sums into floats, if one is used. Its working
    /// memory is in `scratch`.
    block: Option<&'a Kernel>,
    /// Number of int8 digits of an activation.
    digits: usize,
    /// Whether the activations' sums were copied to `scratch`, without gaps.
    packed: bool,
}

impl<'a, 's> Pass<'a, 's> {
    fn new(
        matrix: MatrixRef<'a>,
        input: Activations<'a>,
        scratch: &'s mut Scratch,
    ) -> Result<Pass<'a, 's>, GemmError> {
        let layout = &matrix.layout;
        let unfit = |problem: String| Err(GemmError::Activations { problem });
        let (digits, sums) = match layout.groups {
            None if input.stride() < layout.digit_len() => {
                let (found, least) = (input.stride(), layout.digit_len());
                return unfit(format!("rows have {found} bytes, at least {least} are needed"));
            }
            None => (1, 1),
            Some(groups) => {
                let digits = input.stride() / groups.digit_len;
                if ![1, 3].contains(&digits) || digits * groups.digit_len != input.stride() {
                    let (found, one) = (input.stride(), groups.digit_len);
                    return unfit(format!("rows have {found} bytes, expected one digit of {one} or three"));
                }
                let scales = input.scales_of(0).len();
                if scales < groups.count {
                    return unfit(format!("rows have {scales} scales, there are {} groups", groups.count));
                }
                (digits, digits * groups.count)
            }
        };
        if input.sums_a_row() != sums {
            return unfit(format!("rows have {} sums, expected {sums}", input.sums_a_row()));
        }
        let rows = input.rows() * digits;
        // Block kernels read whole steps of columns, which must not reach into the next group.
        let whole_steps = layout.groups.is_none() || layout.columns.is_multiple_of(BLOCK_COLUMNS);
        let code = matrix.kernels.code();
        let mut fits = |kernel: &&Kernel| {
            let spec = kernel.spec;
            rows >= spec.m as usize && block_memory(&mut scratch.block, spec.scratch_bytes(rows))
        };
        let grouped = code.and_then(|code| code.grouped.as_ref());
        let grouped = grouped.filter(|_| layout.groups.is_some() && digits == 1).filter(&mut fits);
        let block = code.and_then(|code| code.block.as_ref()).filter(|_| whole_steps);
        let block = grouped.or_else(|| block.filter(fits));
        let of_rows = input.sums();
        let packed = layout.groups.is_some() && of_rows.stride != sums;
        if packed {
            scratch.packed.clear();
            let rows = of_rows.values.chunks_exact(of_rows.stride).take(input.rows());
            rows.for_each(|row| scratch.packed.extend_from_slice(&row[..sums]));
        }
        Ok(Pass { matrix, input, scratch, block, digits, packed })
    }

    /// The layout of the matrix's tiles.
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.matrix.layout
    }

    /// The rows of activations.
    #[inline]
    pub fn input(&self) -> &Activations<'a> {
        &self.input
    }

    /// How many tiles are best multiplied together: enough to hide the cost of a call, and few enough for their sums to
    /// stay in the cache.
    pub fn tiles_at_once(&self) -> usize {
        match (self.matrix.layout.groups, self.block, self.input.rows()) {
            (Some(_), ..) => groups::MOST_TILES,
            // A tile is read from memory once and multiplied with every row from the cache: the loop over rows is
            // inside.
            (None, Some(_), _) => BLOCK_TILES,
            (None, None, 1) => TILES_PER_CALL,
            (None, None, _) => 1,
        }
    }

    /// Computes the sums of `tiles` over whole rows, and calls `each(tile, row, sums)` for every tile and row of
    /// activations. Sums are exact for activations in -127..=127, and with up to 32768 columns for -128 too.
    ///
    /// # Errors
    /// [`GemmError::Tiles`] where there are no such tiles, [`GemmError::Grouping`] where the matrix has groups.
    #[inline]
    pub fn sums(
        &mut self,
        tiles: Range<usize>,
        mut each: impl FnMut(usize, usize, &[i32]),
    ) -> Result<(), GemmError> {
        self.matrix.check(&tiles)?;
        if self.matrix.layout.groups.is_some() {
            return Err(GemmError::Grouping { asked: "sums over whole rows", has: "groups" });
        }
        let most = self.tiles_at_once();
        for first in tiles.clone().step_by(most) {
            let tiles = first..(first + most).min(tiles.end);
            let in_tile = self.matrix.layout.tile_rows();
            let stride = tiles.len() * in_tile;
            for (row, sums) in self.whole(tiles.clone()).chunks_exact(stride).enumerate() {
                for (tile, sums) in tiles.clone().zip(sums.chunks_exact(in_tile)) {
                    each(tile, row, sums);
                }
            }
        }
        Ok(())
    }

    /// The sums `[rows, tiles, tile_rows]` of tiles that are multiplied together.
    fn whole(&mut self, tiles: Range<usize>) -> &[i32] {
        let (matrix, input) = (&self.matrix, &self.input);
        let Scratch { sums, block: memory, .. } = &mut *self.scratch;
        let (stride, of_rows) = (tiles.len() * matrix.layout.tile_rows(), input.sums());
        let out = resized(sums, input.rows() * stride);
        let tile_bytes = matrix.layout.tile_bytes;
        let call = |first: usize, rows: usize| Call {
            shape: matrix.layout.shape,
            weights: &matrix.weights[tiles.start * tile_bytes..tiles.end * tile_bytes],
            activations: input.digits(input.stride(), first..first + rows),
            activation_stride: input.stride(),
            advances: false,
            sums: &of_rows.values[first * of_rows.stride..],
            sum_stride: of_rows.stride,
            rows,
        };
        let Some(code) = matrix.kernels.code() else {
            call(0, input.rows()).portable(out);
            return out;
        };
        if let Some(block) = self.block {
            let memory = memory.as_mut().map_or(&mut [][..], AlignedMemory::bytes_mut);
            call(0, input.rows()).code(block, memory, out);
            return out;
        }
        let mut row = 0;
        while row < input.rows() {
            let kernel = code.stream(input.rows() - row);
            let rows = kernel.spec.m as usize;
            call(row, rows).code(kernel, &mut [], &mut out[row * stride..]);
            row += rows;
        }
        out
    }
}
