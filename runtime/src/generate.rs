//! From a prompt to tokens.

use crate::draft::{self, Drafts};
use crate::sample::Sampler;
use crate::{Profile, RuntimeError, Session};
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
    /// The caller wanted no more, or another thread did: see [`Session::interrupt_by`].
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
    /// Tokens guessed from the text before them, and how many of them were right.
    pub guesses: (usize, usize),
    /// Where the time of the prompt and of the generated tokens went, where the session keeps a profile.
    pub profiles: Option<[Profile; 2]>,
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
    /// Guess tokens from the text before them and check several in one pass, where that pays. The tokens generated are
    /// the same.
    pub speculate: bool,
}

/// Appends `prompt` to the session and generates, handing each token to `each` as it is sampled. Interrupted before the
/// first token, it leaves the session as it was.
///
/// # Errors
/// As [`Session::prefill`], and [`RuntimeError::Suppressed`] where no token may be chosen.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    sampler: &mut Sampler,
    options: &GenerateOptions,
    each: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, RuntimeError> {
    let start = Instant::now();
    // The sampler sees the whole sequence, the last token included, which the session has not run yet.
    let mut history = [session.tokens(), prompt].concat();
    sampler.begin(history.len());
    let vocab = session.model().manifest().hyperparameters.vocab_size as usize;
    let advanced = session.advance(prompt, &[sampler.asks(&history, &[], vocab)]);
    let mut result = Generation {
        ids: Vec::new(),
        finish: Finish::Length,
        prefill: start.elapsed(),
        decode: Duration::ZERO,
        guesses: (0, 0),
        profiles: None,
    };
    match advanced {
        Err(RuntimeError::Interrupted) => return Ok(Generation { finish: Finish::Interrupted, ..result }),
        advanced => advanced?,
    }
    let of_prompt = session.profile();
    if of_prompt.is_some() {
        session.start_profile();
    }
    let start = Instant::now();
    let mut drafts = options.speculate.then(Drafts::new);
    let mut pass = Instant::now();
    // Tokens run after the last one that was chosen, and so only guessed.
    let mut guessed: Vec<u32> = Vec::new();
    // Rows of the pass.
    let mut ran = 1;
    'passes: while result.ids.len() < options.max_new {
        let (mut right, before) = (0, history.len());
        loop {
            let chosen = session.logits(right).and_then(|logits| sampler.choose(logits, &history));
            let id = chosen.ok_or(RuntimeError::Suppressed { tokens: history.len() })?;
            if !options.ignore_eos && options.stop.contains(&id) {
                result.finish = Finish::Stop;
                break 'passes;
            }
            result.ids.push(id);
            history.push(id);
            if each(id).is_break() {
                result.finish = Finish::Interrupted;
                break 'passes;
            }
            if guessed.get(right) != Some(&id) || result.ids.len() == options.max_new {
                break;
            }
            right += 1;
            // The rows of further guesses did not run.
            if right == ran {
                break;
            }
        }
        result.guesses.1 += right;
        // What was run after the last right guess never happened.
        session.truncate(history.len() - 1);
        if result.ids.len() == options.max_new {
            break;
        }
        if session.position() == session.context_length() {
            result.finish = Finish::Context;
            break;
        }
        if let Some(drafts) = &mut drafts {
            drafts.learn(guessed.len(), history.len() - before, pass.elapsed());
            let room = session.context_length() - session.position() - 1;
            let most =
                room.min(options.max_new - result.ids.len() - 1).min(session.chunk() - 1).min(draft::MOST);
            guessed = drafts.guess(&history, most).to_vec();
        }
        pass = Instant::now();
        result.guesses.0 += guessed.len();
        let requests = vec![sampler.asks(&history, &guessed, vocab); 1 + guessed.len()];
        let last = history[history.len() - 1];
        ran = match session.advance_drafted(last, &guessed, &requests) {
            Err(RuntimeError::Interrupted) => {
                result.finish = Finish::Interrupted;
                break;
            }
            ran => ran?,
        };
    }
    // As without guesses, the session ends before the last token, which nothing needed to follow; a stop followed it.
    let run = match result.finish {
        Finish::Stop => history.len(),
        _ => history.len() - usize::from(!result.ids.is_empty()),
    };
    session.truncate(session.position().min(run));
    result.decode = start.elapsed();
    result.profiles = of_prompt.zip(session.profile()).map(|(prompt, decode)| [prompt, decode]);
    Ok(result)
}
