//! What single tokens stand for.

use crate::chat::TokenText;
use crate::error::ApiError;
use trit_runtime::text::{TextError, Tokenizer};

/// The text of a token as it stands inside of a text.
///
/// A decoder may treat the first token of a text in its own way, such as dropping its space, so a token is decoded after
/// another one.
///
/// # Errors
/// Where the tokenizer's decoder fails.
pub fn text_of(tokenizer: &Tokenizer, id: u32) -> Result<TokenText, ApiError> {
    let failed = |e: TextError| ApiError::internal(e.to_string());
    let decode = |ids: &[u32]| tokenizer.decode(ids, false).map_err(failed);
    let before = tokenizer.encode("a", false).ok().filter(|ids| ids.len() == 1);
    let text = match before.as_deref() {
        Some(&[before]) => {
            let both = decode(&[before, id])?;
            match both.strip_prefix(&decode(&[before])?) {
                Some(text) => text.to_owned(),
                None => decode(&[id])?,
            }
        }
        _ => decode(&[id])?,
    };
    let bytes = tokenizer.bytes_of(id).unwrap_or_else(|| text.clone().into_bytes());
    Ok(TokenText { id, text, bytes })
}
