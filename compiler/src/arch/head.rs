//! The embedding and the head: one table or two, of floats or trits.

use crate::arch::decoder::Tensors;
use crate::arch::quantization::{LinearWeights, Quantization};
use crate::checkpoint::RawTensor;
use crate::error::{CompileError, Warnings};
use crate::model::Matrix;

const TABLE: &str = "[vocab_size, hidden_size]";

/// The embedding, its factor, and the head where it is another matrix.
pub(crate) fn tables(
    tensors: &mut Tensors<'_>,
    warnings: &mut Warnings,
) -> Result<(Matrix, f32, Option<Matrix>), CompileError> {
    let config = tensors.config;
    let shape = [config.dims.vocab_size, config.dims.hidden_dim].map(|n| n as usize);
    let embedding = tensors.checkpoint.require("model.embed_tokens.weight")?;
    // Of codes the type of a model's floats is that of their scales.
    let floats = embedding.affine.as_ref().map_or(embedding.dtype, |affine| affine.scales.dtype);
    let scale = config.factors.embedding_scale.of(floats);
    let (embedding, head) = match &config.weights {
        LinearWeights::Declared(quantization) if !keeps_head(quantization) => {
            let head = ternary_head(tensors, quantization, shape)?;
            (tensors.floats(embedding, &shape, TABLE)?, Some(head))
        }
        LinearWeights::Declared(_) => {
            let head = own_head(tensors, &embedding, warnings)?;
            let embedding = tensors.floats(embedding, &shape, TABLE)?;
            (embedding, head.map(|head| tensors.floats(head, &shape, TABLE)).transpose()?)
        }
        LinearWeights::Undeclared => {
            let head = own_head(tensors, &embedding, warnings)?;
            // No step multiplies rows of a ternary table with a factor, so a table that has one stays a table of
            // floats.
            let embedding = match scale {
                1.0 => tensors.undeclared_table(embedding, shape)?,
                _ => tensors.floats(embedding, &shape, TABLE)?,
            };
            let head = head.map(|head| tensors.undeclared_table(head, shape)).transpose()?;
            let embedding = tensors.rotated(embedding, "model.embed_tokens")?;
            let head = head.map(|head| tensors.rotated(head, "lm_head")).transpose()?;
            if head.is_none() && embedding.ternary().is_some_and(|table| table.rotation.is_some()) {
                let path = tensors.checkpoint.path.clone();
                let problem =
                    "its embedding is rotated and is its head too, which is not supported".to_owned();
                return Err(CompileError::Unsupported { path, problem });
            }
            (embedding, head)
        }
    };
    Ok((embedding, scale, head))
}

/// Whether the head stays unquantized. Some checkpoints keep it below `model`.
fn keeps_head(quantization: &Quantization) -> bool {
    ["lm_head", "model.lm_head"].iter().any(|module| quantization.kept.has(module))
}

/// A head that is quantized like every other linear, because `modules_to_not_convert` does not list it.
fn ternary_head(
    tensors: &mut Tensors<'_>,
    quantization: &Quantization,
    shape: [usize; 2],
) -> Result<Matrix, CompileError> {
    let refused = |why: &str| CompileError::Unsupported {
        path: tensors.checkpoint.path.clone(),
        problem: format!(
            "quantization_config.modules_to_not_convert of its config.json leaves out \"lm_head\", so the head is \
             ternary, {why}"
        ),
    };
    if tensors.config.tied {
        return Err(refused("but tie_word_embeddings makes it the embedding, which is not"));
    }
    if quantization.inner_norm.is_some() {
        return Err(refused("and use_rms_norm puts an RMSNorm into it, which is not supported"));
    }
    let module = if tensors.checkpoint.has("model.lm_head.weight") { "model.lm_head" } else { "lm_head" };
    let weight = tensors.checkpoint.require(&format!("{module}.weight"))?;
    tensors.ternary(weight, module, shape, quantization.storage)
}

/// The head, where it is not the embedding. As in transformers, a head that differs from the embedding wins over
/// `tie_word_embeddings`.
fn own_head(
    tensors: &mut Tensors<'_>,
    embedding: &RawTensor,
    warnings: &mut Warnings,
) -> Result<Option<RawTensor>, CompileError> {
    let (tied, checkpoint) = (tensors.config.tied, &mut tensors.checkpoint);
    let head = checkpoint.take("lm_head.weight").or_else(|| checkpoint.take("model.lm_head.weight"));
    match head {
        None if tied => Ok(None),
        None => Err(CompileError::Tensor {
            path: checkpoint.path.clone(),
            tensor: "lm_head.weight".to_owned(),
            problem: "is missing, and config.json does not set tie_word_embeddings to true".to_owned(),
        }),
        Some(head) if tied => {
            if is_same(&head, embedding) {
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

/// Whether two tables hold the same, bit for bit.
fn is_same(a: &RawTensor, b: &RawTensor) -> bool {
    let affine = match (&a.affine, &b.affine) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a.group == b.group && is_same(&a.scales, &b.scales) && is_same(&a.biases, &b.biases)
        }
        _ => false,
    };
    affine && a.dtype == b.dtype && a.shape == b.shape && a.bytes.batches(1).eq(b.bytes.batches(1))
}
