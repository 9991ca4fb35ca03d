//! A GGUF model in one file or in parts (`NAME-00001-of-00003.gguf`): the first part has all metadata, each its own
//! tensors.

use super::header::GgufHeader;
use super::layout;
use super::value::Value;
use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::files::locate::{at, file_name};
use crate::files::mapped::MappedFile;
use crate::files::unchanged::InputFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the files of a model hold.
pub(crate) struct Gguf {
    /// The file that was named, which has the metadata.
    pub(crate) path: PathBuf,
    /// Every part, in order.
    pub(crate) files: Vec<InputFile>,
    /// Metadata by key.
    pub(crate) keys: BTreeMap<String, Value>,
    /// Tensors by name.
    pub(crate) tensors: BTreeMap<String, RawTensor>,
}

impl Gguf {
    /// Maps and checks every part of the model whose first part is `path`. No tensor is read.
    ///
    /// # Errors
    /// Files that are damaged, missing, or parts of something else.
    pub(crate) fn open(path: &Path) -> Result<Gguf, CompileError> {
        let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
        let Part { source, keys, tensors } = read(path)?;
        let mut gguf = Gguf { path: path.to_owned(), files: Vec::new(), keys, tensors: BTreeMap::new() };
        gguf.add(source, tensors)?;
        let Some((number, count)) = part(&gguf.keys).map_err(invalid)? else {
            return Ok(gguf);
        };
        let names = names(path, count).ok_or_else(|| {
            let problem = format!(
                "is one of {count} parts, but not named NAME-00001-of-{count:05}.gguf, so the others cannot be found"
            );
            invalid(problem)
        })?;
        if number != 0 || file_name(path) != file_name(&names[0]) {
            return Err(invalid(format!(
                "is part {} of {count}, and the first has the metadata; give {}",
                number.saturating_add(1),
                file_name(&names[0])
            )));
        }
        for (index, name) in (0u64..).zip(&names).skip(1) {
            if at(name)?.is_none() {
                let problem =
                    format!("is one of {count} parts, and {} is not there; download it too", file_name(name));
                return Err(invalid(problem));
            }
            let Part { source, keys, tensors } = read(name)?;
            if part(&keys).ok().flatten() != Some((index, count)) {
                return Err(CompileError::Invalid {
                    path: name.clone(),
                    problem: format!(
                        "does not say that it is part {} of {count}; it is of another model",
                        index + 1
                    ),
                });
            }
            gguf.add(source, tensors)?;
        }
        match gguf.keys.get("split.tensors.count") {
            Some(total) if integer(total) != Some(gguf.tensors.len() as u64) => Err(invalid(format!(
                "metadata key split.tensors.count is {total}, but the parts hold {}; they are not of the same model",
                gguf.tensors.len()
            ))),
            _ => Ok(gguf),
        }
    }

    fn add(&mut self, source: InputFile, tensors: Vec<RawTensor>) -> Result<(), CompileError> {
        for tensor in tensors {
            if let Some(first) = self.tensors.get(&tensor.name) {
                return Err(tensor.error(format!(
                    "stands there twice, first in {}; it is unclear which one counts",
                    file_name(first.bytes.path())
                )));
            }
            self.tensors.insert(tensor.name.clone(), tensor);
        }
        self.files.push(source);
        Ok(())
    }
}

/// What is in one file.
struct Part {
    source: InputFile,
    keys: BTreeMap<String, Value>,
    tensors: Vec<RawTensor>,
}

fn read(path: &Path) -> Result<Part, CompileError> {
    let file = MappedFile::open(path)?;
    file.refuse_lfs_pointer()?;
    let header = GgufHeader::read(&file)?;
    let tensors = layout::tensors(&file, &header)?;
    Ok(Part { source: file.source().clone(), keys: header.keys, tensors })
}

fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Unsigned(value) => Some(*value),
        Value::Signed(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

/// Which part of how many, counted from 0; `None` where the file is whole.
fn part(keys: &BTreeMap<String, Value>) -> Result<Option<(u64, u64)>, String> {
    let Some(count) = keys.get("split.count") else { return Ok(None) };
    let number = keys.get("split.no").map_or(Some(0), integer);
    match (number, integer(count)) {
        (_, Some(0 | 1)) => Ok(None),
        // The names have five digits.
        (Some(number), Some(count)) if number < count && count < 100_000 => Ok(Some((number, count))),
        _ => Err(format!("metadata key split.count is {count}, which does not go with split.no")),
    }
}

/// The paths of all parts, by that of one.
fn names(path: &Path, count: u64) -> Option<Vec<PathBuf>> {
    let name = file_name(path);
    let (stem, number) = name.strip_suffix(&format!("-of-{count:05}.gguf"))?.rsplit_once('-')?;
    if number.len() != 5 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((1..=count).map(|n| path.with_file_name(format!("{stem}-{n:05}-of-{count:05}.gguf"))).collect())
}
