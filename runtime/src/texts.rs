//! What a bundle says of text, without its weights: enough to tokenize, and to render a chat template.

use crate::RuntimeError;
use crate::load::Front;
use crate::storage::Storage;
use std::path::{Path, PathBuf};
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
        let storage = Storage::open(path)?;
        let Front { manifest, tokenizer, .. } = Front::read(&storage)?;
        Ok(Texts { path: path.to_owned(), manifest, tokenizer })
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
        let vocab_size = self.manifest.hyperparameters.vocab_size;
        let make = |json: &Vec<u8>| Tokenizer::new(json, &self.manifest.text, vocab_size);
        self.tokenizer.as_ref().map(make).transpose()
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
