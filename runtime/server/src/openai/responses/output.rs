//! An answer as items of output, and what happens to them as events.

use crate::answer::{Part, unique};
use crate::chat::{FinishReason, TokenLogprob};
use crate::openai::shapes::chat_logprobs;
use serde_json::{Value, json};

/// The items of an answer while they come.
pub(super) struct Output {
    logprobs: bool,
    items: Vec<Item>,
    /// Whether the last item is still written.
    open: bool,
}

struct Item {
    id: String,
    kind: Kind,
    /// The thought, the text, or the arguments.
    text: String,
    logprobs: Vec<Value>,
    status: &'static str,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    Call { id: String, name: String },
}

impl Item {
    fn json(&self) -> Value {
        let Item { id, kind, text, status, .. } = self;
        // The content of an item appears when it has begun to come.
        let content =
            if text.is_empty() && *status == "in_progress" { json!([]) } else { json!([self.part()]) };
        match kind {
            Kind::Reasoning => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            Kind::Message => {
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
            }
            Kind::Call { id: call, name } => {
                json!({"id": id, "type": "function_call", "call_id": call, "name": name, "arguments": text, "status": status})
            }
        }
    }

    /// The only part of its content.
    fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            _ => {
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs})
            }
        }
    }
}

impl Output {
    /// Nothing yet. `logprobs`: texts tell the probabilities of their tokens.
    pub fn new(logprobs: bool) -> Output {
        Output { logprobs, items: Vec::new(), open: false }
    }

    /// The items so far.
    pub fn items(&self) -> Value {
        self.items.iter().map(Item::json).collect()
    }

    /// Adds a part, and the tokens that were chosen since the last one.
    pub fn push(&mut self, part: Part, tokens: &[TokenLogprob]) -> Vec<Value> {
        let mut events = Vec::new();
        let text = match part {
            Part::Reasoning(text) => {
                self.ensure(Kind::Reasoning, &mut events);
                text
            }
            Part::Text(text) => {
                self.ensure(Kind::Message, &mut events);
                text
            }
            Part::ToolCall { id, name, .. } => {
                self.ensure(Kind::Call { id, name }, &mut events);
                return events;
            }
            Part::ToolArguments { json, .. } => json,
        };
        let logprobs = self.probabilities(tokens);
        let index = self.items.len().saturating_sub(1);
        if let Some(item) = self.items.last_mut() {
            item.text.push_str(&text);
            let mut event = json!({"item_id": item.id, "output_index": index, "delta": text});
            event["type"] = match item.kind {
                Kind::Reasoning => "response.reasoning_text.delta",
                Kind::Message => "response.output_text.delta",
                Kind::Call { .. } => "response.function_call_arguments.delta",
            }
            .into();
            if !matches!(item.kind, Kind::Call { .. }) {
                event["content_index"] = 0.into();
            }
            if item.kind == Kind::Message {
                event["logprobs"] = logprobs.clone().into();
                item.logprobs.extend(logprobs);
            }
            events.push(event);
        }
        events
    }

    /// Nothing more comes. `tokens` were chosen since the last part.
    pub fn end(&mut self, finish: &FinishReason, tokens: &[TokenLogprob]) -> Vec<Value> {
        let logprobs = self.probabilities(tokens);
        if let Some(item) = self.items.last_mut().filter(|item| item.kind == Kind::Message) {
            item.logprobs.extend(logprobs);
        }
        self.close(if *finish == FinishReason::Length { "incomplete" } else { "completed" })
    }

    fn probabilities(&self, tokens: &[TokenLogprob]) -> Vec<Value> {
        match chat_logprobs(tokens)["content"].take() {
            Value::Array(all) if self.logprobs => all,
            _ => Vec::new(),
        }
    }

