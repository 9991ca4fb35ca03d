//! Makes ternary matrices of tensors of ternary blocks. Nothing is decoded up front; rows are read from the mapped
//! file.

use crate::checkpoint::BlockType;
use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::model::float::FloatType;
use crate::model::{Scales, TensorReport, Ternary, TernaryRows};
use crate::weights::scale_scan::{Magnitude, ScaleScan, UNIT};
use crate::weights::{order, trits};
use half::f16;
use std::sync::Arc;
use trit_format::plan::ScaleRule;

/// The matrix `[rows, k]` in a tensor of ternary blocks. As for floats, its scales are grouped as coarsely as they
/// can be: one for the whole matrix, one for each row, or one for some columns. Blocks of zeros fit every scale.
///
/// `factor` is the value of a scale tensor beside it.
///
/// # Errors
/// Another shape or type; scales that are negative or not finite; scales that differ where there is a factor too.
pub(crate) fn ternary(
    tensor: RawTensor,
    kind: BlockType,
    factor: Option<f32>,
    [rows, k]: [usize; 2],
) -> Result<(Ternary, TensorReport), CompileError> {
    if !kind.is_ternary() {
        return Err(tensor.unsupported(format!(
            "is {kind}, which is not ternary; only embeddings, heads and norms are read from it. Quantize the model's \
             F16 file again, with this tensor ternary or F16"
        )));
    }
    tensor.expect_shape(&[rows, k], &format!("{rows} rows of {k}"))?;
    let fits = |bytes: &usize| bytes.checked_mul(rows) == Some(tensor.bytes.as_ref().len());
    let row_bytes = kind.row_bytes(k).filter(fits).ok_or_else(|| {
        CompileError::Internal(format!("tensor {} of {kind} is not of its own size", tensor.name))
    })?;
    let name = tensor.name.clone();
    let units = order::units(&tensor, k);
    let mut blocks = Blocks { tensor, kind, row_bytes, columns: k, units, signs: false };
    let scan = blocks.look()?;
    blocks.signs = kind == BlockType::Q1_0 && !scan.units_of_zeros;
    blocks.tensor.bytes.release();
    let mut scales = scan.scales(blocks.float());
    match (&mut scales, factor) {
        (_, None) => {}
        (Scales::Tensor { scale, rule: ScaleRule::Multiply }, Some(factor)) => *scale *= factor,
        (Scales::Tensor { .. } | Scales::Rows { .. }, Some(_)) => {
            return Err(blocks.tensor.error(
                "has blocks of different scales and a scale tensor beside it, which only go with one scale; convert \
                 the model again",
            ));
        }
    }
    if let Scales::Tensor { scale, .. } = scales
        && !(scale.is_finite() && scale > 0.0)
    {
        return Err(blocks
            .tensor
            .error(format!("has the scale {scale}, which must be finite and above zero")));
    }
    if let Scales::Rows { columns: columns @ 1.., .. } = scales {
        blocks.columns = if blocks.units.is_some() { UNIT } else { columns as usize };
    }
    let report = scan.report(&blocks.tensor);
    let tensor = blocks.tensor.clone();
    let trits = order::untiled(&tensor, scales, k, Arc::new(blocks))?;
    Ok((Ternary { name, rows, k, scales, trits, rotation: None }, report))
}

/// A mapped tensor of ternary blocks.
struct Blocks {
    tensor: RawTensor,
    kind: BlockType,
    row_bytes: usize,
    /// How many columns of the matrix are given one scale: those that share one, or all of a row.
    columns: usize,
    /// Where units of 32 columns are stored, where they stand in another order.
    units: Option<Vec<usize>>,
    /// Whether every weight is known to be -1 or 1.
    signs: bool,
}

impl Blocks {
    /// The blocks of a row, and the scale of each as it is stored.
    fn blocks(&self, row: usize) -> Result<impl Iterator<Item = (&[u8], f32)>, CompileError> {
        let (header, blocks) = self.tensor.row(row, self.row_bytes)?.split_at(self.kind.row_header());
        let own = trits::scale_at(self.kind);
        let of_row = match *header {
            [a, b] => f16::from_le_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => 0.0,
        };
        Ok(blocks.chunks_exact(self.kind.bytes()).map(move |block| match own {
            Some(at) => (block, f16::from_le_bytes([block[at], block[at + 1]]).to_f32()),
            None => (block, of_row),
        }))
    }

    /// The type of scales in the file.
    fn float(&self) -> FloatType {
        if self.kind == BlockType::Iq2Bn { FloatType::F32 } else { FloatType::F16 }
    }

    /// Checks all scales, and finds which of them are equal.
    fn look(&self) -> Result<ScaleScan, CompileError> {
        ScaleScan::of_rows(self.tensor.shape[0], |row, units| self.units(row, units))
    }

    /// The magnitudes of a row's units. They are the scales of its blocks, and 0 for blocks of zeros only.
    fn units(&self, row: usize, units: &mut Vec<Magnitude>) -> Result<(), CompileError> {
        units.clear();
        let weights = self.kind.weights();
        for (index, (block, scale)) in self.blocks(row)?.enumerate() {
            if !(scale.is_finite() && scale >= 0.0) {
                return Err(self.tensor.error(format!(
                    "has the scale {scale} at row {row}, column {}; scales must be finite and not below zero. The \
                     file is damaged, download it again",
                    index * weights
                )));
            }
            let magnitude = match self.float() {
                _ if scale == 0.0 || trits::are_zero(self.kind, block) => 0,
                FloatType::F32 => scale.to_bits(),
                _ => f16::from_f32(scale).to_bits().into(),
            };
            units.extend(std::iter::repeat_n(magnitude, weights / UNIT));
        }
        if let Some(order) = &self.units {
            *units = order.iter().map(|&at| units[at]).collect();
        }
        Ok(())
    }
}

impl TernaryRows for Blocks {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let weights = self.kind.weights();
        for (index, ((block, scale), trits)) in
            self.blocks(row)?.zip(out.chunks_exact_mut(weights)).enumerate()
        {
            trits::decode(self.kind, block, trits).map_err(|at| {
                self.tensor.error(format!(
                    "has a byte that stands for no trits at row {row}, in columns {} to {}: {:#04x}, byte {at} of a \
                     {} block; the file is damaged, or holds more than -1, 0 and 1",
                    index * weights,
                    (index + 1) * weights - 1,
                    block[at],
                    self.kind
                ))
            })?;
            // The weights are zero. In the matrix they may share a scale with others, and that scale is not zero.
            if scale == 0.0 {
                trits.fill(0);
            }
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        out.fill(0.0);
        let weights = self.kind.weights();
        for (index, (block, scale)) in self.blocks(row)?.enumerate() {
            // All blocks of a group that are not zero have the same scale.
            let groups = index * weights / self.columns..=((index + 1) * weights - 1) / self.columns;
            if !trits::are_zero(self.kind, block)
                && let Some(out) = out.get_mut(groups)
            {
                out.iter_mut().for_each(|out| *out = out.max(scale));
            }
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
