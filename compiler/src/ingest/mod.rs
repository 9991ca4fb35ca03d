//! Reads a checkpoint: a path enters, a [`Model`] that views the mapped files leaves.
//!
//! | module | does |
//! |---|---|
//! | `files` | finds the files that belong together |
//! | `mapped` | maps them |
//! | `checkpoint` | looks tensors up by name |
//! | `gguf` | reads GGUF files as if they were such a checkpoint |
//! | `companions` | reads the small files beside the tensors |
//! | `choices` | what may be asked of activations and float weights |
//! | `generation` | what the authors say of single tokens, and what is not applied |
//! | `text` | tokenizer, template, stop ids, sampling defaults |
//! | `sources` | digests the inputs |
//! | `survey` | the same without an end at the first error, for `tritc inspect` |

pub(crate) mod checkpoint;
mod choices;
mod companions;
mod files;
mod generation;
pub(crate) mod gguf;
pub(crate) mod mapped;
mod sources;
mod survey;
mod text;

use crate::arch::{self, Wishes};
use crate::error::CompileError;
use crate::model::Model;
use checkpoint::Checkpoint;
use companions::Companions;
use files::{Files, Weights};
use std::path::{Path, PathBuf};
use trit_format::manifest::ModelInfo;

pub use choices::{ActivationChoice, Quantize};
pub use survey::{Survey, survey};

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
    /// The bundle's context length in tokens; by default the model's, or that of LongRoPE's short factors.
    pub context: Option<u32>,
}

/// Reads the checkpoint at `path`: a safetensors file, the index of its shards, a GGUF file, or the model's directory.
/// `config.json` and the tokenizer's files are found beside the tensors; in a GGUF file is all of it.
///
/// Every tensor's presence, dtype and shape and every scale is checked here; the codes of packed matrices are checked
/// when their rows are read.
///
/// # Errors
/// Anything that is missing, damaged, contradictory or unknown, by the name of the file, key or tensor.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, CompileError> {
    let files = Files::locate(path)?;
    let mut warnings = Vec::new();
    let Inputs { companions, checkpoint, files: inputs, ignored, finish } =
        Inputs::open(&files, options, &mut warnings)?;
    let (config_path, config) = companions.config().ok_or_else(|| {
        CompileError::Internal("the companions were read without their config.json".to_owned())
    })?;
    let wishes = Wishes { ignored: &ignored, context: options.context };
    let mut understood = arch::understand(config_path, config.clone(), wishes, &mut warnings)?;
    if options.quantize == Some(Quantize::Absmean) {
        understood.round_to_absmean()?;
    }
    let text = text::text(&companions, understood.dims().vocab_size, &mut warnings)?;

    let (decoder, sources) =
        rayon::join(|| understood.build(checkpoint, &mut warnings), || sources::sources(&inputs));
    let mut decoder = decoder?;
    if let Some(finish) = finish {
        finish.apply(&mut decoder, &mut warnings)?;
    }
    let activations = options.activations.of(decoder.activations, &mut warnings);
    Ok(Model {
        info: ModelInfo {
            name: options.name.clone().unwrap_or_else(|| files.model_name()),
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
        text,
        tokenizer: companions.file("tokenizer.json").map(|(_, bytes)| bytes.to_vec()),
        warnings,
        report: decoder.report,
    })
}

/// What the files of a model hold, whatever their format.
struct Inputs {
    companions: Companions,
    checkpoint: Checkpoint,
    /// Every file that was read, in order.
    files: Vec<PathBuf>,
    /// Keys of the configuration to treat as absent.
    ignored: Vec<String>,
    /// What only GGUF files say.
    finish: Option<gguf::Finish>,
}

impl Inputs {
    fn open(
        files: &Files,
        options: &LoadOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Inputs, CompileError> {
        if let Weights::Gguf(path) = &files.weights {
            let gguf::Imported { companions, checkpoint, files, ignored, finish } =
                gguf::import(path, &options.ignore_config_keys, warnings)?;
            return Ok(Inputs { companions, checkpoint, files, ignored, finish: Some(finish) });
        }
        let companions = Companions::read(files)?;
        let checkpoint = Checkpoint::open(&files.weights)?;
        let mut inputs: Vec<PathBuf> = companions.paths().map(Path::to_owned).collect();
        inputs.push(checkpoint.path.clone());
        inputs.extend(checkpoint.files.iter().filter(|file| **file != checkpoint.path).cloned());
        let ignored = options.ignore_config_keys.clone();
        Ok(Inputs { companions, checkpoint, files: inputs, ignored, finish: None })
    }
}
