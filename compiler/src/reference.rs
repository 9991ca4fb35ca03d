//! The compiler's own forward pass, straight from the checkpoint's trits: slow, readable, and independent of tiles,
//! plans and kernels. Its logits go into the bundle as known results, and tests compare against it.
//!
//! A model and token ids enter, logits leave. All tokens go through one layer before the next is touched, so that
//! each weight is read once. Sums of floats are taken in f64 and rounded once; `exp`, `sin` and `cos` are those of
//! the `libm` crate: the results are the same bits on every machine, and so is the bundle that holds them.
//!
//! Names and shapes are those of `modeling_bitnet.py` and `modeling_llama.py` in transformers. `n` is the number of
//! tokens; token `t` stands at position `t`.

use crate::error::CompileError;
use crate::model::{Activations, Dense, Matrix, Model, Projection, Rope, Scales};
use half::{bf16, f16};
use rayon::prelude::*;
use trit_format::plan::{Activation, DType, ScaleRule};

/// Logits `[vocab]` after the last of `ids`.
///
/// # Errors
/// [`CompileError::Usage`] where there are no ids or one is outside the vocabulary, and illegal codes in the
/// checkpoint.
pub fn logits(model: &Model, ids: &[u32]) -> Result<Vec<f32>, CompileError> {
    let states = forward(model, ids, |_, _| ())?;
    let hidden_dim = model.hyperparameters.hidden_dim as usize;
    head(model, &states[states.len() - hidden_dim..])
}

/// The normalized final states `[n, hidden]`, what the head is multiplied with. After layer `l`, `each_layer` sees
/// `l` and the residual stream `[n, hidden]`.
///
/// # Errors
/// As [`logits`].
pub fn forward(
    model: &Model,
    ids: &[u32],
    each_layer: impl FnMut(usize, &[f32]),
) -> Result<Vec<f32>, CompileError> {
    forward_jittered(model, ids, 0.0, each_layer)
}

/// [`forward`] with the input of every product wrong by up to the fraction `jitter`, always in the same way: what
/// becomes of errors in the last bits.
pub(crate) fn forward_jittered(
    model: &Model,
    ids: &[u32],
    jitter: f32,
    mut each_layer: impl FnMut(usize, &[f32]),
) -> Result<Vec<f32>, CompileError> {
    let dims = &model.hyperparameters;
    let hidden_dim = dims.hidden_dim as usize;
    if let Some(id) = ids.iter().find(|&&id| id >= dims.vocab_size) {
        return Err(CompileError::Usage(format!(
            "token {id} is outside the vocabulary of {}",
            dims.vocab_size
        )));
    }
    if ids.is_empty() {
        return Err(CompileError::Usage("a forward pass needs at least one token".to_owned()));
    }
    let mut h = vec![0.0; ids.len() * hidden_dim]; // [n, hidden]
    for (h, &id) in h.chunks_exact_mut(hidden_dim).zip(ids) {
        dense_row(floats(&model.embedding)?, id as usize, h);
    }
    let quantize = |x: &[f32], k: usize| {
        let x: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * (1.0 + jitter * noise(i))).collect();
        quantize(&x, k, model.activations)
    };
    for (l, layer) in model.layers.iter().enumerate() {
        let x = rms_norm(&h, &layer.input_norm.1, model.rms_eps); // [n, hidden]
        let x = quantize(&x, hidden_dim);
        let mut q = bit_linear(&layer.q, &x)?; // [n, n_heads * head_dim]
        let mut k = bit_linear(&layer.k, &x)?; // [n, n_kv_heads * head_dim]
        let v = bit_linear(&layer.v, &x)?; // [n, n_kv_heads * head_dim]
        rope(&model.ropes[layer.rope], &mut q, dims.n_heads as usize);
        rope(&model.ropes[layer.rope], &mut k, dims.n_kv_heads as usize);
        let mut a = attention(model, &q, &k, &v); // [n, n_heads * head_dim]
        if let Some((_, weight)) = &layer.attention_sub_norm {
            a = rms_norm(&a, weight, model.rms_eps);
        }
        add(&mut h, &bit_linear(&layer.o, &quantize(&a, layer.o.matrix.shape()[1]))?);

        let x = rms_norm(&h, &layer.ffn_norm.1, model.rms_eps);
        let x = quantize(&x, hidden_dim);
        let gate = bit_linear(&layer.gate, &x)?; // [n, ffn]
        let up = bit_linear(&layer.up, &x)?; // [n, ffn]
        let mut m: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| activate(*g, model.activation) * u).collect();
        if let Some((_, weight)) = &layer.ffn_sub_norm {
            m = rms_norm(&m, weight, model.rms_eps);
        }
        add(&mut h, &bit_linear(&layer.down, &quantize(&m, layer.down.matrix.shape()[1]))?);
        each_layer(l, &h);
    }
    Ok(rms_norm(&h, &model.final_norm.1, model.rms_eps))
}

