//! Joins a packed `weight` with the `scales` and `biases` beside it.

use super::quantization::{Packing, Quantization};
use crate::checkpoint::{Affine, ElementType, RawTensor};
use crate::error::CompileError;
use crate::weights::affine_table;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Group sizes of mlx-lm.
const GROUPS: [u64; 3] = [32, 64, 128];

/// Modules that are read as tables of floats where their codes are more than trits.
const TABLES: [&str; 3] = ["model.embed_tokens", "lm_head", "model.lm_head"];

/// Makes one tensor of each packed module; a module is packed if there are `scales`.
///
/// # Errors
/// Modules in other bits or groups, parts that are missing, and shapes that do not go together.
pub(super) fn join(
    quantization: &Quantization,
    tensors: &mut BTreeMap<String, RawTensor>,
) -> Result<(), CompileError> {
    let modules: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(".scales").map(str::to_owned)).collect();
    if modules.is_empty() {
        return Err(quantization.invalid(format!(
            "{}, as mlx-lm packs weights, but no tensor has scales; the files are not of the same model",
            quantization.describe()
        )));
    }
    for module in modules {
        let packing = quantization.of(&module)?;
        let mut part = |part: &str| tensors.remove(&format!("{module}.{part}"));
        let (weight, scales, biases) = (part("weight"), part("scales"), part("biases"));
        let Some(scales) = scales else { continue };
        let (Some(weight), Some(biases)) = (weight, biases) else {
            return Err(scales.error("has no weight and biases beside it; the checkpoint is incomplete"));
        };
        let joined = joined(weight, scales, biases, packing, TABLES.contains(&module.as_str()))?;
        tensors.insert(format!("{module}.weight"), joined);
    }
    Ok(())
}

fn joined(
    weight: RawTensor,
    scales: RawTensor,
    biases: RawTensor,
    packing: Packing,
    is_table: bool,
) -> Result<RawTensor, CompileError> {
    let Packing { bits, group } = packing;
    let codes = u8::try_from(bits).unwrap_or(0);
    let in_table = is_table && affine_table::BITS.contains(&codes);
    if ![1, 2].contains(&bits) && !in_table {
        return Err(weight.unsupported(format!(
            "is packed in {bits} bits by mlx-lm, and only 1 and 2 bits can be ternary (embeddings and heads may have 3, 4, 5, 6 \
             or 8); use the model's safetensors checkpoint for transformers (often named \"unpacked\"), or its GGUF file"
        )));
    }
    if !GROUPS.contains(&group) {
        return Err(weight.unsupported(format!(
            "is packed in groups of {group} columns, which is not supported (only 32, 64 and 128)"
        )));
    }
    if weight.dtype != ElementType::Other(Dtype::U32) {
        return Err(weight.unsupported(format!("is {}, but packed weights are U32", weight.dtype)));
    }
    if scales.dtype.float().is_none() || biases.dtype != scales.dtype {
        return Err(scales.unsupported(format!(
            "is {} and the biases are {}; expected both F16, BF16 or F32",
            scales.dtype, biases.dtype
        )));
    }
    let &[rows, words] = weight.shape.as_slice() else {
        return Err(weight.error(format!("has shape {:?}, expected two dimensions", weight.shape)));
    };
    let group = group as usize;
    let group_bits = group * usize::from(codes);
    let k =
        words.checked_mul(32).filter(|bits| bits.is_multiple_of(group_bits)).map(|n| n / group_bits * group);
    let Some(k) = k else {
        return Err(weight.error(format!(
            "has shape {:?}: rows of {words} words, which are no whole number of groups of {group} codes of {bits} bits",
            weight.shape
        )));
    };
    for tensor in [&scales, &biases] {
        tensor
            .expect_shape(&[rows, k / group], &format!("{rows} rows of {k} columns in groups of {group}"))?;
    }
    let affine = Some(Arc::new(Affine { group, scales, biases }));
    Ok(RawTensor { dtype: ElementType::Codes(codes), shape: vec![rows, k], affine, ..weight })
}
