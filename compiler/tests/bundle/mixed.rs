//! A model in memory with all that a model can have: scales of every grouping, projections of floats, norms inside
//! linear layers and behind them, of single heads, windows, two RoPE tables, a ternary table that is tied.

use half::f16;
use std::sync::Arc;
use trit_format::manifest::{Hyperparameters, ModelInfo, TextInfo};
use trit_format::plan::{Activation, DType, ScaleRule};
use tritc::CompileError;
use tritc::model::{
    Activations, Attention, Dense, HeadNorms, Layer, Matrix, Mixer, Model, NormWeights, Projection, Rope,
    Scales, Ternary, TernaryRows,
};

pub const VOCAB: usize = 90;
const HIDDEN: usize = 200;
const FFN: usize = 328;
const HEADS: usize = 2;
const KV_HEADS: usize = 1;
const HEAD_DIM: usize = 64;

/// A generator of numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// In -1..1.
    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }

    fn norm(&mut self, name: &str, len: usize) -> NormWeights {
        (name.to_owned(), (0..len).map(|_| 1.0 + 0.1 * self.float()).collect())
    }

    fn projection(&mut self, name: &str, shape: [usize; 2], scales: Scales) -> Projection {
        Projection { norm: None, matrix: Matrix::Ternary(self.ternary(name, shape, scales)) }
    }

    fn ternary(&mut self, name: &str, [rows, k]: [usize; 2], scales: Scales) -> Ternary {
        let trits = (0..rows * k).map(|_| (self.next() % 3) as i8 - 1).collect();
        let mut matrix =
            Ternary { name: name.to_owned(), rows, k, scales, trits: Arc::new(Empty), rotation: None };
        let per_row = matrix.scales_per_row();
        let scale = |n: &mut Numbers| f16::from_f32(0.05 + 0.04 * n.float()).to_f32();
        // One group in seven is all zero, and its scale too.
        let scales: Vec<f32> =
            (0..rows * per_row).map(|i| if i % 7 == 3 { 0.0 } else { scale(self) }).collect();
        matrix.trits = Arc::new(Rows { trits, scales, k, per_row });
        matrix
    }

    fn dense(&mut self, name: &str, [rows, k]: [usize; 2]) -> Projection {
        let data: Vec<u8> =
            (0..rows * k).flat_map(|_| f16::from_f32(0.05 * self.float()).to_le_bytes()).collect();
        let (name, shape) = (name.to_owned(), vec![rows, k]);
        let dense = Dense { name, dtype: DType::F16, shape, data: Arc::new(data), coder: None };
        Projection { norm: None, matrix: Matrix::Dense(dense) }
    }
}

struct Empty;

impl TernaryRows for Empty {
    fn read_row(&self, _row: usize, _out: &mut [i8]) -> Result<(), CompileError> {
        unreachable!("is replaced before anybody reads")
    }
}

struct Rows {
    trits: Vec<i8>,
    scales: Vec<f32>,
    k: usize,
    per_row: usize,
}

impl TernaryRows for Rows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        out.copy_from_slice(&self.trits[row * self.k..][..self.k]);
        Ok(())
    }

    fn read_scales(&self, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
        out.copy_from_slice(&self.scales[row * self.per_row..][..self.per_row]);
        Ok(())
    }
}

/// A scale for that many columns, in f16.
fn per(columns: u32) -> Scales {
    Scales::Rows { columns, dtype: DType::F16 }
}

fn one(scale: f32, rule: ScaleRule) -> Scales {
    Scales::Tensor { scale, rule }
}

