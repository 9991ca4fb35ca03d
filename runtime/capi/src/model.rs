//! An open bundle: what is known of it, and what becomes of text with it.

use crate::failure::{Failure, invalid};
use crate::options::Opening;
use crate::types::{TRIT_NO_ID, trit_model_info};
use std::ffi::CString;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use trit_runtime::source::Source;
use trit_runtime::text::{ChatTemplate, Detokenizer, Message, TemplateInput, TextError, Tokenizer};
use trit_runtime::{Engine, Model, SequenceOptions};

/// A bundle with the engine that runs it. Sessions keep it alive.
pub struct Opened {
    engine: Arc<Engine>,
    sequence: SequenceOptions,
    name: CString,
    kernels: CString,
    digest: CString,
    template: OnceLock<Result<Option<ChatTemplate>, TextError>>,
    /// The process that opened it. A child of it does not have its threads.
    process: u32,
}

impl Opened {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As [`Model::load`] and [`Engine::new`], and where no session could have the context.
    pub fn at(path: &Path, opening: Opening) -> Result<Arc<Opened>, Failure> {
        Opened::start(Model::load(path, &opening.load)?, opening)
    }

    /// Opens other bytes, which `name` names in errors.
    ///
    /// # Errors
    /// As [`Opened::at`].
    pub fn from_source(
        source: Box<dyn Source>,
        name: &str,
        opening: Opening,
    ) -> Result<Arc<Opened>, Failure> {
        Opened::start(Model::from_source(source, Path::new(name), &opening.load)?, opening)
    }

    fn start(model: Arc<Model>, opening: Opening) -> Result<Arc<Opened>, Failure> {
        let Opening { engine, sequence, .. } = opening;
        let engine = Engine::new(model, engine)?;
        // A context that no session can have is found here.
        engine.sequence(sequence)?;
        let model = engine.model();
        let text = |text: String| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
        Ok(Arc::new(Opened {
            name: text(model.manifest().model.name.clone()),
            kernels: text(model.kernels().to_string()),
            digest: text(model.digest().to_string()),
            template: OnceLock::new(),
            process: std::process::id(),
            sequence,
            engine: Arc::new(engine),
        }))
    }

    /// What runs it.
    ///
    /// # Errors
    /// In a process that was forked from the one that opened it.
    pub fn engine(&self) -> Result<&Arc<Engine>, Failure> {
        match self.is_here() {
            true => Ok(&self.engine),
            false => Err(invalid(
                "the model was opened before this process was forked, and its threads are not here; open it again".into(),
            )),
        }
    }

    /// Whether this process opened it.
    pub fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// The options of its sessions.
    pub fn sequence_options(&self) -> SequenceOptions {
        self.sequence
    }

