//! Ahead-of-time compiler for ternary language models: a Hugging Face checkpoint or a GGUF file becomes a `.trit` bundle.
//!
//! | module | does |
//! |---|---|
//! | [`ingest`] | files to a [`model::Model`], with `arch` (families), `quantize` (storage forms) and `detect` (ternary floats) |
//! | [`lower`] | model to plan: fused products, steps, buffers in the arena |
//! | [`pack`] | trits to tiles |
//! | `planes` | the head's table to two planes of 4 bits |
//! | `kernels` | the machine code of every product, by target |
//! | [`mod@reference`], `golden` | the compiler's own forward pass; known results from it |
//! | [`compile`] | all of it in order, to a file |
//! | `writer`, [`bundle`] | writes a bundle; opens one |
//! | [`inspect`], [`disasm`], [`verify`] | what is in a bundle |
//! | [`survey`] | what a checkpoint is, before it is compiled |
//! | [`trust`] | records a bundle as one's own |
//! | `memory` | what a program does where there is no more of it |
//! | `signals` | leaves no unfinished file when the process is to end |
//!
//! ```no_run
//! use std::path::Path;
//! use tritc::{compile, ingest, progress, targets};
//!
//! # fn main() -> Result<(), tritc::CompileError> {
//! let model = ingest::load(Path::new("fables-12m"), &ingest::LoadOptions::default())?;
//! let targets = targets::resolve(&[targets::TargetChoice::All])?;
//! let compiled = compile::compile(&model, Path::new("fables-12m.trit"), &targets, &progress::Silent)?;
//! println!("{} bytes", compiled.bytes());
//! # Ok(())
//! # }
//! ```
//!
//! `unsafe` stands in 3 files: `ingest/mapped.rs` and `ingest/mapped/truncation.rs` (files in memory, and what becomes of a
//! process when they are cut off), `memory.rs` (an allocator). The others deny it.
#![deny(unsafe_code)]

mod arch;
pub mod bundle;
pub mod compile;
mod detect;
pub mod disasm;
pub mod error;
mod golden;
pub mod ingest;
pub mod inspect;
mod kernels;
pub mod lower;
mod memory;
pub mod model;
pub mod pack;
mod planes;
pub mod progress;
mod quantize;
pub mod reference;
pub mod survey;
pub mod targets;
pub mod trust;
pub mod verify;
mod writer;

pub use error::CompileError;
pub use memory::EndsWhereMemoryEnds;
pub use writer::check_output;
