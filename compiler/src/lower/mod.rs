//! Model to plan: which matrices are multiplied together, which steps run in which order, where buffers stand.
//!
//! A [`Model`] enters. The plan leaves, with the records of packed matrices and tensors, their places in the bundle,
//! and for each record where its data comes from. Only shapes are read here.
//!
//! | module | does |
//! |---|---|
//! | `linear` | projections of one input become packed matrices |
//! | `mixer` | the steps of attention and of Gated DeltaNet |
//! | `records` | packed matrices, tensors and planes, and their places |
//! | `arena` | places of buffers |
//! | `manifest` | what the bundle says of it, and whether a bundle can hold it |

mod arena;
mod linear;
pub(crate) mod manifest;
mod mixer;
mod records;

use crate::error::CompileError;
use crate::model::{self, Dense, DraftBlock, Layer, Matrix, Model, NormWeights, Projection, Rope, Ternary};
use linear::Input;
use records::Records;
use std::borrow::Cow;
use std::sync::Arc;
use trit_format::dense243::Code;
use trit_format::manifest::{Golden, PackedMatrix, Planes, RowOrder, Tensor};
use trit_format::plan::{
    self, ActivationRule, Buffer, BufferId, DType, Epilogue, InputNorm, KvLayer, LayerSteps, PackedMatrixId,
    Plan, PlanesId, Quantized, Step, TensorId,
};

pub(crate) use records::packed_bytes;

/// Alignment of tensors, packed matrices and buffers, in bytes.
const ALIGNMENT: u64 = 64;

/// Where a tensor's bytes come from.
pub(crate) enum TensorData<'m> {
    /// Values that are stored as f32.
    F32(Cow<'m, [f32]>),
    /// As the checkpoint stores it.
    Checkpoint(&'m Dense),
}

/// A model as it will stand in a bundle.
pub(crate) struct Lowered<'m> {
    /// The forward pass.
    pub plan: Plan,
    /// Ternary matrices, with their offsets in the weight section.
    pub packed_matrices: Vec<PackedMatrix>,
    /// For each packed matrix the matrices of its segments.
    pub matrices: Vec<Vec<&'m Ternary>>,
    /// Quantized copies of tables among `tensors`, with their offsets in the planes section.
    pub planes: Vec<Planes>,
    /// Other tensors, with their offsets in the tensor section.
    pub tensors: Vec<Tensor>,
    /// For each tensor its data.
    pub data: Vec<TensorData<'m>>,
    /// Known results, whose logits are among the tensors.
    pub goldens: Vec<Golden>,
    /// The plan of the block that drafts tokens, of the same records.
    pub draft: Option<Plan>,
}

