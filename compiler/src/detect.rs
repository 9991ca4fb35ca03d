//! Are these floats ternary, and how finely are they scaled?
//!
//! Weight-only ternary models are also published as plain floats, each weight multiplied with its scale
//! ("pseudo-quantized"). A matrix of floats enters. Of one scale for all of it, one for each row, or one for each 256,
//! 128, 64 or 32 columns of a row, the coarsest is found in which every group holds only -s, 0 and s, compared bit for
//! bit; groups of zeros fit every scale. Nothing is rounded: what fits none of these is no ternary matrix.

use crate::error::CompileError;
use crate::ingest::checkpoint::{ElementType, RawTensor};
use crate::ingest::gguf;
use crate::model::{Found, Matrix, Scales, TensorReport, Ternary, TernaryRows};
use crate::quantize::{self, Float};
use half::{bf16, f16};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use trit_format::plan::{DType, ScaleRule};

/// Columns of the finest groups; all coarser ones are made of these.
pub(crate) const UNIT: usize = 32;
/// Columns of the groups between a row and a unit, the coarsest first.
const GROUPS: [usize; 3] = [256, 128, 64];
/// Bytes that one thread looks at in one go.
const CHUNK_BYTES: usize = 1 << 18;
/// Different scales that are counted. f16 and bf16 have no more magnitudes.
const MOST_COUNTED: usize = 1 << 15;

/// A linear's weights `[rows, k]`, which must be ternary.
///
/// # Errors
/// A wrong type or shape, an element that is not finite, weights that are not ternary.
pub(crate) fn linear(tensor: RawTensor, shape: [usize; 2]) -> Result<(Ternary, TensorReport), CompileError> {
    if let ElementType::Block(kind) = tensor.dtype {
        return gguf::ternary(tensor, kind, None, shape);
    }
    match detect(&tensor, shape, "[out features, in features]")? {
        Ok(seen) => seen.ternary(tensor, shape),
        Err(conflict) => Err(conflict.error(&tensor)),
    }
}

/// An embedding or head `[rows, k]`: ternary where it is, else the floats that it is.
///
/// # Errors
/// A wrong type or shape, or an element that is not finite.
pub(crate) fn table(tensor: RawTensor, shape: [usize; 2]) -> Result<(Matrix, TensorReport), CompileError> {
    if let ElementType::Block(kind) = tensor.dtype {
        let (ternary, report) = gguf::ternary(tensor, kind, None, shape)?;
        return Ok((Matrix::Ternary(ternary), report));
    }
    let what = "[vocab_size, hidden_size]";
    if let Ok(seen) = detect(&tensor, shape, what)? {
        let (ternary, report) = seen.ternary(tensor, shape)?;
        return Ok((Matrix::Ternary(ternary), report));
    }
    let report = report(&tensor, Found::Floats);
    Ok((Matrix::Dense(quantize::dense(tensor, &shape, what)?), report))
}

/// The report of a tensor in which nothing was counted.
pub(crate) fn report(tensor: &RawTensor, found: Found) -> TensorReport {
    TensorReport {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        stored: tensor.dtype.to_string(),
        found,
        scales: None,
        zeros: None,
    }
}

/// Looks at all elements, batch by batch.
fn detect(tensor: &RawTensor, shape: [usize; 2], what: &str) -> Result<Result<Seen, Conflict>, CompileError> {
    if tensor.dtype == ElementType::U8 {
        return Err(tensor.error(
            "is packed U8, and config.json does not say how: add the model's \"quantization_config\", with its \
             quant_method, linear_class and quantization_mode",
        ));
    }
    let float = quantize::expect_float(tensor, &shape, what)?;
    let row_bytes = shape[1] * float.dtype().size();
    let mut all = Seen::default();
    if row_bytes == 0 {
        return Ok(Ok(all));
    }
    let chunk = (CHUNK_BYTES / row_bytes).max(1);
    let mut first = 0;
    for bytes in tensor.bytes.batches(row_bytes) {
        let chunks = bytes.par_chunks(chunk * row_bytes).enumerate();
        let look = |(nth, rows)| look(float, rows, row_bytes, first + nth * chunk);
        let found: Vec<Result<Seen, Stop>> = chunks.map(look).collect();
        first += bytes.len() / row_bytes;
        for seen in found {
            match seen {
                Ok(seen) => all.merge(seen),
                Err(Stop::Conflict(conflict)) => return Ok(Err(conflict)),
                Err(Stop::NotFinite) => return Err(quantize::not_finite(tensor, float)),
            }
        }
    }
    Ok(Ok(all))
}

