//! Exceptions: each error of the Rust libraries becomes the exception that a Python program expects for it.
//!
//! A wrong argument is a `TypeError` or `ValueError`, memory that is refused a `MemoryError`, a file that cannot be read
//! or written an `OSError`. Everything else that is particular to bundles and models derives from `TritError`; what
//! an error knows besides its words are attributes. Words that say what to do name arguments of this package.

use pyo3::create_exception;
use pyo3::exceptions::{
    PyException, PyFileExistsError, PyFileNotFoundError, PyIsADirectoryError, PyKeyboardInterrupt,
    PyMemoryError, PyOSError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use std::error::Error;
use std::io;
use std::path::Path;
use trit_gemm::GemmError;
use trit_runtime::format::FormatError;
use trit_runtime::format::saved::SavedError;
use trit_runtime::format::trust::TrustError;
use trit_runtime::generate::guide::GuideError;
use trit_runtime::text::TextError;
use trit_runtime::text::causes::with_causes;
use trit_runtime::text::output::{OutputError, OutputProblem};
use trit_runtime::{NoKernels, NotTrusted, RuntimeError};
use tritc::{Choice, CompileError, ErrorKind, Warning};

create_exception!(
    trit,
    TritError,
    PyException,
    "What can go wrong with ternary models, beside wrong arguments."
);

/// The classes below `TritError`, in the order of [`CLASSES`].
#[derive(Clone, Copy)]
enum Class {
    Bundle,
    Saved,
    Untrusted,
    Kernels,
    Context,
    Guide,
    NotFinite,
    Suppressed,
    Closed,
    Compile,
    Checkpoint,
    Unsupported,
}

/// What a class derives from.
#[derive(Clone, Copy)]
enum Base {
    Trit,
    /// `TritError` and `ValueError`: an argument is wrong for this model.
    Value,
    /// `CompileError`, which stands before.
    Compile,
}

/// Name, base and documentation.
const CLASSES: [(&str, Base, &str); 12] = [
    (
        "BundleError",
        Base::Trit,
        "A file is no valid bundle, was changed, or holds texts that cannot be used. Attribute path: the file.",
    ),
    (
        "SavedError",
        Base::Trit,
        "A file of saved sequences is damaged or belongs to another bundle. Attribute path: the file.",
    ),
    (
        "UntrustedError",
        Base::Trit,
        "Nothing says that a bundle's machine code may run, or others can write to the file of a key. Attribute path: that file.",
    ),
    (
        "KernelsError",
        Base::Trit,
        "The kernels that were asked for cannot run on this machine. Attribute path: the bundle.",
    ),
    (
        "ContextError",
        Base::Value,
        "A text does not fit the context, or no text can have the context that was asked for. Attributes tokens: of the \
         text, at least, or asked for; context: that there is room for; longest: that the bundle takes.",
    ),
    (
        "GuideError",
        Base::Value,
        "No answer can follow the JSON schema, regular expression or grammar, or it became too large.",
    ),
    (
        "NotFiniteError",
        Base::Trit,
        "The model's output is infinite or NaN. Attributes position and token: where first.",
    ),
    (
        "SuppressedError",
        Base::Trit,
        "Every token is suppressed, so that none can be chosen. Attribute tokens: of the text so far.",
    ),
    ("ClosedError", Base::Value, "A model or stream was used after it was closed."),
    (
        "CompileError",
        Base::Trit,
        "A model could not be compiled. Attributes path: the file, or None; tensor: the tensor, or None.",
    ),
    ("CheckpointError", Base::Compile, "A checkpoint is damaged, incomplete or contradicts itself."),
    ("UnsupportedError", Base::Compile, "A checkpoint is of a kind that cannot be compiled."),
];

/// The classes, once they are made.
fn classes(py: Python<'_>) -> PyResult<&Vec<Py<PyType>>> {
    static MADE: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();
    MADE.get_or_try_init(py, || {
        let (trit, value) = (py.get_type::<TritError>(), py.get_type::<PyValueError>());
        let mut made: Vec<Py<PyType>> = Vec::with_capacity(CLASSES.len());
        for (name, base, doc) in CLASSES {
            let bases = match base {
                Base::Trit => vec![trit.clone()],
                Base::Value => vec![trit.clone(), value.clone()],
                Base::Compile => vec![made[Class::Compile as usize].bind(py).clone()],
            };
            let dict = PyDict::new(py);
            dict.set_item("__doc__", doc)?;
            dict.set_item("__module__", "trit")?;
            let class = py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, dict))?;
            made.push(class.cast_into::<PyType>()?.unbind());
        }
        Ok(made)
    })
}

