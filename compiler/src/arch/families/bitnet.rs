//! BitNet b1.58 as Microsoft publishes it (transformers' `models/bitnet`): RMSNorms before o and down, squared ReLU.

use crate::arch::family::{Family, LLAMA, Norms};

pub(crate) const BITNET: Family = Family {
    architecture: "BitNetForCausalLM",
    model_type: "bitnet",
    n_kv_heads: Some(5),
    activation: "relu2",
    rms_eps: 1e-5,
    rope_theta: 500_000.0,
    norms: Norms { sub: Some(["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]), ..LLAMA.norms },
    ..LLAMA
};
