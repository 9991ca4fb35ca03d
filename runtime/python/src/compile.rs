//! `trit.compile` and `trit.inspect`.

use crate::arguments::{
    self, Keywords, count, number, other_type, other_value, text, texts, to_python, truth, whole,
};
use crate::errors::{TritError, compile_words, of_compile, warning_words};
use crate::interrupt::{Inbox, abandonable};
use crate::threads::pool;
use pyo3::exceptions::{PyTypeError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::json;
use std::ffi::{CString, OsStr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::Instant;
use trit_runtime::format::trust::TrustError;
use trit_runtime::text::output::Unfinished;
use tritc::bundle::{Bundle, check_output, file_of, is_bundle, trust};
use tritc::compile::targets::{self, TargetChoice};
use tritc::inspect;
use tritc::load::{self, ActivationChoice, I2sLayout, LoadOptions, Quantize, is_checkpoint};
use tritc::progress::{Progress, Stage};
use tritc::{CompileError, ErrorKind, Warning};

/// A bundle that was compiled.
#[pyclass(frozen, get_all, module = "trit", name = "Compiled")]
pub struct Compiled {
    /// Where it is.
    path: PathBuf,
    /// The model's name.
    name: String,
    /// Its architecture.
    architecture: String,
    /// Bytes of the bundle.
    bytes: u64,
    /// The digest that stands for the whole bundle.
    fingerprint: String,
    /// Whether it was recorded that this user compiled it, so that its code runs without trust=True.
    trusted: bool,
    /// Ternary weights.
    ternary_weights: u64,
    /// Bits that each of them takes.
    bits_per_weight: f64,
    /// The targets that it has code for: a list of str.
    targets: Vec<&'static str>,
    /// Kernels, over all targets.
    kernels: usize,
    /// What one should know of the model: a list of str. Each is given as a UserWarning, too.
    warnings: Vec<String>,
    /// How long it took.
    seconds: f64,
}

#[pymethods]
impl Compiled {
    fn __fspath__(&self) -> &OsStr {
        self.path.as_os_str()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.path.as_os_str().into_pyobject(py)?.repr()?;
        let targets = if self.targets.is_empty() { "portable".to_owned() } else { self.targets.join(", ") };
        let (weights, bits) = (self.ternary_weights as f64 / 1e6, self.bits_per_weight);
        Ok(format!("<trit.Compiled {path}, {weights:.1} M ternary weights of {bits:.3} bits, for {targets}>"))
    }
}

/// What a compilation tells the thread that waits for it.
enum Told {
    Begin(Stage, u64),
    Advance(u64),
    Warn(Warning),
}

/// Passes on what a compilation tells, and whether it is to stop.
struct Teller {
    /// A sender is used by one thread at a time.
    send: std::sync::Mutex<Sender<Told>>,
    stop: Arc<AtomicBool>,
    unfinished: Unfinished,
}

impl Teller {
    fn tell(&self, told: Told) {
        let send = self.send.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Whoever waited may have left.
        let _ = send.send(told);
    }
}

impl Progress for Teller {
    fn begin(&self, stage: Stage, total: u64) {
        self.tell(Told::Begin(stage, total));
    }

    fn advance(&self, units: u64) {
        self.tell(Told::Advance(units));
    }

    fn warn(&self, warning: Warning) {
        self.tell(Told::Warn(warning));
    }

    fn unfinished(&self) -> Unfinished {
        self.unfinished.clone()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// How a checkpoint is to be read.
fn load_options(keywords: &mut Keywords<'_>) -> PyResult<LoadOptions> {
    let mut word = |name: &'static str| keywords.take(name)?.map(|value| text(name, &value)).transpose();
    let (activations, quantize, layout) = (word("activations")?, word("quantize")?, word("i2s_layout")?);
    let other = |name: &str, value: &str, expected: &str| {
        PyValueError::new_err(format!("{name} is {value:?}; expected {expected}"))
    };
    let activations = match activations.as_deref() {
        None | Some("auto") => ActivationChoice::Auto,
        Some("int8") => ActivationChoice::Int8,
        Some("f32") => ActivationChoice::F32,
        Some(word) => return Err(other("activations", word, "\"auto\", \"int8\" or \"f32\"")),
    };
    let quantize = match quantize.as_deref() {
        None => None,
        Some("absmean") => Some(Quantize::Absmean),
        Some(word) => return Err(other("quantize", word, "\"absmean\" or None")),
    };
    let i2s_layout = match layout.as_deref() {
        None => None,
        Some("x86") => Some(I2sLayout::X86),
        Some("arm") => Some(I2sLayout::Arm),
        Some("1x4") => Some(I2sLayout::FourRows),
        Some(word) => return Err(other("i2s_layout", word, "\"x86\", \"arm\" or \"1x4\"")),
    };
    let tolerance = keywords.take("tolerance")?;
    let expected = "a number above 0, up to 0.1";
    let tolerance = tolerance.map(|value| number("tolerance", expected, &value, |v| v > 0.0 && v <= 0.1));
    let context = keywords.take("context")?.map(|value| {
        let tokens: u32 = whole("context", "a whole number of tokens, 1 or more", &value)?;
        if tokens == 0 { Err(other_value("context", "1 or more", &value)) } else { Ok(tokens) }
    });
    let ignored = keywords.take("ignore_config_keys")?.map(|value| texts("ignore_config_keys", &value));
    let mut kept = |name: &'static str| {
        let value = keywords.take(name)?.map(|value| truth(name, &value)).transpose()?;
        Ok::<_, PyErr>(value.unwrap_or(true))
    };
    let (tokenizer, draft) = (kept("tokenizer")?, kept("draft")?);
    Ok(LoadOptions {
        name: None,
        ignore_config_keys: ignored.transpose()?.unwrap_or_default(),
        activations,
        quantize,
        tolerance: tolerance.transpose()?,
        without_tokenizer: !tokenizer,
        without_draft: !draft,
        i2s_layout,
        context: context.transpose()?,
    })
}

/// Texts separated by commas, or a list of texts.
fn target_choices(value: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<TargetChoice>> {
    let Some(value) = value else { return Ok(vec![TargetChoice::Native]) };
    let words: Vec<String> = match value.is_instance_of::<PyString>() {
        true => text("targets", value)?.split(',').map(|word| word.trim().to_owned()).collect(),
        false => texts("targets", value)?,
    };
    if words.is_empty() {
        return Err(PyValueError::new_err("targets is empty; pass \"portable\" for a bundle without code"));
    }
    let choice = |word: &String| {
        let expected = |error| PyValueError::new_err(format!("targets has {word:?}; {error}"));
        word.parse::<TargetChoice>().map_err(expected)
    };
    words.iter().map(choice).collect()
}

/// What [`compile`]'s thread makes.
struct Made {
    compiled: tritc::compile::Compiled,
    out: PathBuf,
    name: String,
    architecture: String,
    warnings: Vec<Warning>,
    trusted: Result<PathBuf, TrustError>,
}

/// Compiles a checkpoint to a .trit bundle, which appears whole or not at all. Ctrl-C stops it at once.
///
/// Arguments:
///     path: model.safetensors, its index, the same of pytorch_model.bin, a GGUF file, or a model's directory.
///     out: the bundle to write; by default the model's name with .trit, in the current directory.
///     targets: machines to generate code for: "native" (this one, the default), "portable" (no code), "all", or names such
///         as "x86-64-v3", as one text with commas or as a list.
///     activations: "auto" (as the model was trained), "int8" or "f32".
///     context: most tokens of a text; by default as many as the model is made for.
///     tolerance: how far float weights may be from ternary ones, relative to the scale of their group.
///     quantize: "absmean" rounds float weights that are not declared to be ternary.
///     i2s_layout: the layout of a GGUF file's I2_S weights: "x86", "arm" or "1x4".
///     ignore_config_keys: keys of config.json to treat as if they were not there.
///     tokenizer: False leaves tokenizer and chat template out.
///     draft: False leaves the block out that drafts tokens.
///     name: the model's name; by default that of its directory or file.
///     threads: threads to compile with; by default as many as there are cores.
///     progress: called with (stage, done, total) while it runs: a str and two ints, whose unit is the stage's own.
///
/// Returns a Compiled. Raises OSError, CheckpointError, UnsupportedError, ValueError, TypeError, KeyboardInterrupt.
#[pyfunction]
#[pyo3(signature = (path, out=None, **options))]
#[pyo3(
    text_signature = "(path, out=None, *, targets='native', activations='auto', context=None, tolerance=None, quantize=None, i2s_layout=None, ignore_config_keys=(), tokenizer=True, draft=True, name=None, threads=None, progress=None)"
)]
pub fn compile(
    py: Python<'_>,
    path: &Bound<'_, PyAny>,
    out: Option<&Bound<'_, PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Compiled> {
    let start = Instant::now();
    let path = arguments::path("path", path)?;
    let out = out.map(|out| arguments::path("out", out)).transpose()?;
    let mut keywords = Keywords::new("compile", options)?;
    let choices = target_choices(keywords.take("targets")?.as_ref())?;
    let name = keywords.take("name")?.map(|value| text("name", &value)).transpose()?;
    let threads = keywords.take("threads")?.map(|value| {
        let threads = count("threads", 1, &value)?;
        if threads > 1024 { Err(other_value("threads", "1 to 1024", &value)) } else { Ok(threads) }
    });
    let threads = threads.transpose()?.unwrap_or(0);
    let progress = keywords.take("progress")?;
    if let Some(progress) = &progress
        && !progress.is_callable()
    {
        return Err(other_type("progress", "a callable that takes (stage, done, total)", progress));
    }
    let options = LoadOptions { name, ..load_options(&mut keywords)? };
    keywords.finish()?;
    let targets = targets::resolve(&choices).map_err(|error| of_compile(py, &error))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool =
        pool.map_err(|error| TritError::new_err(format!("threads cannot be started: {error}; pass fewer")))?;

    let (send, inbox) = Inbox::new();
    let unfinished = Unfinished::default();
    let listed = unfinished.clone();
    let wanted = targets.clone();
    let work = move |stop: &Arc<AtomicBool>| {
        let teller = Teller { send: std::sync::Mutex::new(send), stop: stop.clone(), unfinished: listed };
        pool.install(|| make(&path, out, &options, &wanted, &teller))
    };
    let (mut shown, mut warnings) = (Shown::default(), Vec::new());
    if let Some(progress) = &progress {
        progress.call1(("reading", 0, 0))?;
    }
    let each = |_: Python<'_>| {
        while let Some(told) = inbox.ready() {
            match told {
                Told::Warn(warning) => warnings.push(warning),
                told => shown.take(told, progress.as_ref())?,
            }
        }
        shown.show(progress.as_ref())
    };
    let made = match abandonable(py, work, each) {
        Ok(made) => made.map_err(|error| of_compile(py, &error))?,
        Err(error) => {
            // The thread ends soon, and must not leave what it has written until then.
            py.detach(|| unfinished.abandon(|| ()));
            return Err(error);
        }
    };
    let mut words: Vec<String> = made.warnings.iter().chain(&warnings).map(warning_words).collect();
    if let Err(error) = &made.trusted {
        words.push(format!(
            "{}: cannot be recorded as trusted ({error}); trit.Model will not run its code without trust=True",
            made.out.display()
        ));
    }
    for text in &words {
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)?;
    }
    Ok(Compiled {
        path: made.out,
        name: made.name,
        architecture: made.architecture,
        bytes: made.compiled.bytes(),
        ternary_weights: made.compiled.weights,
        bits_per_weight: made.compiled.bits_per_weight(),
        kernels: made.compiled.kernels,
        fingerprint: made.compiled.fingerprint,
        trusted: made.trusted.is_ok(),
        targets: targets.iter().map(|target| target.name()).collect(),
        warnings: words,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn make(
    path: &Path,
    out: Option<PathBuf>,
    options: &LoadOptions,
    targets: &[trit_runtime::format::target::Target],
    teller: &Teller,
) -> Result<Made, CompileError> {
    trust::check_environment()?;
    if let Some(out) = &out {
        check_output(out)?;
    }
    let model = load::load(path, options)?;
    let out = out.unwrap_or_else(|| file_of(&model.info.name));
    check_output(&out)?;
    let compiled = tritc::compile::compile(&model, &out, targets, teller)?;
    let trusted = trust::record(&compiled.fingerprint);
    let tritc::model::Model { info, warnings, .. } = model;
    Ok(Made {
        compiled,
        out,
        name: info.name,
        architecture: info.architecture,
        warnings: warnings.to_vec(),
        trusted,
    })
}

/// How far a stage is, and how much of that was shown.
#[derive(Default)]
struct Shown {
    stage: Option<(Stage, u64)>,
    done: u64,
    shown: Option<u64>,
}

impl Shown {
    fn take(&mut self, told: Told, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        match told {
            Told::Begin(stage, total) => {
                self.show(progress)?;
                (self.stage, self.done, self.shown) = (Some((stage, total)), 0, None);
            }
            Told::Advance(units) => self.done += units,
            Told::Warn(_) => {}
        }
        Ok(())
    }

    fn show(&mut self, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if let (Some(progress), Some((stage, total))) = (progress, self.stage)
            && self.shown != Some(self.done)
        {
            progress.call1((stage.name(), self.done, total))?;
            self.shown = Some(self.done);
        }
        Ok(())
    }
}

/// What a bundle is, or what a checkpoint is and how it would be compiled: a dict, as `trit inspect --json` prints it.
///
/// Arguments:
///     path: a bundle, or a checkpoint as `compile` takes it.
///     plan: add the text of a bundle's forward pass under "plan".
///     activations, context, tolerance, quantize, i2s_layout, ignore_config_keys, tokenizer, draft: as `compile` takes
///         them, for a checkpoint.
///
/// A checkpoint that cannot be compiled raises nothing: "refused" is then a dict with "message" and "kind", else None.
/// Raises OSError, CheckpointError for a damaged bundle, ValueError, TypeError.
#[pyfunction(name = "inspect")]
#[pyo3(signature = (path, **options))]
#[pyo3(
    text_signature = "(path, *, plan=False, activations='auto', context=None, tolerance=None, quantize=None, i2s_layout=None, ignore_config_keys=(), tokenizer=True, draft=True)"
)]
pub fn inspect_path(
    py: Python<'_>,
    path: &Bound<'_, PyAny>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let path = arguments::path("path", path)?;
    let mut keywords = Keywords::new("inspect", options)?;
    let plan = keywords.take("plan")?.map(|value| truth("plan", &value)).transpose()?.unwrap_or(false);
    let options = load_options(&mut keywords)?;
    keywords.finish()?;
    let is_there = load::is_there(&path).map_err(|error| of_compile(py, &error))?;
    if !is_there {
        return Err(crate::errors::of_io(&path, &std::io::Error::from_raw_os_error(NO_SUCH_FILE)));
    }
    let bundle = is_bundle(&path) || path.extension().is_some_and(|extension| extension == "trit");
    if !bundle && !is_checkpoint(&path) {
        return Err(PyValueError::new_err(format!(
            "{}: is neither a bundle nor a checkpoint; pass a .trit file, a model's directory, model.safetensors, \
             model.safetensors.index.json or a GGUF file",
            path.display()
        )));
    }
    if plan && !bundle {
        return Err(PyTypeError::new_err(format!(
            "plan: {} is a checkpoint; only a bundle has a plan, compile it first",
            path.display()
        )));
    }
    let pool = pool(py)?;
    let look = move |_: &Arc<AtomicBool>| {
        pool.install(|| if bundle { of_bundle(&path, plan) } else { Ok(of_checkpoint(&path, &options)) })
    };
    let object = abandonable(py, look, |_| Ok(()))?;
    to_python(py, &object.map_err(|error| of_compile(py, &error))?)
}

/// The system's number for a file that is not there, on all systems.
const NO_SUCH_FILE: i32 = 2;

fn of_bundle(path: &Path, plan: bool) -> Result<serde_json::Value, CompileError> {
    trust::check_environment()?;
    let bundle = Bundle::open(path)?;
    let mut object = inspect::json(&bundle);
    if plan {
        object["plan"] = trit_runtime::format::text::plan(bundle.manifest()).into();
    }
    Ok(object)
}

fn of_checkpoint(path: &Path, options: &LoadOptions) -> serde_json::Value {
    let survey = load::survey(path, options);
    let mut object = inspect::survey::json(&survey);
    object["warnings"] = survey.warnings.iter().map(warning_words).collect();
    object["refused"] = match &survey.refusal {
        None => serde_json::Value::Null,
        Some(error) => {
            let kind = match error.kind() {
                ErrorKind::Choice => "choice",
                ErrorKind::Input => "input",
                ErrorKind::Unsupported => "unsupported",
                ErrorKind::NotTrusted => "not trusted",
                ErrorKind::Interrupted => "interrupted",
                ErrorKind::Defect => "defect",
            };
            json!({"message": compile_words(error), "kind": kind})
        }
    };
    object
}
