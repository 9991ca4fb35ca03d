//! Steps that handle each row or each element on its own: embedding, norms, gates.
#![allow(unsafe_code)]

use super::arena::Arena;
use crate::load::Model;
use std::ops::Range;
use trit_format::plan::{Activation, BufferId, PackedMatrixId, Rotation, TensorId};
use trit_gemm::{Layout, MatrixRef};
use trit_kernels::{epilogue, hadamard, head, norm};

/// Elements of a gate that are handled at a time. They go through a buffer on the stack, because `out` may be one of
/// the operands.
const GATED: usize = 256;

/// Rows of the arena that one worker handles alone: no other worker reads or writes them in this step.
pub(crate) struct Rows<'a> {
    pub model: &'a Model,
    pub arena: &'a Arena,
    /// This worker's rows.
    pub rows: Range<usize>,
}

/// The operands of a norm.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    pub input: BufferId,
    pub weight: TensorId,
    pub eps: f32,
    pub out: BufferId,
}

impl Rows<'_> {
    /// Writes the embedding of `token(row)` to each row. `bytes` is scratch memory.
    pub fn embed(
        &self,
        table: TensorId,
        scale: f32,
        out: BufferId,
        token: impl Fn(usize) -> usize,
        bytes: &mut Vec<u8>,
    ) {
        let tensor = self.model.tensor(table);
        let hidden = tensor.shape[1] as usize;
        bytes.resize(self.model.row_bytes(table), 0);
        for r in self.rows.clone() {
            self.model.read_row(table, token(r), bytes);
            // SAFETY: the row is this worker's.
            let out = unsafe { self.arena.row_mut(out, r, 0, hidden) };
            head::widen_row(bytes, tensor.dtype, hidden, 0, out);
            if scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }

    /// Writes the embedding of `token(row)` to each row, from a ternary matrix.
    pub fn embed_ternary(&self, matrix: PackedMatrixId, out: BufferId, token: impl Fn(usize) -> usize) {
        let index = matrix.0 as usize;
        let packed = &self.model.manifest().packed_matrices[index];
        let layout = Layout::of(packed).expect("validated");
        let (weights, kernels) = (self.model.weights(index), &self.model.bound().by_matrix[index]);
        let matrix = MatrixRef::new(layout, weights, kernels).expect("bound to this product");
        for r in self.rows.clone() {
            // SAFETY: the row is this worker's.
            let out = unsafe { self.arena.row_mut(out, r, 0, packed.k as usize) };
            matrix.row(token(r), out).expect("a token of the vocabulary");
        }
    }

    /// Takes rows of a rotated embedding back.
    pub fn unrotate(&self, rotation: Rotation, out: BufferId) {
        let signs = rotation.signs.map(|signs| self.model.vector(signs));
        for r in self.rows.clone() {
            // SAFETY: the row is this worker's.
            let out = unsafe { self.arena.row_mut(out, r, 0, self.arena.len(out)) };
            hadamard::unrotate(out, signs, rotation.block as usize);
        }
    }

    /// Writes the normalized input and, after it, the normalized hidden state of each row.
    pub fn join_hidden<'h>(
        &self,
        input: BufferId,
        norms: [&[f32]; 2],
        eps: f32,
        out: BufferId,
        hidden: impl Fn(usize) -> &'h [f32],
    ) {
        let width = norms[0].len();
        for r in self.rows.clone() {
            // SAFETY: the row is this worker's; `input` and `out` do not overlap.
            let (input, out) =
                unsafe { (self.arena.row(input, r), self.arena.row_mut(out, r, 0, 2 * width)) };
            let (of_input, of_hidden) = out.split_at_mut(width);
            norm::rms_norm(input, norms[0], eps, of_input);
            norm::rms_norm(hidden(r), norms[1], eps, of_hidden);
        }
    }

    /// Applies RMSNorm, in place where input and output are the same buffer.
    pub fn norm(&self, Norm { input, weight, eps, out }: Norm) {
        let weight = self.model.vector(weight);
        for r in self.rows.clone() {
            // SAFETY: the row is this worker's.
            let target = unsafe { self.arena.row_mut(out, r, 0, weight.len()) };
            if input == out {
                norm::rms_norm_in_place(target, weight, eps);
            } else {
                // SAFETY: the row is this worker's; `input` and `out` do not overlap.
                norm::rms_norm(unsafe { self.arena.row(input, r) }, weight, eps, target);
            }
        }
    }

    /// Applies RMSNorm and adds the result to the output.
    pub fn norm_add(&self, Norm { input, weight, eps, out }: Norm) {
        let weight = self.model.vector(weight);
        for r in self.rows.clone() {
            // SAFETY: the row is this worker's; `input` and `out` do not overlap.
            let (input, out) =
                unsafe { (self.arena.row(input, r), self.arena.row_mut(out, r, 0, weight.len())) };
            norm::rms_norm_add(input, weight, eps, out);
        }
    }
}

