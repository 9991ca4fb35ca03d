//! What single tokens stand for.

use crate::chat::TokenText;
use crate::error::ApiError;
use std::sync::Arc;
use trit_runtime::text::{TextError, Tokenizer};

/// Gives the text of tokens as it stands inside of a text.
///
/// A decoder may treat the first token of a text in its own way, such as dropping its space, so a token is decoded after
/// another one.
pub struct TokenTexts {
    tokenizer: Arc<Tokenizer>,
    /// The other token, and its text.
    before: Option<(u32, String)>,
}

impl TokenTexts {
    /// The texts of a tokenizer's tokens.
    pub fn new(tokenizer: Arc<Tokenizer>) -> TokenTexts {
        let ids = tokenizer.encode("a", false).unwrap_or_default();
        let before = match ids[..] {
            [id] => tokenizer.decode(&[id], false).ok().map(|text| (id, text)),
            _ => None,
        };
        TokenTexts { tokenizer, before }
    }

    /// A token's text.
    ///
    /// # Errors
    /// Where the tokenizer's decoder fails.
    pub fn of(&self, id: u32) -> Result<TokenText, ApiError> {
        let failed = |e: TextError| ApiError::internal(e.to_string());
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).map_err(failed);
        let after = match &self.before {
            Some((before, alone)) => decode(&[*before, id])?.strip_prefix(alone.as_str()).map(str::to_owned),
            None => None,
        };
        let text = match after {
            Some(text) => text,
            None => decode(&[id])?,
        };
        let bytes = self.tokenizer.bytes_of(id).unwrap_or_else(|| text.clone().into_bytes());
        Ok(TokenText { id, text, bytes })
    }
}
