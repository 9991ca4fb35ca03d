//! The text model of Qwen 3.5, 3.6 and 3.8 (transformers' `models/qwen3_5`): three of four layers are Gated DeltaNets, the
//! others have attention with an output gate and a RoPE of a part of each head. RMSNorm weights are stored less one.

use crate::arch::family::{Family, HEAD_NORMS, LLAMA, Mixers, Norms};
use crate::arch::keys::Keys;
use crate::arch::positions::Positions;
use crate::arch::rope::{RopeConfig, RopeInputs};
use crate::error::CompileError;
use serde_json::{Map, Value, json};
use std::path::Path;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::DeltaHeads;

pub(crate) const QWEN35: Family = Family {
    architecture: "Qwen3_5ForCausalLM",
    model_type: "qwen3_5_text",
    n_kv_heads: Some(4),
    head_dim: Some(256),
    context_length: 32_768,
    rope_theta: 10_000_000.0,
    windowed: false,
    norms: Norms { heads: Some(HEAD_NORMS), less_one: true, ..LLAMA.norms },
    positions: |keys, family, dims| {
        let rope = RopeConfig::take_partial(keys, RopeInputs::new(family, dims), 0.25)?;
        Ok(Positions { ropes: vec![rope], sliding: None, long_by_context: false })
    },
    tensor_name: Some(|name| match name.strip_prefix("model.language_model.") {
        Some(rest) => Some(format!("model.{rest}")),
        None if name.starts_with("model.visual.") => None,
        None => Some(name.to_owned()),
    }),
    mixers: |keys, dims| mixers(keys, dims).map(Some),
    drafts: true,
    ..LLAMA
};

/// The largest number of heads and of elements of one; models have 48 and 128.
const MOST: u32 = 1 << 12;
/// Most taps of a convolution; models have 4.
const MOST_TAPS: u32 = 64;

fn mixers(keys: &mut Keys, dims: &Hyperparameters) -> Result<Mixers, CompileError> {
    keys.expect("attn_output_gate", &json!(true))?;
    // Qwen 3.8 says so; elsewhere it is the only gate there is.
    match keys.take::<String>("output_gate_type")?.as_deref() {
        None | Some("swish" | "silu") => {}
        Some(other) => {
            let problem = format!("output_gate_type {other:?} is not supported (only \"swish\")");
            return Err(keys.unsupported(problem));
        }
    }
    keys.expect("mlp_only_layers", &json!([]))?;
    for key in ["num_experts", "num_experts_per_tok"] {
        keys.expect(key, &json!(0))?;
    }
    // How transformers computes; and the draft block, of which the tensors tell.
    keys.take::<String>("mamba_ssm_dtype")?;
    keys.take::<u32>("mtp_num_hidden_layers")?;
    keys.take::<bool>("mtp_use_dedicated_embeddings")?;
    let mut size = |key: &str, default: u32, most: u32| {
        let size = keys.take(key)?.unwrap_or(default);
        match (1..=most).contains(&size) {
            true => Ok(size),
            false => Err(keys.invalid(format!("{key} is {size}, expected 1 to {most}"))),
        }
    };
    let heads = DeltaHeads {
        keys: size("linear_num_key_heads", 16, MOST)?,
        values: size("linear_num_value_heads", 32, MOST)?,
        key_dim: size("linear_key_head_dim", 128, 1024)?,
        value_dim: size("linear_value_head_dim", 128, 1024)?,
    };
    let taps = size("linear_conv_kernel_dim", 4, MOST_TAPS)? as usize;
    if !heads.values.is_multiple_of(heads.keys) {
        return Err(keys.invalid(format!(
            "linear_num_value_heads {} is not a multiple of linear_num_key_heads {}",
            heads.values, heads.keys
        )));
    }
    let interval: u32 = keys.take("full_attention_interval")?.unwrap_or(4);
    let types: Option<Vec<String>> = keys.take("layer_types")?;
    let recurrent = match types {
        Some(types) if types.len() != dims.n_layers as usize => {
            return Err(keys.invalid(format!(
                "layer_types lists {} layers, num_hidden_layers is {}",
                types.len(),
                dims.n_layers
            )));
        }
        Some(types) => types.iter().map(|kind| listed(keys, kind)).collect::<Result<_, _>>()?,
        None if interval == 0 => return Err(keys.invalid("full_attention_interval is 0")),
        None => (0..dims.n_layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect(),
    };
    Ok(Mixers { recurrent, heads, taps })
}

fn listed(keys: &Keys, kind: &str) -> Result<bool, CompileError> {
    match kind {
        "linear_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(keys.unsupported(format!(
            "layer_types holds {other:?}, which is not supported (only \"linear_attention\" and \"full_attention\")"
        ))),
    }
}

/// The text model's configuration, where `config` is that of a model that sees images too
/// (`Qwen3_5ForConditionalGeneration`); `None` for others.
///
/// # Errors
/// A configuration of images without one of text, and keys that are not known.
pub(crate) fn of_text(
    path: &Path,
    config: &Map<String, Value>,
) -> Result<Option<Map<String, Value>>, CompileError> {
    let names = config.get("architectures").and_then(Value::as_array);
    let wrapped = names.is_some_and(|names| names.iter().any(|name| name == WRAPPER));
    if !wrapped {
        return Ok(None);
    }
    let mut keys = Keys::new(path, config.clone());
    let mut text: Map<String, Value> = keys.require("text_config")?;
    keys.expect("architectures", &json!([WRAPPER]))?;
    keys.expect("model_type", &json!("qwen3_5"))?;
    // What belongs to images.
    for key in [
        "vision_config",
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "language_model_only",
    ] {
        keys.take::<Value>(key)?;
    }
    for key in ["tie_word_embeddings", "eos_token_id", "bos_token_id", "quantization_config"] {
        if let Some(value) = keys.take::<Value>(key)?
            && text.get(key).is_none_or(Value::is_null)
        {
            text.insert(key.to_owned(), value);
        }
    }
    keys.refuse_rest(crate::arch::harmless::HARMLESS)?;
    text.insert("architectures".to_owned(), json!([QWEN35.architecture]));
    Ok(Some(text))
}

/// The model with a tower for images around the text model.
const WRAPPER: &str = "Qwen3_5ForConditionalGeneration";
