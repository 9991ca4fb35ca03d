//! The `tritc` command, run as a user runs it.

mod commands;
mod memory;
mod terminal;

use std::path::Path;

/// The root of the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
