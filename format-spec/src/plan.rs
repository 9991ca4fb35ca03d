//! The forward pass as a straight line of typed steps over one arena.
//!
//! Every step takes `m` rows: one for decode, a block for prefill. Each row is one token with its own position and
//! its own sequence. A buffer has `stride` bytes a row; with room for `M` rows it starts at byte `offset * M` of the
//! arena and row `r` starts `r * stride` further, so one plan serves every `M`.
//!
//! Shapes below are per row. Arithmetic is f32 unless said otherwise.

use serde::{Deserialize, Serialize};

/// Element type of a tensor or buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed byte.
    I8,
    /// Signed 32-bit integer.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 => 1,
        }
    }
}

/// Index into [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BufferId(pub u32);
/// Index into [`crate::manifest::Manifest::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorId(pub u32);
/// Index into [`crate::manifest::Manifest::products`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProductId(pub u32);
/// Index into [`Manifest::planes`](field@crate::manifest::Manifest::planes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanesId(pub u32);

/// A named place in the arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// What it holds, for people.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Elements a row.
    pub len: u32,
    /// Bytes a row before this buffer, a multiple of 64.
    pub offset: u64,
    /// Bytes from one row to the next: at least `len` elements; 4 for a buffer of one 4-byte element, else a multiple of 64.
    pub stride: u64,
}

/// Activations quantized to int8, three buffers that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantized {
    /// i8 `[k]`, zero from `k` to the end of the row's stride.
    pub values: BufferId,
    /// f32 `[1]`: the factor `s` the input was multiplied with.
    pub scale: BufferId,
    /// i32 `[1]`: the sum of `values`.
    pub sum: BufferId,
}

/// How activations become int8: `a = max(max|x|, floor)`, `s = 127 * (1 / a)`, `q = clamp(round_half_even(x * s), -128, 127)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ActivationRule {
    /// One scale a token, in f32, the reciprocal taken first.
    AbsmaxPerToken {
        /// Least absolute maximum, 1e-5 in BitNet.
        floor: f32,
    },
}

/// How an integer sum becomes a float, given the activation factor `s` and the segment's stored scale `w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ScaleRule {
    /// `sum / s * w`.
    Multiply,
    /// `sum / (s * w)`.
    Divide,
}

/// Elementwise function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)^2`.
    Relu2,
    /// `x / (1 + exp(-x))`.
    Silu,
}

/// What happens to the scaled results of a ternary product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Epilogue {
    /// `out = y`.
    Store,
    /// `out += y`.
    Add,
    /// `out[i] = activation(y_gate[i]) * y_up[i]`, for a product of two paired segments.
    Gate(Activation),
}

/// One step. Weights named here are f32 tensors unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// `out = table[token]`, table `[vocab, hidden]` of f32, f16 or bf16.
    Embed {
        /// Embedding rows.
        table: TensorId,
        /// f32 `[hidden]`.
        out: BufferId,
    },
    /// `out = weight * (input * (1 / sqrt(mean(input^2) + eps)))`.
    RmsNorm {
        /// f32 `[n]`.
        input: BufferId,
        /// f32 `[n]`.
        weight: TensorId,
        /// Added to the mean square.
        eps: f32,
        /// f32 `[n]`; may be `input`.
        out: BufferId,
    },
    /// Quantizes activations.
    Quantize {
        /// f32 `[k]`.
        input: BufferId,
        /// The arithmetic.
        rule: ActivationRule,
        /// Where the quantized row goes.
        out: Quantized,
    },
    /// One ternary matrix product with its epilogue.
    Ternary {
        /// The matrix `[n, k]`.
        product: ProductId,
        /// Its input `[k]`.
        input: Quantized,
        /// What becomes of each result.
        epilogue: Epilogue,
        /// f32 `[n]`, or `[n / 2]` for [`Epilogue::Gate`].
        out: BufferId,
    },
    /// Rotates the heads of `q` and `k` in place, then appends `k` and `v` to the KV cache at the row's position.
    /// Halves are rotated, not pairs: `x * cos + rotate_half(x) * sin`, `angle = position * inv_freq[i]`.
    RopeAppend {
        /// f32 `[(n_heads + 2 * n_kv_heads) * head_dim]`: q heads, then k heads, then v heads.
        qkv: BufferId,
        /// f32 `[head_dim / 2]`.
        inv_freq: TensorId,
        /// Factor on cos and sin.
        scaling: f32,
        /// Which KV layer, an index into [`Plan::kv`].
        layer: u32,
    },
    /// Causal attention of `q` over the cached positions up to the row's own: `softmax(q k^T * scale) v`.
    /// Query head `h` reads KV head `h / (n_heads / n_kv_heads)`.
    Attend {
        /// f32, as in [`Step::RopeAppend`]; only the q heads are read.
        qkv: BufferId,
        /// Which KV layer.
        layer: u32,
        /// Factor on the scores, `head_dim^-0.5`.
        scale: f32,
        /// f32 `[n_heads * head_dim]`.
        out: BufferId,
    },
    /// `out = table * input` in f32, table `[vocab, hidden]` of f32, f16 or bf16.
    Head {
        /// f32 `[hidden]`.
        input: BufferId,
        /// Head rows.
        table: TensorId,
        /// A quantized copy of `table`, for readers that look for the largest results alone.
        planes: Option<PlanesId>,
        /// f32 `[vocab]`.
        out: BufferId,
    },
    /// [`Step::RmsNorm`], then [`Step::Quantize`] of its result, which nothing else reads.
    NormQuantize {
        /// f32 `[k]`.
        input: BufferId,
        /// f32 `[k]`.
        weight: TensorId,
        /// Added to the mean square.
        eps: f32,
        /// The arithmetic.
        rule: ActivationRule,
        /// Where the quantized row goes.
        out: Quantized,
    },
}

/// The KV cache of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvLayer {
    /// Query heads that read it.
    pub n_heads: u32,
    /// Key and value heads in it.
    pub n_kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
}

/// The steps between two states of the residual stream: one layer of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSteps {
    /// First step in [`Plan::body`].
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

/// A whole forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Places in the arena.
    pub buffers: Vec<Buffer>,
    /// Bytes of arena a row needs: the end of the last buffer, a multiple of 64.
    pub row_bytes: u64,
    /// Run for every row.
    pub body: Vec<Step>,
    /// Run after `body`, for rows whose logits are asked for.
    pub head: Vec<Step>,
    /// The residual stream, f32 `[hidden]`: written by the first step of `body`, carried from layer to layer.
    pub residual: BufferId,
    /// The result, f32 `[vocab]`, written by the last step of `head`.
    pub logits: BufferId,
    /// One entry for each KV layer.
    pub kv: Vec<KvLayer>,
    /// Where layers begin and end in `body`, in order, without gaps, after the embedding.
    pub layers: Vec<LayerSteps>,
}
