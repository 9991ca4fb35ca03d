//! Reading GGUF files: what is understood, one test for each refusal with its message, and damage of every kind.
//!
//! Files are written here, byte by byte. `tests/tests/gguf.rs` reads files that the `gguf` package of llama.cpp wrote.

mod blocks;
mod damage;
mod embedding;
mod files;
mod hostile;
mod hunyuan;
mod hybrid;
mod i2s;
mod models;
mod refusals;
mod text;
mod writer;

/// The command's words for errors and warnings, so that messages are tested as users see them.
#[path = "../../cli/src/words.rs"]
mod words;

/// Warnings as the command prints them, a line each.
fn warned(warnings: &[tritc::Warning]) -> String {
    warnings.iter().map(words::warning).collect::<Vec<_>>().join("\n")
}
