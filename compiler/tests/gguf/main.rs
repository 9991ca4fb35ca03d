//! Reading GGUF files: what is understood, one test for each refusal with its message, and damage of every kind.
//!
//! Files are written here, byte by byte. `tests/tests/gguf.rs` reads files that the `gguf` package of llama.cpp wrote.

mod blocks;
mod damage;
mod files;
mod hostile;
mod models;
mod text;
mod writer;
