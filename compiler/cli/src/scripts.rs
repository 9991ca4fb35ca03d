//! `tritc completions` and `tritc man`: what shells and `man` want to know, made from the command line itself.

use crate::arguments::Arguments;
use crate::failure::CommandError;
use clap::CommandFactory;

/// A shell's completion script.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tritc", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// A manual page: of a command, or of the whole.
///
/// # Errors
/// [`CommandError::Usage`] where there is no such command.
pub fn man(name: Option<&str>) -> Result<String, CommandError> {
    let mut command = Arguments::command();
    // Gives subcommands their whole names.
    command.build();
    if let Some(name) = name {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| CommandError::Usage(format!("tritc has no command {name}")))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|e| CommandError::Internal(e.to_string()))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
