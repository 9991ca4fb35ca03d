//! Everything a bundle says about itself. Its bytes are encoded and decoded here and nowhere else.

use crate::FormatError;
use crate::dense243::Code;
use crate::kernel::KernelEntry;
use crate::plan::{DType, Plan, ScaleRule, TensorId};
use crate::tile;
use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest manifest that is read, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// The manifest section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name and version of the program that wrote the bundle.
    pub compiler: String,
    /// Where the model comes from.
    pub model: ModelInfo,
    /// Its size, for people to read. Execution follows the plan and does not look here.
    pub hyperparameters: Hyperparameters,
    /// Tensors that are not ternary, in the tensor section.
    pub tensors: Vec<Tensor>,
    /// Ternary matrices, in the weight section.
    pub packed_matrices: Vec<PackedMatrix>,
    /// Quantized copies of tables, in the planes section.
    pub planes: Vec<Planes>,
    /// The forward pass.
    pub plan: Plan,
    /// Generated code, in the code sections.
    pub kernels: Vec<KernelEntry>,
    /// How text becomes tokens and back.
    pub text: TextInfo,
    /// Known results, with which a runtime can check itself on a machine.
    pub goldens: Vec<Golden>,
}

/// Provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name, by default that of the checkpoint's directory.
    pub name: String,
    /// Architecture as the checkpoint names it.
    pub architecture: String,
    /// SPDX identifier or text, where the checkpoint gives one.
    pub license: Option<String>,
    /// Files it was compiled from.
    pub sources: Vec<Source>,
}

/// One input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// File name without directories.
    pub file: String,
    /// Bytes.
    pub len: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// The model's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_dim: u32,
    /// Width of the feed-forward layers.
    pub ffn_dim: u32,
    /// Transformer layers.
    pub n_layers: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// Longest context the model was made for, in tokens.
    pub context_length: u32,
}

/// A tensor that is not ternary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Name, the checkpoint's where it has one.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape.
    pub shape: Vec<u64>,
    /// Byte offset in the tensor section, a multiple of 64.
    pub offset: u64,
}

impl Tensor {
    /// Number of elements, or `None` where it overflows.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
    }

    /// Number of bytes, or `None` where it overflows. A tensor of [`DType::I8Blocks`] is a matrix whose rows are whole blocks,
    /// and `None` where it is not.
    pub fn bytes(&self) -> Option<u64> {
        match (self.dtype, &self.shape[..]) {
            (DType::I8Blocks { .. }, &[rows, k]) => rows.checked_mul(self.dtype.row_bytes(k)?),
            (DType::I8Blocks { .. }, _) => None,
            _ => self.elements()?.checked_mul(self.dtype.size() as u64),
        }
    }
}

/// A quantized copy of a table, laid out as [`crate::planes`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planes {
    /// The table, `[rows, hidden]`.
    pub table: TensorId,
    /// Byte offset in the planes section, a multiple of 64.
    pub offset: u64,
}

/// How the rows of a packed matrix's segments are placed in its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RowOrder {
    /// Segment after segment.
    Sequential,
    /// Two segments of equal size; tile `t` holds rows `40 t .. 40 t + 40` of the first, then of the second, so that
    /// a gate and its partner are always in the same tile. Each half is padded with zero rows.
    Paired,
}

/// A run of rows of a packed matrix with one scale: one matrix of the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The checkpoint's tensor.
    pub name: String,
    /// Rows.
    pub rows: u32,
    /// The scale, finite and above zero.
    pub scale: f32,
    /// Its direction.
    pub rule: ScaleRule,
}

/// Scales finer than one for each matrix: columns are cut into groups, each with its own scale of the activations, and
/// rows have their own scales of the weights.
///
/// `y[row] = sum over groups g of (sum over k in g of trit[row, k] * q[k]) * (scale of activations[g] * scale of
/// weights[row, g])`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// Columns of a group: 32, 64, 128 or 256. The last group may have fewer; it is filled up with zeros.
    pub columns: u32,
    /// Columns that share a scale of the weights, a multiple of `columns`; 0 for one scale a row.
    pub scale_columns: u32,
    /// Type of the weights' scales: F16, BF16 or F32.
    pub scale: DType,
}

