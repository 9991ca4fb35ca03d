//! Stored tensors become ternary matrices: packed codes, ternary floats, or latent weights and their absmean.
//!
//! Nothing is decoded up front. A matrix keeps its range of the mapped checkpoint and gives trits row by row.

use crate::checkpoint::{ElementType, RawTensor};
use crate::error::CompileError;
use crate::model::float::{FloatType, widen_bf16};
use crate::model::{Scales, Ternary, TernaryRows};
use crate::weights::blocks;
use crate::weights::dense::{not_finite, place, scan};
use crate::weights::i2s;
use half::f16;
use std::sync::Arc;
use trit_format::plan::ScaleRule;

/// How the checkpoint stores its ternary matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// U8, four trits a byte, and a scale of that direction: `1 / mean|W|` to divide by (linear class `bitlinear`).
    Packed,
    /// U8 or floats that are -1, 0 or 1, and the scale `mean|W|` to multiply with (`autobitlinear`, offline).
    Offline,
    /// The floats that training worked on. Scale and trits follow from them (`autobitlinear`, online).
    Latent,
}

/// The ternary matrix `[rows, k]` that `weight`, and `scale` where the storage has one, describe.
///
/// # Errors
/// A wrong dtype or shape, a scale that is missing, not finite or not above zero, latent weights that are not finite,
/// offline floats that are not ternary.
pub(crate) fn ternary(
    weight: RawTensor,
    scale: Option<RawTensor>,
    (rows, k): (usize, usize),
    storage: Storage,
) -> Result<Ternary, CompileError> {
    if let ElementType::Block(_) | ElementType::I2s(_) = weight.dtype {
        if storage == Storage::Latent {
            return Err(CompileError::AlreadyTernary {
                path: weight.bytes.path().to_owned(),
                tensor: weight.name.clone(),
                stored: weight.dtype.to_string(),
            });
        }
        let factor = scale.as_ref().map(read_scale).transpose()?;
        let ternary = match weight.dtype {
            ElementType::Block(kind) => blocks::ternary(weight, kind, factor, [rows, k]),
            _ => i2s::ternary(weight, factor, [rows, k]),
        };
        return ternary.map(|(ternary, _)| ternary);
    }
    let name = weight.name.clone();
    let what = format!("{rows} rows of {k}");
    let stored_scale = || match &scale {
        Some(scale) => read_scale(scale),
        None => Err(weight.error(format!("has no {name}_scale, which this storage form needs"))),
    };
    let (scale, rule, trits): (f32, ScaleRule, Arc<dyn TernaryRows>) = match (storage, weight.dtype) {
        (Storage::Packed | Storage::Offline, ElementType::U8) => {
            let packed_rows = rows.div_ceil(4);
            weight.expect_shape(&[packed_rows, k], &format!("{what}, four rows to a byte"))?;
            let rule = if storage == Storage::Packed { ScaleRule::Divide } else { ScaleRule::Multiply };
            (stored_scale()?, rule, Arc::new(PackedRows { tensor: weight.clone(), packed_rows, k }))
        }
        (Storage::Packed, ElementType::F32 | ElementType::F16 | ElementType::Bf16) => {
            return Err(weight.error(format!(
                "is {}, but linear_class \"bitlinear\" stores packed U8 weights; if these are the latent weights of \
                 a ternary model, declare it in config.json: quantization_config with linear_class \
                 \"autobitlinear\" and quantization_mode \"online\"",
                weight.dtype
            )));
        }
        (Storage::Offline | Storage::Latent, dtype) if let Some(float) = dtype.float() => {
            weight.expect_shape(&[rows, k], &what)?;
            if storage == Storage::Offline {
                expect_ternary(&weight, float)?;
                let trits = FloatRows { tensor: weight.clone(), float, k, gain: 1.0 };
                (stored_scale()?, ScaleRule::Multiply, Arc::new(trits))
            } else {
                if let Some(scale) = &scale {
                    return Err(scale.error(
                        "stands beside latent weights, whose scale follows from them; \
                         either these are no latent weights or the scale is left over",
                    ));
                }
                let gain = absmean_gain(&weight, float)?;
                let trits = FloatRows { tensor: weight.clone(), float, k, gain };
                (gain, ScaleRule::Divide, Arc::new(trits))
            }
        }
        (Storage::Packed, dtype) => {
            return Err(weight.unsupported(format!("is {dtype}, which is not supported; expected packed U8")));
        }
        (Storage::Offline, dtype) => {
            let expected = "expected packed U8, or BF16, F16 or F32 trits";
            return Err(weight.unsupported(format!("is {dtype}, which is not supported; {expected}")));
        }
        (Storage::Latent, ElementType::U8) => {
            return Err(weight.error(
                "is packed U8, but quantization_mode \"online\" says these are latent weights; \
                 packed weights are \"offline\"",
            ));
        }
        (Storage::Latent, dtype) => {
            let expected = "expected latent weights in BF16, F16 or F32";
            return Err(weight.unsupported(format!("is {dtype}, which is not supported; {expected}")));
        }
    };
    Ok(Ternary { name, rows, k, scales: Scales::Tensor { scale, rule }, trits, rotation: None })
}

