//! An answer as blocks, in the order in which they came.

use crate::answer::Part;
use serde_json::{Value, json};

/// What stands where thoughts have a signature. Nobody checks thoughts here, and clients send back what they got.
pub(super) const SIGNATURE: &str = "unsigned";

/// The blocks of an answer.
pub(super) struct Blocks {
    hides_thoughts: bool,
    all: Vec<Block>,
}

enum Block {
    Thinking(String),
    Text(String),
    ToolUse { id: String, name: String, arguments: String },
}

impl Blocks {
    /// No blocks yet. `hides_thoughts` leaves out what stands in thoughts.
    pub fn new(hides_thoughts: bool) -> Blocks {
        Blocks { hides_thoughts, all: Vec::new() }
    }

    /// Adds a part.
    pub fn push(&mut self, part: Part) {
        match (part, self.all.last_mut()) {
            (Part::Reasoning(text), Some(Block::Thinking(last))) => last.push_str(&text),
            (Part::Reasoning(text), _) => self.all.push(Block::Thinking(text)),
            (Part::Text(text), Some(Block::Text(last))) => last.push_str(&text),
            (Part::Text(text), _) => self.all.push(Block::Text(text)),
            (Part::ToolCall { id, name, .. }, _) => {
                self.all.push(Block::ToolUse { id, name, arguments: String::new() });
            }
            (Part::ToolArguments { json, .. }, Some(Block::ToolUse { arguments, .. })) => {
                arguments.push_str(&json)
            }
            (Part::ToolArguments { .. }, _) => {}
        }
    }

    /// The blocks in Anthropic's shape.
    pub fn into_json(self) -> Value {
        let hides = self.hides_thoughts;
        let json = |block| match block {
            Block::Thinking(text) => {
                let text = if hides { String::new() } else { text };
                json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
            }
            Block::Text(text) => json!({"type": "text", "text": text}),
            Block::ToolUse { id, name, arguments } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input(&arguments)})
            }
        };
        self.all.into_iter().map(json).collect()
    }
}

/// Arguments as an object. What is none is given as Anthropic's documentation wraps what a model wrote wrongly.
fn input(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => json!({"INVALID_JSON": arguments}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(hides_thoughts: bool) -> Value {
        let mut blocks = Blocks::new(hides_thoughts);
        for part in [
            Part::Reasoning("h".into()),
            Part::Reasoning("m".into()),
            Part::Text("It ".into()),
            Part::Text("rains.".into()),
            Part::ToolCall { index: 0, id: "a".into(), name: "weather".into() },
            Part::ToolArguments { index: 0, json: "{\"city\":".into() },
            Part::ToolArguments { index: 0, json: "1}".into() },
            Part::ToolCall { index: 1, id: "b".into(), name: "weather".into() },
            Part::ToolArguments { index: 1, json: "{\"ci".into() },
            Part::Text("Done.".into()),
        ] {
            blocks.push(part);
        }
        blocks.into_json()
    }

    #[test]
    fn blocks_come_in_order() {
        let expected = json!([
            {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
            {"type": "text", "text": "It rains."},
            {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": 1}},
            {"type": "tool_use", "id": "b", "name": "weather", "input": {"INVALID_JSON": "{\"ci"}},
            {"type": "text", "text": "Done."},
        ]);
        assert_eq!(blocks(false), expected);
        assert_eq!(blocks(true)[0]["thinking"], "");
    }
}
