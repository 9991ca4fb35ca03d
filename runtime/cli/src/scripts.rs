//! `trit-run completions` and `trit-run man`: what shells and `man` want to know, made from the command line itself.

use crate::args::{Cli, Completions, Man};
use crate::failure::{Failure, print};
use clap::CommandFactory;
use std::process::ExitCode;
use trit_command::scripts;

/// Prints a shell's completion script.
pub fn completions(args: &Completions) -> Result<ExitCode, Failure> {
    print(scripts::completions(Cli::command(), args.shell))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a manual page.
pub fn man(args: &Man) -> Result<ExitCode, Failure> {
    let name = args.command.as_deref();
    let missing = || Failure::usage(format_args!("trit-run has no command {}", name.unwrap_or_default()));
    let page = scripts::man(Cli::command(), name).ok_or_else(missing)?;
    print(page.map_err(Failure::internal)?)?;
    Ok(ExitCode::SUCCESS)
}
