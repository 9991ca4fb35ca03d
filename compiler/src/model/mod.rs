//! The model that a checkpoint holds: what `arch` makes of the checkpoint, and all that the later stages know about
//! it.
//!
//! `load` reads files, `arch` turns them into the parts of a [`Model`]; `pack`, `lower` and `compile` take it from
//! there. A model holds views into the mapped checkpoint, no decoded weights.

mod check;
pub(crate) mod float;
pub(crate) mod matrix;

use crate::error::Warnings;
use crate::files::unchanged::Inputs;
pub use matrix::{Dense, Found, Matrix, Rounded, Scales, TensorBytes, TensorReport, Ternary, TernaryRows};

use trit_format::manifest::{Hyperparameters, ModelInfo, TextInfo};
use trit_format::plan::{Activation, ActivationRule};

/// A vector of normalization weights, widened to f32.
pub type NormWeights = (String, Vec<f32>);

/// A linear layer without bias.
#[derive(Clone)]
pub struct Projection {
    /// An RMSNorm of the input that belongs to the linear layer itself (`use_rms_norm`), with
    /// [`Model::linear_rms_eps`].
    pub norm: Option<NormWeights>,
    /// `[out features, in features]`.
    pub matrix: Matrix,
}

/// RMSNorms of single heads of q and k, before they are rotated.
#[derive(Clone)]
pub struct HeadNorms {
    /// `[head_dim]`, for every head of q.
    pub q: NormWeights,
    /// `[head_dim]`, for every head of k.
    pub k: NormWeights,
}

/// Rotary position embedding, as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Frequencies, f32 `[head_dim / 2]`, computed as transformers does (f32 throughout).
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin, 1 without YaRN.
    pub scaling: f32,
}

/// Type of activations in ternary products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activations {
    /// Int8 with one scale a token, as BitNet was trained with.
    PerToken {
        /// Least absolute maximum, 1e-5 in BitNet.
        floor: f32,
    },
    /// Int8 with a scale for each group of columns: for models that were trained without quantized activations.
    Int8Groups,
    /// f32.
    F32,
}

/// One transformer layer.
#[derive(Clone)]
pub struct Layer {
    /// Before attention.
    pub input_norm: NormWeights,
    /// Queries.
    pub q: Projection,
    /// Keys.
    pub k: Projection,
    /// Values.
    pub v: Projection,
    /// RMSNorms of single heads.
    pub head_norms: Option<HeadNorms>,
    /// Which of [`Model::ropes`].
    pub rope: usize,
    /// How many positions a token attends to at most, including its own; `None` where it attends to all.
    pub window: Option<u32>,
    /// Between attention and its output product (BitNet's attn_sub_norm).
    pub attention_sub_norm: Option<NormWeights>,
    /// Attention's output product.
    pub o: Projection,
    /// Of o's output, before it is added (Gemma's post_attention_layernorm).
    pub attention_post_norm: Option<NormWeights>,
    /// Before the feed-forward part (post_attention_layernorm in Llama, pre_feedforward_layernorm in Gemma).
    pub ffn_norm: NormWeights,
    /// Gate.
    pub gate: Projection,
    /// Up.
    pub up: Projection,
    /// Between the gated product and down (BitNet's ffn_sub_norm).
    pub ffn_sub_norm: Option<NormWeights>,
    /// Down.
    pub down: Projection,
    /// Of down's output, before it is added (Gemma's post_feedforward_layernorm).
    pub ffn_post_norm: Option<NormWeights>,
}

impl Layer {
    /// Its seven projections: q, k, v, o, gate, up, down.
    pub fn projections(&self) -> [&Projection; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }
}

/// A whole decoder-only model.
#[derive(Clone)]
pub struct Model {
    /// Provenance.
    pub info: ModelInfo,
    /// Dimensions.
    pub hyperparameters: Hyperparameters,
    /// Epsilon of every RMSNorm but those inside linear layers.
    pub rms_eps: f32,
    /// Epsilon of the RMSNorms inside linear layers, [`Projection::norm`].
    pub linear_rms_eps: f32,
    /// Type of activations in ternary products.
    pub activations: Activations,
    /// The gate's function.
    pub activation: Activation,
    /// Factor on attention scores, `head_dim^-0.5` in most models.
    pub attention_scale: f32,
    /// Factor on the embedding, 1 in most models.
    pub embedding_scale: f32,
    /// Rotary embeddings; layers name theirs.
    pub ropes: Vec<Rope>,
    /// Embedding `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Head `[vocab, hidden]`; `None` where tied to the embedding.
    pub head: Option<Matrix>,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub final_norm: NormWeights,
    /// Template, special tokens, stop ids, sampling defaults.
    pub text: TextInfo,
    /// Bytes of tokenizer.json.
    pub tokenizer: Option<Vec<u8>>,
    /// What a user should know about it.
    pub warnings: Warnings,
    /// What was found in the checkpoint's matrices.
    pub report: Vec<TensorReport>,
    /// The files it was read from, which must not change while it is compiled.
    pub inputs: Inputs,
}

impl Model {
    /// What hidden states are multiplied with: the head, or the embedding it is tied to.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// How the input of a product with `matrix` is quantized. Weights with a scale for each row or group are
    /// multiplied group by group. So only matrices with a single scale get BitNet's rule, one scale a token.
    pub fn rule(&self, matrix: &Ternary) -> ActivationRule {
        match (self.activations, matrix.scales) {
            (Activations::PerToken { floor }, Scales::Tensor { .. }) => {
                ActivationRule::AbsmaxPerToken { floor }
            }
            _ => self.table_rule(matrix),
        }
    }

    /// How the input of a product with a ternary table is quantized, where the table is the embedding too.
    pub fn table_rule(&self, table: &Ternary) -> ActivationRule {
        let columns = table.group_columns();
        match self.activations {
            Activations::F32 => ActivationRule::Fixed24PerGroup { columns },
            Activations::PerToken { .. } | Activations::Int8Groups => {
                ActivationRule::AbsmaxPerGroup { columns }
            }
        }
    }

    /// How the head's input is quantized, where the head is ternary.
    pub fn head_rule(&self) -> Option<ActivationRule> {
        match (&self.head, &self.embedding) {
            (Some(Matrix::Ternary(head)), _) => Some(self.rule(head)),
            (None, Matrix::Ternary(table)) => Some(self.table_rule(table)),
            _ => None,
        }
    }
}
