//! What a bundle says of text, without its weights: enough to tokenize, and to render a chat template.

use crate::{RuntimeError, mapping};
use std::path::{Path, PathBuf};
use trit_format::FormatError;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_text::{ChatTemplate, TextError, Tokenizer};

/// A bundle's manifest and tokenizer. Weights are neither read nor checked, and nothing is bound to this machine.
pub struct Texts {
    path: PathBuf,
    manifest: Manifest,
    /// `tokenizer.json`.
    tokenizer: Option<Vec<u8>>,
}

impl Texts {
    /// Reads both and checks their digests.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] and [`RuntimeError::Format`] where the file cannot be read or is no valid bundle.
    pub fn open(path: &Path) -> Result<Texts, RuntimeError> {
        let format = |source: FormatError| RuntimeError::Format { path: path.to_owned(), source };
        let storage = mapping::open(path)?;
        let map = storage.bytes();
        let header = Header::parse(map).map_err(format)?;
        // What is digested is the copy that is used: the file may change meanwhile.
        let section = |kind| match header.section(kind) {
            None => Ok(None),
            Some(section) => {
                let bytes = map[section.range()].to_vec();
                match Digest::of(&bytes) == section.digest {
                    true => Ok(Some(bytes)),
                    false => Err(format(FormatError::Digest(kind))),
                }
            }
        };
        let manifest = section(SectionKind::Manifest)?.unwrap_or_default();
        let manifest = Manifest::decode(&manifest).map_err(format)?;
        manifest.validate(&header).map_err(format)?;
        Ok(Texts { path: path.to_owned(), manifest, tokenizer: section(SectionKind::Tokenizer)? })
    }

    /// The file they came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its tokenizer; `None` where it has none.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] where it cannot be used.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, TextError> {
        self.tokenizer.as_ref().map(|json| Tokenizer::new(json, &self.manifest.text)).transpose()
    }

    /// Its chat template, compiled; `None` where it has none. A template needs no tokenizer.
    ///
    /// # Errors
    /// [`TextError::Template`] where the template has a syntax error.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TextError> {
        let text = &self.manifest.text;
        let compile = |source: &String| ChatTemplate::new(source, &text.special_tokens);
        text.chat_template.as_ref().map(compile).transpose()
    }
}
