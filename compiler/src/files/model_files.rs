//! The small files beside the tensors: read once, parsed where they are JSON, and digested with the rest.

use crate::error::CompileError;
use crate::files::locate::Files;
use crate::files::unchanged::InputFile;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files that shape the bundle, in the order in which its sources list them.
const NAMES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The first so many of them say nothing about text.
const NUMBERS: usize = 2;

/// Largest of them that is read, in bytes: some thirty times the largest tokenizer in use.
const MAX_BYTES: u64 = 1 << 30;

/// A path and the JSON object in it.
pub(crate) type Object<'a> = Option<(&'a Path, &'a Map<String, Value>)>;

/// Every such file that is there.
pub(crate) struct ModelFiles {
    files: Vec<(&'static str, PathBuf, Vec<u8>)>,
    /// Those files, as they were when they were read.
    sources: Vec<InputFile>,
    objects: BTreeMap<&'static str, (PathBuf, Map<String, Value>)>,
    /// Whether there is a `tokenizer.model`, which is not read.
    pub(crate) has_sentencepiece: bool,
    /// SPDX identifier or text, where the model's card or licence file gives one.
    pub(crate) license: Option<String>,
}

impl ModelFiles {
    /// Reads those in the checkpoint's folder; `without_tokenizer` leaves those out that say only how text
    /// becomes ids.
    ///
    /// # Errors
    /// A file that cannot be read or is no JSON object, or no `config.json`.
    pub(crate) fn read(files: &Files, without_tokenizer: bool) -> Result<ModelFiles, CompileError> {
        let (mut found, mut sources, mut objects) = (Vec::new(), Vec::new(), BTreeMap::new());
        let names = if without_tokenizer { &NAMES[..NUMBERS] } else { &NAMES[..] };
        for &name in names {
            let Some(path) = files.beside(name)? else { continue };
            let (source, mut bytes) = InputFile::read(&path, MAX_BYTES)?;
            if name.ends_with(".json") {
                bytes.drain(..expect_utf8(&path, &bytes)?);
            }
            if name.ends_with(".json") && name != "tokenizer.json" {
                objects.insert(name, (path.clone(), parse(&path, &bytes, "a JSON object")?));
            }
            sources.push(source);
            found.push((name, path, bytes));
        }
        if !objects.contains_key("config.json") {
            return Err(CompileError::Invalid {
                path: files.dir.join("config.json"),
                problem: "is missing; it says what model the tensors belong to, and must stand beside them"
                    .to_owned(),
            });
        }
        let license = license(files, &objects);
        let has_sentencepiece = files.beside("tokenizer.model").is_ok_and(|path| path.is_some());
        Ok(ModelFiles { files: found, sources, objects, has_sentencepiece, license })
    }

    /// What another format says in place of such files; `path` is its file.
    pub(crate) fn synthesized(
        path: &Path,
        config: Map<String, Value>,
        tokenizer_config: Map<String, Value>,
        tokenizer: Option<Vec<u8>>,
        license: Option<String>,
    ) -> ModelFiles {
        let files = tokenizer.map(|bytes| ("tokenizer.json", path.to_owned(), bytes)).into_iter().collect();
        let objects = [("config.json", config), ("tokenizer_config.json", tokenizer_config)];
        let objects = objects.map(|(name, map)| (name, (path.to_owned(), map))).into();
        ModelFiles { files, sources: Vec::new(), objects, has_sentencepiece: false, license }
    }

    /// The same with what a `generation_config.json` would say, where there is something.
    pub(crate) fn with_generation_config(mut self, generation: Option<Map<String, Value>>) -> ModelFiles {
        let path = self.objects.get("config.json").map(|(path, _)| path.clone()).unwrap_or_default();
        self.objects.extend(generation.map(|map| ("generation_config.json", (path, map))));
        self
    }

    /// A file's path and bytes.
    pub(crate) fn file(&self, name: &str) -> Option<(&Path, &[u8])> {
        self.files
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, path, bytes)| (path.as_path(), bytes.as_slice()))
    }

    /// The files as they were when they were read, in order.
    pub(crate) fn sources(&self) -> &[InputFile] {
        &self.sources
    }

    /// Puts `config` in the place of what `config.json` says.
    pub(crate) fn set_config(&mut self, config: Map<String, Value>) {
        if let Some((_, own)) = self.objects.get_mut("config.json") {
            *own = config;
        }
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

/// How many bytes stand before the text of a JSON file. Some editors put the byte order mark of UTF-8 there, which says
/// nothing and is skipped.
///
/// # Errors
/// The file is UTF-16, or it is what Git leaves in place of a large file that it did not fetch.
pub(crate) fn expect_utf8(path: &Path, bytes: &[u8]) -> Result<usize, CompileError> {
    let problem = match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Ok(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16 text; save it as UTF-8",
        _ if bytes.starts_with(b"version https://git-lfs") => {
            "is a Git LFS pointer, not the file itself; run `git lfs pull`"
        }
        _ => return Ok(0),
    };
    Err(CompileError::Invalid { path: path.to_owned(), problem: problem.to_owned() })
}

/// The JSON in the text of a file, which `what` says is expected.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &[u8], what: &str) -> Result<T, CompileError> {
    serde_json::from_slice(text).map_err(|e| CompileError::Invalid {
        path: path.to_owned(),
        problem: match text.trim_ascii() {
            [] => "is empty; download it again".to_owned(),
            _ => format!("is not {what}: {e}"),
        },
    })
}

/// The licence: `license` of config.json, the model card's front matter, or the first line of a licence file.
fn license(files: &Files, objects: &BTreeMap<&'static str, (PathBuf, Map<String, Value>)>) -> Option<String> {
    if let Some(license) = objects.get("config.json").and_then(|(_, map)| map.get("license")?.as_str()) {
        return Some(license.to_owned());
    }
    // Where these files cannot be read the licence is not stated. Nothing else depends on them.
    let text = |name: &str| InputFile::read(&files.beside(name).ok()??, MAX_BYTES).ok();
    if let Some((_, card)) = text("README.md")
        && let Some(license) = front_matter_license(&String::from_utf8_lossy(&card))
    {
        return Some(license);
    }
    for name in ["LICENSE", "LICENSE.txt", "LICENSE.md"] {
        if let Some((_, text)) = text(name) {
            let text = String::from_utf8_lossy(&text);
            let first = text.lines().map(|l| l.trim_matches(['#', ' ', '\t', '\r'])).find(|l| !l.is_empty());
            return first.map(|line| line.chars().take(100).collect());
        }
    }
    None
}

/// The value of `license:` in the YAML between the first two `---` lines, or of `license_name:` where the first says
/// "other".
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
