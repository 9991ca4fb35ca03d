//! Reads checkpoints that mlx-lm wrote: configuration and tensors enter, those that the same model has for transformers
//! leave. Other checkpoints pass as they are.
//!
//! | module | does |
//! |---|---|
//! | `quantization` | `quantization` of `config.json`: how each module is packed |
//! | `packs` | a packed `weight` with its `scales` and `biases` becomes one tensor |
//! | `rotations` | `modules` of `prism_hadamard_qwen35` and their signs |
//!
//! Nothing is decoded here: `crate::weights::affine` reads rows from the mapped files. Names begin with `language_model.`
//! where the model may have an image tower, which is left out.

mod packs;
mod quantization;
mod rotations;

use crate::checkpoint::overrides::Overrides;
use crate::checkpoint::{Checkpoint, RawTensor};
use crate::error::CompileError;
use crate::files::model_files::ModelFiles;
use quantization::Quantization;
use rotations::Modules;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What names of the text model begin with in models that may have an image tower.
const TEXT_MODEL: &str = "language_model.";

/// Bonsai 2, whose weights are rotated.
const ROTATED: &str = "prism_hadamard_qwen35";

/// Turns what mlx-lm wrote into a checkpoint as transformers has it, and puts the configuration of that into `files`.
///
/// # Errors
/// A kind of quantization that is not read; packs, modules and signs that do not go together.
pub(crate) fn adapt(
    files: &mut ModelFiles,
    checkpoint: Checkpoint,
) -> Result<(Checkpoint, Overrides), CompileError> {
    let Some((path, config)) = files.config() else { return Ok((checkpoint, Overrides::default())) };
    let rotated = config.get("model_type").and_then(Value::as_str) == Some(ROTATED);
    let prefixed = checkpoint.tensors().keys().any(|name| name.starts_with(TEXT_MODEL));
    if !rotated && !prefixed && !quantization::is_there(config) {
        return Ok((checkpoint, Overrides::default()));
    }
    let (path, mut config) = (path.to_owned(), config.clone());
    let quantization = Quantization::take(&path, &mut config)?;
    let modules = if rotated { Some(Modules::take(&path, &mut config)?) } else { None };
    let is_hybrid = rotated || config.get("model_type").and_then(Value::as_str) == Some("qwen3_5");
    let mut overrides = Overrides::default();
    let checkpoint = checkpoint.changed(|tensors| {
        let mut tensors = text_model(tensors)?;
        if let Some(quantization) = &quantization {
            packs::join(quantization, &mut tensors)?;
        }
        if let Some(modules) = &modules {
            overrides.rotations = Some(modules.rotations(&mut tensors)?);
        }
        // mlx-lm tells by this axis, too, whether it converted a model. If it did, norms have the one added.
        let converted = |(name, tensor): (&String, &RawTensor)| {
            name.ends_with(".conv1d.weight") && tensor.shape.len() == 3 && tensor.shape[2] == 1
        };
        overrides.norms_whole = is_hybrid && tensors.iter().any(converted);
        Ok(tensors)
    })?;
    files.set_config(if is_hybrid { text_config(config) } else { config });
    Ok((checkpoint, overrides))
}

/// The tensors of the text model by the names that they have in models of text alone.
fn text_model(tensors: BTreeMap<String, RawTensor>) -> Result<BTreeMap<String, RawTensor>, CompileError> {
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors {
        if name.starts_with("vision_tower.") {
            continue;
        }
        let name = name.strip_prefix(TEXT_MODEL).map(str::to_owned).unwrap_or(name);
        if let Some(other) = found.insert(name, tensor) {
            return Err(other.error(format!(
                "is there with {TEXT_MODEL:?} before its name and without; it is unclear which one counts"
            )));
        }
    }
    Ok(found)
}

/// The configuration of the text model alone.
fn text_config(mut config: Map<String, Value>) -> Map<String, Value> {
    let text = match config.remove("text_config") {
        Some(Value::Object(text)) => text,
        Some(other) => {
            // It is refused with the other keys that are not understood.
            config.insert("text_config".to_owned(), other);
            Map::new()
        }
        None => Map::new(),
    };
    // They are of the image tower, and of how its results enter the text.
    config.retain(|key, _| {
        let images = ["vision_", "image_", "video_"];
        key != "language_model_only" && !images.iter().any(|start| key.starts_with(start))
    });
    // What the text model says of itself counts.
    for (key, value) in text {
        if !value.is_null() || !config.contains_key(&key) {
            config.insert(key, value);
        }
    }
    config.insert("architectures".to_owned(), json!(["Qwen3_5ForCausalLM"]));
    config.insert("model_type".to_owned(), json!("qwen3_5_text"));
    config
}
