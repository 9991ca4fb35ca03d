//! Ahead-of-time compiler for ternary language models: a Hugging Face checkpoint becomes a `.trit` bundle.
#![deny(unsafe_code)]

mod arch;
pub mod bundle;
pub mod compile;
pub mod error;
pub mod ingest;
pub mod lower;
pub mod model;
pub mod pack;
mod quantize;
pub mod reference;

pub use error::CompileError;
