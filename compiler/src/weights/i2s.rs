//! Ternary matrices of I2_S. `checkpoint::i2s_layout` says how its bytes are laid out, `i2s_evidence` finds out which
//! layout a file has.

use crate::checkpoint::{ElementType, I2sLayout, RawTensor};
use crate::error::CompileError;
use crate::model::{Found, Scales, TensorReport, Ternary, TernaryRows};
use std::sync::Arc;
use trit_format::plan::ScaleRule;

/// Bytes after the codes. The first four are the scale.
pub(crate) const TRAILER: usize = 32;

/// The matrix `[rows, k]` in an I2_S tensor. `factor` is the value of a scale tensor beside it.
///
/// # Errors
/// Another shape; a shape that its layout cannot hold; a scale that is not finite or not above zero.
pub(crate) fn ternary(
    tensor: RawTensor,
    factor: Option<f32>,
    [rows, k]: [usize; 2],
) -> Result<(Ternary, TensorReport), CompileError> {
    tensor.expect_shape(&[rows, k], &format!("{rows} rows of {k}"))?;
    let ElementType::I2s(Some(layout)) = tensor.dtype else {
        return Err(CompileError::Internal(format!(
            "the layout of tensor {} was not looked for",
            tensor.name
        )));
    };
    let matrix = I2sRows { k, layout, tensor };
    let tensor = &matrix.tensor;
    if !layout.fits([rows, k]) || Some(tensor.bytes.as_ref().len()) != (rows * k / 4).checked_add(TRAILER) {
        return Err(tensor.error(format!(
            "has shape {:?}, which is no whole number of blocks of I2_S in the layout {layout}; convert the model again",
            tensor.shape
        )));
    }
    let at = rows * k / 4;
    let stored = tensor.bytes.as_ref().get(at..).and_then(|trailer| trailer.first_chunk());
    let stored = stored.map_or(f32::NAN, |&bytes| f32::from_le_bytes(bytes));
    let scale = stored * factor.unwrap_or(1.0);
    if !(scale.is_finite() && scale > 0.0) {
        return Err(tensor.error(format!(
            "has the scale {scale}, which must be finite and above zero; the file is damaged, download it again"
        )));
    }
    let report = TensorReport { scales: Some(1), ..tensor.report(Found::PerTensor) };
    let (name, scales) = (tensor.name.clone(), Scales::Tensor { scale, rule: ScaleRule::Multiply });
    Ok((Ternary { name, rows, k, scales, rotation: None, trits: Arc::new(matrix) }, report))
}

/// A mapped tensor of I2_S.
struct I2sRows {
    tensor: RawTensor,
    k: usize,
    layout: I2sLayout,
}

impl TernaryRows for I2sRows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        let codes = self.tensor.bytes.as_ref();
        let read = read_row(codes, self.layout, row, self.k, out);
        let highest = read.ok_or_else(|| {
            CompileError::Internal(format!("tensor {} has no row {row} of {}", self.tensor.name, self.k))
        })?;
        if highest < 2 {
            return Ok(());
        }
        let column = out.iter().position(|&trit| trit == 2).unwrap_or(0);
        Err(self.tensor.error(format!(
            "has the illegal code 3 at row {row}, column {column}; the file is damaged, or of another program's type \
             with the same number"
        )))
    }

    fn release(&self) {
        self.tensor.bytes.release();
    }
}

/// Writes the trits of row `row` of a matrix with rows of `k`; returns the largest of them, which is 2 where a code is
/// illegal. `None` where the matrix has no such row.
pub(super) fn read_row(codes: &[u8], layout: I2sLayout, row: usize, k: usize, out: &mut [i8]) -> Option<i8> {
    let run = layout.run(k);
    let (mut at, mut rest, mut highest) = (row.checked_mul(k)?, out, -1);
    while !rest.is_empty() {
        // The run of successive weights in which `at` is: it stands in the same two bits of successive bytes.
        let (block, inside) = (at / (4 * run), at % (4 * run));
        let (quarter, first) = (inside / run, inside % run);
        let len = (run - first).min(rest.len());
        let bytes = codes.get(block * run + first..)?.get(..len)?;
        let (trits, after) = rest.split_at_mut(len);
        let shift = 6 - 2 * quarter;
        for (trit, byte) in trits.iter_mut().zip(bytes) {
            *trit = (byte >> shift & 3) as i8 - 1;
            highest = highest.max(*trit);
        }
        (at, rest) = (at + len, after);
    }
    Some(highest)
}
