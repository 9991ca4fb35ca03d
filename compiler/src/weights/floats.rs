//! Widens blocks of small integers that stand for floats: norms and other vectors, and matrices whose floats are ternary.
//!
//! They become F32. No smaller type holds them: an f16 times an integer of up to eight bits has up to nineteen bits, of
//! which f16 keeps eleven and bf16 eight. Only MXFP4, whose scales are powers of two, becomes BF16, which holds all of its
//! values that f32 holds.

use crate::checkpoint::{BlockType, ElementType, IntegerType, RawTensor};
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::weights::integers;
use half::bf16;
use std::io::Write;

/// The tensor with elements that are floats. They go to a mapped temporary file without a name, so that memory stays
/// bounded whatever the size of the tensor. Tensors of floats and of trits stay as they are.
///
/// # Errors
/// A temporary file that cannot be written.
pub(crate) fn widened(tensor: RawTensor) -> Result<RawTensor, CompileError> {
    let ElementType::Block(BlockType::Integers(kind)) = tensor.dtype else { return Ok(tensor) };
    let halves = kind == IntegerType::Mxfp4;
    let file = MappedFile::temporary(tensor.bytes.path(), |out| {
        let mut weights = vec![0.0f32; kind.weights()];
        let mut bytes = Vec::with_capacity(4 * kind.weights());
        for block in tensor.bytes.as_ref().chunks_exact(kind.bytes()) {
            integers::decode(kind, block, &mut weights);
            bytes.clear();
            match halves {
                true => bytes.extend(weights.iter().flat_map(|&weight| bf16::from_f32(weight).to_le_bytes())),
                false => bytes.extend(weights.iter().flat_map(|weight| weight.to_le_bytes())),
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    })?;
    tensor.bytes.release();
    let dtype = if halves { ElementType::Bf16 } else { ElementType::F32 };
    Ok(RawTensor { dtype, bytes: file.whole(), ..tensor })
}
