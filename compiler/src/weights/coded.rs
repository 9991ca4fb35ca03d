//! Matrices in GGUF's blocks of integers that stand for floats: embeddings, heads, and others that are not ternary.
//!
//! They are kept as int8 codes with scales, and nothing is rounded: rows are read from the mapped file and made anew when they
//! are asked for. What `weights::integers` says of each type shows why a code, a scale and an offset hold all of it.

use crate::checkpoint::{BlockType, ElementType, IntegerType, RawTensor};
use crate::error::CompileError;
use crate::model::{Dense, RowCoder};
use crate::weights::dense::{not_finite_at, place};
use crate::weights::{integers, order};
use rayon::prelude::*;
use std::sync::Arc;
use trit_format::coded::{self, RowLayout};
use trit_format::plan::DType;

/// Blocks that one thread looks at in one go.
const BLOCKS: usize = 1 << 10;

/// The blocks that a tensor consists of, where they stand for floats.
pub(crate) fn kind(tensor: &RawTensor) -> Option<IntegerType> {
    match tensor.dtype {
        ElementType::Block(BlockType::Integers(kind)) => Some(kind),
        _ => None,
    }
}

/// The type that a matrix of such blocks has in a bundle.
pub(crate) fn dtype(kind: IntegerType) -> DType {
    let (columns, offsets) = integers::form(kind);
    DType::I8Blocks { columns: columns as u32, offsets }
}

/// What whole blocks stand for, as little-endian f32.
pub(super) fn widened(kind: IntegerType, blocks: &[u8]) -> Vec<u8> {
    let mut values = vec![0.0f32; kind.weights()];
    let mut bytes = Vec::with_capacity(blocks.len() / kind.bytes() * kind.weights() * 4);
    for block in blocks.chunks_exact(kind.bytes()) {
        integers::decode(kind, block, &mut values);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// The matrix in a tensor of such blocks, `shape` as `what` says.
///
/// # Errors
/// Another shape, or an element that is not finite.
pub(super) fn dense(
    tensor: RawTensor,
    kind: IntegerType,
    shape: &[usize],
    what: &str,
) -> Result<Dense, CompileError> {
    tensor.expect_shape(shape, what)?;
    expect_finite(&tensor, kind)?;
    let tensor = order::rewritten(tensor)?;
    let matrix = Dense {
        name: tensor.name.clone(),
        dtype: dtype(kind),
        shape: shape.to_vec(),
        data: Arc::new(tensor.bytes.clone()),
        coder: Some(Arc::new(Coder(kind))),
    };
    match matrix.stored_bytes() == Some(tensor.bytes.as_ref().len()) {
        true => Ok(matrix),
        false => Err(CompileError::Internal(format!(
            "tensor {} of {kind:?} is {shape:?} and has {} bytes",
            tensor.name,
            tensor.bytes.as_ref().len()
        ))),
    }
}

/// Checks all elements, in bounded memory.
fn expect_finite(tensor: &RawTensor, kind: IntegerType) -> Result<(), CompileError> {
    let mut first = 0;
    for batch in tensor.bytes.batches(kind.bytes()) {
        let odd = |block: &[u8], values: &mut Vec<f32>| {
            values.resize(kind.weights(), 0.0);
            integers::decode(kind, block, values);
            values.iter().position(|value| !value.is_finite()).map(|at| (at, values[at]))
        };
        let found = batch.par_chunks(BLOCKS * kind.bytes()).enumerate().find_map_first(|(nth, blocks)| {
            let mut values = Vec::new();
            let mut blocks = blocks.chunks_exact(kind.bytes()).enumerate();
            blocks.find_map(|(block, bytes)| {
                let (at, value) = odd(bytes, &mut values)?;
                Some(((nth * BLOCKS + block) * kind.weights() + at, value))
            })
        });
        if let Some((at, value)) = found {
            return Err(not_finite_at(tensor, value, &place(first + at, &tensor.shape)));
        }
        first += batch.len() / kind.bytes() * kind.weights();
    }
    Ok(())
}

/// Reads rows of such blocks.
struct Coder(IntegerType);

impl RowCoder for Coder {
    fn stored_bytes(&self, k: usize) -> Option<usize> {
        BlockType::Integers(self.0).row_bytes(k)
    }

    fn decode(&self, _row: usize, stored: &[u8], out: &mut [f32]) {
        let blocks = stored.chunks_exact(self.0.bytes()).zip(out.chunks_exact_mut(self.0.weights()));
        blocks.for_each(|(block, out)| integers::decode(self.0, block, out));
    }

    fn encode(&self, _row: usize, stored: &[u8], layout: RowLayout, out: &mut [u8]) {
        let blocks = stored.len() / self.0.bytes();
        let mut row = integers::Parts::new(self.0, blocks);
        for (at, block) in stored.chunks_exact(self.0.bytes()).enumerate() {
            row.take_apart(self.0, at, block);
        }
        let written = coded::encode_row(layout, &row.codes, &row.scales, &row.offsets, out);
        // `layout` is that of `dtype`, and rows are as long as `stored_bytes` says.
        written.expect("a row of the type's own layout");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random blocks of every type, as they are read and as a bundle has them: the same bits.
    #[test]
    fn rows_of_codes_stand_for_the_bits_of_the_blocks() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u8
        };
        for kind in IntegerType::ALL {
            let coder = Coder(kind);
            let k = 4 * kind.weights();
            let layout = RowLayout::new(dtype(kind), k as u64).unwrap();
            for _ in 0..500 {
                let stored: Vec<u8> = (0..coder.stored_bytes(k).unwrap()).map(|_| byte()).collect();
                let (mut expected, mut found) = (vec![0.0; k], vec![0.0; k]);
                coder.decode(0, &stored, &mut expected);
                let mut row = vec![0xaa; layout.bytes()];
                coder.encode(0, &stored, layout, &mut row);
                coded::decode_row(layout, &row, &mut found).unwrap();
                // Blocks may hold scales that are not finite, which loading refuses. It is not defined which NaN is NaN.
                let bits = |x: &f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
                let same = expected.iter().map(bits).eq(found.iter().map(bits));
                assert!(same, "{kind:?}: {expected:?} became {found:?}");
            }
        }
    }
}
