//! The steps of a layer's mixer: attention, or Gated DeltaNet.

use super::Lowering;
use super::linear::Input;
use crate::error::CompileError;
use crate::model::{Attention, DeltaNet, HeadNorms, Layer, Mixer, Rope};
use std::borrow::Cow;
use trit_format::plan::{self, Activation, BufferId, Epilogue, KvLayer, Step, TensorId};

impl<'m> Lowering<'m> {
    /// `h += mixer(h)`.
    pub(super) fn mixer(
        &mut self,
        prefix: &str,
        layer: &'m Layer,
        h: BufferId,
        ropes: &[TensorId],
    ) -> Result<(), CompileError> {
        match &layer.mixer {
            Mixer::Attention(attention) => self.attention(prefix, layer, attention, h, ropes),
            Mixer::DeltaNet(delta) => self.delta_net(prefix, layer, delta, h),
        }
    }

    fn attention(
        &mut self,
        prefix: &str,
        layer: &'m Layer,
        attention: &'m Attention,
        h: BufferId,
        ropes: &[TensorId],
    ) -> Result<(), CompileError> {
        let dims = &self.model.hyperparameters;
        let attention_dim = dims.n_heads * dims.head_dim;
        let kv = KvLayer { n_heads: dims.n_heads, n_kv_heads: dims.n_kv_heads, head_dim: dims.head_dim };
        let index = self.kv.len() as u32;
        self.kv.push(kv);

        let qkv = self.f32s("qkv", attention_dim + 2 * dims.n_kv_heads * dims.head_dim);
        let input = Input { buffer: h, norm: Some(&layer.input_norm), normed: "x", quantized: "x" };
        let projections = [("q", &attention.q), ("k", &attention.k), ("v", &attention.v)];
        let all = projections.iter().map(|(_, p)| *p).chain(attention.output_gate.as_ref());
        let (input, mut ready) = (self.settle(input, all), Vec::new());
        self.products(prefix, &projections, input, Epilogue::Store, qkv, &mut ready)?;
        let gate = match &attention.output_gate {
            None => None,
            Some(projection) => {
                let gate = self.f32s("attention.gate", attention_dim);
                self.products(prefix, &[("gate", projection)], input, Epilogue::Store, gate, &mut ready)?;
                Some(gate)
            }
        };
        let norms = attention.head_norms.as_ref().map(|norms| (self.head_norms(norms), norms.after_rope));
        let (rope, scale) = (attention.rope, self.model.attention_scale);
        let (Some(Rope { scaling, .. }), Some(&inv_freq)) = (self.model.ropes.get(rope), ropes.get(rope))
        else {
            return Err(CompileError::Internal(format!("{prefix} has rope {rope}, which is not there")));
        };
        let scaling = *scaling;
        self.steps.push(match norms {
            Some((norms, true)) => Step::RopeNormAppend { qkv, norms, inv_freq, scaling, layer: index },
            other => {
                let norms = other.map(|(norms, _)| norms);
                Step::RopeAppend { qkv, norms, inv_freq, scaling, layer: index }
            }
        });
        let out = self.f32s("attention", attention_dim);
        self.steps.push(Step::Attend { qkv, layer: index, scale, window: attention.window, out });
        if let Some(gate) = gate {
            let activation = Activation::Sigmoid;
            self.steps.push(Step::Gate { gate, up: out, activation, out });
        }
        let norm = attention.sub_norm.as_ref();
        let input = Input { buffer: out, norm, normed: "attention.normed", quantized: "attention" };
        self.add(prefix, ("o", &attention.o), input, layer.mixer_post_norm.as_ref(), h)
    }

    fn delta_net(
        &mut self,
        prefix: &str,
        layer: &'m Layer,
        delta: &'m DeltaNet,
        h: BufferId,
    ) -> Result<(), CompileError> {
        let heads = delta.heads;
        let (channels, inner) = (heads.qkv_len() as u32, heads.values_len() as u32);
        // All four products fill one buffer: queries, keys and values, then z, b and a.
        let mixed = self.f32s("mixed", channels + inner + 2 * heads.values);
        let input = Input { buffer: h, norm: Some(&layer.input_norm), normed: "x", quantized: "x" };
        let projections = [("qkv", &delta.qkv), ("z", &delta.z), ("b", &delta.b), ("a", &delta.a)];
        self.linear(prefix, &projections, input, Epilogue::Store, mixed)?;

        let (name, weights) = &delta.convolution;
        let taps = weights.len() / channels as usize;
        let weight = self.out.f32(name, vec![taps, channels as usize], Cow::Borrowed(weights));
        let qkv = self.f32s("qkv", channels);
        let (activation, state) = (Activation::Silu, self.next_state());
        self.steps.push(Step::Convolve { input: mixed, weight, activation, state, out: qkv });
        let (rates, bias) = (self.out.norm(&delta.rates), self.out.norm(&delta.bias));
        let (state, out) = (self.next_state(), self.f32s("delta", inner));
        let (gates, at) = (mixed, channels + inner);
        self.steps.push(Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out });
        let (weight, eps) = (self.out.norm(&delta.norm), self.model.rms_eps);
        let (gate, at) = (mixed, channels);
        self.steps.push(Step::GateNorm { input: out, weight, eps, gate, at, activation, out });
        let input = Input { buffer: out, norm: None, normed: "delta.normed", quantized: "delta" };
        self.add(prefix, ("o", &delta.o), input, layer.mixer_post_norm.as_ref(), h)
    }

    /// The number of the next step with a state.
    fn next_state(&mut self) -> u32 {
        self.states += 1;
        self.states - 1
    }

    fn head_norms(&mut self, norms: &'m HeadNorms) -> plan::HeadNorms {
        let (q, k) = (self.out.norm(&norms.q), self.out.norm(&norms.k));
        plan::HeadNorms { q, k, eps: self.model.rms_eps }
    }
}
