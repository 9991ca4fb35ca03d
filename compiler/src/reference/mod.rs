//! The compiler's own forward pass. It works on the checkpoint's trits, and is slow, readable, and independent of
//! tiles, plans and kernels. Its logits go into the bundle as known results, and tests compare against it.
//!
//! A model and token ids enter, logits leave. All tokens go through one layer before the next is touched, so that
//! each weight is read once. Sums of floats are taken in f64 and rounded once; `exp`, `sin` and `cos` are those of
//! the `libm` crate: the results are the same bits on every machine, and so is the bundle that holds them.
//!
//! Names and shapes are those of `modeling_bitnet.py`, `modeling_llama.py`, `modeling_qwen3.py` and
//! `modeling_gemma3.py` in transformers. `n` is the number of tokens; token `t` stands at position `t`.

mod delta_net;
pub(crate) mod golden;
mod linear;

use crate::error::CompileError;
use crate::model::{Attention, HeadNorms, Layer, Matrix, Mixer, Model, NormWeights, Projection, Rope};
use trit_format::plan::Activation;

/// Logits `[vocab]` after the last of `ids`.
///
/// # Errors
/// [`CompileError::TokenIds`] where there are no ids or one is outside the vocabulary, [`CompileError::Model`] for a
/// model that is not what its sizes say, and illegal codes in the checkpoint.
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
    mut each_layer: impl FnMut(usize, &[f32]),
) -> Result<Vec<f32>, CompileError> {
    forward_jittered(model, ids, 0.0, |layer, hidden| {
        each_layer(layer, hidden);
        Ok(())
    })
}

/// [`forward`] with an error of up to the fraction `jitter` in the input of every product, always in the same way. It
/// shows what errors in the last bits lead to. An error of `each_layer` ends it.
pub(crate) fn forward_jittered(
    model: &Model,
    ids: &[u32],
    jitter: f32,
    mut each_layer: impl FnMut(usize, &[f32]) -> Result<(), CompileError>,
) -> Result<Vec<f32>, CompileError> {
    model.check()?;
    let dims = &model.hyperparameters;
    let hidden_dim = dims.hidden_dim as usize;
    if let Some(id) = ids.iter().find(|&&id| id >= dims.vocab_size) {
        return Err(CompileError::TokenIds(format!(
            "token {id} is outside the vocabulary of {}",
            dims.vocab_size
        )));
    }
    if ids.is_empty() {
        return Err(CompileError::TokenIds("a forward pass needs at least one token".to_owned()));
    }
    let mut h = vec![0.0; ids.len() * hidden_dim]; // [n, hidden]
    for (h, &id) in h.chunks_exact_mut(hidden_dim).zip(ids) {
        embed(model, id as usize, h)?;
    }
    for (l, layer) in model.layers.iter().enumerate() {
        self::layer(model, layer, &mut h, jitter)?;
        each_layer(l, &h)?;
    }
    Ok(rms_norm(&h, &model.final_norm.1, model.rms_eps))
}

/// The normalized states `[n, hidden]` of the block that drafts tokens, of which row `p` takes token `p` of `ids` and row
/// `p` of `states` `[n, hidden]`: the model's own normalized state before that token. [`head`] makes logits of a row, which
/// are a guess at the token after it.
///
/// # Errors
/// As [`logits`], and [`CompileError::TokenIds`] for another number of states.
pub fn draft(model: &Model, ids: &[u32], states: &[f32]) -> Result<Vec<f32>, CompileError> {
    model.check()?;
    let hidden_dim = model.hyperparameters.hidden_dim as usize;
    let Some(draft) = model.draft.as_deref().filter(|_| states.len() == ids.len() * hidden_dim) else {
        let problem =
            format!("{} tokens with {} numbers of states, or no draft block", ids.len(), states.len());
        return Err(CompileError::TokenIds(problem));
    };
    let eps = model.rms_eps;
    let mut joined = Vec::new(); // [n, 2 * hidden]
    for (&id, state) in ids.iter().zip(states.chunks_exact(hidden_dim)) {
        let mut embedding = vec![0.0; hidden_dim];
        embed(model, id as usize, &mut embedding)?;
        joined.extend(rms_norm(&embedding, &draft.embedding_norm.1, eps));
        joined.extend(rms_norm(state, &draft.hidden_norm.1, eps));
    }
    let mut h = linear::project(model, &draft.join, &joined, 0.0)?; // [n, hidden]
    layer(model, &draft.layer, &mut h, 0.0)?;
    Ok(rms_norm(&h, &draft.final_norm.1, eps))
}

