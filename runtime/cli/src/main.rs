//! `trit-run`: runs `.trit` bundles.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    trit_run::own_process();
    ExitCode::from(trit_run::run_command(std::env::args_os()))
}
