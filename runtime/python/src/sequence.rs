//! `trit.Sequence`: one text with its KV cache, to run token by token, fork, save and restore.

use crate::arguments::{self, other_value, whole};
use crate::arrays;
use crate::errors::{TritError, of_runtime};
use crate::interrupt::{brief, stoppable};
use crate::model::Model;
use numpy::PyArray;
use numpy::ndarray::IxDyn;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trit_runtime::{Logits, LogitsRequest, RuntimeError, SavedSequences};

/// With so few tokens a call takes no longer than a step, and no thread is started for it.
const BRIEF: usize = 16;

/// The sequence, while no thread runs it.
enum Held {
    Here(Box<trit_runtime::Sequence>),
    /// A thread of this process runs it.
    Running(u32),
}

/// Tokens, with the keys and values that are needed to continue them. `Model.sequence` and `Model.restore` make one. What
/// it gives has the bits that the same tokens give in one piece.
///
/// A fork shares the memory of the tokens that both begin with. Threads may have sequences of one model at a time, but a
/// sequence runs in one thread at a time.
#[pyclass(frozen, module = "trit", name = "Sequence")]
pub struct Sequence {
    model: Py<Model>,
    held: Mutex<Held>,
}

impl Sequence {
    /// A new one.
    pub fn new(model: Py<Model>, sequence: trit_runtime::Sequence) -> Sequence {
        Sequence { model, held: Mutex::new(Held::Here(Box::new(sequence))) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(process: u32) -> PyErr {
        TritError::new_err(match process == std::process::id() {
            true => "the sequence runs in another thread: wait for it, or fork the sequence before",
            false => {
                "the sequence was running when this process was forked, and its memory is not whole here: make another"
            }
        })
    }

    /// Looks at it.
    fn look<T>(&self, look: impl FnOnce(&trit_runtime::Sequence) -> T) -> PyResult<T> {
        match &*self.held() {
            Held::Here(sequence) => Ok(look(sequence)),
            Held::Running(process) => Err(Sequence::busy(*process)),
        }
    }

    /// Takes it out to run it without the interpreter's lock.
    fn take(&self) -> PyResult<Box<trit_runtime::Sequence>> {
        let mut held = self.held();
        match mem::replace(&mut *held, Held::Running(std::process::id())) {
            Held::Here(sequence) => Ok(sequence),
            Held::Running(process) => {
                *held = Held::Running(process);
                Err(Sequence::busy(process))
            }
        }
    }

    fn put_back(&self, sequence: Box<trit_runtime::Sequence>) {
        *self.held() = Held::Here(sequence);
    }

    fn position_of(&self, name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let position = self.look(trit_runtime::Sequence::position)?;
        value.map_or(Ok(position), |value| {
            let expected = format!("a whole number from 0 to {position}, the tokens of the sequence");
            let at = whole(name, &expected, value)?;
            if at <= position { Ok(at) } else { Err(other_value(name, &expected, value)) }
        })
    }
}

/// Which logits are wanted.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Last,
    All,
    None,
}

#[pymethods]
impl Sequence {
    /// Appends tokens, and returns the logits after the last of them, float32 [vocab_size]; with `logits="all"` those after
    /// each, float32 [n, vocab_size]; with `logits="none"` None. `tokens` is a list of ids or a text, to which the tokenizer
    /// adds what begins a text only where the sequence is empty.
    ///
    /// Where this raises, the sequence stays as it was: ContextError for more tokens than there is room for, ValueError,
    /// TypeError, MemoryError, KeyboardInterrupt.
    #[pyo3(signature = (tokens, *, logits="last"))]
    fn append(
        &self,
        py: Python<'_>,
        tokens: &Bound<'_, PyAny>,
        logits: &str,
    ) -> PyResult<Option<Py<PyArray<f32, IxDyn>>>> {
        let wanted = match logits {
            "last" => Wanted::Last,
            "all" => Wanted::All,
            "none" => Wanted::None,
            other => {
                return Err(PyValueError::new_err(format!(
                    "logits is {other:?}; expected \"last\", \"all\" or \"none\""
                )));
            }
        };
        let model = self.model.get();
        let position = self.look(trit_runtime::Sequence::position)?;
        let ids = model.ids_after(py, "tokens", tokens, position, 0)?;
        let vocab = model.vocab(py)? as usize;
        let running = model.running(py)?;
        let mut all = match wanted {
            Wanted::All => arrays::zeros(&[ids.len(), vocab])?,
            Wanted::Last => arrays::zeros(&[vocab])?,
            Wanted::None => Vec::new(),
        };
        let mut sequence = self.take()?;
        let engine = running.engine();
        let mut run = |stop: Option<&Arc<std::sync::atomic::AtomicBool>>| {
            let stop = stop.map(|stop| &**stop);
            match wanted {
                Wanted::All => {
                    let mut each =
                        |at: usize, logits: &[f32]| all[at * vocab..][..vocab].copy_from_slice(logits);
                    engine.each_logits(&mut sequence, &ids, &mut each, stop)
                }
                Wanted::Last => {
                    engine.advance(&mut sequence, &ids, &[LogitsRequest::All], stop)?;
                    if let Some(Logits::All(logits)) = sequence.logits(0) {
                        all.copy_from_slice(logits);
                    }
                    Ok(())
                }
                Wanted::None => engine.advance(&mut sequence, &ids, &[], stop),
            }
        };
        let ran = match ids.len() <= BRIEF {
            true => brief(py, || run(None)),
            false => stoppable(py, |stop| run(Some(stop))),
        };
        if ran.is_err() && sequence.position() > position {
            // A signal came after the last step.
            sequence.truncate(position);
        }
        self.put_back(sequence);
        ran?.map_err(|error| of_runtime(py, error))?;
        Ok(match wanted {
            Wanted::All => Some(arrays::array(py, all, &[ids.len(), vocab])?),
            Wanted::Last => Some(arrays::array(py, all, &[vocab])?),
            Wanted::None => None,
        })
    }