/// A scale, of any float type and shape `[1]` or `[]`.
fn read_scale(tensor: &RawTensor) -> Result<f32, CompileError> {
    if !matches!(tensor.shape.as_slice(), [] | [1]) {
        return Err(tensor.error(format!(
            "has shape {:?}, expected [1] or []; only one scale per matrix is supported",
            tensor.shape
        )));
    }
    let bytes = tensor.bytes.as_ref();
    let mut scale = None;
    match tensor.dtype.float() {
        Some(float) => float.each(bytes, |x| scale = Some(x)),
        None if tensor.dtype == ElementType::F64 => {
            scale = bytes.first_chunk().map(|&b| f64::from_le_bytes(b) as f32);
        }
        None => {
            let problem = format!("is {}, which is not supported; expected a float type", tensor.dtype);
            return Err(tensor.unsupported(problem));
        }
    }
    match scale {
        // Some scales divide, and then the reciprocal multiplies.
        Some(scale) if scale.is_finite() && scale > 0.0 && scale.recip().is_finite() => Ok(scale),
        scale => Err(tensor.error(format!(
            "is {}; a scale and its reciprocal must be finite and above zero",
            scale.map_or_else(|| "empty".to_owned(), |s| s.to_string())
        ))),
    }
}

/// `g = 1 / max(mean|W|, 1e-5)` in f32, the mean summed in f64: what transformers' `WeightQuant` multiplies with.
fn absmean_gain(tensor: &RawTensor, float: FloatType) -> Result<f32, CompileError> {
    let sums = scan(tensor, float, 0.0f64, |sum, x| sum + f64::from(x.abs()));
    let sum: f64 = sums.iter().sum();
    if !sum.is_finite() {
        return Err(not_finite(tensor, float));
    }
    let mean = (sum / (tensor.bytes.as_ref().len() / float.dtype().size()) as f64) as f32;
    Ok(1.0 / mean.max(1e-5))
}

/// Checks that unpacked offline weights are trits already. They are never quantized again: the zeros would shrink
/// the mean.
fn expect_ternary(tensor: &RawTensor, float: FloatType) -> Result<(), CompileError> {
    let counts = scan(tensor, float, (0usize, None), |(at, first): (usize, Option<_>), x| {
        let odd = x != 0.0 && x.abs() != 1.0;
        (at + 1, first.or(odd.then_some((at, x))))
    });
    let mut start = 0;
    for (count, odd) in counts {
        if let Some((at, x)) = odd {
            return Err(tensor.error(format!(
                "holds {x} at {}, but \"offline\" weights are -1, 0 and 1; if these are latent weights, say \
                 quantization_mode \"online\" in config.json's quantization_config",
                place(start + at, &tensor.shape)
            )));
        }
        start += count;
    }
    Ok(())
}

/// A matrix with four rows to a byte. Row `i * packed_rows + r` is in bits `2 * i` of packed row `r`, stored as trit
/// + 1.
struct PackedRows {
    tensor: RawTensor,
    packed_rows: usize,
    k: usize,
}

impl TernaryRows for PackedRows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let packed = self.packed_rows.max(1);
        let shift = 2 * (row / packed);
        if shift > 6 {
            return Err(CompileError::Internal(format!("tensor {} has no row {row}", self.tensor.name)));
        }
        let bytes = self.tensor.row(row % packed, self.k)?;
        let mut highest = 0;
        for (trit, byte) in out.iter_mut().zip(bytes) {
            let code = (byte >> shift) & 3;
            highest = highest.max(code);
            *trit = code as i8 - 1;
        }
        if highest < 3 {
            return Ok(());
        }
        let column = bytes.iter().position(|byte| (byte >> shift) & 3 == 3).unwrap_or(0);
        Err(self.tensor.error(format!(
            "has the illegal code 3 at row {row}, column {column} (byte {:#04x} of packed row {}); the file is damaged \
             or packed in another way",
            bytes[column],
            row % self.packed_rows
        )))
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}

/// A matrix of floats. The trit of `w` is `clamp(round_half_even(w * gain), -1, 1)`.
struct FloatRows {
    tensor: RawTensor,
    float: FloatType,
    k: usize,
    gain: f32,
}

/// `clamp(round_half_even(x), -1, 1)`. A half rounds to the even number zero; everything beyond it rounds to its
/// sign. The function only compares, so that it vectorizes on machines without a rounding instruction.
fn round_to_trit(x: f32) -> i8 {
    i8::from(x > 0.5) - i8::from(x < -0.5)
}

/// Rounds each float, stored in `N` bytes, to its trit.
fn round<const N: usize>(bytes: &[u8], out: &mut [i8], gain: f32, widen: impl Fn([u8; N]) -> f32) {
    for (trit, &stored) in out.iter_mut().zip(bytes.as_chunks().0) {
        *trit = round_to_trit(widen(stored) * gain);
    }
}

impl TernaryRows for FloatRows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let len = self.k * self.float.dtype().size();
        let bytes = self.tensor.row(row, len)?;
        match self.float {
            FloatType::F32 => round(bytes, out, self.gain, f32::from_le_bytes),
            FloatType::F16 => round(bytes, out, self.gain, |b| f16::from_le_bytes(b).to_f32()),
            FloatType::Bf16 => round(bytes, out, self.gain, widen_bf16),
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

    #[test]
    fn rounding_to_trits_is_half_to_even() {
        for bits in (0..=u32::MAX).step_by(65_537) {
            let x = f32::from_bits(bits);
            if x.is_finite() {
                assert_eq!(round_to_trit(x), x.round_ties_even().clamp(-1.0, 1.0) as i8, "{x}");
            }
        }
        for x in [0.5f32, -0.5, 0.5f32.next_up(), -(0.5f32.next_up()), 1.5, -1.5, 0.0, -0.0] {
            assert_eq!(round_to_trit(x), x.round_ties_even().clamp(-1.0, 1.0) as i8, "{x}");
        }
    }
}
