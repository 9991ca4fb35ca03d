//! `config.json`, typed. The keys that are used are named here, harmless keys are listed, and every other key is
//! refused by name.

use crate::arch::factors::Factors;
use crate::arch::family::{Family, Mixers};
use crate::arch::harmless::HARMLESS;
use crate::arch::keys::Keys;
use crate::arch::positions::Positions;
use crate::arch::quantization::LinearWeights;
use crate::error::{CompileError, Warnings};
use serde_json::json;
use trit_format::kernel::MAX_K;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::Activation;

/// What a decoder's configuration says about its arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// With the bundle's context length, which may be less than the model's.
    pub(crate) dims: Hyperparameters,
    pub(crate) factors: Factors,
    pub(crate) activation: Activation,
    pub(crate) positions: Positions,
    pub(crate) tied: bool,
    pub(crate) weights: LinearWeights,
    /// How the layers of a hybrid mix tokens.
    pub(crate) mixers: Option<Mixers>,
}

impl Config {
    /// Reads the configuration of a model of `family`, for texts of up to `context` tokens where that is given.
    ///
    /// # Errors
    /// Keys that are missing, malformed, contradictory, or change the arithmetic in a way that is not known.
    pub(crate) fn take(
        mut keys: Keys,
        family: &Family,
        context: Option<u32>,
        warnings: &mut Warnings,
    ) -> Result<Config, CompileError> {
        let dims = dimensions(&mut keys, family)?;
        let rms_eps = epsilon(&mut keys, "rms_norm_eps")?.unwrap_or(family.rms_eps);
        let activation = activation(&mut keys, family)?;
        let mixers = (family.mixers)(&mut keys, &dims)?;
        let positions = (family.positions)(&mut keys, family, &dims)?;
        let tied = keys.take("tie_word_embeddings")?.unwrap_or(family.tied);
        refuse_active(&mut keys, &dims, rms_eps)?;
        let weights = LinearWeights::take(&mut keys, family)?;
        let factors = (family.factors)(&mut keys, &dims, Factors::usual(&dims, rms_eps as f32))?;
        let context_length = positions.context(&keys, context, warnings)?;
        keys.refuse_rest(HARMLESS)?;
        let dims = Hyperparameters { context_length, ..dims };
        Ok(Config { dims, factors, activation, positions, tied, weights, mixers })
    }
}

/// A number that is added to a mean of squares.
pub(crate) fn epsilon(keys: &mut Keys, key: &str) -> Result<Option<f64>, CompileError> {
    match keys.take::<f64>(key)? {
        // It is used as an f32, so it must be one.
        Some(eps) if !((eps as f32).is_finite() && eps as f32 > 0.0) => {
            Err(keys.invalid(format!("{} is {eps}, expected a number above zero", keys.named(key))))
        }
        eps => Ok(eps),
    }
}

fn activation(keys: &mut Keys, family: &Family) -> Result<Activation, CompileError> {
    let key = family.activation_key;
    let name: Option<String> = keys.take(key)?;
    match name.as_deref().unwrap_or(family.activation) {
        "relu2" => Ok(Activation::Relu2),
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        other => Err(keys.unsupported(format!(
            "{key} {other:?} is not supported (only \"relu2\", \"silu\" and \"gelu_pytorch_tanh\")"
        ))),
    }
}

/// Reads and checks the sizes.
fn dimensions(keys: &mut Keys, family: &Family) -> Result<Hyperparameters, CompileError> {
    let (hidden_dim, n_heads): (u32, u32) =
        (keys.require("hidden_size")?, keys.require("num_attention_heads")?);
    // In transformers an absent key takes the default of its class, but null takes what follows from other keys.
    let default_head_dim = family.head_dim.filter(|_| !keys.is_null("head_dim"));
    let own_head_dim: Option<u32> = keys.take("head_dim")?;
    let other_head_dim: Option<u32> = keys.take("attention_head_dim")?;
    if let (Some(own), Some(other)) = (own_head_dim, other_head_dim)
        && own != other
    {
        return Err(keys.invalid(format!("head_dim is {own}, but attention_head_dim is {other}")));
    }
    let explicit_head_dim = own_head_dim.or(other_head_dim).or(default_head_dim);
    let default_kv_heads = family.n_kv_heads.filter(|_| !keys.is_null("num_key_value_heads"));
    let n_kv_heads = keys.take("num_key_value_heads")?.or(default_kv_heads).unwrap_or(n_heads);
    let mut dims = Hyperparameters {
        vocab_size: keys.require("vocab_size")?,
        hidden_dim,
        ffn_dim: keys.require("intermediate_size")?,
        n_layers: keys.require("num_hidden_layers")?,
        n_heads,
        n_kv_heads,
        head_dim: explicit_head_dim.unwrap_or(1),
        context_length: keys.take("max_position_embeddings")?.unwrap_or(family.context_length),
    };
    let sizes = [
        ("vocab_size", dims.vocab_size),
        ("hidden_size", dims.hidden_dim),
        ("intermediate_size", dims.ffn_dim),
        ("num_hidden_layers", dims.n_layers),
        ("num_attention_heads", dims.n_heads),
        ("num_key_value_heads", dims.n_kv_heads),
        ("head_dim", dims.head_dim),
        ("max_position_embeddings", dims.context_length),
    ];
    if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(keys.invalid(format!("{key} is 0")));
    }
    if explicit_head_dim.is_none() {
        if !hidden_dim.is_multiple_of(n_heads) {
            return Err(keys.invalid(format!(
                "hidden_size {hidden_dim} is not a multiple of num_attention_heads {n_heads}, and there is no head_dim"
            )));
        }
        dims.head_dim = hidden_dim / n_heads;
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(keys.invalid(format!(
            "num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}"
        )));
    }
    if !dims.head_dim.is_multiple_of(2) {
        return Err(keys.invalid(format!("head_dim {} is odd; RoPE rotates its two halves", dims.head_dim)));
    }
    let attention_dim = u64::from(n_heads) * u64::from(dims.head_dim);
    let columns = [
        ("hidden_size", u64::from(hidden_dim)),
        ("intermediate_size", u64::from(dims.ffn_dim)),
        ("num_attention_heads * head_dim", attention_dim),
    ];
    if let Some((key, k)) = columns.into_iter().find(|&(_, k)| k > u64::from(MAX_K)) {
        return Err(
            keys.unsupported(format!("{key} is {k}; the kernels' sums are exact only up to {MAX_K} columns"))
        );
    }
    Ok(dims)
}

/// Refuses features that are known, switched on and not supported. Published configurations name some of them though
/// transformers' classes do not read them.
fn refuse_active(keys: &mut Keys, dims: &Hyperparameters, rms_eps: f64) -> Result<(), CompileError> {
    for key in [
        "attention_bias",
        "mlp_bias",
        "add_cross_attention",
        "is_encoder_decoder",
        "tie_encoder_decoder",
        // Falcon3, HF1BitLLM and TriLM.
        "parallel_attn",
        "rope_interleaved",
        "use_parallel_residual",
    ] {
        keys.expect(key, &json!(false))?;
    }
    keys.expect("pruned_heads", &json!({}))?;
    // These are other names for keys that were read, and for what is always so.
    keys.expect("activation", &json!("swiglu"))?;
    keys.expect("dims_per_head", &dims.head_dim.into())?;
    keys.expect("layer_norm_eps", &rms_eps.into())?;
    keys.expect("rotary_pct", &json!(1.0))
}
