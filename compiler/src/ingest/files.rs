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
    /// A GGUF file, which holds all that companions say; or the first of several parts.
    Gguf(PathBuf),
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
const GGUF: &str = ".gguf";

impl Files {
    /// Finds the checkpoint at `path`: a safetensors file, an index of shards, a GGUF file, or a model directory.
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
        } else if is_gguf(path) {
            Ok(Files { dir, weights: Weights::Gguf(path.to_owned()) })
        } else {
            Err(foreign(path).unwrap_or_else(|| CompileError::Unsupported {
                path: path.to_owned(),
                problem: format!(
                    "is not a checkpoint this compiler knows; give {SINGLE}, {INDEX}, a .gguf file or the model's \
                     directory"
                ),
            }))
        }
    }

    /// As transformers does: the single file first, then the index. Where there is no safetensors file, a GGUF file.
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
        if let Some(gguf) = gguf_in(dir, &found)? {
            return Ok(Files { dir: dir.to_owned(), weights: Weights::Gguf(gguf) });
        }
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
    /// Hugging Face cache (`models--ORG--NAME/snapshots/REVISION`); of a GGUF file its own, as several models may share
    /// a directory.
    pub(crate) fn model_name(&self) -> String {
        if let Weights::Gguf(path) = &self.weights {
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

/// The total in `NAME-00001-of-00003.safetensors`.
fn shard_count(name: &str) -> Option<u32> {
    let (_, of) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    of.parse().ok()
}

fn is_gguf(path: &Path) -> bool {
    file_name(path).ends_with(GGUF)
}

/// The GGUF file among those of a directory, or the first part of the one model in parts.
fn gguf_in(dir: &Path, found: &[PathBuf]) -> Result<Option<PathBuf>, CompileError> {
    if found.iter().any(|path| file_name(path).ends_with(".safetensors")) {
        return Ok(None);
    }
    let is_later_part = |name: &str| {
        let parts = name.strip_suffix(GGUF).and_then(|stem| stem.rsplit_once("-of-"));
        parts.is_some_and(|(stem, _)| {
            stem.rsplit_once('-').is_some_and(|(_, number)| number.len() == 5 && number != "00001")
        })
    };
    let models: Vec<&PathBuf> =
        found.iter().filter(|path| is_gguf(path) && !is_later_part(&file_name(path))).collect();
    match models.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        [first, second, ..] => Err(CompileError::Invalid {
            path: dir.to_owned(),
            problem: format!(
                "holds {} GGUF files, such as {} and {}; name the one to compile",
                models.len(),
                file_name(first),
                file_name(second)
            ),
        }),
    }
}

/// Why a file of another checkpoint format cannot be read.
fn foreign(path: &Path) -> Option<CompileError> {
    let name = file_name(path);
    if name.ends_with(".trit") {
        let problem =
            "is a bundle, compiled already; run it with trit-run, or look into it with tritc inspect";
        return Some(CompileError::Invalid { path: path.to_owned(), problem: problem.to_owned() });
    }
    let problem = if name.ends_with(".bin.index.json")
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