/// Why a look at rows ended.
enum Stop {
    Conflict(Conflict),
    NotFinite,
}

/// Two magnitudes in one unit.
struct Conflict {
    row: usize,
    /// Column and magnitude.
    first: (usize, f32),
    second: (usize, f32),
}

impl Conflict {
    fn error(&self, tensor: &RawTensor) -> CompileError {
        let ((first_column, first), (column, second)) = (self.first, self.second);
        let problem = format!(
            "is not ternary: row {} holds the magnitudes {first} (column {first_column}) and {second} (column \
             {column}), which share a scale in every grouping tried: one scale for the tensor, a row, 256, 128, 64 or \
             32 columns. If these are the latent weights of a ternary model, declare it in config.json: \
             \"quantization_config\": {{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\", \
             \"quantization_mode\": \"online\"}}",
            self.row
        );
        CompileError::NotTernary {
            path: tensor.bytes.path().to_owned(),
            tensor: tensor.name.clone(),
            problem,
        }
    }
}

/// Bits of a float without its sign: equal for equal magnitudes, 0 for zeros, ordered as magnitudes are.
pub(crate) type Magnitude = u32;

/// What was seen in some rows. Bits, not values: two floats share a scale if they are the same but for the sign.
#[derive(Default)]
pub(crate) struct Seen {
    /// For each of [`GROUPS`] whether some group of that many columns holds two magnitudes.
    split_groups: [bool; GROUPS.len()],
    /// Whether some row does.
    split_rows: bool,
    /// Whether the rows do.
    split: bool,
    /// The first that is not zero; 0 where there is none yet.
    first: Magnitude,
    zeros: u64,
    /// Different ones; `None` from [`MOST_COUNTED`] on.
    magnitudes: Magnitudes,
}

/// A set that stops counting.
struct Magnitudes(Option<BTreeSet<Magnitude>>);

impl Default for Magnitudes {
    fn default() -> Magnitudes {
        Magnitudes(Some(BTreeSet::new()))
    }
}

impl Magnitudes {
    fn insert(&mut self, magnitude: Magnitude) {
        if let Some(set) = &mut self.0 {
            set.insert(magnitude);
            if set.len() > MOST_COUNTED {
                self.0 = None;
            }
        }
    }
}

impl Seen {
    /// Adds what was seen in other rows.
    pub(crate) fn merge(&mut self, other: Seen) {
        for (split, other) in self.split_groups.iter_mut().zip(other.split_groups) {
            *split |= other;
        }
        self.split_rows |= other.split_rows;
        self.split |= other.split || (self.first != 0 && other.first != 0 && self.first != other.first);
        self.first = if self.first == 0 { other.first } else { self.first };
        self.zeros += other.zeros;
        match other.magnitudes.0 {
            Some(set) => set.into_iter().for_each(|magnitude| self.magnitudes.insert(magnitude)),
            None => self.magnitudes.0 = None,
        }
    }

