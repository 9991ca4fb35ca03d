//! A bundle's tokenizer and chat template alone, without its weights.

use super::front::Front;
use super::source::Source;
use super::storage::Storage;
use crate::RuntimeError;
use std::path::{Path, PathBuf};
use trit_format::container::Digest;
use trit_format::manifest::Manifest;
use trit_text::{ChatTemplate, TextError, Tokenizer};

/// A bundle's manifest and tokenizer. Weights are neither read nor checked, and no kernels are bound.
pub struct Texts {
    path: PathBuf,
    digest: Digest,
    manifest: Manifest,
    /// `tokenizer.json`.
    tokenizer: Option<Vec<u8>>,
}

impl Texts {
    /// Reads manifest and tokenizer, and checks their digests.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] and [`RuntimeError::Format`] where the file cannot be read or is no valid bundle.
    pub fn open(path: &Path) -> Result<Texts, RuntimeError> {
        Texts::on(&Storage::open(path)?)
    }

    /// As [`Texts::open`], from another source of bytes; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Texts::open`].
    pub fn from_source(source: Box<dyn Source>, path: &Path) -> Result<Texts, RuntimeError> {
        Texts::on(&Storage::new(source, path))
    }

    fn on(storage: &Storage) -> Result<Texts, RuntimeError> {
        let Front { digest, manifest, tokenizer, .. } = Front::read(storage)?;
        Ok(Texts { path: storage.path().to_owned(), digest, manifest, tokenizer })
    }

    /// The digest of the bundle's header, which names the bundle in a [`crate::TrustPolicy`]. Weights and code have not
    /// been checked against that header.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bundle's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bundle's manifest.
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
        ChatTemplate::of(&self.manifest.text)
    }
}