/// Takes the residual stream `h` `[n, hidden]` through a layer.
fn layer(model: &Model, layer: &Layer, h: &mut [f32], jitter: f32) -> Result<(), CompileError> {
    let (dims, eps) = (&model.hyperparameters, model.rms_eps);
    let project = |projection: &Projection, x: &[f32]| linear::project(model, projection, x, jitter);
    let x = rms_norm(h, &layer.input_norm.1, eps); // [n, hidden]
    let o = match &layer.mixer {
        Mixer::Attention(attention) => {
            let Attention { q, k, v, head_norms, output_gate, sub_norm, o, .. } = &**attention;
            let mut q = project(q, &x)?; // [n, n_heads * head_dim]
            let mut k = project(k, &x)?; // [n, n_kv_heads * head_dim]
            let v = project(v, &x)?; // [n, n_kv_heads * head_dim]
            let normalize_heads = |norms: &HeadNorms, q: &mut Vec<f32>, k: &mut Vec<f32>| {
                // The norm has the weights of one head, so every head counts as a row here.
                *q = rms_norm(q, &norms.q.1, eps);
                *k = rms_norm(k, &norms.k.1, eps);
            };
            if let Some(norms) = head_norms.as_ref().filter(|norms| !norms.after_rope) {
                normalize_heads(norms, &mut q, &mut k);
            }
            let table = &model.ropes[attention.rope];
            rope(table, &mut q, dims.n_heads as usize, dims.head_dim as usize);
            rope(table, &mut k, dims.n_kv_heads as usize, dims.head_dim as usize);
            if let Some(norms) = head_norms.as_ref().filter(|norms| norms.after_rope) {
                normalize_heads(norms, &mut q, &mut k);
            }
            let mut a = attend(model, attention, &q, &k, &v); // [n, n_heads * head_dim]
            if let Some(gate) = output_gate {
                let gate = project(gate, &x)?;
                a.iter_mut().zip(&gate).for_each(|(a, g)| *a *= activate(*g, Activation::Sigmoid));
            }
            project(o, &normed(a, sub_norm.as_ref(), eps))? // [n, hidden]
        }
        Mixer::DeltaNet(delta) => {
            let mixed = delta_net::mix(
                delta,
                &project(&delta.qkv, &x)?,
                &project(&delta.b, &x)?,
                &project(&delta.a, &x)?,
            ); // [n, values * value_dim]
            // The norm has the weights of one head, so every head counts as a row here.
            let mut mixed = rms_norm(&mixed, &delta.norm.1, eps);
            let z = project(&delta.z, &x)?;
            mixed.iter_mut().zip(&z).for_each(|(m, z)| *m *= activate(*z, Activation::Silu));
            project(&delta.o, &mixed)?
        }
    };
    add(h, &normed(o, layer.mixer_post_norm.as_ref(), eps));

    let x = rms_norm(h, &layer.ffn_norm.1, eps);
    let gate = project(&layer.gate, &x)?; // [n, ffn]
    let up = project(&layer.up, &x)?; // [n, ffn]
    let m: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| activate(*g, model.activation) * u).collect();
    let m = normed(m, layer.ffn_sub_norm.as_ref(), eps);
    let down = project(&layer.down, &m)?; // [n, hidden]
    add(h, &normed(down, layer.ffn_post_norm.as_ref(), eps));
    Ok(())
}

