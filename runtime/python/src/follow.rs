//! One answer, from chosen tokens to text and its parts.
//!
//! Events of a scheduler, or of [`crate::processed`], enter; pieces for whoever streams leave, and at the end the result.

use crate::errors::{TritError, closed, of_guide, of_runtime, of_text};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trit_runtime::generate::Finish;
use trit_runtime::scheduler::{Chosen, Event, RequestError};
use trit_runtime::text::{AnswerText, Tokenizer};
use trit_server::answer::{Part, Splitter};

/// What is new in an answer.
pub enum New {
    /// A token, or text that was held back, of a text that is continued.
    Piece { id: Option<u32>, text: String },
    /// A part of an answer in a chat.
    Part(Part),
}

/// The logarithm of a token's probability, and the most probable tokens with theirs.
pub type Logprob = (f32, Vec<(u32, f32)>);

/// How an answer went, once it has ended.
#[derive(Clone)]
pub struct Done {
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// Their text; `None` where the bundle has no tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: &'static str,
    /// Tokens of the prompt, and how many of them did not have to run.
    pub prompt: (usize, usize),
    /// Time for the prompt, and for the tokens after the first.
    pub times: [Duration; 2],
    /// Each token's logarithm of its probability, and the most probable tokens with theirs.
    pub logprobs: Option<Vec<Logprob>>,
}

/// An answer that is being generated.
pub struct Follow {
    bundle: PathBuf,
    text: AnswerText,
    splitter: Option<Splitter>,
    done: Done,
    began: Instant,
    first: Option<Instant>,
    ended: bool,
}

impl Follow {
    /// Of an answer to a prompt of these tokens. A splitter takes it apart.
    pub fn new(
        bundle: PathBuf,
        tokenizer: Option<Arc<Tokenizer>>,
        prompt: &[u32],
        stop: &[String],
        logprobs: bool,
        splitter: Option<Splitter>,
    ) -> Follow {
        let done = Done {
            ids: Vec::new(),
            text: tokenizer.as_ref().map(|_| String::new()),
            finish: "stop",
            prompt: (prompt.len(), 0),
            times: [Duration::ZERO; 2],
            logprobs: logprobs.then(Vec::new),
        };
        let text = AnswerText::after(tokenizer, prompt, stop);
        Follow { bundle, text, splitter, done, began: Instant::now(), first: None, ended: false }
    }

    /// Whether nothing more comes.
    pub fn is_done(&self) -> bool {
        self.ended
    }

    /// How it went.
    pub fn done(&self) -> &Done {
        &self.done
    }

    /// Takes an event, and gives what is new since the one before.
    ///
    /// # Errors
    /// Why the answer failed.
    pub fn take(&mut self, py: Python<'_>, event: Event, at: Instant) -> PyResult<Vec<New>> {
        match event {
            Event::Began { cached } => {
                self.began = at;
                self.done.prompt.1 = cached;
                Ok(Vec::new())
            }
            Event::Token(chosen) => self.token(py, chosen, at),
            Event::Ended(Ok(ended)) => {
                let finish = match ended.finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                    Finish::Context => "context",
                    Finish::Interrupted => "interrupted",
                };
                self.last(py, finish, at)
            }
            Event::Ended(Err(error)) => {
                self.ended = true;
                Err(match error {
                    RequestError::Runtime(error) => of_runtime(py, error),
                    RequestError::Guide(error) => of_guide(py, None, &error),
                    RequestError::Stopped => closed(py, "the model was closed while it generated"),
                    other => TritError::new_err(other.to_string()),
                })
            }
        }
    }

    fn token(&mut self, py: Python<'_>, chosen: Chosen, at: Instant) -> PyResult<Vec<New>> {
        if self.ended {
            return Ok(Vec::new());
        }
        if self.first.is_none() {
            self.first = Some(at);
            self.done.times[0] = at.saturating_duration_since(self.began);
        }
        self.done.ids.push(chosen.id);
        if let (Some(all), Some(logprob)) = (&mut self.done.logprobs, chosen.logprob) {
            all.push((logprob, chosen.top));
        }
        let splitter = self.splitter.as_ref();
        let pushed =
            self.text.push(chosen.id, |token| splitter.is_some_and(|splitter| splitter.is_mark(token)));
        let (text, mark) = pushed.map_err(|error| of_text(py, &self.bundle, error, 0, 0))?;
        let mut new = self.give(Some(chosen.id), text);
        if self.text.stopped_at().is_some() {
            new.extend(self.end("stop", at));
        } else if let (Some(mark), Some(splitter)) = (mark, &mut self.splitter) {
            new.extend(splitter.push_special(&mark).into_iter().map(New::Part));
        }
        Ok(new)
    }

    /// The text that is left, and the end.
    fn last(&mut self, py: Python<'_>, finish: &'static str, at: Instant) -> PyResult<Vec<New>> {
        if self.ended {
            return Ok(Vec::new());
        }
        let text = self.text.finish().map_err(|error| of_text(py, &self.bundle, error, 0, 0))?;
        let finish = if self.text.stopped_at().is_some() { "stop" } else { finish };
        let mut new = if text.is_empty() { Vec::new() } else { self.give(None, text) };
        new.extend(self.end(finish, at));
        Ok(new)
    }

    fn give(&mut self, id: Option<u32>, text: String) -> Vec<New> {
        if let Some(all) = &mut self.done.text {
            all.push_str(&text);
        }
        match &mut self.splitter {
            None => vec![New::Piece { id, text }],
            Some(_) if text.is_empty() => Vec::new(),
            Some(splitter) => splitter.push(&text).into_iter().map(New::Part).collect(),
        }
    }

    fn end(&mut self, finish: &'static str, at: Instant) -> Vec<New> {
        self.ended = true;
        self.done.finish = finish;
        match self.first {
            Some(first) => self.done.times[1] = at.saturating_duration_since(first),
            None => self.done.times[0] = at.saturating_duration_since(self.began),
        }
        let rest = self.splitter.as_mut().map(Splitter::finish).unwrap_or_default();
        rest.into_iter().map(New::Part).collect()
    }
}
