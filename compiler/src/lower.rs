//! Model to plan: which matrices are multiplied together, which steps run in which order, where buffers stand.
//!
//! A [`Model`] enters; the plan, the records of products and tensors with their places in the bundle, and for each
//! record where its data comes from leave. Nothing is read here but shapes.

mod arena;

use crate::error::CompileError;
use crate::model::{Activations, Dense, Matrix, Model, NormWeights, Projection, Scales, Ternary};
use crate::planes;
use std::borrow::Cow;
use trit_format::dense243::Code;
use trit_format::kernel::MAX_K;
use trit_format::manifest::{Golden, Planes, Product, RowOrder, Segment, Tensor};
use trit_format::plan::{
    ActivationRule, Buffer, BufferId, DType, Epilogue, KvLayer, LayerSteps, Plan, PlanesId, ProductId,
    Quantized, Step, TensorId,
};

/// Alignment of tensors, products and buffers, in bytes.
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
    pub products: Vec<Product>,
    /// For each product the matrices of its segments.
    pub matrices: Vec<Vec<&'m Ternary>>,
    /// Quantized copies of tables among `tensors`, with their offsets in the planes section.
    pub planes: Vec<Planes>,
    /// Other tensors, with their offsets in the tensor section.
    pub tensors: Vec<Tensor>,
    /// For each tensor its data.
    pub data: Vec<TensorData<'m>>,
    /// Known results, whose logits are among the tensors.
    pub goldens: Vec<Golden>,
}