    /// Takes the magnitudes of a row's units, 0 for those of zeros.
    pub(crate) fn row(&mut self, units: &[Magnitude]) {
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
    fn found(&self) -> Found {
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
    pub(crate) fn scales(&self, float: Float) -> Scales {
        match self.found() {
            // A matrix of zeros has the scale that every matrix may have.
            Found::PerTensor if self.first == 0 => Scales::Tensor { scale: 1.0, rule: ScaleRule::Multiply },
            Found::PerTensor => Scales::Tensor { scale: widen(float, self.first), rule: ScaleRule::Multiply },
            Found::PerColumns(columns) => Scales::Rows { columns, dtype: self.scale_type(float) },
            _ => Scales::Rows { columns: 0, dtype: self.scale_type(float) },
        }
    }

    /// The report of a tensor in which this was seen.
    pub(crate) fn report(&self, tensor: &RawTensor) -> TensorReport {
        let scales = self.magnitudes.0.as_ref().map(|set| set.len() as u64);
        TensorReport { scales, ..report(tensor, self.found()) }
    }

    fn ternary(
        self,
        tensor: RawTensor,
        [rows, k]: [usize; 2],
    ) -> Result<(Ternary, TensorReport), CompileError> {
        let float = Float::of(tensor.dtype).unwrap_or(Float::F32);
        let (scales, mut report) = (self.scales(float), self.report(&tensor));
        report.zeros = Some(self.zeros as f64 / (rows * k).max(1) as f64);
        let columns = match scales {
            Scales::Rows { columns, .. } if columns > 0 => columns as usize,
            _ => k,
        };
        let name = tensor.name.clone();
        let trits = Arc::new(Pseudo { tensor, float, k, columns });
        Ok((Ternary { name, rows, k, scales, trits }, report))
    }

    /// The smallest type that holds all scales: that of the tensor, or a smaller one where f32 is more than they need.
    fn scale_type(&self, float: Float) -> DType {
        let (Float::F32, Some(set)) = (float, &self.magnitudes.0) else { return float.dtype() };
        let all = |fits: fn(f32) -> bool| set.iter().all(|&bits| fits(f32::from_bits(bits)));
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

fn largest<const N: usize>(bytes: &[u8], magnitude: impl Fn([u8; N]) -> Magnitude) -> Magnitude {
    bytes.as_chunks().0.iter().map(|&b| magnitude(b)).fold(0, Magnitude::max)
}

/// The value of a magnitude.
fn widen(float: Float, magnitude: Magnitude) -> f32 {
    match float {
        Float::F32 => f32::from_bits(magnitude),
        Float::F16 => f16::from_bits(magnitude as u16).to_f32(),
        Float::Bf16 => bf16::from_bits(magnitude as u16).to_f32(),
    }
}

/// The magnitude of a float of 32 bits.
fn magnitude32(bytes: [u8; 4]) -> Magnitude {
    u32::from_le_bytes(bytes) & 0x7fff_ffff
}

/// The magnitude of a float of 16 bits, of either kind.
fn magnitude16(bytes: [u8; 2]) -> Magnitude {
    u32::from(u16::from_le_bytes(bytes) & 0x7fff)
}

/// Looks at whole rows, the first of which is row `first` of the tensor.
fn look(float: Float, rows: &[u8], row_bytes: usize, first: usize) -> Result<Seen, Stop> {
    match float {
        Float::F32 => look_at(rows, row_bytes, first, float, 0x7f80_0000, magnitude32),
        Float::F16 => look_at(rows, row_bytes, first, float, 0x7c00, magnitude16),
        Float::Bf16 => look_at(rows, row_bytes, first, float, 0x7f80, magnitude16),
    }
}

/// As [`look`]; `infinity` is the least magnitude that is not finite.
fn look_at<const N: usize>(
    rows: &[u8],
    row_bytes: usize,
    first: usize,
    float: Float,
    infinity: Magnitude,
    magnitude: impl Fn([u8; N]) -> Magnitude,
) -> Result<Seen, Stop> {
    let mut seen = Seen::default();
    let mut units: Vec<Magnitude> = Vec::with_capacity(row_bytes / N / UNIT + 1);
    for (index, row) in rows.chunks_exact(row_bytes).enumerate() {
        units.clear();
        let values = row.as_chunks::<N>().0;
        for (nth, unit) in values.chunks(UNIT).enumerate() {
            let largest = unit.iter().map(|&b| magnitude(b)).fold(0, Magnitude::max);
            let (mut zeros, mut full) = (0, 0);
            for &b in unit {
                let magnitude = magnitude(b);
                zeros += u32::from(magnitude == 0);
                full += u32::from(magnitude == largest);
            }
            if largest >= infinity {
                return Err(Stop::NotFinite);
            }
            if largest != 0 && zeros + full != unit.len() as u32 {
                return Err(Stop::Conflict(conflict(unit, first + index, nth * UNIT, float, magnitude)));
            }
            seen.zeros += u64::from(zeros);
            units.push(largest);
        }
        seen.row(&units);
    }
    Ok(seen)
}

/// The first two magnitudes in a unit that has more than one.
fn conflict<const N: usize>(
    unit: &[[u8; N]],
    row: usize,
    column: usize,
    float: Float,
    magnitude: impl Fn([u8; N]) -> Magnitude,
) -> Conflict {
    let mut found = unit.iter().map(|&b| magnitude(b)).enumerate().filter(|&(_, m)| m != 0);
    let first = found.next().unwrap_or((0, 0));
    let second = found.find(|&(_, m)| m != first.1).unwrap_or(first);
    let value = |(at, m): (usize, Magnitude)| (column + at, widen(float, m));
    Conflict { row, first: value(first), second: value(second) }
}

/// Floats that were found to be ternary.
struct Pseudo {
    tensor: RawTensor,
    float: Float,
    k: usize,
    /// Columns that share a scale, `k` where all of a row do.
    columns: usize,
}

impl Pseudo {
    fn row(&self, row: usize) -> &[u8] {
        let len = self.k * self.float.dtype().size();
        &self.tensor.bytes.as_ref()[row * len..][..len]
    }
}

impl TernaryRows for Pseudo {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        fn signs<const N: usize>(row: &[u8], out: &mut [i8], bits: impl Fn([u8; N]) -> i32) {
            for (trit, &b) in out.iter_mut().zip(row.as_chunks().0) {
                // The sign is the highest bit; shifted out, only zeros are zero.
                let bits = bits(b);
                *trit = if bits << 1 == 0 { 0 } else { 1 | (bits >> 31) as i8 };
            }
        }
        let row = self.row(row);
        match self.float {
            Float::F32 => signs(row, out, i32::from_le_bytes),
            Float::F16 | Float::Bf16 => signs(row, out, |b| i32::from(i16::from_le_bytes(b)) << 16),
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        let bytes = self.columns * self.float.dtype().size();
        for (scale, group) in out.iter_mut().zip(self.row(row).chunks(bytes)) {
            // Every element is the scale, its negative or zero.
            let largest = match self.float {
                Float::F32 => largest(group, magnitude32),
                Float::F16 | Float::Bf16 => largest(group, magnitude16),
            };
            *scale = widen(self.float, largest);
        }
        Ok(())
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[&[f32]]) -> Result<Seen, Stop> {
        let bytes: Vec<u8> = rows.iter().flat_map(|r| r.iter().flat_map(|x| x.to_le_bytes())).collect();
        look(Float::F32, &bytes, rows[0].len() * 4, 0)
    }

    fn grouping(rows: &[&[f32]]) -> Option<Found> {
        found(rows).ok().map(|seen| seen.found())
    }

    /// `k` columns, a scale for each `columns`, with zeros and both signs in every group.
    fn row(k: usize, columns: usize, scale: impl Fn(usize) -> f32) -> Vec<f32> {
        (0..k).map(|i| [1.0, 0.0, -1.0, -0.0][i % 4] * scale(i / columns)).collect()
    }

    #[test]
    fn the_coarsest_grouping_is_found() {
        let same = row(600, 600, |_| 0.5);
        let other = row(600, 600, |_| 0.25);
        let zero = vec![0.0; 600];
        assert_eq!(grouping(&[&same, &zero, &same]), Some(Found::PerTensor));
        assert_eq!(grouping(&[&zero]), Some(Found::PerTensor));
        assert_eq!(grouping(&[&zero, &same, &other]), Some(Found::PerRow));
        for columns in [256, 128, 64, 32] {
            // The last group is not whole.
            let groups = row(600, columns, |g| 1.0 + g as f32);
            assert_eq!(grouping(&[&same, &groups]), Some(Found::PerColumns(columns as u32)));
        }
        assert_eq!(grouping(&[&row(600, 16, |g| 1.0 + g as f32)]), None);
        assert_eq!(grouping(&[&row(600, 48, |g| 1.0 + g as f32)]), None);
        // A group of zeros belongs to either of its neighbours.
        let gaps = row(256, 64, |g| [2.0, 0.0, 3.0, 0.0][g]);
        assert_eq!(grouping(&[&gaps]), Some(Found::PerColumns(128)));
    }

    #[test]
    fn what_was_seen_does_not_depend_on_where_rows_are_cut() {
        let rows =
            [row(96, 96, |_| 0.5), vec![0.0; 96], row(96, 96, |_| 2.0), row(96, 64, |g| 3.0 + g as f32)];
        for cut in 0..=rows.len() {
            for until in 1..=rows.len() {
                let slices: Vec<&[f32]> = rows[..until].iter().map(Vec::as_slice).collect();
                let whole = found(&slices).ok().unwrap();
                let mut merged = Seen::default();
                for part in [&slices[..cut.min(until)], &slices[cut.min(until)..]] {
                    if !part.is_empty() {
                        merged.merge(found(part).ok().unwrap());
                    }
                }
                assert_eq!(merged.found(), whole.found());
                assert_eq!((merged.zeros, merged.magnitudes.0), (whole.zeros, whole.magnitudes.0));
            }
        }
    }

    #[test]
    fn conflicts_and_numbers_that_are_none_are_located() {
        let mut odd = row(96, 96, |_| 0.5);
        odd[70] = 0.75;
        let Err(Stop::Conflict(conflict)) = found(&[&row(96, 96, |_| 0.5), &odd]) else { panic!() };
        assert_eq!((conflict.row, conflict.first, conflict.second), (1, (64, 0.5), (70, 0.75)));
        odd[3] = f32::NAN;
        assert!(matches!(found(&[&odd]), Err(Stop::NotFinite)));
    }
}
