//! Qwen 3 (transformers' `models/qwen3`): every head of q and k is normalized before RoPE.

use crate::arch::family::{Family, HEAD_NORMS, LLAMA, Norms};

pub(crate) const QWEN3: Family = Family {
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    n_kv_heads: Some(32),
    head_dim: Some(128),
    context_length: 32_768,
    windowed: false,
    norms: Norms { heads: Some(HEAD_NORMS), ..LLAMA.norms },
    ..LLAMA
};
