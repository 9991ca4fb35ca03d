//! Products of the owned matrix. Tiles are shared out among the threads of rayon's current pool.

use super::{Held, Precision, TernaryMatrix, View};
use crate::memory::zeros;
use crate::{Activations, GemmError, Layout, MatrixRef, Pass, QuantizedRows, Scratch};
use rayon::prelude::*;
use std::ops::Range;
use trit_format::plan::{ActivationRule, ScaleRule};
use trit_format::tile;
use trit_kernels::epilogue::{self, Scale};
use trit_kernels::quantize::{QuantizedRow, per_token, quantize};

/// Most tiles that a thread takes at a time.
const MOST_TILES: usize = 64;
/// Shares of the tiles for each thread, so that slow threads do not hold everybody up.
const SHARES: usize = 4;
/// Least absolute maximum of a row of int8 activations, as in BitNet.
const FLOOR: f32 = 1e-5;

impl TernaryMatrix {
    /// Exact sums of trits times int8 activations, without the scales: row-major `[m, k]` to `[m, n]`.
    ///
    /// # Errors
    /// [`GemmError::Length`] if `activations` is not whole rows, [`GemmError::GroupScales`] if groups of columns have scales,
    /// which sums over whole rows cannot be multiplied by, [`GemmError::Memory`] if memory is refused.
    pub fn gemm_i8(&self, activations: &[i8]) -> Result<Vec<i32>, GemmError> {
        let mut out = zeros(self.count(activations.len())?, self.n, "results")?;
        self.gemm_i8_into(activations, &mut out)?;
        Ok(out)
    }

    /// [`TernaryMatrix::gemm_i8`] into `out`, row-major `[m, n]`.
    ///
    /// # Errors
    /// As there; [`GemmError::Length`] where `out` is of another length.
    pub fn gemm_i8_into(&self, activations: &[i8], out: &mut [i32]) -> Result<(), GemmError> {
        let m = self.count(activations.len())?;
        self.fits(m, out.len())?;
        if let Held::Groups = self.scales {
            return Err(GemmError::GroupScales);
        }
        if m == 0 {
            return Ok(());
        }
        let view = self.whole.as_ref().unwrap_or(&self.groups);
        let rows = self.int8_rows(view, m, |r, values| {
            values.copy_from_slice(&activations[r * self.k..][..self.k]);
            1.0
        })?;
        let in_tile = self.code.tile_rows();
        self.over_tiles(view, rows.all(), out, |pass, tiles, parts| {
            whole_sums(pass, tiles, |tile, row, sums| put(sums, &mut parts[row][tile * in_tile..]))
        })
    }

    /// The matrix, with its scales, times float activations, row-major `[m, k]` to `[m, n]`. A row of activations with
    /// infinity or NaN gives NaN.
    ///
    /// # Errors
    /// [`GemmError::Length`] where `x` is no whole rows, [`GemmError::Memory`] where memory is refused.
    pub fn gemm(&self, x: &[f32], precision: Precision) -> Result<Vec<f32>, GemmError> {
        let mut out = zeros(self.count(x.len())?, self.n, "results")?;
        self.gemm_into(x, precision, &mut out)?;
        Ok(out)
    }

    /// [`TernaryMatrix::gemm`] into `out`, row-major `[m, n]`.
    ///
    /// # Errors
    /// As there; [`GemmError::Length`] where `out` is of another length.
    pub fn gemm_into(&self, x: &[f32], precision: Precision, out: &mut [f32]) -> Result<(), GemmError> {
        let m = self.count(x.len())?;
        self.fits(m, out.len())?;
        if m == 0 {
            return Ok(());
        }
        let columns = self.groups.layout.kernel_shape().k;
        match precision {
            Precision::Int8PerToken => self.by_token(x, m, out),
            Precision::Int8PerGroup => self.by_group(x, m, ActivationRule::AbsmaxPerGroup { columns }, out),
            Precision::Float => self.by_group(x, m, ActivationRule::Fixed24PerGroup { columns }, out),
        }
    }