impl<'m> Lowered<'m> {
    /// Plans the forward pass of `model`, with the weights of all products stored as `code`.
    ///
    /// # Errors
    /// [`CompileError::Unsupported`] for a matrix with more columns than exact integer sums allow,
    /// [`CompileError::Internal`] for a model whose shapes contradict each other.
    pub fn new(model: &'m Model, code: Code) -> Result<Lowered<'m>, CompileError> {
        let dims = &model.hyperparameters;
        let mut lowering = Lowering { buffers: Vec::new(), body: Vec::new(), out: Records::new(code) };
        let table = lowering.out.dense(floats(&model.embedding)?)?;
        let [rope] = &model.ropes[..] else { return Err(unplanned("several ropes")) };
        let inv_freq = lowering.out.f32("inv_freq", vec![rope.inv_freq.len()], Cow::Borrowed(&rope.inv_freq));
        let attention_dim = dims.n_heads * dims.head_dim;

        let h = lowering.buffer("h", DType::F32, dims.hidden_dim);
        let x = lowering.buffer("x", DType::F32, dims.hidden_dim);
        let x8 = lowering.quantized("x8", dims.hidden_dim);
        let qkv = lowering.buffer("qkv", DType::F32, attention_dim + 2 * dims.n_kv_heads * dims.head_dim);
        let attention = lowering.buffer("attention", DType::F32, attention_dim);
        let attention8 = lowering.quantized("attention8", attention_dim);
        let ffn = lowering.buffer("ffn", DType::F32, dims.ffn_dim);
        let ffn8 = lowering.quantized("ffn8", dims.ffn_dim);
        let logits = lowering.buffer("logits", DType::F32, dims.vocab_size);

        let eps = model.rms_eps;
        let Activations::PerToken { floor } = model.activations else {
            return Err(unplanned("activations in groups"));
        };
        let rule = ActivationRule::AbsmaxPerToken { floor };
        let mut layers = Vec::with_capacity(model.layers.len());
        lowering.body.push(Step::Embed { table, scale: model.embedding_scale, out: h });
        for (index, layer) in model.layers.iter().enumerate() {
            let start = lowering.body.len() as u32;
            let name = |part: &str| format!("layers.{index}.{part}");
            lowering.quantize(h, Some(&layer.input_norm), eps, rule, x8);
            let matrices = vec![trits(&layer.q)?, trits(&layer.k)?, trits(&layer.v)?];
            lowering.ternary(name("qkv"), RowOrder::Sequential, matrices, x8, Epilogue::Store, qkv)?;
            let layer_index = index as u32;
            let scaling = rope.scaling;
            lowering.body.push(Step::RopeAppend { qkv, norms: None, inv_freq, scaling, layer: layer_index });
            let scale = model.attention_scale;
            lowering.body.push(Step::Attend {
                qkv,
                layer: layer_index,
                scale,
                window: layer.window,
                out: attention,
            });
            lowering.quantize(attention, layer.attention_sub_norm.as_ref(), eps, rule, attention8);
            lowering.ternary(
                name("o"),
                RowOrder::Sequential,
                vec![trits(&layer.o)?],
                attention8,
                Epilogue::Add,
                h,
            )?;
            lowering.quantize(h, Some(&layer.ffn_norm), eps, rule, x8);
            let (matrices, gate) =
                (vec![trits(&layer.gate)?, trits(&layer.up)?], Epilogue::Gate(model.activation));
            lowering.ternary(name("gate_up"), RowOrder::Paired, matrices, x8, gate, ffn)?;
            lowering.quantize(ffn, layer.ffn_sub_norm.as_ref(), eps, rule, ffn8);
            lowering.ternary(
                name("down"),
                RowOrder::Sequential,
                vec![trits(&layer.down)?],
                ffn8,
                Epilogue::Add,
                h,
            )?;
            layers.push(LayerSteps { start, end: lowering.body.len() as u32 });
        }
        let head_table = match &model.head {
            Some(head) => lowering.out.dense(floats(head)?)?,
            None => table,
        };
        let final_norm = lowering.out.norm(&model.final_norm);
        let planes = lowering.out.planes(head_table);
        let head = vec![
            Step::RmsNorm { input: h, weight: final_norm, eps, out: x },
            Step::Head { input: x, table: head_table, planes, out: logits },
        ];

        let Lowering { mut buffers, body, out } = lowering;
        let row_bytes = arena::place(&mut buffers, &body, &head, h, logits);
        let kv = KvLayer { n_heads: dims.n_heads, n_kv_heads: dims.n_kv_heads, head_dim: dims.head_dim };
        let kv = vec![kv; model.layers.len()];
        let plan = Plan { buffers, row_bytes, body, head, residual: h, logits, kv, layers };
        let Records { code: _, products, matrices, planes, tensors, data } = out;
        Ok(Lowered { plan, products, matrices, planes, tensors, data, goldens: Vec::new() })
    }

    /// Adds a known result: `logits` is `[vocab]`.
    pub fn push_golden(&mut self, ids: Vec<u32>, logits: Vec<f32>) {
        let name = format!("golden.{}", self.goldens.len());
        let shape = vec![logits.len()];
        let data = TensorData::F32(Cow::Owned(logits));
        let logits = push_tensor(&mut self.tensors, &mut self.data, &name, DType::F32, shape, data);
        self.goldens.push(Golden { ids, logits });
    }
}

fn unplanned(what: &str) -> CompileError {
    CompileError::Internal(format!("no plan is made for {what}"))
}

fn floats(matrix: &Matrix) -> Result<&Dense, CompileError> {
    matrix.dense().ok_or_else(|| unplanned(matrix.name()))
}

fn trits(projection: &Projection) -> Result<&Ternary, CompileError> {
    projection.matrix.ternary().ok_or_else(|| unplanned(projection.matrix.name()))
}

/// Records made so far.
struct Records<'m> {
    code: Code,
    products: Vec<Product>,
    matrices: Vec<Vec<&'m Ternary>>,
    planes: Vec<Planes>,
    tensors: Vec<Tensor>,
    data: Vec<TensorData<'m>>,
}

