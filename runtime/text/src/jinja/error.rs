//! What can go wrong with a template, and on which line.

use std::fmt;

/// Either half of every step of parsing and rendering.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a template was refused or stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    /// Counted from 1; `None` until the parser or the evaluator knows it.
    pub line: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Jinja2 refuses the source too.
    Syntax,
    /// Jinja2 would render it, this program does not.
    Unsupported,
    /// Jinja2 raises here too, or the template itself refuses the conversation.
    Failed,
    /// The rendering is too large or takes too long.
    Budget,
    /// The user asked to stop.
    Interrupted,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), line: None }
    }

    pub fn at(mut self, line: u32) -> Error {
        self.line.get_or_insert(line);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Syntax => write!(f, "syntax error: {}", self.message)?,
            Kind::Unsupported => write!(f, "not supported: {}", self.message)?,
            Kind::Failed | Kind::Budget | Kind::Interrupted => f.write_str(&self.message)?,
        }
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// What Python raises as `TypeError`, `ValueError` and the like.
pub fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Failed, message))
}

/// What Python would do and this engine does not.
pub fn unsupported<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Unsupported, message))
}
