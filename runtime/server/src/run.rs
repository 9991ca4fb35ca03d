//! Runs requests: tokens come from the scheduler, parts of answers leave.
//!
//! Each answer has a task of its own, which turns tokens into text, looks for texts to stop at, and splits the text into parts.
//! A reader that is slow makes its task wait, and holds the tokens of its own answer, which the context bounds; the scheduler
//! never waits. When the reader goes away, the task ends, and with it the request.

use crate::answer::{Part, Splitter};
use crate::chat::{Answers, ChatRequest, Content, Delta, FinishReason, Generation, Prompt, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::follow::Choice;
use crate::prompt::Made;
use crate::state::{AppState, Caller};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use trit_runtime::RuntimeError;
use trit_runtime::generate::guide::Guide;
use trit_runtime::sample::{Sampler, with_biases};
use trit_runtime::scheduler::{Event, Refused, Request};

/// Most answers to a request.
pub const MOST_ANSWERS: usize = 128;
/// Most texts to stop at.
pub const MOST_STOPS: usize = 64;
/// Parts of answers that wait for a slow reader; what comes after them stays tokens.
const AHEAD: usize = 32;

impl AppState {
    /// Runs a request.
    ///
    /// # Errors
    /// [`ApiError`] where it cannot be run, or there is no room for it.
    pub async fn answer(
        self: &Arc<Self>,
        request: ChatRequest,
        caller: &Caller,
    ) -> Result<Answers, ApiError> {
        self.answer_all(vec![request], caller).await
    }

    /// Runs requests together: the answers to the second come after those to the first, and so on.
    ///
    /// # Errors
    /// As [`AppState::answer`]. None of them runs then.
    pub async fn answer_all(
        self: &Arc<Self>,
        requests: Vec<ChatRequest>,
        caller: &Caller,
    ) -> Result<Answers, ApiError> {
        let arrived = Instant::now();
        let n: usize = requests.iter().map(|request| request.generation.n.max(1)).sum();
        if n > MOST_ANSWERS {
            let message = format!("{n} answers are asked for, expected no more than {MOST_ANSWERS}");
            return Err(ApiError::invalid_param("n", message).with_code("invalid_value"));
        }
        let (to, deltas) = mpsc::channel(AHEAD);
        let mut choices = Vec::with_capacity(n);
        let mut prompt = 0;
        for request in requests {
            let made = self.make_prompt(&request.prompt).await?;
            prompt += made.ids.len();
            if made.ids.is_empty() {
                return Err(ApiError::invalid_param("prompt", "the prompt is empty"));
            }
            if made.ids.len() >= self.scheduler.context_length() {
                let param = if matches!(request.prompt, Prompt::Messages(_)) { "messages" } else { "prompt" };
                return Err(self.too_long(made.ids.len(), param));
            }
            if self.options.log_prompts {
                let text =
                    self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.decode(&made.ids, false).ok());
                tracing::info!(request = %caller.request, prompt = ?text.unwrap_or_default(), "prompt");
            }
            let guides = self.guides(&request, &made).await?;
            let seed = request.generation.seed.unwrap_or_else(|| RandomState::new().hash_one(arrived) >> 32);
            for (index, guide) in guides.into_iter().enumerate() {
                let seed = seed.wrapping_add(index as u64);
                let choice = self.submit(&request, &made, (seed, guide), choices.len(), arrived, caller)?;
                choices.push(choice);
            }
        }
        for choice in choices {
            tokio::spawn(choice.run(to.clone()));
        }
        Ok(Answers::new(n, prompt, deltas, self.options.request_timeout.map(|timeout| arrived + timeout)))
    }

    /// Hands a request to the scheduler for one of its answers.
    fn submit(
        self: &Arc<Self>,
        request: &ChatRequest,
        made: &Made,
        (seed, guide): (u64, Option<Box<dyn Guide>>),
        index: usize,
        arrived: Instant,
        caller: &Caller,
    ) -> Result<Choice, ApiError> {
        let generation = &request.generation;
        let splitter = match (&request.prompt, &self.form) {
            (Prompt::Messages(messages), Some(form)) => form.splitter(messages, &made.text),
            _ => Splitter::plain(),
        };
        let mut choice = Choice::new(self.clone(), index, splitter, made, generation, caller, arrived);
        if generation.max_tokens == Some(0) {
            return Ok(choice);
        }
        let sampling = &self.model.manifest().text.sampling;
        let rules = with_biases(&sampling.rules, &generation.logit_bias);
        let mut sampler = Sampler::with_rules(generation.sampling.over(sampling, seed), &rules);
        sampler.begin(made.ids.len());
        let room = self.scheduler.context_length() - made.ids.len();
        let ask = Request {
            ids: made.ids.clone(),
            sampler,
            max_new: generation.max_tokens.unwrap_or(usize::MAX).min(room),
            stop_ids: self.model.manifest().text.stop.clone(),
            ignore_eos: generation.ignore_eos,
            guide,
            logprobs: generation.logprobs,
            user: user(generation, caller),
        };
        let (send, events) = mpsc::unbounded_channel();
        let metrics = self.metrics.clone();
        let mut last = None;
        let receive = move |event: Event| {
            let now = Instant::now();
            if let Event::Token(_) = &event {
                match last.replace(now) {
                    None => metrics.first_token.observe(now - arrived),
                    Some(before) => metrics.between_tokens.observe(now - before),
                }
            }
            match send.send((event, now)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let ticket = self.scheduler.submit(ask, receive).map_err(|refused| self.refused(refused))?;
        choice.follow(events, ticket);
        Ok(choice)
    }

    fn refused(&self, refused: Refused) -> ApiError {
        match refused {
            Refused::Full { waiting, retry_after } => {
                let message =
                    format!("{waiting} requests wait already, which are all that may wait; try again later");
                ApiError::new(ErrorKind::Overloaded { retry_after }, message).with_code("rate_limit_exceeded")
            }
            Refused::Impossible(error) => runtime_error(&error),
            other => ApiError::new(ErrorKind::Unavailable, other.to_string()),
        }
    }
}

/// What the model's failure means for a client.
pub(crate) fn runtime_error(error: &RuntimeError) -> ApiError {
    match error {
        RuntimeError::ContextFull { .. } | RuntimeError::Context { .. } => {
            ApiError::invalid(error.to_string()).with_code("context_length_exceeded")
        }
        RuntimeError::Input(_) | RuntimeError::Suppressed { .. } => ApiError::invalid(error.to_string()),
        RuntimeError::SequenceMemory { .. } => ApiError::new(ErrorKind::Unavailable, error.to_string()),
        _ => ApiError::internal(error.to_string()),
    }
}

/// A number for who asks: the user that the client names, or else the machine that the request comes from.
fn user(generation: &Generation, caller: &Caller) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &generation.user {
        Some(user) => (1, user).hash(&mut hasher),
        None => (0, caller.peer).hash(&mut hasher),
    }
    hasher.finish()
}

/// An answer that ends before it begins.
pub(crate) fn empty(choice: usize, prompt: usize) -> Delta {
    let usage = Usage { prompt, ..Usage::default() };
    Delta { choice, content: Content::End { finish: FinishReason::Length, usage }, tokens: Vec::new() }
}

/// A part of an answer with the tokens that it came from.
pub(crate) fn part(choice: usize, part: Part, tokens: Vec<crate::chat::TokenLogprob>) -> Delta {
    Delta { choice, content: Content::Part(part), tokens }
}