/// Writes the embedding `[hidden]` of token `id`.
fn embed(model: &Model, id: usize, out: &mut [f32]) -> Result<(), CompileError> {
    match &model.embedding {
        Matrix::Dense(table) => table.read_row(id, out),
        Matrix::Ternary(table) => {
            linear::ternary_row(table, id, out)?;
            if let Some(rotation) = &table.rotation {
                linear::hadamard(out, rotation.block as usize);
                linear::change_signs(out, rotation);
            }
        }
    }
    out.iter_mut().for_each(|x| *x *= model.embedding_scale);
    Ok(())
}

/// Logits `[vocab]` of one normalized state `[hidden]`.
///
/// # Errors
/// [`CompileError::Model`] for a model that is not what its sizes say, [`CompileError::TokenIds`] for a state of
/// another width.
pub fn head(model: &Model, state: &[f32]) -> Result<Vec<f32>, CompileError> {
    model.check()?;
    let table = model.head(); // [vocab, hidden]
    if table.shape()[1] != state.len() {
        return Err(CompileError::TokenIds(format!(
            "the head is {:?}, but the state has {} numbers",
            table.shape(),
            state.len()
        )));
    }
    match (table, model.head_rule()) {
        (Matrix::Ternary(table), Some(rule)) => linear::ternary(table, state, rule),
        (Matrix::Ternary(table), None) => {
            Err(CompileError::Internal(format!("the head {} has no rule", table.name)))
        }
        (Matrix::Dense(table), _) => linear::dense(table, state),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

fn add(h: &mut [f32], y: &[f32]) {
    h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
}

/// `x` `[n, k]`, normalized where there is a norm.
fn normed(x: Vec<f32>, norm: Option<&NormWeights>, eps: f32) -> Vec<f32> {
    match norm {
        Some((_, weight)) => rms_norm(&x, weight, eps),
        None => x,
    }
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

/// Rotates the first elements of every head of `x` `[n, heads * head_dim]` by its token's position.
fn rope(rope: &Rope, x: &mut [f32], heads: usize, head_dim: usize) {
    let half = rope.inv_freq.len();
    for (position, x) in x.chunks_exact_mut(heads * head_dim).enumerate() {
        for head in x.chunks_exact_mut(head_dim) {
            let (a, b) = head[..2 * half].split_at_mut(half);
            for ((a, b), inv_freq) in a.iter_mut().zip(b).zip(&rope.inv_freq) {
                let angle = f64::from(position as f32 * inv_freq);
                let cos = libm::cos(angle) as f32 * rope.scaling;
                let sin = libm::sin(angle) as f32 * rope.scaling;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Causal attention. Where the layer has a window, it sees only the last positions. The shapes are q
/// `[n, n_heads * head_dim]`; k and v `[n, n_kv_heads * head_dim]`; the result is shaped like q.
fn attend(model: &Model, layer: &Attention, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let dims = &model.hyperparameters;
    let (n_heads, n_kv_heads) = (dims.n_heads as usize, dims.n_kv_heads as usize);
    let head_dim = dims.head_dim as usize;
    let scale = model.attention_scale;
    let window = layer.window.map_or(usize::MAX, |window| window as usize);
    let mut out = Vec::with_capacity(q.len());
    for (t, q) in q.chunks_exact(n_heads * head_dim).enumerate() {
        for (h, q) in q.chunks_exact(head_dim).enumerate() {
            let kv_head = h / (n_heads / n_kv_heads);
            let at = |p: usize| (p * n_kv_heads + kv_head) * head_dim;
            let seen = (t + 1).saturating_sub(window)..t + 1;
            let mut scores: Vec<f32> =
                seen.clone().map(|p| dot(q, &k[at(p)..][..head_dim]) * scale).collect(); // [seen]
            softmax(&mut scores);
            let value = |i: usize| {
                let weighted =
                    scores.iter().zip(seen.clone()).map(|(s, p)| f64::from(*s) * f64::from(v[at(p) + i]));
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
        Activation::GeluTanh => {
            let x = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            (0.5 * x * (1.0 + libm::tanh(inner))) as f32
        }
        Activation::Sigmoid => 1.0 / (1.0 + libm::exp(f64::from(-x)) as f32),
        other => unreachable!("the format has no {other:?}"),
    }
}
