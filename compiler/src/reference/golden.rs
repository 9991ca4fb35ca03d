//! Makes known results for the runtime's self-test: a few tokens and the logits after them.
//!
//! Activations are rounded to int8, so an error in the last bit of a float may move a value to the other side of a
//! rounding boundary, and two correct programs then differ by about 1e-2. This module looks for a prompt where that
//! hardly happens: its logits stay nearly the same when the input of every product is changed in its last bits.

use crate::error::CompileError;
use crate::model::{Layer, Model, Projection};
use crate::progress::{Progress, Stage, advance};
use crate::reference;

/// The relative change of inputs: some rounding errors of f32, about as large as those of another order of summation.
const JITTER: f32 = 1e-6;
/// Relative L2 distance of logits below which no better prompt is looked for.
const STEADY: f64 = 1e-5;
/// Relative L2 distance of logits up to which a result can be told from a wrong one. The self-test allows 3e-2.
const USABLE: f64 = 1.5e-2;
/// How many prompts are tried for a small model, and how many weights are read at most to try more than one.
const TRIES: u64 = 16;
const WEIGHTS_READ: u64 = 2_000_000_000;

/// Tokens, and what follows from them.
pub(crate) struct KnownResult {
    pub ids: Vec<u32>,
    /// `[vocab]`, after the last of `ids`.
    pub logits: Vec<f32>,
}

/// The steadiest prompt and the logits `[vocab]` after it; `None` where all are too unsteady, as with random weights.
///
/// # Errors
/// As [`reference::logits`], and [`CompileError::Interrupted`].
pub(crate) fn known_result(
    model: &Model,
    progress: &dyn Progress,
) -> Result<Option<KnownResult>, CompileError> {
    let size = |p: &Projection| p.matrix.shape().into_iter().product::<usize>() as u64;
    let layer = |l: &Layer| l.projections().into_iter().map(size).sum::<u64>();
    let weights: u64 = model.layers.iter().map(layer).sum();
    let tries = (WEIGHTS_READ / (2 * weights).max(1)).clamp(1, TRIES);
    progress.begin(Stage::Check, 2 * tries * model.layers.len() as u64);
    let mut best: Option<(f64, KnownResult)> = None;
    for attempt in 0..tries {
        let ids = prompt(model, attempt as u32);
        let logits = |jitter| {
            let states = reference::forward_jittered(model, &ids, jitter, |_, _| advance(progress, 1))?;
            reference::head(model, &states[states.len() - model.hyperparameters.hidden_dim as usize..])
        };
        let exact = logits(0.0)?;
        let distance = relative_l2(&logits(JITTER)?, &exact);
        if best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, KnownResult { ids, logits: exact }));
        }
        if distance <= STEADY {
            break;
        }
    }
    Ok(best.filter(|(distance, _)| *distance <= USABLE).map(|(_, result)| result))
}

/// Four tokens: the one that texts of this model begin with, then some from all over the vocabulary.
fn prompt(model: &Model, attempt: u32) -> Vec<u32> {
    let vocab_size = model.hyperparameters.vocab_size;
    let spread = |nth: u32| {
        ((u64::from(vocab_size) / u64::from(nth)) as u32).wrapping_add(attempt * 37 * nth) % vocab_size
    };
    let mut ids = vec![model.text.bos.unwrap_or(0), spread(7), spread(3), spread(2)];
    ids.truncate(model.hyperparameters.context_length.max(1) as usize);
    ids
}

/// `|a - b| / |b|` in the L2 norm; infinite where that is not a number.
fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    let distance = (error / b.iter().map(|&b| square(b)).sum::<f64>()).sqrt();
    match error {
        0.0 => 0.0,
        _ if distance.is_nan() => f64::INFINITY,
        _ => distance,
    }
}