    /// Multiplies with int8 activations that have one scale a row.
    fn by_token(&self, x: &[f32], m: usize, out: &mut [f32]) -> Result<(), GemmError> {
        let quantized = |r: usize, values: &mut [i8]| per_token(&x[r * self.k..][..self.k], FLOOR, values).0;
        if let Held::Groups = self.scales {
            // The row's factor divides each group's sum, so its reciprocal is the scale of every group.
            let rows = self.int8_rows(&self.groups, m, |r, values| 1.0 / quantized(r, values))?;
            return self.scaled_totals(rows.all(), out);
        }
        let view = self.whole.as_ref().unwrap_or(&self.groups);
        let rows = self.int8_rows(view, m, quantized)?;
        let (rows, in_tile) = (rows.all(), self.code.tile_rows());
        self.over_tiles(view, rows, out, |pass, tiles, parts| {
            let from = tiles.start * in_tile;
            whole_sums(pass, tiles, |tile, row, sums| {
                let (s, rule) = (rows.scales_of(row)[0], ScaleRule::Multiply);
                let at = tile * in_tile;
                let out = first(&mut parts[row][at..], in_tile);
                let sums = &sums[..out.len()];
                match &self.scales {
                    Held::Rows(scales) => {
                        let scales = &scales[from + at..][..out.len()];
                        for ((y, &sum), &w) in out.iter_mut().zip(sums).zip(scales) {
                            *y = epilogue::scale(sum, s, w, rule);
                        }
                    }
                    Held::Tensor(w) => epilogue::store(sums, Scale { s, w: *w, rule }, out),
                    Held::Groups => {}
                }
            })
        })
    }

    /// Multiplies with activations that have one scale for each group of columns, of one digit or three.
    fn by_group(&self, x: &[f32], m: usize, rule: ActivationRule, out: &mut [f32]) -> Result<(), GemmError> {
        let layout = &self.groups.layout;
        let groups = layout.groups().unwrap_or(1);
        let digits = rule.digits();
        let mut rows = QuantizedRows::new(m, digits * layout.digit_len(), groups, digits * groups)?;
        let inputs = x.par_chunks_exact(self.k);
        rows.rows_mut().into_par_iter().zip(inputs).for_each(|(row, x)| quantize(x, rule, row));
        self.scaled_totals(rows.all(), out)
    }

    /// Writes the totals of groups, times the scales that the matrix holds beside its tiles.
    fn scaled_totals(&self, input: Activations, out: &mut [f32]) -> Result<(), GemmError> {
        let in_tile = self.code.tile_rows();
        self.over_tiles(&self.groups, input, out, |pass, tiles, parts| {
            let (start, from) = (tiles.start, tiles.start * in_tile);
            pass.totals(tiles, |tile, row, totals| {
                let at = (tile - start) * in_tile;
                let out = first(&mut parts[row][at..], in_tile);
                let totals = &totals[..out.len()];
                match &self.scales {
                    Held::Groups => out.copy_from_slice(totals),
                    Held::Tensor(w) => out.iter_mut().zip(totals).for_each(|(y, total)| *y = total * w),
                    Held::Rows(scales) => {
                        let scales = &scales[from + at..][..out.len()];
                        out.iter_mut().zip(totals).zip(scales).for_each(|((y, total), w)| *y = total * w);
                    }
                }
            })
        })
    }

    /// Rows of one digit in the layout of `view`. `fill` writes the `[k]` values of a row and returns its scale.
    fn int8_rows(
        &self,
        view: &View,
        m: usize,
        fill: impl Fn(usize, &mut [i8]) -> f32 + Sync,
    ) -> Result<QuantizedRows, GemmError> {
        let layout: &Layout = &view.layout;
        let groups = layout.groups().unwrap_or(1);
        let columns = layout.kernel_shape().k as usize;
        let mut rows = QuantizedRows::new(m, layout.digit_len(), groups, groups)?;
        let each = |(r, row): (usize, QuantizedRow)| {
            let QuantizedRow { values, scales, sums } = row;
            let values = &mut values[..self.k];
            scales.fill(fill(r, values));
            for (sum, values) in sums.iter_mut().zip(values.chunks(columns)) {
                *sum = values.iter().map(|&q| i32::from(q)).sum();
            }
        };
        rows.rows_mut().into_par_iter().enumerate().for_each(each);
        Ok(rows)
    }

