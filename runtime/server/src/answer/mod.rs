//! The parts of an answer: what the model thought, what it said, and the tools that it called.
//!
//! | module | holds |
//! |---|---|
//! | `form` | how a model writes thoughts and calls, found out from its chat template |
//! | `history` | messages and tools as the template expects them |
//! | `grammar` | grammars for answers that must call tools |
//! | `splitter` | text to parts, while it comes |
//! | `call`, `json` | calls written as JSON |
//! | `xml`, `schema` | calls written in tags, whose values the tool's schema tells apart |

mod call;
mod form;
mod grammar;
mod history;
mod json;
mod schema;
mod splitter;
mod tools;
mod xml;

pub use form::Form;
pub use history::ForTemplate;
pub use splitter::Splitter;

use crate::chat::{Messages, ToolChoice};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

impl Form {
    /// What splits an answer to `messages`, of which the template made `prompt`.
    pub fn splitter(&self, messages: &Messages, prompt: &str) -> Splitter {
        let offered = messages.tool_choice != ToolChoice::Never;
        let tools = tools::Tools::new(if offered { &messages.tools } else { &[] });
        Splitter::with(self, tools, self.opens_thought(prompt), unique("call_"))
    }
}

/// A name that begins with `kind` and that nothing else has. It can be guessed.
pub(crate) fn unique(kind: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(COUNT.fetch_add(1, Relaxed));
    format!("{kind}{random:016x}")
}

#[cfg(test)]
mod tests;