/// An elementwise gate.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    pub gate: BufferId,
    pub up: BufferId,
    pub activation: Activation,
    pub out: BufferId,
}

impl Gate {
    /// How many parts a row has for [`Gate::part`].
    pub fn parts(&self, arena: &Arena) -> usize {
        arena.len(self.out).div_ceil(GATED)
    }

    /// Gates part `part` of row `row`.
    ///
    /// # Safety
    /// No other worker touches this part of any of the buffers until all workers passed the next barrier.
    pub unsafe fn part(&self, arena: &Arena, row: usize, part: usize) {
        let (from, to) = (part * GATED, ((part + 1) * GATED).min(arena.len(self.out)));
        let mut values = [0.0; GATED];
        let values = &mut values[..to - from];
        {
            // SAFETY: by this function's contract; nothing is written while these are borrowed.
            let (gate, up) = unsafe { (arena.row::<f32>(self.gate, row), arena.row::<f32>(self.up, row)) };
            epilogue::gate_values(self.activation, &gate[from..to], &up[from..to], values);
        }
        // SAFETY: by this function's contract.
        unsafe { arena.row_mut::<f32>(self.out, row, from, to) }.copy_from_slice(values);
    }
}

/// A gate on normalized runs of elements.
#[derive(Clone, Copy)]
pub(crate) struct GateNorm<'a> {
    pub input: BufferId,
    /// Of one run.
    pub weight: &'a [f32],
    pub eps: f32,
    pub gate: BufferId,
    pub at: usize,
    pub activation: Activation,
    pub out: BufferId,
}

impl GateNorm<'_> {
    /// How many parts a row has for [`GateNorm::part`]: its runs.
    pub fn parts(&self, arena: &Arena) -> usize {
        arena.len(self.out) / self.weight.len()
    }

    /// Normalizes and gates run `part` of row `row`.
    ///
    /// # Safety
    /// No other worker touches this run of any of the buffers until all workers passed the next barrier.
    pub unsafe fn part(&self, arena: &Arena, row: usize, part: usize) {
        let (from, to) = (part * self.weight.len(), (part + 1) * self.weight.len());
        if self.input != self.out {
            // SAFETY: by this function's contract; `input` and `out` do not overlap.
            let (input, out) =
                unsafe { (arena.row::<f32>(self.input, row), arena.row_mut::<f32>(self.out, row, from, to)) };
            out.copy_from_slice(&input[from..to]);
        }
        // SAFETY: by this function's contract; `gate` and `out` do not overlap.
        let (gate, out) =
            unsafe { (arena.row::<f32>(self.gate, row), arena.row_mut::<f32>(self.out, row, from, to)) };
        norm::rms_norm_in_place(out, self.weight, self.eps);
        let mut normed = [0.0; GATED];
        for (out, gate) in out.chunks_mut(GATED).zip(gate[self.at + from..].chunks(GATED)) {
            let normed = &mut normed[..out.len()];
            normed.copy_from_slice(out);
            epilogue::gate_values(self.activation, gate, normed, out);
        }
    }
}
