//! Matrices of a checkpoint: of trits with scales, or of floats. They are views into mapped files and give rows when
//! asked.

use super::dense::Dense;
use crate::error::CompileError;
use half::{bf16, f16};
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;
use trit_format::plan::{DType, ScaleRule};

/// A ternary matrix `[rows, k]` that can be read row by row, from any number of threads.
pub trait TernaryRows: Send + Sync {
    /// Writes row `row` as trits; `out` is `k` long.
    ///
    /// # Errors
    /// The row holds an illegal code. The error has the tensor's name and the place.
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError>;

    /// Writes the scales of row `row`, first column first; `out` is [`Ternary::scales_per_row`] long. They are
    /// finite, not below zero and exact in the type that [`Scales::Rows`] names. This is only called for matrices
    /// with such scales.
    ///
    /// # Errors
    /// A scale is not finite or below zero. The error has the tensor's name and the place.
    fn read_scales(&self, row: usize, _out: &mut [f32]) -> Result<(), CompileError> {
        Err(CompileError::Internal(format!("row {row} of a matrix with one scale has no scales of its own")))
    }

    /// Whether every weight is known to be -1 or 1 without reading the rows. Otherwise [`Ternary::is_signs`] reads them.
    fn is_signs(&self) -> bool {
        false
    }

    /// Releases memory that reading has pulled in; rows can still be read. This is called after a pass over a matrix,
    /// so that a checkpoint larger than memory does not stay resident.
    fn release(&self) {}
}

/// The scales of a ternary matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales {
    /// One scale for the whole matrix.
    Tensor {
        /// Finite and above zero.
        scale: f32,
        /// Whether trits are multiplied with it or divided by it.
        rule: ScaleRule,
    },
    /// Each row has scales of its own, to multiply with; [`TernaryRows::read_scales`] gives them.
    Rows {
        /// How many columns share a scale; 0 where all columns of a row do.
        columns: u32,
        /// F16, BF16 or F32: the smallest type that holds them exactly.
        dtype: DType,
    },
}

/// One ternary matrix of the checkpoint.
#[derive(Clone)]
pub struct Ternary {
    /// The checkpoint's tensor name.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub k: usize,
    /// What the trits are multiplied with.
    pub scales: Scales,
    /// The trits.
    pub trits: Arc<dyn TernaryRows>,
    /// The change of basis that belongs to its columns: inputs are rotated before they are multiplied, and rows of an
    /// embedding are taken back.
    pub rotation: Option<Arc<Rotation>>,
}

/// A change of basis: signs, then the Walsh-Hadamard transform of each run of `block` elements. See
/// [`trit_format::plan::Rotation`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Elements that are transformed together, a power of two that divides the width.
    pub block: u32,
    /// 1 or -1 for each element; none for all 1.
    pub signs: Option<Vec<f32>>,
}

impl Ternary {
    /// Scales that each row has of its own, 0 where there is one for all rows.
    pub fn scales_per_row(&self) -> usize {
        match self.scales {
            Scales::Tensor { .. } => 0,
            Scales::Rows { columns: 0, .. } => 1,
            Scales::Rows { columns, .. } => self.k.div_ceil(columns as usize),
        }
    }

    /// The number of columns of a group where activations are quantized in groups. It is 128, as many as exact sums
    /// of [`Fixed24PerGroup`](trit_format::plan::ActivationRule::Fixed24PerGroup) allow, or fewer where otherwise a
    /// group would have two scales of the weights.
    pub fn group_columns(&self) -> u32 {
        let own = match self.scales {
            Scales::Tensor { .. } => 0,
            Scales::Rows { columns, .. } => columns,
        };
        [128, 64].into_iter().find(|&columns| own.is_multiple_of(columns)).unwrap_or(32)
    }

    /// Whether no weight is zero, apart from those whose scale is zero too, so that signs say all. The first zero ends
    /// the search, which in matrices with zeros is in the first row, nearly always. Rows that cannot be read count as rows
    /// with zeros: whoever needs their trits finds the error.
    pub fn is_signs(&self) -> bool {
        if self.trits.is_signs() {
            return true;
        }
        let columns = match self.scales {
            Scales::Rows { columns, .. } if columns > 0 => columns as usize,
            _ => self.k,
        };
        let of_row = |(trits, factors): &mut (Vec<i8>, Vec<f32>), row: usize| {
            let read = self.trits.read_row(row, trits).is_ok();
            if !read || !trits.contains(&0) {
                return read;
            }
            let run = if let Scales::Rows { columns, .. } = self.scales { columns } else { 0 };
            self.factors(row, run, factors).is_ok()
                && trits
                    .chunks(columns)
                    .zip(&*factors)
                    .all(|(run, &factor)| factor == 0.0 || !run.contains(&0))
        };
        let memory = || (vec![0; self.k], vec![0.0; self.scales_per_row().max(1)]);
        let signs = of_row(&mut memory(), 0)
            && (1..self.rows)
                .into_par_iter()
                .try_for_each_init(memory, |memory, row| of_row(memory, row).then_some(()))
                .is_some();
        self.trits.release();
        signs
    }

    /// The smallest type that holds the scales exactly.
    pub fn scale_dtype(&self) -> DType {
        match self.scales {
            Scales::Rows { dtype, .. } => dtype,
            Scales::Tensor { scale, rule } => smallest(factor(scale, rule)),
        }
    }

