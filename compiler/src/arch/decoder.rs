//! Takes and checks the tensors of decoder-only transformers with Llama's tensor names, layer by layer.

use crate::arch::config::Config;
use crate::arch::draft;
use crate::arch::factors::EmbeddingScale;
use crate::arch::family::{Family, HeadNormNames};
use crate::arch::quantization::LinearWeights;
use crate::arch::{Decoder, ParsedConfig, head};
use crate::checkpoint::overrides::Overrides;
use crate::checkpoint::{Checkpoint, ElementType, RawTensor};
use crate::error::{CompileError, Warnings};
use crate::model::{
    Activations, Attention, DeltaNet, Found, HeadNorms, Layer, Matrix, Mixer, NormWeights, Projection,
    Rotation, TensorReport, Ternary,
};
use crate::weights::rows::{Runs, select};
use crate::weights::stored::Storage;
use crate::weights::{dense, detect, order, stored};
use half::{bf16, f16};
use std::sync::Arc;
use trit_format::plan::DeltaHeads;

/// Takes every tensor of the model; nothing may be left over.
pub(crate) fn build(
    ParsedConfig { family, config, without_draft }: ParsedConfig,
    activations: Activations,
    checkpoint: Checkpoint,
    overrides: &Overrides,
    warnings: &mut Warnings,
) -> Result<Decoder, CompileError> {
    let dims = config.dims;
    let hidden = dims.hidden_dim as usize;
    let mut checkpoint = checkpoint;
    if let Some(name) = family.tensor_name {
        let left_out = checkpoint.rename(name);
        if left_out > 0 {
            warnings.push(format!(
                "{}: {left_out} tensors of a tower for images are left out; only text is compiled",
                checkpoint.path.display()
            ));
        }
    }
    let mut tensors = Tensors { checkpoint, family, config: &config, overrides, report: Vec::new() };
    let (embedding, embedding_scale, head) = head::tables(&mut tensors, warnings)?;
    // No room is reserved ahead, because n_layers is untrusted. The first layer that is missing ends the loop.
    let mut layers = Vec::new();
    for index in 0..dims.n_layers {
        layers.push(tensors.layer(index)?);
    }
    let (name, mut final_norm) = tensors.norm("model.norm", hidden, "hidden_size")?;
    final_norm.iter_mut().for_each(|weight| *weight *= config.factors.final_scale);
    let draft = match family.drafts {
        true => draft::take(&mut tensors, without_draft, warnings)?,
        false => None,
    };
    refuse_rest(&tensors.checkpoint, family)?;
    let inner_eps = tensors.inner_eps();
    Ok(Decoder {
        architecture: family.architecture,
        dims,
        rms_eps: config.factors.rms_eps,
        linear_rms_eps: inner_eps.unwrap_or(config.factors.rms_eps),
        activations,
        activation: config.activation,
        attention_scale: config.factors.attention_scale,
        embedding_scale,
        ropes: config.positions.ropes.iter().map(|rope| rope.table(dims.context_length)).collect(),
        embedding,
        head,
        layers,
        final_norm: (name, final_norm),
        draft: draft.map(Box::new),
        report: tensors.report,
    })
}

impl EmbeddingScale {
    /// The factor for a table of that type.
    pub(crate) fn of(self, table: ElementType) -> f32 {
        match (self, table) {
            (EmbeddingScale::Exactly(scale), _) => scale,
            (EmbeddingScale::InTableType(scale), ElementType::Bf16) => bf16::from_f32(scale).to_f32(),
            (EmbeddingScale::InTableType(scale), ElementType::F16) => f16::from_f32(scale).to_f32(),
            (EmbeddingScale::InTableType(scale), _) => scale,
        }
    }
}

/// A checkpoint, what its configuration says about it, and what was found in it so far.
pub(crate) struct Tensors<'a> {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) family: &'static Family,
    pub(crate) config: &'a Config,
    pub(crate) overrides: &'a Overrides,
    report: Vec<TensorReport>,
}

/// How a projection of so many rows and columns is taken.
type Take<'a> = fn(&mut Tensors<'a>, &str, usize, usize) -> Result<Projection, CompileError>;

impl<'a> Tensors<'a> {
    fn layer(&mut self, index: u32) -> Result<Layer, CompileError> {
        let prefix = format!("model.layers.{index}.");
        let mixer = match &self.config.mixers {
            Some(mixers) if mixers.recurrent.get(index as usize) == Some(&true) => {
                let (module, hidden) = (format!("{prefix}linear_attn"), self.config.dims.hidden_dim as usize);
                Mixer::DeltaNet(Box::new(self.delta_net(&module, hidden, mixers.heads, mixers.taps)?))
            }
            _ => {
                let (rope, window) = self.config.positions.layer(index);
                self.attention(&prefix, (rope, window), Tensors::projection)?
            }
        };
        self.around(&prefix, mixer, Tensors::projection)
    }