/// Logits `[vocab]` of one normalized state `[hidden]`.
///
/// # Errors
/// [`CompileError::Internal`] for a state of another width.
pub fn head(model: &Model, state: &[f32]) -> Result<Vec<f32>, CompileError> {
    let table = floats(model.head())?; // [vocab, hidden]
    if table.shape.last() != Some(&state.len()) {
        return Err(CompileError::Internal(format!(
            "the head is {:?}, a state {}",
            table.shape,
            state.len()
        )));
    }
    let mut logits = vec![0.0; model.hyperparameters.vocab_size as usize];
    logits.par_iter_mut().enumerate().for_each_init(
        || vec![0.0; state.len()],
        |row, (id, logit)| {
            dense_row(table, id, row);
            *logit = dot(row, state);
        },
    );
    Ok(logits)
}

fn floats(matrix: &Matrix) -> Result<&Dense, CompileError> {
    matrix.dense().ok_or_else(|| CompileError::Internal(format!("{} is ternary", matrix.name())))
}

fn dense_row(matrix: &Dense, row: usize, out: &mut [f32]) {
    widen_row(matrix.dtype, (*matrix.data).as_ref(), row, out);
}

/// Widens row `row` of a matrix of little-endian floats to f32.
pub(crate) fn widen_row(dtype: DType, matrix: &[u8], row: usize, out: &mut [f32]) {
    let len = out.len() * dtype.size();
    let bytes = &matrix[row * len..][..len];
    match dtype {
        DType::F32 => widen(bytes, out, f32::from_le_bytes),
        DType::F16 => widen(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::Bf16 => widen(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        other => unreachable!("checkpoints hold no dense {other:?}"),
    }
}

fn widen<const N: usize>(bytes: &[u8], out: &mut [f32], one: impl Fn([u8; N]) -> f32) {
    for (x, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *x = one(b);
    }
}

/// A number in -1..1 that looks random: the fractional part of `i` times the golden ratio.
fn noise(i: usize) -> f32 {
    let golden = (i as u32).wrapping_mul(0x9e37_79b9);
    golden as i32 as f32 / -(i32::MIN as f32)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

fn add(h: &mut [f32], y: &[f32]) {
    h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
}

/// `weight * (x * (1 / sqrt(mean(x^2) + eps)))` of each row of `x` `[n, weight.len()]`.
fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for x in x.chunks_exact(weight.len()) {
        let mean = dot(x, x) / x.len() as f32;
        let factor = 1.0 / (mean + eps).sqrt();
        out.extend(x.iter().zip(weight).map(|(x, w)| w * (x * factor)));
    }
    out
}

/// Activations as int8.
struct Int8 {
    /// `[n, k]`.
    values: Vec<i8>,
    /// The factor each row was multiplied with, `[n]`.
    scales: Vec<f32>,
    k: usize,
}

/// Quantizes each row of `x` `[n, k]`, as `ActQuant` in transformers' `integrations/bitnet.py`.
fn quantize(x: &[f32], k: usize, activations: Activations) -> Int8 {
    let Activations::PerToken { floor } = activations else { unreachable!("arch makes no {activations:?}") };
    let mut out = Int8 { values: Vec::with_capacity(x.len()), scales: Vec::new(), k };
    for x in x.chunks_exact(k) {
        let max = x.iter().fold(floor, |max, x| max.max(x.abs()));
        let s = 127.0 * (1.0 / max);
        out.values.extend(x.iter().map(|x| (x * s).round_ties_even().clamp(-128.0, 127.0) as i8));
        out.scales.push(s);
    }
    out
}

/// `x W^T` `[n, rows]`: exact integer sums of activations times trits, then the scale in the checkpoint's direction.
fn bit_linear(projection: &Projection, x: &Int8) -> Result<Vec<f32>, CompileError> {
    let Matrix::Ternary(matrix) = &projection.matrix else {
        return Err(CompileError::Internal(format!("{} is not ternary", projection.matrix.name())));
    };
    let Scales::Tensor { scale, rule } = matrix.scales else {
        return Err(CompileError::Internal(format!("{} has several scales", matrix.name)));
    };
    let (n, rows, k) = (x.scales.len(), matrix.rows, matrix.k);
    if k != x.k {
        return Err(CompileError::Internal(format!("{} has {k} columns, its input {}", matrix.name, x.k)));
    }
    let mut by_row = vec![0.0; rows * n]; // [rows, n]: a thread owns whole rows
    by_row.par_chunks_exact_mut(n).enumerate().try_for_each_init(
        || vec![0i8; k],
        |trits, (row, out)| {
            matrix.trits.read_row(row, trits)?;
            for ((y, s), values) in out.iter_mut().zip(&x.scales).zip(x.values.chunks_exact(k)) {
                let sum: i32 = trits.iter().zip(values).map(|(t, q)| i32::from(*t) * i32::from(*q)).sum();
                *y = match rule {
                    ScaleRule::Multiply => sum as f32 / s * scale,
                    ScaleRule::Divide => sum as f32 / (s * scale),
                    other => unreachable!("ingest makes no {other:?}"),
                };
            }
            Ok(())
        },
    )?;
    matrix.trits.release();
    Ok((0..n).flat_map(|t| by_row.iter().skip(t).step_by(n).copied()).collect())
}

/// Rotates every head of `x` `[n, heads * head_dim]` by its token's position.
fn rope(rope: &Rope, x: &mut [f32], heads: usize) {
    let half = rope.inv_freq.len();
    for (position, x) in x.chunks_exact_mut(heads * 2 * half).enumerate() {
        for head in x.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for ((a, b), inv_freq) in a.iter_mut().zip(b).zip(&rope.inv_freq) {
                let angle = f64::from(position as f32 * inv_freq);
                let cos = libm::cos(angle) as f32 * rope.scaling;
                let sin = libm::sin(angle) as f32 * rope.scaling;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Causal attention: q `[n, n_heads * head_dim]`; k and v `[n, n_kv_heads * head_dim]`; the result is shaped like q.
fn attention(model: &Model, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let dims = &model.hyperparameters;
    let (n_heads, n_kv_heads) = (dims.n_heads as usize, dims.n_kv_heads as usize);
    let head_dim = dims.head_dim as usize;
    let scale = model.attention_scale;
    let mut out = Vec::with_capacity(q.len());
    for (t, q) in q.chunks_exact(n_heads * head_dim).enumerate() {
        for (h, q) in q.chunks_exact(head_dim).enumerate() {
            let kv_head = h / (n_heads / n_kv_heads);
            let at = |p: usize| (p * n_kv_heads + kv_head) * head_dim;
            let mut scores: Vec<f32> = (0..=t).map(|p| dot(q, &k[at(p)..][..head_dim]) * scale).collect(); // [t + 1]
            softmax(&mut scores);
            let value = |i: usize| {
                let weighted =
                    scores.iter().enumerate().map(|(p, s)| f64::from(*s) * f64::from(v[at(p) + i]));
                weighted.sum::<f64>() as f32
            };
            out.extend((0..head_dim).map(value));
        }
    }
    out
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = libm::exp(f64::from(*x - max)) as f32);
    let sum = x.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
    x.iter_mut().for_each(|x| *x /= sum);
}

fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::Silu => x / (1.0 + libm::exp(f64::from(-x)) as f32),
        other => unreachable!("arch makes no {other:?}"),
    }
}
