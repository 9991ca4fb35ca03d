//! Turns text into token ids, and token ids into text. What a model's files say about text is hostile until it is checked
//! here. The compiler checks it when it makes a bundle, and the runtime checks it again when it needs text. What both
//! commands write in the same way stands here too.
//!
//! This crate changes nothing of the process it runs in: it takes no signals, sets no panic hook, ends nothing and prints
//! nothing. Its errors name no command's options. Where the tokenizers library panics, the error says so; a program that
//! does not want to see the panic itself asks [`panic_is_expected`] in its own hook.
//!
//! | module | does |
//! |---|---|
//! | [`tokenizer`] | `tokenizer.json` to ids and back |
//! | `file`, `limits` | what a `tokenizer.json` must be before the tokenizers library sees it |
//! | `assemble`, `guard` | that library's objects, and what becomes of its panics |
//! | `coverage` | how few tokens a text can have |
//! | [`detokenizer`] | ids to text while they are generated, never splitting a character |
//! | `stages`, `letters` | a decoder, token by token |
//! | [`stop`] | texts at which a generation ends |
//! | [`answer_text`] | an answer's tokens to its text, up to such a text |
//! | [`template`] | a conversation to the prompt the model was trained on |
//! | [`conversation`] | what was said, and how much of it a context holds |
//! | [`output`] | which files a command may replace, and files that appear whole or not at all |
//! | [`causes`] | errors with what caused them |
//! | [`printable`] | what files and models say, so that a terminal only shows it |

#![forbid(unsafe_code)]

pub mod answer_text;
mod assemble;
pub mod causes;
pub mod conversation;
mod coverage;
pub mod detokenizer;
mod file;
mod guard;
mod jinja;
mod letters;
mod limits;
pub mod output;
pub mod printable;
mod stages;
pub mod stop;
pub mod template;
pub mod tokenizer;

pub use answer_text::AnswerText;
pub use conversation::Conversation;
pub use detokenizer::Detokenizer;
pub use guard::panic_is_expected;
pub use template::{ChatTemplate, Message, TemplateInput};
pub use tokenizer::Tokenizer;

/// Why text could not become tokens, or tokens text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The bytes are no `tokenizer.json` that this program understands.
    #[error("tokenizer.json cannot be used: {0}")]
    Tokenizer(String),
    /// The tokenizer could not split a text.
    #[error("text cannot be tokenized: {0}")]
    Encode(String),
    /// The text has more tokens than there may be.
    #[error("the text has at least {at_least} tokens, and the context has room for {limit}")]
    TooLong {
        /// It has at least this many tokens, and often more.
        at_least: usize,
        /// It may have this many tokens, which is most often the context.
        limit: usize,
    },
    /// The tokenizer could not join tokens.
    #[error("tokens cannot be turned into text: {0}")]
    Decode(String),
    /// The chat template has an error, or refused the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// The user asked to stop while the chat template was rendered.
    #[error("interrupted")]
    Interrupted,
}