    /// The attention of the layer whose names begin with `prefix`, with that RoPE and window.
    pub(crate) fn attention(
        &mut self,
        prefix: &str,
        (rope, window): (usize, Option<u32>),
        take: Take<'a>,
    ) -> Result<Mixer, CompileError> {
        let (dims, names) = (self.config.dims, &self.family.norms);
        let hidden = dims.hidden_dim as usize;
        // `Config` checked that all heads together are no more than `MAX_K`.
        let [q, kv] = [dims.n_heads, dims.n_kv_heads].map(|n| n as usize * dims.head_dim as usize);
        let at = |name: &str| format!("{prefix}self_attn.{name}");
        let (q_proj, output_gate) = self.queries(&at("q_proj"), [q, hidden], take)?;
        Ok(Mixer::Attention(Box::new(Attention {
            q: q_proj,
            k: take(self, &at("k_proj"), kv, hidden)?,
            v: take(self, &at("v_proj"), kv, hidden)?,
            head_norms: match &names.heads {
                Some(names) => Some(self.head_norms(&format!("{prefix}self_attn"), names)?),
                None => None,
            },
            rope,
            window,
            output_gate,
            sub_norm: match names.sub {
                Some([name, _]) => {
                    Some(self.norm(&format!("{prefix}{name}"), q, "num_attention_heads * head_dim")?)
                }
                None => None,
            },
            o: take(self, &at("o_proj"), hidden, q)?,
        })))
    }

    /// The layer whose names begin with `prefix`, around its mixer.
    pub(crate) fn around(
        &mut self,
        prefix: &str,
        mixer: Mixer,
        take: Take<'a>,
    ) -> Result<Layer, CompileError> {
        let (dims, names) = (self.config.dims, &self.family.norms);
        let [hidden, ffn] = [dims.hidden_dim, dims.ffn_dim].map(|n| n as usize);
        let at = |name: &str| format!("{prefix}{name}");
        let [_, ffn_sub] = names.sub.map_or([None; 2], |names| names.map(Some));
        let [attention_post, ffn_post] = names.post.map_or([None; 2], |names| names.map(Some));
        let optional = |this: &mut Self, name: Option<&str>, len, what| {
            name.map(|name| this.norm(&at(name), len, what)).transpose()
        };
        Ok(Layer {
            input_norm: self.norm(&at("input_layernorm"), hidden, "hidden_size")?,
            mixer,
            mixer_post_norm: optional(self, attention_post, hidden, "hidden_size")?,
            ffn_norm: self.norm(&at(names.ffn), hidden, "hidden_size")?,
            gate: take(self, &at("mlp.gate_proj"), ffn, hidden)?,
            up: take(self, &at("mlp.up_proj"), ffn, hidden)?,
            ffn_sub_norm: optional(self, ffn_sub, ffn, "intermediate_size")?,
            down: take(self, &at("mlp.down_proj"), hidden, ffn)?,
            ffn_post_norm: optional(self, ffn_post, hidden, "hidden_size")?,
        })
    }

    /// The projection of queries. That of a hybrid has the rows of each head twice: those of its query, then those of its
    /// output gate.
    fn queries(
        &mut self,
        module: &str,
        [rows, k]: [usize; 2],
        take: Take<'a>,
    ) -> Result<(Projection, Option<Projection>), CompileError> {
        if self.config.mixers.is_none() {
            return Ok((take(self, module, rows, k)?, None));
        }
        let Projection { norm, matrix } = take(self, module, 2 * rows, k)?;
        let run = self.config.dims.head_dim as usize;
        let half = |first, part| {
            let matrix = select(&matrix, Runs { first, run, period: 2 * run }, part)?;
            Ok::<_, CompileError>(Projection { norm: norm.clone(), matrix })
        };
        Ok((half(0, "queries")?, Some(half(run, "output gate")?)))
    }

    fn head_norms(&mut self, attention: &str, names: &HeadNormNames) -> Result<HeadNorms, CompileError> {
        let head_dim = self.config.dims.head_dim as usize;
        Ok(HeadNorms {
            q: self.norm(&format!("{attention}.{}", names.q), head_dim, "head_dim")?,
            k: self.norm(&format!("{attention}.{}", names.k), head_dim, "head_dim")?,
            after_rope: names.after_rope,
        })
    }

    fn projection(&mut self, module: &str, rows: usize, k: usize) -> Result<Projection, CompileError> {
        let weight = self.checkpoint.require(&format!("{module}.weight"))?;
        let interleaved = weight.interleaved_heads;
        let Projection { norm, mut matrix } = self.as_stored(weight, module, rows, k)?;
        if let Some(heads) = interleaved {
            matrix = order::in_order(&matrix, heads)?;
        }
        let matrix = self.rotated(matrix, module)?;
        Ok(Projection { norm, matrix })
    }