    /// Opens an item of this kind, unless one is open.
    fn ensure(&mut self, kind: Kind, events: &mut Vec<Value>) {
        if self.open && self.items.last().is_some_and(|last| last.kind == kind) {
            return;
        }
        events.extend(self.close("completed"));
        let id = unique(match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
            Kind::Call { .. } => "fc_",
        });
        let item = Item { id, kind, text: String::new(), logprobs: Vec::new(), status: "in_progress" };
        let index = self.items.len();
        events
            .push(json!({"type": "response.output_item.added", "output_index": index, "item": item.json()}));
        if !matches!(item.kind, Kind::Call { .. }) {
            events.push(
                json!({"type": "response.content_part.added", "item_id": item.id, "output_index": index,
                "content_index": 0, "part": item.part()}),
            );
        }
        self.items.push(item);
        self.open = true;
    }

    fn close(&mut self, status: &'static str) -> Vec<Value> {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut().filter(|_| std::mem::take(&mut self.open)) else {
            return Vec::new();
        };
        item.status = status;
        let done = match &item.kind {
            Kind::Reasoning => {
                json!({"type": "response.reasoning_text.done", "item_id": item.id, "output_index": index,
                "content_index": 0, "text": item.text})
            }
            Kind::Message => {
                json!({"type": "response.output_text.done", "item_id": item.id, "output_index": index,
                "content_index": 0, "text": item.text, "logprobs": item.logprobs})
            }
            Kind::Call { name, .. } => {
                json!({"type": "response.function_call_arguments.done", "item_id": item.id,
                "output_index": index, "name": name, "arguments": item.text})
            }
        };
        let mut events = vec![done];
        if !matches!(item.kind, Kind::Call { .. }) {
            events.push(
                json!({"type": "response.content_part.done", "item_id": item.id, "output_index": index,
                "content_index": 0, "part": item.part()}),
            );
        }
        events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item.json()}));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::TokenText;

    #[test]
    fn items_open_and_close_one_after_the_other() {
        let mut output = Output::new(true);
        let token = TokenText { id: 1, text: "It".into(), bytes: b"It".to_vec() };
        let tokens = [TokenLogprob { token, logprob: -0.5, top: Vec::new() }];
        let mut events = Vec::new();
        for (part, tokens) in [
            (Part::Reasoning("hm".into()), &[][..]),
            (Part::Text("It ".into()), &tokens),
            (Part::Text("rains.".into()), &[]),
            (Part::ToolCall { index: 0, id: "a".into(), name: "weather".into() }, &[]),
            (Part::ToolArguments { index: 0, json: "{}".into() }, &[]),
            (Part::ToolCall { index: 1, id: "b".into(), name: "weather".into() }, &[]),
        ] {
            events.extend(output.push(part, tokens));
        }
        events.extend(output.end(&FinishReason::Length, &[]));
        let order: Vec<String> = events
            .iter()
            .map(|event| {
                let kind = event["type"].as_str().unwrap().strip_prefix("response.").unwrap();
                format!("{} {kind}", event["output_index"])
            })
            .collect();
        assert_eq!(
            order,
            [
                "0 output_item.added",
                "0 content_part.added",
                "0 reasoning_text.delta",
                "0 reasoning_text.done",
                "0 content_part.done",
                "0 output_item.done",
                "1 output_item.added",
                "1 content_part.added",
                "1 output_text.delta",
                "1 output_text.delta",
                "1 output_text.done",
                "1 content_part.done",
                "1 output_item.done",
                "2 output_item.added",
                "2 function_call_arguments.delta",
                "2 function_call_arguments.done",
                "2 output_item.done",
                "3 output_item.added",
                "3 function_call_arguments.done",
                "3 output_item.done",
            ]
        );
        assert_eq!(events[6]["item"]["content"], json!([]));
        assert_eq!(events[8]["logprobs"][0]["token"], "It");
        let items = output.items();
        assert_eq!(items[1]["content"][0]["text"], "It rains.");
        assert_eq!((&items[1]["status"], &items[3]["status"]), (&json!("completed"), &json!("incomplete")));
        assert_eq!(items[1]["content"][0]["logprobs"][0]["logprob"], json!(-0.5));
        assert_eq!((&items[2]["call_id"], &items[2]["arguments"]), (&json!("a"), &json!("{}")));
    }
}
