//! The reproduction of BitNet b1.58 by 1bitLLM: latent weights, BitNet's norms by other names, and the `model_type` of
//! Llama, so that the architecture's name alone tells it apart (transformers loads it as a Llama and drops the norms).

use crate::arch::family::{Family, LLAMA, Norms};
use serde_json::json;

pub(crate) const BITNET_1BITLLM: Family = Family {
    architecture: "BitnetForCausalLM",
    latent: true,
    norms: Norms { sub: Some(["self_attn.inner_attn_ln", "mlp.ffn_layernorm"]), ..LLAMA.norms },
    factors: |keys, _, usual| {
        // Ternary weights are "1 bit" there.
        keys.expect("weight_bits", &json!(1))?;
        keys.expect("input_bits", &json!(8))?;
        Ok(usual)
    },
    ..LLAMA
};
