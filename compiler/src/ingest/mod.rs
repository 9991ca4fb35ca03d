//! Reads a checkpoint: a path enters, a [`Model`] that views the mapped files leaves.
//!
//! | module | does |
//! |---|---|
//! | `files`, `folder` | finds the files that belong together |
//! | `mapped` | maps them |
//! | `unchanged` | notices who writes to them meanwhile |
//! | `checkpoint` | looks tensors up by name |
//! | `gguf` | reads GGUF files as if they were such a checkpoint |
//! | `companions` | reads the small files beside the tensors |
//! | `choices` | what may be asked of activations and float weights |
//! | `generation` | what the authors say of single tokens, and what is not applied |
//! | `text` | tokenizer, template, stop ids, sampling defaults |
//! | `added_tokens` | tokens that only configurations name |
//! | `sources` | digests the inputs |
//! | `survey` | the same without an end at the first error, for `tritc inspect` |

mod added_tokens;
pub(crate) mod checkpoint;
mod choices;
mod companions;
mod files;
mod folder;
mod generation;
pub(crate) mod gguf;
pub(crate) mod mapped;
mod sources;
mod survey;
mod text;
mod unchanged;

use crate::arch::{self, Wishes};
use crate::error::{Choice, CompileError, Warnings};
use crate::model::Model;
use checkpoint::Checkpoint;
use companions::Companions;
use files::{Files, Weights};
use std::path::Path;
use trit_format::manifest::ModelInfo;
use unchanged::Source;

pub use choices::{ActivationChoice, Quantize};
pub use mapped::{mapped_file_at, record_mapped_files};
pub use survey::{Survey, survey};
pub use unchanged::Inputs;

/// How a checkpoint is to be read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The model's name; by default that of its directory.
    pub name: Option<String>,
    /// Keys of `config.json` to treat as absent, nested ones with dots (`quantization_config.KEY`).
    pub ignore_config_keys: Vec<String>,
    /// Type of activations in ternary products.
    pub activations: ActivationChoice,
    /// Rounds float weights that are not declared to be ternary.
    pub quantize: Option<Quantize>,
    /// Leaves the tokenizer out, and with it the chat template: the bundle takes and gives token ids only.
    pub without_tokenizer: bool,
    /// The bundle's context length in tokens; by default the model's, or that of LongRoPE's short factors.
    pub context: Option<u32>,
}

/// Longest name of a model, in bytes.
const MAX_NAME: usize = 4096;

/// Whether there is anything at `path`.
///
/// # Errors
/// A link to nothing, and a place that cannot be looked at.
pub fn is_there(path: &Path) -> Result<bool, CompileError> {
    Ok(files::at(path)?.is_some())
}

/// Reads the checkpoint at `path`: a safetensors file, the index of its shards, a GGUF file, or the model's directory.
/// `config.json` and the tokenizer's files are found beside the tensors; in a GGUF file is all of it.
///
/// Every tensor's presence, dtype and shape and every scale is checked here, and whether a bundle can hold the model; the
/// codes of packed matrices are checked when their rows are read.
///
/// # Errors
/// Anything that is missing, damaged, contradictory or unknown, by the name of the file, key or tensor.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, CompileError> {
    read(path, options, true, &mut Survey::default())
}

