//! Decides by the name of a key that nothing reads whether the key changes what a forward pass computes.
//!
//! Leaving such a key out makes another model, and that model often still writes fluent text. So no refusal of such a
//! key suggests to ignore it. Keys that are known to change the arithmetic are not ignored even where the user asks
//! for it.

use crate::error::{Choice, CompileError};
use std::path::Path;

/// Parts of names of keys that change the arithmetic in some model. A part too many costs the user a suggestion; a
/// part too few costs a wrong model.
const PARTS: &[&str] = &[
    "act",
    "alibi",
    "alpha",
    "attn",
    "attention",
    "base",
    "beta",
    "bias",
    "bits",
    "block",
    "cap",
    "causal",
    "clip",
    "conv",
    "depth",
    "dim",
    "embed",
    "eps",
    "expert",
    "factor",
    "ffn",
    "freq",
    "gate",
    "group",
    "hadamard",
    "head",
    "hidden",
    "kernel",
    "kv_",
    "layer",
    "linear",
    "logit",
    "lora",
    "mask",
    "mlp",
    "moe",
    "mrope",
    "multiplier",
    "mup",
    "norm",
    "offset",
    "parallel",
    "position",
    "precision",
    "proj",
    "qk_",
    "quant",
    "query",
    "residual",
    "rope",
    "rotar",
    "rotat",
    "router",
    "scal",
    "shift",
    "sink",
    "size",
    "soft",
    "sparse",
    "sparsity",
    "ssm",
    "state",
    "temper",
    "theta",
    "tie",
    "transform",
    "value",
    "weight",
    "window",
];

/// Keys of other models, of quantizers and of other programs that change the arithmetic, wherever they stand.
const KNOWN: &[&str] = &[
    "activation_function",
    "alibi",
    "attention_multiplier",
    "attention_out_bias",
    "attention_scale",
    "attn_logit_softcapping",
    "attn_output_gate",
    "attn_scale",
    "attn_temperature_tuning",
    "bits",
    "clip_qkv",
    "embedding_multiplier",
    "embedding_scale",
    "ffn_hidden_size",
    "final_logit_softcapping",
    "full_attention_interval",
    "group_size",
    "hidden_act_param",
    "kv_lora_rank",
    "layernorm_epsilon",
    "linear_conv_kernel_dim",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "mamba_d_state",
    "mlp_multipliers",
    "moe_intermediate_size",
    "n_routed_experts",
    "no_rope_layers",
    "norm_type",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "output_gate_type",
    "q_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "quantization",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "residual_scale",
    "rotary_dim",
    "rotary_emb_fraction",
    "scale_depth",
    "scale_emb",
    "use_alibi",
    "use_qk_norm",
    "use_sliding_window",
    "zero_point",
];

/// Whether the name of a key says that it may change the arithmetic; `key` has the names of the objects around it.
pub(crate) fn suggests_it(key: &str) -> bool {
    let key = key.to_lowercase();
    PARTS.iter().any(|part| key.contains(part))
}

/// Whether a key is known to change the arithmetic.
pub(crate) fn is_known(key: &str) -> bool {
    let last = key.rsplit_once('.').map_or(key, |(_, last)| last);
    KNOWN.contains(&last) || key.split('.').any(|part| part == "hadamard" || part == "rotation")
}

/// The refusal of a key that nothing reads; `said` is the key and its value, as the file's format calls them, and
/// `others` are keys that are not known either.
pub(crate) fn unknown(path: &Path, key: &str, said: &str, others: Vec<String>) -> CompileError {
    let changes_arithmetic = suggests_it(key) || is_known(key);
    let reason = match changes_arithmetic {
        true => {
            "its name says that it changes the arithmetic, and it is not known how; without it the model's results would \
             be wrong, so it cannot be compiled"
        }
        false => "it is not known whether it changes the arithmetic, so it is not ignored in silence",
    };
    CompileError::UnknownKey {
        path: path.to_owned(),
        key: key.to_owned(),
        problem: format!("{said}: {reason}"),
        changes_arithmetic,
        others,
    }
}

/// The refusal to ignore a key that counts; `path` is the file that has it.
pub(crate) fn not_ignored(key: &str, path: &Path) -> CompileError {
    CompileError::Choice {
        choice: Choice::IgnoredKey(key.to_owned()),
        problem: format!(
            "{} has that key, and it decides what the model computes; without it the results would be another model's",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(key: &str) -> bool {
        match unknown(Path::new("config.json"), key, key, Vec::new()) {
            CompileError::UnknownKey { changes_arithmetic, .. } => changes_arithmetic,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn names_that_smell_of_arithmetic_get_no_suggestion() {
        for key in [
            "quantization_config.offline_quantization",
            "quantization_config.anything",
            "rope_scaling.mscale",
            "prism.hadamard.group",
            "logit_scale",
            "use_qk_norm",
            "attn_logit_softcapping",
            "num_experts",
            "sliding_window_size",
            "lm_head_bias",
            "llama.attention.sliding_window",
        ] {
            assert!(changes(key), "{key}");
        }
        for key in ["brand", "prism.note", "unsloth_version", "llama.comment"] {
            assert!(!changes(key), "{key}");
        }
    }
}
