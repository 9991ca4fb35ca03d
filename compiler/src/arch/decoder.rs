//! Takes and checks the tensors of decoder-only transformers with Llama's tensor names, layer by layer.

use crate::arch::config::Config;
use crate::arch::factors::EmbeddingScale;
use crate::arch::family::Family;
use crate::arch::quantization::LinearWeights;
use crate::arch::{Decoder, head};
use crate::checkpoint::{Checkpoint, ElementType, RawTensor};
use crate::error::{CompileError, Warnings};
use crate::model::{Activations, Found, HeadNorms, Layer, Matrix, NormWeights, Projection, TensorReport};
use crate::weights::stored::Storage;
use crate::weights::{dense, detect, order, stored};
use half::{bf16, f16};

/// Takes every tensor of the model; nothing may be left over.
pub(crate) fn build(
    family: &'static Family,
    config: Config,
    activations: Activations,
    checkpoint: Checkpoint,
    warnings: &mut Warnings,
) -> Result<Decoder, CompileError> {
    let dims = config.dims;
    let hidden = dims.hidden_dim as usize;
    let mut tensors = Tensors { checkpoint, family, config: &config, report: Vec::new() };
    let (embedding, embedding_scale, head) = head::tables(&mut tensors, warnings)?;
    // No room is reserved ahead, because n_layers is untrusted. The first layer that is missing ends the loop.
    let mut layers = Vec::new();
    for index in 0..dims.n_layers {
        layers.push(tensors.layer(index)?);
    }
    let (name, mut final_norm) = tensors.norm("model.norm", hidden, "hidden_size")?;
    final_norm.iter_mut().for_each(|weight| *weight *= config.factors.final_scale);
    refuse_rest(&tensors.checkpoint, family)?;
    let inner_eps = match &config.weights {
        LinearWeights::Declared(quantization) => quantization.inner_norm,
        LinearWeights::Undeclared => None,
    };
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
    report: Vec<TensorReport>,
}

impl Tensors<'_> {
    fn layer(&mut self, index: u32) -> Result<Layer, CompileError> {
        let dims = self.config.dims;
        let names = &self.family.norms;
        let [hidden, ffn] = [dims.hidden_dim, dims.ffn_dim].map(|n| n as usize);
        // `Config` checked that all heads together are no more than `MAX_K`.
        let [q, kv] = [dims.n_heads, dims.n_kv_heads].map(|n| n as usize * dims.head_dim as usize);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let (rope, window) = self.config.positions.layer(index);
        let [attention_sub, ffn_sub] = names.sub.map_or([None; 2], |names| names.map(Some));
        let [attention_post, ffn_post] = names.post.map_or([None; 2], |names| names.map(Some));
        let optional = |this: &mut Self, name: Option<&str>, len, what| {
            name.map(|name| this.norm(&at(name), len, what)).transpose()
        };
        Ok(Layer {
            input_norm: self.norm(&at("input_layernorm"), hidden, "hidden_size")?,
            q: self.projection(&at("self_attn.q_proj"), q, hidden)?,
            k: self.projection(&at("self_attn.k_proj"), kv, hidden)?,
            v: self.projection(&at("self_attn.v_proj"), kv, hidden)?,
            head_norms: if names.heads { Some(self.head_norms(&at("self_attn"))?) } else { None },
            rope,
            window,
            attention_sub_norm: optional(self, attention_sub, q, "num_attention_heads * head_dim")?,
            o: self.projection(&at("self_attn.o_proj"), hidden, q)?,
            attention_post_norm: optional(self, attention_post, hidden, "hidden_size")?,
            ffn_norm: self.norm(&at(names.ffn), hidden, "hidden_size")?,
            gate: self.projection(&at("mlp.gate_proj"), ffn, hidden)?,
            up: self.projection(&at("mlp.up_proj"), ffn, hidden)?,
            ffn_sub_norm: optional(self, ffn_sub, ffn, "intermediate_size")?,
            down: self.projection(&at("mlp.down_proj"), hidden, ffn)?,
            ffn_post_norm: optional(self, ffn_post, hidden, "hidden_size")?,
        })
    }

    fn head_norms(&mut self, attention: &str) -> Result<HeadNorms, CompileError> {
        let head_dim = self.config.dims.head_dim as usize;
        Ok(HeadNorms {
            q: self.norm(&format!("{attention}.q_norm"), head_dim, "head_dim")?,
            k: self.norm(&format!("{attention}.k_norm"), head_dim, "head_dim")?,
        })
    }

    fn projection(&mut self, module: &str, rows: usize, k: usize) -> Result<Projection, CompileError> {
        let weight = self.checkpoint.require(&format!("{module}.weight"))?;
        let interleaved = weight.interleaved_heads;
        let Projection { norm, mut matrix } = self.as_stored(weight, module, rows, k)?;
        if let Some(heads) = interleaved {
            matrix = order::in_order(matrix, heads)?;
        }
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
                let (matrix, report) = detect::linear(weight, [rows, k])?;
                self.report.push(report);
                return Ok(Projection { norm: None, matrix: Matrix::Ternary(matrix) });
            }
        };
        let norm = match quantization.inner_norm {
            Some(_) => Some(self.inner_norm(module, k)?),
            None => None,
        };
        let matrix = self.ternary(weight, module, [rows, k], quantization.storage)?;
        Ok(Projection { norm, matrix })
    }

    /// The RMSNorm inside a linear, as transformers names it or as BitNet's training code does.
    fn inner_norm(&mut self, module: &str, k: usize) -> Result<NormWeights, CompileError> {
        let other = self.checkpoint.take(&format!("{module}.norm.weight"));
        let tensor = match other {
            Some(tensor) => tensor,
            None => self.checkpoint.require(&format!("{module}.rms_norm.weight"))?,
        };
        dense::norm(tensor, k, "in features")
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
        self.report.push(tensor.report(Found::Floats));
        dense::dense(tensor, shape, what).map(Matrix::Dense)
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

    /// Norm weights as they multiply, with the one added that some families leave out.
    fn norm(&mut self, module: &str, len: usize, what: &str) -> Result<NormWeights, CompileError> {
        let tensor = self.checkpoint.require(&format!("{module}.weight"))?;
        let (name, mut weights) = dense::norm(tensor, len, what)?;
        if self.family.norms.less_one {
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
