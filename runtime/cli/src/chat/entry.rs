//! Lines typed or pasted on a terminal become entries: what the user sends at once, perhaps of several lines.
//!
//! Lines that arrive while the model writes wait in the terminal, and those that were read together with an earlier
//! one in the editor's buffer: none is thrown away.

use super::command::{self, NAMES};
use super::history;
use crate::failure::{Failure, note};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::PathBuf;

const PROMPT: &str = "> ";

/// What the user did.
pub enum Entry {
    /// Sent this.
    Lines(String),
    /// Pressed Ctrl-C.
    Interrupted,
    /// Pressed Ctrl-D, or hung up.
    End,
}

/// Where entries come from.
pub struct Terminal {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    /// Takes the terminal, and reads the history unless that is not wanted.
    ///
    /// # Errors
    /// An internal failure where the terminal cannot be used.
    pub fn new(with_history: bool) -> Result<Terminal, Failure> {
        let config = Config::builder().completion_type(CompletionType::List);
        let config = config.max_history_size(history::ENTRIES).map_err(failed)?.build();
        let mut editor = Editor::with_history(config, FileHistory::new()).map_err(failed)?;
        editor.set_helper(Some(Assistant::default()));
        let history = if with_history { history::open(&mut editor) } else { None };
        Ok(Terminal { editor, history })
    }

    /// Waits for an entry.
    ///
    /// # Errors
    /// An internal failure where the terminal cannot be used any more.
    pub fn entry(&mut self) -> Result<Entry, Failure> {
        let mut typed = (String::new(), String::new());
        loop {
            let read = self.editor.readline_with_initial(PROMPT, (&typed.0, &typed.1));
            let assistant = self.editor.helper().map(Assistant::take).unwrap_or_default();
            match read {
                Ok(line) => {
                    let lines = joined(&line, &assistant.continued);
                    history::add(&mut self.editor, self.history.as_deref(), &line);
                    return Ok(Entry::Lines(lines));
                }
                Err(ReadlineError::Eof) => return Ok(Entry::End),
                Err(ReadlineError::Interrupted) => return Ok(Entry::Interrupted),
                // The line goes on without them.
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                    note("bytes that are no UTF-8 were left out, with what was pasted after them");
                    typed = assistant.typed();
                }
                // The window has another size, which the next line will see.
                Err(ReadlineError::Signal(_)) => typed = assistant.typed(),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::internal(format_args!("terminal: {error}"))
}

/// An entry without the marks that said that a line goes on: only on lines where that was asked for by Enter. What was
/// pasted stays as it is.
fn joined(entry: &str, continued: &[String]) -> String {
    let mut lines: Vec<&str> = entry.split('\n').collect();
    let before = lines.len() - 1;
    for line in &mut lines[..before] {
        if continued.iter().any(|c| c == line) {
            *line = line.strip_suffix('\\').unwrap_or(line);
        }
    }
    lines.join("\n")
}

/// Whether a line says that it goes on: with a backslash that is not itself meant by another.
fn goes_on(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// What the editor asks while a line is edited.
#[derive(Default)]
struct Assistant(RefCell<Seen>);

/// What the assistant has seen of a line.
#[derive(Default)]
struct Seen {
    line: String,
    cursor: usize,
    /// Lines after which Enter began another one, because they go on.
    continued: Vec<String>,
}

impl Assistant {
    fn take(&self) -> Seen {
        self.0.take()
    }
}

impl Seen {
    /// What stood before and after the cursor.
    fn typed(&self) -> (String, String) {
        let (before, after) = self.line.split_at_checked(self.cursor).unwrap_or((&self.line, ""));
        (before.to_owned(), after.to_owned())
    }
}

impl Helper for Assistant {}

impl Highlighter for Assistant {}

impl Hinter for Assistant {
    type Hint = String;

    /// Gives no hint, but is told every change of the line, which an error of the terminal would lose.
    fn hint(&self, line: &str, cursor: usize, _: &Context) -> Option<String> {
        let mut seen = self.0.borrow_mut();
        line.clone_into(&mut seen.line);
        seen.cursor = cursor;
        None
    }
}

impl Completer for Assistant {
    type Candidate = String;

    /// Tab completes a command; elsewhere it is a tab, as in program text that is pasted while the model writes.
    fn complete(&self, line: &str, cursor: usize, _: &Context) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..cursor];
        if before.is_empty() || !before.starts_with('/') || before.contains(char::is_whitespace) {
            return Ok((cursor, vec!["\t".into()]));
        }
        Ok((0, NAMES.iter().filter(|name| name.starts_with(before)).map(|&name| name.to_owned()).collect()))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let entry = context.input();
        if command::is_open(entry) {
            return Ok(ValidationResult::Incomplete);
        }
        let last = entry.rsplit('\n').next().unwrap_or(entry);
        if entry.starts_with(command::QUOTES) || !goes_on(last) {
            return Ok(ValidationResult::Valid(None));
        }
        self.0.borrow_mut().continued.push(last.to_owned());
        Ok(ValidationResult::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_at_the_end_goes_on_but_not_a_pasted_one() {
        let continued = ["one \\".to_owned()];
        assert_eq!(joined("one \\\ntwo", &continued), "one \ntwo");
        assert_eq!(joined("cc \\\n  x.c\none \\", &continued), "cc \\\n  x.c\none \\");
        assert_eq!(joined("", &[]), "");
        assert!(goes_on("a\\") && goes_on("\\\\\\") && !goes_on("a\\\\") && !goes_on("a") && !goes_on("\\ "));
    }

    #[test]
    fn what_stood_on_the_line_can_be_typed_again() {
        let seen = |line: &str, cursor| Seen { line: line.into(), cursor, continued: vec![] }.typed();
        assert_eq!(seen("naïve", 4), ("naï".into(), "ve".into()));
        assert_eq!(seen("naïve", 3), ("naïve".into(), "".into()), "inside a character");
        assert_eq!(seen("a", 7), ("a".into(), "".into()));
    }
}
