//! Model families: which configurations and tensor names are understood, and the [`Model`] they make.
//!
//! A family is a row of [`FAMILIES`] where its layers are those of [`decoder`]; anything else is refused by name.

mod config;
mod decoder;
mod keys;
mod rope;

use crate::error::CompileError;
use crate::ingest::checkpoint::Checkpoint;
use crate::model::{Layer, Matrix, NormWeights, Rope};
use config::Config;
use keys::Keys;
use serde_json::{Map, Value};
use std::path::Path;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::Activation;

/// One architecture and what transformers assumes where its configuration is silent.
pub(crate) struct Family {
    /// As `architectures` names it.
    architecture: &'static str,
    /// As `model_type` names it.
    model_type: &'static str,
    /// Whether layers normalize before o and down.
    sub_norms: bool,
    n_kv_heads: Option<u32>,
    hidden_act: &'static str,
    rms_eps: f64,
    rope_theta: f64,
}

/// Defaults as in transformers' configuration classes `BitNetConfig` and `LlamaConfig`.
const FAMILIES: [Family; 2] = [
    Family {
        architecture: "BitNetForCausalLM",
        model_type: "bitnet",
        sub_norms: true,
        n_kv_heads: Some(5),
        hidden_act: "relu2",
        rms_eps: 1e-5,
        rope_theta: 500_000.0,
    },
    Family {
        architecture: "LlamaForCausalLM",
        model_type: "llama",
        sub_norms: false,
        n_kv_heads: None,
        hidden_act: "silu",
        rms_eps: 1e-6,
        rope_theta: 10_000.0,
    },
];

/// The part of a model that follows from its configuration and tensors.
pub(crate) struct Decoder {
    pub(crate) architecture: &'static str,
    pub(crate) dims: Hyperparameters,
    pub(crate) rms_eps: f32,
    pub(crate) activation: Activation,
    pub(crate) ropes: Vec<Rope>,
    pub(crate) embedding: Matrix,
    pub(crate) head: Option<Matrix>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: NormWeights,
}

/// What has been read of `config.json`.
pub(crate) struct Understood {
    family: &'static Family,
    config: Config,
}

/// Reads the configuration `map` of the file `path`.
///
/// # Errors
/// An architecture, key or value that is not known, or a configuration that contradicts itself.
pub(crate) fn understand(
    path: &Path,
    map: Map<String, Value>,
    ignored: &[String],
    warnings: &mut Vec<String>,
) -> Result<Understood, CompileError> {
    let mut keys = Keys::new(path, map);
    keys.ignore(ignored, warnings);
    let family = family(&mut keys)?;
    Ok(Understood { family, config: Config::take(keys, family)? })
}

impl Understood {
    /// The model's sizes.
    pub(crate) fn dims(&self) -> &Hyperparameters {
        &self.config.dims
    }

    /// Takes the model's tensors from the checkpoint.
    ///
    /// # Errors
    /// A tensor that is missing, wrong, or left over.
    pub(crate) fn build(
        self,
        checkpoint: Checkpoint,
        warnings: &mut Vec<String>,
    ) -> Result<Decoder, CompileError> {
        decoder::build(self.family, self.config, checkpoint, warnings)
    }
}

fn family(keys: &mut Keys) -> Result<&'static Family, CompileError> {
    let architectures: Vec<String> = keys.require("architectures")?;
    let model_type: Option<String> = keys.take("model_type")?;
    let supported = FAMILIES.map(|f| f.architecture).join(", ");
    let [architecture] = architectures.as_slice() else {
        return Err(keys.invalid(format!("architectures is {architectures:?}, expected one name")));
    };
    if architecture == "BitnetForCausalLM" {
        return Err(keys.unsupported(format!(
            "architecture BitnetForCausalLM (the layout of 1bitLLM's checkpoints, with inner_attn_ln and \
             ffn_layernorm) is not yet supported; supported are {supported}"
        )));
    }
    let Some(family) = FAMILIES.iter().find(|f| f.architecture == architecture) else {
        let problem = format!("architecture {architecture} is not supported; supported are {supported}");
        return Err(keys.unsupported(problem));
    };
    match model_type {
        Some(other) if other != family.model_type => Err(keys.unsupported(format!(
            "model_type {other:?} does not belong to {architecture}, which has {:?}",
            family.model_type
        ))),
        _ => Ok(family),
    }
}
