//! Reading checkpoints: what is understood, and one test for each refusal with its message.

mod checkpoint;
mod config;
mod detect;
mod families;
mod files;
mod fixtures;
mod folders;
mod mlx;
mod mlx_tables;
mod published;
mod pytorch;
mod storage;
mod survey;
mod text;

/// The command's words for errors and warnings, so that messages are tested as users see them.
#[path = "../../cli/src/words.rs"]
mod words;

/// Warnings as the command prints them, a line each.
fn warned(warnings: &[tritc::Warning]) -> String {
    warnings.iter().map(words::warning).collect::<Vec<_>>().join("\n")
}
