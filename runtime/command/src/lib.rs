//! What the commands `tritc` and `trit-run` share. Libraries do not use this crate.
//!
//! A process has one handler for each signal and one hook for panics, so whoever sets them decides for the whole
//! process. Only a command may do that. Each function here that changes the process says so, does nothing until it is
//! called, and keeps its state in this crate. The libraries know nothing of it: they take a list of unfinished files
//! ([`trit_text::output::Unfinished`]) or a function to call when a file is mapped, and a program may give them neither.
//!
//! | module | does | changes the process |
//! |---|---|---|
//! | [`signals`] | removes unfinished files when the process is told to end | takes SIGTERM, SIGHUP and, if asked, SIGINT |
//! | [`truncation`] | names a mapped file that was cut off | takes SIGBUS |
//! | [`panics`] | prints panics so that a terminal only shows them | sets the panic hook |
//! | [`names`] | what a user types for the two commands | keeps the names that a program sets |
//! | [`remedy`] | says with which option an output file can be chosen | no |
//! | [`scripts`] | completion scripts and manual pages | no |
//! | [`version`] | the text of `--version` | no |
//!
//! `unsafe` stands in 1 file: `truncation.rs`, which sets the handler of SIGBUS. The others deny it.
#![deny(unsafe_code)]

pub mod names;
pub mod panics;
pub mod remedy;
pub mod scripts;
pub mod signals;
pub mod truncation;
pub mod version;
