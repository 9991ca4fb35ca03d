//! The text model of Gemma 3 (transformers' `models/gemma3`): norms on both sides of attention and feed-forward, whose
//! weights are stored less one, most layers with a sliding window and a RoPE of their own, scaled embeddings.

use crate::arch::factors::{EmbeddingScale, Factors};
use crate::arch::family::{Family, HEAD_NORMS, LLAMA, Norms};
use crate::arch::keys::Keys;
use crate::arch::positions::{Positions, Sliding, SlidingLayers};
use crate::arch::rope::{RopeConfig, RopeInputs};
use crate::error::CompileError;
use serde_json::{Value, json};
use trit_format::manifest::Hyperparameters;

pub(crate) const GEMMA3: Family = Family {
    architecture: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    n_kv_heads: Some(4),
    head_dim: Some(256),
    context_length: 131_072,
    activation_key: "hidden_activation",
    activation: "gelu_pytorch_tanh",
    rope_theta: 1_000_000.0,
    tied: true,
    norms: Norms {
        post: Some(["post_attention_layernorm", "post_feedforward_layernorm"]),
        ffn: "pre_feedforward_layernorm",
        heads: Some(HEAD_NORMS),
        less_one: true,
        ..LLAMA.norms
    },
    positions,
    factors: |keys, dims, usual| {
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            keys.expect(key, &Value::Null)?;
        }
        keys.expect("use_bidirectional_attention", &json!(false))?;
        let scalar: f64 = keys.take("query_pre_attn_scalar")?.unwrap_or(256.0);
        let attention_scale = scalar.powf(-0.5) as f32;
        if !(attention_scale.is_finite() && attention_scale > 0.0) {
            let problem = format!("query_pre_attn_scalar is {scalar}, expected a number above zero");
            return Err(keys.invalid(problem));
        }
        let embedding_scale = EmbeddingScale::InTableType(f64::from(dims.hidden_dim).sqrt() as f32);
        Ok(Factors { attention_scale, embedding_scale, ..usual })
    },
    ..LLAMA
};

fn positions(keys: &mut Keys, family: &Family, dims: &Hyperparameters) -> Result<Positions, CompileError> {
    let (full, sliding) = RopeConfig::take_by_layer_type(keys, RopeInputs::new(family, dims), 10_000.0)?;
    let pattern: u32 = match keys.take("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => keys.take("_sliding_window_pattern")?.unwrap_or(6),
    };
    if pattern == 0 {
        return Err(keys.invalid("sliding_window_pattern is 0"));
    }
    let layers = match keys.take::<Vec<String>>("layer_types")? {
        Some(types) => SlidingLayers::Listed(listed(keys, &types, dims.n_layers)?),
        None => SlidingLayers::AllBut(pattern),
    };
    let null = keys.is_null("sliding_window");
    let window = keys.take("sliding_window")?.unwrap_or(if null { 0 } else { 4096 });
    let none_slides = matches!(&layers, SlidingLayers::Listed(slides) if !slides.contains(&true));
    if window == 0 && !none_slides {
        return Err(keys.invalid("sliding_window must be above zero: some layers attend to a window"));
    }
    let sliding_layers = Sliding { window, layers };
    Ok(Positions { ropes: vec![full, sliding], sliding: Some(sliding_layers), long_by_context: false })
}

/// Which layers slide, by their types.
fn listed(keys: &Keys, types: &[String], n_layers: u32) -> Result<Vec<bool>, CompileError> {
    if types.len() != n_layers as usize {
        let problem = format!("layer_types lists {} layers, num_hidden_layers is {n_layers}", types.len());
        return Err(keys.invalid(problem));
    }
    let slides = |kind: &String| {
        match kind.as_str() {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(keys.unsupported(format!(
            "layer_types holds {other:?}, which is not supported (only \"full_attention\" and \"sliding_attention\")"
        ))),
    }
    };
    types.iter().map(slides).collect()
}
