//! A bundle whose tables are of int8 codes: the small one with a residual stream of sixteen, as wide as a block.

use super::{EMBEDDING, HEAD, NORM, NORMED, Q, RESIDUAL, manifest};
use trit_format::manifest::Manifest;
use trit_format::plan::DType;

/// Width of the residual stream, and of the embedding's and the head's rows.
pub const HIDDEN: u32 = 16;

/// [`manifest`] with an embedding without offsets and a head with offsets. It has four query heads and no kernels.
pub fn coded() -> Manifest {
    let mut m = manifest();
    (m.hyperparameters.hidden_dim, m.hyperparameters.n_heads) = (HIDDEN, 4);
    m.plan.kv.iter_mut().for_each(|layer| layer.n_heads = 4);
    m.kernels.clear();
    let mut at = 0;
    for matrix in &mut m.packed_matrices {
        if matrix.k == 8 {
            matrix.k = HIDDEN;
        }
        // Queries, and what leads back to the residual stream.
        if matrix.segments.len() != 2 {
            matrix.segments[0].rows = HIDDEN;
        }
        matrix.offset = at;
        at += matrix.bytes().unwrap();
    }
    for id in [RESIDUAL, NORMED, Q.values] {
        m.plan.buffers[id.0 as usize].len = HIDDEN;
    }
    let heads = [("qkv", 24, 128), ("attended", 16, 64)];
    for (name, len, stride) in heads {
        let buffer = m.plan.buffers.iter_mut().find(|buffer| buffer.name == name).unwrap();
        (buffer.len, buffer.offset, buffer.stride) = (len, m.plan.row_bytes, stride);
        m.plan.row_bytes += stride;
    }
    let tables = [(EMBEDDING, false), (HEAD, true)];
    for (id, offsets) in tables {
        m.tensors[id.0 as usize].dtype = DType::I8Blocks { columns: 16, offsets };
        m.tensors[id.0 as usize].shape = vec![10, HIDDEN.into()];
    }
    m.tensors[NORM.0 as usize].shape = vec![HIDDEN.into()];
    let mut at = 0;
    for tensor in &mut m.tensors {
        tensor.offset = at;
        at += tensor.bytes().unwrap().next_multiple_of(64);
    }
    m
}
