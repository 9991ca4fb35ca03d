//! The small files beside the tensors: read once, parsed where they are JSON, and digested with the rest.

use crate::error::CompileError;
use crate::ingest::files::Files;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Companions that shape the bundle, in the order its sources list them.
const NAMES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// So many of them say nothing of text.
const NUMBERS: usize = 2;

/// Largest companion that is read, in bytes: some thirty times the largest tokenizer in use.
const MAX_BYTES: u64 = 1 << 30;

/// A path and the JSON object in it.
pub(crate) type Object<'a> = Option<(&'a Path, &'a Map<String, Value>)>;

/// Every companion that is there.
pub(crate) struct Companions {
    files: Vec<(&'static str, PathBuf, Vec<u8>)>,
    objects: BTreeMap<&'static str, (PathBuf, Map<String, Value>)>,
    /// Whether there is a `tokenizer.model`, which is not read.
    pub(crate) has_sentencepiece: bool,
    /// SPDX identifier or text, where the model's card or licence file gives one.
    pub(crate) license: Option<String>,
}

impl Companions {
    /// Reads the companions in the checkpoint's folder; `without_tokenizer` leaves those out that say only how text
    /// becomes ids.
    ///
    /// # Errors
    /// A file that cannot be read or is no JSON object, or no `config.json`.
    pub(crate) fn read(files: &Files, without_tokenizer: bool) -> Result<Companions, CompileError> {
        let (mut found, mut objects) = (Vec::new(), BTreeMap::new());
        let names = if without_tokenizer { &NAMES[..NUMBERS] } else { &NAMES[..] };
        for &name in names {
            let Some(path) = files.companion(name) else { continue };
            let bytes = read(&path)?;
            if name.ends_with(".json") && name != "tokenizer.json" {
                let object = serde_json::from_slice(&bytes).map_err(|e| CompileError::Invalid {
                    path: path.clone(),
                    problem: format!("is not a JSON object: {e}"),
                })?;
                objects.insert(name, (path.clone(), object));
            }
            found.push((name, path, bytes));
        }
        if !objects.contains_key("config.json") {
            return Err(CompileError::Invalid {
                path: files.dir.join("config.json"),
                problem: "is missing; it says what model the tensors belong to, and must stand beside them"
                    .to_owned(),
            });
        }
        let license = license(files, &objects)?;
        let has_sentencepiece = files.companion("tokenizer.model").is_some();
        Ok(Companions { files: found, objects, has_sentencepiece, license })
    }

    /// What another format says in place of companions; `path` is its file.
    pub(crate) fn synthesized(
        path: &Path,
        config: Map<String, Value>,
        tokenizer_config: Map<String, Value>,
        tokenizer: Option<Vec<u8>>,
        license: Option<String>,
    ) -> Companions {
        let files = tokenizer.map(|bytes| ("tokenizer.json", path.to_owned(), bytes)).into_iter().collect();
        let objects = [("config.json", config), ("tokenizer_config.json", tokenizer_config)];
        let objects = objects.map(|(name, map)| (name, (path.to_owned(), map))).into();
        Companions { files, objects, has_sentencepiece: false, license }
    }

    /// A companion's path and bytes.
    pub(crate) fn file(&self, name: &str) -> Option<(&Path, &[u8])> {
        self.files
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, path, bytes)| (path.as_path(), bytes.as_slice()))
    }

    /// Where the companions are, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, path, _)| path.as_path())
    }

    pub(crate) fn config(&self) -> Object<'_> {
        self.object("config.json")
    }

    pub(crate) fn generation_config(&self) -> Object<'_> {
        self.object("generation_config.json")
    }

    pub(crate) fn tokenizer_config(&self) -> Object<'_> {
        self.object("tokenizer_config.json")
    }

    pub(crate) fn special_tokens_map(&self) -> Object<'_> {
        self.object("special_tokens_map.json")
    }

    pub(crate) fn chat_template(&self) -> Object<'_> {
        self.object("chat_template.json")
    }

    fn object(&self, name: &str) -> Object<'_> {
        self.objects.get(name).map(|(path, map)| (path.as_path(), map))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CompileError> {
    let io = |source| CompileError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
        let problem = "is over 1 GiB, which is no plausible size".to_owned();
        return Err(CompileError::Invalid { path: path.to_owned(), problem });
    }
    fs::read(path).map_err(io)
}

/// The licence: `license` of config.json, the model card's front matter, or the first line of a licence file.
fn license(
    files: &Files,
    objects: &BTreeMap<&'static str, (PathBuf, Map<String, Value>)>,
) -> Result<Option<String>, CompileError> {
    if let Some(license) = objects.get("config.json").and_then(|(_, map)| map.get("license")?.as_str()) {
        return Ok(Some(license.to_owned()));
    }
    if let Some(path) = files.companion("README.md")
        && let Some(license) = front_matter_license(&String::from_utf8_lossy(&read(&path)?))
    {
        return Ok(Some(license));
    }
    for name in ["LICENSE", "LICENSE.txt", "LICENSE.md"] {
        if let Some(path) = files.companion(name) {
            let text = read(&path)?;
            let text = String::from_utf8_lossy(&text);
            let first = text.lines().map(|l| l.trim_matches(['#', ' ', '\t', '\r'])).find(|l| !l.is_empty());
            return Ok(first.map(|line| line.chars().take(100).collect()));
        }
    }
    Ok(None)
}

/// `license:` in the YAML between the first two `---` lines, `license_name:` where that says "other".
fn front_matter_license(card: &str) -> Option<String> {
    let mut lines = card.lines().map(str::trim_end);
    if lines.next()?.trim_start_matches('\u{feff}') != "---" {
        return None;
    }
    let front: Vec<&str> = lines.take_while(|line| *line != "---").collect();
    let value = |key: &str| {
        let rest = front.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let value = rest.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    value("license").map(|license| match license.as_str() {
        "other" => value("license_name").unwrap_or(license),
        _ => license,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_card_names_the_licence() {
        let card = "---\nlanguage: en\nlicense: mit\n---\nlicense: not this\n";
        assert_eq!(front_matter_license(card).as_deref(), Some("mit"));
        let card = "---\r\nlicense: other\r\nlicense_name: \"falcon-llm-license\"\r\n---\r\n";
        assert_eq!(front_matter_license(card).as_deref(), Some("falcon-llm-license"));
        assert_eq!(front_matter_license("# Title\nlicense: mit\n"), None);
        assert_eq!(front_matter_license(""), None);
    }
}
