//! The text of an answer while it is generated: tokens enter, text leaves that no later token changes, and it ends where a
//! text to stop at begins.

use crate::stop::StopTexts;
use crate::{Detokenizer, TextError, Tokenizer};
use std::sync::Arc;

/// Follows one answer.
#[derive(Default)]
pub struct AnswerText {
    /// None without a tokenizer.
    decoded: Option<(Arc<Tokenizer>, Detokenizer<Arc<Tokenizer>>)>,
    stops: StopTexts,
}

impl AnswerText {
    /// Of an answer to a prompt of these tokens, which ends where one of the texts in `stop` would begin. Without a tokenizer
    /// tokens give no text.
    pub fn after(tokenizer: Option<Arc<Tokenizer>>, prompt: &[u32], stop: &[String]) -> AnswerText {
        let decoded = tokenizer.map(|tokenizer| {
            let stream = Detokenizer::after(tokenizer.clone(), prompt);
            (tokenizer, stream)
        });
        AnswerText { decoded, stops: StopTexts::new(stop) }
    }

    /// Takes the next token. Gives the text that became certain, and the token's own text where it is a special token that
    /// `is_mark` knows, which stands behind that text. Where a text to stop at was found there is no mark any more.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn push(
        &mut self,
        id: u32,
        is_mark: impl FnOnce(&str) -> bool,
    ) -> Result<(String, Option<String>), TextError> {
        let Some((tokenizer, stream)) = &mut self.decoded else { return Ok((String::new(), None)) };
        let mut piece = stream.push(id)?;
        let special = tokenizer.is_special(id).then(|| tokenizer.token_of(id)).flatten();
        let mark = special.filter(|token| is_mark(token));
        if mark.is_some() {
            // What was held back stands before the mark.
            piece.push_str(&stream.finish()?);
        }
        let mut text = self.stops.push(&piece);
        if self.stops.found() {
            return Ok((text, None));
        }
        if mark.is_some() {
            text.push_str(&self.stops.finish());
        }
        Ok((text, mark))
    }

    /// Takes a piece of text, where tokens have none of their own.
    pub fn push_text(&mut self, piece: &str) -> String {
        self.stops.push(piece)
    }

    /// The text that is left: no token comes any more.
    ///
    /// # Errors
    /// As [`Detokenizer::finish`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        let rest = self.decoded.as_mut().map_or(Ok(String::new()), |(_, stream)| stream.finish())?;
        let mut text = self.stops.push(&rest);
        text.push_str(&self.stops.finish());
        Ok(text)
    }

    /// The text to stop at that was found. Nothing is given out after that.
    pub fn stopped_at(&self) -> Option<&str> {
        self.stops.found_text()
    }

    /// What of a whole answer stands before the first text to stop at.
    pub fn before_stop<'a>(&self, whole: &'a str) -> &'a str {
        self.stops.before(whole)
    }
}
