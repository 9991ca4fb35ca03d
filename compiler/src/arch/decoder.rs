//! Decoder-only transformers with Llama's tensor names: the tensors of each layer, taken and checked.

use crate::arch::config::Config;
use crate::arch::{Decoder, Family};
use crate::error::CompileError;
use crate::ingest::checkpoint::{Checkpoint, RawTensor};
use crate::ingest::gguf;
use crate::model::{Layer, Matrix, NormWeights, Projection, Rope};
use crate::quantize::{self, Storage};

/// Takes every tensor of the model; nothing may be left over.
pub(crate) fn build(
    family: &Family,
    config: Config,
    checkpoint: Checkpoint,
    warnings: &mut Vec<String>,
) -> Result<Decoder, CompileError> {
    let dims = config.dims;
    let [vocab, hidden] = [dims.vocab_size, dims.hidden_dim].map(|n| n as usize);
    let mut tensors = Tensors { checkpoint, storage: config.storage };
    let embedding = tensors.checkpoint.require("model.embed_tokens.weight")?;
    let head = head(&mut tensors.checkpoint, &embedding, config.tied, warnings)?;
    let table = "[vocab_size, hidden_size]";
    let dense = |tensor| quantize::dense(tensor, &[vocab, hidden], table).map(Matrix::Dense);
    let (embedding, head) = (dense(embedding)?, head.map(dense).transpose()?);
    // Not reserved ahead: n_layers is untrusted, and the first layer that is missing ends the loop.
    let mut layers = Vec::new();
    for index in 0..dims.n_layers {
        layers.push(tensors.layer(index, family, &config)?);
    }
    let final_norm = tensors.norm("model.norm", hidden, "hidden_size")?;
    refuse_rest(&tensors.checkpoint, family)?;
    Ok(Decoder {
        architecture: family.architecture,
        dims,
        rms_eps: config.rms_eps,
        activation: config.activation,
        ropes: vec![Rope { inv_freq: config.rope.inv_freq(dims.head_dim as usize), scaling: 1.0 }],
        embedding,
        head,
        layers,
        final_norm,
    })
}

/// The head, where it is not the embedding. As in transformers a head that differs wins over `tie_word_embeddings`.
fn head(
    checkpoint: &mut Checkpoint,
    embedding: &RawTensor,
    tied: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<RawTensor>, CompileError> {
    let head = checkpoint.take("lm_head.weight").or_else(|| checkpoint.take("model.lm_head.weight"));
    match head {
        None if tied => Ok(None),
        None => Err(CompileError::Tensor {
            path: checkpoint.path.clone(),
            tensor: "lm_head.weight".to_owned(),
            problem: "is missing, and config.json does not set tie_word_embeddings to true".to_owned(),
        }),
        Some(head) if tied => {
            let same = head.dtype == embedding.dtype
                && head.shape == embedding.shape
                && head.bytes.as_ref() == embedding.bytes.as_ref();
            head.bytes.release();
            embedding.bytes.release();
            if same {
                return Ok(None);
            }
            warnings.push(format!(
                "tie_word_embeddings is true, but {} differs from {}; the head is not tied, as in transformers",
                head.name, embedding.name
            ));
            Ok(Some(head))
        }
        Some(head) => Ok(Some(head)),
    }
}

/// A checkpoint and how its matrices are stored.
struct Tensors {
    checkpoint: Checkpoint,
    storage: Storage,
}

impl Tensors {
    fn layer(&mut self, index: u32, family: &Family, config: &Config) -> Result<Layer, CompileError> {
        let dims = config.dims;
        let [hidden, ffn] = [dims.hidden_dim, dims.ffn_dim].map(|n| n as usize);
        // `Config` checked that all heads together are no more than `MAX_K`.
        let [q, kv] = [dims.n_heads, dims.n_kv_heads].map(|n| n as usize * dims.head_dim as usize);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let sub_norm = |this: &mut Self, name: &str, len, what| {
            family.sub_norms.then(|| this.norm(&at(name), len, what)).transpose()
        };
        Ok(Layer {
            input_norm: self.norm(&at("input_layernorm"), hidden, "hidden_size")?,
            q: self.projection(&at("self_attn.q_proj"), q, hidden)?,
            k: self.projection(&at("self_attn.k_proj"), kv, hidden)?,
            v: self.projection(&at("self_attn.v_proj"), kv, hidden)?,
            head_norms: None,
            rope: 0,
            window: None,
            attention_sub_norm: sub_norm(
                self,
                "self_attn.attn_sub_norm",
                q,
                "num_attention_heads * head_dim",
            )?,
            o: self.projection(&at("self_attn.o_proj"), hidden, q)?,
            attention_post_norm: None,
            ffn_norm: self.norm(&at("post_attention_layernorm"), hidden, "hidden_size")?,
            gate: self.projection(&at("mlp.gate_proj"), ffn, hidden)?,
            up: self.projection(&at("mlp.up_proj"), ffn, hidden)?,
            ffn_sub_norm: sub_norm(self, "mlp.ffn_sub_norm", ffn, "intermediate_size")?,
            down: self.projection(&at("mlp.down_proj"), hidden, ffn)?,
            ffn_post_norm: None,
        })
    }

    fn projection(&mut self, module: &str, rows: usize, k: usize) -> Result<Projection, CompileError> {
        let weight = self.checkpoint.require(&format!("{module}.weight"))?;
        let scale = self.checkpoint.take(&format!("{module}.weight_scale"));
        let interleaved = weight.interleaved_heads;
        let mut matrix = Matrix::Ternary(quantize::ternary(weight, scale, (rows, k), self.storage)?);
        if let Some(heads) = interleaved {
            matrix = gguf::in_order(matrix, heads)?;
        }
        Ok(Projection { norm: None, matrix })
    }

    fn norm(&mut self, module: &str, len: usize, what: &str) -> Result<NormWeights, CompileError> {
        quantize::norm(self.checkpoint.require(&format!("{module}.weight"))?, len, what)
    }
}

/// A tensor that nobody asked for would have changed the arithmetic, unless it only caches it.
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
    } else if first.name.ends_with(".rms_norm.weight") {
        "an RMSNorm inside each linear is not yet supported".to_owned()
    } else {
        format!("it is no part of {} as config.json describes it", family.architecture)
    };
    Err(first.error(format!("is not understood: {why}; leaving it out would change the results{more}")))
}
