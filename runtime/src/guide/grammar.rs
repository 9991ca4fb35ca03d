//! What an answer may be made to follow, in the words of clients, and as llguidance takes it.

use crate::generate::guide::GuideError;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

/// Most bytes of a regular expression, or of all texts to choose from.
const MOST_TEXT: usize = 64 << 10;
/// Most bytes of a grammar. One that calls tools holds their schemas.
const MOST_GRAMMAR: usize = 256 << 10;
/// Most bytes of a schema, written without spaces.
const MOST_SCHEMA: usize = 512 << 10;
/// Whitespace between the parts of a JSON text: one space, or a new line with its indentation. Without a bound, a model
/// that is not sure how to go on may go on with whitespace for ever.
const WHITESPACE: &str = "[ \\t]|\\r?\\n[ \\t]{0,40}";

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// A JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// A text that matches this regular expression as a whole.
    Regex(String),
    /// A text of this grammar, in llguidance's variant of Lark's notation. It begins with the rule `start`.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl Grammar {
    /// What llguidance makes a parser of. `special` gives the id of a special token.
    ///
    /// # Errors
    /// Where it is empty or too large.
    pub(super) fn source(
        &self,
        after: Option<&str>,
        special: impl Fn(&str) -> Option<u32>,
    ) -> Result<TopLevelGrammar, GuideError> {
        let mut body = self.body()?;
        let Some(after) = after.filter(|after| !after.is_empty()) else {
            return Ok(TopLevelGrammar::from_grammar(body));
        };
        bounded("the text before an answer", after.len(), MOST_TEXT)?;
        let opening = match special(after) {
            Some(id) => format!("opening: TEXT? <[{id}]>\nTEXT: /(?s:.+)/"),
            None => format!("opening[suffix={}]: /(?s:.*)/", quoted(after)),
        };
        let start = format!("start: opening SPACE? @body\nSPACE: /[ \\t\\r\\n]{{1,8}}/\n{opening}\n");
        body.name = Some("body".to_owned());
        Ok(TopLevelGrammar { grammars: vec![GrammarWithLexer::from_lark(start), body], max_tokens: None })
    }

    fn body(&self) -> Result<GrammarWithLexer, GuideError> {
        match self {
            Grammar::JsonObject => schema(&json!({"type": "object"})),
            Grammar::JsonSchema(value) => schema(value),
            Grammar::Regex(regex) => {
                filled("the regular expression", regex.len(), MOST_TEXT)?;
                Ok(GrammarWithLexer::from_regex(regex))
            }
            Grammar::Lark(grammar) => {
                filled("the grammar", grammar.len(), MOST_GRAMMAR)?;
                Ok(GrammarWithLexer::from_lark(grammar.clone()))
            }
            Grammar::Choice(texts) => {
                filled("the list of texts to choose from", texts.len(), MOST_TEXT)?;
                let bytes = texts.iter().map(|text| text.len() + 1).sum();
                bounded("the list of texts to choose from", bytes, MOST_TEXT)?;
                let texts: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
                Ok(GrammarWithLexer::from_regex(&format!("(?:{})", texts.join("|"))))
            }
        }
    }
}

fn schema(value: &Value) -> Result<GrammarWithLexer, GuideError> {
    let mut value = value.clone();
    bounded("the schema", value.to_string().len(), MOST_SCHEMA)?;
    match &mut value {
        Value::Bool(_) => {}
        Value::Object(_) => bound_whitespace(&mut value),
        other => {
            return Err(GuideError(format!("the schema is {other}, expected an object, true or false")));
        }
    }
    Ok(GrammarWithLexer::from_json_schema(value))
}

/// Bounds the whitespace between the parts of JSON that fits a schema, unless the schema says itself how its texts are
/// written, in `x-guidance`. This is for schemas inside of grammars; those of [`Grammar::JsonSchema`] need it not.
pub fn bound_whitespace(schema: &mut Value) {
    if let Value::Object(schema) = schema {
        let written = schema.entry("x-guidance").or_insert_with(|| json!({}));
        if let Value::Object(written) = written
            && !written.contains_key("whitespace_flexible")
        {
            written.entry("whitespace_pattern").or_insert_with(|| WHITESPACE.into());
        }
    }
}

fn filled(what: &str, len: usize, most: usize) -> Result<(), GuideError> {
    match len {
        0 => Err(GuideError(format!("{what} is empty"))),
        _ => bounded(what, len, most),
    }
}

fn bounded(what: &str, len: usize, most: usize) -> Result<(), GuideError> {
    match len {
        len if len > most => Err(GuideError(format!("{what} has {len} bytes, expected no more than {most}"))),
        _ => Ok(()),
    }
}

/// A text as a string of Lark's notation.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A regular expression that matches this text alone.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation()
            && !matches!(c, '<' | '>' | '_' | '"' | '\'' | ',' | ':' | ';' | '=' | '/')
        {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
