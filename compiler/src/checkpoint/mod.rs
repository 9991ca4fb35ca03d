//! The tensors of a checkpoint: one file of safetensors or PyTorch, or shards with an index, mapped, validated and looked up by
//! name.

pub(crate) mod arithmetic;
pub(crate) mod block_type;
pub(crate) mod head_order;
pub(crate) mod i2s_layout;
pub(crate) mod integer_type;
pub(crate) mod overrides;
mod pytorch;
pub(crate) mod tensor;

use crate::error::CompileError;
use crate::files::locate::{self, TensorFiles, at, file_name};
use crate::files::mapped::{MappedFile, MappedSlice};
use crate::files::model_files::{expect_utf8, parse};
use crate::files::unchanged::InputFile;
use safetensors::{SafeTensorError, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub(crate) use block_type::BlockType;
pub(crate) use head_order::{Axis, TiledHeads};
pub use i2s_layout::I2sLayout;
pub(crate) use integer_type::IntegerType;
pub(crate) use tensor::{Affine, ElementType, RawTensor};

/// All tensors of a checkpoint. Whoever understands a tensor takes it out, so that what is left was not understood.
pub(crate) struct Checkpoint {
    /// The file that leads to all tensors: the only one that has some, or the index.
    pub(crate) path: PathBuf,
    /// Every file with tensors, in order.
    pub(crate) files: Vec<InputFile>,
    /// The index, where there is one.
    pub(crate) index: Option<InputFile>,
    tensors: BTreeMap<String, RawTensor>,
}

impl Checkpoint {
    /// Maps and validates every file of the checkpoint; no tensor is read.
    pub(crate) fn open(weights: &TensorFiles) -> Result<Checkpoint, CompileError> {
        match weights {
            TensorFiles::File(path) => {
                let mut tensors = BTreeMap::new();
                let source = read_file(path, &mut tensors)?;
                Ok(Checkpoint { path: path.clone(), files: vec![source], index: None, tensors })
            }
            TensorFiles::Index(path) => open_shards(path),
            TensorFiles::Gguf(path) => Err(CompileError::Internal(format!("{} is imported", path.display()))),
        }
    }

    /// The tensors of another format, by the names that they have in checkpoints.
    pub(crate) fn renamed(
        path: PathBuf,
        files: Vec<InputFile>,
        tensors: BTreeMap<String, RawTensor>,
    ) -> Checkpoint {
        Checkpoint { path, files, index: None, tensors }
    }

    /// The same files with what `change` makes of the tensors.
    pub(crate) fn changed(
        self,
        change: impl FnOnce(BTreeMap<String, RawTensor>) -> Result<BTreeMap<String, RawTensor>, CompileError>,
    ) -> Result<Checkpoint, CompileError> {
        Ok(Checkpoint { tensors: change(self.tensors)?, ..self })
    }

    /// The same with floats that may be so far from ternary ones.
    pub(crate) fn with_tolerance(mut self, tolerance: Option<f32>) -> Checkpoint {
        self.tensors.values_mut().for_each(|tensor| tensor.tolerance = tolerance);
        self
    }

    /// Every tensor that nobody took, by its name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, RawTensor> {
        &self.tensors
    }

    /// Renames tensors, and leaves out those for which `name` gives none. Returns how many were left out.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) -> usize {
        let before = self.tensors.len();
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().filter_map(|(old, tensor)| Some((name(&old)?, tensor))).collect();
        before - self.tensors.len()
    }

    /// Takes a tensor that must be there.
    pub(crate) fn require(&mut self, name: &str) -> Result<RawTensor, CompileError> {
        self.take(name).ok_or_else(|| CompileError::Tensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            problem: "is missing; the checkpoint is incomplete, or its configuration describes another model"
                .to_owned(),
        })
    }

    /// Takes a tensor that may be there.
    pub(crate) fn take(&mut self, name: &str) -> Option<RawTensor> {
        self.tensors.remove(name)
    }

    /// Whether there is a tensor of that name that nobody took.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Tensors nobody took, by name.
    pub(crate) fn rest(&self) -> impl Iterator<Item = &RawTensor> {
        self.tensors.values()
    }
}

/// Largest index that is read, in bytes: some hundred times the largest in use.
const MAX_INDEX: u64 = 256 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_shards(path: &Path) -> Result<Checkpoint, CompileError> {
    let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
    let (source, text) = InputFile::read(path, MAX_INDEX)?;
    let text = &text[expect_utf8(path, &text)?..];
    let index: Index = parse(path, text, "an index of shards")?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    if shards.is_empty() {
        return Err(invalid("names no shard".to_owned()));
    }
    let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
    for shard in shards {
        // An index is untrusted: a name with directories could reach any file.
        let mut components = Path::new(shard).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(invalid(format!("names the shard {shard:?}, which is not a plain file name")));
        }
        let file = dir.join(shard);
        if at(&file)?.is_none() {
            return Err(invalid(format!("names the shard {shard}, which is not there; download it too")));
        }
        files.push(read_file(&file, &mut tensors)?);
    }
    for (name, shard) in &index.weight_map {
        let found = tensors.get(name).map(|t| file_name(t.bytes.path()));
        if found.as_ref() != Some(shard) {
            let problem = match found {
                None => "is named by the index, but not in the shard".to_owned(),
                Some(other) => format!("is named by the index as part of this shard, but is in {other}"),
            };
            return Err(CompileError::Tensor { path: dir.join(shard), tensor: name.clone(), problem });
        }
    }
    Ok(Checkpoint { path: path.to_owned(), files, index: Some(source), tensors })
}

/// Adds the tensors of one file.
fn read_file(path: &Path, tensors: &mut BTreeMap<String, RawTensor>) -> Result<InputFile, CompileError> {
    let file = MappedFile::open(path)?;
    file.refuse_lfs_pointer()?;
    let found = if locate::is_pytorch(path) { pytorch::tensors(&file)? } else { safetensors(&file)? };
    for tensor in found {
        if let Some(other) = tensors.insert(tensor.name.clone(), tensor) {
            return Err(
                other.error(format!("is also in {}; it is unclear which one counts", file_name(path)))
            );
        }
    }
    Ok(file.source().clone())
}

/// The tensors of a safetensors file.
fn safetensors(file: &Arc<MappedFile>) -> Result<Vec<RawTensor>, CompileError> {
    let path = file.path();
    let invalid = |problem: String| CompileError::Invalid { path: path.to_owned(), problem };
    // `read_metadata` checks that the tensors are in bounds, do not overlap and cover the file exactly.
    let (header, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(|e| match &e {
        // The type was added to the format later, or it is another program's own.
        SafeTensorError::InvalidHeaderDeserialization(e) if e.to_string().starts_with("unknown variant") => {
            let problem = format!("has a tensor of a type that is not known ({e}), so it cannot be read");
            CompileError::Unsupported { path: path.to_owned(), problem }
        }
        _ => {
            invalid(format!("is not a whole safetensors file ({e}); it may be truncated, download it again"))
        }
    })?;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let at = |offset: usize| offset.checked_add(header)?.checked_add(size_of::<u64>());
        let bytes = at(start)
            .zip(at(end))
            .and_then(|(start, end)| MappedSlice::new(file.clone(), start..end))
            .ok_or_else(|| invalid(format!("tensor {name} is outside the file")))?;
        tensors.push(RawTensor {
            name: name.clone(),
            dtype: info.dtype.into(),
            shape: info.shape.clone(),
            bytes,
            interleaved_heads: None,
            tiled_heads: None,
            affine: None,
            tolerance: None,
        });
    }
    Ok(tensors)
}