/// q, k and v share a packed matrix, gate and up another; down is of floats.
fn fused(n: &mut Numbers) -> Layer {
    let (attention, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    Layer {
        input_norm: n.norm("input_norm", HIDDEN),
        mixer: Mixer::Attention(Box::new(Attention {
            q: n.projection("layers.0.q", [attention, HIDDEN], per(0)),
            k: n.projection("layers.0.k", [kv, HIDDEN], per(256)),
            v: n.projection("layers.0.v", [kv, HIDDEN], one(0.0375, ScaleRule::Multiply)),
            head_norms: None,
            rope: 0,
            window: None,
            output_gate: None,
            sub_norm: Some(n.norm("attention_sub_norm", attention)),
            o: n.projection("layers.0.o", [HIDDEN, attention], per(64)),
        })),
        mixer_post_norm: None,
        ffn_norm: n.norm("ffn_norm", HIDDEN),
        gate: n.projection("layers.0.gate", [FFN, HIDDEN], per(32)),
        up: n.projection("layers.0.up", [FFN, HIDDEN], per(96)),
        ffn_sub_norm: Some(n.norm("ffn_sub_norm", FFN)),
        down: n.dense("layers.0.down", [HIDDEN, FFN]),
        ffn_post_norm: None,
    }
}

/// Every projection is a step of its own.
fn apart(n: &mut Numbers) -> Layer {
    let (attention, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut layer = Layer {
        input_norm: n.norm("input_norm", HIDDEN),
        mixer: Mixer::Attention(Box::new(Attention {
            q: n.projection("layers.1.q", [attention, HIDDEN], per(128)),
            k: n.dense("layers.1.k", [kv, HIDDEN]),
            v: n.projection("layers.1.v", [kv, HIDDEN], per(128)),
            head_norms: Some(HeadNorms {
                q: n.norm("q_norm", HEAD_DIM),
                k: n.norm("k_norm", HEAD_DIM),
                after_rope: false,
            }),
            rope: 1,
            window: Some(3),
            output_gate: None,
            sub_norm: None,
            o: n.projection("layers.1.o", [HIDDEN, attention], one(20.0, ScaleRule::Divide)),
        })),
        mixer_post_norm: Some(n.norm("attention_post_norm", HIDDEN)),
        ffn_norm: n.norm("ffn_norm", HIDDEN),
        gate: n.dense("layers.1.gate", [FFN, HIDDEN]),
        up: n.projection("layers.1.up", [FFN, HIDDEN], per(0)),
        ffn_sub_norm: None,
        down: n.projection("layers.1.down", [HIDDEN, FFN], per(128)),
        ffn_post_norm: Some(n.norm("ffn_post_norm", HIDDEN)),
    };
    layer.attention_mut().unwrap().q.norm = Some(n.norm("q.rms_norm", HIDDEN));
    layer.gate.norm = Some(n.norm("gate.rms_norm", HIDDEN));
    layer.attention_mut().unwrap().o.norm = Some(n.norm("o.rms_norm", attention));
    layer
}

pub fn model(activations: Activations) -> Model {
    let n = &mut Numbers(11);
    let rope = |base: f32, scaling| Rope {
        inv_freq: (0..HEAD_DIM / 2).map(|i| base.powi(i as i32)).collect(),
        scaling,
    };
    Model {
        info: ModelInfo {
            name: "mixed".to_owned(),
            architecture: "None".to_owned(),
            license: None,
            sources: Vec::new(),
        },
        hyperparameters: Hyperparameters {
            vocab_size: VOCAB as u32,
            hidden_dim: HIDDEN as u32,
            ffn_dim: FFN as u32,
            n_layers: 2,
            n_heads: HEADS as u32,
            n_kv_heads: KV_HEADS as u32,
            head_dim: HEAD_DIM as u32,
            context_length: 64,
        },
        rms_eps: 1e-5,
        linear_rms_eps: 1e-6,
        activations,
        activation: Activation::GeluTanh,
        attention_scale: 0.2,
        embedding_scale: 1.0,
        ropes: vec![rope(0.8, 1.0), rope(0.7, 1.1)],
        embedding: Matrix::Ternary(n.ternary("embed_tokens", [VOCAB, HIDDEN], per(64))),
        head: None,
        layers: vec![fused(n), apart(n)],
        final_norm: n.norm("norm", HIDDEN),
        draft: None,
        text: TextInfo {
            chat_template: None,
            special_tokens: Vec::new(),
            bos: Some(1),
            stop: vec![2],
            sampling: Default::default(),
        },
        tokenizer: None,
        warnings: Default::default(),
        report: Vec::new(),
        inputs: Default::default(),
    }
}

/// The same model with all its matrices as floats.
pub fn dense(mut model: Model) -> Model {
    let widen = |matrix: &mut Matrix| {
        let Matrix::Ternary(ternary) = matrix else { return };
        let mut data = Vec::new();
        for row in 0..ternary.rows {
            data.extend(weights(ternary, row).into_iter().flat_map(f32::to_le_bytes));
        }
        let (name, shape) = (ternary.name.clone(), vec![ternary.rows, ternary.k]);
        *matrix = Matrix::Dense(Dense { name, dtype: DType::F32, shape, data: Arc::new(data), coder: None });
    };
    for layer in &mut model.layers {
        let Mixer::Attention(attention) = &mut layer.mixer else { unreachable!("both have attention") };
        let Attention { q, k, v, o, .. } = &mut **attention;
        let projections = [q, k, v, o, &mut layer.gate, &mut layer.up, &mut layer.down];
        projections.into_iter().for_each(|p| widen(&mut p.matrix));
    }
    widen(&mut model.embedding);
    model
}

/// Row `row` of a matrix as floats, read in the plainest way.
pub fn weights(matrix: &Ternary, row: usize) -> Vec<f32> {
    let mut trits = vec![0; matrix.k];
    matrix.trits.read_row(row, &mut trits).unwrap();
    let mut scales = vec![0.0; matrix.scales_per_row()];
    if !scales.is_empty() {
        matrix.trits.read_scales(row, &mut scales).unwrap();
    }
    let scale = |k: usize| match matrix.scales {
        Scales::Tensor { scale, rule: ScaleRule::Divide } => 1.0 / scale,
        Scales::Tensor { scale, .. } => scale,
        Scales::Rows { columns: 0, .. } => scales[0],
        Scales::Rows { columns, .. } => scales[k / columns as usize],
    };
    trits.iter().enumerate().map(|(k, &t)| f32::from(t) * scale(k)).collect()
}