impl<'m> Lowered<'m> {
    /// Plans the forward pass of `model`, with the weights of all packed matrices stored as `code`.
    ///
    /// # Errors
    /// [`CompileError::Unsupported`] for a matrix with more columns than exact integer sums allow or scales that no
    /// kernel's groups fit, [`CompileError::Internal`] for a model whose shapes contradict each other.
    pub fn new(model: &'m Model, code: Code) -> Result<Lowered<'m>, CompileError> {
        let mut lowering = Lowering {
            model,
            buffers: Vec::new(),
            steps: Vec::new(),
            kv: Vec::new(),
            states: 0,
            rotations: Vec::new(),
            out: Records::new(code),
        };
        let embedding = lowering.embedding()?;
        let residual = lowering.embed(embedding);
        let ropes: Vec<TensorId> = (0..model.ropes.len()).map(|index| lowering.inv_freq(index)).collect();
        let mut layers = Vec::with_capacity(model.layers.len());
        for (index, layer) in model.layers.iter().enumerate() {
            let start = lowering.steps.len() as u32;
            lowering.layer(&format!("layers.{index}."), layer, residual, &ropes)?;
            layers.push(LayerSteps { start, end: lowering.steps.len() as u32 });
        }
        let body = std::mem::take(&mut lowering.steps);
        let head = lowering.head_table(embedding)?;
        let plan = lowering.end(residual, body, layers, (&model.final_norm, head))?;
        let draft = model.draft.as_deref();
        let draft = draft.map(|draft| lowering.draft(draft, embedding, &ropes, head)).transpose()?;
        let Records { code: _, packed_matrices, matrices, planes, tensors, data } = lowering.out;
        Ok(Lowered { plan, packed_matrices, matrices, planes, tensors, data, goldens: Vec::new(), draft })
    }

    /// Adds a known result: `logits` is `[vocab]`.
    pub fn push_golden(&mut self, ids: Vec<u32>, logits: Vec<f32>) {
        let name = format!("golden.{}", self.goldens.len());
        let shape = vec![logits.len()];
        let data = TensorData::F32(Cow::Owned(logits));
        let logits = records::push_tensor(&mut self.tensors, &mut self.data, &name, DType::F32, shape, data);
        self.goldens.push(Golden { ids, logits });
    }
}

/// The embedding as it stands in the bundle, and the head. A tied head is the same table.
#[derive(Clone, Copy)]
enum EmbeddingTable {
    Dense(TensorId),
    Ternary(PackedMatrixId),
}

/// A head as it stands in the bundle.
#[derive(Clone, Copy)]
enum HeadTable {
    Dense(TensorId, Option<PlanesId>),
    Ternary(PackedMatrixId),
}

/// A plan in the making.
struct Lowering<'m> {
    model: &'m Model,
    buffers: Vec<Buffer>,
    steps: Vec<Step>,
    kv: Vec<KvLayer>,
    /// How many steps with a state there are.
    states: u32,
    /// Rotations that steps use, with the tensors of their signs.
    rotations: Vec<(Arc<model::Rotation>, plan::Rotation)>,
    out: Records<'m>,
}

impl<'m> Lowering<'m> {
    /// The buffer of that name, whose place is decided when all steps are known.
    fn buffer(&mut self, name: &str, dtype: DType, len: u32) -> BufferId {
        let same = |b: &Buffer| b.name == name && b.dtype == dtype && b.len == len;
        if let Some(index) = self.buffers.iter().position(same) {
            return BufferId(index as u32);
        }
        let bytes = u64::from(len) * dtype.size() as u64;
        let stride = if len == 1 && dtype.size() == 4 { 4 } else { bytes.next_multiple_of(ALIGNMENT) };
        self.buffers.push(Buffer { name: name.to_owned(), dtype, len, offset: 0, stride });
        BufferId(self.buffers.len() as u32 - 1)
    }

    fn f32s(&mut self, name: &str, len: u32) -> BufferId {
        self.buffer(name, DType::F32, len)
    }

    /// The buffers of `k` activations that were quantized by `rule`; names that begin with `name`.
    fn quantized(&mut self, name: &str, k: u32, rule: ActivationRule) -> Quantized {
        let digits = rule.digits() as u32;
        let (name, values, groups) = match rule.columns() {
            None => (format!("{name}8"), k, 1),
            Some(columns) => {
                let values = digits * ActivationRule::digit_len(k, columns) as u32;
                (format!("{name}{}.g{columns}", 8 * digits), values, k.div_ceil(columns))
            }
        };
        Quantized {
            values: self.buffer(&name, DType::I8, values),
            scale: self.buffer(&format!("{name}.scale"), DType::F32, groups),
            sum: self.buffer(&format!("{name}.sum"), DType::I32, digits * groups),
        }
    }

    /// The record of a rotation. Equal ones share their signs.
    fn rotation(&mut self, rotation: &Arc<model::Rotation>) -> plan::Rotation {
        if let Some((_, record)) = self.rotations.iter().find(|(known, _)| known == rotation) {
            return *record;
        }
        let name = format!("signs.{}", self.rotations.len());
        let signs = rotation.signs.clone();
        let signs = signs.map(|signs| self.out.f32(&name, vec![signs.len()], Cow::Owned(signs)));
        let record = plan::Rotation { block: rotation.block, signs };
        self.rotations.push((rotation.clone(), record));
        record
    }

