//! Floats that are ternary but for rounding in a few groups.
//!
//! Some published floats were multiplied with their scales and rounded again, so that a few groups hold magnitudes a
//! little apart from their scale. A matrix is taken for such a one if nearly all of its groups are exactly ternary; their
//! size is then that of all groups. Every other group must be within [`MOST`] of `-s`, `0` or `s`, where `s` is its most
//! frequent magnitude. It is read with these values only where the user accepts the error.

use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::model::float::FloatType;
use crate::model::{Rounded, Scales, Ternary, TernaryRows};
use crate::weights::dense::not_finite;
use crate::weights::scale_scan::{Magnitude, UNIT, widen};
use rayon::prelude::*;
use std::sync::Arc;

/// Largest error relative to the scale for which floats count as rounded. Beyond it they are other numbers.
pub(crate) const MOST: f32 = 0.1;

/// Sizes of groups, the coarsest first; 0 stands for whole rows.
const SIZES: [usize; 5] = [0, 256, 128, 64, 32];

/// Of how many groups one may be inexact.
const FEW: u64 = 16;

/// Rows that one thread looks at in one go.
const ROWS: usize = 64;

/// A matrix that is ternary but for rounding.
pub(super) struct Near {
    rows: NearRows,
    /// Columns of a group; 0 where all columns of a row are one.
    columns: usize,
    pub(super) rounded: Rounded,
}

/// Looks at a matrix that is not exactly ternary; `None` where it is not nearly so either.
///
/// # Errors
/// An element that is not finite.
pub(super) fn look(
    tensor: &RawTensor,
    float: FloatType,
    [rows, k]: [usize; 2],
) -> Result<Option<Near>, CompileError> {
    if tensor.tiled_heads.is_some() {
        return Ok(None);
    }
    let mut near = NearRows { tensor: tensor.clone(), float, k, columns: k };
    let starts = || (0..rows).step_by(ROWS).collect::<Vec<_>>().into_par_iter();
    let infinity = match float {
        FloatType::F32 => 0x7f80_0000,
        FloatType::F16 => 0x7c00,
        FloatType::Bf16 => 0x7f80,
    };
    let counted = starts().map(|start| {
        let (mut counts, mut row) = ([Count::default(); SIZES.len()], Vec::new());
        for at in start..(start + ROWS).min(rows) {
            near.magnitudes(at, &mut row)?;
            if row.iter().any(|&magnitude| magnitude >= infinity) {
                return Err(not_finite(tensor, float));
            }
            counts.iter_mut().zip(SIZES).for_each(|(count, size)| count.row(&row, size));
        }
        tensor.bytes.release();
        Ok(counts)
    });
    let counted: Vec<_> = counted.collect::<Result<_, CompileError>>()?;
    let sum = |size: usize| {
        counted.iter().fold(Count::default(), |sum, counts| Count {
            groups: sum.groups + counts[size].groups,
            inexact: sum.inexact + counts[size].inexact,
        })
    };
    let fits = |size: &usize| sum(*size).inexact * FEW <= sum(*size).groups;
    let Some(size) = (0..SIZES.len()).find(fits) else { return Ok(None) };
    let columns = SIZES[size];
    near.columns = if columns == 0 { k } else { columns };
    let errors = starts().map(|start| {
        let (mut worst, mut first, mut row) = (0f32, None, Vec::new());
        for at in start..(start + ROWS).min(rows) {
            near.magnitudes(at, &mut row)?;
            for (index, group) in row.chunks(near.columns).enumerate() {
                let error = near.error(group);
                if error > 0.0 {
                    first = first.or(Some((at, index * near.columns)));
                    worst = worst.max(error);
                }
            }
        }
        Ok((worst, first))
    });
    let errors: Vec<(f32, Option<(usize, usize)>)> = errors.collect::<Result<_, CompileError>>()?;
    tensor.bytes.release();
    let worst = errors.iter().fold(0f32, |worst, (error, _)| worst.max(*error));
    let Some(first) = errors.iter().find_map(|(_, first)| *first).filter(|_| worst <= MOST) else {
        return Ok(None);
    };
    let Count { groups, inexact } = sum(size);
    let rounded = Rounded { groups: inexact, of: groups, worst, first };
    Ok(Some(Near { rows: near, columns, rounded }))
}

impl Near {
    /// The matrix with every weight rounded to its group's scale or to zero.
    pub(super) fn ternary(self) -> Ternary {
        let scales = Scales::Rows { columns: self.columns as u32, dtype: self.rows.float.dtype() };
        let (name, rows, k) = (self.rows.tensor.name.clone(), self.rows.tensor.shape[0], self.rows.k);
        Ternary { name, rows, k, scales, trits: Arc::new(self.rows), rotation: None }
    }

