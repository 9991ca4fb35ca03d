//! Reads a checkpoint: a path enters, a [`Model`] that views the mapped files leaves. [`survey`] does the same
//! without an end at the first error, and says what it found.

#[cfg(test)]
mod containers;
mod options;
mod rounded;
mod survey;

use crate::arch::{self, ConfigOptions};
use crate::checkpoint::Checkpoint;
pub use crate::checkpoint::I2sLayout;
use crate::checkpoint::overrides::Overrides;
use crate::error::{Choice, CompileError, Warnings};
use crate::files::digests;
use crate::files::locate::{self, Files, TensorFiles};
use crate::files::model_files::ModelFiles;
use crate::files::unchanged::{InputFile, Inputs};
use crate::gguf;
use crate::lower::manifest::expect_fit;
use crate::mlx;
use crate::model::Model;
use crate::text;
use std::path::Path;
use trit_format::manifest::ModelInfo;

pub use options::{ActivationChoice, LoadOptions, Quantize};
pub use survey::{Survey, survey};

/// Longest name of a model, in bytes.
const MAX_NAME: usize = 4096;

/// Whether there is anything at `path`.
///
/// # Errors
/// A link to nothing, and a place that cannot be looked at.
pub fn is_there(path: &Path) -> Result<bool, CompileError> {
    Ok(locate::at(path)?.is_some())
}

/// Whether `path` looks like a checkpoint: a directory, or a file that is named like one.
pub fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let endings = [".safetensors", ".index.json", ".gguf", ".bin", ".pt", ".pth"];
    path.is_dir() || endings.iter().any(|ending| name.ends_with(ending))
}

/// Reads the checkpoint at `path`: a file of safetensors or PyTorch, the index of its shards, a GGUF file, or the model's
/// directory. `config.json` and the tokenizer's files are found beside the tensors; a GGUF file holds all of it.
///
/// Every tensor's presence, dtype and shape and every scale is checked here, and whether a bundle can hold the model;
/// the codes of packed matrices are checked when their rows are read.
///
/// # Errors
/// Anything that is missing, damaged, contradictory or unknown, by the name of the file, key or tensor.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model, CompileError> {
    read(path, options, true, &mut Survey::default())
}

/// Reads the checkpoint at `path`. What is found on the way is noted in `survey`, so that a caller knows how far
/// reading came. Files are digested only where `digest` says so, because that takes as long as reading all of them.
fn read(
    path: &Path,
    options: &LoadOptions,
    digest: bool,
    survey: &mut Survey,
) -> Result<Model, CompileError> {
    let name = options.name.as_deref().map(expect_name).transpose()?;
    let tolerance = options.tolerance.map(rounded::expect).transpose()?;
    let files = Files::locate(path)?;
    let warnings = &mut survey.warnings;
    warnings.extend(files.notes.iter().cloned());
    let Opened { mut model_files, checkpoint, inputs, ignored, overrides, i2s_layout } =
        Opened::open(&files, options, warnings)?;
    let checkpoint = checkpoint.with_tolerance(tolerance);
    if let Some((path, config)) = model_files.config()
        && let Some(text) = arch::of_text(path, config)?
    {
        model_files.set_config(text);
    }
    survey.files = checkpoint.files.iter().map(|f| (locate::file_name(f.path()), f.len())).collect();
    survey.license = model_files.license.clone();
    let (config_path, config) = model_files.config().ok_or_else(|| {
        CompileError::Internal("the model's files were read without their config.json".to_owned())
    })?;
    let (context, without_draft) = (options.context, options.without_draft);
    let config_options = ConfigOptions { ignored: &ignored, context, without_draft };
    let mut config = arch::parse(config_path, config.clone(), config_options, warnings)?;
    if options.quantize == Some(Quantize::Absmean) {
        config = config.rounded()?;
    }
    survey.architecture = Some(config.architecture());
    survey.sizes = Some(*config.dims());
    survey.facts = config.facts(&overrides);
    survey.facts.extend(i2s_layout.map(|layout| ("I2_S layout", layout)));
    let text = text::text(&model_files, config.dims().vocab_size, options.without_tokenizer, warnings)?;
    survey.text = Some(text.info.clone());
    survey.tokenizer = text.tokenizer.as_ref().map(Vec::len);

    let checkpoint_path = checkpoint.path.clone();
    let digests = || if digest { digests::sources(&inputs.0) } else { Ok(Vec::new()) };
    let (decoder, sources) = rayon::join(|| config.build(checkpoint, &overrides, warnings), digests);
    let decoder = decoder?;
    let architecture = rounded::state(decoder.architecture, &decoder.report, tolerance, &mut survey.warnings);
    let activations = options.activations.of(decoder.activations, &mut survey.warnings);
    survey.activations = Some(activations);
    let model = Model {
        info: ModelInfo {
            name: name.map_or_else(|| files.model_name(), str::to_owned),
            architecture,
            license: model_files.license.clone(),
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
        draft: decoder.draft,
        text: text.info,
        tokenizer: text.tokenizer,
        warnings: survey.warnings.clone(),
        report: decoder.report,
        inputs,
    };
    survey.matrices = survey::matrices(&model);
    expect_fit(&model, &checkpoint_path)?;
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
    model_files: ModelFiles,
    checkpoint: Checkpoint,
    /// Every file that was read, in order.
    inputs: Inputs,
    /// Keys of the configuration to treat as absent.
    ignored: Vec<String>,
    /// What no `config.json` can say.
    overrides: Overrides,
    /// The layout of I2_S weights, where there are some, and where it is from.
    i2s_layout: Option<String>,
}

impl Opened {
    fn open(files: &Files, options: &LoadOptions, warnings: &mut Warnings) -> Result<Opened, CompileError> {
        if let TensorFiles::Gguf(path) = &files.weights {
            let (ignored, without_tokenizer) = (&options.ignore_config_keys, options.without_tokenizer);
            let gguf::Imported { model_files, checkpoint, ignored, overrides, i2s_layout } =
                gguf::import(path, ignored, without_tokenizer, options.i2s_layout, warnings)?;
            let inputs = Inputs(checkpoint.files.clone());
            return Ok(Opened { model_files, checkpoint, inputs, ignored, overrides, i2s_layout });
        }
        if let Some(layout) = options.i2s_layout {
            return Err(CompileError::Choice {
                choice: Choice::I2sLayout(layout.name()),
                problem: gguf::not_there(),
            });
        }
        let mut model_files = ModelFiles::read(files, options.without_tokenizer)?;
        let checkpoint = Checkpoint::open(&files.weights)?;
        let (checkpoint, overrides) = mlx::adapt(&mut model_files, checkpoint)?;
        let sources = model_files.sources().iter().chain(&checkpoint.index).chain(&checkpoint.files);
        let inputs = Inputs(sources.cloned().collect::<Vec<InputFile>>());
        let ignored = options.ignore_config_keys.clone();
        Ok(Opened { model_files, checkpoint, inputs, ignored, overrides, i2s_layout: None })
    }
}
