//! The forward pass as a straight line of typed steps over one arena.
//!
//! Every step takes `m` rows: one for decode, a block for prefill. Each row is one token with its own position and
//! its own sequence. A buffer has `stride` bytes a row; with room for `M` rows it starts at byte `offset * M` of the
//! arena and row `r` starts `r * stride` further, so one plan serves every `M`.
//!
//! Shapes below are per row. Arithmetic is f32 unless said otherwise.

mod dtype;

pub use dtype::DType;
use serde::{Deserialize, Serialize};

/// Index into [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BufferId(pub u32);
/// Index into [`crate::manifest::Manifest::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorId(pub u32);
/// Index into [`crate::manifest::Manifest::packed_matrices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackedMatrixId(pub u32);
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
    /// Bytes from one row to the next: at least `len` elements; 4 for a buffer of one 4-byte element, else a multiple
    /// of 64.
    pub stride: u64,
}

/// Activations quantized to int8, three buffers that belong together.
///
/// With a rule that has groups, `groups = ceil(k / columns)`, `digits` is [`ActivationRule::digits`], and one digit's
/// values take [`ActivationRule::digit_len`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantized {
    /// i8 `[k]`, zero from `k` to the end of the row's stride. With groups i8 `[digits * digit_len]` without room
    /// between rows, so that digits of several rows are as many rows: each digit's values, the least significant digit
    /// first, zero from `k` to `digit_len`.
    pub values: BufferId,
    /// f32 `[1]`: the factor `s` the input was multiplied with. With groups f32 `[groups]`: what a value of 1 stands
    /// for.
    pub scale: BufferId,
    /// i32 `[1]`: the sum of `values`. With groups i32 `[digits * groups]`: the sum of each digit's values in each
    /// group.
    pub sum: BufferId,
}

/// How activations become int8.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ActivationRule {
    /// One scale a token, in f32, the reciprocal taken first: `a = max(max|x|, floor)`, `s = 127 * (1 / a)`,
    /// `q = clamp(round_half_even(x * s), -128, 127)`.
    AbsmaxPerToken {
        /// Least absolute maximum, 1e-5 in BitNet.
        floor: f32,
    },
    /// One scale for each run of `columns`, in f32: `a = max|x|`, `q = round_half_even(x * (127 * (1 / a)))`, and the
    /// scale is `a / 127`. All 0, the scale too, where `127 * (1 / a)` is infinite. A group with NaN or infinity gets
    /// zeros and such a scale, so that results are NaN.
    AbsmaxPerGroup {
        /// Columns of a group.
        columns: u32,
    },
    /// Floats as integers of 24 bits in three int8 digits: for each run of `columns` `a = max|x|`, `q =
    /// round_half_even(x * (FIXED_24 / a))` in f64, `q = d0 + 256 * d1 + 65536 * d2` with `d0` and `d1` in -128..=127,
    /// and the scale is `a / FIXED_24` in f32. An error of at most half of `2^-23` of the group's largest value, which
    /// is that of f32 itself there; sums of up to 128 such integers are exact in i32. All 0 where `a` is 0; NaN and
    /// infinity as above.
    Fixed24PerGroup {
        /// Columns of a group, at most 128.
        columns: u32,
    },
}

/// The integer that stands for a group's largest activation in [`ActivationRule::Fixed24PerGroup`]: `127 * 65536`.
pub const FIXED_24: u32 = 127 << 16;

impl ActivationRule {
    /// Int8 digits of one value.
    pub const fn digits(self) -> usize {
        match self {
            ActivationRule::AbsmaxPerToken { .. } | ActivationRule::AbsmaxPerGroup { .. } => 1,
            ActivationRule::Fixed24PerGroup { .. } => 3,
        }
    }

    /// Columns of a group, where the rule has groups.
    pub const fn columns(self) -> Option<u32> {
        match self {
            ActivationRule::AbsmaxPerToken { .. } => None,
            ActivationRule::AbsmaxPerGroup { columns } | ActivationRule::Fixed24PerGroup { columns } => {
                Some(columns)
            }
        }
    }

    /// Bytes from one digit's values to the next for `k` columns: whole groups, rounded up to 64. Groups of no columns
    /// hold nothing: 0.
    pub const fn digit_len(k: u32, columns: u32) -> u64 {
        if columns == 0 {
            return 0;
        }
        (k.div_ceil(columns) as u64 * columns as u64).next_multiple_of(64)
    }
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
    /// `0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
    GeluTanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// RMSNorms of single heads of q and k. The step says whether they come before the rotation or after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadNorms {
    /// f32 `[head_dim]`, for every head of q.
    pub q: TensorId,
    /// f32 `[head_dim]`, for every head of k.
    pub k: TensorId,
    /// Added to the mean square.
    pub eps: f32,
}

