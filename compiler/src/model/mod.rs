//! The model that a checkpoint holds: what `arch` makes of the checkpoint, and all that the later stages know about
//! it.
//!
//! `load` reads files, `arch` turns them into the parts of a [`Model`]; `pack`, `lower` and `compile` take it from
//! there. A model holds views into the mapped checkpoint, no decoded weights.

mod check;
mod dense;
pub(crate) mod float;
pub(crate) mod matrix;

use crate::error::Warnings;
use crate::files::unchanged::Inputs;
pub use dense::{Dense, RowCoder, TensorBytes};
pub use matrix::{Found, Matrix, Rotation, Rounded, Scales, TensorReport, Ternary, TernaryRows};

use trit_format::manifest::{Hyperparameters, ModelInfo, TextInfo};
use trit_format::plan::{Activation, ActivationRule, DeltaHeads};

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

/// RMSNorms of single heads of q and k.
#[derive(Clone)]
pub struct HeadNorms {
    /// `[head_dim]`, for every head of q.
    pub q: NormWeights,
    /// `[head_dim]`, for every head of k.
    pub k: NormWeights,
    /// Whether heads are normalized after they were rotated, not before.
    pub after_rope: bool,
}

/// Rotary position embedding, as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Frequencies, f32 `[n]`, computed as transformers does (f32 throughout). `2 * n` elements of each head are rotated,
    /// mostly all.
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

/// Attention over the KV cache.
#[derive(Clone)]
pub struct Attention {
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
    /// What the result is multiplied with, after the logistic function (Qwen3.5's output gate): as many rows as q.
    pub output_gate: Option<Projection>,
    /// Between attention and its output product (BitNet's attn_sub_norm).
    pub sub_norm: Option<NormWeights>,
    /// The output product.
    pub o: Projection,
}

/// Gated DeltaNet: a causal convolution, the gated delta rule, and a gated norm (Qwen3.5's linear attention).
#[derive(Clone)]
pub struct DeltaNet {
    /// Its heads. Value head `j` uses key head `j / (values / keys)`.
    pub heads: DeltaHeads,
    /// Queries, keys and values, in this order.
    pub qkv: Projection,
    /// The gate of the norm.
    pub z: Projection,
    /// What `beta` of each value head is the logistic function of.
    pub b: Projection,
    /// What the decay of each value head follows from.
    pub a: Projection,
    /// Weights of the convolution `[taps, channels]`, the current row's last. There are as many channels as qkv has rows.
    pub convolution: NormWeights,
    /// `-exp(A_log)` of each value head.
    pub rates: NormWeights,
    /// `dt_bias` of each value head.
    pub bias: NormWeights,
    /// Of the values of a head.
    pub norm: NormWeights,
    /// The output product.
    pub o: Projection,
}

/// How a layer mixes tokens.
#[derive(Clone)]
pub enum Mixer {
    /// Attention.
    Attention(Box<Attention>),
    /// Gated DeltaNet.
    DeltaNet(Box<DeltaNet>),
}

/// One layer.
#[derive(Clone)]
pub struct Layer {
    /// Before the mixer.
    pub input_norm: NormWeights,
    /// Mixes tokens.
    pub mixer: Mixer,
    /// Of the mixer's output, before it is added (Gemma's post_attention_layernorm).
    pub mixer_post_norm: Option<NormWeights>,
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
    /// Its attention, where it has one.
    pub fn attention(&self) -> Option<&Attention> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::DeltaNet(_) => None,
        }
    }

    /// Its attention, to be changed.
    pub fn attention_mut(&mut self) -> Option<&mut Attention> {
        match &mut self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::DeltaNet(_) => None,
        }
    }

    /// All its projections: those of the mixer (q, k, v, the output gate where there is one, o; or qkv, z, b, a, o), then
    /// gate, up, down.
    pub fn projections(&self) -> Vec<&Projection> {
        let mut all = match &self.mixer {
            Mixer::Attention(attention) => {
                let Attention { q, k, v, output_gate, o, .. } = &**attention;
                [q, k, v].into_iter().chain(output_gate).chain([o]).collect::<Vec<_>>()
            }
            Mixer::DeltaNet(delta) => vec![&delta.qkv, &delta.z, &delta.b, &delta.a, &delta.o],
        };
        all.extend([&self.gate, &self.up, &self.down]);
        all
    }
}

/// A block that drafts tokens (multi-token prediction): from a token and the model's normalized state before it, a guess at
/// the token after it. It shares the model's embedding and head.
#[derive(Clone)]
pub struct DraftBlock {
    /// Of the token's embedding.
    pub embedding_norm: NormWeights,
    /// Of the state.
    pub hidden_norm: NormWeights,
    /// `[hidden, 2 * hidden]`, for the embedding and then the state.
    pub join: Projection,
    /// Its layer, with attention.
    pub layer: Layer,
    /// Before the head.
    pub final_norm: NormWeights,
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
    /// Drafts tokens, where the checkpoint has such a block.
    pub draft: Option<Box<DraftBlock>>,
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