    /// That the matrix is not exactly ternary.
    pub(super) fn refusal(&self) -> CompileError {
        CompileError::NearlyTernary {
            path: self.rows.tensor.bytes.path().to_owned(),
            tensor: self.rows.tensor.name.clone(),
            problem: format!("is ternary only within rounding: {}", self.rounded),
            worst: self.rounded.worst,
        }
    }
}

/// Groups of some size.
#[derive(Clone, Copy, Default)]
struct Count {
    /// Those that are not all zero.
    groups: u64,
    /// Those with more than one magnitude.
    inexact: u64,
}

impl Count {
    fn row(&mut self, row: &[Magnitude], size: usize) {
        for group in row.chunks(if size == 0 { row.len().max(UNIT) } else { size }) {
            let largest = group.iter().copied().fold(0, Magnitude::max);
            self.groups += u64::from(largest != 0);
            self.inexact += u64::from(!is_exact(group, largest));
        }
    }
}

/// Whether all magnitudes are `largest` or 0.
fn is_exact(group: &[Magnitude], largest: Magnitude) -> bool {
    group.iter().fold(true, |exact, &magnitude| exact & (magnitude == 0 || magnitude == largest))
}

/// Floats that are rounded to trits of the scales that most of them have.
struct NearRows {
    tensor: RawTensor,
    float: FloatType,
    k: usize,
    /// Columns of a group.
    columns: usize,
}

impl NearRows {
    fn bytes(&self, row: usize) -> Result<&[u8], CompileError> {
        self.tensor.row(row, self.k * self.float.dtype().size())
    }

    fn magnitudes(&self, row: usize, out: &mut Vec<Magnitude>) -> Result<(), CompileError> {
        out.clear();
        let bytes = self.bytes(row)?;
        match self.float {
            FloatType::F32 => {
                out.extend(bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b) & 0x7fff_ffff));
            }
            FloatType::F16 | FloatType::Bf16 => {
                let magnitude = |&b: &[u8; 2]| u32::from(u16::from_le_bytes(b) & 0x7fff);
                out.extend(bytes.as_chunks().0.iter().map(magnitude));
            }
        }
        Ok(())
    }

    /// The scale of a group.
    fn scale(&self, group: &[Magnitude]) -> f32 {
        let largest = group.iter().copied().fold(0, Magnitude::max);
        if is_exact(group, largest) {
            return widen(self.float, largest);
        }
        let mut magnitudes: Vec<Magnitude> = group.iter().copied().filter(|&m| m != 0).collect();
        magnitudes.sort_unstable();
        // Of magnitudes that are equally frequent the largest is taken, which stands last.
        let frequent = magnitudes.chunk_by(|a, b| a == b).max_by_key(|run| run.len());
        widen(self.float, frequent.map_or(largest, |run| run[0]))
    }

    /// The largest distance of a group's floats from what they are rounded to, relative to its scale.
    fn error(&self, group: &[Magnitude]) -> f32 {
        let largest = group.iter().copied().fold(0, Magnitude::max);
        if is_exact(group, largest) {
            return 0.0;
        }
        let scale = self.scale(group);
        let error = |&magnitude: &Magnitude| {
            let x = widen(self.float, magnitude);
            if x > scale / 2.0 { (x - scale).abs() / scale } else { x / scale }
        };
        group.iter().map(error).fold(0.0, f32::max)
    }
}

impl TernaryRows for NearRows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let mut magnitudes = Vec::with_capacity(self.k);
        self.magnitudes(row, &mut magnitudes)?;
        let size = self.float.dtype().size();
        let signs = self.bytes(row)?.chunks_exact(size).map(|bytes| bytes[size - 1] & 0x80 != 0);
        for (trit, negative) in out.iter_mut().zip(signs) {
            *trit = if negative { -1 } else { 1 };
        }
        for (group, out) in magnitudes.chunks(self.columns).zip(out.chunks_mut(self.columns)) {
            let half = self.scale(group) / 2.0;
            for (trit, &magnitude) in out.iter_mut().zip(group) {
                *trit *= i8::from(widen(self.float, magnitude) > half);
            }
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        let mut magnitudes = Vec::with_capacity(self.k);
        self.magnitudes(row, &mut magnitudes)?;
        for (scale, group) in out.iter_mut().zip(magnitudes.chunks(self.columns)) {
            *scale = self.scale(group);
        }
        Ok(())
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}
