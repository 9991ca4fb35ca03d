//! Makes ternary matrices of mlx-lm's tensors of 2 bits and of 1: `w = scale * code + bias`, a scale and a bias for each
//! group of columns. Nothing is decoded up front; rows are read from the mapped files.
//!
//! Codes of 2 bits stand four to a byte, the first in the lowest bits; a word of 32 bits has sixteen of them, in the same
//! order. The codes 0, 1 and 2 are the trits -1, 0 and 1 where the bias is `-scale`, and then nothing is rounded. Codes of
//! 1 bit stand eight to a byte in the same order. The codes 0 and 1 are the signs -1 and 1 where the bias is `-scale / 2`.
//! In both the magnitude of a weight is that of the bias. A scale below zero turns the trits' signs. All else is not
//! ternary and refused by its place.

use crate::checkpoint::{Affine, ElementType, RawTensor};
use crate::error::CompileError;
use crate::model::float::{FloatType, widen_bf16};
use crate::model::{Scales, TensorReport, Ternary, TernaryRows};
use crate::weights::order;
use crate::weights::scale_scan::{Magnitude, ScaleScan, UNIT};
use half::{bf16, f16};
use std::sync::Arc;
use trit_format::dense243::decode_signs;

/// Four codes of zero.
const ZEROS: u8 = 0x55;

/// The matrix `[rows, k]` in codes with scales and biases. As for floats, its scales are grouped as coarsely as they can
/// be. Groups of zeros fit every scale.
///
/// # Errors
/// Another shape; a scale that is not finite, and a bias that is not its negative.
pub(crate) fn ternary(
    tensor: RawTensor,
    affine: Arc<Affine>,
    [rows, k]: [usize; 2],
) -> Result<(Ternary, TensorReport), CompileError> {
    tensor.expect_shape(&[rows, k], &format!("{rows} rows of {k}"))?;
    let float = affine.scales.dtype.float().ok_or_else(|| {
        let problem =
            format!("is {}, which is not supported; expected F16, BF16 or F32", affine.scales.dtype);
        affine.scales.unsupported(problem)
    })?;
    let ElementType::Codes(bits @ (1 | 2)) = tensor.dtype else {
        return Err(CompileError::Internal(format!(
            "tensor {} is {}, not in codes",
            tensor.name, tensor.dtype
        )));
    };
    let in_byte = 8 / usize::from(bits);
    let (groups, row_bytes) = (k / affine.group.max(1), k / in_byte);
    let bytes = [&tensor, &affine.scales, &affine.biases].map(|tensor| tensor.bytes.as_ref().len());
    let floats = rows.checked_mul(groups).and_then(|floats| floats.checked_mul(float.dtype().size()));
    let whole = affine.group > 0 && affine.group.is_multiple_of(UNIT) && k.is_multiple_of(affine.group);
    if !whole || [rows.checked_mul(row_bytes), floats, floats] != bytes.map(Some) {
        let problem = format!("tensor {} has codes, scales and biases of other sizes", tensor.name);
        return Err(CompileError::Internal(problem));
    }
    let mut codes = Codes { tensor, affine, float, k, columns: k, in_byte, signs: false };
    let scan = codes.look()?;
    codes.signs = codes.is_binary() && !scan.units_of_zeros;
    codes.release();
    let scales = scan.scales(float);
    if let Scales::Rows { columns: columns @ 1.., .. } = scales {
        codes.columns = columns as usize;
    }
    let (tensor, report) = (codes.tensor.clone(), scan.report(&codes.tensor));
    let trits = order::untiled(&tensor, scales, k, Arc::new(codes))?;
    Ok((Ternary { name: tensor.name, rows, k, scales, trits, rotation: None }, report))
}

/// Mapped codes with their scales and biases.
struct Codes {
    tensor: RawTensor,
    affine: Arc<Affine>,
    /// Type of scales and biases.
    float: FloatType,
    k: usize,
    /// How many columns are given one scale: those that share one, or all of a row.
    columns: usize,
    /// Codes in a byte: four of 2 bits, or eight of 1.
    in_byte: usize,
    /// Whether every weight is known to be -1 or 1.
    signs: bool,
}

impl Codes {
    fn codes(&self, row: usize) -> Result<&[u8], CompileError> {
        self.tensor.row(row, self.k / self.in_byte)
    }

    /// Whether codes have 1 bit.
    fn is_binary(&self) -> bool {
        self.in_byte == 8
    }

    /// Whether all weights of a group are zero by their codes.
    fn are_zero(&self, codes: &[u8]) -> bool {
        !self.is_binary() && codes.iter().all(|&byte| byte == ZEROS)
    }