impl<'m> Records<'m> {
    fn new(code: Code) -> Records<'m> {
        let (products, matrices, planes) = (Vec::new(), Vec::new(), Vec::new());
        Records { code, products, matrices, planes, tensors: Vec::new(), data: Vec::new() }
    }

    /// Planes of a head's table, where it is large enough for them.
    fn planes(&mut self, table: TensorId) -> Option<PlanesId> {
        planes::layout(&self.tensors[table.0 as usize].shape)?;
        // A model has one head.
        self.planes.push(Planes { table, offset: 0 });
        Some(PlanesId(self.planes.len() as u32 - 1))
    }

    fn f32(&mut self, name: &str, shape: Vec<usize>, values: Cow<'m, [f32]>) -> TensorId {
        let data = TensorData::F32(values);
        push_tensor(&mut self.tensors, &mut self.data, name, DType::F32, shape, data)
    }

    fn norm(&mut self, (name, weights): &'m NormWeights) -> TensorId {
        self.f32(name, vec![weights.len()], Cow::Borrowed(weights))
    }

    fn dense(&mut self, dense: &'m Dense) -> Result<TensorId, CompileError> {
        let elements: usize = dense.shape.iter().product();
        let found = (*dense.data).as_ref().len();
        if found != elements * dense.dtype.size() {
            return Err(CompileError::Internal(format!(
                "tensor {} of {elements} elements has {found} bytes",
                dense.name
            )));
        }
        let (shape, data) = (dense.shape.clone(), TensorData::Checkpoint(dense));
        Ok(push_tensor(&mut self.tensors, &mut self.data, &dense.name, dense.dtype, shape, data))
    }

    fn product(
        &mut self,
        name: String,
        order: RowOrder,
        matrices: Vec<&'m Ternary>,
    ) -> Result<ProductId, CompileError> {
        let k = matrices.first().map_or(0, |m| m.k);
        if let Some(other) = matrices.iter().find(|m| m.k != k || m.rows == 0) {
            return Err(CompileError::Internal(format!(
                "product {name}: {} is [{}, {}] beside matrices with {k} columns",
                other.name, other.rows, other.k
            )));
        }
        if k == 0 || k > MAX_K as usize {
            return Err(CompileError::Unsupported {
                path: name.into(),
                problem: format!(
                    "has {k} columns; integer sums are exact for 1 to {MAX_K}, so larger matrices are not compiled"
                ),
            });
        }
        let segment = |m: &&Ternary| match m.scales {
            Scales::Tensor { scale, rule } => {
                Ok(Segment { name: m.name.clone(), rows: m.rows as u32, scale, rule })
            }
            Scales::Rows { .. } => Err(unplanned(&m.name)),
        };
        let offset = self.products.last().map_or(0, |p| p.offset + packed_bytes(p));
        let segments = matrices.iter().map(segment).collect::<Result<_, _>>()?;
        self.products.push(Product {
            name,
            k: k as u32,
            code: self.code,
            order,
            grouping: None,
            segments,
            offset,
        });
        self.matrices.push(matrices);
        Ok(ProductId(self.products.len() as u32 - 1))
    }
}

/// Bytes of a product in the weight section. Rows and columns of matrices that were in memory or a file fit.
pub(crate) fn packed_bytes(product: &Product) -> u64 {
    product.bytes().expect("a matrix that exists has a size")
}

fn push_tensor<'m>(
    tensors: &mut Vec<Tensor>,
    data: &mut Vec<TensorData<'m>>,
    name: &str,
    dtype: DType,
    shape: Vec<usize>,
    source: TensorData<'m>,
) -> TensorId {
    let end = tensors.last().map_or(0, |t| t.offset + t.bytes().expect("a tensor that exists has a size"));
    let shape = shape.into_iter().map(|d| d as u64).collect();
    tensors.push(Tensor { name: name.to_owned(), dtype, shape, offset: end.next_multiple_of(ALIGNMENT) });
    data.push(source);
    TensorId(tensors.len() as u32 - 1)
}

/// A plan in the making.
struct Lowering<'m> {
    buffers: Vec<Buffer>,
    body: Vec<Step>,
    out: Records<'m>,
}

impl<'m> Lowering<'m> {
    /// A buffer whose place is decided when all steps are known.
    fn buffer(&mut self, name: &str, dtype: DType, len: u32) -> BufferId {
        let bytes = u64::from(len) * dtype.size() as u64;
        let stride = if len == 1 && dtype.size() == 4 { 4 } else { bytes.next_multiple_of(ALIGNMENT) };
        self.buffers.push(Buffer { name: name.to_owned(), dtype, len, offset: 0, stride });
        BufferId(self.buffers.len() as u32 - 1)
    }

    fn quantized(&mut self, name: &str, k: u32) -> Quantized {
        Quantized {
            values: self.buffer(name, DType::I8, k),
            scale: self.buffer(&format!("{name}.scale"), DType::F32, 1),
            sum: self.buffer(&format!("{name}.sum"), DType::I32, 1),
        }
    }

    /// Quantizes `input`, normalized first where there is a norm.
    fn quantize(
        &mut self,
        input: BufferId,
        norm: Option<&'m NormWeights>,
        eps: f32,
        rule: ActivationRule,
        out: Quantized,
    ) {
        let step = match norm {
            Some(weights) => Step::NormQuantize { input, weight: self.out.norm(weights), eps, rule, out },
            None => Step::Quantize { input, rule, out },
        };
        self.body.push(step);
    }

    fn ternary(
        &mut self,
        name: String,
        order: RowOrder,
        matrices: Vec<&'m Ternary>,
        input: Quantized,
        epilogue: Epilogue,
        out: BufferId,
    ) -> Result<(), CompileError> {
        let product = self.out.product(name, order, matrices)?;
        self.body.push(Step::Ternary { product, input, epilogue, out, at: 0 });
        Ok(())
    }
}
