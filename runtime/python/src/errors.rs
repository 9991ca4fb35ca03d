//! Exceptions: each error of the Rust libraries becomes the exception that a Python program expects for it.
//!
//! A wrong argument is a `TypeError` or `ValueError`, memory that is refused a `MemoryError`, a file that cannot be read
//! an `OSError`. Everything else that is particular to bundles and models derives from `TritError`.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use trit_gemm::GemmError;

create_exception!(
    trit,
    TritError,
    PyException,
    "What can go wrong with ternary models, beside wrong arguments."
);

/// The exception for an error of a matrix.
pub fn of_gemm(error: GemmError) -> PyErr {
    match error {
        GemmError::Memory { .. } => PyMemoryError::new_err(error.to_string()),
        GemmError::Generate(_) => TritError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}
