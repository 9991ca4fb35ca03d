//! What a family of models is: names, defaults, and where its layers differ from Llama's.

use crate::arch::config::Config;
use crate::arch::families;
use crate::arch::keys::Keys;
use crate::arch::positions::Positions;
use crate::error::CompileError;
use trit_format::manifest::Hyperparameters;

/// One architecture. Defaults are those of its configuration class where `config.json` is silent.
pub(crate) struct Family {
    /// As `architectures` names it.
    pub(crate) architecture: &'static str,
    /// As `model_type` names it.
    pub(crate) model_type: &'static str,
    pub(crate) n_kv_heads: Option<u32>,
    pub(crate) head_dim: Option<u32>,
    pub(crate) context_length: u32,
    pub(crate) activation_key: &'static str,
    pub(crate) activation: &'static str,
    pub(crate) rms_eps: f64,
    pub(crate) rope_theta: f64,
    pub(crate) tied: bool,
    /// Whether `sliding_window` counts where `use_sliding_window` is absent.
    pub(crate) windowed: bool,
    /// Whether weights without a `quantization_config` are the latent ones of BitNet.
    pub(crate) latent: bool,
    pub(crate) norms: Norms,
    /// Takes the keys that say how positions enter.
    pub(crate) positions: fn(&mut Keys, &Family, &Hyperparameters) -> Result<Positions, CompileError>,
    /// Takes the keys that no other family has.
    pub(crate) own: fn(&mut Keys, &mut Config) -> Result<(), CompileError>,
}

/// Where a layer normalizes, by the names of modules in it.
pub(crate) struct Norms {
    /// Before o and down.
    pub(crate) sub: Option<[&'static str; 2]>,
    /// Of what o and down give, before it is added.
    pub(crate) post: Option<[&'static str; 2]>,
    /// Before the feed-forward part.
    pub(crate) ffn: &'static str,
    /// Whether each head of q and k is normalized before RoPE.
    pub(crate) heads: bool,
    /// Whether weights are stored as their difference from one.
    pub(crate) less_one: bool,
}

/// What most families share.
pub(crate) const LLAMA: Family = Family {
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    n_kv_heads: None,
    head_dim: None,
    context_length: 2048,
    activation_key: "hidden_act",
    activation: "silu",
    rms_eps: 1e-6,
    rope_theta: 10_000.0,
    tied: false,
    windowed: true,
    latent: false,
    norms: Norms { sub: None, post: None, ffn: "post_attention_layernorm", heads: false, less_one: false },
    positions: Positions::uniform,
    own: |_, _| Ok(()),
};

/// Every family that is read.
const FAMILIES: [&Family; 6] = [
    &families::bitnet::BITNET,
    &families::bitnet_1bitllm::BITNET_1BITLLM,
    &LLAMA,
    &families::qwen3::QWEN3,
    &families::gemma3::GEMMA3,
    &families::minicpm::MINICPM,
];

/// Architectures that people try, and why they are not read.
const REFUSED: &[(&str, &str)] = &[
    (
        "FalconForCausalLM",
        "it is the first Falcon, with LayerNorms and parallel attention; Falcon3 and Falcon-E are read",
    ),
    (
        "Gemma3ForConditionalGeneration",
        "it sees images; only the text model alone, Gemma3ForCausalLM, is read",
    ),
    ("MiniCPM3ForCausalLM", "its attention is compressed (MLA)"),
    ("FalconH1ForCausalLM", RECURRENT),
    ("FalconMambaForCausalLM", RECURRENT),
    ("Qwen3NextForCausalLM", RECURRENT),
    ("Qwen3_5ForCausalLM", RECURRENT),
    ("Qwen3_5ForConditionalGeneration", RECURRENT),
];

/// Mamba, DeltaNet and their like.
const RECURRENT: &str = "it has recurrent layers; only models whose layers all have attention are read";

/// Finds the family that the configuration names.
///
/// # Errors
/// One that is not read, by its name, or names that do not belong together.
pub(crate) fn family(keys: &mut Keys) -> Result<&'static Family, CompileError> {
    let architectures: Vec<String> = keys.require("architectures")?;
    let model_type: Option<String> = keys.take("model_type")?;
    let [architecture] = architectures.as_slice() else {
        return Err(keys.invalid(format!("architectures is {architectures:?}, expected one name")));
    };
    let Some(family) = FAMILIES.into_iter().find(|f| f.architecture == architecture) else {
        return Err(keys.unsupported(refusal(architecture)));
    };
    match model_type {
        Some(other) if other != family.model_type => Err(keys.unsupported(format!(
            "model_type {other:?} does not belong to {architecture}, which has {:?}",
            family.model_type
        ))),
        _ => Ok(family),
    }
}

fn refusal(architecture: &str) -> String {
    let supported = FAMILIES.map(|f| f.architecture).join(", ");
    let known = REFUSED.iter().find(|(name, _)| *name == architecture).map(|(_, why)| *why);
    let why = match known {
        Some(why) => format!(": {why}"),
        // BitNet's embedding models are Qwen3Model and Gemma3TextModel.
        None if architecture.ends_with("Model") => {
            ": it has no head, as models for embeddings have none; only causal language models are read"
                .to_owned()
        }
        None => String::new(),
    };
    format!("architecture {architecture} is not supported{why}; supported are {supported}")
}
