//! `trit.Model`: a loaded bundle, and what belongs to it once in a process: an engine and a scheduler.
//!
//! Threads do not survive a fork, so the engine and the scheduler belong to the process that made them ([`Running`]), and a
//! child makes its own; the bundle's memory is shared. A mutex of this module is held only by a thread that has the
//! interpreter's lock, as the thread that forks has, so that no child finds one locked by a thread that it does not have.

use crate::arguments::{self, text};
use crate::errors::{self, of_runtime};
use crate::interrupt::{abandonable, brief};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trit_runtime::guide::GuideFactory;
use trit_runtime::scheduler::{Scheduler, SchedulerOptions};
use trit_runtime::text::{ChatTemplate, TextError, Tokenizer};
use trit_runtime::{Engine, EngineOptions, KvType, RuntimeError, SequenceOptions, StateType};
use trit_server::answer::Form;

/// How a model was asked for.
#[derive(Clone)]
pub struct Asked {
    /// Each field is the constructor's argument of that name.
    pub threads: Option<usize>,
    pub context: Option<usize>,
    pub trust: bool,
    pub key: Vec<PathBuf>,
    pub kernels: String,
    pub cpu: Option<String>,
    pub kv: KvType,
    pub state: StateType,
    pub verify: bool,
    pub mmap: bool,
    pub tune: bool,
    pub slots: Option<usize>,
    pub kv_memory: Option<usize>,
    pub draft: bool,
}

/// What runs a model in one process.
pub struct Running {
    process: u32,
    engine: Option<Arc<Engine>>,
    scheduler: Option<Scheduler>,
}

impl Running {
    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().expect("only a drop takes it")
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        self.scheduler.as_ref().expect("only a drop takes it")
    }

    /// Whether it was made by this process, and not by one that this process was forked from.
    pub fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Running {
    /// In a child of the process it has no threads that could end, so it is leaked.
    fn drop(&mut self) {
        if !self.is_here() {
            mem::forget((self.engine.take(), self.scheduler.take()));
        }
    }
}

/// What there is while a model is open.
pub struct Open {
    pub model: Arc<trit_runtime::Model>,
    pub running: Option<Arc<Running>>,
    pub guides: Option<Arc<GuideFactory>>,
    pub chat: Option<Arc<(ChatTemplate, Form)>>,
}

/// A loaded bundle: generates, chats, gives logits and embeddings. Any number of threads may use one, and it works in a
/// process that was forked.
///
/// Arguments:
///     bundle: path of a .trit bundle.
///     threads: worker threads; as many as the system grants by default, and never more.
///     context: most tokens of a text with its answer; what the bundle was compiled for by default.
///     trust: run the bundle's machine code whoever compiled it; it can do whatever you can do.
///     key: file of a public key, or a list of them: load the bundle only if one of them signed it, whoever compiled it.
///     kernels: "auto", "embedded", "jit" or "portable".
///     cpu: an instruction-set tier to use instead of the best one, such as "x86-64-v3".
///     kv: element type of the KV cache: "f16", "f32" or "int8".
///     state: element type of the recurrent state of hybrids: "f32" or "f16".
///     verify: check the digests of the weights.
///     mmap: keep weights in the file's mapping: less memory of one's own, but slower.
///     tune: time the kernels again instead of using what was found fastest on this machine before.
///     slots: most texts that are generated at a time; others wait. 16 by default.
///     kv_memory: most bytes that KV caches take, those of texts included that are kept because others may begin alike. By
///         default half of what the system grants, and no more than full slots need.
///     draft: draft tokens where that saves time; the tokens are the same either way.
///
/// Raises OSError, BundleError, KernelsError, ContextError, ValueError and TypeError; UntrustedError where none of the keys signed
/// the bundle, where others can write to the file of a key, and where kernels="embedded" is asked for and nothing says that the
/// bundle's code may run.
#[pyclass(frozen, module = "trit", name = "Model")]
pub struct Model {
    /// The bundle's path, absolute.
    pub path: PathBuf,
    /// How it was asked for.
    pub asked: Asked,
    /// Nothing once it was closed.
    pub open: Mutex<Option<Open>>,
}

impl Model {
    /// What there is, if it is open.
    pub fn held(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, py: Python<'_>, look: impl FnOnce(&mut Open) -> T) -> PyResult<T> {
        match &mut *self.held() {
            Some(open) => Ok(look(open)),
            None => Err(errors::closed(py, "the model was closed; make another with trit.Model")),
        }
    }

    /// The bundle.
    pub fn bundle(&self, py: Python<'_>) -> PyResult<Arc<trit_runtime::Model>> {
        self.with(py, |open| open.model.clone())
    }

    /// What runs it in this process.
    pub fn running(&self, py: Python<'_>) -> PyResult<Arc<Running>> {
        let known = self.with(py, |open| open.running.clone().filter(|running| running.is_here()))?;
        if let Some(running) = known {
            return Ok(running);
        }
        let (bundle, asked) = (self.bundle(py)?, self.asked.clone());
        let sequence = self.sequence_options();
        let started = brief(py, move || start(bundle, &asked, sequence))?;
        let started = started.map_err(|error| match (error, self.asked.kv_memory, self.asked.slots) {
            (RuntimeError::Input(words), Some(_), _) => PyValueError::new_err(format!("kv_memory: {words}")),
            (RuntimeError::Input(words), _, Some(_)) => PyValueError::new_err(format!("slots: {words}")),
            (error, ..) => of_runtime(py, error),
        });
        let started = Arc::new(started?);
        // Another thread may have been faster; its is the one that counts.
        self.with(py, |open| {
            let here = open.running.clone().filter(|running| running.is_here());
            here.unwrap_or_else(|| {
                // In a child, this drops what its parent has.
                open.running = Some(started.clone());
                started
            })
        })
    }

