//! PyTorch's checkpoints: `pytorch_model.bin`, or shards of it, as `torch.save` has written them since 2020.
//!
//! Such a file is a zip archive of stored entries. `data.pkl` is a pickle of a dict of tensors, and `data/0`, `data/1` and
//! so on hold the bytes to which it refers. Pickles are programs. This one is read and not run ([`pickle`]): a file that
//! would need more than dicts and tensors is refused by the name of what it needs. Bytes stay in the mapped file.
//!
//! | module | does |
//! |---|---|
//! | `zip` | finds the entries of the archive |
//! | `pickle` | finds the tensors that the pickle describes |
//! | `storage` | types of elements |

mod pickle;
mod storage;
mod zip;

use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::files::mapped::{MappedFile, MappedSlice};
use pickle::PickledTensor;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Longest pickle, in bytes: some ten times the largest in use.
const MAX_PICKLE: usize = 16 << 20;

/// The way out, which is the same for every file that cannot be read.
const REMEDY: &str = "convert it to safetensors: with transformers, load the model from a source that you trust and call \
                      save_pretrained(..., safe_serialization=True)";

/// The tensors of a file of PyTorch, by name.
///
/// # Errors
/// The file is of PyTorch's format before 2020, a TorchScript program, or needs more than dicts of tensors; it is
/// damaged; a tensor's elements do not stand one after the other, or are not in the file.
pub(super) fn tensors(file: &Arc<MappedFile>) -> Result<Vec<RawTensor>, CompileError> {
    let path = file.path();
    let unsupported = |problem: String| CompileError::Unsupported {
        path: path.to_owned(),
        problem: format!("{problem}; {REMEDY}"),
    };
    let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
    let bytes = file.bytes();
    if !bytes.starts_with(b"PK") {
        // The first instruction of a pickle says its protocol.
        return Err(match bytes.starts_with(&[0x80]) {
            true => unsupported(
                "is a bare pickle, as PyTorch wrote before version 1.6, and only the zip archives since then are read"
                    .to_owned(),
            ),
            false => unsupported("is no file of PyTorch's that is known: it is not a zip archive".to_owned()),
        });
    }
    let entries = zip::entries(bytes).map_err(invalid)?;
    let Some((root, pickle)) = root(&entries) else {
        return Err(unsupported("is a zip archive without a data.pkl".to_owned()));
    };
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(unsupported("is a TorchScript program, not a state dict".to_owned()));
    }
    if entries.get(&format!("{root}byteorder")).is_some_and(|range| bytes.get(range.clone()) == Some(b"big"))
    {
        return Err(unsupported("holds big-endian numbers, which are not read".to_owned()));
    }
    let pickle = bytes.get(pickle.clone()).filter(|pickle| pickle.len() <= MAX_PICKLE).ok_or_else(|| {
        invalid(format!("has a data.pkl of over {} MiB, which is no plausible size", MAX_PICKLE >> 20))
    })?;
    let described = pickle::tensors(pickle).map_err(unsupported)?;
    let mut tensors = Vec::with_capacity(described.len());
    for (name, tensor) in described {
        let entry = entries.get(&format!("{root}data/{}", tensor.storage.key));
        let refuse = |problem: String| CompileError::Tensor {
            path: path.to_owned(),
            tensor: name.to_string(),
            problem,
        };
        if !is_contiguous(&tensor) {
            return Err(CompileError::UnsupportedTensor {
                path: path.to_owned(),
                tensor: name.to_string(),
                problem: format!(
                    "has the strides {:?} for the shape {:?}, so that its elements do not stand one after the other; \
                     {REMEDY}",
                    tensor.strides, tensor.shape
                ),
            });
        }
        let range = entry.and_then(|entry| range(&tensor, entry)).ok_or_else(|| {
            refuse(format!(
                "has shape {:?}, but its elements are not all in the archive's data/{}; the file is damaged, download it \
                 again",
                tensor.shape, tensor.storage.key
            ))
        })?;
        let bytes =
            MappedSlice::new(file.clone(), range).ok_or_else(|| refuse("is outside the file".to_owned()))?;
        let shape: Option<Vec<usize>> = tensor.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = shape.ok_or_else(|| refuse("is larger than any memory".to_owned()))?;
        let dtype = tensor.storage.kind.element();
        tensors.push(RawTensor {
            name: name.to_string(),
            dtype,
            shape,
            bytes,
            interleaved_heads: None,
            tiled_heads: None,
            affine: None,
            tolerance: None,
        });
    }
    Ok(tensors)
}

/// The folder of the archive in which everything is, with its slash, and the pickle in it.
fn root(entries: &BTreeMap<String, Range<usize>>) -> Option<(&str, &Range<usize>)> {
    entries.iter().find_map(|(name, range)| {
        let root = name.strip_suffix("data.pkl")?;
        (root.is_empty() || (root.ends_with('/') && root.matches('/').count() == 1)).then_some((root, range))
    })
}

/// Whether the elements stand one after the other, the last dimension fastest. The stride of a dimension of one element
/// means nothing.
fn is_contiguous(tensor: &PickledTensor) -> bool {
    let mut expected = Some(1u64);
    tensor.shape.contains(&0)
        || tensor.shape.iter().zip(&tensor.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || u64::try_from(stride).ok().is_some_and(|stride| Some(stride) == expected);
            expected = expected.and_then(|expected| expected.checked_mul(size));
            fits
        })
}

/// The tensor's bytes in the file, whose storage is at `entry`.
fn range(tensor: &PickledTensor, entry: &Range<usize>) -> Option<Range<usize>> {
    let size = tensor.storage.kind.size;
    if tensor.storage.len.checked_mul(size)? != entry.len() as u64 {
        return None;
    }
    let len = tensor.shape.iter().try_fold(1u64, |len, size| len.checked_mul(*size))?;
    let end = tensor.offset.checked_add(len).filter(|end| *end <= tensor.storage.len)?;
    let at = |element: u64| entry.start.checked_add(usize::try_from(element.checked_mul(size)?).ok()?);
    Some(at(tensor.offset)?..at(end)?)
}
