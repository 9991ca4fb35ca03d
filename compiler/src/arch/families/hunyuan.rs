//! Hunyuan's dense models (transformers' `models/hunyuan_v1_dense`; Hy-MT translates with one): every head of q and k is
//! rotated first and normalized then, and the base of RoPE is stretched by an `alpha`.

use crate::arch::family::{Family, HeadNormNames, LLAMA, Norms};
use crate::arch::keys::Keys;
use crate::error::CompileError;
use serde_json::{Value, json};

pub(crate) const HUNYUAN: Family = Family {
    architecture: "HunYuanDenseV1ForCausalLM",
    model_type: "hunyuan_v1_dense",
    rms_eps: 1e-5,
    rope_alpha: true,
    norms: Norms {
        heads: Some(HeadNormNames { q: "query_layernorm", k: "key_layernorm", after_rope: true }),
        ..LLAMA.norms
    },
    factors: |keys, _, usual| {
        others(keys)?;
        Ok(usual)
    },
    ..LLAMA
};

/// Keys of Tencent's configuration, which serves mixtures of experts, models that share keys and values between layers,
/// and models that see, too. transformers' class of the dense ones reads none of them.
fn others(keys: &mut Keys) -> Result<(), CompileError> {
    for (key, allowed) in [
        ("use_qk_norm", json!(true)),
        ("use_rotary_pos_emb", json!(true)),
        ("use_cla", json!(false)),
        ("use_mla", json!(false)),
        ("use_mixed_mlp_moe", json!(false)),
        ("position_embedding_xdrope", json!(false)),
        ("add_classification_head", json!(false)),
        ("num_experts", json!(1)),
    ] {
        keys.expect(key, &allowed)?;
    }
    let norm: Option<String> = keys.take("norm_type")?;
    if let Some(other) = norm.filter(|kind| !["rms", "hf_rms"].contains(&kind.as_str())) {
        return Err(keys.unsupported(format!("norm_type {other:?} is not supported (only \"rms\")")));
    }
    for key in OF_OTHER_MODELS {
        keys.take::<Value>(key)?;
    }
    Ok(())
}

/// Keys that say nothing where those above are as they must be: how layers would share, how experts would be chosen,
/// which ids stand for images.
const OF_OTHER_MODELS: [&str; 26] = [
    "cla_share_factor",
    "class_num",
    "dense_list",
    "eod_token_id",
    "group_limited_greedy",
    "im_end_id",
    "im_newline_id",
    "im_start_id",
    "image_token_id",
    "kv_lora_rank",
    "mask_init_id",
    "moe_drop_tokens",
    "moe_intermediate_size",
    "moe_layer_num_skipped",
    "moe_random_routing_dropped_token",
    "moe_topk",
    "norm_topk_prob",
    "num_media_embeds",
    "num_shared_expert",
    "org_vocab_size",
    "pad_id",
    "q_lora_rank",
    "routed_scaling_factor",
    "text_end_id",
    "text_start_id",
    "xdrope_section",
];
