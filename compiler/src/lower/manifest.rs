//! What a bundle says about itself, and whether a bundle can hold a model at all.

use crate::error::CompileError;
use crate::lower::Lowered;
use crate::model::Model;
use std::path::Path;
use trit_format::FormatError;
use trit_format::container::{Digest, Header, Section, SectionKind};
use trit_format::draft;
use trit_format::manifest::{MAX_BYTES, Manifest};

/// The program as bundles name it.
pub(crate) const COMPILER: &str = concat!("tritc ", env!("CARGO_PKG_VERSION"));

/// What a bundle without code says about itself.
pub(crate) fn manifest(model: &Model, lowered: Lowered<'_>) -> Manifest {
    Manifest {
        compiler: COMPILER.to_owned(),
        model: model.info.clone(),
        hyperparameters: model.hyperparameters,
        tensors: lowered.tensors,
        packed_matrices: lowered.packed_matrices,
        planes: lowered.planes,
        plan: lowered.plan,
        kernels: Vec::new(),
        text: model.text.clone(),
        goldens: lowered.goldens,
    }
}

/// Checks that a bundle can hold the model. Readers of bundles bound sizes, counts and numbers. What is beyond these
/// bounds is refused before anything is written. `path` is the file that the model was read from.
///
/// # Errors
/// [`CompileError::Unsupported`] with what is beyond which bound; as [`Lowered::new`].
pub(crate) fn expect_fit(model: &Model, path: &Path) -> Result<(), CompileError> {
    let unsupported = |problem: String| CompileError::Unsupported { path: path.to_owned(), problem };
    let lowered = Lowered::new(model, trit_codegen::best_code(&[]))?;
    let draft = lowered.draft.clone();
    let manifest = manifest(model, lowered);
    // The sections count as long enough for anything, because the compiler itself decides where records lie in them.
    let section = |kind| Section { kind, offset: 0, len: u64::MAX / 2, digest: Digest([0; 32]) };
    let kinds = [SectionKind::Manifest, SectionKind::Weights, SectionKind::Tensors, SectionKind::Planes];
    let header = Header { sections: kinds.map(section).into() };
    let template = model.text.chat_template.as_ref().map_or(0, String::len);
    if template > MAX_BYTES / 2 {
        return Err(unsupported(format!(
            "cannot be held by a bundle: its chat template has {template} bytes, and all that a bundle says about its \
             model may have {MAX_BYTES}"
        )));
    }
    manifest.encode().map_err(|error| unsupported(format!("cannot be held by a bundle: {error}")))?;
    let refused = |error: FormatError| unsupported(format!("cannot be held by a bundle: {error}"));
    manifest.validate(&header).map_err(refused)?;
    let Some(plan) = draft else { return Ok(()) };
    let section = draft::encode(&plan).map_err(refused)?;
    draft::decode(&section, &manifest).map(drop).map_err(refused)
}