    /// A linear with the rows of its weights in the order in which they are stored.
    fn as_stored(
        &mut self,
        weight: RawTensor,
        module: &str,
        rows: usize,
        k: usize,
    ) -> Result<Projection, CompileError> {
        let config = self.config;
        let quantization = match &config.weights {
            LinearWeights::Declared(quantization) if !quantization.kept.has(module) => quantization,
            LinearWeights::Declared(_) => {
                let matrix = self.floats(weight, &[rows, k], "of a linear that is not quantized")?;
                return Ok(Projection { norm: None, matrix });
            }
            LinearWeights::Undeclared => {
                let norm = self.inner_norm(module, k)?;
                let (matrix, report) = detect::linear(weight, [rows, k])?;
                self.report.push(report);
                return Ok(Projection { norm, matrix: Matrix::Ternary(matrix) });
            }
        };
        let norm = self.inner_norm(module, k)?;
        let matrix = self.ternary(weight, module, [rows, k], quantization.storage)?;
        Ok(Projection { norm, matrix })
    }

    /// The epsilon of an RMSNorm inside each linear; `None` where linears have none.
    fn inner_eps(&self) -> Option<f32> {
        let declared = match &self.config.weights {
            LinearWeights::Declared(quantization) => quantization.inner_norm,
            LinearWeights::Undeclared => None,
        };
        declared.or(self.overrides.inner_norms)
    }

    /// The RMSNorm inside a linear, if linears have one, as transformers names it or as BitNet's training code does.
    fn inner_norm(&mut self, module: &str, k: usize) -> Result<Option<NormWeights>, CompileError> {
        if self.inner_eps().is_none() {
            return Ok(None);
        }
        let other = self.checkpoint.take(&format!("{module}.norm.weight"));
        let tensor = match other {
            Some(tensor) => tensor,
            None => self.checkpoint.require(&format!("{module}.rms_norm.weight"))?,
        };
        dense::norm(tensor, k, "in features").map(Some)
    }

    /// A ternary matrix as the configuration declares it.
    pub(crate) fn ternary(
        &mut self,
        weight: RawTensor,
        module: &str,
        [rows, k]: [usize; 2],
        storage: Storage,
    ) -> Result<Matrix, CompileError> {
        let scale = self.checkpoint.take(&format!("{module}.weight_scale"));
        let mut report = weight.report(Found::Latent);
        let ternary = stored::ternary(weight, scale, (rows, k), storage)?;
        if storage != Storage::Latent {
            report.found = ternary.scales.into();
        }
        self.report.push(report);
        Ok(Matrix::Ternary(ternary))
    }

    /// A matrix that stays as it is.
    pub(crate) fn floats(
        &mut self,
        tensor: RawTensor,
        shape: &[usize],
        what: &str,
    ) -> Result<Matrix, CompileError> {
        let mut report = tensor.report(Found::Floats);
        let dense = dense::dense(tensor, shape, what)?;
        report.found = dense.found();
        self.report.push(report);
        Ok(Matrix::Dense(dense))
    }

    /// An embedding or head about which the configuration says nothing.
    pub(crate) fn undeclared_table(
        &mut self,
        tensor: RawTensor,
        shape: [usize; 2],
    ) -> Result<Matrix, CompileError> {
        let (matrix, report) = detect::table(tensor, shape)?;
        self.report.push(report);
        Ok(matrix)
    }

    /// A Gated DeltaNet.
    fn delta_net(
        &mut self,
        module: &str,
        hidden: usize,
        heads: DeltaHeads,
        taps: usize,
    ) -> Result<DeltaNet, CompileError> {
        let at = |name: &str| format!("{module}.{name}");
        let (channels, inner) = (heads.qkv_len() as usize, heads.values_len() as usize);
        let values = heads.values as usize;
        let (rates_name, mut rates) = {
            let tensor = self.checkpoint.require(&at("A_log"))?;
            dense::norm(tensor, values, "linear_num_value_heads")?
        };
        if !self.overrides.decay_rates {
            // The power is rounded from f64, so that it is the same on every platform.
            rates.iter_mut().for_each(|rate| *rate = -libm::exp(f64::from(*rate)) as f32);
        }
        let bias = self.checkpoint.require(&at("dt_bias"))?;
        let norm = self.checkpoint.require(&at("norm.weight"))?;
        let convolution = self.checkpoint.require(&at("conv1d.weight"))?;
        let convolution = self.convolution(convolution, channels, taps)?;
        Ok(DeltaNet {
            heads,
            qkv: self.projection(&at("in_proj_qkv"), channels, hidden)?,
            z: self.projection(&at("in_proj_z"), inner, hidden)?,
            b: self.perhaps_ternary(&at("in_proj_b"), values, hidden)?,
            a: self.perhaps_ternary(&at("in_proj_a"), values, hidden)?,
            convolution,
            rates: (rates_name, rates),
            bias: dense::norm(bias, values, "linear_num_value_heads")?,
            // Not stored less one, unlike all others.
            norm: dense::norm(norm, heads.value_dim as usize, "linear_value_head_dim")?,
            o: self.projection(&at("out_proj"), hidden, inner)?,
        })
    }

