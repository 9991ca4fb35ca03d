//! What a scan over weights finds out about their scales: how many columns share one, and which type holds all.
//!
//! Rows of floats or of blocks enter as the magnitudes of their units of 32 columns. The coarsest grouping that holds
//! leaves: one scale for the whole matrix, one for each row, or one for each 256, 128, 64 or 32 columns of a row.

use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::model::float::FloatType;
use crate::model::{Found, Scales, TensorReport};
use half::{bf16, f16};
use rayon::prelude::*;
use std::collections::BTreeSet;
use trit_format::plan::{DType, ScaleRule};

/// Columns of the finest groups; all coarser ones are made of these.
pub(crate) const UNIT: usize = 32;
/// Columns of the groups between a row and a unit, the coarsest first.
const GROUPS: [usize; 3] = [256, 128, 64];
/// How many different scales are counted at most. f16 and bf16 have no more magnitudes.
const MOST_COUNTED: usize = 1 << 15;

/// Bits of a float without its sign: equal for equal magnitudes, 0 for zeros, ordered as magnitudes are.
pub(crate) type Magnitude = u32;

/// What a scan over some rows found. It compares bits, not values: two floats share a scale if they differ in nothing
/// but the sign.
#[derive(Default)]
pub(crate) struct ScaleScan {
    /// For each of [`GROUPS`] whether some group of that many columns holds two magnitudes.
    split_groups: [bool; GROUPS.len()],
    /// Whether some row holds two magnitudes.
    split_rows: bool,
    /// Whether the rows together hold two magnitudes.
    split: bool,
    /// The first magnitude that is not zero; 0 where there is none yet.
    first: Magnitude,
    /// Whether some unit holds zeros only.
    pub(super) units_of_zeros: bool,
    /// How many elements are zero.
    pub(super) zeros: u64,
    /// The different magnitudes; none are listed once there are more than [`MOST_COUNTED`].
    pub(super) magnitudes: Magnitudes,
}

/// How many magnitudes have a bit of their own: all that floats of 16 bits have.
const SMALL: usize = 1 << 15;

/// A set of magnitudes, as long as it is small enough to count.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Magnitudes {
    /// A bit for each of the first [`SMALL`], none where there are none of them. Sets of many scales of 16 bits are
    /// made and joined for every few rows, so this must be fast.
    small: Vec<u64>,
    large: BTreeSet<Magnitude>,
    /// Whether there were more than [`MOST_COUNTED`].
    too_many: bool,
}

impl Magnitudes {
    fn insert(&mut self, magnitude: Magnitude) {
        let at = magnitude as usize;
        if self.too_many {
            return;
        }
        if at < SMALL {
            if self.small.is_empty() {
                self.small = vec![0; SMALL / 64];
            }
            self.small[at / 64] |= 1 << (at % 64);
        } else {
            self.large.insert(magnitude);
            self.give_up();
        }
    }

    fn join(&mut self, other: Magnitudes) {
        self.too_many |= other.too_many;
        if self.small.is_empty() {
            self.small = other.small;
        } else {
            self.small.iter_mut().zip(other.small).for_each(|(own, other)| *own |= other);
        }
        self.large.extend(other.large);
        self.give_up();
    }

    /// Empties a set of too many.
    fn give_up(&mut self) {
        if self.too_many || self.large.len() > MOST_COUNTED {
            *self = Magnitudes { too_many: true, ..Magnitudes::default() };
        }
    }

    /// How many there are; `None` where they are too many to count.
    pub(super) fn len(&self) -> Option<usize> {
        let small: usize = self.small.iter().map(|bits| bits.count_ones() as usize).sum();
        let len = small + self.large.len();
        (!self.too_many && len <= MOST_COUNTED).then_some(len)
    }

    /// Whether `fits` holds for every one; false where they are too many to count.
    fn all(&self, fits: impl Fn(Magnitude) -> bool) -> bool {
        let small = self.small.iter().enumerate().flat_map(|(word, &bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| (64 * word + bit) as Magnitude)
        });
        self.len().is_some() && small.chain(self.large.iter().copied()).all(fits)
    }
}

/// Rows that a thread looks at in one go.
const ROWS: usize = 64;

