//! Finds out whether floats are ternary, and how finely they are scaled.
//!
//! Weight-only ternary models are also published as plain floats, each weight multiplied with its scale
//! ("pseudo-quantized"). A matrix of floats enters. The groupings tried are one scale for the whole matrix, one for
//! each row, and one for each 256, 128, 64 or 32 columns of a row. The coarsest one is taken in which every group
//! holds only -s, 0 and s, compared bit for bit; groups of zeros fit every scale. Nothing is rounded, so a matrix
//! that fits none of these is not ternary.

use crate::checkpoint::{BlockType, ElementType, RawTensor};
use crate::error::CompileError;
use crate::model::float::FloatType;
use crate::model::{Found, Matrix, Scales, TensorReport, Ternary, TernaryRows};
use crate::weights::scale_scan::{Magnitude, ScaleScan, UNIT, widen};
use crate::weights::{affine, affine_table, blocks, coded, dense, floats, i2s, near, order};
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes that one thread looks at in one go.
const CHUNK_BYTES: usize = 1 << 18;
/// A linear's weights `[rows, k]`, which must be ternary.
///
/// # Errors
/// A wrong type or shape, an element that is not finite, weights that are not ternary.
pub(crate) fn linear(tensor: RawTensor, shape: [usize; 2]) -> Result<(Ternary, TensorReport), CompileError> {
    if let Some(found) = in_codes(&tensor, shape)? {
        return Ok(found);
    }
    match detect(&tensor, shape, "[out features, in features]")? {
        Ok(scan) => ternary(scan, tensor, shape),
        Err(conflict) => match near(&tensor, shape)? {
            Some(near) if is_accepted(&tensor, &near) => Ok(rounded(near, &tensor)),
            Some(near) => Err(near.refusal()),
            None => Err(conflict.error(&tensor)),
        },
    }
}

/// An embedding or head `[rows, k]`: a ternary matrix where the floats are ternary, else the floats themselves.
///
/// # Errors
/// A wrong type or shape, or an element that is not finite.
pub(crate) fn table(tensor: RawTensor, shape: [usize; 2]) -> Result<(Matrix, TensorReport), CompileError> {
    let what = "[vocab_size, hidden_size]";
    if let Some(kind) = coded::kind(&tensor) {
        let as_codes = |tensor: RawTensor| {
            let report = tensor.report(Found::Coded(coded::dtype(kind)));
            Ok((Matrix::Dense(dense::dense(tensor, &shape, what)?), report))
        };
        // Trits are read from floats, which are written out for that. Few tables of this kind are ternary.
        return match detect(&tensor, shape, what)? {
            Err(_) if tensor.tolerance.is_none() => as_codes(tensor),
            _ => match table(floats::widened(tensor.clone())?, shape)? {
                (Matrix::Dense(_), _) => as_codes(tensor),
                ternary => Ok(ternary),
            },
        };
    }
    if affine_table::is_one(&tensor) {
        let mut report = tensor.report(Found::Floats);
        let dense = dense::dense(tensor, &shape, what)?;
        report.found = dense.found();
        return Ok((Matrix::Dense(dense), report));
    }
    if let Some((ternary, report)) = in_codes(&tensor, shape)? {
        return Ok((Matrix::Ternary(ternary), report));
    }
    if let Ok(scan) = detect(&tensor, shape, what)? {
        let (ternary, report) = ternary(scan, tensor, shape)?;
        return Ok((Matrix::Ternary(ternary), report));
    }
    if tensor.tolerance.is_some()
        && let Some(near) = near(&tensor, shape)?
    {
        if !is_accepted(&tensor, &near) {
            return Err(near.refusal());
        }
        let (ternary, report) = rounded(near, &tensor);
        return Ok((Matrix::Ternary(ternary), report));
    }
    let report = tensor.report(Found::Floats);
    Ok((Matrix::Dense(dense::dense(tensor, &shape, what)?), report))
}

/// The matrix in floats that are ternary but for rounding.
fn near(tensor: &RawTensor, shape: [usize; 2]) -> Result<Option<near::Near>, CompileError> {
    match tensor.dtype.float() {
        Some(float) => near::look(tensor, float, shape),
        None => Ok(None),
    }
}

/// Whether the user accepts its error.
fn is_accepted(tensor: &RawTensor, near: &near::Near) -> bool {
    tensor.tolerance.is_some_and(|tolerance| near.rounded.worst <= tolerance)
}

/// The matrix as it is read, and its report.
fn rounded(near: near::Near, tensor: &RawTensor) -> (Ternary, TensorReport) {
    let rounded = Some(near.rounded);
    let ternary = near.ternary();
    let report = TensorReport { rounded, ..tensor.report(ternary.scales.into()) };
    (ternary, report)
}

