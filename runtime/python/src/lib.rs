//! `trit._trit`: what the Python package `trit` has in Rust.
//!
//! Python's arguments enter, are checked by `arrays` with errors that name them, and become borrowed slices; the work is
//! done without the interpreter's lock; results leave as NumPy arrays that own their memory, or as objects of this module.
//!
//! | module | holds |
//! |---|---|
//! | `arrays` | NumPy arguments and results |
//! | `elementwise` | `PackedTrits`, `tadd` and its like, chains of them |
//! | `errors` | exceptions |
//! | `matrix` | `PackedMatrix`, `pack`, `unpack`, `gemm`, `gemm_i8` |
//! | `threads` | the pool of threads that multiplies, also after a fork |
//!
//! The types of all this are in `python/trit/_trit.pyi`.
#![forbid(unsafe_code)]

mod arrays;
mod elementwise;
mod errors;
mod matrix;
mod threads;

use pyo3::prelude::*;

/// The module.
#[pymodule]
mod _trit {
    #[pymodule_export]
    use crate::elementwise::{
        _expressions, _fused, FusedTrits, PackedTrits, TritExpression, pack_trits, tadd, ternary_fma, tmax,
        tmin, tmul, tnot, unpack_trits,
    };
    #[pymodule_export]
    use crate::errors::TritError;
    #[pymodule_export]
    use crate::matrix::{PackedMatrix, gemm, gemm_i8, pack, unpack};
    #[pymodule_export]
    use crate::threads::{get_num_threads, set_num_threads};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
