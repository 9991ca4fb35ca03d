//! A checkpoint understood: what the arch modules make of it, and all that the later stages know about it.
//!
//! `ingest` reads files, `arch` turns them into a [`Model`], `pack`, `lower` and `bundle` take it from there. A model
//! holds views into the mapped checkpoint, no decoded weights.

use crate::error::CompileError;
use std::sync::Arc;
use trit_format::manifest::{Hyperparameters, ModelInfo, TextInfo};
use trit_format::plan::{Activation, ActivationRule, DType, ScaleRule};

/// A ternary matrix `[rows, k]` that can be read row by row, from any number of threads.
pub trait TernaryRows: Send + Sync {
    /// Writes row `row` as trits; `out` is `k` long.
    ///
    /// # Errors
    /// An illegal code in the row, with the tensor's name and the place.
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError>;

    /// Lets go of memory that reading has pulled in; rows can still be read. Called after a pass over a matrix, so
    /// that a checkpoint larger than memory does not stay resident.
    fn release(&self) {}
}

/// One ternary matrix of the checkpoint.
#[derive(Clone)]
pub struct Ternary {
    /// The checkpoint's tensor name.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub k: usize,
    /// Finite and above zero.
    pub scale: f32,
    /// Direction of the scale.
    pub rule: ScaleRule,
    /// The trits.
    pub trits: Arc<dyn TernaryRows>,
}

/// A tensor that is not ternary, as the checkpoint stores it.
#[derive(Clone)]
pub struct Dense {
    /// The checkpoint's tensor name.
    pub name: String,
    /// F32, F16 or BF16.
    pub dtype: DType,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Little-endian elements. A range of the mapped file behind an `Arc`.
    pub data: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

/// A vector of normalization weights, widened to f32.
pub type NormWeights = (String, Vec<f32>);

/// One transformer layer.
#[derive(Clone)]
pub struct Layer {
    /// Before attention.
    pub input_norm: NormWeights,
    /// q, k and v share their quantized input.
    pub q: Ternary,
    /// Keys.
    pub k: Ternary,
    /// Values.
    pub v: Ternary,
    /// Between attention and its output product (BitNet's attn_sub_norm).
    pub attention_sub_norm: Option<NormWeights>,
    /// Attention's output product.
    pub o: Ternary,
    /// Before the feed-forward part.
    pub post_attention_norm: NormWeights,
    /// Gate.
    pub gate: Ternary,
    /// Up.
    pub up: Ternary,
    /// Between the gated product and down (BitNet's ffn_sub_norm).
    pub ffn_sub_norm: Option<NormWeights>,
    /// Down.
    pub down: Ternary,
}

/// A whole decoder-only model.
#[derive(Clone)]
pub struct Model {
    /// Provenance.
    pub info: ModelInfo,
    /// Dimensions.
    pub hyperparameters: Hyperparameters,
    /// Epsilon of every RMSNorm.
    pub rms_eps: f32,
    /// How activations are quantized.
    pub activation_rule: ActivationRule,
    /// The gate's function.
    pub activation: Activation,
    /// RoPE frequencies, f32 `[head_dim / 2]`, computed as transformers does (f32 throughout).
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin, 1 without YaRN.
    pub rope_scaling: f32,
    /// Embedding `[vocab, hidden]`.
    pub embedding: Dense,
    /// Head `[vocab, hidden]`; `None` where tied to the embedding.
    pub head: Option<Dense>,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub final_norm: NormWeights,
    /// Template, special tokens, stop ids, sampling defaults.
    pub text: TextInfo,
    /// Bytes of tokenizer.json.
    pub tokenizer: Option<Vec<u8>>,
    /// Things the user should know, a line each.
    pub warnings: Vec<String>,
}
