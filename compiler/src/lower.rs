//! A model becomes a plan: which products are fused, in which order steps run, where their buffers stand.

use crate::model::{Dense, Model, NormWeights, Ternary};
use trit_format::dense243::Code;
use trit_format::manifest::{Product, RowOrder, Segment, Tensor};
use trit_format::plan::{
    Buffer, BufferId, DType, Epilogue, KvLayer, LayerSteps, Plan, ProductId, Quantized, Step, TensorId,
};

/// Where the bytes of a tensor come from.
pub enum TensorData {
    /// As the checkpoint has them.
    Dense(Dense),
    /// Values widened or computed here.
    F32(Vec<f32>),
}

/// A product and the matrices its rows come from.
pub struct LoweredProduct {
    /// The record.
    pub record: Product,
    /// One a segment.
    pub matrices: Vec<Ternary>,
}

/// Everything of a bundle but code, text and provenance. Offsets are final.
pub struct Lowered {
    /// The steps.
    pub plan: Plan,
    /// In the order of their offsets.
    pub products: Vec<LoweredProduct>,
    /// Records and data, in the order of their offsets.
    pub tensors: Vec<(Tensor, TensorData)>,
}

impl Lowered {
    /// Appends a tensor and gives its id.
    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[usize], data: TensorData) -> TensorId {
        let offset = self.tensors.last().map_or(0, |(t, _)| {
            (t.offset + t.bytes().expect("checkpoint tensors fit memory")).next_multiple_of(64)
        });
        let shape = shape.iter().map(|&d| d as u64).collect();
        self.tensors.push((Tensor { name: name.to_owned(), dtype, shape, offset }, data));
        TensorId(self.tensors.len() as u32 - 1)
    }

    fn vector(&mut self, name: &str, values: &[f32]) -> TensorId {
        self.tensor(name, DType::F32, &[values.len()], TensorData::F32(values.to_vec()))
    }

    fn dense(&mut self, dense: &Dense) -> TensorId {
        self.tensor(&dense.name, dense.dtype, &dense.shape, TensorData::Dense(dense.clone()))
    }

    fn product(&mut self, name: String, order: RowOrder, matrices: &[&Ternary]) -> ProductId {
        let offset = self.products.last().map_or(0, |p| p.record.offset + p.record.bytes().expect("fits memory"));
        let segment =
            |m: &&Ternary| Segment { name: m.name.clone(), rows: m.rows as u32, scale: m.scale, rule: m.rule };
        let segments = matrices.iter().map(segment).collect();
        let record = Product { name, k: matrices[0].k as u32, code: Code::SignedFix, order, segments, offset };
        self.products.push(LoweredProduct { record, matrices: matrices.iter().map(|&m| m.clone()).collect() });
        ProductId(self.products.len() as u32 - 1)
    }
}

/// The buffers of a decoder. Those of attention and those of the feed-forward part are never live together and share
/// their place; so do the logits, which are written when nothing else is needed any more.
struct Buffers {
    residual: BufferId,
    normed: BufferId,
    quantized: Quantized,
    qkv: BufferId,
    attended: BufferId,
    quantized_attended: Quantized,
    gated: BufferId,
    quantized_gated: Quantized,
    logits: BufferId,
}

/// Places buffers one after another.
struct Placer {
    buffers: Vec<Buffer>,
    at: u64,
    end: u64,
}

impl Placer {
    fn add(&mut self, name: &str, dtype: DType, len: usize) -> BufferId {
        let bytes = (len * dtype.size()) as u64;
        let stride = if bytes == 4 { 4 } else { bytes.next_multiple_of(64) };
        let buffer = Buffer { name: name.to_owned(), dtype, len: len as u32, offset: self.at, stride };
        self.at += stride.next_multiple_of(64);
        self.end = self.end.max(self.at);
        self.buffers.push(buffer);
        BufferId(self.buffers.len() as u32 - 1)
    }

    fn quantized(&mut self, name: &str, k: usize) -> Quantized {
        Quantized {
            values: self.add(name, DType::I8, k),
            scale: self.add(&format!("{name}.scale"), DType::F32, 1),
            sum: self.add(&format!("{name}.sum"), DType::I32, 1),
        }
    }
}