/// The change of basis that belongs to weights that were rotated before they were made ternary: `x` becomes `H (signs *
/// x)`, where `H` is the Walsh-Hadamard transform of each run of `block` elements in natural order, `H[i][j] = (-1)^(ones
/// of i & j) / sqrt(block)`. `H` is its own inverse, so that the way back is `signs * (H x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Elements that are transformed together, a power of two that divides the width.
    pub block: u32,
    /// f32 `[width]`, each 1 or -1; none for all 1.
    pub signs: Option<TensorId>,
}

/// An RMSNorm before what a step does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputNorm {
    /// f32 `[n]`.
    pub weight: TensorId,
    /// Added to the mean square.
    pub eps: f32,
}

/// The heads of a gated delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaHeads {
    /// Heads of queries and keys.
    pub keys: u32,
    /// Heads of values, a multiple of `keys`. Value head `j` uses query and key head `j / (values / keys)`.
    pub values: u32,
    /// Elements of a query and a key.
    pub key_dim: u32,
    /// Elements of a value.
    pub value_dim: u32,
}

impl DeltaHeads {
    /// Elements of all queries, keys and values of a token; `u64::MAX` where they are more, which validation refuses.
    pub const fn qkv_len(&self) -> u64 {
        // A product of two u32 fits.
        (self.keys as u64 * self.key_dim as u64).saturating_mul(2).saturating_add(self.values_len())
    }

    /// Elements of all values of a token.
    pub const fn values_len(&self) -> u64 {
        self.values as u64 * self.value_dim as u64
    }
}

/// What a sequence carries from one row to the next for one step, beside the KV cache. It is zero before the first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateShape {
    /// The last `rows` inputs of a convolution, `channels` f32 each.
    Inputs {
        /// Taps less one.
        rows: u32,
        /// Channels.
        channels: u32,
    },
    /// An f32 matrix `[key_dim, value_dim]` for each value head.
    Matrices(DeltaHeads),
}

/// What happens to the scaled results of a ternary product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Epilogue {
    /// `out = y`.
    Store,
    /// `out += y`.
    Add,
    /// `out[i] = activation(y_gate[i]) * y_up[i]`, for a packed matrix of two paired segments.
    Gate(Activation),
}

