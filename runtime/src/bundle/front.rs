//! What a bundle says of itself: header, manifest and tokenizer, read before anything else.

use super::storage::Storage;
use crate::RuntimeError;
use trit_format::FormatError;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::draft;
use trit_format::manifest::{MAX_BYTES, Manifest};
use trit_format::plan::Plan;

/// Most bytes of a tokenizer that is loaded. The largest known ones have 30 MB.
const MAX_TOKENIZER: usize = 1 << 28;

/// Header, manifest, draft plan and tokenizer of a bundle. They are read once and checked, and only these copies are used.
pub(crate) struct Front {
    pub header: Header,
    /// The bytes that the header was parsed from, which a signature is of.
    pub head: Vec<u8>,
    /// Their digest: the bundle's name.
    pub digest: Digest,
    pub manifest: Manifest,
    /// The plan of a block that drafts tokens, where there is one.
    pub draft: Option<Plan>,
    /// `tokenizer.json`, where there is one.
    pub tokenizer: Option<Vec<u8>>,
}

impl Front {
    pub fn read(storage: &Storage) -> Result<Front, RuntimeError> {
        let (header, head) = storage.header()?;
        let section = header.section(SectionKind::Manifest);
        let section = section.ok_or_else(|| storage.format(FormatError::Missing(SectionKind::Manifest)))?;
        let manifest = Manifest::decode(&storage.copy(section, MAX_BYTES)?).map_err(|e| storage.format(e))?;
        manifest.validate(&header).map_err(|e| storage.format(e))?;
        let draft = header.section(SectionKind::Draft).map(|section| {
            let bytes = storage.copy(section, MAX_BYTES)?;
            let draft = draft::decode(&bytes, &manifest).map_err(|e| storage.format(e))?;
            Ok::<_, RuntimeError>(draft.plan)
        });
        let draft = draft.transpose()?;
        let tokenizer = header.section(SectionKind::Tokenizer);
        let tokenizer = tokenizer.map(|section| storage.copy(section, MAX_TOKENIZER)).transpose()?;
        Ok(Front { header, digest: Digest::of(&head), head, manifest, draft, tokenizer })
    }
}
