//! What a checkpoint is and what compiling it would do, as far as it can be told: everything that [`load`] reads and
//! checks, except that what refuses it ends nothing but the survey, and that no file is digested.
//!
//! [`load`]: crate::ingest::load

use crate::arch::{self, Decoder, Wishes};
use crate::error::CompileError;
use crate::ingest::files::{Files, file_name};
use crate::ingest::text;
use crate::ingest::{Inputs, LoadOptions, Quantize};
use crate::model::{Activations, Matrix, TensorReport};
use std::fs;
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
    /// Things the user should know, a line each.
    pub warnings: Vec<String>,
    /// Why it cannot be compiled.
    pub refusal: Option<CompileError>,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name(), self.shape())
    }
}

/// Looks at the checkpoint at `path`. Nothing is written. Packed weights are not read; floats are, where only they can
/// tell whether they are ternary.
pub fn survey(path: &Path, options: &LoadOptions) -> Survey {
    let mut survey = Survey { path: path.to_owned(), ..Survey::default() };
    survey.refusal = survey.look(options).err();
    survey
}

impl Survey {
    fn look(&mut self, options: &LoadOptions) -> Result<(), CompileError> {
        let files = Files::locate(&self.path)?;
        let Inputs { companions, checkpoint, ignored, finish, .. } =
            Inputs::open(&files, options, &mut self.warnings)?;
        for file in &checkpoint.files {
            let io = |source| CompileError::Io { path: file.clone(), source };
            self.files.push((file_name(file), fs::metadata(file).map_err(io)?.len()));
        }
        self.license = companions.license.clone();
        let (path, config) = companions.config().ok_or_else(|| {
            CompileError::Internal("the companions were read without their config.json".to_owned())
        })?;
        let wishes = Wishes { ignored: &ignored, context: options.context };
        let mut understood = arch::understand(path, config.clone(), wishes, &mut self.warnings)?;
        if options.quantize == Some(Quantize::Absmean) {
            understood.round_to_absmean()?;
        }
        self.architecture = Some(understood.architecture());
        self.sizes = Some(*understood.dims());
        self.facts = understood.facts();
        self.facts.extend(finish.iter().flat_map(|finish| finish.facts()));
        let vocab_size = understood.dims().vocab_size;
        let text = text::text(&companions, vocab_size, options.without_tokenizer, &mut self.warnings)?;
        self.tokenizer = text.tokenizer.map(|bytes| bytes.len());
        self.text = Some(text.info);
        let mut decoder = understood.build(checkpoint, &mut self.warnings)?;
        if let Some(finish) = finish {
            finish.apply(&mut decoder, &mut self.warnings)?;
        }
        self.activations = Some(options.activations.of(decoder.activations, &mut self.warnings));
        self.matrices = matrices(decoder);
        Ok(())
    }
}

/// Every matrix of a model beside what was found in it.
fn matrices(decoder: Decoder) -> Vec<(TensorReport, Option<Matrix>)> {
    let tables = [Some(decoder.embedding), decoder.head].into_iter().flatten();
    let projections = decoder.layers.into_iter().flat_map(|l| [l.q, l.k, l.v, l.o, l.gate, l.up, l.down]);
    let mut matrices: Vec<Matrix> = tables.chain(projections.map(|p| p.matrix)).collect();
    let mut take = |name: &str| {
        let at = matrices.iter().position(|matrix| matrix.name() == name)?;
        Some(matrices.swap_remove(at))
    };
    decoder.report.into_iter().map(|report| (report.clone(), take(&report.name))).collect()
}