/// Puts the classes into the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (class, (name, ..)) in classes(module.py())?.iter().zip(CLASSES) {
        module.add(name, class.bind(module.py()))?;
    }
    Ok(())
}

/// An exception of one of the classes, with attributes.
fn made<'py>(
    py: Python<'py>,
    class: Class,
    message: &str,
    attributes: &[(&str, Bound<'py, PyAny>)],
) -> PyErr {
    let value = || {
        let value = classes(py)?[class as usize].bind(py).call1((message,))?;
        for (name, attribute) in attributes {
            value.setattr(*name, attribute)?;
        }
        Ok(value)
    };
    value().map_or_else(|error| error, PyErr::from_value)
}

fn path_object<'py>(py: Python<'py>, path: &Path) -> Bound<'py, PyAny> {
    path.as_os_str().into_pyobject(py).map_or_else(|error| match error {}, Bound::into_any)
}

fn number(py: Python<'_>, number: usize) -> Bound<'_, PyAny> {
    number.into_pyobject(py).map_or_else(|error| match error {}, Bound::into_any)
}

/// The exception for an error of a matrix.
pub fn of_gemm(error: GemmError) -> PyErr {
    match error {
        GemmError::Memory { .. } => PyMemoryError::new_err(error.to_string()),
        GemmError::Generate(_) => TritError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// The exception for something that was closed.
pub fn closed(py: Python<'_>, message: &str) -> PyErr {
    made(py, Class::Closed, message, &[])
}

/// The exception for a grammar that cannot be followed. `argument` names it, where it is known.
pub fn of_guide(py: Python<'_>, argument: Option<&str>, error: &GuideError) -> PyErr {
    let message = argument.map_or_else(|| error.to_string(), |name| format!("{name}: {error}"));
    made(py, Class::Guide, &message, &[])
}

/// The exception for a text that does not fit.
pub fn too_long(py: Python<'_>, tokens: usize, context: usize, longest: usize) -> PyErr {
    of_runtime(py, RuntimeError::ContextFull { tokens, context, longest })
}

/// The exception for a text or a template. `context` is the context that a text was meant for.
pub fn of_text(py: Python<'_>, path: &Path, error: TextError, context: usize, longest: usize) -> PyErr {
    match error {
        TextError::TooLong { at_least, .. } => too_long(py, at_least, context, longest),
        TextError::Interrupted => PyKeyboardInterrupt::new_err(()),
        TextError::Encode(_) | TextError::Decode(_) => PyValueError::new_err(error.to_string()),
        TextError::Template(_) => PyValueError::new_err(format!("messages: {error}")),
        error => of_runtime(py, RuntimeError::Text { path: path.to_owned(), source: error }),
    }
}

/// An `OSError`, of the class that goes with the system's number.
pub fn of_io(path: &Path, error: &io::Error) -> PyErr {
    let path = path.as_os_str().to_owned();
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => {
            let words = error.to_string();
            let words = words.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, words, path))
        }
        (None, io::ErrorKind::NotFound) => {
            PyFileNotFoundError::new_err(format!("{}: {error}", path.display()))
        }
        (None, io::ErrorKind::OutOfMemory) => PyMemoryError::new_err(format!("{}: {error}", path.display())),
        _ => PyOSError::new_err(format!("{}: {error}", path.display())),
    }
}

/// An `OSError` for a file that may not be written. `argument` is the one that names it.
pub fn of_output(argument: &str, error: &OutputError) -> PyErr {
    let name = format!("name another file with {argument}");
    match &error.problem {
        OutputProblem::NoFolder { .. } => PyFileNotFoundError::new_err(error.to_string()),
        OutputProblem::Folder { example } => {
            PyIsADirectoryError::new_err(format!("{error}; name a file, such as {example}, with {argument}"))
        }
        OutputProblem::DanglingLink | OutputProblem::OtherKind { .. } => {
            PyFileExistsError::new_err(format!("{error}; remove it, or {name}"))
        }
        _ => PyFileExistsError::new_err(format!("{error}; {name}")),
    }
}

/// The exception for the file of a key that cannot be read, holds no key, or does not count.
pub fn of_key(py: Python<'_>, error: &TrustError) -> PyErr {
    match error {
        TrustError::Io { path, source } => of_io(path, source),
        TrustError::Owner { path, .. } | TrustError::Writable { path, .. } => {
            made(py, Class::Untrusted, &error.to_string(), &[("path", path_object(py, path))])
        }
        _ => PyValueError::new_err(format!(
            "key: {error}; pass the file of a public key, as trit keygen makes it"
        )),
    }
}

