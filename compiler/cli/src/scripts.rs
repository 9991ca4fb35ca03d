//! `tritc completions` and `tritc man`: what shells and `man` want to know, made from the command line itself.

use crate::arguments::Arguments;
use crate::failure::CommandError;
use clap::CommandFactory;
use trit_command::scripts;

/// A shell's completion script.
pub fn completions(shell: scripts::Shell) -> String {
    scripts::completions(Arguments::command(), shell)
}

/// A manual page: of a command, or of the whole.
///
/// # Errors
/// [`CommandError::Usage`] where there is no such command.
pub fn man(name: Option<&str>) -> Result<String, CommandError> {
    let missing = || CommandError::Usage(format!("tritc has no command {}", name.unwrap_or_default()));
    let page = scripts::man(Arguments::command(), name).ok_or_else(missing)?;
    page.map_err(|e| CommandError::Internal(e.to_string()))
}