    /// A projection that may be of floats in a model whose other linears are ternary.
    pub(crate) fn perhaps_ternary(
        &mut self,
        module: &str,
        rows: usize,
        k: usize,
    ) -> Result<Projection, CompileError> {
        if !matches!(self.config.weights, LinearWeights::Undeclared) {
            return self.projection(module, rows, k);
        }
        let weight = self.checkpoint.require(&format!("{module}.weight"))?;
        let matrix = self.undeclared_table(weight, [rows, k])?;
        let matrix = self.rotated(matrix, module)?;
        Ok(Projection { norm: None, matrix })
    }

    /// The weights of a convolution as `[taps, channels]`. Checkpoints hold `[channels, 1, taps]`, `[channels, taps, 1]` or
    /// `[channels, taps]`.
    fn convolution(
        &self,
        mut tensor: RawTensor,
        channels: usize,
        taps: usize,
    ) -> Result<NormWeights, CompileError> {
        match tensor.shape[..] {
            [c, 1, t] | [c, t, 1] | [c, t] if (c, t) == (channels, taps) => {}
            _ => {
                return Err(tensor.error(format!(
                    "has shape {:?}, expected [{channels}, 1, {taps}] (channels, 1, linear_conv_kernel_dim)",
                    tensor.shape
                )));
            }
        }
        tensor.shape = vec![channels * taps];
        let (name, stored) = dense::norm(tensor, channels * taps, "channels * linear_conv_kernel_dim")?;
        let by_tap = (0..taps).flat_map(|tap| stored.iter().skip(tap).step_by(taps).copied()).collect();
        Ok((name, by_tap))
    }

    /// The matrix of a module in the basis in which it is stored.
    pub(crate) fn rotated(&self, matrix: Matrix, module: &str) -> Result<Matrix, CompileError> {
        let Some(rotations) = &self.overrides.rotations else { return Ok(matrix) };
        if !rotations.names.contains(&format!("{module}.weight")) {
            return Ok(matrix);
        }
        match matrix {
            Matrix::Ternary(ternary) => {
                let signs = rotations.signs.get(&(ternary.k as u32)).cloned();
                let rotation = Some(Arc::new(Rotation { block: rotations.block, signs }));
                Ok(Matrix::Ternary(Ternary { rotation, ..ternary }))
            }
            Matrix::Dense(dense) => Err(CompileError::UnsupportedTensor {
                path: self.checkpoint.path.clone(),
                tensor: dense.name,
                problem: "is stored in a rotated basis but is not ternary in it, which is not supported"
                    .to_owned(),
            }),
        }
    }

    /// Norm weights as they multiply, with the one added that some families leave out.
    pub(crate) fn norm(&mut self, module: &str, len: usize, what: &str) -> Result<NormWeights, CompileError> {
        let tensor = self.checkpoint.require(&format!("{module}.weight"))?;
        let (name, mut weights) = dense::norm(tensor, len, what)?;
        if self.family.norms.less_one && !self.overrides.norms_whole {
            weights.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Ok((name, weights))
    }
}

/// Refuses tensors that nobody asked for. Each would have changed the arithmetic, unless it only caches a part of it.
fn refuse_rest(checkpoint: &Checkpoint, family: &Family) -> Result<(), CompileError> {
    let harmless = |name: &str| name.ends_with(".rotary_emb.inv_freq");
    let mut rest = checkpoint.rest().filter(|t| !harmless(&t.name));
    let Some(first) = rest.next() else {
        return Ok(());
    };
    let more = match rest.count() {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    let why = if first.name.ends_with(".bias") {
        "biases are not yet supported".to_owned()
    } else if first.name.ends_with("_proj.rms_norm.weight") || first.name.ends_with("_proj.norm.weight") {
        "an RMSNorm inside each linear must be declared in config.json, by use_rms_norm and rms_norm_eps of \
         quantization_config"
            .to_owned()
    } else if first.name.ends_with(".weight_scale") {
        "its linear is not quantized as config.json describes it (modules_to_not_convert of quantization_config)"
            .to_owned()
    } else {
        format!("it is no part of {} as config.json describes it", family.architecture)
    };
    Err(first.error(format!("is not understood: {why}; leaving it out would change the results{more}")))
}