impl ScaleScan {
    /// Looks at `rows` rows; `units` writes the magnitudes of a row's units.
    ///
    /// # Errors
    /// The first that `units` gives.
    pub(crate) fn of_rows(
        rows: usize,
        units: impl Fn(usize, &mut Vec<Magnitude>) -> Result<(), CompileError> + Sync,
    ) -> Result<ScaleScan, CompileError> {
        let starts: Vec<usize> = (0..rows).step_by(ROWS).collect();
        let look = |start: usize| {
            let (mut scan, mut of_row) = (ScaleScan::default(), Vec::new());
            for row in start..(start + ROWS).min(rows) {
                units(row, &mut of_row)?;
                scan.row(&of_row);
            }
            Ok(scan)
        };
        let found: Vec<ScaleScan> = starts.into_par_iter().map(look).collect::<Result<_, CompileError>>()?;
        let mut all = ScaleScan::default();
        found.into_iter().for_each(|scan| all.merge(scan));
        Ok(all)
    }

    /// Adds what a scan over other rows found.
    pub(crate) fn merge(&mut self, other: ScaleScan) {
        for (split, other) in self.split_groups.iter_mut().zip(other.split_groups) {
            *split |= other;
        }
        self.split_rows |= other.split_rows;
        self.split |= other.split || (self.first != 0 && other.first != 0 && self.first != other.first);
        self.first = if self.first == 0 { other.first } else { self.first };
        self.units_of_zeros |= other.units_of_zeros;
        self.zeros += other.zeros;
        self.magnitudes.join(other.magnitudes);
    }

    /// Takes the magnitudes of a row's units, 0 for those of zeros.
    pub(crate) fn row(&mut self, units: &[Magnitude]) {
        self.units_of_zeros |= units.contains(&0);
        let mut last = 0;
        for &magnitude in units.iter().filter(|&&m| m != 0) {
            if magnitude != last {
                self.magnitudes.insert(magnitude);
                self.split_rows |= last != 0;
                last = magnitude;
            }
        }
        for (split, columns) in self.split_groups.iter_mut().zip(GROUPS) {
            *split = *split || units.chunks(columns / UNIT).any(differ);
        }
        self.split |= last != 0 && self.first != 0 && self.first != last;
        self.first = if self.first == 0 { last } else { self.first };
    }

    /// The coarsest grouping that holds.
    pub(super) fn found(&self) -> Found {
        if !self.split_rows && !self.split {
            return Found::PerTensor;
        }
        if !self.split_rows {
            return Found::PerRow;
        }
        let whole = self.split_groups.iter().zip(GROUPS).find(|(split, _)| !**split);
        Found::PerColumns(whole.map_or(UNIT, |(_, columns)| columns) as u32)
    }

    /// The scales of the coarsest grouping that holds; magnitudes are of that type.
    pub(crate) fn scales(&self, float: FloatType) -> Scales {
        match self.found() {
            // A matrix of zeros has the scale that every matrix may have.
            Found::PerTensor if self.first == 0 => Scales::Tensor { scale: 1.0, rule: ScaleRule::Multiply },
            Found::PerTensor => Scales::Tensor { scale: widen(float, self.first), rule: ScaleRule::Multiply },
            Found::PerColumns(columns) => Scales::Rows { columns, dtype: self.scale_type(float) },
            _ => Scales::Rows { columns: 0, dtype: self.scale_type(float) },
        }
    }

    /// The report of the tensor that was scanned.
    pub(crate) fn report(&self, tensor: &RawTensor) -> TensorReport {
        let scales = self.magnitudes.len().map(|len| len as u64);
        TensorReport { scales, ..tensor.report(self.found()) }
    }

    /// The smallest type that holds all scales. It is the type of the tensor, or a smaller one where the scales do
    /// not need f32.
    fn scale_type(&self, float: FloatType) -> DType {
        if float != FloatType::F32 || self.magnitudes.len().is_none() {
            return float.dtype();
        }
        let all = |fits: fn(f32) -> bool| self.magnitudes.all(|bits| fits(f32::from_bits(bits)));
        if all(|x| f16::from_f32(x).to_f32() == x) {
            DType::F16
        } else if all(|x| bf16::from_f32(x).to_f32() == x) {
            DType::Bf16
        } else {
            DType::F32
        }
    }
}

/// Whether units have different magnitudes, zeros aside.
fn differ(units: &[Magnitude]) -> bool {
    let mut magnitudes = units.iter().filter(|&&m| m != 0);
    let first = magnitudes.next();
    magnitudes.any(|m| Some(m) != first)
}

/// The value of a magnitude.
pub(super) fn widen(float: FloatType, magnitude: Magnitude) -> f32 {
    match float {
        FloatType::F32 => f32::from_bits(magnitude),
        FloatType::F16 => f16::from_bits(magnitude as u16).to_f32(),
        FloatType::Bf16 => bf16::from_bits(magnitude as u16).to_f32(),
    }
}
