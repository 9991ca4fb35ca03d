//! Follows one answer: tokens enter, parts of the answer leave.

use crate::answer::{Part, Splitter};
use crate::chat::{Content, Delta, FinishReason, Generation, TokenLogprob, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::prompt::Made;
use crate::run::{empty, part, runtime_error};
use crate::state::{AppState, Caller};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use trit_runtime::generate::Finish;
use trit_runtime::scheduler::{Chosen, Event, RequestError, Ticket};
use trit_runtime::text::{AnswerText, TextError};

/// One answer to a request.
pub(crate) struct Choice {
    state: Arc<AppState>,
    /// Which answer it is.
    index: usize,
    /// What the scheduler sends, and when it did; the ticket cancels the request when it is dropped. `None` where there is
    /// nothing to generate.
    source: Option<(UnboundedReceiver<(Event, Instant)>, Ticket)>,
    text: AnswerText,
    splitter: Splitter,
    /// Tokens with probabilities that no part was given out with yet.
    tokens: Vec<TokenLogprob>,
    /// Tokens of which no part was given out yet.
    pending: usize,
    calls: bool,
    usage: Usage,
    request: Arc<str>,
    arrived: Instant,
    began: Option<Instant>,
    first: Option<Instant>,
    last: Instant,
    /// The whole answer, where it is logged.
    logged: Option<String>,
}

impl Choice {
    pub fn new(
        state: Arc<AppState>,
        index: usize,
        splitter: Splitter,
        made: &Made,
        generation: &Generation,
        caller: &Caller,
        arrived: Instant,
    ) -> Choice {
        Choice {
            index,
            source: None,
            text: AnswerText::after(state.tokenizer.clone(), &made.ids, &generation.stop),
            splitter,
            tokens: Vec::new(),
            pending: 0,
            calls: false,
            usage: Usage { prompt: made.ids.len(), ..Usage::default() },
            request: caller.request.clone(),
            arrived,
            began: None,
            first: None,
            last: arrived,
            logged: state.options.log_prompts.then(String::new),
            state,
        }
    }

    /// Says where the tokens come from.
    pub fn follow(&mut self, events: UnboundedReceiver<(Event, Instant)>, ticket: Ticket) {
        self.source = Some((events, ticket));
    }

    /// Sends the parts of the answer until it has ended, or nobody takes them any more.
    pub async fn run(mut self, to: Sender<Result<Delta, ApiError>>) {
        let Some((mut events, ticket)) = self.source.take() else {
            let _ = to.send(Ok(empty(self.index, self.usage.prompt))).await;
            return;
        };
        loop {
            let event = tokio::select! {
                biased;
                () = to.closed() => return self.left(),
                event = events.recv() => event,
            };
            let stopped = || (Event::Ended(Err(RequestError::Stopped)), Instant::now());
            let (event, at) = event.unwrap_or_else(stopped);
            self.last = at;
            let (deltas, ended) = match self.take(event) {
                Ok(done) => done,
                Err(error) => {
                    self.state.metrics.answer("error");
                    tracing::warn!(request = %self.request, choice = self.index, error = ?error.message, "answer failed");
                    let _ = to.send(Err(error)).await;
                    return;
                }
            };
            if ended {
                // The slot becomes free although the reader may be slow.
                drop(ticket);
                for delta in deltas {
                    if to.send(Ok(delta)).await.is_err() {
                        return self.left();
                    }
                }
                return;
            }
            for delta in deltas {
                if to.send(Ok(delta)).await.is_err() {
                    return self.left();
                }
            }
        }
    }

    /// The client went away.
    fn left(&self) {
        self.state.metrics.answer("cancelled");
        tracing::info!(
            request = %self.request,
            choice = self.index,
            prompt = self.usage.prompt,
            generated = self.usage.generated,
            "cancelled: the client went away"
        );
    }

    /// What an event adds to the answer, and whether the answer has ended.
    fn take(&mut self, event: Event) -> Result<(Vec<Delta>, bool), ApiError> {
        match event {
            Event::Began { cached } => {
                // A request that was preempted begins again; what it had from others at first is what counts.
                if self.began.is_none() {
                    (self.began, self.usage.cached) = (Some(self.last), cached);
                }
                Ok((Vec::new(), false))
            }
            Event::Token(chosen) => self.token(&chosen),
            Event::Ended(Ok(ended)) => {
                self.usage.drafted = ended.drafted;
                let finish = match ended.finish {
                    Finish::Stop => FinishReason::Stop,
                    Finish::Length | Finish::Context => FinishReason::Length,
                    Finish::Interrupted => return Err(ApiError::internal("the answer was interrupted")),
                };
                let text = self.text.finish().map_err(broken)?;
                let finish = self.stopped().unwrap_or(finish);
                let mut deltas = self.parts(&text);
                deltas.extend(self.end(finish));
                Ok((deltas, true))
            }
            Event::Ended(Err(RequestError::Runtime(error))) => Err(runtime_error(&error)),
            Event::Ended(Err(RequestError::Stopped)) => {
                Err(ApiError::new(ErrorKind::Unavailable, RequestError::Stopped.to_string()))
            }
            Event::Ended(Err(RequestError::Guide(error))) => {
                Err(ApiError::invalid_param("response_format", error.0).with_code("invalid_value"))
            }
            Event::Ended(Err(error)) => Err(ApiError::internal(error.to_string())),
        }
    }

    fn token(&mut self, chosen: &Chosen) -> Result<(Vec<Delta>, bool), ApiError> {
        self.first.get_or_insert(self.last);
        self.usage.generated += 1;
        self.pending += 1;
        if let Some(logprob) = chosen.logprob {
            self.tokens.push(self.logprob(chosen, logprob)?);
        }
        let (text, mark) = match &self.state.tokenizer {
            Some(_) => self.text.push(chosen.id, |token| self.splitter.is_mark(token)).map_err(broken)?,
            // Without a tokenizer the ids are the text.
            None if self.usage.generated == 1 => (self.text.push_text(&chosen.id.to_string()), None),
            None => (self.text.push_text(&format!(",{}", chosen.id)), None),
        };
        if let Some(stop) = self.stopped() {
            // The token that completes the text to stop at is no part of the answer.
            self.tokens.pop();
            let mut deltas = self.parts(&text);
            deltas.extend(self.end(stop));
            return Ok((deltas, true));
        }
        let mut deltas = self.parts(&text);
        if let Some(token) = mark {
            let parts = self.splitter.push_special(&token);
            deltas.extend(self.deltas(parts));
        }
        Ok((deltas, false))
    }

    /// The end at a text to stop at, where one was found.
    fn stopped(&self) -> Option<FinishReason> {
        self.text.stopped_at().map(|stop| FinishReason::StopText(stop.to_owned()))
    }

    fn logprob(&self, chosen: &Chosen, logprob: f32) -> Result<TokenLogprob, ApiError> {
        let text = |id| self.state.token_text(id);
        let top = chosen.top.iter().map(|&(id, logprob)| Ok((text(id)?, logprob)));
        Ok(TokenLogprob { token: text(chosen.id)?, logprob, top: top.collect::<Result<_, ApiError>>()? })
    }

    fn parts(&mut self, text: &str) -> Vec<Delta> {
        if text.is_empty() {
            return Vec::new();
        }
        if let Some(logged) = &mut self.logged {
            logged.push_str(text);
        }
        let parts = self.splitter.push(text);
        self.deltas(parts)
    }

    /// Gives parts out, the first with the tokens since the last one.
    fn deltas(&mut self, parts: Vec<Part>) -> Vec<Delta> {
        if parts.is_empty() {
            return Vec::new();
        }
        let tokens = std::mem::take(&mut self.tokens);
        let pending = std::mem::take(&mut self.pending);
        if matches!(parts[0], Part::Reasoning(_)) {
            self.usage.reasoning += pending;
        }
        self.calls |= parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
        let tokens = std::iter::once(tokens).chain(std::iter::repeat_with(Vec::new));
        parts.into_iter().zip(tokens).map(|(found, tokens)| part(self.index, found, tokens)).collect()
    }

    /// What is left of the answer, and its end.
    fn end(&mut self, finish: FinishReason) -> Vec<Delta> {
        let parts = self.splitter.finish();
        let mut deltas = self.deltas(parts);
        let finish = match finish {
            FinishReason::Stop if self.calls => FinishReason::ToolCalls,
            other => other,
        };
        let began = self.began.unwrap_or(self.arrived);
        let first = self.first.unwrap_or(self.last);
        let between = |from: Instant, to: Instant| to.checked_duration_since(from).unwrap_or(Duration::ZERO);
        self.usage.times = [between(self.arrived, began), between(began, first), between(first, self.last)];
        let tokens = std::mem::take(&mut self.tokens);
        let name = match &finish {
            FinishReason::Stop | FinishReason::StopText(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        };
        self.state.metrics.answer(name);
        let [waited, prompt_time, rest] = self.usage.times.map(|time| time.as_secs_f64() * 1e3);
        tracing::info!(
            request = %self.request,
            choice = self.index,
            prompt = self.usage.prompt,
            cached = self.usage.cached,
            generated = self.usage.generated,
            finish = name,
            waited_ms = format_args!("{waited:.1}"),
            prompt_ms = format_args!("{prompt_time:.1}"),
            generated_ms = format_args!("{rest:.1}"),
            "answered"
        );
        if let Some(logged) = &self.logged {
            tracing::info!(request = %self.request, choice = self.index, answer = ?logged, "answer");
        }
        let content = Content::End { finish, usage: self.usage };
        deltas.push(Delta { choice: self.index, content, tokens });
        deltas
    }
}

fn broken(error: TextError) -> ApiError {
    ApiError::internal(error.to_string())
}
