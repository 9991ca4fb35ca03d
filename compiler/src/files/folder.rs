//! Finds out which of the files in a folder is the model. It is the one that transformers would load; people keep
//! other files beside it.

use crate::error::CompileError;
use crate::files::locate::{
    Files, INDEX, PYTORCH, PYTORCH_INDEX, SINGLE, TensorFiles, at, file_name, foreign, is_gguf, shard_count,
};
use crate::files::unchanged::InputFile;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Finds the checkpoint in the folder `dir`. As in transformers, the single safetensors file comes first, then the
/// index, then the same of PyTorch. Where there is none, a GGUF file is taken. A model's folder in a Hugging Face cache
/// stands for its current snapshot.
///
/// # Errors
/// The folder holds no model, or it holds several and nothing says which of them is meant.
pub(super) fn locate(dir: &Path) -> Result<Files, CompileError> {
    let entries = fs::read_dir(dir).map_err(|source| CompileError::Io { path: dir.to_owned(), source })?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    for (name, weights) in [
        (SINGLE, TensorFiles::File as fn(PathBuf) -> TensorFiles),
        (INDEX, TensorFiles::Index),
        (PYTORCH, TensorFiles::File),
        (PYTORCH_INDEX, TensorFiles::Index),
    ] {
        let path = dir.join(name);
        if at(&path)?.is_some_and(|metadata| metadata.is_file()) {
            let mut files = Files::new(dir.to_owned(), weights(path));
            files.notes.extend(beside(dir, name, &found));
            return Ok(files);
        }
    }
    if let Some(gguf) = gguf(dir, &found)? {
        return Ok(Files::new(dir.to_owned(), TensorFiles::Gguf(gguf)));
    }
    if let Some(snapshot) = snapshot(dir)? {
        return locate(&snapshot);
    }
    if let Some(error) = found.iter().find_map(|path| foreign(path)) {
        return Err(error);
    }
    Err(invalid(dir, nothing(&found)))
}

fn invalid(dir: &Path, problem: String) -> CompileError {
    CompileError::Invalid { path: dir.to_owned(), problem }
}

/// A note on another file that the user may have meant; `taken` is the one that transformers would take.
fn beside(dir: &Path, taken: &str, found: &[PathBuf]) -> Option<String> {
    let is_index = |path: &PathBuf| taken == SINGLE && file_name(path) == INDEX && !is_of_single(path);
    let other = |path: &&PathBuf| is_gguf(path) || is_index(path);
    let other = file_name(found.iter().find(other)?);
    Some(format!("{}: {taken} is taken; to compile {other} beside it, name that file", dir.display()))
}

/// Whether an index leads to the single file alone, as mlx-lm writes one beside it.
fn is_of_single(index: &Path) -> bool {
    let Ok((_, text)) = InputFile::read(index, MAX_INDEX) else { return false };
    let Ok(index) = serde_json::from_slice::<Index>(&text) else { return false };
    !index.weight_map.is_empty() && index.weight_map.values().all(|shard| shard == SINGLE)
}

/// Largest index that is looked into, in bytes: some ten times the largest in use.
const MAX_INDEX: u64 = 32 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Why there is no model among the files.
fn nothing(found: &[PathBuf]) -> String {
    let mut problem = format!("holds neither {SINGLE} nor {INDEX}");
    let named = |test: &dyn Fn(&str) -> bool| found.iter().map(|p| file_name(p)).find(|name| test(name));
    if let Some(adapter) = named(&|name| name == "adapter_model.safetensors") {
        problem +=
            &format!("; {adapter} is a LoRA adapter, which is no whole model: merge it into its base first");
    } else if let Some(other) = named(&|name| name.ends_with(".safetensors")) {
        problem += &match shard_count(&other).filter(|&of| of > 1) {
            Some(_) => format!(", but the shard {other}; download {INDEX} too"),
            None => format!("; to compile {other}, name the file itself"),
        };
        if let Some(gguf) = named(&|name| name.ends_with(".gguf")) {
            problem += &format!(", or {gguf}");
        }
    } else if let Some(shard) = named(&|name| name.starts_with("pytorch_model-") && name.ends_with(".bin")) {
        problem += &format!(", but the shard {shard}; download {PYTORCH_INDEX} too");
    } else if let Some(model) = found.iter().map(|p| file_name(p)).find(|name| name.starts_with("models--")) {
        problem += &format!("; it is a Hugging Face cache, name one of the models in it, such as {model}");
    } else if let Some(inner) = found.iter().find(|path| holds_model(path)) {
        problem += &format!("; there is a model in its folder {}, name that", file_name(inner));
    }
    problem
}

/// Whether there is a model right in the folder.
fn holds_model(path: &Path) -> bool {
    let names = fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut names = names.map(|path| (file_name(&path), is_gguf(&path)));
    names.any(|(name, gguf)| gguf || [SINGLE, INDEX, PYTORCH, PYTORCH_INDEX].contains(&name.as_str()))
}

/// The one GGUF file of a directory, or the first part of the one model that is in parts.
fn gguf(dir: &Path, found: &[PathBuf]) -> Result<Option<PathBuf>, CompileError> {
    if found.iter().any(|path| file_name(path).ends_with(".safetensors")) {
        return Ok(None);
    }
    let is_later_part = |name: &str| {
        let parts = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-"));
        parts.is_some_and(|(stem, _)| {
            stem.rsplit_once('-').is_some_and(|(_, number)| number.len() == 5 && number != "00001")
        })
    };
    let models: Vec<&PathBuf> =
        found.iter().filter(|path| is_gguf(path) && !is_later_part(&file_name(path))).collect();
    match models.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        [first, second, ..] => {
            let (n, first, second) = (models.len(), file_name(first), file_name(second));
            let problem =
                format!("holds {n} GGUF files, such as {first} and {second}; name the one to compile");
            Err(invalid(dir, problem))
        }
    }
}

/// The snapshot of a model's folder in a Hugging Face cache (`models--ORG--NAME`): the one that `refs/main` names, or
/// the only one.
fn snapshot(dir: &Path) -> Result<Option<PathBuf>, CompileError> {
    let snapshots = dir.join("snapshots");
    let Ok(entries) = fs::read_dir(&snapshots) else { return Ok(None) };
    if let Ok(revision) = fs::read_to_string(dir.join("refs").join("main")) {
        // The file is as untrusted as the rest. A name with directories in it could lead anywhere.
        let mut components = Path::new(revision.trim()).components();
        if let (Some(Component::Normal(name)), None) = (components.next(), components.next()) {
            let named = snapshots.join(name);
            if named.is_dir() {
                return Ok(Some(named));
            }
        }
    }
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    match folders.as_slice() {
        [] => Err(invalid(dir, "holds no snapshot of the model; download it again".to_owned())),
        [one] => Ok(Some(one.clone())),
        [first, second, ..] => Err(invalid(
            dir,
            format!(
                "holds {} snapshots of the model, and refs/main names none of them; name one, such as snapshots/{} or \
                 snapshots/{}",
                folders.len(),
                file_name(first),
                file_name(second)
            ),
        )),
    }
}
