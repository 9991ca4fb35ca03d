//! A GGUF file's header: metadata and the list of tensors, as they are written. What the tensors' numbers mean for the
//! rest of the file is checked in `layout`.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `GGUF` |
//! | 4 | version, 2 or 3 |
//! | 8 | tensors |
//! | 8 | metadata keys |
//! | | each key: name, type, value |
//! | | each tensor: name, number of dimensions, dimensions (fastest first), type, offset from the data's start |
//! | | padding to the alignment, then the data |
//!
//! Numbers are little-endian; a string is its length as u64 and its bytes. Source: `docs/gguf.md` of ggml.

use super::cursor::{Cursor, Problem};
use super::names;
use super::types::TensorType;
use super::value::Value;
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Most keys and most tensors of a file: twenty times what the largest models have. The limit bounds what a hostile
/// count can make us allocate.
const MAX_ENTRIES: u64 = 1 << 16;

/// Most dimensions of a tensor in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// Largest alignment, in bytes; 32 is usual.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// A tensor as the header lists it.
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Row-major: the slowest dimension first, as in checkpoints, not as in the file.
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorType,
    /// Bytes from the data's start.
    pub(super) offset: u64,
}

/// All that stands before the data.
pub(super) struct GgufHeader {
    pub(super) keys: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Where the data starts, a multiple of the alignment.
    pub(super) data: usize,
    /// In bytes, a power of two.
    pub(super) alignment: u64,
}

impl GgufHeader {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// The file is not as the table says. The error names the key or tensor.
    pub(super) fn read(file: &Arc<MappedFile>) -> Result<GgufHeader, CompileError> {
        let path = file.path();
        let invalid = |problem: Problem| CompileError::Invalid { path: path.to_owned(), problem };
        let mut cursor = Cursor::new(file.bytes(), 0);
        let (n_tensors, n_keys) = counts(&mut cursor).map_err(|problem| match problem {
            Refusal::Damaged(problem) => invalid(problem),
            Refusal::Unsupported(problem) => CompileError::Unsupported { path: path.to_owned(), problem },
        })?;
        let keys = keys(&mut cursor, file, n_keys).map_err(invalid)?;
        let tensors = tensors(&mut cursor, n_tensors, path)?;
        let alignment = alignment(&keys).map_err(invalid)?;
        let data = (cursor.at() as u64)
            .checked_next_multiple_of(alignment)
            .and_then(|data| usize::try_from(data).ok())
            .ok_or_else(|| invalid("has a header without end".to_owned()))?;
        Ok(GgufHeader { keys, tensors, data, alignment })
    }
}

enum Refusal {
    Damaged(Problem),
    Unsupported(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Damaged(problem)
    }
}

/// Reads up to the numbers of tensors and keys.
fn counts(cursor: &mut Cursor) -> Result<(u64, u64), Refusal> {
    let magic = cursor.take(4)?;
    if magic != b"GGUF" {
        return Err(Refusal::Damaged("is not a GGUF file: it does not start with \"GGUF\"".to_owned()));
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => {
            return Err(Refusal::Unsupported(
                "is a GGUF file of version 1, which only the first weeks of the format wrote; convert the model again"
                    .to_owned(),
            ));
        }
        // No version is so high. This is a big-endian file, whose bytes stand the other way round.
        version if version.swap_bytes() < 1 << 16 => {
            return Err(Refusal::Unsupported(
                "is a big-endian GGUF file; convert it with gguf-py's gguf_convert_endian.py".to_owned(),
            ));
        }
        version => {
            return Err(Refusal::Unsupported(format!(
                "is a GGUF file of version {version}; this compiler reads 2 and 3"
            )));
        }
    }
    let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
    for (count, what) in [(tensors, "tensors"), (keys, "metadata keys")] {
        if count > MAX_ENTRIES {
            return Err(Refusal::Damaged(format!(
                "claims to have {count} {what}, more than any model has ({MAX_ENTRIES} are read); it is damaged"
            )));
        }
    }
    Ok((tensors, keys))
}

fn keys(cursor: &mut Cursor, file: &Arc<MappedFile>, count: u64) -> Result<BTreeMap<String, Value>, Problem> {
    let mut keys = BTreeMap::new();
    for index in 0..count {
        let name = cursor.name().map_err(|e| format!("metadata key {index}: {e}"))?;
        let value = Value::take(cursor, file).map_err(|e| format!("metadata key {name}: {e}"))?;
        if let Some(first) = keys.insert(name.clone(), value) {
            return Err(format!(
                "metadata key {name} stands there twice, first as {first}; it is unclear which counts"
            ));
        }
    }
    Ok(keys)
}

fn tensors(cursor: &mut Cursor, count: u64, path: &Path) -> Result<Vec<TensorInfo>, CompileError> {
    let mut tensors: Vec<TensorInfo> = Vec::new();
    for index in 0..count {
        let name = cursor.name().map_err(|e| CompileError::Invalid {
            path: path.to_owned(),
            problem: format!("tensor {index} of {count}: {e}"),
        })?;
        let tensor = tensor(cursor, &name).map_err(|refusal| {
            let (path, tensor) = (path.to_owned(), name.clone());
            match refusal {
                Refusal::Damaged(problem) => CompileError::Tensor { path, tensor, problem },
                Refusal::Unsupported(problem) => CompileError::UnsupportedTensor { path, tensor, problem },
            }
        })?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn tensor(cursor: &mut Cursor, name: &str) -> Result<TensorInfo, Refusal> {
    let dimensions = cursor.u32()?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let problem = format!("has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}");
        return Err(Refusal::Damaged(problem));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = cursor.u64()?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.insert(0, size),
            _ => return Err(Refusal::Damaged(format!("has a dimension of size {size}"))),
        }
    }
    let kind = TensorType::of(cursor.u32()?, names::is_float(name)).map_err(Refusal::Unsupported)?;
    Ok(TensorInfo { name: name.to_owned(), shape, kind, offset: cursor.u64()? })
}

fn alignment(keys: &BTreeMap<String, Value>) -> Result<u64, Problem> {
    match keys.get("general.alignment") {
        None => Ok(32),
        Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment <= MAX_ALIGNMENT => {
            Ok(*alignment)
        }
        Some(other) => Err(format!(
            "metadata key general.alignment is {other}, expected a power of two up to {MAX_ALIGNMENT}"
        )),
    }
}
