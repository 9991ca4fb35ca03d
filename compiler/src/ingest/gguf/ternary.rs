//! Tensors of ternary blocks become ternary matrices: nothing is decoded up front, rows are read from the mapped file.

use super::trits;
use super::types::BlockType;
use crate::error::CompileError;
use crate::ingest::checkpoint::RawTensor;
use crate::model::{Scales, Ternary, TernaryRows};
use half::f16;
use rayon::prelude::*;
use std::sync::Arc;
use trit_format::plan::{DType, ScaleRule};

/// The matrix `[rows, k]` in a tensor of ternary blocks. Where all its blocks have the same scale, those of zeros
/// excepted, it has that one; otherwise one for each block, or each row.
///
/// `factor` is the value of a scale tensor beside it.
///
/// # Errors
/// Another shape or type; scales that are negative or not finite; scales that differ where there is a factor too.
pub(crate) fn ternary(
    tensor: RawTensor,
    kind: BlockType,
    factor: Option<f32>,
    (rows, k): (usize, usize),
) -> Result<Ternary, CompileError> {
    if !kind.is_ternary() {
        return Err(tensor.error(format!(
            "is {kind}, which is not ternary; only embeddings, heads and norms are read from it. Quantize the model's \
             F16 file again, with this tensor ternary or F16"
        )));
    }
    tensor.expect_shape(&[rows, k], &format!("{rows} rows of {k}"))?;
    let row_bytes =
        kind.row_bytes(k).filter(|bytes| bytes.checked_mul(rows) == Some(tensor.bytes.as_ref().len()));
    let row_bytes = row_bytes.ok_or_else(|| {
        CompileError::Internal(format!("tensor {} of {kind} is not of its own size", tensor.name))
    })?;
    let name = tensor.name.clone();
    let blocks = Blocks { tensor, kind, k, row_bytes };
    let common = blocks.common_scale()?;
    blocks.tensor.bytes.release();
    let scales = match (common, factor) {
        (Common::One(scale), factor) => {
            let scale = scale * factor.unwrap_or(1.0);
            if !(scale.is_finite() && scale > 0.0) {
                return Err(blocks
                    .tensor
                    .error(format!("has the scale {scale}, which must be finite and above zero")));
            }
            Scales::Tensor { scale, rule: ScaleRule::Multiply }
        }
        (Common::Different, None) => {
            Scales::Rows { columns: blocks.scale_columns() as u32, dtype: blocks.scale_type() }
        }
        (Common::Different, Some(_)) => {
            return Err(blocks.tensor.error(
                "has blocks of different scales and a scale tensor beside it, which only go with one scale; convert \
                 the model again",
            ));
        }
    };
    Ok(Ternary { name, rows, k, scales, trits: Arc::new(blocks) })
}

/// Whether all blocks that are not zero have one scale.
enum Common {
    One(f32),
    Different,
}

/// A mapped tensor of ternary blocks.
struct Blocks {
    tensor: RawTensor,
    kind: BlockType,
    k: usize,
    row_bytes: usize,
}

impl Blocks {
    fn row(&self, row: usize) -> &[u8] {
        &self.tensor.bytes.as_ref()[row * self.row_bytes..][..self.row_bytes]
    }

    /// The blocks of a row.
    fn blocks(&self, row: usize) -> impl Iterator<Item = &[u8]> {
        self.row(row)[self.kind.row_header()..].chunks_exact(self.kind.bytes())
    }

    /// Columns that share a scale; 0: all of a row.
    fn scale_columns(&self) -> usize {
        if trits::scale_at(self.kind).is_some() { self.kind.weights() } else { 0 }
    }

    fn scale_type(&self) -> DType {
        if self.kind == BlockType::Iq2Bn { DType::F32 } else { DType::F16 }
    }

    /// The scales of a row, in order.
    fn scales(&self, row: usize) -> impl Iterator<Item = f32> {
        let own = trits::scale_at(self.kind);
        let header = &self.row(row)[..self.kind.row_header()];
        let of_row = match *header {
            [a, b] => Some(f16::from_le_bytes([a, b]).to_f32()),
            [a, b, c, d] => Some(f32::from_le_bytes([a, b, c, d])),
            _ => None,
        };
        let of_blocks = own.map(|at| {
            self.blocks(row).map(move |block| f16::from_le_bytes([block[at], block[at + 1]]).to_f32())
        });
        of_row.into_iter().chain(of_blocks.into_iter().flatten())
    }

    /// Checks all scales, and whether they are one.
    fn common_scale(&self) -> Result<Common, CompileError> {
        let rows = self.tensor.shape[0];
        let found: Vec<Common> =
            (0..rows).into_par_iter().map(|row| self.common_scale_of(row)).collect::<Result<_, _>>()?;
        let mut one = None;
        for common in found {
            match (common, one) {
                (Common::Different, _) => return Ok(Common::Different),
                // What has no trit but zero fits every scale.
                (Common::One(scale), _) if scale.is_nan() => {}
                (Common::One(scale), None) => one = Some(scale),
                (Common::One(scale), Some(first)) if scale != first => return Ok(Common::Different),
                (Common::One(_), Some(_)) => {}
            }
        }
        Ok(Common::One(one.unwrap_or(1.0)))
    }

    /// As `common_scale`, for a row; NaN where it is all zeros.
    fn common_scale_of(&self, row: usize) -> Result<Common, CompileError> {
        let columns = if self.scale_columns() == 0 { self.k } else { self.scale_columns() };
        let (mut common, mut trits) = (f32::NAN, Vec::new());
        for (index, scale) in self.scales(row).enumerate() {
            self.check_scale(scale, row, index * columns)?;
            if scale == common {
                continue;
            }
            if trits.is_empty() {
                trits.resize(self.k, 0);
                self.read_row(row, &mut trits)?;
            }
            if trits[index * columns..][..columns].iter().all(|&trit| trit == 0) {
                continue;
            }
            if !common.is_nan() {
                return Ok(Common::Different);
            }
            common = scale;
        }
        Ok(Common::One(common))
    }

    fn check_scale(&self, scale: f32, row: usize, column: usize) -> Result<(), CompileError> {
        if scale.is_finite() && scale >= 0.0 {
            return Ok(());
        }
        Err(self.tensor.error(format!(
            "has the scale {scale} at row {row}, column {column}; scales must be finite and not below zero. The file \
             is damaged, download it again"
        )))
    }
}

impl TernaryRows for Blocks {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let weights = self.kind.weights();
        for (index, (block, trits)) in self.blocks(row).zip(out.chunks_exact_mut(weights)).enumerate() {
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
        }
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        // Checked, all of them, in `common_scale`. Zero may have been negative.
        out.iter_mut().zip(self.scales(row)).for_each(|(out, scale)| *out = scale.abs());
        Ok(())
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}
