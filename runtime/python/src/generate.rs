//! `Model.generate`: a prompt, or several, continued as a whole or piece by piece.

use crate::answers::{Answers, Prompt};
use crate::arguments::{Keywords, truth};
use crate::errors::closed;
use crate::follow::{Done, Follow, Logprob, New};
use crate::model::Model;
use crate::sampling::Asked;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};
use std::mem;
use std::sync::{Mutex, PoisonError};

/// A text that was generated.
#[pyclass(frozen, module = "trit", name = "Generation")]
pub struct Generation {
    done: Done,
    seed: u64,
}

#[pymethods]
impl Generation {
    /// The generated text without the prompt, a str; None where the bundle has no tokenizer.
    #[getter]
    fn text(&self) -> Option<&str> {
        self.done.text.as_deref()
    }

    /// The generated tokens: a list of int.
    #[getter]
    fn ids(&self) -> Vec<u32> {
        self.done.ids.clone()
    }

    /// Why it ended: "stop" (the model was done, or a text to stop at was found), "length" (max_tokens) or "context" (no
    /// room is left).
    #[getter]
    fn finish(&self) -> &'static str {
        self.done.finish
    }

    /// Tokens of the prompt.
    #[getter]
    fn prompt_tokens(&self) -> usize {
        self.done.prompt.0
    }

    /// Tokens of the prompt that did not have to run, because an earlier text began alike.
    #[getter]
    fn cached_tokens(&self) -> usize {
        self.done.prompt.1
    }

    /// Seconds until the first token.
    #[getter]
    fn prompt_seconds(&self) -> f64 {
        self.done.times[0].as_secs_f64()
    }

    /// Seconds for the tokens after the first.
    #[getter]
    fn seconds(&self) -> f64 {
        self.done.times[1].as_secs_f64()
    }

    /// Start of the random sequence; the same seed gives the same text again.
    #[getter]
    fn seed(&self) -> u64 {
        self.seed
    }

    /// For each token the logarithm of its probability, and a list of the most probable tokens with theirs; None unless
    /// `logprobs` asked for them.
    #[getter]
    fn logprobs(&self) -> Option<Vec<Logprob>> {
        self.done.logprobs.clone()
    }

    fn __str__(&self) -> String {
        let ids = || self.done.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        self.done.text.clone().unwrap_or_else(ids)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = match &self.done.text {
            Some(text) => PyString::new(py, text).repr()?.to_string(),
            None => format!("{:?}", self.done.ids),
        };
        let (finish, tokens) = (self.done.finish, self.done.ids.len());
        Ok(format!("<trit.Generation {text}, {tokens} tokens, finish {finish:?}>"))
    }
}

impl Generation {
    /// The result of an answer.
    pub fn of(follow: &Follow, seed: u64) -> Generation {
        Generation { done: follow.done().clone(), seed }
    }

    /// How it went.
    pub fn done(&self) -> &Done {
        &self.done
    }
}

/// A piece of a text that is being generated. `str(piece)` is its text.
#[pyclass(frozen, get_all, module = "trit", name = "Piece")]
pub struct Piece {
    /// Which of several prompts it continues, from 0.
    index: usize,
    /// The token; None for text that was held back until the end.
    id: Option<u32>,
    /// Whole characters, often none or one word.
    text: String,
}

#[pymethods]
impl Piece {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.text).repr()?;
        let id = self.id.map_or("None".to_owned(), |id| id.to_string());
        Ok(format!("<trit.Piece {text}, index {}, id {id}>", self.index))
    }
}

