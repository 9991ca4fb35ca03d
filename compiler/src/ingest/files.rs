//! Which files belong to the checkpoint that a path names.

use crate::error::CompileError;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The file that leads to all tensors.
pub(crate) enum Weights {
    /// One safetensors file.
    File(PathBuf),
    /// `model.safetensors.index.json`, which names the shards.
    Index(PathBuf),
}

/// A checkpoint's folder and the file that leads to its tensors.
pub(crate) struct Files {
    /// Where the companions (`config.json`, `tokenizer.json`) are looked for.
    pub(crate) dir: PathBuf,
    /// The tensors.
    pub(crate) weights: Weights,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Files {
    /// Finds the checkpoint at `path`: a safetensors file, an index of shards, or a model directory.
    pub(crate) fn locate(path: &Path) -> Result<Files, CompileError> {
        let metadata =
            fs::metadata(path).map_err(|source| CompileError::Io { path: path.to_owned(), source })?;
        if metadata.is_dir() {
            return Files::locate_in(path);
        }
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = file_name(path);
        if name.ends_with(".safetensors.index.json") {
            Ok(Files { dir, weights: Weights::Index(path.to_owned()) })
        } else if name.ends_with(".safetensors") {
            if let Some(of) = shard_count(&name).filter(|&of| of > 1) {
                let problem = format!("is one of {of} shards; give the directory or its {INDEX} instead");
                return Err(CompileError::Invalid { path: path.to_owned(), problem });
            }
            Ok(Files { dir, weights: Weights::File(path.to_owned()) })
        } else {
            Err(foreign(path).unwrap_or_else(|| CompileError::Unsupported {
                path: path.to_owned(),
                problem: format!(
                    "is not a checkpoint this compiler knows; give {SINGLE}, {INDEX} or the model's directory"
                ),
            }))
        }
    }

    /// As transformers does: the single file first, then the index.
    fn locate_in(dir: &Path) -> Result<Files, CompileError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.is_file() {
            return Ok(Files { dir: dir.to_owned(), weights: Weights::File(single) });
        }
        if index.is_file() {
            return Ok(Files { dir: dir.to_owned(), weights: Weights::Index(index) });
        }
        let entries =
            fs::read_dir(dir).map_err(|source| CompileError::Io { path: dir.to_owned(), source })?;
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.sort();
        if let Some(error) = found.iter().find_map(|path| foreign(path)) {
            return Err(error);
        }
        let mut problem = format!("holds neither {SINGLE} nor {INDEX}");
        if let Some(other) = found.iter().find(|p| file_name(p).ends_with(".safetensors")) {
            problem += &match shard_count(&file_name(other)).filter(|&of| of > 1) {
                Some(_) => format!(", but the shard {}; download {INDEX} too", file_name(other)),
                None => format!("; to compile {}, name the file itself", file_name(other)),
            };
        }
        Err(CompileError::Invalid { path: dir.to_owned(), problem })
    }

    /// The companion `name`, where the checkpoint has it.
    pub(crate) fn companion(&self, name: &str) -> Option<PathBuf> {
        let path = self.dir.join(name);
        path.is_file().then_some(path)
    }

    /// A name for the model: that of its directory, or of the repository where the directory is a snapshot in a
    /// Hugging Face cache (`models--ORG--NAME/snapshots/REVISION`).
    pub(crate) fn model_name(&self) -> String {
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

/// The total in `NAME-00001-of-00003.safetensors`.
fn shard_count(name: &str) -> Option<u32> {
    let (_, of) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    of.parse().ok()
}

/// Why a file of another checkpoint format cannot be read.
fn foreign(path: &Path) -> Option<CompileError> {
    let name = file_name(path);
    let problem = if name.ends_with(".trit") {
        "is a bundle, compiled already; run it with trit-run, or look into it with tritc inspect"
    } else if name.ends_with(".gguf") {
        "GGUF is not yet read; use the model's safetensors checkpoint"
    } else if name.ends_with(".bin.index.json")
        || (name.starts_with("pytorch_model") && name.ends_with(".bin"))
        || name.ends_with(".pt")
        || name.ends_with(".pth")
    {
        "is a PyTorch pickle, which can run code when read and is not supported; \
         convert it with transformers: save_pretrained(..., safe_serialization=True)"
    } else {
        return None;
    };
    Some(CompileError::Unsupported { path: path.to_owned(), problem: problem.to_owned() })
}