fn place(model: &Model) -> (Placer, Buffers) {
    let h = &model.hyperparameters;
    let (hidden, ffn, dim) = (h.hidden_dim as usize, h.ffn_dim as usize, h.head_dim as usize);
    let (q, kv) = (h.n_heads as usize * dim, h.n_kv_heads as usize * dim);
    let mut placer = Placer { buffers: Vec::new(), at: 0, end: 0 };
    let residual = placer.add("residual", DType::F32, hidden);
    let normed = placer.add("normed", DType::F32, hidden);
    let shared = placer.at;
    let logits = placer.add("logits", DType::F32, h.vocab_size as usize);
    placer.at = shared;
    let quantized = placer.quantized("quantized", hidden);
    let parts = placer.at;
    let qkv = placer.add("qkv", DType::F32, q + 2 * kv);
    let attended = placer.add("attended", DType::F32, q);
    let quantized_attended = placer.quantized("quantized_attended", q);
    placer.at = parts;
    let gated = placer.add("gated", DType::F32, ffn);
    let quantized_gated = placer.quantized("quantized_gated", ffn);
    let buffers =
        Buffers { residual, normed, quantized, qkv, attended, quantized_attended, gated, quantized_gated, logits };
    (placer, buffers)
}

/// Lowers a model.
pub fn lower(model: &Model) -> Lowered {
    let (placer, b) = place(model);
    let h = &model.hyperparameters;
    let plan = Plan {
        buffers: placer.buffers,
        row_bytes: placer.end,
        body: Vec::new(),
        head: Vec::new(),
        residual: b.residual,
        logits: b.logits,
        kv: vec![KvLayer { n_heads: h.n_heads, n_kv_heads: h.n_kv_heads, head_dim: h.head_dim }; model.layers.len()],
        layers: Vec::new(),
    };
    let mut out = Lowered { plan, products: Vec::new(), tensors: Vec::new() };
    let eps = model.rms_eps;
    let rule = model.activation_rule;
    let mut body = Vec::new();

    let embedding = out.dense(&model.embedding);
    let table = model.head.as_ref().map_or(embedding, |head| out.dense(head));
    let inv_freq = out.vector("rope.inv_freq", &model.inv_freq);
    body.push(Step::Embed { table: embedding, out: b.residual });
    for (l, layer) in model.layers.iter().enumerate() {
        let start = body.len() as u32;
        let norm = |out: &mut Lowered, (name, values): &NormWeights, input, to| {
            let weight = out.vector(name, values);
            Step::RmsNorm { input, weight, eps, out: to }
        };
        body.push(norm(&mut out, &layer.input_norm, b.residual, b.normed));
        body.push(Step::Quantize { input: b.normed, rule, out: b.quantized });
        let product = out.product(format!("layers.{l}.qkv"), RowOrder::Sequential, &[&layer.q, &layer.k, &layer.v]);
        body.push(Step::Ternary { product, input: b.quantized, epilogue: Epilogue::Store, out: b.qkv });
        body.push(Step::RopeAppend { qkv: b.qkv, inv_freq, scaling: model.rope_scaling, layer: l as u32 });
        let scale = 1.0 / (h.head_dim as f32).sqrt();
        body.push(Step::Attend { qkv: b.qkv, layer: l as u32, scale, out: b.attended });
        if let Some(sub) = &layer.attention_sub_norm {
            body.push(norm(&mut out, sub, b.attended, b.attended));
        }
        body.push(Step::Quantize { input: b.attended, rule, out: b.quantized_attended });
        let product = out.product(format!("layers.{l}.o"), RowOrder::Sequential, &[&layer.o]);
        body.push(Step::Ternary { product, input: b.quantized_attended, epilogue: Epilogue::Add, out: b.residual });

        body.push(norm(&mut out, &layer.post_attention_norm, b.residual, b.normed));
        body.push(Step::Quantize { input: b.normed, rule, out: b.quantized });
        let product = out.product(format!("layers.{l}.gate_up"), RowOrder::Paired, &[&layer.gate, &layer.up]);
        let epilogue = Epilogue::Gate(model.activation);
        body.push(Step::Ternary { product, input: b.quantized, epilogue, out: b.gated });
        if let Some(sub) = &layer.ffn_sub_norm {
            body.push(norm(&mut out, sub, b.gated, b.gated));
        }
        body.push(Step::Quantize { input: b.gated, rule, out: b.quantized_gated });
        let product = out.product(format!("layers.{l}.down"), RowOrder::Sequential, &[&layer.down]);
        body.push(Step::Ternary { product, input: b.quantized_gated, epilogue: Epilogue::Add, out: b.residual });
        out.plan.layers.push(LayerSteps { start, end: body.len() as u32 });
    }
    let weight = out.vector(&model.final_norm.0, &model.final_norm.1);
    out.plan.head = vec![
        Step::RmsNorm { input: b.residual, weight, eps, out: b.normed },
        Step::Head { input: b.normed, table, out: b.logits },
    ];
    out.plan.body = body;
    out
}
