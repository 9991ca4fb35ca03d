//! `tritc completions` and `tritc man`: what shells and `man` want to know, made from the command line itself.

use crate::failure::CommandError;
use trit_command::names::names;
use trit_command::scripts;

/// A shell's completion script.
pub fn completions(shell: scripts::Shell) -> String {
    scripts::completions(crate::command(), shell)
}

/// A manual page: of a command, or of the whole.
///
/// # Errors
/// [`CommandError::Usage`] where there is no such command.
pub fn man(name: Option<&str>) -> Result<String, CommandError> {
    let missing =
        || CommandError::Usage(format!("{} has no command {}", names().compiler, name.unwrap_or_default()));
    let page = scripts::man(crate::command(), name).ok_or_else(missing)?;
    page.map_err(|e| CommandError::Internal(e.to_string()))
}