    /// The bundle.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> u32 {
        self.model().manifest().hyperparameters.vocab_size
    }

    /// What it is.
    pub fn info(&self) -> trit_model_info {
        let manifest = self.model().manifest();
        let longest = manifest.hyperparameters.context_length;
        trit_model_info {
            size: size_of::<trit_model_info>(),
            vocab_size: manifest.hyperparameters.vocab_size,
            context_length: self.sequence.context.map_or(longest, |context| context as u32),
            longest_context: longest,
            threads: self.engine.threads() as u32,
            bos: manifest.text.bos.unwrap_or(TRIT_NO_ID),
            has_chat_template: manifest.text.chat_template.is_some().into(),
            stop_ids: manifest.text.stop.as_ptr(),
            stop_id_count: manifest.text.stop.len(),
            name: self.name.as_ptr(),
            kernels: self.kernels.as_ptr(),
            digest: self.digest.as_ptr(),
        }
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// Where it has none, or none that can be used.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Failure> {
        self.model().tokenizer()?.ok_or_else(|| {
            let path = self.model().path().display();
            Failure::unsupported(format!("{path}: the bundle has no tokenizer and takes ids only"))
        })
    }

    /// Checks that ids are of the vocabulary.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), Failure> {
        let vocab = self.vocab_size();
        match ids.iter().position(|&id| id >= vocab) {
            None => Ok(()),
            Some(at) => Err(invalid(format!("ids[{at}] is {}; ids are from 0 to {}", ids[at], vocab - 1))),
        }
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// As [`Opened::tokenizer`] and [`Tokenizer::encode`].
    pub fn tokenize(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Failure> {
        self.tokenizer()?.encode(text, add_special).map_err(|error| self.of_text(&error))
    }

    /// The text of ids.
    ///
    /// # Errors
    /// As [`Opened::tokenizer`], [`Opened::check_ids`] and [`Tokenizer::decode`].
    pub fn detokenize(&self, ids: &[u32], skip_special: bool) -> Result<String, Failure> {
        self.check_ids(ids)?;
        self.tokenizer()?.decode(ids, skip_special).map_err(|error| self.of_text(&error))
    }

    /// The prompt of a conversation of plain messages.
    ///
    /// # Errors
    /// As [`Opened::render`].
    pub fn chat_prompt(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Failure> {
        let input = TemplateInput::new(messages, add_generation_prompt);
        self.render(&input.map_err(|error| self.of_text(&error))?)
    }

    /// The prompt of a conversation, as JSON says it.
    ///
    /// # Errors
    /// Where it is no such JSON, and as [`Opened::render`].
    pub fn chat_prompt_json(&self, json: &str) -> Result<String, Failure> {
        let input = TemplateInput::from_json(json.as_bytes());
        self.render(&input.map_err(|error| {
            invalid(format!("json is no list of messages, nor an object with one: {error}"))
        })?)
    }

    /// Runs the chat template.
    fn render(&self, input: &TemplateInput) -> Result<String, Failure> {
        let template = self.template.get_or_init(|| ChatTemplate::of(&self.model().manifest().text));
        let template = template.as_ref().map_err(|error| self.of_text(error))?.as_ref().ok_or_else(|| {
            let path = self.model().path().display();
            Failure::unsupported(format!(
                "{path}: the bundle has no chat template; write prompts as the model expects them"
            ))
        })?;
        template.render_input(input, &|| false).map_err(|error| self.of_text(&error))
    }

    fn of_text(&self, error: &TextError) -> Failure {
        Failure::text(&self.model().path().display().to_string(), error)
    }
}

impl Drop for Opened {
    /// In a child of the process that opened it, its engine has no threads that could end, so it is leaked.
    fn drop(&mut self) {
        if !self.is_here() {
            mem::forget(self.engine.clone());
        }
    }
}

/// Locks what one call at a time may use.
///
/// # Errors
/// Where another call has it, and where one ended with a defect; `what` names the handle.
pub fn hold<'a, T>(what: &str, shared: &'a Mutex<T>) -> Result<MutexGuard<'a, T>, Failure> {
    match shared.try_lock() {
        Ok(held) => Ok(held),
        Err(TryLockError::WouldBlock) => Err(Failure::busy(what)),
        Err(TryLockError::Poisoned(_)) => Err(Failure::broken(what)),
    }
}

/// Whether a call has it.
pub fn is_busy<T>(shared: &Mutex<T>) -> bool {
    matches!(shared.try_lock(), Err(TryLockError::WouldBlock))
}

/// Ids that become text one by one.
pub struct TextStream {
    opened: Arc<Opened>,
    shared: Mutex<Following>,
}

struct Following {
    detokenizer: Detokenizer<Arc<Tokenizer>>,
    /// The text that the caller was given last, with a NUL.
    given: Vec<u8>,
}

impl TextStream {
    /// A stream whose first id continues `prompt`.
    ///
    /// # Errors
    /// As [`Opened::tokenizer`] and [`Opened::check_ids`].
    pub fn new(opened: &Arc<Opened>, prompt: &[u32]) -> Result<TextStream, Failure> {
        opened.check_ids(prompt)?;
        let detokenizer = Detokenizer::after(opened.tokenizer()?.clone(), prompt);
        let shared = Mutex::new(Following { detokenizer, given: vec![0] });
        Ok(TextStream { opened: opened.clone(), shared })
    }

    /// Takes an id, or where there is none the end, and hands the text that became certain to `give`, with a NUL. It stays where it
    /// is until the next call.
    ///
    /// # Errors
    /// An id that is none, as [`Detokenizer::push`], and where another call has the stream.
    pub fn push(&self, id: Option<u32>, give: impl FnOnce(&[u8])) -> Result<(), Failure> {
        let mut held = hold("detokenizer", &self.shared)?;
        let Following { detokenizer, given } = &mut *held;
        self.opened.check_ids(id.as_slice())?;
        let text = match id {
            Some(id) => detokenizer.push(id),
            None => detokenizer.finish(),
        };
        let text = text.map_err(|error| self.opened.of_text(&error))?;
        given.clear();
        given.extend_from_slice(text.as_bytes());
        given.push(0);
        give(given);
        Ok(())
    }

    /// Whether a call uses it.
    pub fn is_busy(&self) -> bool {
        is_busy(&self.shared)
    }
}
