//! The `tritc` command: compiles checkpoints to bundles, and looks into bundles.
//!
//! `unsafe` stands in 1 file: `allocator.rs` (an allocator). The others deny it.
#![deny(unsafe_code)]

mod allocator;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::EndsWhereMemoryEnds = allocator::EndsWhereMemoryEnds;

fn main() -> ExitCode {
    tritc_cli::own_process();
    ExitCode::from(tritc_cli::run_command(std::env::args_os()))
}