/// The exception for an error of the runtime.
pub fn of_runtime(py: Python<'_>, error: RuntimeError) -> PyErr {
    let mut message = with_causes(error.to_string(), error.source());
    if let Some(remedy) = remedy(&error) {
        message = format!("{message}; {remedy}");
    }
    let with_path = |class: Class, path: &Path| made(py, class, &message, &[("path", path_object(py, path))]);
    match &error {
        RuntimeError::Io { path, source } => of_io(path, source),
        RuntimeError::Changed { path, .. }
        | RuntimeError::Format { path, .. }
        | RuntimeError::Text { path, .. } => with_path(Class::Bundle, path),
        RuntimeError::Saved { path, .. } => with_path(Class::Saved, path),
        RuntimeError::Output(error) => of_output("path", error),
        RuntimeError::Kernels { path, .. } => with_path(Class::Kernels, path),
        RuntimeError::Untrusted { path, .. } => with_path(Class::Untrusted, path),
        RuntimeError::Input(_) => PyValueError::new_err(message),
        RuntimeError::Context { asked: tokens, longest } => {
            context(py, &message, [*tokens, *longest, *longest])
        }
        RuntimeError::ContextFull { tokens, context: room, longest } => {
            context(py, &message, [*tokens, *room, *longest])
        }
        RuntimeError::Interrupted => PyKeyboardInterrupt::new_err(()),
        RuntimeError::NotFinite { position, token, .. } => {
            let attributes = [("position", number(py, *position)), ("token", number(py, *token as usize))];
            made(py, Class::NotFinite, &message, &attributes)
        }
        RuntimeError::Suppressed { tokens } => {
            made(py, Class::Suppressed, &message, &[("tokens", number(py, *tokens))])
        }
        RuntimeError::Guide(error) => of_guide(py, None, error),
        RuntimeError::SequenceMemory { .. } => PyMemoryError::new_err(message),
        _ => TritError::new_err(message),
    }
}

fn context(py: Python<'_>, message: &str, [tokens, context, longest]: [usize; 3]) -> PyErr {
    let attributes =
        [("tokens", number(py, tokens)), ("context", number(py, context)), ("longest", number(py, longest))];
    made(py, Class::Context, message, &attributes)
}

