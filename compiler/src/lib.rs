//! Ahead-of-time compiler for ternary language models: a Hugging Face checkpoint or a GGUF file becomes a `.trit`
//! bundle.
//!
//! The folders stand in the order of this list. Each uses only those above it, which `tests/tests/layers.rs` asserts.
//!
//! | module | does |
//! |---|---|
//! | [`error`], [`progress`] | what can go wrong; how far a compilation has come |
//! | [`files`] | finds, maps and digests the files of a checkpoint, and notices who changes them |
//! | [`model`] | what a model is to all that follow: matrices, layers, sizes |
//! | `checkpoint` | tensors by name; keys of configurations that change the arithmetic |
//! | `weights` | stored tensors to matrices of trits or floats |
//! | `gguf` | a GGUF file as if it were such a checkpoint |
//! | `mlx` | a checkpoint of mlx-lm as if it were such a checkpoint |
//! | `text` | tokenizer, template, stop ids, sampling defaults |
//! | `arch` | configuration and tensors of each family to the layers of a model |
//! | `pack` | trits to tiles; the head's table to two planes of 4 bits |
//! | `lower` | model to plan: fused packed matrices, steps, buffers in the arena; the manifest |
//! | [`load`] | all of reading: a path to a [`model::Model`], or to a survey of what it holds |
//! | [`mod@reference`] | the compiler's own forward pass; known results from it |
//! | [`bundle`] | writes a bundle, or a program with one; opens one; signs it; records it as one's own |
//! | [`compile`] | a model to a bundle, with the machine code of every packed matrix, by target; a bundle to one for other targets |
//! | [`inspect`] | what is in a bundle, what a checkpoint is, whether a bundle is whole |
//!
//! ```no_run
//! use std::path::Path;
//! use tritc::compile::{compile, targets};
//! use tritc::load::{LoadOptions, load};
//! use tritc::progress;
//!
//! # fn main() -> Result<(), tritc::CompileError> {
//! let model = load(Path::new("fables-12m"), &LoadOptions::default())?;
//! let targets = targets::resolve(&[targets::TargetChoice::All])?;
//! let compiled = compile(&model, Path::new("fables-12m.trit"), &targets, &progress::Silent)?;
//! println!("{} bytes", compiled.bytes());
//! # Ok(())
//! # }
//! ```
//!
//! `unsafe` stands in 1 file: `files/mapped.rs` (files in memory). The others deny it.
#![deny(unsafe_code)]

mod arch;
pub mod bundle;
mod checkpoint;
pub mod compile;
pub mod error;
pub mod files;
mod gguf;
pub mod inspect;
pub mod load;
mod lower;
mod mlx;
pub mod model;
mod pack;
pub mod progress;
pub mod reference;
mod text;
mod weights;

pub use error::{Choice, CompileError, ErrorKind, Warning, Warnings};
