//! NumPy arguments and results.
//!
//! An argument of the right type, contiguous and in this machine's byte order is borrowed where it stands. Another layout
//! or byte order is copied first; another type of elements is refused with the words that would convert it, because a
//! silent conversion hides what it costs and what it rounds.

use numpy::ndarray::{Ix1, IxDyn};
use numpy::{
    Element, IntoPyArray, PyArray, PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods,
    PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

/// Looks NumPy's functions up, which is otherwise done when they are first used: Ctrl-C at that moment would be a panic.
///
/// # Errors
/// `ImportError` where there is no NumPy.
pub fn load_numpy(py: Python<'_>) -> PyResult<()> {
    py.import(intern!(py, "numpy"))?;
    PyArray::<u8, Ix1>::zeros(py, [1], false).try_readonly().map(drop).map_err(|_| in_use("a new array"))
}

/// An array argument: contiguous, aligned, in this machine's byte order.
pub struct Argument<'py, T: Element> {
    shape: Vec<usize>,
    array: PyReadonlyArrayDyn<'py, T>,
}

impl<T: Element> Argument<'_, T> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, row-major.
    pub fn values(&self) -> PyResult<&[T]> {
        Ok(self.array.as_slice()?)
    }
}

/// Reads the argument `name`, whose last two dimensions are `shape` in words, `"[m, k]"`. `fits` says whether a shape is
/// possible; it is asked before anything is copied.
///
/// # Errors
/// `TypeError` for what is no array or has other elements, `ValueError` for another shape.
pub fn read<'py, T: Element>(
    name: &str,
    expected: &str,
    value: &Bound<'py, PyAny>,
    fits: impl FnOnce(&[usize]) -> bool,
) -> PyResult<Argument<'py, T>> {
    let (py, wanted) = (value.py(), dtype::<T>(value.py()));
    let array = untyped(name, value, &wanted)?;
    let found = array.dtype();
    if found.kind() != wanted.kind() || found.itemsize() != wanted.itemsize() {
        return Err(other_elements(name, &wanted, &found, true));
    }
    let shape = array.shape().to_vec();
    if !fits(&shape) {
        return Err(other_shape(name, expected, &shape));
    }
    let whole = array.is_c_contiguous() && is_aligned(array)? && found.is_equiv_to(&wanted);
    let array = if whole {
        value.clone()
    } else {
        let numpy = py.import(intern!(py, "numpy"))?;
        numpy.call_method1(intern!(py, "require"), (value, wanted, ("C_CONTIGUOUS", "ALIGNED")))?
    };
    let array = array.cast_into::<PyArrayDyn<T>>()?;
    let array = array.try_readonly().map_err(|_| in_use(name))?;
    Ok(Argument { shape, array })
}

/// Borrows the argument `name` to write results of this shape into.
///
/// # Errors
/// `TypeError` for what is no array or has other elements, `ValueError` for another shape, and for an array that cannot be
/// written or is not contiguous.
pub fn write<'py, T: Element>(
    name: &str,
    value: &Bound<'py, PyAny>,
    shape: &[usize],
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let wanted = dtype::<T>(value.py());
    let array = untyped(name, value, &wanted)?;
    if !array.dtype().is_equiv_to(&wanted) {
        return Err(other_elements(name, &wanted, &array.dtype(), false));
    }
    if array.shape() != shape {
        let expected = format!("of shape {}", words(shape));
        return Err(other_shape(name, &expected, array.shape()));
    }
    if !array.is_c_contiguous() || !is_aligned(array)? {
        return Err(PyValueError::new_err(format!(
            "{name} is not contiguous: pass an array made by numpy.empty"
        )));
    }
    if !flag(array, "writeable")? {
        return Err(PyValueError::new_err(format!("{name} is read-only: pass an array that can be written")));
    }
    let array = value.cast::<PyArrayDyn<T>>()?;
    array.try_readwrite().map_err(|_| in_use(name))
}

/// Room for an array of this shape, filled with zeros.
///
/// # Errors
/// `MemoryError`.
pub fn zeros<T: Clone + Default>(shape: &[usize]) -> PyResult<Vec<T>> {
    let refused =
        || PyMemoryError::new_err(format!("there is no memory for results of shape {}", words(shape)));
    let len = shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n)).ok_or_else(refused)?;
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| refused())?;
    values.resize(len, T::default());
    Ok(values)
}

/// An array of `values` in this shape, which owns their memory.
pub fn array<T: Element>(py: Python<'_>, values: Vec<T>, shape: &[usize]) -> PyResult<Py<PyArray<T, IxDyn>>> {
    Ok(values.into_pyarray(py).reshape(shape)?.unbind())
}

/// The shape as Python writes it.
pub fn words(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn untyped<'a, 'py>(
    name: &str,
    value: &'a Bound<'py, PyAny>,
    wanted: &Bound<'py, PyArrayDescr>,
) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let array = value.cast::<PyUntypedArray>().map_err(|_| {
        let found = value.get_type();
        let remedy = format!("numpy.asarray({name}, dtype=numpy.{wanted})");
        PyTypeError::new_err(format!(
            "{name} must be a numpy.ndarray of {wanted}, not {found}: pass {remedy}"
        ))
    })?;
    // What a mask hides would be multiplied too.
    let masked =
        py.import(intern!(py, "numpy"))?.getattr(intern!(py, "ma"))?.getattr(intern!(py, "MaskedArray"))?;
    match value.is_exact_instance_of::<PyUntypedArray>() || !value.is_instance(&masked)? {
        true => Ok(array),
        false => Err(PyTypeError::new_err(format!("{name} is a masked array: pass {name}.filled(0)"))),
    }
}

fn flag(array: &Bound<'_, PyUntypedArray>, name: &str) -> PyResult<bool> {
    array.getattr(intern!(array.py(), "flags"))?.getattr(name)?.extract()
}

fn is_aligned(array: &Bound<'_, PyUntypedArray>) -> PyResult<bool> {
    flag(array, "aligned")
}

fn other_elements(
    name: &str,
    wanted: &Bound<'_, PyArrayDescr>,
    found: &Bound<'_, PyArrayDescr>,
    converted: bool,
) -> PyErr {
    let remedy = match converted {
        true => format!("pass {name}.astype(numpy.{wanted})"),
        false => format!("pass an array made with dtype=numpy.{wanted}"),
    };
    PyTypeError::new_err(format!("{name} must have elements of {wanted}, not {found}: {remedy}"))
}

fn other_shape(name: &str, expected: &str, found: &[usize]) -> PyErr {
    PyValueError::new_err(format!("{name} must be {expected}, but has the shape {}", words(found)))
}

fn in_use(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} shares memory with another argument, or is in use: pass a copy"))
}
