//! Generation with logits processors: Python's callables change the logits of each token before one is chosen.
//!
//! The scheduler's thread never waits for Python, so such answers are generated here, on the thread that asks. They run
//! together: a step has a token of each.

use crate::arrays;
use crate::errors::{of_guide, of_runtime};
use crate::interrupt::{brief, stoppable};
use crate::model::Running;
use numpy::IntoPyArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use trit_runtime::generate::Finish;
use trit_runtime::generate::guide::Guide;
use trit_runtime::sample::Sampler;
use trit_runtime::scheduler::{Chosen, Ended, Event};
use trit_runtime::{Batch, Logits, LogitsRequest, RuntimeError, Sequence};

/// One answer.
pub struct Text {
    /// Its sequence, which has run all of the text but the last token chosen.
    pub sequence: Sequence,
    /// The text so far.
    pub history: Vec<u32>,
    /// Chooses its tokens.
    pub sampler: Sampler,
    /// What it must be like.
    pub guide: Option<Box<dyn Guide>>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// Ids that end it.
    pub stop_ids: Vec<u32>,
    /// How many of the most probable tokens are told.
    pub logprobs: Option<usize>,
    /// Tokens of the answer so far.
    pub generated: usize,
    /// Whether it has ended.
    pub ended: bool,
}

/// Answers that are generated together.
pub struct Processed {
    running: Arc<Running>,
    texts: Vec<Text>,
    processors: Vec<Py<PyAny>>,
    events: VecDeque<(usize, Event, Instant)>,
    began: bool,
}

impl Processed {
    /// Of texts that have not run yet.
    pub fn new(running: Arc<Running>, texts: Vec<Text>, processors: Vec<Py<PyAny>>) -> Processed {
        let events = (0..texts.len()).map(|at| (at, Event::Began { cached: 0 }, Instant::now())).collect();
        Processed { running, texts, processors, events, began: false }
    }

    /// Ends one of the answers.
    pub fn cancel(&mut self, index: usize) {
        self.texts[index].ended = true;
    }

    /// What happens next; `None` where all have ended.
    ///
    /// # Errors
    /// What a processor raises, a result of a processor that is none, and whatever ends a generation.
    pub fn next(&mut self, py: Python<'_>) -> PyResult<Option<(usize, Event, Instant)>> {
        while self.events.is_empty() {
            if self.texts.iter().all(|text| text.ended) {
                return Ok(None);
            }
            self.step(py)?;
            py.check_signals()?;
        }
        Ok(self.events.pop_front())
    }

    fn step(&mut self, py: Python<'_>) -> PyResult<()> {
        let engine = self.running.engine();
        if !self.began {
            self.began = true;
            for text in self.texts.iter_mut().filter(|text| !text.ended) {
                let Text { sequence, history, .. } = text;
                let ran = stoppable(py, |stop| {
                    engine.advance(sequence, history, &[LogitsRequest::All], Some(stop))
                })?;
                ran.map_err(|error| of_runtime(py, error))?;
            }
        } else {
            let mut going: Vec<&mut Text> = self.texts.iter_mut().filter(|text| !text.ended).collect();
            for part in going.chunks_mut(engine.rows()) {
                let ran = brief(py, || {
                    let mut batch = Batch::new();
                    for text in part.iter_mut() {
                        let last = text.history.len() - 1;
                        batch.push(&mut text.sequence, &text.history[last..], &[LogitsRequest::All]);
                    }
                    let results = engine.step(&mut batch)?;
                    results.into_iter().collect::<Result<Vec<usize>, RuntimeError>>()
                })?;
                ran.map_err(|error| of_runtime(py, error))?;
            }
        }
        for index in 0..self.texts.len() {
            if !self.texts[index].ended {
                self.choose(py, index)?;
            }
        }
        Ok(())
    }

    /// Chooses the next token of an answer.
    fn choose(&mut self, py: Python<'_>, index: usize) -> PyResult<()> {
        let text = &mut self.texts[index];
        let allowed = match &mut text.guide {
            Some(guide) => Some(guide.allowed().map_err(|error| of_guide(py, None, &error))?),
            None => None,
        };
        let mut tell = |event| self.events.push_back((index, event, Instant::now()));
        let ended = |text: &Text, finish| {
            Event::Ended(Ok(Ended {
                finish,
                prompt: text.history.len() - text.generated,
                cached: 0,
                generated: text.generated,
                drafted: (0, 0),
                times: Default::default(),
            }))
        };
        if text.generated == text.max_tokens || allowed.as_ref().is_some_and(|set| set.is_empty()) {
            let finish = if text.generated == text.max_tokens { Finish::Length } else { Finish::Stop };
            text.ended = true;
            tell(ended(text, finish));
            return Ok(());
        }
        let Some(Logits::All(logits)) = text.sequence.logits(0) else {
            return Err(PyValueError::new_err("internal error: a step gave no logits; please report this"));
        };
        let changed = processed(py, &self.processors, &text.history, logits.to_vec())?;
        let id = text.sampler.choose_among(Logits::All(&changed), &text.history, allowed.as_ref());
        let suppressed = || of_runtime(py, RuntimeError::Suppressed { tokens: text.history.len() });
        let id = id.ok_or_else(suppressed)?;
        if text.stop_ids.contains(&id) {
            text.ended = true;
            tell(ended(text, Finish::Stop));
            return Ok(());
        }
        if let Some(guide) = &mut text.guide {
            guide.accept(id).map_err(|error| of_guide(py, None, &error))?;
        }
        // Probabilities are the model's own, as everywhere.
        tell(Event::Token(Chosen::describe(id, text.logprobs, Logits::All(logits))));
        text.history.push(id);
        text.generated += 1;
        let finish = match () {
            () if text.generated == text.max_tokens => Some(Finish::Length),
            () if text.history.len() > text.sequence.context_length() => Some(Finish::Context),
            () => None,
        };
        if let Some(finish) = finish {
            text.ended = true;
            tell(ended(text, finish));
        }
        Ok(())
    }
}

/// The logits after all processors. Each is called with the ids so far, int64 [n], and the logits, float32 [vocab_size],
/// which it changes in place or replaces by what it returns.
fn processed(
    py: Python<'_>,
    processors: &[Py<PyAny>],
    history: &[u32],
    logits: Vec<f32>,
) -> PyResult<Vec<f32>> {
    let vocab = logits.len();
    let ids: Vec<i64> = history.iter().map(|&id| id.into()).collect();
    let ids = ids.into_pyarray(py);
    let mut array = logits.into_pyarray(py).into_any();
    for processor in processors {
        let given = processor.bind(py).call1((&ids, &array))?;
        if !given.is_none() {
            array = given;
        }
    }
    let expected = "[vocab_size], what the processor was given";
    let name = "the result of logits_processor";
    let read = arrays::read::<f32>(name, expected, &array, |shape| shape == [vocab])?;
    let values = read.values()?;
    match values.iter().position(|value| value.is_nan() || *value == f32::INFINITY) {
        None => Ok(values.to_vec()),
        Some(id) => Err(PyValueError::new_err(format!(
            "{name} is {} for token {id}; expected numbers, or -inf for what must not be chosen",
            values[id]
        ))),
    }
}
