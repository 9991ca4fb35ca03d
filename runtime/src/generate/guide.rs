//! Guides: what may be said next, decided by something else than the model, such as a grammar.

pub use crate::engine::TokenSet;

use std::fmt;

/// Says which tokens may follow an answer so far. One guide accompanies one answer, and is told every token of it.
pub trait Guide: Send {
    /// The tokens that may come next. Stop ids are among them where the answer may end here. Where none may come, the
    /// answer ends.
    ///
    /// # Errors
    /// [`GuideError`] where the guide gave up, for instance because a grammar became too large.
    fn allowed(&mut self) -> Result<TokenSet, GuideError>;

    /// The tokens that may come next, and those that may come after each of `drafted`, tokens that may follow. There are
    /// fewer sets than that where a draft is not allowed, or is the end: those before it count, and at least the first set
    /// is there. Nothing is accepted. A guide that cannot look ahead gives the first set alone.
    ///
    /// # Errors
    /// As [`Guide::allowed`].
    fn allowed_along(&mut self, drafted: &[u32]) -> Result<Vec<TokenSet>, GuideError> {
        let _ = drafted;
        Ok(vec![self.allowed()?])
    }

    /// Takes the next token, which is one of those that are allowed.
    ///
    /// # Errors
    /// As [`Guide::allowed`].
    fn accept(&mut self, id: u32) -> Result<(), GuideError>;
}

/// Why a guide gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuideError(pub String);

impl fmt::Display for GuideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GuideError {}
