//! Loads, verifies, binds and runs `.trit` bundles.
//!
//! A [`Model`] is immutable and shared; each conversation is a [`Session`] on it.
//!
//! ```no_run
//! use trit_runtime::{LoadOptions, Model, Session, SessionOptions};
//!
//! let model = Model::load("fables-12m.trit".as_ref(), &LoadOptions::default())?;
//! let mut session = Session::new(model, SessionOptions::default())?;
//! let logits = session.prefill(&[4093, 46, 1218, 605])?;
//! println!("{} logits", logits.len());
//! # Ok::<(), trit_runtime::RuntimeError>(())
//! ```
//!
//! The runtime knows no model architecture: it executes the bundle's validated plan.
//!
//! It changes nothing of the process it runs in: it takes no signals, sets no panic hook, ends nothing and prints nothing.
//! What goes wrong is a [`RuntimeError`], which names no command's options. A program that wants to know which files are
//! mapped gives a [`MappingHook`].
//!
//! `unsafe` stands in 14 files: `arena.rs`, `attend.rs`, `execute.rs` and `kv.rs` (rows shared by workers), `cpu.rs` (asking
//! for tile registers), `dense.rs`, `grouped.rs`, `grouped/tests.rs`, `rows.rs`, `ternary.rs` and `tuning.rs` (calling a
//! kernel, rows that a worker claimed), `mapping.rs` and `storage.rs` (files and code in memory), `stream.rs` (vector
//! loads). The others deny it.
#![deny(unsafe_code)]

mod arena;
mod bind;
mod dense;
mod draft;
pub mod engine;
mod error;
pub mod generate;
mod kernel_notes;
mod limits;
mod load;
mod mapped_files;
mod mapping;
mod pool;
mod profile;
mod recode;
mod remembered;
mod rows;
mod rules;
pub mod sample;
mod selftest;
mod session;
pub mod source;
mod storage;
pub mod stream;
mod tables;
mod ternary;
mod texts;
mod trust;
mod tuning;

pub use bind::{KernelChoice, KernelReport, KernelSource};
pub use engine::{
    Batch, Candidate, Engine, EngineOptions, KvType, Logits, LogitsRequest, Sequence, SequenceOptions,
};
pub use error::{Place, RuntimeError};
pub use kernel_notes::{CodeLimit, KernelNote, NoKernels};
pub use limits::available;
pub use load::{LoadOptions, Model};
pub use mapped_files::{MappingGuard, MappingHook};
pub use profile::Profile;
pub use selftest::{GoldenReport, SelftestReport};
pub use session::{Session, SessionOptions};
pub use storage::Memory;
pub use texts::Texts;
pub use trit_format as format;
pub use trit_gemm::{CpuTiers, cpu};
pub use trit_text as text;
pub use trust::{NotTrusted, TrustPolicy, TrustRecords, Trusted};
pub use tuning::Tuning;
