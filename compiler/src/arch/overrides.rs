//! Applies to the built model what the checkpoint's file says and its configuration cannot say.

use crate::arch::Decoder;
use crate::checkpoint::overrides::{Overrides, Trained};
use crate::error::{CompileError, Warnings};
use crate::model::{Activations, Matrix, Scales};
use std::path::Path;

/// What they add to the facts of a configuration, a name and a fact each, for people.
pub(super) fn facts(overrides: &Overrides) -> Vec<(&'static str, String)> {
    let divisors = overrides.rope_divisors.as_ref().map(|factors| {
        let most = factors.iter().copied().fold(1.0, f32::max);
        ("divisors", format!("of RoPE's frequencies, up to {most}, from rope_freqs.weight"))
    });
    let rotations = overrides.rotations.as_ref().map(|rotations| {
        let (names, block) = (rotations.names.len(), rotations.block);
        ("rotated", format!("{names} weights, by Hadamard transforms of {block} elements"))
    });
    divisors.into_iter().chain(rotations).collect()
}

/// Completes a model that was built from the configuration and the tensors.
///
/// # Errors
/// RoPE factors of another number; a BitNet model with scales that differ inside a matrix.
pub(super) fn apply(
    overrides: &Overrides,
    path: &Path,
    model: &mut Decoder,
    warnings: &mut Warnings,
) -> Result<(), CompileError> {
    if let Some(divisors) = &overrides.rope_divisors {
        divide_frequencies(path, model, divisors)?;
    }
    let head = model.head.as_ref().unwrap_or(&model.embedding);
    let unlike = model.layers.iter().flat_map(|l| l.projections()).find(|p| !has_one_scale(&p.matrix));
    let unlike = unlike.map(|p| &p.matrix).or(Some(head).filter(|head| head.ternary().is_some()));
    let per_token = Activations::PerToken { floor: 1e-5 };
    match (overrides.trained, unlike.map(|matrix| matrix.name().to_owned())) {
        (Trained::PerToken, None) => model.activations = per_token,
        (Trained::PerToken, Some(name)) => {
            return Err(CompileError::Tensor {
                path: path.to_owned(),
                tensor: name,
                problem:
                    "is not ternary with one scale, as all linear layers of a BitNet model are, nor a head \
                              of floats; its weights were quantized a second time, convert the model again"
                        .to_owned(),
            });
        }
        (Trained::PerTokenByName, None) => {
            model.activations = per_token;
            warnings.push(
                    "the model is taken for a BitNet model by its name, and runs with one activation scale a token"
                        .to_owned(),
                );
        }
        (Trained::PerTokenByName | Trained::Unknown, _) => {}
    }
    Ok(())
}

fn divide_frequencies(path: &Path, model: &mut Decoder, divisors: &[f32]) -> Result<(), CompileError> {
    for rope in &mut model.ropes {
        if rope.inv_freq.len() != divisors.len() {
            return Err(CompileError::Tensor {
                path: path.to_owned(),
                tensor: "rope_freqs.weight".to_owned(),
                problem: format!(
                    "has {} elements, but heads have {} frequencies",
                    divisors.len(),
                    rope.inv_freq.len()
                ),
            });
        }
        rope.inv_freq.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
    }
    Ok(())
}

fn has_one_scale(matrix: &Matrix) -> bool {
    matrix.ternary().is_some_and(|ternary| matches!(ternary.scales, Scales::Tensor { .. }))
}
