//! A plan in plain f64, one row after the other, straight from SPEC.md.

use crate::bundle::Small;
use std::collections::HashMap;
use trit_runtime::format::plan::*;

struct Run<'a> {
    small: &'a Small,
    buffers: HashMap<u32, Vec<f64>>,
    /// By KV layer, keys and values of each position.
    cache: Vec<Vec<[Vec<f64>; 2]>>,
    /// By state, the inputs of all rows so far, or the matrices `[values, key_dim, value_dim]`.
    states: HashMap<u32, Vec<f64>>,
}

/// The logits after each token, `[tokens, vocab]`.
pub fn logits(small: &Small, ids: &[u32]) -> Vec<f64> {
    let plan = &small.manifest.plan;
    let mut run =
        Run { small, buffers: HashMap::new(), cache: vec![vec![]; plan.kv.len()], states: HashMap::new() };
    let mut all = Vec::new();
    for (position, &id) in ids.iter().enumerate() {
        plan.body.iter().chain(&plan.head).for_each(|step| run.step(step, id as usize, position));
        all.extend(run.buffers[&plan.logits.0].iter());
    }
    all
}

impl Run<'_> {
    fn get(&self, id: BufferId) -> &[f64] {
        &self.buffers[&id.0]
    }

    fn put(&mut self, id: BufferId, at: usize, add: bool, values: &[f64]) {
        let len = self.small.manifest.plan.buffers[id.0 as usize].len as usize;
        let buffer = self.buffers.entry(id.0).or_insert_with(|| vec![f64::NAN; len]);
        for (old, new) in buffer[at..].iter_mut().zip(values) {
            *old = if add { *old + new } else { *new };
        }
    }

    fn norm(&self, input: &[f64], weight: TensorId, eps: f32) -> Vec<f64> {
        let mean = input.iter().map(|x| x * x).sum::<f64>() / input.len() as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        input.iter().zip(self.small.floats(weight)).map(|(x, w)| w * x * factor).collect()
    }

    fn step(&mut self, step: &Step, id: usize, position: usize) {
        let m = &self.small.manifest;
        match *step {
            Step::Embed { table, scale, out } => {
                let hidden = m.hyperparameters.hidden_dim as usize;
                let row: Vec<f64> = (self.small.floats(table)[id * hidden..][..hidden].iter())
                    .map(|x| x * f64::from(scale))
                    .collect();
                self.put(out, 0, false, &row);
            }
            Step::EmbedTernary { matrix: packed, out } => {
                let k = m.packed_matrices[packed.0 as usize].k as usize;
                let row = self.small.matrices[packed.0 as usize][id * k..][..k].to_vec();
                self.put(out, 0, false, &row);
            }
            Step::RmsNorm { input, weight, eps, out } => {
                self.put(out, 0, false, &self.norm(self.get(input), weight, eps));
            }
            Step::RmsNormAdd { input, weight, eps, out } => {
                self.put(out, 0, true, &self.norm(self.get(input), weight, eps));
            }
            Step::Quantize { input, rule, out } => {
                self.put(out.values, 0, false, &quantized(self.get(input), rule));
            }
            Step::NormQuantize { input, weight, eps, rule, out } => {
                let normed = self.norm(self.get(input), weight, eps);
                self.put(out.values, 0, false, &quantized(&normed, rule));
            }
            Step::Ternary { matrix: packed, input, epilogue, out, at } => {
                let k = m.packed_matrices[packed.0 as usize].k as usize;
                let y = multiply(&self.small.matrices[packed.0 as usize], &self.get(input.values)[..k]);
                self.finish(epilogue, out, at, &y);
            }
            Step::Linear { table, input, epilogue, out, at } => {
                let y = multiply(&self.small.floats(table), self.get(input));
                self.finish(epilogue, out, at, &y);
            }
            Step::Head { input, table, out, .. } => {
                let y = multiply(&self.small.floats(table), self.get(input));
                self.finish(Epilogue::Store, out, 0, &y);
            }
            Step::Gate { gate, up, activation, out } => {
                let y = gated(activation, self.get(gate), self.get(up));
                self.put(out, 0, false, &y);
            }
            Step::RopeAppend { qkv, norms, inv_freq, scaling, layer } => {
                self.append(qkv, [norms, None], (inv_freq, scaling), layer as usize, position);
            }
            Step::RopeNormAppend { qkv, norms, inv_freq, scaling, layer } => {
                self.append(qkv, [None, Some(norms)], (inv_freq, scaling), layer as usize, position);
            }
            Step::Attend { qkv, layer, scale, window, out } => {
                let y = self.attend(qkv, layer as usize, scale, window, position);
                self.put(out, 0, false, &y);
            }
            Step::RotateQuantize { input, norm, rotation, rule, out } => {
                let row = self.get(input);
                let row = norm.map_or_else(|| row.to_vec(), |n| self.norm(row, n.weight, n.eps));
                let row = hadamard(&self.signed(&row, rotation), rotation.block);
                self.put(out.values, 0, false, &quantized(&row, rule));
            }
            Step::Unrotate { rotation, out } => {
                let row = self.signed(&hadamard(self.get(out), rotation.block), rotation);
                self.put(out, 0, false, &row);
            }
            Step::Convolve { input, weight, activation, state, out } => {
                let weights = self.small.floats(weight);
                let channels = m.tensors[weight.0 as usize].shape[1] as usize;
                let row = self.get(input)[..channels].to_vec();
                let inputs = self.states.entry(state).or_default();
                inputs.extend(row);
                let mut sums = vec![0.0; channels];
                // From the last tap, which is the current row's, back to the first that there is a row for.
                for (weights, row) in weights.chunks(channels).rev().zip(inputs.chunks(channels).rev()) {
                    sums.iter_mut().zip(weights).zip(row).for_each(|((sum, w), x)| *sum += w * x);
                }
                let y: Vec<f64> = sums.into_iter().map(|x| function(activation, x)).collect();
                self.put(out, 0, false, &y);
            }
            Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out } => {
                let (rates, bias) = (self.small.floats(rates), self.small.floats(bias));
                let gates = self.get(gates)[at as usize..].to_vec();
                let y = self.delta(qkv, &gates, [&rates, &bias], heads, state);
                self.put(out, 0, false, &y);
            }
            Step::GateNorm { input, weight, eps, gate, at, activation, out } => {
                let run = self.small.floats(weight).len();
                let normed: Vec<f64> =
                    self.get(input).chunks(run).flat_map(|run| self.norm(run, weight, eps)).collect();
                let gate = &self.get(gate)[at as usize..][..normed.len()];
                let y = gated(activation, gate, &normed);
                self.put(out, 0, false, &y);
            }
            ref other => panic!("{other:?}"),
        }
    }

    fn signed(&self, x: &[f64], rotation: Rotation) -> Vec<f64> {
        match rotation.signs {
            None => x.to_vec(),
            Some(signs) => x.iter().zip(self.small.floats(signs)).map(|(x, sign)| x * sign).collect(),
        }
    }

    fn delta(
        &mut self,
        qkv: BufferId,
        gates: &[f64],
        [rates, bias]: [&[f64]; 2],
        heads: DeltaHeads,
        state: u32,
    ) -> Vec<f64> {
        let [keys, values, key_dim, value_dim] =
            [heads.keys, heads.values, heads.key_dim, heads.value_dim].map(|n| n as usize);
        let qkv = self.get(qkv).to_vec();
        let all = self.states.entry(state).or_insert_with(|| vec![0.0; values * key_dim * value_dim]);
        let unit = |x: &[f64], factor: f64| -> Vec<f64> {
            let root = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x * factor / root).collect()
        };
        let mut out = Vec::new();
        for (j, s) in all.chunks_mut(key_dim * value_dim).enumerate() {
            let key_head = j / (values / keys);
            let q = unit(&qkv[key_head * key_dim..][..key_dim], (key_dim as f64).powf(-0.5));
            let k = unit(&qkv[(keys + key_head) * key_dim..][..key_dim], 1.0);
            let v = &qkv[2 * keys * key_dim + j * value_dim..][..value_dim];
            let beta = 1.0 / (1.0 + (-gates[j]).exp());
            let decay = (rates[j] * (gates[values + j] + bias[j]).exp().ln_1p()).exp();
            s.iter_mut().for_each(|s| *s *= decay);
            let times = |x: &[f64], s: &[f64], c: usize| -> f64 {
                x.iter().zip(s.chunks(value_dim)).map(|(x, row)| x * row[c]).sum()
            };
            for c in 0..value_dim {
                let d = (v[c] - times(&k, s, c)) * beta;
                s.chunks_mut(value_dim).zip(&k).for_each(|(row, k)| row[c] += k * d);
                out.push(times(&q, s, c));
            }
        }
        out
    }

    fn finish(&mut self, epilogue: Epilogue, out: BufferId, at: u32, y: &[f64]) {
        match epilogue {
            Epilogue::Gate(activation) => {
                let (gate, up) = y.split_at(y.len() / 2);
                self.put(out, at as usize, false, &gated(activation, gate, up));
            }
            _ => self.put(out, at as usize, epilogue == Epilogue::Add, y),
        }
    }

    /// With norms of heads before the rotation and after it.
    fn append(
        &mut self,
        qkv: BufferId,
        [before, after]: [Option<HeadNorms>; 2],
        (inv_freq, scaling): (TensorId, f32),
        layer: usize,
        position: usize,
    ) {
        let KvLayer { n_heads, n_kv_heads, head_dim } = self.small.manifest.plan.kv[layer];
        let (dim, heads) = (head_dim as usize, (n_heads + n_kv_heads) as usize);
        let mut row = self.get(qkv).to_vec();
        for (h, head) in row.chunks_mut(dim).take(heads).enumerate() {
            let normalize = |head: &mut [f64], norms: Option<HeadNorms>| {
                let Some(HeadNorms { q, k, eps }) = norms else { return };
                let weight = if h < n_heads as usize { q } else { k };
                head.copy_from_slice(&self.norm(head, weight, eps));
            };
            normalize(head, before);
            let frequencies = self.small.floats(inv_freq);
            for (i, frequency) in frequencies.iter().enumerate() {
                // The angle is a product of f32.
                let angle = f64::from(position as f32 * *frequency as f32);
                let (sin, cos) = (angle.sin() * f64::from(scaling), angle.cos() * f64::from(scaling));
                let (a, b) = (head[i], head[i + frequencies.len()]);
                (head[i], head[i + frequencies.len()]) = (a * cos - b * sin, b * cos + a * sin);
            }
            normalize(head, after);
        }
        let (k, v) = row[n_heads as usize * dim..].split_at(n_kv_heads as usize * dim);
        self.cache[layer].push([k.to_vec(), v.to_vec()]);
        self.put(qkv, 0, false, &row);
    }

    fn attend(
        &self,
        qkv: BufferId,
        layer: usize,
        scale: f32,
        window: Option<u32>,
        position: usize,
    ) -> Vec<f64> {
        let KvLayer { n_heads, n_kv_heads, head_dim } = self.small.manifest.plan.kv[layer];
        let (dim, group) = (head_dim as usize, (n_heads / n_kv_heads) as usize);
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w as usize));
        let seen = &self.cache[layer][first..=position];
        let mut out = Vec::new();
        for (h, q) in self.get(qkv).chunks(dim).take(n_heads as usize).enumerate() {
            let at = h / group * dim..(h / group + 1) * dim;
            let score = |k: &[f64]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * f64::from(scale);
            let weights: Vec<f64> = seen.iter().map(|[k, _]| score(&k[at.clone()]).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..dim).map(|d| {
                seen.iter().zip(&weights).map(|([_, v], w)| v[at.start + d] * w).sum::<f64>() / sum
            }));
        }
        out
    }
}

/// What quantized values stand for; those of three digits are as good as the floats.
fn quantized(x: &[f64], rule: ActivationRule) -> Vec<f64> {
    let ActivationRule::AbsmaxPerGroup { columns } = rule else { return x.to_vec() };
    let group = |x: &[f64]| {
        let a = x.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
        x.iter().map(|x| (x * 127.0 / a).round_ties_even() * a / 127.0).collect::<Vec<f64>>()
    };
    x.chunks(columns as usize).flat_map(group).collect()
}

fn multiply(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

/// `H x`, from its definition.
fn hadamard(x: &[f64], block: u32) -> Vec<f64> {
    let n = block as usize;
    let entry = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let row = |x: &[f64], i| (0..n).map(|j| entry(i, j) * x[j]).sum::<f64>() / (n as f64).sqrt();
    x.chunks(n).flat_map(|x| (0..n).map(|i| row(x, i)).collect::<Vec<f64>>()).collect()
}

fn function(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        other => panic!("{other:?}"),
    }
}

fn gated(activation: Activation, gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(&g, &u)| function(activation, g) * u).collect()
}
