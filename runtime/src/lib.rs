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
//! The runtime knows no model architecture: it executes the bundle's validated plan. `unsafe` stands in few files, among them
//! `mapping` (files and code in memory), `fault` (files that shrink), `arena` (rows shared by workers) and `ternary` (tiles
//! shared by workers); the others deny it.
#![deny(unsafe_code)]

mod arena;
mod attend;
mod best;
mod bind;
mod dense;
mod draft;
mod error;
mod execute;
pub mod fault;
pub mod generate;
mod kv;
mod limits;
mod load;
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
mod tuning;

pub use bind::{KernelChoice, KernelReport, KernelSource};
pub use error::{Place, RuntimeError};
pub use kv::KvType;
pub use limits::available;
pub use load::{LoadOptions, Model};
pub use profile::Profile;
pub use selftest::{GoldenReport, SelftestReport};
pub use session::{Session, SessionOptions};
pub use storage::Memory;
pub use texts::Texts;
pub use trit_format as format;
pub use trit_gemm::{CpuTiers, cpu};
pub use trit_text as text;
pub use tuning::Tuning;
