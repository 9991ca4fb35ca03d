//! A small model in memory, every size of it different.

use std::sync::Arc;
use trit_format::manifest::{Hyperparameters, ModelInfo, Source, TextInfo};
use trit_format::plan::{Activation, DType, ScaleRule};
use tritc::CompileError;
use tritc::model::{
    Activations, Attention, Dense, Layer, Matrix, Mixer, Model, NormWeights, Projection, Rope, Scales,
    Ternary, TernaryRows,
};

pub const VOCAB: usize = 50;
pub const HIDDEN: usize = 36;
pub const FFN: usize = 90;
const HEADS: usize = 3;
const KV_HEADS: usize = 1;
const HEAD_DIM: usize = 14;

/// A generator of numbers that are the same everywhere.
#[derive(Default)]
pub struct Numbers(u64);

impl Numbers {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// Trits in memory; reading row `broken` fails.
pub struct Rows {
    trits: Vec<i8>,
    k: usize,
    pub broken: Option<usize>,
}

impl TernaryRows for Rows {
    fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
        if self.broken == Some(row) {
            return Err(CompileError::Invalid {
                path: "synthetic".into(),
                problem: format!("row {row} is broken"),
            });
        }
        out.copy_from_slice(&self.trits[row * self.k..][..self.k]);
        Ok(())
    }
}

pub fn matrix(numbers: &mut Numbers, name: &str, rows: usize, k: usize, broken: Option<usize>) -> Ternary {
    let trits = (0..rows * k).map(|_| (numbers.next() % 3) as i8 - 1).collect();
    Ternary {
        rotation: None,
        name: name.to_owned(),
        rows,
        k,
        scales: Scales::Tensor {
            scale: 0.01 + (numbers.next() % 100) as f32 / 1000.0,
            rule: ScaleRule::Multiply,
        },
        trits: Arc::new(Rows { trits, k, broken }),
    }
}

pub fn projection(
    numbers: &mut Numbers,
    name: &str,
    rows: usize,
    k: usize,
    broken: Option<usize>,
) -> Projection {
    Projection { norm: None, matrix: Matrix::Ternary(matrix(numbers, name, rows, k, broken)) }
}

fn norm(numbers: &mut Numbers, name: &str, len: usize) -> NormWeights {
    (name.to_owned(), (0..len).map(|_| 1.0 + 0.1 * numbers.float()).collect())
}

fn dense(numbers: &mut Numbers, name: &str) -> Matrix {
    let data: Vec<u8> = (0..VOCAB * HIDDEN).flat_map(|_| numbers.float().to_le_bytes()).collect();
    let shape = vec![VOCAB, HIDDEN];
    Matrix::Dense(Dense {
        name: name.to_owned(),
        dtype: DType::F32,
        shape,
        data: Arc::new(data),
        coder: None,
    })
}

pub fn model() -> Model {
    let n = &mut Numbers(7);
    let layer = |n: &mut Numbers, l: usize| {
        let name = |part: &str| format!("model.layers.{l}.{part}.weight");
        let attention = HEADS * HEAD_DIM;
        Layer {
            input_norm: norm(n, &name("input_layernorm"), HIDDEN),
            mixer: Mixer::Attention(Box::new(Attention {
                q: projection(n, &name("q_proj"), attention, HIDDEN, None),
                k: projection(n, &name("k_proj"), KV_HEADS * HEAD_DIM, HIDDEN, None),
                v: projection(n, &name("v_proj"), KV_HEADS * HEAD_DIM, HIDDEN, None),
                head_norms: None,
                rope: 0,
                window: None,
                output_gate: None,
                sub_norm: (l == 0).then(|| norm(n, &name("attn_sub_norm"), attention)),
                o: projection(n, &name("o_proj"), HIDDEN, attention, None),
            })),
            mixer_post_norm: None,
            ffn_norm: norm(n, &name("post_attention_layernorm"), HIDDEN),
            gate: projection(n, &name("gate_proj"), FFN, HIDDEN, None),
            up: projection(n, &name("up_proj"), FFN, HIDDEN, None),
            ffn_sub_norm: (l == 0).then(|| norm(n, &name("ffn_sub_norm"), FFN)),
            down: projection(n, &name("down_proj"), HIDDEN, FFN, None),
            ffn_post_norm: None,
        }
    };
    Model {
        info: ModelInfo {
            name: "synthetic".to_owned(),
            architecture: "BitNetForCausalLM".to_owned(),
            license: Some("CC0-1.0".to_owned()),
            sources: vec![Source { file: "model.safetensors".to_owned(), len: 1, sha256: [7; 32] }],
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
        activations: Activations::PerToken { floor: 1e-5 },
        activation: Activation::Relu2,
        attention_scale: (1.0 / (HEAD_DIM as f64).sqrt()) as f32,
        embedding_scale: 1.0,
        ropes: vec![Rope {
            inv_freq: (0..HEAD_DIM / 2).map(|i| 0.5f32.powi(i as i32)).collect(),
            scaling: 1.0,
        }],
        embedding: dense(n, "model.embed_tokens.weight"),
        head: None,
        layers: vec![layer(n, 0), layer(n, 1)],
        final_norm: norm(n, "model.norm.weight", HIDDEN),
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

/// The same with an untied head.
pub fn untied() -> Model {
    let mut model = model();
    model.head = Some(dense(&mut Numbers(8), "lm_head.weight"));
    model
}
