//! `trit._trit`: what the Python package `trit` has in Rust.
//!
//! Python's arguments enter, are checked by `arrays` with errors that name them, and become borrowed slices; the work is
//! done without the interpreter's lock; results leave as NumPy arrays that own their memory, or as objects of this module.
//!
//! | module | holds |
//! |---|---|
//! | `arrays` | NumPy arguments and results |
//! | `arguments` | other arguments: numbers, texts, token ids, JSON |
//! | `elementwise` | `PackedTrits`, `tadd` and its like, chains of them |
//! | `errors` | exceptions |
//! | `interrupt` | long work that Ctrl-C ends |
//! | `linear` | linear layers as transformers computes them |
//! | `matrix` | `PackedMatrix`, `pack`, `unpack`, `gemm`, `gemm_i8` |
//! | `compile` | `compile`, `inspect` |
//! | `model`, `methods` | `Model`, and what it has in Python |
//! | `sampling` | how an answer is to be generated |
//! | `answers`, `follow`, `processed` | answers that are generated: by the scheduler, or with logits processors |
//! | `generate`, `chat` | `Model.generate`, `Model.chat`, and what they give |
//! | `sequence` | `Sequence` |
//! | `commands` | `trit` and `python -m trit` |
//! | `threads` | the pool of threads that multiplies, also after a fork |
//!
//! The types of all this are in `python/trit/_trit.pyi`.
#![forbid(unsafe_code)]

mod answers;
mod arguments;
mod arrays;
mod chat;
mod commands;
mod compile;
mod elementwise;
mod errors;
mod follow;
mod generate;
mod interrupt;
mod linear;
mod matrix;
mod methods;
mod model;
mod processed;
mod sampling;
mod sequence;
mod threads;

use pyo3::prelude::*;

/// The module.
#[pymodule]
mod _trit {
    #[pymodule_export]
    use crate::chat::{Answer, AnswerPart};
    #[pymodule_export]
    use crate::commands::run_command;
    #[pymodule_export]
    use crate::compile::{Compiled, compile, inspect_path};
    #[pymodule_export]
    use crate::elementwise::{
        _expressions, _fused, FusedTrits, PackedTrits, TritExpression, pack_trits, tadd, ternary_fma, tmax,
        tmin, tmul, tnot, unpack_trits,
    };
    #[pymodule_export]
    use crate::errors::TritError;
    #[pymodule_export]
    use crate::generate::{Generation, Piece, Stream};
    #[pymodule_export]
    use crate::linear::linear;
    #[pymodule_export]
    use crate::matrix::{PackedMatrix, gemm, gemm_i8, pack, unpack};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::sequence::Sequence;
    #[pymodule_export]
    use crate::threads::{get_num_threads, set_num_threads};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::arrays::load_numpy(module.py())?;
        crate::errors::add_to(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