/// What a user of this package can do about an error, where its words do not say it.
fn remedy(error: &RuntimeError) -> Option<String> {
    const LONGER_BUNDLE: &str =
        "trit.compile(..., context=N) makes a bundle for longer texts where the model has positions for them";
    let remedy = match error {
        RuntimeError::Changed { .. } => {
            "load it again, and replace bundles by renaming, not by writing into them"
        }
        RuntimeError::Format { source: FormatError::Magic { .. }, .. } => "make one with trit.compile",
        RuntimeError::Saved { source: SavedError::Type { found, what: "KV cache", .. }, .. } => {
            return Some(format!("pass kv=\"{found}\" to trit.Model"));
        }
        RuntimeError::Saved { source: SavedError::Type { found, .. }, .. } => {
            return Some(format!("pass state=\"{found}\" to trit.Model"));
        }
        RuntimeError::Untrusted { why, .. } => match why {
            NotTrusted::NotSigned => {
                "its signature is a file beside it, whose name ends in .sig: ask for it where the bundle comes from"
            }
            NotTrusted::Signer(_) => "if you trust that key, pass its file with key=",
            NotTrusted::Signature(_) | NotTrusted::SignatureFile(_) => {
                "copy the bundle and its signature again"
            }
            _ => {
                "pass trust=True if you know where it comes from, or kernels=\"jit\" to regenerate the code here"
            }
        },
        RuntimeError::ContextFull { context, longest, .. } if context < longest => {
            "shorten the text, or pass a longer context to trit.Model"
        }
        RuntimeError::Context { .. } => LONGER_BUNDLE,
        RuntimeError::ContextFull { .. } => return Some(format!("shorten the text; {LONGER_BUNDLE}")),
        RuntimeError::SequenceMemory { .. } => "pass a shorter context to trit.Model",
        RuntimeError::Threads { .. } => "pass fewer threads to trit.Model",
        RuntimeError::Kernels { problem, .. } => match problem {
            NoKernels::OtherCpu { .. } => "compile with targets=, or pass kernels=\"auto\"",
            NoKernels::NotGenerated { limit: Some(_), .. } | NoKernels::NoneFor { limit: Some(_), .. } => {
                "compile the model with targets=\"all\", and do not pass mmap=True"
            }
            NoKernels::NoTier => "pass kernels=\"portable\"",
            NoKernels::Generation { .. } | NoKernels::Memory(_) => "try kernels=\"portable\"",
            _ => return None,
        },
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// The exception for an error of the compiler.
pub fn of_compile(py: Python<'_>, error: &CompileError) -> PyErr {
    let message = with_causes(compile_words(error), error.source());
    match error {
        CompileError::Io { path, source } => return of_io(path, source),
        CompileError::Output(error) => return of_output("out", error),
        CompileError::Interrupted => return PyKeyboardInterrupt::new_err(()),
        _ => {}
    }
    let (path, tensor) = place(error);
    let path = path.map_or_else(|| py.None().into_bound(py), |path| path_object(py, path));
    let tensor = tensor.map_or_else(|| py.None().into_bound(py), |t| PyString::new(py, t).into_any());
    let attributes = [("path", path), ("tensor", tensor)];
    match error.kind() {
        ErrorKind::Choice | ErrorKind::Interrupted => PyValueError::new_err(message),
        ErrorKind::Input => made(py, Class::Checkpoint, &message, &attributes),
        ErrorKind::Unsupported => made(py, Class::Unsupported, &message, &attributes),
        ErrorKind::NotTrusted => made(py, Class::Untrusted, &message, &attributes),
        ErrorKind::Defect => made(py, Class::Compile, &message, &attributes),
    }
}

/// The file and the tensor that an error is about.
fn place(error: &CompileError) -> (Option<&Path>, Option<&str>) {
    match error {
        CompileError::Tensor { path, tensor, .. }
        | CompileError::NotTernary { path, tensor, .. }
        | CompileError::NearlyTernary { path, tensor, .. }
        | CompileError::AlreadyTernary { path, tensor, .. }
        | CompileError::UnsupportedTensor { path, tensor, .. } => (Some(path), Some(tensor)),
        CompileError::NoSuchKernel { path, .. }
        | CompileError::Invalid { path, .. }
        | CompileError::NotABundle { path, .. }
        | CompileError::IsABundle { path }
        | CompileError::UnusableTokenizer { path, .. }
        | CompileError::UndecidedLayout { path, .. }
        | CompileError::Unsupported { path, .. }
        | CompileError::UnknownKey { path, .. } => (Some(path), None),
        _ => (None, None),
    }
}

/// The words of an error of the compiler, with what to do in this package's arguments.
pub fn compile_words(error: &CompileError) -> String {
    match error {
        CompileError::Choice { choice, problem } => {
            let argument = match choice {
                Choice::Name(name) => format!("name={name:?}"),
                Choice::Context(context) => format!("context={context}"),
                Choice::IgnoredKey(key) => format!("ignore_config_keys=[{key:?}]"),
                Choice::I2sLayout(layout) => format!("i2s_layout={layout:?}"),
                Choice::Rounding => "quantize=\"absmean\"".to_owned(),
                Choice::Tolerance(tolerance) => format!("tolerance={tolerance}"),
                other => other.to_string(),
            };
            format!("{argument}: {problem}")
        }
        CompileError::NotABundle { may_be_checkpoint: true, .. } => {
            format!("{error}; if it is a checkpoint, compile it with trit.compile")
        }
        CompileError::NotABundle { .. } => format!("{error}; trit.compile makes one from a checkpoint"),
        CompileError::IsABundle { .. } => {
            format!("{error}; run it with trit.Model, or look into it with trit.inspect")
        }
        CompileError::UnusableTokenizer { .. } => {
            format!("{error}; tokenizer=False makes a bundle that takes and gives token ids only")
        }
        CompileError::NotTernary { .. } => format!(
            "{error}; or have them rounded with quantize=\"absmean\", which gives a model that was not trained for it \
             nothing but noise"
        ),
        CompileError::UndecidedLayout { .. } => format!(
            "{error}; say it with i2s_layout=: \"x86\" for files of Microsoft and of converters in Python, \"arm\" or \
             \"1x4\" for some that others made. A wrong layout gives a model that writes noise"
        ),
        CompileError::NearlyTernary { worst, .. } => {
            let tolerance = (f64::from(*worst) * 1000.0).ceil() / 1000.0;
            format!("{error}; tolerance={tolerance} has them rounded, and the bundle says so")
        }
        CompileError::AlreadyTernary { .. } => format!("{error}; leave away quantize=\"absmean\""),
        CompileError::UnknownKey { key, changes_arithmetic: false, .. } => {
            format!("{error}; if it does not, compile with ignore_config_keys=[{key:?}]")
        }
        CompileError::UnsupportedTarget { target: None, .. } => {
            format!("targets=\"native\": {error}; name those to compile for, or pass targets=\"portable\"")
        }
        _ => error.to_string(),
    }
}

/// A warning of the compiler.
pub fn warning_words(warning: &Warning) -> String {
    match warning {
        Warning::ShortFactors { change, longest } => format!(
            "{warning}. For longer texts compile with the long ones: context=N with N above {change}, up to {longest}"
        ),
        Warning::LongFactors { .. } => format!("{warning}; without context= it has the short ones"),
        _ => warning.to_string(),
    }
}
