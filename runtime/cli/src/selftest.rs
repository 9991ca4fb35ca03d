//! `trit-run selftest`: does this machine compute what the bundle says it should?

use crate::args::Selftest;
use crate::failure::{DONE, Failure, print_lines};
use crate::open;

/// Checks kernels against the reference, and the bundle's known results.
pub fn run(args: &Selftest) -> Result<u8, Failure> {
    let model = open::model(&args.bundle, &args.session.load, false)?;
    let report = model.selftest(args.session.threads.map(usize::from), args.session.load.kv);
    let report = report.map_err(|e| Failure::runtime(&args.bundle, e))?;
    print_lines(format_args!("{report}\n"))?;
    match report.failures.len() {
        0 => Ok(DONE),
        n => Err(Failure::internal(format_args!("{}: {n} of the checks failed", args.bundle.display()))),
    }
}