/// The matrix in a tensor that is ternary by its type.
fn in_codes(tensor: &RawTensor, shape: [usize; 2]) -> Result<Option<(Ternary, TensorReport)>, CompileError> {
    match (tensor.dtype, &tensor.affine) {
        (ElementType::Block(kind), _) => blocks::ternary(tensor.clone(), kind, None, shape).map(Some),
        (ElementType::I2s(_), _) => i2s::ternary(tensor.clone(), None, shape).map(Some),
        (_, Some(affine)) => affine::ternary(tensor.clone(), affine.clone(), shape).map(Some),
        _ => Ok(None),
    }
}

/// Looks at all elements, batch by batch.
fn detect(
    tensor: &RawTensor,
    shape: [usize; 2],
    what: &str,
) -> Result<Result<ScaleScan, Conflict>, CompileError> {
    if tensor.dtype == ElementType::U8 {
        return Err(tensor.error(
            "is packed U8, and config.json does not say how: add the model's \"quantization_config\", with its \
             quant_method, linear_class and quantization_mode",
        ));
    }
    let coded = coded::kind(tensor);
    let (float, row_bytes) = match coded {
        Some(kind) => {
            tensor.expect_shape(&shape, what)?;
            (FloatType::F32, BlockType::Integers(kind).row_bytes(shape[1]).unwrap_or(0))
        }
        None => {
            let float = dense::expect_float(tensor, &shape, what)?;
            (float, shape[1] * float.dtype().size())
        }
    };
    let mut all = ScaleScan::default();
    if row_bytes == 0 {
        return Ok(Ok(all));
    }
    let chunk = (CHUNK_BYTES / row_bytes).max(1);
    let units = order::units(tensor, shape[1]);
    let mut first = 0;
    for bytes in tensor.bytes.batches(row_bytes) {
        let chunks = bytes.par_chunks(chunk * row_bytes).enumerate();
        let look = |(nth, rows): (usize, &[u8])| {
            let first = first + nth * chunk;
            match coded {
                None => look(float, rows, row_bytes, first, units.as_deref()),
                Some(kind) => look(float, &coded::widened(kind, rows), 4 * shape[1], first, units.as_deref()),
            }
        };
        let found: Vec<Result<ScaleScan, Stop>> = chunks.map(look).collect();
        first += bytes.len() / row_bytes;
        for scan in found {
            match scan {
                Ok(scan) => all.merge(scan),
                Err(Stop::Conflict(conflict)) => return Ok(Err(conflict)),
                // Looking for the element finds it again.
                Err(Stop::NotFinite) if coded.is_some() => {
                    return dense::dense(tensor.clone(), &shape, what).map(|_| Ok(all));
                }
                Err(Stop::NotFinite) => return Err(dense::not_finite(tensor, float)),
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

/// The matrix that was scanned.
fn ternary(
    scan: ScaleScan,
    tensor: RawTensor,
    [rows, k]: [usize; 2],
) -> Result<(Ternary, TensorReport), CompileError> {
    let float = tensor.dtype.float().unwrap_or(FloatType::F32);
    let (scales, mut report) = (scan.scales(float), scan.report(&tensor));
    report.zeros = Some(scan.zeros as f64 / (rows * k).max(1) as f64);
    let columns = match scales {
        Scales::Rows { columns, .. } if columns > 0 && order::units(&tensor, k).is_some() => UNIT,
        Scales::Rows { columns, .. } if columns > 0 => columns as usize,
        _ => k,
    };
    let name = tensor.name.clone();
    let signs = scan.zeros == 0;
    let stored = Arc::new(FakeQuantRows { tensor: tensor.clone(), float, k, columns, signs });
    let trits = order::untiled(&tensor, scales, k, stored)?;
    Ok((Ternary { name, rows, k, scales, trits, rotation: None }, report))
}

fn largest<const N: usize>(bytes: &[u8], magnitude: impl Fn([u8; N]) -> Magnitude) -> Magnitude {
    bytes.as_chunks().0.iter().map(|&b| magnitude(b)).fold(0, Magnitude::max)
}

/// The magnitude of a float of 32 bits.
fn magnitude32(bytes: [u8; 4]) -> Magnitude {
    u32::from_le_bytes(bytes) & 0x7fff_ffff
}

/// The magnitude of a float of 16 bits, of either kind.
fn magnitude16(bytes: [u8; 2]) -> Magnitude {
    u32::from(u16::from_le_bytes(bytes) & 0x7fff)
}

/// Looks at whole rows, the first of which is row `first` of the tensor; `order` is where their units are stored.
fn look(
    float: FloatType,
    rows: &[u8],
    row_bytes: usize,
    first: usize,
    order: Option<&[usize]>,
) -> Result<ScaleScan, Stop> {
    let rows = Rows { bytes: rows, row_bytes, first, order };
    match float {
        FloatType::F32 => look_at(rows, float, 0x7f80_0000, magnitude32),
        FloatType::F16 => look_at(rows, float, 0x7c00, magnitude16),
        FloatType::Bf16 => look_at(rows, float, 0x7f80, magnitude16),
    }
}

/// Rows to look at.
struct Rows<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    /// The first one's index in the tensor.
    first: usize,
    /// Where their units are stored, where they stand in another order.
    order: Option<&'a [usize]>,
}

/// As [`look`]; `infinity` is the least magnitude that is not finite.
fn look_at<const N: usize>(
    rows: Rows,
    float: FloatType,
    infinity: Magnitude,
    magnitude: impl Fn([u8; N]) -> Magnitude,
) -> Result<ScaleScan, Stop> {
    let Rows { bytes, row_bytes, first, order } = rows;
    let mut scan = ScaleScan::default();
    let mut units: Vec<Magnitude> = Vec::with_capacity(row_bytes / N / UNIT + 1);
    for (index, row) in bytes.chunks_exact(row_bytes).enumerate() {
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
            scan.zeros += u64::from(zeros);
            units.push(largest);
        }
        if let Some(order) = order {
            units = order.iter().map(|&at| units[at]).collect();
        }
        scan.row(&units);
    }
    Ok(scan)
}

/// The first two magnitudes in a unit that has more than one.
fn conflict<const N: usize>(
    unit: &[[u8; N]],
    row: usize,
    column: usize,
    float: FloatType,
    magnitude: impl Fn([u8; N]) -> Magnitude,
) -> Conflict {
    let mut found = unit.iter().map(|&b| magnitude(b)).enumerate().filter(|&(_, m)| m != 0);
    let first = found.next().unwrap_or((0, 0));
    let second = found.find(|&(_, m)| m != first.1).unwrap_or(first);
    let value = |(at, m): (usize, Magnitude)| (column + at, widen(float, m));
    Conflict { row, first: value(first), second: value(second) }
}

/// Floats that were found to be ternary.
struct FakeQuantRows {
    tensor: RawTensor,
    float: FloatType,
    k: usize,
    /// How many columns are given one scale: those that share one, or all of a row.
    columns: usize,
    /// Whether no weight is zero.
    signs: bool,
}

impl FakeQuantRows {
    fn row(&self, row: usize) -> Result<&[u8], CompileError> {
        self.tensor.row(row, self.k * self.float.dtype().size())
    }
}

impl TernaryRows for FakeQuantRows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        fn signs<const N: usize>(row: &[u8], out: &mut [i8], bits: impl Fn([u8; N]) -> i32) {
            for (trit, &b) in out.iter_mut().zip(row.as_chunks().0) {
                // The sign is the highest bit. Once it is shifted out, only zeros are zero.
                let bits = bits(b);
                *trit = if bits << 1 == 0 { 0 } else { 1 | (bits >> 31) as i8 };
            }
        }
        let row = self.row(row)?;
        match self.float {
            FloatType::F32 => signs(row, out, i32::from_le_bytes),
            FloatType::F16 | FloatType::Bf16 => signs(row, out, |b| i32::from(i16::from_le_bytes(b)) << 16),
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        let bytes = self.columns * self.float.dtype().size();
        for (scale, group) in out.iter_mut().zip(self.row(row)?.chunks(bytes)) {
            // Every element is the scale, its negative, or zero.
            let largest = match self.float {
                FloatType::F32 => largest(group, magnitude32),
                FloatType::F16 | FloatType::Bf16 => largest(group, magnitude16),
            };
            *scale = widen(self.float, largest);
        }
        Ok(())
    }

    fn is_signs(&self) -> bool {
        self.signs
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[&[f32]]) -> Result<ScaleScan, Stop> {
        let bytes: Vec<u8> = rows.iter().flat_map(|r| r.iter().flat_map(|x| x.to_le_bytes())).collect();
        look(FloatType::F32, &bytes, rows[0].len() * 4, 0, None)
    }

    fn grouping(rows: &[&[f32]]) -> Option<Found> {
        found(rows).ok().map(|scan| scan.found())
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
                let mut merged = ScaleScan::default();
                for part in [&slices[..cut.min(until)], &slices[cut.min(until)..]] {
                    if !part.is_empty() {
                        merged.merge(found(part).ok().unwrap());
                    }
                }
                assert_eq!(merged.found(), whole.found());
                assert_eq!((merged.zeros, merged.magnitudes), (whole.zeros, whole.magnitudes));
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
