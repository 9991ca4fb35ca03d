//! `config.json`, typed: what is used is named here, what is harmless is listed, and all else is refused by name.

use crate::arch::Family;
use crate::arch::keys::Keys;
use crate::arch::rope::Rope;
use crate::error::CompileError;
use crate::quantize::Storage;
use serde_json::json;
use trit_format::kernel::MAX_K;
use trit_format::manifest::Hyperparameters;
use trit_format::plan::Activation;

/// What a decoder's configuration says about its arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) dims: Hyperparameters,
    pub(crate) rms_eps: f32,
    pub(crate) activation: Activation,
    pub(crate) rope: Rope,
    pub(crate) tied: bool,
    /// `None` where nothing is declared: floats, ternary or not.
    pub(crate) storage: Option<Storage>,
}

/// Keys that do not change what a forward pass computes: bookkeeping, training, generation defaults.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "license",
    "max_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    // Splits products among devices; the sums are the same.
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

impl Config {
    /// Reads the configuration of a model of `family`.
    ///
    /// # Errors
    /// Keys that are missing, malformed, contradictory, or change the arithmetic in a way that is not known.
    pub(crate) fn take(mut keys: Keys, family: &Family) -> Result<Config, CompileError> {
        let dims = dimensions(&mut keys, family)?;
        let rms_eps: f64 = keys.take("rms_norm_eps")?.unwrap_or(family.rms_eps);
        if !(rms_eps.is_finite() && rms_eps > 0.0) {
            return Err(keys.invalid(format!("rms_norm_eps is {rms_eps}, expected a number above zero")));
        }
        let name: Option<String> = keys.take("hidden_act")?;
        let activation = match name.as_deref().unwrap_or(family.hidden_act) {
            "relu2" => Activation::Relu2,
            "silu" | "swish" => Activation::Silu,
            other => {
                let problem = format!("hidden_act {other:?} is not supported (only \"relu2\" and \"silu\")");
                return Err(keys.unsupported(problem));
            }
        };
        let rope = Rope::take(&mut keys, family.rope_theta, dims.context_length)?;
        let tied = keys.take("tie_word_embeddings")?.unwrap_or(false);
        refuse_active(&mut keys)?;
        let storage = storage(&mut keys)?;
        keys.refuse_rest(HARMLESS)?;
        Ok(Config { dims, rms_eps: rms_eps as f32, activation, rope, tied, storage })
    }
}

/// Reads and checks the sizes.
fn dimensions(keys: &mut Keys, family: &Family) -> Result<Hyperparameters, CompileError> {
    let (hidden_dim, n_heads): (u32, u32) =
        (keys.require("hidden_size")?, keys.require("num_attention_heads")?);
    let explicit_head_dim: Option<u32> = keys.take("head_dim")?;
    // In transformers an absent key takes the class's default, but null the number of query heads.
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
        context_length: keys.take("max_position_embeddings")?.unwrap_or(2048),
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

/// Refuses features that are known, switched on and not supported.
fn refuse_active(keys: &mut Keys) -> Result<(), CompileError> {
    for key in
        ["attention_bias", "mlp_bias", "add_cross_attention", "is_encoder_decoder", "tie_encoder_decoder"]
    {
        keys.expect(key, &json!(false))?;
    }
    keys.expect("pruned_heads", &json!({}))?;
    let windowed: Option<bool> = keys.take("use_sliding_window")?;
    let window: Option<u64> = keys.take("sliding_window")?;
    keys.take::<u64>("max_window_layers")?;
    if let Some(window) = window.filter(|_| windowed != Some(false)) {
        return Err(
            keys.unsupported(format!("sliding_window is {window}: windowed attention is not supported"))
        );
    }
    let layer_types: Option<Vec<String>> = keys.take("layer_types")?;
    if let Some(other) = layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
        let problem =
            format!("layer_types holds {other:?}, which is not supported (only \"full_attention\")");
        return Err(keys.unsupported(problem));
    }
    Ok(())
}

/// How the ternary matrices are stored, by `quantization_config`. The direction of the scale is the class's, never
/// guessed from its size.
fn storage(keys: &mut Keys) -> Result<Option<Storage>, CompileError> {
    let Some(mut quantization) = keys.object("quantization_config")? else {
        return Ok(None);
    };
    let keys = &mut quantization;
    let method: String = keys.require("quant_method")?;
    if method != "bitnet" {
        let problem = format!("{} {method:?} is not supported (only \"bitnet\")", keys.named("quant_method"));
        return Err(keys.unsupported(problem));
    }
    if keys.take::<bool>("use_rms_norm")? == Some(true) {
        return Err(keys.unsupported(format!(
            "{} is true: an RMSNorm inside each linear is not yet supported",
            keys.named("use_rms_norm")
        )));
    }
    // Only used where use_rms_norm is true.
    keys.take::<f64>("rms_norm_eps")?;
    let kept: Option<Vec<String>> = keys.take("modules_to_not_convert")?;
    if let Some(kept) = kept {
        let key = keys.named("modules_to_not_convert");
        let is = |module: &str, name: &str| module == name || module == format!("model.{name}");
        let known = |module: &String| ["lm_head", "embed_tokens"].iter().any(|name| is(module, name));
        if let Some(other) = kept.iter().find(|module| !known(module)) {
            let problem = format!("{key} holds {other:?}: only lm_head can be left unquantized");
            return Err(keys.unsupported(problem));
        }
        if !kept.iter().any(|module| is(module, "lm_head")) {
            let problem = format!("{key} leaves out \"lm_head\": a quantized head is not supported");
            return Err(keys.unsupported(problem));
        }
    }
    let class: Option<String> = keys.take("linear_class")?;
    let mode: Option<String> = keys.take("quantization_mode")?;
    let storage = match (class.as_deref().unwrap_or("bitlinear"), mode.as_deref().unwrap_or("offline")) {
        ("bitlinear", "offline" | "online") => Storage::Packed,
        ("autobitlinear", "offline") => Storage::Offline,
        ("autobitlinear", "online") => Storage::Latent,
        ("bitlinear" | "autobitlinear", mode) => {
            let key = keys.named("quantization_mode");
            return Err(
                keys.unsupported(format!("{key} {mode:?} is not known (only \"offline\" and \"online\")"))
            );
        }
        (class, _) => {
            let key = keys.named("linear_class");
            let problem = format!("{key} {class:?} is not known (only \"bitlinear\" and \"autobitlinear\")");
            return Err(keys.unsupported(problem));
        }
    };
    quantization.refuse_rest(&["_load_in_4bit", "_load_in_8bit"])?;
    Ok(Some(storage))
}
