//! `trit-run completions` and `trit-run man`: what shells and `man` want to know, made from the command line itself.

use crate::args::{Cli, Completions, Man};
use crate::failure::{Failure, print};
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints a shell's completion script.
pub fn completions(args: &Completions) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trit-run", &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a manual page.
pub fn man(args: &Man) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    // Gives subcommands their whole names.
    command.build();
    if let Some(name) = &args.command {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| Failure::usage(format_args!("trit-run has no command {name}")))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::internal)?;
    print(String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