/// How the columns of a ternary matrix stand in its tiles: what a tile is made of, whatever its rows are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileLayout {
    /// Columns.
    pub k: u32,
    /// Its groups of columns, where it has any.
    pub grouping: Option<Grouping>,
    /// How bytes are stored, which decides how many rows a tile has.
    pub code: Code,
}

impl TileLayout {
    /// Columns that a kernel goes over at a time: those of a group, or all.
    pub fn kernel_k(&self) -> u32 {
        self.grouping.map_or(self.k, |g| g.columns)
    }

    /// Groups of columns, 1 where there is no grouping.
    // A manifest that was not validated may have groups of no columns.
    pub fn groups(&self) -> u32 {
        self.k.div_ceil(self.kernel_k().max(1))
    }

    /// Scales of the weights that each row has; 0 where there is no grouping.
    pub fn scales(&self) -> u32 {
        match self.grouping {
            None => 0,
            Some(Grouping { scale_columns: 0, .. }) => 1,
            Some(Grouping { scale_columns, .. }) => self.k.div_ceil(scale_columns),
        }
    }

    /// Bytes of the codes in one tile: its groups one after another, each laid out as [`tile`] says.
    // In u64, whatever the width of usize: k has not been validated here.
    pub fn code_bytes(&self) -> u64 {
        let columns = u64::from(self.kernel_k()).next_multiple_of(tile::QUAD as u64);
        u64::from(self.groups()) * columns * tile::LANES as u64
    }

    /// Bytes of one tile: its codes, then its scales `[scales, tile_rows]`, filled up to a multiple of 64.
    pub fn tile_bytes(&self) -> u64 {
        let scale = self.grouping.map_or(0, |g| g.scale.size() as u64);
        let rows = self.code.tile_rows() as u64;
        self.code_bytes() + (u64::from(self.scales()) * rows * scale).next_multiple_of(64)
    }
}

/// A ternary matrix `[n, k]`, or several that share their input, in one run of tiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackedMatrix {
    /// Name, for people.
    pub name: String,
    /// Columns.
    pub k: u32,
    /// How bytes are stored.
    pub code: Code,
    /// Where rows stand.
    pub order: RowOrder,
    /// Scales that are finer than one for each segment. The segments' own scales are then 1.
    pub grouping: Option<Grouping>,
    /// The matrices in it.
    pub segments: Vec<Segment>,
    /// Byte offset of the first tile in the weight section, a multiple of 64.
    pub offset: u64,
}

impl PackedMatrix {
    /// Logical rows, the sum over segments.
    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.rows)).sum()
    }

    /// Number of tiles.
    pub fn tiles(&self) -> u64 {
        let in_tile = self.code.tile_rows() as u64;
        match self.order {
            RowOrder::Sequential => self.rows().div_ceil(in_tile),
            RowOrder::Paired => u64::from(self.segments.first().map_or(0, |s| s.rows)).div_ceil(in_tile / 2),
        }
    }

    /// How its columns stand in its tiles.
    pub fn tile_layout(&self) -> TileLayout {
        TileLayout { k: self.k, grouping: self.grouping, code: self.code }
    }

    /// As [`TileLayout::kernel_k`].
    pub fn kernel_k(&self) -> u32 {
        self.tile_layout().kernel_k()
    }

    /// As [`TileLayout::groups`].
    pub fn groups(&self) -> u32 {
        self.tile_layout().groups()
    }

    /// As [`TileLayout::scales`].
    pub fn scales(&self) -> u32 {
        self.tile_layout().scales()
    }

    /// As [`TileLayout::code_bytes`].
    pub fn code_bytes(&self) -> u64 {
        self.tile_layout().code_bytes()
    }

    /// As [`TileLayout::tile_bytes`].
    pub fn tile_bytes(&self) -> u64 {
        self.tile_layout().tile_bytes()
    }

    /// Bytes in the weight section, or `None` where it overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.tiles().checked_mul(self.tile_bytes())
    }
}

