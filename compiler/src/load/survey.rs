//! Says what a checkpoint is and what compiling it would do. It reads and checks everything that [`load`] does, but
//! digests no file. Where something refuses the checkpoint, the survey says so and ends.
//!
//! [`load`]: crate::load::load

use crate::error::{CompileError, Warnings};
use crate::load::{LoadOptions, read};
use crate::model::{Activations, Matrix, Model, TensorReport};
use std::path::{Path, PathBuf};
use trit_format::manifest::{Hyperparameters, TextInfo};

/// What was found before something refused the checkpoint, or all of it.
#[derive(Debug, Default)]
pub struct Survey {
    /// The path that was given.
    pub path: PathBuf,
    /// Every file with tensors, and its bytes.
    pub files: Vec<(String, u64)>,
    /// As `architectures` names it.
    pub architecture: Option<&'static str>,
    /// Sizes, with the bundle's context length.
    pub sizes: Option<Hyperparameters>,
    /// What else the configuration says, a name and a fact each.
    pub facts: Vec<(&'static str, String)>,
    /// What the tokenizer's files say.
    pub text: Option<TextInfo>,
    /// Bytes of `tokenizer.json`.
    pub tokenizer: Option<usize>,
    /// What the model's own card or configuration says.
    pub license: Option<String>,
    /// Type of activations.
    pub activations: Option<Activations>,
    /// Each matrix, and how its scale counts.
    pub matrices: Vec<(TensorReport, Option<Matrix>)>,
    /// What a user should know about it.
    pub warnings: Warnings,
    /// Why it cannot be compiled.
    pub refusal: Option<CompileError>,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name(), self.shape())
    }
}

/// Looks at the checkpoint at `path`. Nothing is written. Packed weights are not read. Floats are read where only
/// they can tell whether they are ternary.
pub fn survey(path: &Path, options: &LoadOptions) -> Survey {
    let mut survey = Survey { path: path.to_owned(), ..Survey::default() };
    survey.refusal = read(path, options, false, &mut survey).err();
    survey
}

/// Every matrix of a model beside what was found in it.
pub(super) fn matrices(model: &Model) -> Vec<(TensorReport, Option<Matrix>)> {
    let tables = [Some(&model.embedding), model.head.as_ref()].into_iter().flatten();
    let projections = model.layers.iter().flat_map(|layer| layer.projections());
    let draft = model.draft.iter().flat_map(|d| d.layer.projections().into_iter().chain([&d.join]));
    let mut matrices: Vec<&Matrix> = tables.chain(projections.chain(draft).map(|p| &p.matrix)).collect();
    let mut take = |name: &str| {
        let at = matrices.iter().position(|matrix| matrix.name() == name)?;
        Some(matrices.swap_remove(at).clone())
    };
    model.report.iter().map(|report| (report.clone(), take(&report.name))).collect()
}
