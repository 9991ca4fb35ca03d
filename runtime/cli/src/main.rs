//! `trit-run`: runs `.trit` bundles.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use trit_runtime::format::program::{STUB_MARK_BYTES, stub_mark};

/// Says to `tritc` that a bundle may be put after this executable.
#[used]
static STUB: [u8; STUB_MARK_BYTES] = stub_mark();

fn main() -> ExitCode {
    ExitCode::from(trit_run::run_program(std::env::args_os()))
}
