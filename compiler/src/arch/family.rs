//! A family of models: its names, its defaults, and where its layers differ from Llama's.

use crate::arch::factors::Factors;
use crate::arch::keys::Keys;
use crate::arch::positions::Positions;
use crate::error::CompileError;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::DeltaHeads;

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
    /// Whether RoPE of the type `dynamic` may have an `alpha`, which makes it another one.
    pub(crate) rope_alpha: bool,
    pub(crate) tied: bool,
    /// Whether `sliding_window` counts where `use_sliding_window` is absent.
    pub(crate) windowed: bool,
    /// Whether weights without a `quantization_config` are the latent ones of BitNet.
    pub(crate) latent: bool,
    pub(crate) norms: Norms,
    /// Takes the keys that say how positions enter.
    pub(crate) positions: fn(&mut Keys, &Family, &Hyperparameters) -> Result<Positions, CompileError>,
    /// Takes the keys that no other family has. It gets Llama's factors and returns the family's own.
    pub(crate) factors: fn(&mut Keys, &Hyperparameters, Factors) -> Result<Factors, CompileError>,
    /// The name that a tensor has in the text model alone, given its name in a larger one; `None` where it does not belong
    /// to the text model. Absent where there is no larger one.
    pub(crate) tensor_name: Option<fn(&str) -> Option<String>>,
    /// Takes the keys that say how layers mix tokens, where not all of them have plain attention.
    pub(crate) mixers: fn(&mut Keys, &Hyperparameters) -> Result<Option<Mixers>, CompileError>,
    /// Whether there may be a block that drafts tokens, as [`crate::arch::draft`] reads it.
    pub(crate) drafts: bool,
}

/// How the layers of a hybrid mix tokens. Its attention has an output gate.
#[derive(Clone, Debug)]
pub(crate) struct Mixers {
    /// For each layer whether it is a Gated DeltaNet.
    pub(crate) recurrent: Vec<bool>,
    /// The heads of those.
    pub(crate) heads: DeltaHeads,
    /// Taps of their convolutions.
    pub(crate) taps: usize,
}

/// Where a layer normalizes, by the names of modules in it.
pub(crate) struct Norms {
    /// Before o and down.
    pub(crate) sub: Option<[&'static str; 2]>,
    /// Of the results of o and down, before they are added.
    pub(crate) post: Option<[&'static str; 2]>,
    /// Before the feed-forward part.
    pub(crate) ffn: &'static str,
    /// Of each head of q and k.
    pub(crate) heads: Option<HeadNormNames>,
    /// Whether weights are stored as their difference from one.
    pub(crate) less_one: bool,
}

/// Norms of single heads, by the names of modules in attention.
pub(crate) struct HeadNormNames {
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    /// Whether heads are normalized after RoPE, not before it.
    pub(crate) after_rope: bool,
}

/// As most families that have such norms name and place them.
pub(crate) const HEAD_NORMS: HeadNormNames = HeadNormNames { q: "q_norm", k: "k_norm", after_rope: false };

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
    rope_alpha: false,
    tied: false,
    windowed: true,
    latent: false,
    norms: Norms { sub: None, post: None, ffn: "post_attention_layernorm", heads: None, less_one: false },
    positions: Positions::uniform,
    factors: |_, _, usual| Ok(usual),
    tensor_name: None,
    mixers: |_, _| Ok(None),
    drafts: false,
};