/// One step. Weights named here are f32 tensors unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Step {
    /// `out = table[token] * scale`, a table `[vocab, hidden]`.
    Embed {
        /// Embedding rows.
        table: TensorId,
        /// 1 in most models.
        scale: f32,
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
        matrix: PackedMatrixId,
        /// Its input `[k]`.
        input: Quantized,
        /// What becomes of each result.
        epilogue: Epilogue,
        /// f32 with room for `n` elements from `at` on, or `n / 2` for [`Epilogue::Gate`].
        out: BufferId,
        /// Element of `out` where the first result goes. A buffer that several steps fill is filled front to back.
        at: u32,
    },
    /// Normalizes the heads of `q` and `k` where there are `norms`, rotates them in place, then appends `k` and `v` to
    /// the KV cache at the row's position. Halves are rotated, not pairs: `x * cos + rotate_half(x) * sin`, `angle =
    /// position * inv_freq[i]`.
    RopeAppend {
        /// f32 `[(n_heads + 2 * n_kv_heads) * head_dim]`: q heads, then k heads, then v heads.
        qkv: BufferId,
        /// RMSNorms of single heads.
        norms: Option<HeadNorms>,
        /// f32 `[n]`, 1 to `head_dim / 2`. The first `2 * n` elements of a head are rotated, the others stay.
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
        /// Most positions that a row attends to, its own among them; all where there is none.
        window: Option<u32>,
        /// f32 `[n_heads * head_dim]`.
        out: BufferId,
    },
    /// `out = table * input` in f32, a table `[vocab, hidden]`.
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
    /// `out = weights of row token`, a ternary embedding `[vocab, hidden]` with its scales. The packed matrix is
    /// grouped.
    EmbedTernary {
        /// Embedding rows.
        matrix: PackedMatrixId,
        /// f32 `[hidden]`.
        out: BufferId,
    },
    /// `out += RmsNorm(input)`, as in [`Step::RmsNorm`].
    RmsNormAdd {
        /// f32 `[n]`.
        input: BufferId,
        /// f32 `[n]`.
        weight: TensorId,
        /// Added to the mean square.
        eps: f32,
        /// f32 `[n]`.
        out: BufferId,
    },
    /// A matrix product that is not ternary: `y = table * input` in f32, a table `[n, k]`.
    Linear {
        /// The matrix.
        table: TensorId,
        /// f32 `[k]`.
        input: BufferId,
        /// [`Epilogue::Store`] or [`Epilogue::Add`].
        epilogue: Epilogue,
        /// f32 with room for `n` elements from `at` on.
        out: BufferId,
        /// As in [`Step::Ternary`].
        at: u32,
    },
    /// `out[i] = activation(gate[i]) * up[i]`.
    Gate {
        /// f32 `[n]`.
        gate: BufferId,
        /// f32 `[n]`.
        up: BufferId,
        /// The gate's function.
        activation: Activation,
        /// f32 `[n]`; may be `gate` or `up`.
        out: BufferId,
    },
    /// [`Step::RmsNorm`] where there is a `norm`, then the rotation, then [`Step::Quantize`].
    RotateQuantize {
        /// f32 `[k]`.
        input: BufferId,
        /// Applied first.
        norm: Option<InputNorm>,
        /// Applied next.
        rotation: Rotation,
        /// The arithmetic.
        rule: ActivationRule,
        /// Where the quantized row goes.
        out: Quantized,
    },
    /// Takes a row of a rotated embedding back: `out = signs * (H out)`.
    Unrotate {
        /// The rotation of the embedding.
        rotation: Rotation,
        /// f32 `[n]`, changed in place.
        out: BufferId,
    },
    /// A causal convolution of each channel over the rows of a sequence: `out[c] = activation(sum over j of weight[j][c] *
    /// input[row - (taps - 1) + j][c])`, where rows before the first are zero.
    Convolve {
        /// f32 with at least as many elements as there are channels; the first are read.
        input: BufferId,
        /// f32 `[taps, channels]`; the last tap is the current row's.
        weight: TensorId,
        /// The function of the sums.
        activation: Activation,
        /// Which state holds the earlier inputs: steps with states are numbered in their order.
        state: u32,
        /// f32 `[channels]`.
        out: BufferId,
    },
    /// The gated delta rule. For each value head with its state `S`, f32 `[key_dim, value_dim]`:
    ///
    /// `q` and `k` are divided by `sqrt(sum of squares + 1e-6)`, `q` is multiplied by `key_dim^-0.5`; `beta = 1 / (1 +
    /// exp(-b))`, `decay = exp(rate * ln(1 + exp(a + bias)))`; then `S *= decay`, `d = (v - k S) * beta`, `S += outer(k, d)`,
    /// `out = q S`.
    DeltaRule {
        /// f32: query heads, key heads, value heads, as [`DeltaHeads::qkv_len`] says.
        qkv: BufferId,
        /// f32: `b` of every value head from `at` on, then `a` of every value head.
        gates: BufferId,
        /// Where `b` begins.
        at: u32,
        /// f32 `[values]`, below zero.
        rates: TensorId,
        /// f32 `[values]`.
        bias: TensorId,
        /// The heads.
        heads: DeltaHeads,
        /// Which state holds `S`.
        state: u32,
        /// f32 `[values * value_dim]`.
        out: BufferId,
    },
    /// `out = activation(gate) * RmsNorm(input)`, where each run of as many elements as `weight` has is normalized alone.
    GateNorm {
        /// f32 `[n]`, whole runs.
        input: BufferId,
        /// f32 `[run]`.
        weight: TensorId,
        /// Added to the mean square.
        eps: f32,
        /// f32 with `n` elements from `at` on.
        gate: BufferId,
        /// Where the gate begins.
        at: u32,
        /// The gate's function.
        activation: Activation,
        /// f32 `[n]`; may be `input`.
        out: BufferId,
    },
    /// `out = [RmsNorm(input), RmsNorm(hidden)]`, each with its weights, where `hidden` is the hidden state that the row
    /// came with. Plans of drafts alone have rows with hidden states; see [`crate::draft`].
    JoinHidden {
        /// f32 `[hidden]`.
        input: BufferId,
        /// f32 `[hidden]`, for the input.
        input_norm: TensorId,
        /// f32 `[hidden]`, for the hidden state.
        hidden_norm: TensorId,
        /// Added to either mean square.
        eps: f32,
        /// f32 `[2 * hidden]`.
        out: BufferId,
    },
    /// [`Step::RopeAppend`] in another order: the heads of `q` and `k` are rotated first and normalized then.
    RopeNormAppend {
        /// As in [`Step::RopeAppend`].
        qkv: BufferId,
        /// RMSNorms of single heads.
        norms: HeadNorms,
        /// As in [`Step::RopeAppend`].
        inv_freq: TensorId,
        /// Factor on cos and sin.
        scaling: f32,
        /// Which KV layer.
        layer: u32,
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

impl Plan {
    /// The states that steps of a validated plan carry from row to row, in the order of the steps. `shape` gives the
    /// shape of a tensor.
    pub fn states<'a>(
        &'a self,
        shape: impl Fn(TensorId) -> Option<&'a [u64]> + 'a,
    ) -> impl Iterator<Item = StateShape> + 'a {
        self.body.iter().filter_map(move |step| match *step {
            Step::Convolve { weight, .. } => match shape(weight) {
                Some(&[taps, channels]) => Some(StateShape::Inputs {
                    rows: taps.saturating_sub(1) as u32,
                    channels: channels as u32,
                }),
                _ => None,
            },
            Step::DeltaRule { heads, .. } => Some(StateShape::Matrices(heads)),
            _ => None,
        })
    }
}
