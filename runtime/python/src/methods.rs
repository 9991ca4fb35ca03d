//! What `trit.Model` has in Python.

use crate::arguments::{self, count, other_value, truth};
use crate::arrays::zeros;
use crate::errors::{self, of_runtime};
use crate::interrupt::{abandonable, brief, stoppable};
use crate::model::{Asked, Model, Open};
use crate::sequence::{self, Sequence};
use crate::threads::pool;
use crate::{chat, generate};
use numpy::PyArray;
use numpy::ndarray::IxDyn;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use trit_runtime::format::target::Target;
use trit_runtime::{
    KernelChoice, LoadOptions, Pooling, RuntimeError, SequenceOptions, Session, TrustPolicy, Tuning,
    WeightMemory, perplexity,
};

/// The files of keys that are named, absolute: a pickle may be read in another folder.
fn key_files(key: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<PathBuf>> {
    let files = key.map_or(Ok(Vec::new()), |key| arguments::paths("key", key))?;
    Ok(files.into_iter().map(|file| std::path::absolute(&file).unwrap_or(file)).collect())
}

/// Whose code may run.
fn trust_policy(py: Python<'_>, asked: &Asked) -> PyResult<TrustPolicy> {
    if asked.key.is_empty() {
        let mut trust = TrustPolicy::default();
        trust.everything = asked.trust;
        return Ok(trust);
    }
    if asked.trust {
        return Err(PyValueError::new_err(
            "trust=True runs any bundle, and key= only one that the key signed: leave one of them away",
        ));
    }
    TrustPolicy::signed_by_files(&asked.key).map_err(|error| errors::of_key(py, &error))
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (bundle, *, threads=None, context=None, trust=None, key=None, kernels="auto", cpu=None, kv="f16",
        state="f32", verify=None, mmap=None, tune=None, slots=None, kv_memory=None, draft=None),
        text_signature = "(bundle, *, threads=None, context=None, trust=False, key=None, kernels='auto', cpu=None, kv='f16', state='f32', verify=True, mmap=False, tune=False, slots=None, kv_memory=None, draft=True)")]
    #[expect(clippy::too_many_arguments, reason = "each has a name in Python")]
    fn new(
        py: Python<'_>,
        bundle: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
        context: Option<&Bound<'_, PyAny>>,
        trust: Option<&Bound<'_, PyAny>>,
        key: Option<&Bound<'_, PyAny>>,
        kernels: &str,
        cpu: Option<&str>,
        kv: &str,
        state: &str,
        verify: Option<&Bound<'_, PyAny>>,
        mmap: Option<&Bound<'_, PyAny>>,
        tune: Option<&Bound<'_, PyAny>>,
        slots: Option<&Bound<'_, PyAny>>,
        kv_memory: Option<&Bound<'_, PyAny>>,
        draft: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Model> {
        let path = arguments::path("bundle", bundle)?;
        // A pickle may be read in another folder.
        let path = std::path::absolute(&path).unwrap_or(path);
        let some = |name: &str, value: Option<&Bound<'_, PyAny>>| {
            value.map(|value| count(name, 1, value)).transpose()
        };
        let flag = |name: &str, value: Option<&Bound<'_, PyAny>>, default: bool| {
            value.map_or(Ok(default), |value| truth(name, value))
        };
        let asked = Asked {
            threads: some("threads", threads)?,
            context: some("context", context)?,
            trust: flag("trust", trust, false)?,
            key: key_files(key)?,
            kernels: kernels.to_owned(),
            cpu: cpu.map(str::to_owned),
            kv: arguments::word("kv", "\"f16\", \"f32\" or \"int8\"", kv)?,
            state: arguments::word("state", "\"f32\" or \"f16\"", state)?,
            verify: flag("verify", verify, true)?,
            mmap: flag("mmap", mmap, false)?,
            tune: flag("tune", tune, false)?,
            slots: some("slots", slots)?,
            kv_memory: some("kv_memory", kv_memory)?,
            draft: flag("draft", draft, true)?,
        };
        let kernels: KernelChoice =
            arguments::word("kernels", "\"auto\", \"embedded\", \"jit\" or \"portable\"", kernels)?;
        let cpu = cpu.map(|name| {
            let names = Target::ALL.map(Target::name).join(", ");
            let unknown = || PyValueError::new_err(format!("cpu is {name:?}; expected one of {names}"));
            Target::from_name(name).ok_or_else(unknown)
        });
        let trust = trust_policy(py, &asked)?;
        let options = LoadOptions {
            kernels,
            cpu: cpu.transpose()?,
            trust,
            verify: asked.verify,
            memory: if asked.mmap { WeightMemory::Mapped } else { WeightMemory::Auto },
            tuning: if asked.tune { Tuning::Fresh } else { Tuning::Remembered },
            timings: None,
            mapped: None,
        };
        // What is read is digested on threads of this process's own pool, which a child makes anew.
        let (pool, file) = (pool(py)?, path.clone());
        let load = move |_: &Arc<_>| {
            pool.install(|| {
                let model = trit_runtime::Model::load(&file, &options)?;
                // Made now, so that no process is forked while it is made. What is wrong with it is said to whoever asks for it.
                let _ = model.tokenizer();
                Ok(model)
            })
        };
        let loaded = abandonable(py, load, |_| Ok(()))?;
        let model: Arc<trit_runtime::Model> = loaded.map_err(|error| of_runtime(py, error))?;
        let longest = model.manifest().hyperparameters.context_length as usize;
        if let Some(context) = asked.context
            && context > longest
        {
            return Err(of_runtime(py, RuntimeError::Context { asked: context, longest }));
        }
        let open = Open { model, running: None, guides: None, chat: None };
        let made = Model { path, asked, open: Mutex::new(Some(open)) };
        // What cannot run says so now.
        made.running(py)?;
        Ok(made)
    }

    /// The bundle's path.
    #[getter(path)]
    fn path_object(&self) -> PathBuf {
        self.path.clone()
    }

    /// The model's name.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.bundle(py)?.manifest().model.name.clone())
    }

    /// The architecture, as the checkpoint's configuration names it.
    #[getter]
    fn architecture(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.bundle(py)?.manifest().model.architecture.clone())
    }

    /// Tokens of the vocabulary.
    #[getter]
    fn vocab_size(&self, py: Python<'_>) -> PyResult<u32> {
        self.vocab(py)
    }

    /// Elements of a hidden state.
    #[getter]
    fn hidden_dim(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.bundle(py)?.manifest().hyperparameters.hidden_dim)
    }

    /// Most tokens of a text with its answer.
    #[getter]
    fn context_length(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.context(py)?.0)
    }

    /// Ids that end an answer.
    #[getter]
    fn stop_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        Ok(self.bundle(py)?.manifest().text.stop.clone())
    }

    /// The text of the chat template, or None.
    #[getter]
    fn chat_template(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.bundle(py)?.manifest().text.chat_template.clone())
    }

    /// Worker threads.
    #[getter]
    fn threads(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.running(py)?.engine().threads())
    }

    /// Which kernels run, and why where they are not what one would expect.
    #[getter]
    fn kernels(&self, py: Python<'_>) -> PyResult<String> {
        let bundle = self.bundle(py)?;
        let report = bundle.kernels();
        let notes: Vec<String> = report.notes.iter().map(ToString::to_string).collect();
        Ok(if notes.is_empty() { report.name() } else { format!("{} ({})", report.name(), notes.join("; ")) })
    }

    /// Whether the model was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.held().is_none()
    }

    /// Ends what the model generates, and frees its memory. Closing twice is no error.
    fn close(&self, py: Python<'_>) {
        let open = self.held().take();
        // A step that runs is waited for.
        py.detach(|| drop(open));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.path.as_os_str().into_pyobject(py)?.repr()?;
        let running = {
            let held = self.held();
            let Some(open) = &*held else { return Ok(format!("<trit.Model {path}, closed>")) };
            (open.model.clone(), open.running.clone())
        };
        let (model, running) = running;
        let manifest = model.manifest();
        let name = PyString::new(py, &manifest.model.name).repr()?;
        let threads = running.map_or(0, |running| running.engine().threads());
        Ok(format!(
            "<trit.Model {name} ({}), context {}, {} threads, {}, at {path}>",
            manifest.model.architecture,
            self.context(py)?.0,
            threads,
            model.kernels().name(),
        ))
    }

    /// Pickled by path and arguments: the bundle is loaded again where the pickle is read.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, this) = (slf.py(), slf.get());
        let Asked {
            threads,
            context,
            trust,
            key,
            kernels,
            cpu,
            kv,
            state,
            verify,
            mmap,
            tune,
            slots,
            kv_memory,
            draft,
        } = &this.asked;
        let arguments = PyDict::new(py);
        arguments.set_item("threads", threads)?;
        arguments.set_item("context", context)?;
        arguments.set_item("trust", trust)?;
        let key: Vec<&OsStr> = key.iter().map(|file| file.as_os_str()).collect();
        arguments.set_item("key", (!key.is_empty()).then_some(key))?;
        arguments.set_item("kernels", kernels)?;
        arguments.set_item("cpu", cpu)?;
        arguments.set_item("kv", kv.to_string())?;
        arguments.set_item("state", state.to_string())?;
        arguments.set_item("verify", verify)?;
        arguments.set_item("mmap", mmap)?;
        arguments.set_item("tune", tune)?;
        arguments.set_item("slots", slots)?;
        arguments.set_item("kv_memory", kv_memory)?;
        arguments.set_item("draft", draft)?;
        let make = py.import("copyreg")?.getattr("__newobj_ex__")?;
        (make, (slf.get_type(), (this.path.as_os_str(),), arguments)).into_pyobject(py)
    }

    /// The token ids of a text: a list of int. `special` adds what the tokenizer adds around every text, usually a token
    /// that begins it.
    ///
    /// Raises ValueError where the bundle has no tokenizer or the vocabulary cannot express the text.
    #[pyo3(signature = (text, *, special=true))]
    fn tokenize(&self, py: Python<'_>, text: &Bound<'_, PyAny>, special: bool) -> PyResult<Vec<u32>> {
        let text = arguments::text("text", text)?;
        let tokenizer = self.tokenizer(py)?;
        let (context, longest) = self.context(py)?;
        let encoded = abandonable(py, move |_| tokenizer.encode(&text, special), |_| Ok(()))?;
        encoded.map_err(|error| errors::of_text(py, &self.path, error, context, longest))
    }

    /// The text of token ids. `skip_special` leaves special tokens out.
    ///
    /// Raises ValueError where the bundle has no tokenizer or the vocabulary has no such token.
    #[pyo3(signature = (ids, *, skip_special=false))]
    fn detokenize(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, skip_special: bool) -> PyResult<String> {
        let tokenizer = self.tokenizer(py)?;
        if ids.len().is_ok_and(|len| len == 0) && !ids.is_instance_of::<PyString>() {
            return Ok(String::new());
        }
        let vocab = self.vocab(py)?;
        let too_many = |len| PyValueError::new_err(format!("ids has {len} tokens, which is no text"));
        let ids = arguments::ids("ids", ids, vocab, u32::MAX as usize, too_many)?;
        let decoded = abandonable(py, move |_| tokenizer.decode(&ids, skip_special), |_| Ok(()))?;
        let (context, longest) = self.context(py)?;
        decoded.map_err(|error| errors::of_text(py, &self.path, error, context, longest))
    }

    /// The logits after every token of a text: float32 [n, vocab_size]. `prompt` is a text or token ids. They have the bits
    /// that `trit run logits` writes.
    ///
    /// Raises ContextError for more tokens than the context takes, ValueError, TypeError, MemoryError.
    fn logits(&self, py: Python<'_>, prompt: &Bound<'_, PyAny>) -> PyResult<Py<PyArray<f32, IxDyn>>> {
        let ids = self.prompt_ids(py, "prompt", prompt, 0)?;
        let running = self.running(py)?;
        let vocab = self.vocab(py)? as usize;
        let options = SequenceOptions { snapshots: 0, ..self.sequence_options() };
        let mut all = zeros(&[ids.len(), vocab])?;
        let engine = running.engine();
        let ran = stoppable(py, |stop| {
            let mut sequence = engine.sequence(options)?;
            let mut each = |at: usize, logits: &[f32]| all[at * vocab..][..vocab].copy_from_slice(logits);
            engine.each_logits(&mut sequence, &ids, &mut each, Some(stop))
        })?;
        ran.map_err(|error| of_runtime(py, error))?;
        crate::arrays::array(py, all, &[ids.len(), vocab])
    }

    /// How well the model predicts a text: exp of the mean negative log-likelihood of its tokens, a float. `prompt` is a
    /// text or token ids of any length, at least two; it is cut into windows of `window` tokens, the context's length
    /// by default, which are scored independently. The first token of each is given.
    ///
    /// Raises ValueError, TypeError.
    #[pyo3(signature = (prompt, *, window=None))]
    fn perplexity(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        window: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<f64> {
        let context = self.context(py)?.0;
        let window = window.map_or(Ok(context), |window| {
            let expected = format!("a whole number from 2 to {context}");
            let tokens = arguments::whole("window", &expected, window)?;
            if (2..=context).contains(&tokens) {
                Ok(tokens)
            } else {
                Err(other_value("window", &expected, window))
            }
        })?;
        let ids = match prompt.is_instance_of::<PyString>() {
            true => self.tokenize(py, prompt, true)?,
            false => {
                let vocab = self.vocab(py)?;
                let too_many = |len| PyValueError::new_err(format!("prompt has {len} tokens; pass fewer"));
                arguments::ids("prompt", prompt, vocab, u32::MAX as usize, too_many)?
            }
        };
        let running = self.running(py)?;
        let options = SequenceOptions { snapshots: 0, ..self.sequence_options() };
        let score = stoppable(py, |stop| {
            let mut session = Session::on(running.engine().clone(), options)?;
            session.interrupt_by(stop.clone());
            perplexity::score(&mut session, &ids, window, &mut |_| ())
        })?;
        Ok(score.map_err(|error| of_runtime(py, error))?.perplexity())
    }

    /// Embeddings of texts: float32 [n, hidden_dim], each with a Euclidean norm of 1; [hidden_dim] for a single text. Of the
    /// last token's hidden state (`pooling="last"`) or the mean of all (`"mean"`). A text is a str or token ids.
    ///
    /// Raises ContextError, ValueError, TypeError.
    #[pyo3(signature = (texts, *, pooling="last"))]
    fn embed(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        pooling: &str,
    ) -> PyResult<Py<PyArray<f32, IxDyn>>> {
        let pooling = match pooling {
            "last" => Pooling::Last,
            "mean" => Pooling::Mean,
            other => {
                return Err(PyValueError::new_err(format!(
                    "pooling is {other:?}; expected \"last\" or \"mean\""
                )));
            }
        };
        let (texts, is_list) = self.several_ids(py, "texts", texts, 0)?;
        let running = self.running(py)?;
        let dim = self.bundle(py)?.manifest().hyperparameters.hidden_dim as usize;
        let options = SequenceOptions { snapshots: 0, ..self.sequence_options() };
        let mut all = zeros(&[texts.len(), dim])?;
        let engine = running.engine();
        let ran = stoppable(py, |stop| {
            for (ids, to) in texts.iter().zip(all.chunks_exact_mut(dim)) {
                let mut sequence = engine.sequence(options)?;
                let embedding = engine.embed(&mut sequence, ids, pooling, || engine.rows(), Some(stop))?;
                to.copy_from_slice(&embedding);
            }
            Ok(())
        })?;
        ran.map_err(|error: RuntimeError| of_runtime(py, error))?;
        let shape = if is_list { vec![texts.len(), dim] } else { vec![dim] };
        crate::arrays::array(py, all, &shape)
    }

    /// Writes the texts that were run and are kept to a file, so that texts of another process that begin alike need not run
    /// again there (`load_prefixes`). Who can read the file can read the texts. Returns how many they are; 0 writes no file.
    ///
    /// Raises OSError.
    fn save_prefixes(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<usize> {
        let path = arguments::path("path", path)?;
        let running = self.running(py)?;
        let saved = brief(py, || running.scheduler().save(&path, &Default::default()))?;
        saved.map_err(|error| of_runtime(py, error))
    }

    /// Keeps the texts of a file of `save_prefixes` or `Sequence.save` for prompts that begin alike. Returns how many fit
    /// into the memory for KV caches.
    ///
    /// Raises OSError, SavedError where it is damaged or belongs to another bundle.
    fn load_prefixes(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<usize> {
        let path = arguments::path("path", path)?;
        let (running, bundle) = (self.running(py)?, self.bundle(py)?);
        let restored = brief(py, || {
            let saved = trit_runtime::SavedSequences::open(&path, &bundle)?;
            running.scheduler().restore(&saved)
        })?;
        restored.map_err(|error: RuntimeError| of_runtime(py, error))
    }

    /// Checks that this machine computes what the bundle says it should: a text that says what was checked.
    ///
    /// Raises TritError where a check failed.
    fn selftest(&self, py: Python<'_>) -> PyResult<String> {
        let bundle = self.bundle(py)?;
        let (threads, kv) = (self.asked.threads, self.asked.kv);
        let report = abandonable(py, move |_| bundle.selftest(threads, kv), |_| Ok(()))?;
        let report = report.map_err(|error| of_runtime(py, error))?;
        match report.failures.is_empty() {
            true => Ok(report.to_string()),
            false => Err(errors::TritError::new_err(report.to_string())),
        }
    }

    /// Continues a prompt, or several at once.
    ///
    /// Arguments:
    ///     prompt: a str, token ids (a list of int or an array of integers [n]; none are added), or a list of these, which
    ///         are generated together; each gets the tokens that it would get alone.
    ///     stream: True gives an iterator of pieces instead of the whole.
    ///     max_tokens: most tokens to generate, 256 by default.
    ///     temperature, top_k, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty: how tokens are chosen; what
    ///         is left out is as the model's authors suggest. temperature=0 takes the most probable token always.
    ///     seed: start of the random sequence; another one each time by default.
    ///     stop: a str or a list of str that end the text, and are no part of it.
    ///     logit_bias: a dict {token id: number}, added to logits; -inf: never.
    ///     json_schema (a dict, or JSON as text), regex, grammar (in Lark's notation), choices (a list of str): what the
    ///         whole text must be like. after: a text up to which it may be anything.
    ///     logits_processor: a callable, or several, called for each token with (ids, logits): int64 [n] and float32
    ///         [vocab_size], which it changes in place or replaces by what it returns.
    ///     logprobs: how many of the most probable tokens are told with each token.
    ///     ignore_eos: go on after the model says that it is done.
    ///
    /// Returns a Generation, a list of them for a list of prompts, or with stream=True a Stream of Piece. Raises ContextError,
    /// GuideError, SuppressedError, NotFiniteError, ValueError, TypeError, KeyboardInterrupt.
    #[pyo3(signature = (prompt, **options))]
    #[pyo3(
        text_signature = "($self, prompt, *, stream=False, max_tokens=256, temperature=None, top_k=None, top_p=None, min_p=None, repeat_penalty=None, frequency_penalty=None, presence_penalty=None, seed=None, stop=None, logit_bias=None, json_schema=None, regex=None, grammar=None, choices=None, after=None, logits_processor=None, logprobs=None, ignore_eos=False)"
    )]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        generate::generate(py, self, prompt, options)
    }

    /// Answers a conversation by the model's chat template.
    ///
    /// Arguments:
    ///     messages: a list of dicts with "role" and "content", as OpenAI has them, or a str, which the user says.
    ///     tools: tools that the model may call: a list of {"type": "function", "function": {"name", "description",
    ///         "parameters"}}. tool_choice: "auto", "none", "required", or the name of one. parallel_tool_calls: whether it
    ///         may call more than one.
    ///     continue_last: go on with the last message, which is the assistant's, instead of beginning an answer.
    ///     template_variables: a dict of further variables of the template, such as {"enable_thinking": False}.
    ///     stream and what `generate` takes; max_tokens is as many as there is room for by default.
    ///
    /// Returns an Answer, or with stream=True a Stream of AnswerPart. Raises as `generate` does, and ValueError where the bundle
    /// has no chat template or the template refuses the messages.
    #[pyo3(signature = (messages, tools=None, **options))]
    #[pyo3(
        text_signature = "($self, messages, tools=None, *, tool_choice='auto', parallel_tool_calls=True, continue_last=False, template_variables=None, stream=False, max_tokens=None, temperature=None, top_k=None, top_p=None, min_p=None, repeat_penalty=None, frequency_penalty=None, presence_penalty=None, seed=None, stop=None, logit_bias=None, json_schema=None, regex=None, grammar=None, choices=None, after=None, logits_processor=None, logprobs=None, ignore_eos=False)"
    )]
    fn chat(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        chat::chat(py, self, messages, tools, options)
    }

    /// The prompt that the chat template makes of messages: a str, or with tokenize=True a list of token ids. `tools`,
    /// `documents` and further keyword arguments are variables of the template, as transformers hands them to it.
    ///
    /// Raises ValueError where the bundle has no chat template or the template refuses the messages, TypeError.
    #[pyo3(signature = (messages, tools=None, *, documents=None, add_generation_prompt=true, tokenize=false, **variables))]
    #[expect(clippy::too_many_arguments, reason = "each has a name in Python")]
    fn apply_chat_template(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: Option<&Bound<'_, PyAny>>,
        documents: Option<&Bound<'_, PyAny>>,
        add_generation_prompt: bool,
        tokenize: bool,
        variables: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let said = chat::Said { messages, tools, documents, add_generation_prompt, variables };
        chat::apply_chat_template(py, self, &said, tokenize)
    }

    /// An empty sequence to run token by token. `prompt`, a text or token ids, is run at once.
    ///
    /// Raises as `Sequence.append` does.
    #[pyo3(signature = (prompt=None))]
    fn sequence(slf: Py<Self>, py: Python<'_>, prompt: Option<&Bound<'_, PyAny>>) -> PyResult<Sequence> {
        sequence::begin(py, slf, prompt)
    }

    /// A sequence that `Sequence.save` or `Model.save_prefixes` wrote: the file's first, or with `ids` as much of them as the
    /// file holds of any, which may be nothing. Never all of `ids`, because the last one must run to give logits.
    ///
    /// Raises OSError, SavedError where it is damaged, belongs to another bundle or has other types of numbers.
    #[pyo3(signature = (path, ids=None))]
    fn restore(
        slf: Py<Self>,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Sequence> {
        sequence::restore(py, slf, path, ids)
    }
}
