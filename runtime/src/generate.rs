//! From a prompt to tokens.

use crate::sample::Sampler;
use crate::{RuntimeError, Session};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop id was sampled; it is not among the ids.
    Stop,
    /// As many tokens as asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller wanted no more.
    Interrupted,
}

/// What a generation produced.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for the generated tokens.
    pub decode: Duration,
}

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions<'a> {
    /// Most tokens to generate.
    pub max_new: usize,
    /// Ids that end the generation.
    pub stop: &'a [u32],
    /// Go on past stop ids, which then are among the ids.
    pub ignore_eos: bool,
}

/// Appends `prompt` to the session and generates, handing each token to `each` as it is sampled.
///
/// # Errors
/// As [`Session::prefill`], and [`RuntimeError::System`] where no logit is a number.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    sampler: &mut Sampler,
    options: &GenerateOptions,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, RuntimeError> {
    let start = Instant::now();
    let mut ids = Vec::new();
    let mut logits = session.prefill(prompt)?.to_vec();
    let prefill = start.elapsed();
    let start = Instant::now();
    let mut finish = Finish::Length;
    // The sampler sees the whole sequence, the last token included, which the session has not run yet.
    let mut history = session.tokens().to_vec();
    while ids.len() < options.max_new {
        if !logits.iter().any(|v| v.is_finite()) {
            return Err(RuntimeError::System(
                "the model's output is no number; check it with `trit-run selftest`".into(),
            ));
        }
        let id = sampler.sample(&mut logits, &history);
        if !options.ignore_eos && options.stop.contains(&id) {
            finish = Finish::Stop;
            break;
        }
        ids.push(id);
        history.push(id);
        if each(id).is_break() {
            finish = Finish::Interrupted;
            break;
        }
        if ids.len() == options.max_new {
            break;
        }
        if session.position() == session.context_length() {
            finish = Finish::Context;
            break;
        }
        logits.copy_from_slice(session.decode(id)?);
    }
    Ok(Generation { ids, finish, prefill, decode: start.elapsed() })
}
