//! The guide of an answer and what it allows in the rows of one pass.

use super::guide::{Guide, TokenSet};
use crate::{LogitsRequest, RuntimeError};
use std::sync::Arc;

/// A guide, or none, with the tokens that may be chosen after each row of a pass.
pub(crate) struct Guided {
    guide: Option<Box<dyn Guide>>,
    /// One set for each row; `None` allows every token.
    allowed: Vec<Option<Arc<TokenSet>>>,
}

impl Guided {
    /// Before the first pass.
    pub fn new(guide: Option<Box<dyn Guide>>) -> Guided {
        Guided { guide, allowed: Vec::new() }
    }

    /// Finds what may follow the text so far, and each of the tokens `drafted` after it. Drafts that may not come are
    /// dropped.
    ///
    /// # Errors
    /// [`RuntimeError::Guide`].
    pub fn look_ahead(&mut self, drafted: &mut Vec<u32>) -> Result<(), RuntimeError> {
        self.allowed.clear();
        match &mut self.guide {
            None => self.allowed.resize(1 + drafted.len(), None),
            Some(guide) => {
                let sets = guide.allowed_along(drafted)?;
                drafted.truncate(sets.len().saturating_sub(1));
                self.allowed.extend(sets.into_iter().map(|set| Some(Arc::new(set))));
            }
        }
        Ok(())
    }

    /// What is asked of the logits after each row of the pass, where `request` is asked without a guide.
    pub fn asks(&self, request: LogitsRequest) -> Vec<LogitsRequest> {
        let among = |set: &Option<Arc<TokenSet>>| match set {
            Some(set) => request.clone().among(set),
            None => request.clone(),
        };
        self.allowed.iter().map(among).collect()
    }

    /// What may be chosen after a row; `None` allows every token.
    pub fn allowed(&self, row: usize) -> Option<&TokenSet> {
        self.allowed.get(row)?.as_deref()
    }

    /// Whether nothing may follow a row, so that the answer ends.
    pub fn ends(&self, row: usize) -> bool {
        self.allowed(row).is_some_and(TokenSet::is_empty)
    }

    /// Tells the guide which token was chosen.
    ///
    /// # Errors
    /// [`RuntimeError::Guide`].
    pub fn accept(&mut self, id: u32) -> Result<(), RuntimeError> {
        Ok(self.guide.as_mut().map_or(Ok(()), |guide| guide.accept(id))?)
    }
}