/// Makes what a stream gives, and its result.
pub trait Shape: Send + Sync {
    /// Sees everything that is new, whether somebody reads it or not.
    fn see(&self, _new: &New) {}
    /// A piece.
    fn piece(&self, py: Python<'_>, index: usize, new: New) -> PyResult<Py<PyAny>>;
    /// The result, once everything has ended.
    fn result(&self, py: Python<'_>, answers: &Answers) -> PyResult<Py<PyAny>>;
}

/// The shape of texts.
struct Texts {
    seed: u64,
    /// Whether a list of prompts was given.
    several: bool,
}

impl Shape for Texts {
    fn piece(&self, py: Python<'_>, index: usize, new: New) -> PyResult<Py<PyAny>> {
        let (id, text) = match new {
            New::Piece { id, text } => (id, text),
            New::Part(_) => (None, String::new()),
        };
        Ok(Py::new(py, Piece { index, id, text })?.into_any())
    }

    fn result(&self, py: Python<'_>, answers: &Answers) -> PyResult<Py<PyAny>> {
        let made = |follow| Py::new(py, Generation::of(follow, self.seed));
        let mut all = answers.follows().iter().map(made).collect::<PyResult<Vec<_>>>()?;
        match self.several {
            true => Ok(PyList::new(py, all)?.into_any().unbind()),
            false => Ok(all.remove(0).into_any()),
        }
    }
}

/// What a stream has.
enum Held {
    /// No thread reads it.
    Here(Box<Answers>),
    /// A thread reads it.
    Read,
    /// It was read to its end, or closed.
    Over,
}

/// Pieces of one or several texts, as they are generated. Reading them is what an iterator is for; `result` is the whole
/// once there are no more. A stream that is closed, dropped or left by an exception ends the generation.
#[pyclass(frozen, module = "trit", name = "Stream")]
pub struct Stream {
    shape: Box<dyn Shape>,
    held: Mutex<Held>,
    result: Mutex<Option<Py<PyAny>>>,
}

impl Stream {
    /// Of answers that were begun.
    pub fn new(answers: Answers, shape: Box<dyn Shape>) -> Stream {
        Stream { shape, held: Mutex::new(Held::Here(Box::new(answers))), result: Mutex::new(None) }
    }

    fn replace(&self, held: Held) -> Held {
        mem::replace(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner), held)
    }

    /// Reads all pieces, and gives the result.
    pub fn finish(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        while self.step(py)?.is_some() {}
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let result = result.as_ref().map(|result| result.clone_ref(py));
        result.ok_or_else(|| closed(py, "the stream was closed before its end"))
    }

    fn step(&self, py: Python<'_>) -> PyResult<Option<(usize, New)>> {
        let mut answers = match self.replace(Held::Read) {
            Held::Here(answers) => answers,
            Held::Read => return Err(PyValueError::new_err("another thread reads the stream")),
            Held::Over => {
                self.replace(Held::Over);
                return Ok(None);
            }
        };
        match answers.next(py) {
            Ok(Some(new)) => {
                self.shape.see(&new.1);
                self.give_back(answers);
                Ok(Some(new))
            }
            Ok(None) => {
                let result = self.shape.result(py, &answers);
                self.replace(Held::Over);
                *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result?);
                Ok(None)
            }
            Err(error) => {
                self.replace(Held::Over);
                // What is cancelled may wait for the scheduler.
                py.detach(|| drop(answers));
                Err(error)
            }
        }
    }

    /// Keeps the answers for the next read, unless the stream was closed meanwhile.
    fn give_back(&self, answers: Box<Answers>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Read) {
            *held = Held::Here(answers);
        }
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py)?.map(|(index, new)| self.shape.piece(py, index, new)).transpose()
    }

    /// The whole: what the call gives without `stream=True`. None until the last piece was read.
    #[getter]
    fn result(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        result.as_ref().map(|result| result.clone_ref(py))
    }

    /// Ends the generation. Closing twice is no error.
    fn close(&self, py: Python<'_>) {
        let held = self.replace(Held::Over);
        py.detach(|| drop(held));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        cls.py().import("types")?.getattr("GenericAlias")?.call1((cls, item))
    }

    fn __repr__(&self) -> &'static str {
        match &*self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Held::Over => "<trit.Stream, ended>",
            _ => "<trit.Stream>",
        }
    }
}

/// Whether pieces are wanted instead of the whole.
pub fn takes_stream(keywords: &mut Keywords<'_>) -> PyResult<bool> {
    Ok(keywords.take("stream")?.map(|value| truth("stream", &value)).transpose()?.unwrap_or(false))
}

/// Answers as a stream of pieces, or, once they are whole, as what the shape makes of them.
pub fn given(py: Python<'_>, answers: Answers, shape: Box<dyn Shape>, stream: bool) -> PyResult<Py<PyAny>> {
    let pieces = Stream::new(answers, shape);
    match stream {
        true => Ok(Py::new(py, pieces)?.into_any()),
        false => pieces.finish(py),
    }
}

/// `Model.generate`.
pub fn generate(
    py: Python<'_>,
    model: &Model,
    prompt: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let mut keywords = Keywords::new("generate", options)?;
    let stream = takes_stream(&mut keywords)?;
    let asked = Asked::take(&mut keywords, model.vocab(py)?, false)?;
    keywords.finish()?;
    // One token of the context is left for the answer.
    let (ids, several) = model.several_ids(py, "prompt", prompt, 1)?;
    let prompts =
        ids.into_iter().map(|ids| Prompt { ids, form: asked.form.clone(), splitter: None }).collect();
    let answers = Answers::begin(py, model, prompts, &asked)?;
    given(py, answers, Box::new(Texts { seed: asked.seed, several }), stream)
}
