//! The parts of an answer: what the model thought, what it said, and the tools that it called.

use crate::chat::Messages;

/// A part of an answer, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// More of what the model thinks.
    Reasoning(String),
    /// More of what it says.
    Text(String),
    /// A call of a tool begins.
    ToolCall {
        /// Which call of the answer, from 0.
        index: usize,
        /// Names the call.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of the arguments of a call.
    ToolArguments {
        /// Which call of the answer.
        index: usize,
        /// A piece of their JSON.
        json: String,
    },
}

/// Splits the text of an answer into its parts while it is generated.
#[derive(Debug, Default)]
pub struct Splitter {}

impl Splitter {
    /// For an answer to `messages`, of which the chat template `template` made `prompt`.
    pub fn new(template: &str, messages: &Messages, prompt: &str) -> Splitter {
        let _ = (template, messages, prompt);
        Splitter {}
    }

    /// For an answer that is text alone.
    pub fn plain() -> Splitter {
        Splitter {}
    }

    /// Takes more of the text, and gives the parts that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        match text {
            "" => Vec::new(),
            text => vec![Part::Text(text.to_owned())],
        }
    }

    /// Takes a special token, which gives no text, as the vocabulary spells it.
    pub fn push_special(&mut self, token: &str) -> Vec<Part> {
        let _ = token;
        Vec::new()
    }

    /// Gives the parts that are left: nothing more comes.
    pub fn finish(&mut self) -> Vec<Part> {
        Vec::new()
    }
}
