//! Loads, verifies, binds and runs `.trit` bundles.
//!
//! A [`Model`] is immutable, and any number of users share it. Each conversation is a [`Session`] on it; an [`Engine`]
//! runs many sequences at a time.
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
//! The library changes nothing in the process that it runs in: it handles no signals, sets no panic hook, prints
//! nothing and never ends the process; but a library that the feature `guide` brings wraps the panic hook, as `guide` says.
//! What goes wrong is a [`RuntimeError`], whose text names no command's options. A
//! program that wants to know which files are mapped passes a [`MappingHook`].
//!
//! The parts, each standing on those above it in this list; only an error carries, as data, the reasons that later
//! parts give:
//!
//! | folder or file | holds |
//! |---|---|
//! | `error`, `limits` | what can go wrong; how much memory the system still grants |
//! | `bundle/` | a bundle's bytes: read once, checked, kept in memory or mapped; whether its code is trusted |
//! | `kernels/` | which kernels multiply the ternary matrices on this machine, and which variants are fastest |
//! | `load` | [`Model`]: a bundle with its kernels, immutable and shared |
//! | `engine/` | [`Engine`], [`Sequence`], [`Batch`]: the plan's steps on many sequences, threads, KV caches, logits; [`saved`] sequences |
//! | `session` | [`Session`]: an engine with one sequence |
//! | `perplexity` | how well a model predicts a text |
//! | `selftest` | a model's kernels and logits compared with what the bundle says they are |
//! | `generate/` | from logits to text: sampling, drafts, the rules of single tokens |
//! | `guide/` | [`GuideFactory`](guide::GuideFactory): answers that follow a grammar (feature `guide`) |
//! | `scheduler/` | [`Scheduler`](scheduler): many requests share one engine |
//! | `bandwidth` | how fast this machine's memory can be read, to compare decoding with |
//!
//! `unsafe` stands in 15 files: `engine/arena.rs`, `engine/attend.rs`, `engine/execute.rs`, `engine/kv.rs`,
//! `engine/quantizing.rs`, `engine/recur.rs` and `engine/state.rs` (rows, heads and states shared by workers),
//! `engine/dense_linear.rs`, `engine/elementwise.rs`, `engine/ternary.rs` and `engine/ternary/tests.rs` (rows that a worker
//! claimed), `bundle/mapping.rs` and `bundle/storage.rs` (files in
//! memory), `kernels/embedded.rs` (machine code in memory), `bandwidth.rs` (vector loads). The others deny it.
#![deny(unsafe_code)]

pub mod bandwidth;
mod bundle;
pub mod engine;
mod error;
pub mod generate;
#[cfg(feature = "guide")]
pub mod guide;
mod kernels;
mod limits;
mod load;
pub mod perplexity;
pub mod scheduler;
mod selftest;
mod session;

pub use bundle::mapped_files::{MappingGuard, MappingHook};
pub use bundle::source;
pub use bundle::storage::WeightMemory;
pub use bundle::texts::Texts;
pub use bundle::trust::{NotTrusted, TrustPolicy, TrustRecords, Trusted};
pub use engine::profile::Profile;
pub use engine::saved::{self, SavedSequences};
pub use engine::{
    Batch, Candidate, Engine, EngineOptions, KvType, Logits, LogitsRequest, Pooling, Sequence,
    SequenceOptions, StateType, TokenSet,
};
pub use error::{Place, RuntimeError};
pub use generate::sample;
pub use kernels::bind::{KernelChoice, KernelReport, KernelSource};
pub use kernels::notes::{CodeLimit, KernelNote, NoKernels};
pub use kernels::tuning::Tuning;
pub use limits::available;
pub use load::{LoadOptions, Model};
pub use selftest::{GoldenReport, SelftestReport};
pub use session::{Session, SessionOptions};
pub use trit_format as format;
pub use trit_gemm::{CpuTiers, cpu};
pub use trit_text as text;
