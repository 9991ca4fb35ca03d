//! The steps that quantize activations: normalized first, and rotated, where the plan says so.
#![allow(unsafe_code)]

use super::arena::Arena;
use crate::load::Model;
use trit_format::plan::{ActivationRule, BufferId, InputNorm, Quantized, Rotation};
use trit_kernels::hadamard::rotate;
use trit_kernels::norm::{norm_quantize, rms_norm};
use trit_kernels::quantize::{QuantizedRow, quantize};

/// Rows of at least this many elements are shared out even where there are few rows, if there are [`WORKERS`].
const LONG: usize = 8192;
/// With fewer workers, a barrier takes longer than quantizing a row alone.
const WORKERS: usize = 4;

/// Whether the parts of one row are shared out. Parts must be apart in memory, which those of several digits are not.
pub(crate) fn shares_row(rule: ActivationRule, len: usize, workers: usize) -> bool {
    workers >= WORKERS && len >= LONG && matches!(rule, ActivationRule::AbsmaxPerGroup { .. })
}

/// One such step.
#[derive(Clone, Copy)]
pub(crate) struct Quantizing {
    pub input: BufferId,
    pub norm: Option<InputNorm>,
    pub rotation: Option<Rotation>,
    pub rule: ActivationRule,
    pub out: Quantized,
}

impl Quantizing {
    /// Quantizes a row. `normed` is scratch memory.
    pub fn row(&self, model: &Model, input: &[f32], normed: &mut Vec<f32>, out: QuantizedRow) {
        let Some(rotation) = self.rotation else {
            return match self.norm {
                Some(InputNorm { weight, eps }) => {
                    norm_quantize(input, model.vector(weight), eps, self.rule, normed, out);
                }
                None => quantize(input, self.rule, out),
            };
        };
        self.normalize(model, input, normed);
        let signs = rotation.signs.map(|signs| model.vector(signs));
        rotate(normed, signs, rotation.block as usize);
        quantize(normed, self.rule, out);
    }

    fn normalize(&self, model: &Model, input: &[f32], normed: &mut Vec<f32>) {
        normed.resize(input.len(), 0.0);
        match self.norm {
            Some(InputNorm { weight, eps }) => rms_norm(input, model.vector(weight), eps, normed),
            None => normed.copy_from_slice(input),
        }
    }

    /// Elements of a part of a row: whole groups and whole blocks of the rotation, both powers of two.
    pub fn part(&self) -> usize {
        let columns = self.rule.columns().unwrap_or(1) as usize;
        let block = self.rotation.map_or(1, |rotation| rotation.block as usize);
        columns.max(block).max(1024)
    }

    /// Quantizes the part of row `r` that begins at element `at`, a multiple of [`Quantizing::part`].
    ///
    /// # Safety
    /// The row [is shared](shares_row). No other worker touches this part of `out`, and nobody writes the input, until all
    /// workers passed the next barrier.
    pub unsafe fn shared_part(
        &self,
        model: &Model,
        arena: &Arena,
        r: usize,
        at: usize,
        normed: &mut Vec<f32>,
    ) {
        // SAFETY: by this function's contract.
        let input: &[f32] = unsafe { arena.row(self.input, r) };
        let columns = self.rule.columns().unwrap_or(1) as usize;
        let end = (at + self.part()).min(input.len());
        let is_last = end == input.len();
        // The norm needs the whole row; without one, only the part is copied.
        let part = match self.norm {
            Some(_) => {
                self.normalize(model, input, normed);
                &mut normed[at..end]
            }
            None => {
                normed.resize(end - at, 0.0);
                normed.copy_from_slice(&input[at..end]);
                &mut normed[..]
            }
        };
        if let Some(rotation) = self.rotation {
            let signs = rotation.signs.map(|signs| &model.vector(signs)[at..end]);
            rotate(part, signs, rotation.block as usize);
        }
        // The last part zeroes the row's tail.
        let to = if is_last { arena.stride::<i8>(self.out.values) } else { end };
        let groups = at / columns..end.div_ceil(columns);
        // SAFETY: by this function's contract.
        let out = unsafe {
            QuantizedRow {
                values: arena.row_mut(self.out.values, r, at, to),
                scales: arena.row_mut(self.out.scale, r, groups.start, groups.end),
                sums: arena.row_mut(self.out.sum, r, groups.start, groups.end),
            }
        };
        quantize(part, self.rule, out);
    }
}