    /// Floats of a row of scales or biases.
    fn floats<'a>(
        &self,
        tensor: &'a RawTensor,
        row: usize,
    ) -> Result<impl Iterator<Item = f32> + 'a, CompileError> {
        let len = self.k / self.affine.group * self.float.dtype().size();
        tensor.row(row, len).map(|bytes| floats(self.float, bytes))
    }

    /// Checks all scales and biases, and finds which scales are equal.
    fn look(&self) -> Result<ScaleScan, CompileError> {
        ScaleScan::of_rows(self.tensor.shape[0], |row, units| self.units(row, units))
    }

    /// The magnitudes of a row's units. They are the scales of its groups, and 0 for groups of zeros only.
    fn units(&self, row: usize, units: &mut Vec<Magnitude>) -> Result<(), CompileError> {
        units.clear();
        let group = self.affine.group;
        let codes = self.codes(row)?.chunks_exact(group / self.in_byte);
        let scales = self.floats(&self.affine.scales, row)?.zip(self.floats(&self.affine.biases, row)?);
        // How much of the scale the bias takes away. Doubling is exact.
        let (parts, what) =
            if self.is_binary() { (2.0, "half the negative scale") } else { (1.0, "the negative scale") };
        for (index, (codes, (scale, bias))) in codes.zip(scales).enumerate() {
            // The comparison is of numbers, so that the bias may be either zero.
            if !scale.is_finite() || parts * bias != -scale {
                return Err(self.tensor.error(format!(
                    "has the scale {scale} and the bias {bias} at row {row}, columns {} to {}; in a ternary matrix the bias \
                     is {what}, so these weights are not ternary, or the file is damaged",
                    index * group,
                    (index + 1) * group - 1
                )));
            }
            let magnitude = match self.float {
                _ if scale == 0.0 || self.are_zero(codes) => 0,
                FloatType::F32 => bias.abs().to_bits(),
                FloatType::F16 => f16::from_f32(bias.abs()).to_bits().into(),
                FloatType::Bf16 => bf16::from_f32(bias.abs()).to_bits().into(),
            };
            units.extend(std::iter::repeat_n(magnitude, group / UNIT));
        }
        Ok(())
    }

    fn illegal(&self, row: usize, codes: &[u8]) -> CompileError {
        let at = codes.iter().position(|&byte| has_three(byte)).unwrap_or(0);
        let within = (0..4).find(|i| codes[at] >> (2 * i) & 3 == 3).unwrap_or(0);
        self.tensor.error(format!(
            "has the code 3 at row {row}, column {} (byte {:#04x}); ternary codes are 0, 1 and 2, so these weights are not \
             ternary, or the file is damaged",
            4 * at + within,
            codes[at]
        ))
    }
}

/// Floats of that type, widened.
pub(super) fn floats(float: FloatType, bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(float.dtype().size()).map(move |bytes| match (float, bytes) {
        (FloatType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (FloatType::Bf16, &[a, b]) => widen_bf16([a, b]),
        (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        // `chunks_exact` gives the type's size.
        _ => f32::NAN,
    })
}

/// Whether one of four codes is 3.
fn has_three(byte: u8) -> bool {
    byte & (byte >> 1) & ZEROS != 0
}

impl TernaryRows for Codes {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let codes = self.codes(row)?;
        // The loop has no branch, because nearly all rows are legal.
        if !self.is_binary() && codes.iter().fold(false, |any, &byte| any | has_three(byte)) {
            return Err(self.illegal(row, codes));
        }
        if self.is_binary() {
            for (signs, &byte) in out.as_chunks_mut().0.iter_mut().zip(codes) {
                *signs = decode_signs(byte);
            }
        } else {
            for (trits, &byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
                *trits = [0, 1, 2, 3].map(|i| (byte >> (2 * i) & 3) as i8 - 1);
            }
        }
        for (trits, scale) in
            out.chunks_exact_mut(self.affine.group).zip(self.floats(&self.affine.scales, row)?)
        {
            if scale == 0.0 {
                // The weights are zero. In the matrix they may share a scale with others, and that scale is not zero.
                trits.fill(0);
            } else if scale < 0.0 {
                trits.iter_mut().for_each(|trit| *trit = -*trit);
            }
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        out.fill(0.0);
        let group = self.affine.group;
        let codes = self.codes(row)?.chunks_exact(group / self.in_byte);
        for (index, (codes, bias)) in codes.zip(self.floats(&self.affine.biases, row)?).enumerate() {
            // All groups that share a scale and are not zero have the same.
            let shared = index * group / self.columns..=((index + 1) * group - 1) / self.columns;
            if !self.are_zero(codes)
                && let Some(out) = out.get_mut(shared)
            {
                out.iter_mut().for_each(|out| *out = out.max(bias.abs()));
            }
        }
        Ok(())
    }

    fn is_signs(&self) -> bool {
        self.signs
    }

    fn release(&self) {
        for tensor in [&self.tensor, &self.affine.scales, &self.affine.biases] {
            tensor.bytes.release();
        }
    }
}
