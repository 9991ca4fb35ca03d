//! A checkpoint understood: what the arch modules make of it, and all that the later stages know about it.
//!
//! `ingest` reads files, `arch` turns them into a [`Model`], `pack`, `lower` and `bundle` take it from there. A model
//! holds views into the mapped checkpoint, no decoded weights.

use crate::error::{CompileError, Warnings};
use crate::ingest::Inputs;
use half::{bf16, f16};
use std::fmt;
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

    /// Writes the scales of row `row`, first column first; `out` is [`Ternary::scales_per_row`] long. They are finite,
    /// not below zero and exact in the type that [`Scales::Rows`] names. Only asked of matrices with such scales.
    ///
    /// # Errors
    /// A scale that is none, with the tensor's name and the place.
    fn read_scales(&self, row: usize, _out: &mut [f32]) -> Result<(), CompileError> {
        Err(CompileError::Internal(format!("row {row} of a matrix with one scale has no scales of its own")))
    }

    /// Lets go of memory that reading has pulled in; rows can still be read. Called after a pass over a matrix, so
    /// that a checkpoint larger than memory does not stay resident.
    fn release(&self) {}
}

/// The scales of a ternary matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales {
    /// One for all of it.
    Tensor {
        /// Finite and above zero.
        scale: f32,
        /// Its direction.
        rule: ScaleRule,
    },
    /// Some for each row, to multiply with; [`TernaryRows::read_scales`] gives them.
    Rows {
        /// Columns that share a scale; 0: one scale a row.
        columns: u32,
        /// F16, BF16 or F32: the smallest type that holds them exactly.
        dtype: DType,
    },
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
    /// What the trits are multiplied with.
    pub scales: Scales,
    /// The trits.
    pub trits: Arc<dyn TernaryRows>,
}

impl Ternary {
    /// Scales that each row has of its own, 0 where there is one for all rows.
    pub fn scales_per_row(&self) -> usize {
        match self.scales {
            Scales::Tensor { .. } => 0,
            Scales::Rows { columns: 0, .. } => 1,
            Scales::Rows { columns, .. } => self.k.div_ceil(columns as usize),
        }
    }

    /// Columns of a group where activations are quantized in groups: 128, as many as exact sums of
    /// [`ActivationRule::Fixed24PerGroup`] allow, or fewer, so that no group has two scales of the weights.
    pub fn group_columns(&self) -> u32 {
        let own = match self.scales {
            Scales::Tensor { .. } => 0,
            Scales::Rows { columns, .. } => columns,
        };
        [128, 64].into_iter().find(|&columns| own.is_multiple_of(columns)).unwrap_or(32)
    }

    /// The smallest type that holds the scales exactly.
    pub fn scale_dtype(&self) -> DType {
        match self.scales {
            Scales::Rows { dtype, .. } => dtype,
            Scales::Tensor { scale, rule } => smallest(factor(scale, rule)),
        }
    }

    /// The factors on each run of `columns` columns of row `row`, or the one on all of it where `columns` is 0; no
    /// run may cross from one scale to the next. `out` has an element for each run.
    ///
    /// # Errors
    /// As [`TernaryRows::read_scales`].
    pub fn factors(&self, row: usize, columns: u32, out: &mut [f32]) -> Result<(), CompileError> {
        match self.scales {
            Scales::Tensor { scale, rule } => out.fill(factor(scale, rule)),
            Scales::Rows { columns: 0, .. } => {
                let mut one = [0.0];
                self.trits.read_scales(row, &mut one)?;
                out.fill(one[0]);
            }
            Scales::Rows { columns: own, .. } if own == columns => self.trits.read_scales(row, out)?,
            Scales::Rows { columns: own, .. } => {
                let mut scales = vec![0.0; self.scales_per_row()];
                self.trits.read_scales(row, &mut scales)?;
                for (run, factor) in out.iter_mut().enumerate() {
                    *factor = scales[run * columns as usize / own as usize];
                }
            }
        }
        Ok(())
    }
}

/// What a trit is multiplied with.
fn factor(scale: f32, rule: ScaleRule) -> f32 {
    match rule {
        ScaleRule::Multiply => scale,
        ScaleRule::Divide => 1.0 / scale,
        other => unreachable!("ingest makes no {other:?}"),
    }
}