/// What is needed besides the tokenizer section to turn text into tokens and to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextInfo {
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
    /// Named special tokens the template may use, such as (`bos_token`, `<s>`).
    pub special_tokens: Vec<(String, String)>,
    /// Beginning-of-sequence id, where the model has one.
    pub bos: Option<u32>,
    /// Ids that end a generation.
    pub stop: Vec<u32>,
    /// What the model's authors suggest.
    pub sampling: SamplingDefaults,
}

/// Sampling settings of `generation_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplingDefaults {
    /// False: greedy.
    pub do_sample: bool,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Keeps the k most probable.
    pub top_k: Option<u32>,
    /// Keeps the most probable whose probabilities reach p.
    pub top_p: Option<f32>,
    /// Keeps those at least this fraction of the most probable.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens already seen.
    pub repetition_penalty: Option<f32>,
    /// Tokens that are not chosen, or less often.
    pub rules: LogitRules,
}

/// Changes of the logits before a token is chosen, in the order in which they are made: the bias before the repetition
/// penalty, the others after it. What is suppressed has no probability.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogitRules {
    /// Sequences of tokens, each with a bias. Where the text ends with all tokens of a sequence but its last one, the
    /// bias is added to the logit of that last token.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Suppresses tokens that would repeat this many tokens of the text; 0: none.
    pub no_repeat_ngram_size: u32,
    /// Sequences of tokens. Where the text ends with all tokens of a sequence but its last one, that last token is
    /// suppressed.
    pub bad_words: Vec<Vec<u32>>,
    /// Tokens that are always suppressed.
    pub suppress: Vec<u32>,
    /// Tokens that are suppressed where a generation begins.
    pub begin_suppress: Vec<u32>,
}

/// A known result: the logits after the last of `ids`, computed by the compiler's own forward pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// Tokens.
    pub ids: Vec<u32>,
    /// f32 `[vocab]`.
    pub logits: TensorId,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<MAX_BYTES>()
}

/// The bytes of records, at most [`MAX_BYTES`]; or what is wrong with them.
pub(crate) fn encode_records(records: &impl Serialize) -> Result<Vec<u8>, String> {
    let bytes = bincode::serde::encode_to_vec(records, config())
        .map_err(|error| format!("cannot be encoded: {error}"))?;
    match bytes.len() {
        0..=MAX_BYTES => Ok(bytes),
        len => Err(format!("is {len} bytes, more than {MAX_BYTES}")),
    }
}

/// Records of which nothing is validated; or what is wrong with their bytes.
pub(crate) fn decode_records<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (records, used) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|error| problem(&error))?;
    match bytes.len() - used {
        0 => Ok(records),
        rest => Err(format!("is followed by {rest} unknown bytes")),
    }
}

impl Manifest {
    /// The bytes of the manifest section (SPEC.md, "Manifest").
    ///
    /// # Errors
    /// [`FormatError::Manifest`] if it would exceed [`MAX_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        encode_records(self).map_err(FormatError::Manifest)
    }

    /// Reads a manifest. It is not yet validated against the bundle's sections.
    ///
    /// # Errors
    /// [`FormatError::Manifest`] if the bytes are no manifest or something follows it.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        decode_records(bytes).map_err(FormatError::Manifest)
    }
}

/// Why bytes are no records. An unknown variant of an enum is what newer versions of the compiler may write.
fn problem(error: &DecodeError) -> String {
    match error {
        DecodeError::OtherString(what) if what.contains("variant index") => format!(
            "cannot be decoded: it holds what this program does not know ({what}); use a newer version of it, or copy \
             the bundle again if it is damaged"
        ),
        other => format!("cannot be decoded: {other}"),
    }
}
