//! Arguments that are no arrays: numbers, texts, token ids, JSON. What does not fit is a `TypeError` or a `ValueError` that
//! names the argument and says what is expected.

use numpy::{PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::Value;
use std::path::PathBuf;
use std::str::FromStr;

/// The exception for a value of another type.
pub fn other_type(name: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{name} must be {expected}, not {}", type_name(value)))
}

/// The exception for a value that is not possible.
pub fn other_value(name: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{name} is {}; expected {expected}", shown(value)))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// The value as Python writes it, shortened.
fn shown(value: &Bound<'_, PyAny>) -> String {
    /// Most characters of a value that a message repeats.
    const MOST: usize = 60;
    let text = value.repr().map_or_else(|_| type_name(value), |text| text.to_string_lossy().into_owned());
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A text.
pub fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>().map_err(|_| other_type(name, "a str", value))?;
    let text = text.to_str().map_err(|_| {
        PyValueError::new_err(format!(
            "{name} has a surrogate that stands alone, which is no text: pass {name}.encode(\"utf-8\", \"replace\").decode()"
        ))
    })?;
    Ok(text.to_owned())
}

/// A truth value.
pub fn truth(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.cast::<PyBool>().map(|value| value.is_true()).map_err(|_| other_type(name, "True or False", value))
}

/// A whole number: an int, or what is one, such as NumPy's integers.
pub fn whole<T>(name: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyResult<T>
where
    T: for<'a, 'py> FromPyObject<'a, 'py>,
{
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyFloat>() {
        return Err(other_type(name, "an int", value));
    }
    let index = match value.cast::<PyInt>() {
        Ok(_) => value.clone(),
        Err(_) => value
            .call_method0(intern!(value.py(), "__index__"))
            .map_err(|_| other_type(name, "an int", value))?,
    };
    index.extract().map_err(|_| other_value(name, expected, value))
}

/// A number of something, at least `least`.
pub fn count(name: &str, least: usize, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let expected = format!("a whole number, {least} or more");
    let count: usize = whole(name, &expected, value)?;
    if count < least { Err(other_value(name, &expected, value)) } else { Ok(count) }
}

/// A number, which is finite after it was rounded to f32.
pub fn number(
    name: &str,
    expected: &str,
    value: &Bound<'_, PyAny>,
    fits: impl FnOnce(f32) -> bool,
) -> PyResult<f32> {
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyString>() {
        return Err(other_type(name, "a number", value));
    }
    let wide: f64 = value.extract().map_err(|error: PyErr| {
        // An int may be beyond all floats.
        match error.is_instance_of::<pyo3::exceptions::PyOverflowError>(value.py()) {
            true => other_value(name, expected, value),
            false => other_type(name, "a number", value),
        }
    })?;
    let number = wide as f32;
    if number.is_finite() && fits(number) { Ok(number) } else { Err(other_value(name, expected, value)) }
}

/// One of some words.
pub fn word<T: FromStr>(name: &str, expected: &str, value: &str) -> PyResult<T> {
    value.parse().map_err(|_| PyValueError::new_err(format!("{name} is {value:?}; expected {expected}")))
}

/// A path: a str, or what `os.fspath` takes.
pub fn path(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let path: PathBuf = value.extract().map_err(|_| other_type(name, "a str or a pathlib.Path", value))?;
    if path.as_os_str().is_empty() {
        return Err(PyValueError::new_err(format!("{name} is empty; pass the path of a file")));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PyValueError::new_err(format!("{name} holds a null character, which no path does")));
    }
    Ok(path)
}

/// Paths: one, or a sequence of at least one.
pub fn paths(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
    let Some(items) = items(value) else {
        let expected = "a str, a pathlib.Path or a list of them";
        return match value.extract::<PathBuf>() {
            Ok(_) => Ok(vec![path(name, value)?]),
            Err(_) => Err(other_type(name, expected, value)),
        };
    };
    let item = |(at, item): (usize, Bound<'_, PyAny>)| path(&format!("{name}[{at}]"), &item);
    let paths: Vec<PathBuf> = items?.into_iter().enumerate().map(item).collect::<PyResult<_>>()?;
    match paths.is_empty() {
        true => {
            Err(PyValueError::new_err(format!("{name} is empty; pass the path of a file, or leave it away")))
        }
        false => Ok(paths),
    }
}

/// Texts: one, or a sequence of them. Empty ones are refused.
pub fn texts(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let texts = match value.cast::<PyString>() {
        Ok(_) => vec![text(name, value)?],
        Err(_) => {
            let items = items(value).ok_or_else(|| other_type(name, "a str or a list of str", value))?;
            let item = |(at, item): (usize, Bound<'_, PyAny>)| text(&format!("{name}[{at}]"), &item);
            items?.into_iter().enumerate().map(item).collect::<PyResult<_>>()?
        }
    };
    match texts.iter().any(String::is_empty) {
        true => Err(PyValueError::new_err(format!("{name} has an empty text; leave it away"))),
        false => Ok(texts),
    }
}

/// The items of a list or tuple, or of an array or tensor by its `tolist`; `None` for other values.
fn items<'py>(value: &Bound<'py, PyAny>) -> Option<PyResult<Vec<Bound<'py, PyAny>>>> {
    if let Ok(list) = value.cast::<PyList>() {
        return Some(Ok(list.iter().collect()));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Some(Ok(tuple.iter().collect()));
    }
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return None;
    }
    if let Ok(list) = value.getattr(intern!(value.py(), "tolist")).and_then(|tolist| tolist.call0()) {
        // An array without dimensions is one number.
        let list = list.cast_into::<PyList>().ok()?;
        return Some(Ok(list.iter().collect()));
    }
    let is_range = value.get_type().name().is_ok_and(|name| name == "range");
    is_range.then(|| value.try_iter()?.collect())
}

/// Token ids of a vocabulary: a sequence of ints or a one-dimensional array of integers, of no more than `most`.
///
/// # Errors
/// As the module says. More ids than `most` give what `too_many` makes of their number.
pub fn ids(
    name: &str,
    value: &Bound<'_, PyAny>,
    vocab: u32,
    most: usize,
    too_many: impl FnOnce(usize) -> PyErr,
) -> PyResult<Vec<u32>> {
    let expected = "a list of token ids or a one-dimensional array of integers";
    // Nothing is converted that is far too long.
    if let Ok(len) = value.len()
        && len > most
        && !value.is_instance_of::<PyString>()
    {
        return Err(too_many(len));
    }
    if let Some(array) = integers(value) {
        return array_ids(name, array, vocab);
    }
    let items = items(value).ok_or_else(|| other_type(name, expected, value))??;
    if items.is_empty() {
        return Err(PyValueError::new_err(format!("{name} is empty; pass at least one token id")));
    }
    let id = |(at, item): (usize, Bound<'_, PyAny>)| {
        let name = format!("{name}[{at}]");
        let range = format!("a token id from 0 to {}", vocab.saturating_sub(1));
        let id: u32 = whole(&name, &range, &item)?;
        if id < vocab { Ok(id) } else { Err(other_value(&name, &range, &item)) }
    };
    items.into_iter().enumerate().map(id).collect()
}

/// A one-dimensional array of integers without a mask; `None` for other values.
fn integers<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyUntypedArray>> {
    let array = value.cast::<PyUntypedArray>().ok()?;
    let plain = value.is_exact_instance_of::<PyUntypedArray>();
    (plain && array.ndim() == 1 && array.len() > 0 && matches!(array.dtype().kind(), b'i' | b'u'))
        .then_some(array)
}

/// The ids of an array of integers, of which no Python object is made.
fn array_ids(name: &str, array: &Bound<'_, PyUntypedArray>, vocab: u32) -> PyResult<Vec<u32>> {
    let py = array.py();
    let numpy = py.import(intern!(py, "numpy"))?;
    for (extreme, place) in [("min", "argmin"), ("max", "argmax")] {
        let value = array.call_method0(extreme)?;
        let id: Option<u32> = value.call_method0("item")?.extract().ok();
        if id.is_none_or(|id| id >= vocab) {
            let at: usize = array.call_method0(place)?.extract()?;
            let range = format!("a token id from 0 to {}", vocab.saturating_sub(1));
            return Err(other_value(&format!("{name}[{at}]"), &range, &value));
        }
    }
    let ids = numpy.call_method1("ascontiguousarray", (array, dtype::<u32>(py)))?;
    Ok(ids.cast_into::<PyArray1<u32>>()?.try_readonly()?.as_slice()?.to_vec())
}

/// Several prompts or one: whether `value` is a list of texts or of lists.
pub fn is_list_of_prompts(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let first = match (value.cast::<PyList>(), value.cast::<PyTuple>()) {
        (Ok(list), _) if !list.is_empty() => list.get_item(0)?,
        (_, Ok(tuple)) if !tuple.is_empty() => tuple.get_item(0)?,
        (Err(_), Err(_)) => {
            // A matrix of ids.
            let dimensions =
                value.getattr(intern!(value.py(), "ndim")).and_then(|ndim| ndim.extract::<usize>());
            return Ok(dimensions.is_ok_and(|dimensions| dimensions > 1));
        }
        _ => return Ok(false),
    };
    let is_number = first.is_instance_of::<PyInt>() || first.hasattr(intern!(value.py(), "__index__"))?;
    // Arrays have `__index__` too.
    let is_array = first.getattr(intern!(value.py(), "ndim")).and_then(|ndim| ndim.extract::<usize>());
    Ok(!is_number || is_array.is_ok_and(|dimensions| dimensions > 0))
}

/// The prompts of a list.
pub fn prompts<'py>(value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let all = match items(value) {
        Some(items) => items?,
        None => return Err(other_type("prompt", "a str, token ids, or a list of these", value)),
    };
    Ok(all)
}

