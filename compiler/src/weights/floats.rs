//! Widens blocks of small integers that stand for floats to f32. Embeddings, heads and norms are stored so.
//!
//! | type | bytes of a block | weight |
//! |---|---|---|
//! | Q8_0 | f16 d, 32 i8 | `d * q` |
//! | Q4_K | f16 d, f16 m, 12 of 6-bit pairs, 128 of two codes | `(d * scale) * q - m * min`, a pair for 32 weights |
//! | Q6_K | 128 of lower 4 bits, 64 of upper 2, 16 i8 scales, f16 d | `(d * scale) * (q - 32)`, a scale for 16 weights |
//!
//! All operations are in f32 and in this order, which gives the same numbers as ggml's `dequantize_row_*`.

use crate::checkpoint::BlockType;
use crate::checkpoint::{ElementType, RawTensor};
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use half::f16;
use std::io::Write;

/// The tensor with f32 elements. They go to a mapped temporary file without a name, so that memory stays bounded
/// whatever the size of the tensor. Tensors of floats and of trits stay as they are.
///
/// # Errors
/// A temporary file that cannot be written.
pub(crate) fn widened(tensor: RawTensor) -> Result<RawTensor, CompileError> {
    let ElementType::Block(kind) = tensor.dtype else { return Ok(tensor) };
    if kind.is_ternary() {
        return Ok(tensor);
    }
    let file = MappedFile::temporary(tensor.bytes.path(), |out| {
        let mut weights = vec![0.0f32; kind.weights()];
        let mut bytes = vec![[0; 4]; kind.weights()];
        for block in tensor.bytes.as_ref().chunks_exact(kind.bytes()) {
            decode(kind, block, &mut weights);
            bytes.iter_mut().zip(&weights).for_each(|(bytes, weight)| *bytes = weight.to_le_bytes());
            out.write_all(bytes.as_flattened())?;
        }
        Ok(())
    })?;
    tensor.bytes.release();
    Ok(RawTensor { dtype: ElementType::F32, bytes: file.whole(), ..tensor })
}

/// Writes the weights of one block; `block` and `out` have the type's sizes.
fn decode(kind: BlockType, block: &[u8], out: &mut [f32]) {
    match kind {
        BlockType::Q8_0 => {
            let d = half(block, 0);
            out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = d * f32::from(q as i8));
        }
        BlockType::Q4K => q4_k(block, out),
        BlockType::Q6K => q6_k(block, out),
        // `widened` calls this function for no other type.
        _ => out.fill(f32::NAN),
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, m, pairs) = (half(block, 0), half(block, 2), &block[4..16]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = pair(pairs, group);
        let (scale, min) = (d * f32::from(scale), m * f32::from(min));
        // Two groups share 32 bytes. The lower halves of the bytes belong to the first group.
        let codes = &block[16 + 32 * (group / 2)..][..32];
        let shift = 4 * (group % 2);
        out.iter_mut().zip(codes).for_each(|(out, code)| *out = scale * f32::from(code >> shift & 15) - min);
    }
}

/// The scale and the minimum of a group, 6 bits each. Those of the first four groups stand in bytes of their own. Of
/// those of the last four groups, the upper two bits stand in the upper two bits of these bytes.
fn pair(pairs: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (pairs[group] & 63, pairs[group + 4] & 63);
    }
    let low = pairs[group + 4];
    (low & 15 | pairs[group - 4] >> 6 << 4, low >> 4 | pairs[group] >> 6 << 4)
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 208);
    for (half, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        let scales = &block[192 + 8 * half..][..8];
        for (i, out) in out.iter_mut().enumerate() {
            let (run, at) = (i / 32, i % 32);
            // Runs 0 and 1 are in the lower halves of the 64 bytes, runs 2 and 3 in the upper halves.
            let low = low[32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
            let code = low | (high[at] >> (2 * run) & 3) << 4;
            *out = d * f32::from(scales[i / 16] as i8) * f32::from(code as i8 - 32);
        }
    }
}