    /// A new sequence that begins with the first `position` tokens of this one, with all by default. Nothing is copied
    /// until one of them continues.
    ///
    /// Raises ValueError for a position beyond the sequence.
    #[pyo3(signature = (position=None))]
    fn fork(&self, py: Python<'_>, position: Option<&Bound<'_, PyAny>>) -> PyResult<Sequence> {
        let position = self.position_of("position", position)?;
        let fork = self.look(|sequence| sequence.fork(position))?;
        Ok(Sequence::new(self.model.clone_ref(py), fork))
    }

    /// Forgets all but the first `position` tokens.
    ///
    /// Raises ValueError for a position beyond the sequence.
    fn truncate(&self, position: &Bound<'_, PyAny>) -> PyResult<()> {
        let position = self.position_of("position", Some(position))?;
        let mut sequence = self.take()?;
        sequence.truncate(position);
        self.put_back(sequence);
        Ok(())
    }

    /// Writes the sequence to a file that only its owner can read, so that `Model.restore` need not run its tokens again.
    /// The file appears whole or not at all, and replaces no file of another kind.
    ///
    /// Raises OSError where it cannot be written, ValueError for an empty sequence.
    fn save(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = arguments::path("path", path)?;
        let sequence = self.take()?;
        let saved = brief(py, || trit_runtime::saved::save(&path, &[&sequence], &Default::default()));
        self.put_back(sequence);
        saved?.map_err(|error| of_runtime(py, error))
    }

    /// The tokens: a list of int.
    #[getter]
    fn ids(&self) -> PyResult<Vec<u32>> {
        self.look(|sequence| sequence.tokens().to_vec())
    }

    /// Most tokens that it can have.
    #[getter]
    fn context_length(&self) -> PyResult<usize> {
        self.look(trit_runtime::Sequence::context_length)
    }

    /// The position from which on the KV cache stores f32, because f16 could not hold the keys or values there; None while it
    /// has the type that was asked for.
    #[getter]
    fn widened(&self) -> PyResult<Option<usize>> {
        self.look(trit_runtime::Sequence::widened)
    }

    /// The model that it belongs to.
    #[getter]
    fn model(&self, py: Python<'_>) -> Py<Model> {
        self.model.clone_ref(py)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.look(trit_runtime::Sequence::position)
    }

    fn __repr__(&self) -> String {
        match self.look(|sequence| (sequence.position(), sequence.context_length())) {
            Ok((position, context)) => format!("<trit.Sequence of {position} tokens, context {context}>"),
            Err(_) => "<trit.Sequence, running>".to_owned(),
        }
    }
}

/// `Model.sequence`.
pub fn begin(py: Python<'_>, model: Py<Model>, prompt: Option<&Bound<'_, PyAny>>) -> PyResult<Sequence> {
    let (running, options) = (model.get().running(py)?, model.get().sequence_options());
    let made = running.engine().sequence(options).map_err(|error| of_runtime(py, error))?;
    let sequence = Sequence::new(model, made);
    if let Some(prompt) = prompt {
        sequence.append(py, prompt, "none")?;
    }
    Ok(sequence)
}

/// `Model.restore`.
pub fn restore(
    py: Python<'_>,
    model: Py<Model>,
    path: &Bound<'_, PyAny>,
    ids: Option<&Bound<'_, PyAny>>,
) -> PyResult<Sequence> {
    let path = arguments::path("path", path)?;
    let this = model.get();
    let ids = ids.map(|ids| this.prompt_ids(py, "ids", ids, 0)).transpose()?;
    let (bundle, running, options) = (this.bundle(py)?, this.running(py)?, this.sequence_options());
    let restored = brief(py, || {
        let saved = SavedSequences::open(&path, &bundle)?;
        let (index, position) = match &ids {
            None => (0, usize::MAX),
            Some(ids) => match saved.best(ids) {
                Some(best) => best,
                None => return running.engine().sequence(options),
            },
        };
        saved.restore_on(running.engine(), index, position, options)
    })?;
    let made = restored.map_err(|error: RuntimeError| of_runtime(py, error))?;
    Ok(Sequence::new(model, made))
}
