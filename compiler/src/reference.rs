//! The compiler's own forward pass: scalar, readable, straight from the model, sharing no code with the runtime.
//!
//! Its logits go into the bundle as goldens. It visits the layers once for all tokens, so that weights larger than
//! memory pass through once.

use crate::error::CompileError;
use crate::model::{Dense, Model, NormWeights, Ternary};
use rayon::prelude::*;
use trit_format::plan::{Activation, ActivationRule, DType, ScaleRule};

/// Row-major `[tokens, width]`.
struct Rows {
    width: usize,
    data: Vec<f32>,
}

impl Rows {
    fn map(&self, width: usize, f: impl Fn(usize, &[f32]) -> Vec<f32>) -> Rows {
        let data = self.data.chunks_exact(self.width).enumerate().flat_map(|(t, x)| f(t, x)).collect();
        Rows { width, data }
    }

    fn row(&self, t: usize) -> &[f32] {
        &self.data[t * self.width..(t + 1) * self.width]
    }
}

/// The logits after the last of `ids`, `[vocab_size]`.
///
/// # Errors
/// What reading a ternary row gives.
pub fn logits(model: &Model, ids: &[u32]) -> Result<Vec<f32>, CompileError> {
    let h = &model.hyperparameters;
    let (dim, heads, kv_heads) = (h.head_dim as usize, h.n_heads as usize, h.n_kv_heads as usize);
    let hidden = h.hidden_dim as usize;
    // x: [tokens, hidden]
    let embed = |id: &u32| dense_row(&model.embedding, *id as usize);
    let mut x = Rows { width: hidden, data: ids.iter().flat_map(embed).collect() };
    for layer in &model.layers {
        let normed = norm(&x, &layer.input_norm, model.rms_eps);
        let (q, k, v) = (linear(model, &normed, &layer.q)?, linear(model, &normed, &layer.k)?, linear(model, &normed, &layer.v)?);
        let (q, k) = (rope(model, &q, dim), rope(model, &k, dim));
        // attended: [tokens, n_heads * head_dim]; query head i reads KV head i / (n_heads / n_kv_heads).
        let mut attended = q.map(heads * dim, |t, q| {
            let head = |i: usize| {
                let from = i / (heads / kv_heads) * dim;
                let q = &q[i * dim..(i + 1) * dim];
                let scores: Vec<f32> =
                    (0..=t).map(|p| dot(q, &k.row(p)[from..from + dim]) / (dim as f32).sqrt()).collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f32 = weights.iter().sum();
                (0..dim)
                    .map(|c| weights.iter().enumerate().map(|(p, w)| w / sum * v.row(p)[from + c]).sum::<f32>())
                    .collect::<Vec<f32>>()
            };
            (0..heads).flat_map(head).collect()
        });
        if let Some(sub) = &layer.attention_sub_norm {
            attended = norm(&attended, sub, model.rms_eps);
        }
        add(&mut x, &linear(model, &attended, &layer.o)?);

        let normed = norm(&x, &layer.post_attention_norm, model.rms_eps);
        let (gate, up) = (linear(model, &normed, &layer.gate)?, linear(model, &normed, &layer.up)?);
        let mut gated = gate.map(gate.width, |t, gate| {
            gate.iter().zip(up.row(t)).map(|(&g, u)| activation(model.activation, g) * u).collect()
        });
        if let Some(sub) = &layer.ffn_sub_norm {
            gated = norm(&gated, sub, model.rms_eps);
        }
        add(&mut x, &linear(model, &gated, &layer.down)?);
    }
    let last = norm(&x, &model.final_norm, model.rms_eps);
    let last = last.row(ids.len() - 1);
    let head = model.head.as_ref().unwrap_or(&model.embedding);
    Ok((0..h.vocab_size as usize).into_par_iter().map(|row| dot(&dense_row(head, row), last)).collect())
}

fn norm(x: &Rows, (_, weight): &NormWeights, eps: f32) -> Rows {
    x.map(x.width, |_, x| {
        let mean = dot(x, x) / x.len() as f32;
        let factor = 1.0 / (mean + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| w * (x * factor)).collect()
    })
}

/// `x [tokens, k]` times a ternary matrix `[rows, k]`, activations quantized to int8 per token.
fn linear(model: &Model, x: &Rows, weight: &Ternary) -> Result<Rows, CompileError> {
    let quantized: Vec<(Vec<i8>, f32)> = x.data.chunks_exact(x.width).map(|x| quantize(x, model.activation_rule)).collect();
    // columns: [rows, tokens]
    let columns: Vec<Vec<f32>> = (0..weight.rows)
        .into_par_iter()
        .map_init(
            || vec![0i8; weight.k],
            |trits, row| {
                weight.trits.read_row(row, trits)?;
                let output = |(q, s): &(Vec<i8>, f32)| {
                    let sum: i32 = q.iter().zip(&*trits).map(|(&q, &t)| i32::from(q) * i32::from(t)).sum();
                    match weight.rule {
                        ScaleRule::Multiply => sum as f32 / s * weight.scale,
                        _ => sum as f32 / (s * weight.scale),
                    }
                };
                Ok(quantized.iter().map(output).collect())
            },
        )
        .collect::<Result<_, CompileError>>()?;
    let data = (0..quantized.len()).flat_map(|t| columns.iter().map(move |c| c[t])).collect();
    Ok(Rows { width: weight.rows, data })
}

fn quantize(x: &[f32], rule: ActivationRule) -> (Vec<i8>, f32) {
    let floor = match rule {
        ActivationRule::AbsmaxPerToken { floor } => floor,
        _ => 1e-5,
    };
    let max = x.iter().fold(floor, |m, v| m.max(v.abs()));
    let s = 127.0 * (1.0 / max);
    (x.iter().map(|v| (v * s).round_ties_even().clamp(-128.0, 127.0) as i8).collect(), s)
}

fn rope(model: &Model, x: &Rows, dim: usize) -> Rows {
    x.map(x.width, |t, x| {
        let mut out = x.to_vec();
        for head in out.chunks_exact_mut(dim) {
            for (i, f) in model.inv_freq.iter().enumerate() {
                let (sin, cos) = f64::from(t as f32 * f).sin_cos();
                let (sin, cos) = (sin as f32 * model.rope_scaling, cos as f32 * model.rope_scaling);
                let (a, b) = (head[i], head[i + dim / 2]);
                head[i] = a * cos - b * sin;
                head[i + dim / 2] = b * cos + a * sin;
            }
        }
        out
    })
}

fn activation(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        _ => x / (1.0 + (-x).exp()),
    }
}

fn add(x: &mut Rows, y: &Rows) {
    x.data.iter_mut().zip(&y.data).for_each(|(x, y)| *x += y);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn dense_row(dense: &Dense, row: usize) -> Vec<f32> {
    let width = dense.shape[1] * dense.dtype.size();
    let bytes = &(*dense.data).as_ref()[row * width..(row + 1) * width];
    let pair = |b: &[u8]| [b[0], b[1]];
    match dense.dtype {
        DType::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(pair(b)).to_f32()).collect(),
        DType::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(pair(b)).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}
