//! What files of the architecture `minicpm` (MiniCPM, BitCPM) have and no other: three factors, and LongRoPE's lists of
//! divisors as tensors. Source: `conversion/minicpm.py` of llama.cpp.

use super::architecture_keys::ArchitectureKeys;
use super::parts::Gguf;
use crate::checkpoint::ElementType;
use crate::error::CompileError;
use serde_json::{Map, Value, json};

/// The divisors of LongRoPE's frequencies: those for short texts and those for long ones.
pub(super) type LongFactors = [Vec<f32>; 2];

/// Takes the tensors with LongRoPE's divisors, where the file has them.
///
/// # Errors
/// One without the other, another type or shape, and numbers that are no divisors.
pub(super) fn take_factors(gguf: &mut Gguf) -> Result<Option<LongFactors>, CompileError> {
    let names = ["rope_factors_short.weight", "rope_factors_long.weight"];
    let [short, long] = names.map(|name| gguf.tensors.remove(name));
    let (short, long) = match (short, long) {
        (None, None) => return Ok(None),
        (Some(short), Some(long)) => (short, long),
        (Some(one), None) | (None, Some(one)) => {
            return Err(one.error("stands there alone; there must be factors for short and for long texts"));
        }
    };
    let mut factors = [Vec::new(), Vec::new()];
    for (tensor, factors) in [short, long].iter().zip(&mut factors) {
        if tensor.dtype != ElementType::F32 || tensor.shape.len() != 1 {
            return Err(tensor.error(format!(
                "is {} of shape {:?}, expected F32 in one dimension",
                tensor.dtype, tensor.shape
            )));
        }
        factors.extend(tensor.bytes.as_ref().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        if let Some(at) = factors.iter().position(|factor| !(factor.is_finite() && *factor > 0.0)) {
            return Err(tensor.error(format!("holds {} at {at}, expected numbers above zero", factors[at])));
        }
    }
    Ok(Some(factors))
}

/// Adds to `config` what keys of this architecture say. `factors` are LongRoPE's.
///
/// # Errors
/// Factors that are missing, as in files from before April 2025, or are not above zero.
pub(super) fn complete(
    keys: &mut ArchitectureKeys,
    config: &mut Map<String, Value>,
    context_length: u64,
    factors: Option<LongFactors>,
) -> Result<(), CompileError> {
    let size = |key: &str| config.get(key).and_then(Value::as_f64).unwrap_or(1.0);
    let (layers, hidden) = (size("num_hidden_layers").max(1.0).sqrt(), size("hidden_size"));
    let embedding = factor(keys, "embedding_scale")?;
    let residual = factor(keys, "residual_scale")?;
    let logits = factor(keys, "logit_scale")?;
    config.insert("scale_emb".to_owned(), json!(shortest(embedding, embedding, |x| x)));
    let depth = shortest(residual * layers, residual, |depth| depth / layers);
    config.insert("scale_depth".to_owned(), json!(depth));
    let base = shortest(hidden / logits, logits, |base| hidden / base);
    config.insert("dim_model_base".to_owned(), json!(base));
    let Some([short, long]) = factors else {
        let scaling = keys.rope_scaling(context_length)?;
        config.extend(scaling.map(|scaling| ("rope_scaling".to_owned(), scaling)));
        return Ok(());
    };
    let kind = keys.metadata.text(&keys.named("rope.scaling.type"))?;
    if let Some(kind) = kind.filter(|kind| kind != "longrope") {
        return Err(
            keys.invalid("rope.scaling.type", format!("is {kind:?}, but there are factors of LongRoPE"))
        );
    }
    if let Some(factor) = keys.number("rope.scaling.attn_factor")?.filter(|factor| *factor != 1.0) {
        return Err(
            keys.unsupported("rope.scaling.attn_factor", format!("is {factor}, which is not supported"))
        );
    }
    let original = keys.unsigned("rope.scaling.original_context_length")?.unwrap_or(context_length);
    let scaling = json!({
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
    });
    config.insert("rope_scaling".to_owned(), scaling);
    Ok(())
}

/// A factor that must be there and above zero.
fn factor(keys: &mut ArchitectureKeys, key: &str) -> Result<f64, CompileError> {
    let value = keys.number(key)?;
    let value = keys.required(key, value)?;
    match value > 0.0 {
        true => Ok(value),
        false => Err(keys.invalid(key, format!("is {value}, expected a number above zero"))),
    }
}

/// The number with the fewest digits near `value` from which converters would have made `stored`, which is an f32. So
/// 1.4 comes back as 1.4, and the model is the same to the last bit.
fn shortest(value: f64, stored: f64, converted: impl Fn(f64) -> f64) -> f64 {
    let candidates = (0..9).filter_map(|digits| format!("{value:.digits$e}").parse::<f64>().ok());
    let mut candidates = candidates.filter(|candidate| converted(*candidate) as f32 == stored as f32);
    candidates.next().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_come_back_as_they_were_written() {
        for layers in [24.0f64, 32.0, 40.0, 52.0] {
            let stored = f64::from((1.4 / layers.sqrt()) as f32);
            assert_eq!(shortest(stored * layers.sqrt(), stored, |depth| depth / layers.sqrt()), 1.4);
        }
        let stored = f64::from((2304.0f64 / 256.0) as f32);
        assert_eq!(shortest(2304.0 / stored, stored, |base| 2304.0 / base), 256.0);
        let odd = f64::from(0.123_456_79_f32);
        assert_eq!(shortest(odd, odd, |x| x) as f32, odd as f32);
    }
}
