//! An answer as Anthropic's events: the message, its blocks one after the other, and its end.

use super::blocks::SIGNATURE;
use super::{Message, stop, usage_json};
use crate::answer::Part;
use crate::chat::{Content, Delta, FinishReason, Usage};
use crate::error::{ApiError, Interface};
use crate::sse::Events;
use axum::response::sse::Event;
use serde_json::{Value, json};

/// Turns steps of an answer into events.
pub(super) struct MessageEvents {
    message: Message,
    /// Tokens of the prompt.
    prompt: usize,
    hides_thoughts: bool,
    /// What kind of block is open.
    open: Option<Kind>,
    /// How many blocks have begun.
    blocks: usize,
    end: Option<(FinishReason, Usage)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse,
}

impl MessageEvents {
    /// For an answer to a prompt of `prompt` tokens.
    pub fn new(message: Message, prompt: usize, hides_thoughts: bool) -> MessageEvents {
        MessageEvents { message, prompt, hides_thoughts, open: None, blocks: 0, end: None }
    }

    fn first(&self) -> Value {
        let usage = usage_json(&Usage { prompt: self.prompt, ..Usage::default() });
        json!({"type": "message_start", "message": self.message.json(json!([]), None, &usage)})
    }

    fn part(&mut self, part: Part) -> Vec<Value> {
        let mut events = Vec::new();
        let delta = match part {
            Part::Reasoning(text) => {
                self.ensure(
                    Kind::Thinking,
                    || json!({"type": "thinking", "thinking": "", "signature": ""}),
                    &mut events,
                );
                if self.hides_thoughts {
                    return events;
                }
                json!({"type": "thinking_delta", "thinking": text})
            }
            Part::Text(text) => {
                self.ensure(Kind::Text, || json!({"type": "text", "text": ""}), &mut events);
                json!({"type": "text_delta", "text": text})
            }
            Part::ToolCall { id, name, .. } => {
                events.extend(self.close());
                self.ensure(
                    Kind::ToolUse,
                    || json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                    &mut events,
                );
                return events;
            }
            Part::ToolArguments { json, .. } => json!({"type": "input_json_delta", "partial_json": json}),
        };
        events.push(self.block_delta(&delta));
        events
    }

    fn block_delta(&self, delta: &Value) -> Value {
        json!({"type": "content_block_delta", "index": self.blocks.saturating_sub(1), "delta": delta})
    }

    /// Opens a block of this kind, unless one is open.
    fn ensure(&mut self, kind: Kind, block: impl FnOnce() -> Value, events: &mut Vec<Value>) {
        if self.open == Some(kind) {
            return;
        }
        events.extend(self.close());
        events.push(json!({"type": "content_block_start", "index": self.blocks, "content_block": block()}));
        (self.open, self.blocks) = (Some(kind), self.blocks + 1);
    }

    fn close(&mut self) -> Vec<Value> {
        let Some(kind) = self.open.take() else { return Vec::new() };
        let mut events = Vec::new();
        if kind == Kind::Thinking {
            events.push(self.block_delta(&json!({"type": "signature_delta", "signature": SIGNATURE})));
        }
        events.push(json!({"type": "content_block_stop", "index": self.blocks.saturating_sub(1)}));
        events
    }

    fn last(&mut self) -> Vec<Value> {
        let mut events = self.close();
        if let Some((finish, usage)) = self.end.take() {
            let (stop_reason, stop_sequence) = stop(&finish);
            events.push(json!({"type": "message_delta", "usage": usage_json(&usage),
                "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence}}));
        }
        events.push(json!({"type": "message_stop"}));
        events
    }
}

/// An event is named after its type.
fn event(value: Value) -> Event {
    let name = value["type"].as_str().unwrap_or_default().to_owned();
    Event::default().event(name).data(value.to_string())
}

impl Events for MessageEvents {
    fn begin(&mut self) -> Vec<Event> {
        vec![event(self.first())]
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        match delta.content {
            Content::Part(part) => self.part(part).into_iter().map(event).collect(),
            Content::End { finish, usage } => {
                self.end = Some((finish, usage));
                Vec::new()
            }
        }
    }

    fn error(&mut self, error: &ApiError) -> Vec<Event> {
        vec![event(error.body(Interface::Anthropic))]
    }

    fn end(&mut self) -> Vec<Event> {
        self.last().into_iter().map(event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_open_and_close_one_after_the_other() {
        let message = Message { id: "m".into(), model: "x".into() };
        let mut events = MessageEvents::new(message, 7, false);
        let mut all = vec![events.first()];
        for part in [
            Part::Reasoning("hm".into()),
            Part::Text("It ".into()),
            Part::Text("rains.".into()),
            Part::ToolCall { index: 0, id: "a".into(), name: "weather".into() },
            Part::ToolArguments { index: 0, json: "{}".into() },
            Part::ToolCall { index: 1, id: "b".into(), name: "noop".into() },
        ] {
            all.extend(events.part(part));
        }
        let usage = Usage { prompt: 7, cached: 3, generated: 9, ..Usage::default() };
        events.end = Some((FinishReason::ToolCalls, usage));
        all.extend(events.last());
        let of = |event: &Value| {
            let kind = event["type"].as_str().unwrap().to_owned();
            match &event["index"] {
                Value::Null => kind,
                index => format!("{kind} {index} {}", event["delta"]["type"].as_str().unwrap_or(""))
                    .trim_end()
                    .to_owned(),
            }
        };
        let order: Vec<String> = all.iter().map(of).collect();
        assert_eq!(
            order,
            [
                "message_start",
                "content_block_start 0",
                "content_block_delta 0 thinking_delta",
                "content_block_delta 0 signature_delta",
                "content_block_stop 0",
                "content_block_start 1",
                "content_block_delta 1 text_delta",
                "content_block_delta 1 text_delta",
                "content_block_stop 1",
                "content_block_start 2",
                "content_block_delta 2 input_json_delta",
                "content_block_stop 2",
                "content_block_start 3",
                "content_block_stop 3",
                "message_delta",
                "message_stop",
            ]
        );
        assert_eq!(all[0]["message"]["usage"]["input_tokens"], 7);
        let end = &all[all.len() - 2];
        assert_eq!(
            (&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]),
            (&json!("tool_use"), &json!(9))
        );
        assert_eq!(end["usage"]["cache_read_input_tokens"], 3);
    }
}