    /// The record of the embedding.
    fn embedding(&mut self) -> Result<EmbeddingTable, CompileError> {
        let scale = self.model.embedding_scale;
        match &self.model.embedding {
            Matrix::Dense(dense) => Ok(EmbeddingTable::Dense(self.out.dense(dense)?)),
            Matrix::Ternary(ternary) if scale == 1.0 => {
                // The runtime reads rows of the embedding by their own scales, so the packed matrix is grouped whatever
                // the rule.
                let rule = self.model.table_rule(ternary);
                let name = ternary.name.clone();
                let matrix = self.out.pack(name, RowOrder::Sequential, vec![ternary], rule)?;
                Ok(EmbeddingTable::Ternary(matrix))
            }
            Matrix::Ternary(ternary) => Err(CompileError::Unsupported {
                path: ternary.name.clone().into(),
                problem: format!(
                    "is a ternary embedding with a factor of {scale} on it, which is not supported"
                ),
            }),
        }
    }

    /// The first steps of a plan, and the residual stream that they write.
    fn embed(&mut self, embedding: EmbeddingTable) -> BufferId {
        let out = self.f32s("h", self.model.hyperparameters.hidden_dim);
        match embedding {
            EmbeddingTable::Dense(table) => {
                self.steps.push(Step::Embed { table, scale: self.model.embedding_scale, out });
            }
            EmbeddingTable::Ternary(matrix) => {
                self.steps.push(Step::EmbedTernary { matrix, out });
                if let Some(rotation) = self.model.embedding.ternary().and_then(|t| t.rotation.as_ref()) {
                    let rotation = self.rotation(rotation);
                    self.steps.push(Step::Unrotate { rotation, out });
                }
            }
        }
        out
    }

    fn inv_freq(&mut self, index: usize) -> TensorId {
        let Rope { inv_freq, .. } = &self.model.ropes[index];
        let name = match self.model.ropes.len() {
            1 => "inv_freq".to_owned(),
            _ => format!("inv_freq.{index}"),
        };
        self.out.f32(&name, vec![inv_freq.len()], Cow::Borrowed(inv_freq))
    }

    fn layer(
        &mut self,
        prefix: &str,
        layer: &'m Layer,
        h: BufferId,
        ropes: &[TensorId],
    ) -> Result<(), CompileError> {
        let dims = &self.model.hyperparameters;
        self.mixer(prefix, layer, h, ropes)?;

        let ffn = self.f32s("ffn", dims.ffn_dim);
        let input = Input { buffer: h, norm: Some(&layer.ffn_norm), normed: "x", quantized: "x" };
        self.gate_up(prefix, layer, input, ffn)?;
        let norm = layer.ffn_sub_norm.as_ref();
        let input = Input { buffer: ffn, norm, normed: "ffn.normed", quantized: "ffn" };
        self.add(prefix, ("down", &layer.down), input, layer.ffn_post_norm.as_ref(), h)
    }