/// Reads the checkpoint at `path`. What is found on the way is noted in `survey`, for whoever wants to know how far it
/// came. Files are digested only where that is asked for, as it takes as long as reading all of them.
fn read(
    path: &Path,
    options: &LoadOptions,
    digest: bool,
    survey: &mut Survey,
) -> Result<Model, CompileError> {
    let name = options.name.as_deref().map(expect_name).transpose()?;
    let files = Files::locate(path)?;
    let warnings = &mut survey.warnings;
    warnings.extend(files.notes.iter().cloned());
    let Opened { companions, checkpoint, inputs, ignored, finish } = Opened::open(&files, options, warnings)?;
    survey.files = checkpoint.files.iter().map(|f| (files::file_name(f.path()), f.len())).collect();
    survey.license = companions.license.clone();
    let (config_path, config) = companions.config().ok_or_else(|| {
        CompileError::Internal("the companions were read without their config.json".to_owned())
    })?;
    let wishes = Wishes { ignored: &ignored, context: options.context };
    let mut understood = arch::understand(config_path, config.clone(), wishes, warnings)?;
    if options.quantize == Some(Quantize::Absmean) {
        understood.round_to_absmean()?;
    }
    survey.architecture = Some(understood.architecture());
    survey.sizes = Some(*understood.dims());
    survey.facts = understood.facts();
    survey.facts.extend(finish.iter().flat_map(|finish| finish.facts()));
    let text = text::text(&companions, understood.dims().vocab_size, options.without_tokenizer, warnings)?;
    survey.text = Some(text.info.clone());
    survey.tokenizer = text.tokenizer.as_ref().map(Vec::len);

    let checkpoint_path = checkpoint.path.clone();
    let digests = || if digest { sources::sources(&inputs.0) } else { Ok(Vec::new()) };
    let (decoder, sources) = rayon::join(|| understood.build(checkpoint, warnings), digests);
    let mut decoder = decoder?;
    if let Some(finish) = finish {
        finish.apply(&mut decoder, &mut survey.warnings)?;
    }
    let activations = options.activations.of(decoder.activations, &mut survey.warnings);
    survey.activations = Some(activations);
    let model = Model {
        info: ModelInfo {
            name: name.map_or_else(|| files.model_name(), str::to_owned),
            architecture: decoder.architecture.to_owned(),
            license: companions.license.clone(),
            sources: sources?,
        },
        hyperparameters: decoder.dims,
        rms_eps: decoder.rms_eps,
        linear_rms_eps: decoder.linear_rms_eps,
        activations,
        activation: decoder.activation,
        attention_scale: decoder.attention_scale,
        embedding_scale: decoder.embedding_scale,
        ropes: decoder.ropes,
        embedding: decoder.embedding,
        head: decoder.head,
        layers: decoder.layers,
        final_norm: decoder.final_norm,
        text: text.info,
        tokenizer: text.tokenizer,
        warnings: survey.warnings.clone(),
        report: decoder.report,
        inputs,
    };
    survey.matrices = survey::matrices(&model);
    crate::compile::expect_fit(&model, &checkpoint_path)?;
    Ok(model)
}

/// A name that somebody gave the model.
fn expect_name(name: &str) -> Result<&str, CompileError> {
    let usage =
        |problem: String| Err(CompileError::Choice { choice: Choice::Name(name.to_owned()), problem });
    match name {
        "" => usage("is empty".to_owned()),
        _ if name.len() > MAX_NAME => usage(format!("is over {MAX_NAME} bytes long")),
        _ if name.contains(char::is_control) => usage("has control characters".to_owned()),
        _ => Ok(name),
    }
}

/// The files of a model and what they hold, whatever their format.
struct Opened {
    companions: Companions,
    checkpoint: Checkpoint,
    /// Every file that was read, in order.
    inputs: Inputs,
    /// Keys of the configuration to treat as absent.
    ignored: Vec<String>,
    /// What only GGUF files say.
    finish: Option<gguf::Finish>,
}

impl Opened {
    fn open(files: &Files, options: &LoadOptions, warnings: &mut Warnings) -> Result<Opened, CompileError> {
        if let Weights::Gguf(path) = &files.weights {
            let gguf::Imported { companions, checkpoint, ignored, finish } =
                gguf::import(path, options, warnings)?;
            let inputs = Inputs(checkpoint.files.clone());
            return Ok(Opened { companions, checkpoint, inputs, ignored, finish: Some(finish) });
        }
        let companions = Companions::read(files, options.without_tokenizer)?;
        let checkpoint = Checkpoint::open(&files.weights)?;
        let sources = companions.sources().iter().chain(&checkpoint.index).chain(&checkpoint.files);
        let inputs = Inputs(sources.cloned().collect::<Vec<Source>>());
        let ignored = options.ignore_config_keys.clone();
        Ok(Opened { companions, checkpoint, inputs, ignored, finish: None })
    }
}
