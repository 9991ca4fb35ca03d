//! The model: two layers, one of fused grouped matrices, one of packed matrices side by side, floats among them.

use half::{bf16, f16};
use trit_runtime::format::container::{Digest, Header, Section, SectionKind};
use trit_runtime::format::dense243::Code;
use trit_runtime::format::manifest::*;
use trit_runtime::format::plan::*;
use trit_runtime::format::tile;

const VOCAB: u32 = 90;
pub const HIDDEN: u32 = 200;
const FFN: u32 = 100;
pub const KV: KvLayer = KvLayer { n_heads: 4, n_kv_heads: 2, head_dim: 16 };
pub const HEADS: u32 = KV.n_heads * KV.head_dim;
pub const KV_WIDTH: u32 = KV.n_kv_heads * KV.head_dim;

/// How packed matrices and activations are grouped.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub columns: u32,
    pub fixed: bool,
    pub scale_columns: u32,
    pub scale: DType,
    /// Embedding and head are the same ternary matrix, or floats.
    pub ternary_ends: bool,
}

/// A bundle, and its packed matrices as plain numbers.
pub struct Small {
    pub manifest: Manifest,
    variant: Variant,
    weights: Vec<u8>,
    tensors: Vec<u8>,
    /// By packed matrix, `[rows, k]`.
    pub matrices: Vec<Vec<f64>>,
    random: u64,
}