    /// `h += projection(input)`, its result normalized first where there is a norm.
    fn add(
        &mut self,
        prefix: &str,
        projection: (&str, &'m Projection),
        input: Input<'m>,
        post_norm: Option<&'m NormWeights>,
        h: BufferId,
    ) -> Result<(), CompileError> {
        let Some(weights) = post_norm else {
            return self.linear(prefix, &[projection], input, Epilogue::Add, h);
        };
        let y = self.f32s("y", self.model.hyperparameters.hidden_dim);
        self.linear(prefix, &[projection], input, Epilogue::Store, y)?;
        let (weight, eps) = (self.out.norm(weights), self.model.rms_eps);
        self.steps.push(Step::RmsNormAdd { input: y, weight, eps, out: h });
        Ok(())
    }

    /// The record of the head.
    fn head_table(&mut self, embedding: EmbeddingTable) -> Result<HeadTable, CompileError> {
        let table = match &self.model.head {
            None => embedding,
            Some(Matrix::Dense(dense)) => EmbeddingTable::Dense(self.out.dense(dense)?),
            Some(Matrix::Ternary(ternary)) => {
                let (name, rule) = (ternary.name.clone(), self.model.rule(ternary));
                EmbeddingTable::Ternary(self.out.pack(name, RowOrder::Sequential, vec![ternary], rule)?)
            }
        };
        Ok(match table {
            EmbeddingTable::Dense(table) => HeadTable::Dense(table, self.out.planes(table)),
            EmbeddingTable::Ternary(matrix) => HeadTable::Ternary(matrix),
        })
    }

    /// The plan of the block that drafts tokens. Nothing of the model's own plan is left in `self` but its records.
    fn draft(
        &mut self,
        draft: &'m DraftBlock,
        embedding: EmbeddingTable,
        ropes: &[TensorId],
        head: HeadTable,
    ) -> Result<Plan, CompileError> {
        let hidden = self.model.hyperparameters.hidden_dim;
        let residual = self.embed(embedding);
        let start = self.steps.len() as u32;
        let out = self.f32s("joined", 2 * hidden);
        let (input_norm, hidden_norm) =
            (self.out.norm(&draft.embedding_norm), self.out.norm(&draft.hidden_norm));
        let eps = self.model.rms_eps;
        self.steps.push(Step::JoinHidden { input: residual, input_norm, hidden_norm, eps, out });
        let input = Input { buffer: out, norm: None, normed: "joined.normed", quantized: "joined" };
        self.linear("draft.", &[("join", &draft.join)], input, Epilogue::Store, residual)?;
        self.layer("draft.", &draft.layer, residual, ropes)?;
        let body = std::mem::take(&mut self.steps);
        let layers = vec![LayerSteps { start, end: body.len() as u32 }];
        self.end(residual, body, layers, (&draft.final_norm, head))
    }

    /// Completes a plan by its head; the next one begins with no buffers.
    fn end(
        &mut self,
        residual: BufferId,
        body: Vec<Step>,
        layers: Vec<LayerSteps>,
        (norm, head): (&'m NormWeights, HeadTable),
    ) -> Result<Plan, CompileError> {
        let logits = self.head(residual, norm, head)?;
        let (mut buffers, head) = (std::mem::take(&mut self.buffers), std::mem::take(&mut self.steps));
        let kv = std::mem::take(&mut self.kv);
        let row_bytes = arena::place(&mut buffers, &body, &head, residual, logits);
        Ok(Plan { buffers, row_bytes, body, head, residual, logits, kv, layers })
    }

    /// The steps after the last layer; gives the logits.
    fn head(
        &mut self,
        h: BufferId,
        norm: &'m NormWeights,
        table: HeadTable,
    ) -> Result<BufferId, CompileError> {
        let dims = &self.model.hyperparameters;
        let (weight, eps) = (self.out.norm(norm), self.model.rms_eps);
        let logits = self.f32s("logits", dims.vocab_size);
        match table {
            HeadTable::Dense(table, planes) => {
                let x = self.f32s("x", dims.hidden_dim);
                self.steps.push(Step::RmsNorm { input: h, weight, eps, out: x });
                self.steps.push(Step::Head { input: x, table, planes, out: logits });
            }
            HeadTable::Ternary(matrix) => {
                let rule = self.model.head_rule().ok_or_else(|| {
                    CompileError::Internal("a ternary head has a rule for its input".to_owned())
                })?;
                let x = self.quantized("x", dims.hidden_dim, rule);
                let rotation = self.model.head().ternary().and_then(|head| head.rotation.as_ref());
                let step = match rotation {
                    None => Step::NormQuantize { input: h, weight, eps, rule, out: x },
                    Some(rotation) => {
                        let (norm, rotation) = (Some(InputNorm { weight, eps }), self.rotation(rotation));
                        Step::RotateQuantize { input: h, norm, rotation, rule, out: x }
                    }
                };
                self.steps.push(step);
                let epilogue = Epilogue::Store;
                self.steps.push(Step::Ternary { matrix, input: x, epilogue, out: logits, at: 0 });
            }
        }
        Ok(logits)
    }
}