/// The smallest type that holds `x` exactly.
fn smallest(x: f32) -> DType {
    if f16::from_f32(x).to_f32() == x {
        DType::F16
    } else if bf16::from_f32(x).to_f32() == x {
        DType::Bf16
    } else {
        DType::F32
    }
}

/// The bytes of a tensor, which need not be in memory.
pub trait TensorBytes: AsRef<[u8]> + Send + Sync {
    /// Lets go of memory that reading has pulled in; the bytes can be read again. Called time and again during a pass
    /// over a table, so that one larger than memory does not stay resident.
    fn release(&self) {}
}

impl TensorBytes for Vec<u8> {}

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
    pub data: Arc<dyn TensorBytes>,
}

/// A matrix `[rows, k]`.
#[derive(Clone)]
pub enum Matrix {
    /// Of trits with scales.
    Ternary(Ternary),
    /// Of floats.
    Dense(Dense),
}

impl Matrix {
    /// The checkpoint's tensor name.
    pub fn name(&self) -> &str {
        match self {
            Matrix::Ternary(ternary) => &ternary.name,
            Matrix::Dense(dense) => &dense.name,
        }
    }

    /// The matrix as a ternary one.
    pub fn ternary(&self) -> Option<&Ternary> {
        match self {
            Matrix::Ternary(ternary) => Some(ternary),
            Matrix::Dense(_) => None,
        }
    }

    /// The matrix as one of floats.
    pub fn dense(&self) -> Option<&Dense> {
        match self {
            Matrix::Ternary(_) => None,
            Matrix::Dense(dense) => Some(dense),
        }
    }

    /// `[rows, k]`. Of floats of another shape, `[0, 0]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Matrix::Ternary(ternary) => [ternary.rows, ternary.k],
            Matrix::Dense(dense) => dense.shape[..].try_into().unwrap_or_default(),
        }
    }
}

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
    Float,
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
    /// Most positions that a token attends to, its own among them; all where there is none.
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

    /// How the input of a product with `matrix` is quantized. Weights with scales of their own for each row or group
    /// are multiplied group by group, so BitNet's rule, one scale a token, is for matrices with one scale alone.
    pub fn rule(&self, matrix: &Ternary) -> ActivationRule {
        match (self.activations, matrix.scales) {
            (Activations::PerToken { floor }, Scales::Tensor { .. }) => {
                ActivationRule::AbsmaxPerToken { floor }
            }
            _ => self.table_rule(matrix),
        }
    }

    /// How the input of a product with a ternary table is quantized, which serves as embedding too.
    pub fn table_rule(&self, table: &Ternary) -> ActivationRule {
        let columns = table.group_columns();
        match self.activations {
            Activations::Float => ActivationRule::Fixed24PerGroup { columns },
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

/// What was found in one tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// The checkpoint's tensor name.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Element type in the file, as its format names it.
    pub stored: String,
    /// What it is.
    pub found: Found,
    /// Different scales in it, where they were counted.
    pub scales: Option<u64>,
    /// Share of zeros, 0 to 1, where they were counted.
    pub zeros: Option<f64>,
}

/// What a tensor was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Ternary with one scale.
    PerTensor,
    /// Ternary with one scale for each row.
    PerRow,
    /// Ternary with one scale for that many columns of each row.
    PerColumns(u32),
    /// Floats that are rounded to trits here, because the checkpoint or the user says so.
    Latent,
    /// Floats that are kept.
    Floats,
}

impl From<Scales> for Found {
    fn from(scales: Scales) -> Found {
        match scales {
            Scales::Tensor { .. } => Found::PerTensor,
            Scales::Rows { columns: 0, .. } => Found::PerRow,
            Scales::Rows { columns, .. } => Found::PerColumns(columns),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::PerTensor => f.write_str("ternary, one scale"),
            Found::PerRow => f.write_str("ternary, a scale per row"),
            Found::PerColumns(columns) => write!(f, "ternary, a scale per {columns} columns"),
            Found::Latent => f.write_str("latent weights, rounded to trits"),
            Found::Floats => f.write_str("floats, kept"),
        }
    }
}