    /// How many rows of activations `len` elements are.
    fn count(&self, len: usize) -> Result<usize, GemmError> {
        match len.is_multiple_of(self.k) {
            true => Ok(len / self.k),
            false => {
                let expected = len.next_multiple_of(self.k);
                Err(GemmError::Length { what: "the activations `[m, k]`", expected, found: len })
            }
        }
    }

    /// Checks that `found` elements are the results of `m` rows.
    fn fits(&self, m: usize, found: usize) -> Result<(), GemmError> {
        match m.checked_mul(self.n) {
            Some(expected) if expected == found => Ok(()),
            expected => {
                let expected = expected.unwrap_or(usize::MAX);
                Err(GemmError::Length { what: "the results `[m, n]`", expected, found })
            }
        }
    }

    /// Shares the tiles out among threads. `work` writes the results of some tiles; for each row of activations it gets
    /// the part of `out` that these are.
    fn over_tiles<T: Send>(
        &self,
        view: &View,
        input: Activations,
        out: &mut [T],
        work: impl Fn(&mut Pass, Range<usize>, &mut [&mut [T]]) -> Result<(), GemmError> + Sync,
    ) -> Result<(), GemmError> {
        let matrix = MatrixRef::new(view.layout, self.memory.bytes(), &view.kernels)?;
        let tiles = matrix.tiles();
        let most = tiles.div_ceil(SHARES * rayon::current_num_threads()).clamp(1, MOST_TILES);
        let mut shares: Vec<(Range<usize>, Vec<&mut [T]>)> = (0..tiles)
            .step_by(most)
            .map(|first| (first..(first + most).min(tiles), Vec::with_capacity(input.rows())))
            .collect();
        for row in out.chunks_exact_mut(self.n) {
            let mut rest = row;
            for (tiles, parts) in &mut shares {
                let width = (tiles.len() * self.code.tile_rows()).min(rest.len());
                let part;
                (part, rest) = rest.split_at_mut(width);
                parts.push(part);
            }
        }
        shares.into_par_iter().try_for_each_init(Scratch::default, |scratch, (tiles, mut parts)| {
            work(&mut matrix.pass(input, scratch)?, tiles, &mut parts)
        })
    }
}

/// The sums over whole rows, for activations of one digit, whether or not kernels go over groups. `each` gets the index
/// of a tile counted from the first of `tiles`.
fn whole_sums(
    pass: &mut Pass,
    tiles: Range<usize>,
    mut each: impl FnMut(usize, usize, &[i32]),
) -> Result<(), GemmError> {
    let (start, in_tile) = (tiles.start, pass.layout().tile_rows());
    if pass.layout().groups().is_none() {
        return pass.sums(tiles, |tile, row, sums| each(tile - start, row, sums));
    }
    for tile in tiles {
        for row in 0..pass.input().rows() {
            let mut total = [0; tile::MAX_ROWS];
            for sums in pass.group_sums(tile, row)?.chunks_exact(in_tile) {
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
            each(tile - start, row, &total[..in_tile]);
        }
    }
    Ok(())
}

/// The first elements of `out`, at most one for each row of a tile. The last tile may have fewer rows of the matrix.
fn first<T>(out: &mut [T], in_tile: usize) -> &mut [T] {
    let len = out.len().min(in_tile);
    &mut out[..len]
}

fn put(sums: &[i32], out: &mut [i32]) {
    let out = first(out, sums.len());
    out.copy_from_slice(&sums[..out.len()]);
}