/// A value as JSON has it.
pub fn json(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    let options = PyDict::new(py);
    options.set_item("allow_nan", false)?;
    let text = py.import(intern!(py, "json"))?.call_method(intern!(py, "dumps"), (value,), Some(&options));
    let text = text.map_err(|error| {
        let words = error.value(py).to_string();
        match error.is_instance_of::<PyTypeError>(py) {
            true => PyTypeError::new_err(format!("{name} is no JSON: {words}")),
            false => PyValueError::new_err(format!("{name} is no JSON: {words}")),
        }
    })?;
    from_json(name, &self::text(name, &text)?)
}

/// The value that a JSON text holds.
pub fn from_json(name: &str, text: &str) -> PyResult<Value> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(format!("{name} is no JSON: {error}")))
}

/// A JSON value as Python has it.
pub fn to_python(py: Python<'_>, value: &Value) -> PyResult<Py<PyAny>> {
    let loads = py.import(intern!(py, "json"))?.getattr(intern!(py, "loads"))?;
    Ok(loads.call1((value.to_string(),))?.unbind())
}

/// Keyword arguments, taken one by one, so that what is left over can be refused.
pub struct Keywords<'py> {
    of: &'static str,
    given: Option<Bound<'py, PyDict>>,
    known: Vec<&'static str>,
}

impl<'py> Keywords<'py> {
    /// The keyword arguments of the method `of`.
    pub fn new(of: &'static str, given: Option<&Bound<'py, PyDict>>) -> PyResult<Keywords<'py>> {
        Ok(Keywords { of, given: given.map(|given| given.copy()).transpose()?, known: Vec::new() })
    }

    /// The argument `name`; `None` where it was not given or is None.
    pub fn take(&mut self, name: &'static str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.known.push(name);
        let Some(given) = &self.given else { return Ok(None) };
        let value = given.get_item(name)?;
        if value.is_some() {
            given.del_item(name)?;
        }
        Ok(value.filter(|value| !value.is_none()))
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> PyResult<()> {
        let Some((name, _)) = self.given.and_then(|given| given.iter().next()) else { return Ok(()) };
        let name = name.to_string();
        let like = |known: &&&'static str| strsim::jaro_winkler(&name, known);
        let nearest = self.known.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
        let hint = match nearest {
            Some(nearest) if like(&nearest) > 0.8 => format!("; did you mean {nearest}?"),
            _ => format!("; there are {}", self.known.join(", ")),
        };
        Err(PyTypeError::new_err(format!("{}() has no argument {name}{hint}", self.of)))
    }
}
