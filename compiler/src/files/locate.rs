//! Which files belong to the checkpoint that a path names.

use crate::error::CompileError;
use crate::files::folder;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use trit_text::printable::escape;

/// The file that leads to all tensors.
pub(crate) enum TensorFiles {
    /// One file of safetensors or PyTorch.
    File(PathBuf),
    /// `model.safetensors.index.json` or `pytorch_model.bin.index.json`, which names the shards.
    Index(PathBuf),
    /// A GGUF file or the first of its parts. It also holds what the model's other files say.
    Gguf(PathBuf),
}

/// A checkpoint's folder and the file that leads to its tensors.
pub(crate) struct Files {
    /// Where the model's other files (`config.json`, `tokenizer.json`) are looked for.
    pub(crate) dir: PathBuf,
    /// The tensors.
    pub(crate) weights: TensorFiles,
    /// What the user should know about how they were chosen, a line each.
    pub(crate) notes: Vec<String>,
}

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const PYTORCH: &str = "pytorch_model.bin";
pub(super) const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
const GGUF: &str = ".gguf";

/// What is at `path`, behind links; `None` where there is nothing.
///
/// # Errors
/// The path is a link to nothing, or the system does not let it be looked at.
pub(crate) fn at(path: &Path) -> Result<Option<Metadata>, CompileError> {
    let source = match fs::metadata(path) {
        Ok(metadata) => return Ok(Some(metadata)),
        Err(source) => source,
    };
    match (fs::read_link(path), source.kind()) {
        (Ok(target), ErrorKind::NotFound) => Err(CompileError::Invalid {
            path: path.to_owned(),
            problem: format!(
                "is a link to {}, which is not there; a folder of a Hugging Face cache is copied whole by cp -rL, which \
                 follows links, or else download the model again",
                target.display()
            ),
        }),
        (Err(_), ErrorKind::NotFound) => Ok(None),
        _ => Err(CompileError::Io { path: path.to_owned(), source }),
    }
}

impl Files {
    /// Finds the checkpoint at `path`: a file of safetensors or PyTorch, an index of shards, a GGUF file, or a model
    /// directory.
    pub(crate) fn locate(path: &Path) -> Result<Files, CompileError> {
        let metadata = at(path)?
            .ok_or_else(|| CompileError::Io { path: path.to_owned(), source: ErrorKind::NotFound.into() })?;
        if metadata.is_dir() {
            return folder::locate(path);
        }
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = file_name(path);
        if name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json") {
            Ok(Files::new(dir, TensorFiles::Index(path.to_owned())))
        } else if name.ends_with(".safetensors") || is_pytorch(path) {
            if let Some(of) = shard_count(&name).filter(|&of| of > 1) {
                let index = if is_pytorch(path) { PYTORCH_INDEX } else { INDEX };
                let problem = format!("is one of {of} shards; give the directory or its {index} instead");
                return Err(CompileError::Invalid { path: path.to_owned(), problem });
            }
            Ok(Files::new(dir, TensorFiles::File(path.to_owned())))
        } else if is_gguf(path) {
            Ok(Files::new(dir, TensorFiles::Gguf(path.to_owned())))
        } else {
            Err(foreign(path).unwrap_or_else(|| CompileError::Unsupported {
                path: path.to_owned(),
                problem: format!(
                    "is not a checkpoint this compiler knows; give {SINGLE}, {INDEX}, {PYTORCH}, {PYTORCH_INDEX}, a \
                     .gguf file or the model's directory"
                ),
            }))
        }
    }

    pub(super) fn new(dir: PathBuf, weights: TensorFiles) -> Files {
        Files { dir, weights, notes: Vec::new() }
    }

    /// The model's file `name` beside the tensors, where the checkpoint has it.
    ///
    /// # Errors
    /// It is a link to nothing, or no file. It is not passed over, because then what it says would be missing.
    pub(crate) fn beside(&self, name: &str) -> Result<Option<PathBuf>, CompileError> {
        let path = self.dir.join(name);
        match at(&path)? {
            None => Ok(None),
            Some(metadata) if metadata.is_file() => Ok(Some(path)),
            Some(_) => Err(CompileError::Invalid { path, problem: "is not a file".to_owned() }),
        }
    }

    /// A name for the model. It is the name of the directory, or of the repository where the directory is a snapshot
    /// in a Hugging Face cache (`models--ORG--NAME/snapshots/REVISION`). A GGUF file gives its own name, because
    /// several models may share a directory. Control characters are spelled out.
    pub(crate) fn model_name(&self) -> String {
        escape(&self.name_by_place()).into_owned()
    }

    fn name_by_place(&self) -> String {
        if let TensorFiles::Gguf(path) = &self.weights {
            let name = file_name(path);
            let stem = name.strip_suffix(GGUF).unwrap_or(&name);
            return stem.split_once("-00001-of-").map_or(stem, |(stem, _)| stem).to_owned();
        }
        let dir = fs::canonicalize(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let names: Vec<String> = dir
            .components()
            .filter_map(|c| match c {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        if let [.., repository, snapshots, _] = names.as_slice()
            && snapshots == "snapshots"
            && let Some((_, name)) = repository.strip_prefix("models--").and_then(|r| r.rsplit_once("--"))
        {
            return name.to_owned();
        }
        names.last().cloned().unwrap_or_else(|| "model".to_owned())
    }
}

/// The file's name without directories, for messages and comparisons.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The total in `NAME-00001-of-00003.safetensors`, or the same of PyTorch.
pub(super) fn shard_count(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".bin"))?;
    stem.rsplit_once("-of-")?.1.parse().ok()
}

/// Whether the name is one that files of PyTorch have.
pub(crate) fn is_pytorch(path: &Path) -> bool {
    let name = file_name(path);
    [".bin", ".pt", ".pth"].iter().any(|ending| name.ends_with(ending))
}

pub(super) fn is_gguf(path: &Path) -> bool {
    file_name(path).ends_with(GGUF)
}

/// Why a file of another kind cannot be read.
pub(super) fn foreign(path: &Path) -> Option<CompileError> {
    file_name(path).ends_with(".trit").then(|| CompileError::IsABundle { path: path.to_owned() })
}
