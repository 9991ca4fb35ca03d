//! Finds where each tensor lies in the file. Sizes follow from types and shapes and are checked against the offsets.

use super::header::{GgufHeader, TensorInfo};
use super::types::TensorType;
use crate::checkpoint::BlockType;
use crate::checkpoint::{ElementType, RawTensor};
use crate::error::CompileError;
use crate::files::mapped::{MappedFile, MappedSlice};
use crate::weights::i2s;
use std::path::Path;
use std::sync::Arc;

/// The tensors of a file. None lies outside of it, and no two lie in the same bytes.
///
/// # Errors
/// Rows that are no whole number of blocks, sizes and offsets beyond the file, overlaps; a file whose tensors of type 42 fit
/// none of the types with that number.
pub(super) fn tensors(file: &Arc<MappedFile>, header: &GgufHeader) -> Result<Vec<RawTensor>, CompileError> {
    let path = file.path();
    let mut order: Vec<&TensorInfo> = header.tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    let q2_0 = q2_0(file, header, &order)?;
    let mut found: Vec<RawTensor> = Vec::with_capacity(order.len());
    let mut end = header.data;
    for tensor in order {
        let problem = |problem| error(path, tensor, problem);
        let kind = match tensor.kind {
            TensorType::Block(BlockType::Q2_0) => TensorType::Block(q2_0),
            kind => kind,
        };
        let start = start(header, tensor).map_err(problem)?;
        let size = size(tensor, kind).map_err(problem)?;
        if start < end {
            let other = found.last().map_or("the header", |t| &t.name);
            return Err(problem(format!("starts inside {other}; the file is damaged")));
        }
        let range = start.checked_add(size).map(|end| start..end);
        let bytes = range.clone().and_then(|range| MappedSlice::new(file.clone(), range)).ok_or_else(|| {
            problem(format!(
                "takes {size} bytes from byte {start}, but the file ends at {}; it is truncated, download it again",
                file.bytes().len()
            ))
        })?;
        end = start + size;
        found.push(RawTensor {
            name: tensor.name.clone(),
            dtype: element_type(kind),
            shape: tensor.shape.clone(),
            bytes,
            interleaved_heads: None,
            tiled_heads: None,
            affine: None,
            tolerance: None,
        });
    }
    Ok(found)
}

fn error(path: &Path, tensor: &TensorInfo, problem: String) -> CompileError {
    CompileError::Tensor { path: path.to_owned(), tensor: tensor.name.clone(), problem }
}

fn element_type(kind: TensorType) -> ElementType {
    match kind {
        TensorType::F32 => ElementType::F32,
        TensorType::F16 => ElementType::F16,
        TensorType::Bf16 => ElementType::Bf16,
        TensorType::F64 => ElementType::F64,
        TensorType::Block(block) => ElementType::Block(block),
        TensorType::I2s => ElementType::I2s(None),
    }
}

/// The tensor's first byte in the file.
fn start(header: &GgufHeader, tensor: &TensorInfo) -> Result<usize, String> {
    if !tensor.offset.is_multiple_of(header.alignment) {
        return Err(format!(
            "has the offset {}, no multiple of the alignment {}",
            tensor.offset, header.alignment
        ));
    }
    let start = usize::try_from(tensor.offset).ok().and_then(|offset| header.data.checked_add(offset));
    start.ok_or_else(|| format!("has the offset {}, beyond any file", tensor.offset))
}

/// Bytes of the tensor's data.
fn size(tensor: &TensorInfo, kind: TensorType) -> Result<usize, String> {
    let Some((k, outer)) = tensor.shape.split_last() else {
        return Err("has no dimensions".to_owned());
    };
    let overflow = || format!("has shape {:?}, more than any file holds", tensor.shape);
    if kind == TensorType::I2s {
        // Blocks may go on from one row to the next.
        let n = tensor.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)).ok_or_else(overflow)?;
        return match n.is_multiple_of(4) {
            true => Ok(n / 4 + i2s::TRAILER),
            false => Err(format!("has shape {:?}, but I2_S stores four weights to a byte", tensor.shape)),
        };
    }
    let row = kind.row_bytes(*k).ok_or_else(|| match kind {
        TensorType::Block(block) if !k.is_multiple_of(block.weights()) => {
            format!("has rows of {k}, no multiple of {block}'s {} weights", block.weights())
        }
        _ => overflow(),
    })?;
    outer.iter().try_fold(row, |size, n| size.checked_mul(*n)).ok_or_else(overflow)
}

/// Which of the types with the number 42 the file has. The bytes up to the next tensor tell. All tensors of that type are
/// looked at together, because small ones fit several.
fn q2_0(file: &MappedFile, header: &GgufHeader, order: &[&TensorInfo]) -> Result<BlockType, CompileError> {
    let mut forms = vec![BlockType::Q2_0, BlockType::Q2_0Prism, BlockType::Stq1_0];
    let mut fitted = None;
    for (index, tensor) in order.iter().enumerate() {
        if tensor.kind != TensorType::Block(BlockType::Q2_0) {
            continue;
        }
        let data_bytes = file.bytes().len().saturating_sub(header.data) as u64;
        let next = order.get(index + 1).map_or(data_bytes, |next| next.offset.min(data_bytes));
        let room = next.saturating_sub(tensor.offset);
        // Whatever else is wrong with its shape and place is said when its bytes are looked for.
        let sized = |form: &BlockType| size(tensor, TensorType::Block(*form)).is_ok();
        if start(header, tensor).is_err() || !forms.iter().any(sized) {
            continue;
        }
        let fits = |form: &BlockType| {
            size(tensor, TensorType::Block(*form))
                .is_ok_and(|size| room >= size as u64 && room - (size as u64) < header.alignment)
        };
        let fitting: Vec<BlockType> = forms.iter().copied().filter(fits).collect();
        if fitting.is_empty() {
            return Err(error(
                file.path(),
                tensor,
                format!(
                    "is of type 42 and takes {room} bytes, which are none of 18 for every 64 weights (Q2_0), 34 for every \
                     128 (Q2_0 of PrismML) and 42 for every 256 (STQ1_0) as in the tensors before; the file is truncated \
                     or its type is of another program"
                ),
            ));
        }
        forms = fitting;
        fitted = Some(*tensor);
    }
    match (forms.as_slice(), fitted) {
        // STQ1_0 takes so much less that this needs an alignment of more bytes than tensors have.
        ([_, .., BlockType::Stq1_0], Some(tensor)) => Err(error(
            file.path(),
            tensor,
            "is of type 42, which is Q2_0 or STQ1_0, and its bytes fit both; convert the model again"
                .to_owned(),
        )),
        // Where both sizes of Q2_0 fit all tensors there are too few weights for it to matter, and upstream's is the
        // likelier one.
        _ => Ok(forms[0]),
    }
}
