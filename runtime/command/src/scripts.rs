//! Completion scripts and manual pages, made from a command's own definition.

use std::io;

pub use clap_complete::Shell;

/// The completion script of `command` for a shell.
pub fn completions(mut command: clap::Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of `command`, or of its subcommand `name`; `None` where it has no such subcommand.
///
/// # Errors
/// What the renderer says, which is a defect.
pub fn man(mut command: clap::Command, name: Option<&str>) -> Option<io::Result<String>> {
    // Gives subcommands their whole names.
    command.build();
    let program = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    if let Some(name) = name {
        command = command.find_subcommand(name)?.clone();
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).source(program).render(&mut page);
    Some(rendered.map(|()| String::from_utf8_lossy(&page).into_owned()))
}
