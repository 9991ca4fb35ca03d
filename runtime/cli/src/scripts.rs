//! `trit-run completions` and `trit-run man`: what shells and `man` want to know, made from the command line itself.

use crate::args::{Completions, Man};
use crate::failure::{DONE, Failure, print};
use trit_command::names::names;
use trit_command::scripts;

/// Prints a shell's completion script.
pub fn completions(args: &Completions) -> Result<u8, Failure> {
    print(scripts::completions(crate::command(), args.shell))?;
    Ok(DONE)
}

/// Prints a manual page.
pub fn man(args: &Man) -> Result<u8, Failure> {
    let name = args.command.as_deref();
    let missing = || {
        let runtime = names().runtime;
        Failure::usage(format_args!("{runtime} has no command {}", name.unwrap_or_default()))
    };
    let page = scripts::man(crate::command(), name).ok_or_else(missing)?;
    print(page.map_err(Failure::internal)?)?;
    Ok(DONE)
}