impl Small {
    pub fn new(variant: Variant) -> Small {
        let mut small = Small {
            manifest: empty(),
            variant,
            weights: Vec::new(),
            tensors: Vec::new(),
            matrices: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        small.build();
        let golden = [3, 1, 4];
        let logits = crate::plain::logits(&small, &golden);
        let last: Vec<f32> = logits[2 * VOCAB as usize..].iter().map(|&l| l as f32).collect();
        let logits = small.tensor(DType::F32, &[VOCAB], &last);
        small.manifest.goldens.push(Golden { ids: golden.into(), logits });
        small
    }

    /// Adds a packed matrix of one tile that no step uses, of `k` columns without groups.
    pub fn add_shape(&mut self, k: u32) {
        let id = self.manifest.packed_matrices.len();
        let segment = Segment { name: format!("odd.{id}"), rows: 1, scale: 1.0, rule: ScaleRule::Multiply };
        let matrix = PackedMatrix {
            name: format!("odd.{id}"),
            k,
            code: Code::SignedFix,
            order: RowOrder::Sequential,
            grouping: None,
            segments: vec![segment],
            offset: self.weights.len() as u64,
        };
        let trits: Vec<i8> = (0..tile::ROWS * k as usize)
            .map(|i| if i < k as usize { (self.next() * 1.49).round() as i8 } else { 0 })
            .collect();
        let mut bytes = vec![0; tile::bytes(k as usize)];
        tile::encode(&trits, k as usize, matrix.code, &mut bytes).unwrap();
        self.weights.extend(bytes);
        self.weights.resize(self.weights.len().next_multiple_of(64), 0);
        self.manifest.packed_matrices.push(matrix);
    }

    pub fn vocab(&self) -> u32 {
        VOCAB
    }

    pub fn file(&self) -> Vec<u8> {
        let sections = [
            (SectionKind::Manifest, self.manifest.encode().unwrap()),
            (SectionKind::Weights, self.weights.clone()),
            (SectionKind::Tensors, self.tensors.clone()),
        ];
        let (mut header, mut end) = (Header { sections: Vec::new() }, Header::bytes(sections.len()));
        for (kind, bytes) in &sections {
            let offset = end.next_multiple_of(kind.alignment());
            end = offset + bytes.len() as u64;
            let (len, digest) = (bytes.len() as u64, Digest::of(bytes));
            header.sections.push(Section { kind: *kind, offset, len, digest });
        }
        let mut file = header.encode();
        for (section, (_, bytes)) in header.sections.iter().zip(sections) {
            file.resize(section.offset as usize, 0);
            file.extend_from_slice(&bytes);
        }
        file
    }

    /// The values of a float tensor.
    pub fn floats(&self, id: TensorId) -> Vec<f64> {
        let tensor = &self.manifest.tensors[id.0 as usize];
        let bytes = &self.tensors[tensor.offset as usize..][..tensor.bytes().unwrap() as usize];
        let value = |b: &[u8]| match (tensor.dtype, b) {
            (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).into(),
            (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).into(),
            other => panic!("{other:?}"),
        };
        bytes.chunks_exact(tensor.dtype.size()).map(value).collect()
    }

    /// In -1..1.
    pub fn next(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, dtype: DType, shape: &[u32], values: &[f32]) -> TensorId {
        self.tensors.resize(self.tensors.len().next_multiple_of(64), 0);
        let (id, offset) = (self.manifest.tensors.len(), self.tensors.len() as u64);
        values.iter().for_each(|&v| self.tensors.extend(bytes(dtype, v)));
        let shape = shape.iter().map(|&n| n.into()).collect();
        self.manifest.tensors.push(Tensor { name: format!("tensor.{id}"), dtype, shape, offset });
        TensorId(id as u32)
    }

    pub fn table(&mut self, dtype: DType, rows: u32, columns: u32) -> TensorId {
        let values: Vec<f32> =
            (0..rows * columns).map(|_| 2.0 * self.next() / (columns as f32).sqrt()).collect();
        self.tensor(dtype, &[rows, columns], &values)
    }

    pub fn norm(&mut self, n: u32) -> TensorId {
        let values: Vec<f32> = (0..n).map(|_| 1.0 + 0.3 * self.next()).collect();
        self.tensor(DType::F32, &[n], &values)
    }

    pub fn buffer(&mut self, name: &str, dtype: DType, len: u32) -> BufferId {
        let plan = &mut self.manifest.plan;
        let bytes = u64::from(len) * dtype.size() as u64;
        let stride = if (len, dtype.size()) == (1, 4) { 4 } else { bytes.next_multiple_of(64) };
        plan.buffers.push(Buffer { name: name.into(), dtype, len, offset: plan.row_bytes, stride });
        plan.row_bytes += stride.next_multiple_of(64);
        BufferId(plan.buffers.len() as u32 - 1)
    }

    pub fn rule(&self) -> ActivationRule {
        let columns = self.variant.columns;
        match self.variant.fixed {
            true => ActivationRule::Fixed24PerGroup { columns },
            false => ActivationRule::AbsmaxPerGroup { columns },
        }
    }

    pub fn quantized(&mut self, name: &str, k: u32) -> Quantized {
        let (rule, groups) = (self.rule(), k.div_ceil(self.variant.columns));
        let digits = rule.digits() as u32;
        let len = ActivationRule::digit_len(k, self.variant.columns) as u32;
        Quantized {
            values: self.buffer(name, DType::I8, digits * len),
            scale: self.buffer(&format!("{name}.scale"), DType::F32, groups),
            sum: self.buffer(&format!("{name}.sum"), DType::I32, digits * groups),
        }
    }

    /// A grouped packed matrix with random trits and scales.
    pub fn matrix(&mut self, order: RowOrder, rows: &[u32], k: u32) -> PackedMatrixId {
        let id = self.manifest.packed_matrices.len();
        let Variant { columns, scale_columns, scale, .. } = self.variant;
        let segment = |(i, &rows): (usize, &u32)| Segment {
            name: format!("product.{id}.{i}"),
            rows,
            scale: 1.0,
            rule: ScaleRule::Multiply,
        };
        let matrix = PackedMatrix {
            name: format!("product.{id}"),
            k,
            code: if id.is_multiple_of(2) { Code::SignedFix } else { Code::Spread },
            order,
            grouping: Some(Grouping { columns, scale_columns, scale }),
            segments: rows.iter().enumerate().map(segment).collect(),
            offset: self.weights.len() as u64,
        };
        let (n, scales) = (matrix.rows() as usize, matrix.scales() as usize);
        let trits: Vec<i8> = (0..n * k as usize).map(|_| (self.next() * 1.49).round() as i8).collect();
        let scales: Vec<Vec<u8>> = (0..n * scales)
            .map(|_| bytes(scale, (1.0 + 0.5 * self.next()) * 2.0 / (k as f32).sqrt()))
            .collect();
        self.matrices.push(dense(&matrix, &trits, &scales));
        self.weights.extend(tiles(&matrix, &trits, &scales));
        self.weights.resize(self.weights.len().next_multiple_of(64), 0);
        self.manifest.packed_matrices.push(matrix);
        PackedMatrixId(id as u32)
    }

    fn build(&mut self) {
        let [h, x, y] = ["h", "x", "y"].map(|name| self.buffer(name, DType::F32, HIDDEN));
        let qkv = self.buffer("qkv", DType::F32, HEADS + 2 * KV_WIDTH);
        let attended = self.buffer("attended", DType::F32, HEADS);
        let [gate, up] = ["gate", "up"].map(|name| self.buffer(name, DType::F32, FFN));
        let logits = self.buffer("logits", DType::F32, VOCAB);
        let qh = self.quantized("qh", HIDDEN);
        let qa = self.quantized("qa", HEADS);
        let qg = self.quantized("qg", FFN);
        let inv_freq: Vec<f32> = (0..KV.head_dim / 2).map(|i| 0.4f32.powi(i as i32)).collect();
        let inv_freq = self.tensor(DType::F32, &[KV.head_dim / 2], &inv_freq);
        let (rule, eps) = (self.rule(), 1e-5);
        let ends = match self.variant.ternary_ends {
            true => Ok(self.matrix(RowOrder::Sequential, &[VOCAB], HIDDEN)),
            false => Err([DType::Bf16, DType::F32].map(|dtype| self.table(dtype, VOCAB, HIDDEN))),
        };
        let store = |matrix, input, out, at| {
            let epilogue = Epilogue::Store;
            Step::Ternary { matrix, input, epilogue, out, at }
        };
        let add = |matrix, input, out| Step::Ternary { matrix, input, epilogue: Epilogue::Add, out, at: 0 };
        let linear = |table, input, epilogue, out, at| Step::Linear { table, input, epilogue, out, at };
        let rope = |norms, layer| Step::RopeAppend { qkv, norms, inv_freq, scaling: 1.25, layer };
        let attend = |layer, window| Step::Attend { qkv, layer, scale: 0.25, window, out: attended };
        let quantize = |input, out| Step::Quantize { input, rule, out };
        let norm_quantize = |weight, out| Step::NormQuantize { input: h, weight, eps, rule, out };
        let norm = |weight| Step::RmsNorm { input: h, weight, eps, out: x };
        let norm_add = |weight| Step::RmsNormAdd { input: y, weight, eps, out: h };

        let embed = match ends {
            Ok(matrix) => Step::EmbedTernary { matrix, out: h },
            Err([table, _]) => Step::Embed { table, scale: 3.0, out: h },
        };
        let gated = Epilogue::Gate(Activation::GeluTanh);
        let head_norms = HeadNorms { q: self.norm(KV.head_dim), k: self.norm(KV.head_dim), eps };
        let fused = [
            norm_quantize(self.norm(HIDDEN), qh),
            store(self.matrix(RowOrder::Sequential, &[HEADS, KV_WIDTH, KV_WIDTH], HIDDEN), qh, qkv, 0),
            rope(Some(head_norms), 0),
            attend(0, Some(3)),
            quantize(attended, qa),
            store(self.matrix(RowOrder::Sequential, &[HIDDEN], HEADS), qa, y, 0),
            norm_add(self.norm(HIDDEN)),
            norm_quantize(self.norm(HIDDEN), qh),
            Step::Ternary {
                matrix: self.matrix(RowOrder::Paired, &[FFN, FFN], HIDDEN),
                input: qh,
                epilogue: gated,
                out: gate,
                at: 0,
            },
            quantize(gate, qg),
            add(self.matrix(RowOrder::Sequential, &[HIDDEN], FFN), qg, h),
        ];
        // Models whose ends are floats normalize the heads of this layer after RoPE, the others not at all.
        let split_rope = match self.variant.ternary_ends {
            true => rope(None, 1),
            false => {
                let norms = HeadNorms { q: self.norm(KV.head_dim), k: self.norm(KV.head_dim), eps };
                Step::RopeNormAppend { qkv, norms, inv_freq, scaling: 1.25, layer: 1 }
            }
        };
        let split = [
            norm(self.norm(HIDDEN)),
            quantize(x, qh),
            store(self.matrix(RowOrder::Sequential, &[HEADS], HIDDEN), qh, qkv, 0),
            linear(self.table(DType::F16, KV_WIDTH, HIDDEN), x, Epilogue::Store, qkv, HEADS),
            norm_quantize(self.norm(HIDDEN), qh),
            store(self.matrix(RowOrder::Sequential, &[KV_WIDTH], HIDDEN), qh, qkv, HEADS + KV_WIDTH),
            split_rope,
            attend(1, None),
            linear(self.table(DType::F32, HIDDEN, HEADS), attended, Epilogue::Add, h, 0),
            norm(self.norm(HIDDEN)),
            quantize(x, qh),
            store(self.matrix(RowOrder::Sequential, &[FFN], HIDDEN), qh, gate, 0),
            linear(self.table(DType::Bf16, FFN, HIDDEN), x, Epilogue::Store, up, 0),
            Step::Gate { gate, up, activation: Activation::Silu, out: gate },
            quantize(gate, qg),
            store(self.matrix(RowOrder::Sequential, &[HIDDEN], FFN), qg, y, 0),
            norm_add(self.norm(HIDDEN)),
        ];
        let head = match ends {
            Ok(matrix) => {
                vec![norm(self.norm(HIDDEN)), quantize(x, qh), store(matrix, qh, logits, 0)]
            }
            Err([_, table]) => {
                vec![norm(self.norm(HIDDEN)), Step::Head { input: x, table, planes: None, out: logits }]
            }
        };
        let plan = &mut self.manifest.plan;
        let middle = 1 + fused.len() as u32;
        let end = middle + split.len() as u32;
        plan.body = [embed].into_iter().chain(fused).chain(split).collect();
        plan.head = head;
        (plan.residual, plan.logits) = (h, logits);
        plan.kv = vec![KV; 2];
        plan.layers = vec![LayerSteps { start: 1, end: middle }, LayerSteps { start: middle, end }];
    }
}

fn bytes(dtype: DType, value: f32) -> Vec<u8> {
    match dtype {
        DType::F32 => value.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn value(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        DType::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).into(),
        _ => bf16::from_le_bytes(bytes.try_into().unwrap()).into(),
    }
}

/// Trits `[rows, k]` times scales `[rows, scales]`.
fn dense(matrix: &PackedMatrix, trits: &[i8], scales: &[Vec<u8>]) -> Vec<f64> {
    let Grouping { scale_columns, scale, .. } = matrix.grouping.unwrap();
    let (k, of_row) = (matrix.k as usize, matrix.scales() as usize);
    let weight = |(i, &trit): (usize, &i8)| {
        let (row, column) = (i / k, i % k);
        let at = column.checked_div(scale_columns as usize).unwrap_or(0);
        f64::from(trit) * value(scale, &scales[row * of_row + at])
    };
    trits.iter().enumerate().map(weight).collect()
}

/// The bytes of a packed matrix's tiles, from SPEC.md, section 6.
fn tiles(matrix: &PackedMatrix, trits: &[i8], scales: &[Vec<u8>]) -> Vec<u8> {
    let grouping = matrix.grouping.unwrap();
    let (k, columns, of_row) = (matrix.k as usize, grouping.columns as usize, matrix.scales() as usize);
    let mut out = Vec::new();
    for tile in 0..matrix.tiles() as usize {
        let row = |r: usize| match matrix.order {
            RowOrder::Paired => {
                let n = matrix.segments[0].rows as usize;
                let of_segment = tile * 40 + r % 40;
                (of_segment < n).then_some(r / 40 * n + of_segment)
            }
            _ => Some(tile * 80 + r).filter(|&r| r < matrix.rows() as usize),
        };
        for group in 0..matrix.groups() as usize {
            let trit = |r: usize, c: usize| match row(r) {
                Some(row) if c < k => trits[row * k + c],
                _ => 0,
            };
            let of_group: Vec<i8> =
                (0..80 * columns).map(|i| trit(i / columns, group * columns + i % columns)).collect();
            let mut bytes = vec![0; tile::bytes(columns)];
            tile::encode(&of_group, columns, matrix.code, &mut bytes).unwrap();
            out.extend(bytes);
        }
        for scale in 0..of_row {
            for r in 0..80 {
                match row(r) {
                    Some(row) => out.extend(&scales[row * of_row + scale]),
                    None => out.extend(vec![0; grouping.scale.size()]),
                }
            }
        }
        out.resize(out.len().next_multiple_of(64), 0);
    }
    assert_eq!(out.len() as u64, matrix.bytes().unwrap());
    out
}

fn empty() -> Manifest {
    Manifest {
        compiler: "by hand".into(),
        model: ModelInfo {
            name: "small".into(),
            architecture: "Test".into(),
            license: None,
            sources: vec![],
        },
        hyperparameters: Hyperparameters {
            vocab_size: VOCAB,
            hidden_dim: HIDDEN,
            ffn_dim: FFN,
            n_layers: 2,
            n_heads: KV.n_heads,
            n_kv_heads: KV.n_kv_heads,
            head_dim: KV.head_dim,
            context_length: 512,
        },
        tensors: vec![],
        packed_matrices: vec![],
        planes: vec![],
        plan: Plan {
            buffers: vec![],
            row_bytes: 0,
            body: vec![],
            head: vec![],
            residual: BufferId(0),
            logits: BufferId(0),
            kv: vec![],
            layers: vec![],
        },
        kernels: vec![],
        text: TextInfo {
            chat_template: None,
            special_tokens: vec![],
            bos: None,
            stop: vec![],
            sampling: SamplingDefaults::default(),
        },
        goldens: vec![],
    }
}