    /// Writes the factors on each run of `columns` columns of row `row`, or the one on the whole row where `columns`
    /// is 0. No run may cross from one scale to the next. `out` has an element for each run.
    ///
    /// # Errors
    /// As [`TernaryRows::read_scales`], and where `out` is longer than the row has runs.
    pub fn factors(&self, row: usize, columns: u32, out: &mut [f32]) -> Result<(), CompileError> {
        match self.scales {
            Scales::Tensor { scale, rule } => out.fill(factor(scale, rule)),
            Scales::Rows { columns: 0, .. } => {
                let mut one = [0.0];
                self.trits.read_scales(row, &mut one)?;
                out.fill(one[0]);
            }
            Scales::Rows { columns: own, .. } if own == columns => self.trits.read_scales(row, out)?,
            Scales::Rows { columns: own, .. } => {
                let mut scales = vec![0.0; self.scales_per_row()];
                self.trits.read_scales(row, &mut scales)?;
                for (run, factor) in out.iter_mut().enumerate() {
                    let scale = scales.get(run * columns as usize / own as usize).ok_or_else(|| {
                        let problem = format!("{} has no {} runs of {columns} columns", self.name, run + 1);
                        CompileError::Internal(problem)
                    })?;
                    *factor = *scale;
                }
            }
        }
        Ok(())
    }
}

/// What a trit is multiplied with.
fn factor(scale: f32, rule: ScaleRule) -> f32 {
    match rule {
        ScaleRule::Multiply => scale,
        ScaleRule::Divide => 1.0 / scale,
        other => unreachable!("the format has no {other:?}"),
    }
}

/// The smallest type that holds `x` exactly.
fn smallest(x: f32) -> DType {
    if f16::from_f32(x).to_f32() == x {
        DType::F16
    } else if bf16::from_f32(x).to_f32() == x {
        DType::Bf16
    } else {
        DType::F32
    }
}

/// A matrix `[rows, k]`.
#[derive(Clone)]
pub enum Matrix {
    /// Of trits with scales.
    Ternary(Ternary),
    /// Of floats, or of codes that stand for floats.
    Dense(Dense),
}

impl Matrix {
    /// The checkpoint's tensor name.
    pub fn name(&self) -> &str {
        match self {
            Matrix::Ternary(ternary) => &ternary.name,
            Matrix::Dense(dense) => &dense.name,
        }
    }

    /// The matrix as a ternary one.
    pub fn ternary(&self) -> Option<&Ternary> {
        match self {
            Matrix::Ternary(ternary) => Some(ternary),
            Matrix::Dense(_) => None,
        }
    }

    /// The matrix as one of floats.
    pub fn dense(&self) -> Option<&Dense> {
        match self {
            Matrix::Ternary(_) => None,
            Matrix::Dense(dense) => Some(dense),
        }
    }

    /// `[rows, k]`, or `[0, 0]` for floats that are no matrix.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Matrix::Ternary(ternary) => [ternary.rows, ternary.k],
            Matrix::Dense(dense) => dense.shape[..].try_into().unwrap_or_default(),
        }
    }
}

/// What was found in one tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// The checkpoint's tensor name.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Element type in the file, as its format names it.
    pub stored: String,
    /// What it is.
    pub found: Found,
    /// Different scales in it, where they were counted.
    pub scales: Option<u64>,
    /// Share of zeros, 0 to 1, where they were counted.
    pub zeros: Option<f64>,
    /// What was rounded in it, where the user accepts an error.
    pub rounded: Option<Rounded>,
}

/// Groups of floats that are not exactly a scale times trits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounded {
    /// How many.
    pub groups: u64,
    /// Of how many that are not all zero.
    pub of: u64,
    /// The largest distance of a float from its trit times the group's scale, in such scales.
    pub worst: f32,
    /// Row of the first of them, and its first column.
    pub first: (usize, usize),
}

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rounded { groups, of, worst, first: (row, column) } = self;
        write!(
            f,
            "{groups} of {of} groups have weights up to {:.2}% of their scale apart from it, the first at row {row}, column \
             {column}",
            100.0 * worst
        )
    }
}

/// What a tensor was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Ternary with one scale.
    PerTensor,
    /// Ternary with one scale for each row.
    PerRow,
    /// Ternary with one scale for that many columns of each row.
    PerColumns(u32),
    /// Floats that are rounded to trits here, because the checkpoint or the user says so.
    Latent,
    /// Floats that are kept.
    Floats,
    /// Codes that stand for floats, kept in this type.
    Coded(DType),
}

impl From<Scales> for Found {
    fn from(scales: Scales) -> Found {
        match scales {
            Scales::Tensor { .. } => Found::PerTensor,
            Scales::Rows { columns: 0, .. } => Found::PerRow,
            Scales::Rows { columns, .. } => Found::PerColumns(columns),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::PerTensor => f.write_str("ternary, one scale"),
            Found::PerRow => f.write_str("ternary, a scale per row"),
            Found::PerColumns(columns) => write!(f, "ternary, a scale per {columns} columns"),
            Found::Latent => f.write_str("latent weights, rounded to trits"),
            Found::Floats => f.write_str("floats, kept"),
            Found::Coded(dtype) => write!(f, "floats, kept as {dtype} ({} bits)", dtype.bits()),
        }
    }
}
