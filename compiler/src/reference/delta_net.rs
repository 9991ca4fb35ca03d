//! Gated DeltaNet, token by token, as `torch_recurrent_gated_delta_rule` of transformers' `modeling_qwen3_5.py`. The state
//! and all sums are f64.

use crate::model::DeltaNet;
use trit_format::plan::DeltaHeads;

/// What the heads read, `[n, values * value_dim]`, from `qkv` `[n, channels]` and the gates' inputs `b` and `a` `[n,
/// values]`.
pub(super) fn mix(delta: &DeltaNet, qkv: &[f32], b: &[f32], a: &[f32]) -> Vec<f32> {
    let DeltaHeads { keys, values, key_dim, value_dim } = delta.heads;
    let [keys, values, key_dim, value_dim] = [keys, values, key_dim, value_dim].map(|n| n as usize);
    let channels = delta.heads.qkv_len() as usize;
    let qkv = convolve(&delta.convolution.1, qkv, channels);
    let mut states = vec![vec![vec![0f64; value_dim]; key_dim]; values]; // each [key_dim, value_dim]
    let mut out = Vec::with_capacity(b.len() * value_dim);
    for (token, qkv) in qkv.chunks_exact(channels).enumerate() {
        for (head, state) in states.iter_mut().enumerate() {
            let key_head = head / (values / keys);
            let q = unit(&qkv[key_head * key_dim..][..key_dim]);
            let k = unit(&qkv[(keys + key_head) * key_dim..][..key_dim]);
            let v = &qkv[2 * keys * key_dim + head * value_dim..][..value_dim];
            let gate = token * values + head;
            let beta = 1.0 / (1.0 + libm::exp(-f64::from(b[gate])));
            let step = f64::from(a[gate]) + f64::from(delta.bias.1[head]);
            let softplus = if step > 20.0 { step } else { libm::log1p(libm::exp(step)) };
            let decay = libm::exp(f64::from(delta.rates.1[head]) * softplus);
            state.iter_mut().flatten().for_each(|s| *s *= decay);
            let read = |x: &[f64], state: &[Vec<f64>], c: usize| -> f64 {
                x.iter().zip(state).map(|(x, row)| x * row[c]).sum()
            };
            let change: Vec<f64> =
                v.iter().enumerate().map(|(c, v)| (v - read(&k, state, c)) * beta).collect();
            for (row, k) in state.iter_mut().zip(&k) {
                row.iter_mut().zip(&change).for_each(|(s, d)| *s += k * d);
            }
            let scale = 1.0 / (key_dim as f64).sqrt();
            out.extend((0..value_dim).map(|c| (read(&q, state, c) * scale) as f32));
        }
    }
    out
}

/// The causal convolution of each channel, then SiLU: `[n, channels]`. `weights` are `[taps, channels]`.
fn convolve(weights: &[f32], x: &[f32], channels: usize) -> Vec<f64> {
    let taps = weights.len() / channels;
    let value = |token: usize, c: usize| {
        let first = (taps - 1).saturating_sub(token);
        let product = |j: usize| {
            f64::from(weights[j * channels + c]) * f64::from(x[(token + j + 1 - taps) * channels + c])
        };
        let sum: f64 = (first..taps).map(product).sum();
        sum / (1.0 + libm::exp(-sum))
    };
    (0..x.len() / channels).flat_map(|token| (0..channels).map(move |c| value(token, c))).collect()
}

/// `x / sqrt(sum of squares + 1e-6)`.
fn unit(x: &[f64]) -> Vec<f64> {
    let factor = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
    x.iter().map(|x| x * factor).collect()
}
