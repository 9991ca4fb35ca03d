//! Messages in Anthropic's blocks, turned into messages as chat templates know them: one text each, calls in OpenAI's form, and
//! results of tools as messages of their own.

use crate::error::ApiError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A message.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    role: Role,
    content: Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
    System,
}

/// A text, or blocks.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of blocks")]
pub(super) enum Text {
    Whole(String),
    Blocks(Vec<Map<String, Value>>),
}

impl Text {
    /// The text of blocks that are text alone; `param` is where they stand.
    pub fn join(&self, param: &str) -> Result<String, ApiError> {
        match self {
            Text::Whole(text) => Ok(text.clone()),
            Text::Blocks(blocks) => {
                let texts = blocks.iter().enumerate().map(|(at, block)| match kind(block) {
                    "text" => field(block, "text", &format!("{param}[{at}]")),
                    "document" => document(block, &format!("{param}[{at}]")),
                    other => Err(unsupported(other, &format!("{param}[{at}]"))),
                });
                Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
            }
        }
    }
}

impl Message {
    /// Adds it to `all`; it is the message `at` of the request.
    pub fn add_to(self, all: &mut Vec<Value>, at: usize) -> Result<(), ApiError> {
        let blocks = match self.content {
            Text::Whole(text) => vec![json!({"type": "text", "text": text})],
            Text::Blocks(blocks) => blocks.into_iter().map(Value::Object).collect(),
        };
        let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for (number, block) in blocks.iter().enumerate() {
            let param = format!("messages[{at}].content[{number}]");
            let Value::Object(block) = block else { continue };
            match (kind(block), self.role) {
                ("text", _) => texts.push(field(block, "text", &param)?),
                ("document", Role::User) => texts.push(document(block, &param)?),
                ("thinking", Role::Assistant) => thoughts.push(field(block, "thinking", &param)?),
                // Nobody can read these but who wrote them.
                ("redacted_thinking", Role::Assistant) => {}
                ("tool_use", Role::Assistant) => calls.push(call(block, &param)?),
                ("tool_result", Role::User) => {
                    add_text(all, "user", std::mem::take(&mut texts));
                    all.push(result(block, &param)?);
                }
                (other, _) => return Err(unsupported(other, &param)),
            }
        }
        match self.role {
            Role::User => add_text(all, "user", texts),
            Role::System => add_text(all, "system", texts),
            Role::Assistant => {
                let mut message = json!({"role": "assistant", "content": texts.join("\n")});
                if !thoughts.is_empty() {
                    message["reasoning_content"] = thoughts.join("\n").into();
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                all.push(message);
            }
        }
        Ok(())
    }
}

/// Adds a text. What one role says in messages that follow each other is one turn.
fn add_text(all: &mut Vec<Value>, role: &str, texts: Vec<String>) {
    if texts.is_empty() {
        return;
    }
    let text = texts.join("\n");
    match all.last_mut().filter(|last| last["role"] == role) {
        Some(last) => {
            let said = last["content"].as_str().unwrap_or_default();
            last["content"] = format!("{said}\n\n{text}").into();
        }
        None => all.push(json!({"role": role, "content": text})),
    }
}

fn kind(block: &Map<String, Value>) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn field(block: &Map<String, Value>, name: &str, param: &str) -> Result<String, ApiError> {
    let text = block.get(name).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| {
        let param = format!("{param}.{name}");
        ApiError::invalid_param(&*param, format!("{param}: a string is required"))
    })
}

fn unsupported(kind: &str, param: &str) -> ApiError {
    let message = match kind {
        "" => format!("{param}: a block needs a type"),
        "image" => format!("{param} is an image, but this model reads text alone"),
        kind => format!("{param}: blocks of the type {kind:?} are not supported here"),
    };
    ApiError::invalid_param(format!("{param}.type"), message)
}

/// A document that is plain text.
fn document(block: &Map<String, Value>, param: &str) -> Result<String, ApiError> {
    let source = block.get("source").and_then(Value::as_object);
    match source.map(|source| (source, kind(source))) {
        Some((source, "text")) => field(source, "data", &format!("{param}.source")),
        _ => Err(ApiError::invalid_param(
            format!("{param}.source"),
            format!("{param} is a document that is no plain text, but this model reads text alone"),
        )),
    }
}

fn call(block: &Map<String, Value>, param: &str) -> Result<Value, ApiError> {
    let arguments = match block.get("input") {
        Some(Value::Object(input)) => input.clone(),
        _ => {
            let param = format!("{param}.input");
            return Err(ApiError::invalid_param(&*param, format!("{param}: an object is required")));
        }
    };
    let (id, name) = (field(block, "id", param)?, field(block, "name", param)?);
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

fn result(block: &Map<String, Value>, param: &str) -> Result<Value, ApiError> {
    let id = field(block, "tool_use_id", param)?;
    let content = match block.get("content").cloned() {
        None | Some(Value::Null) => String::new(),
        Some(content) => {
            let param = format!("{param}.content");
            let text: Text = serde_json::from_value(content).map_err(|_| {
                ApiError::invalid_param(&*param, format!("{param}: a string or blocks are required"))
            })?;
            text.join(&param)?
        }
    };
    let content = match block.get("is_error") {
        Some(Value::Bool(true)) => format!("Error: {content}"),
        _ => content,
    };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(json: Value) -> Result<Vec<Value>, ApiError> {
        let all: Vec<Message> = serde_json::from_value(json).unwrap();
        let mut out = Vec::new();
        for (at, message) in all.into_iter().enumerate() {
            message.add_to(&mut out, at)?;
        }
        Ok(out)
    }

    #[test]
    fn blocks_become_messages() {
        let found = messages(json!([
            {"role": "user", "content": "Weather?"},
            {"role": "user", "content": [{"type": "text", "text": "In Paris."}, {"type": "text", "text": "Now."}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Ask.", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "b", "name": "noop", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no"},
                {"type": "text", "text": "And?"}]},
            {"role": "assistant", "content": "It"},
        ]));
        let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let expected = json!([
            {"role": "user", "content": "Weather?\n\nIn Paris.\nNow."},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Ask.",
             "tool_calls": [call("a", "weather", json!({"city": "Paris"})), call("b", "noop", json!({}))]},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": "Error: no"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "It"},
        ]);
        assert_eq!(Value::from(found.unwrap()), expected);
    }

    #[test]
    fn errors_name_the_block() {
        let of = |block: Value, role: &str| {
            messages(json!([{"role": role, "content": [{"type": "text", "text": "a"}, block]}]))
                .unwrap_err()
                .param
                .unwrap()
        };
        for (block, role, param) in [
            (json!({"type": "image", "source": {}}), "user", "messages[0].content[1].type"),
            (json!({"type": "text"}), "user", "messages[0].content[1].text"),
            (
                json!({"type": "tool_use", "id": "a", "name": "b", "input": "c"}),
                "assistant",
                "messages[0].content[1].input",
            ),
            (
                json!({"type": "tool_use", "id": "a", "name": "b", "input": {}}),
                "user",
                "messages[0].content[1].type",
            ),
            (json!({"type": "tool_result", "content": "x"}), "user", "messages[0].content[1].tool_use_id"),
            (
                json!({"type": "tool_result", "tool_use_id": "a", "content": 5}),
                "user",
                "messages[0].content[1].content",
            ),
            (
                json!({"type": "document", "source": {"type": "base64"}}),
                "user",
                "messages[0].content[1].source",
            ),
            (json!({"text": "x"}), "user", "messages[0].content[1].type"),
        ] {
            assert_eq!(of(block.clone(), role), param, "{block}");
        }
    }
}
