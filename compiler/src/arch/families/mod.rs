//! The families, each where it differs from Llama, which stands in [`crate::arch::family`].

pub(super) mod bitnet;
pub(super) mod bitnet_1bitllm;
pub(super) mod gemma3;
pub(super) mod minicpm;
pub(super) mod qwen3;
