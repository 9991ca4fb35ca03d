//! Text becomes token ids, and token ids become text again. What a model's files say about text is hostile until it is
//! checked here: the compiler checks it while it makes a bundle, the runtime again when it needs text. What their commands
//! have in common stands here too.
//!
//! | module | does |
//! |---|---|
//! | [`tokenizer`] | `tokenizer.json` to ids and back |
//! | [`detokenizer`] | ids to text while they are generated, never splitting a character |
//! | [`template`] | a conversation to the prompt the model was trained on |
//! | [`conversation`] | what was said, and how much of it a context holds |
//! | [`output`] | which files a command may replace, and files that appear whole or not at all |
//! | [`printable`] | what files and models say, so that a terminal only shows it |

#![forbid(unsafe_code)]

pub mod conversation;
pub mod detokenizer;
mod jinja;
pub mod output;
pub mod printable;
pub mod template;
pub mod tokenizer;

pub use conversation::Conversation;
pub use detokenizer::Detokenizer;
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
    /// The tokenizer could not join tokens.
    #[error("tokens cannot be turned into text: {0}")]
    Decode(String),
    /// The chat template has an error, or refused the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// A question leaves no room in the context.
    #[error("{tokens} tokens leave no room for an answer in the context of {context}")]
    TooLong {
        /// Tokens of the shortest prompt that has the question.
        tokens: usize,
        /// Tokens there is room for, of prompt and answer.
        context: usize,
    },
    /// The user asked to stop while the chat template was rendered.
    #[error("interrupted")]
    Interrupted,
}