    /// The options of a text's sequence.
    pub fn sequence_options(&self) -> SequenceOptions {
        SequenceOptions {
            context: self.asked.context,
            kv: self.asked.kv,
            state: self.asked.state,
            ..SchedulerOptions::default().sequence
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self, py: Python<'_>) -> PyResult<Arc<Tokenizer>> {
        let bundle = self.bundle(py)?;
        let made = bundle.tokenizer().map_err(|error| of_runtime(py, error))?.cloned();
        made.ok_or_else(|| {
            PyValueError::new_err(format!(
                "{}: has no tokenizer and takes token ids only",
                self.path.display()
            ))
        })
    }

    /// What makes guides.
    pub fn guides(&self, py: Python<'_>, argument: &str) -> PyResult<Arc<GuideFactory>> {
        if let Some(made) = self.with(py, |open| open.guides.clone())? {
            return Ok(made);
        }
        let bundle = self.bundle(py)?;
        let made = brief(py, || GuideFactory::new(&bundle))?;
        let made = Arc::new(made.map_err(|error| errors::of_guide(py, Some(argument), &error))?);
        self.with(py, |open| open.guides.get_or_insert(made).clone())
    }

    /// The chat template and the form of the model's answers.
    pub fn chat_form(&self, py: Python<'_>) -> PyResult<Arc<(ChatTemplate, Form)>> {
        if let Some(made) = self.with(py, |open| open.chat.clone())? {
            return Ok(made);
        }
        let bundle = self.bundle(py)?;
        let made = brief(py, || Form::of(&bundle))?.map_err(|error| of_runtime(py, error))?;
        let made = made
            .ok_or_else(|| PyValueError::new_err(format!("{}: has no chat template", self.path.display())))?;
        self.with(py, |open| open.chat.get_or_insert(Arc::new(made)).clone())
    }

    /// The bundle's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Most tokens of a text, and most that the bundle takes.
    pub fn context(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let longest = self.bundle(py)?.manifest().hyperparameters.context_length as usize;
        Ok((self.asked.context.unwrap_or(longest), longest))
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.bundle(py)?.manifest().hyperparameters.vocab_size)
    }

    /// The tokens of a prompt: a text, to which the tokenizer adds what it adds to every text, or ids. `room` tokens of the
    /// context are left.
    pub fn prompt_ids(
        &self,
        py: Python<'_>,
        name: &str,
        value: &Bound<'_, PyAny>,
        room: usize,
    ) -> PyResult<Vec<u32>> {
        self.ids_after(py, name, value, 0, room)
    }

    /// As [`Model::prompt_ids`], for what continues `before` tokens, to which nothing is added.
    pub fn ids_after(
        &self,
        py: Python<'_>,
        name: &str,
        value: &Bound<'_, PyAny>,
        before: usize,
        room: usize,
    ) -> PyResult<Vec<u32>> {
        let (context, longest) = self.context(py)?;
        let limit = context.saturating_sub(before + room);
        let too_long = |tokens| errors::too_long(py, before + tokens, context, longest);
        if value.is_instance_of::<PyString>() {
            let text = text(name, value)?;
            let tokenizer = self.tokenizer(py)?;
            let encode = move |_: &Arc<_>| tokenizer.encode_within(&text, before == 0, limit);
            let ids = abandonable(py, encode, |_| Ok(()))?.map_err(|error| match error {
                TextError::TooLong { at_least, .. } => too_long(at_least),
                error => errors::of_text(py, &self.path, error, context, longest),
            })?;
            return match ids.is_empty() {
                true => Err(PyValueError::new_err(format!("{name} is empty; pass some text"))),
                false => Ok(ids),
            };
        }
        arguments::ids(name, value, self.vocab(py)?, limit, too_long)
    }

    /// The tokens of a prompt or of a list of prompts, and whether it is a list.
    pub fn several_ids(
        &self,
        py: Python<'_>,
        name: &str,
        value: &Bound<'_, PyAny>,
        room: usize,
    ) -> PyResult<(Vec<Vec<u32>>, bool)> {
        if !arguments::is_list_of_prompts(value)? {
            return Ok((vec![self.prompt_ids(py, name, value, room)?], false));
        }
        let all = arguments::prompts(value)?;
        let ids =
            |(at, one): (usize, &Bound<'_, PyAny>)| self.prompt_ids(py, &format!("{name}[{at}]"), one, room);
        Ok((all.iter().enumerate().map(ids).collect::<PyResult<_>>()?, true))
    }
}

/// Starts an engine and a scheduler.
fn start(
    bundle: Arc<trit_runtime::Model>,
    asked: &Asked,
    sequence: SequenceOptions,
) -> Result<Running, RuntimeError> {
    let options = EngineOptions { threads: asked.threads, ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(bundle, options)?);
    let slots = asked.slots.unwrap_or_else(|| SchedulerOptions::default().slots.min(engine.rows()));
    let options = SchedulerOptions {
        slots,
        // A list may have any number of prompts.
        queue: usize::MAX / 2,
        kv_memory: asked.kv_memory,
        sequence,
        draft: asked.draft,
    };
    let scheduler = Scheduler::new(engine.clone(), options)?;
    Ok(Running { process: std::process::id(), engine: Some(engine), scheduler: Some(scheduler) })
}
