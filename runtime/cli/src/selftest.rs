//! `trit-run selftest`: does this machine compute what the bundle says it should?

use crate::args::Selftest;
use crate::failure::{Failure, print_lines};
use crate::open;
use std::process::ExitCode;

/// Checks kernels against the reference, and the bundle's known results.
pub fn run(args: &Selftest) -> Result<ExitCode, Failure> {
    let model = open::model(&args.bundle, &args.session.load, false)?;
    let report = model.selftest(args.session.threads.map(usize::from), args.session.load.kv);
    let report = report.map_err(|e| Failure::runtime(&args.bundle, e))?;
    print_lines(format_args!("{report}\n"))?;
    match report.failures.len() {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(Failure::internal(format_args!("{}: {n} of the checks failed", args.bundle.display()))),
    }
}
