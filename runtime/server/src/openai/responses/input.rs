//! Items of input, turned into messages as chat templates know them.
//!
//! What the assistant thought, said and called are items of their own; in a conversation they are one message.

use crate::error::ApiError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A text, or items.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or an array of items")]
pub(super) enum Input {
    Text(String),
    Items(Vec<Map<String, Value>>),
}

/// The messages of `input` after `instructions`. Instructions and system messages that the input begins with are one.
pub(super) fn messages(instructions: Option<String>, input: Input) -> Result<Vec<Value>, ApiError> {
    let mut all = Vec::new();
    if let Some(text) = instructions {
        all.push(json!({"role": "system", "content": text}));
    }
    match input {
        Input::Text(text) => all.push(json!({"role": "user", "content": text})),
        Input::Items(items) if items.is_empty() => {
            return Err(ApiError::invalid_param("input", "input is empty, expected at least one item"));
        }
        Input::Items(items) => {
            for (at, item) in items.iter().enumerate() {
                add(&mut all, item, &format!("input[{at}]"))?;
            }
        }
    }
    Ok(all)
}

fn add(all: &mut Vec<Value>, item: &Map<String, Value>, param: &str) -> Result<(), ApiError> {
    let kind = match item.get("type").and_then(Value::as_str) {
        None if item.contains_key("role") => "message",
        kind => kind.unwrap_or_default(),
    };
    match kind {
        "message" => {
            let role = string(item, "role", param)?;
            let content = text(item.get("content"), &format!("{param}.content"))?;
            match role.as_str() {
                "user" => all.push(json!({"role": "user", "content": content})),
                "system" | "developer" => match all.last_mut() {
                    Some(last) if last["role"] == "system" => append(last, &content, "\n\n"),
                    _ => all.push(json!({"role": "system", "content": content})),
                },
                "assistant" => append(assistant(all), &content, "\n"),
                other => {
                    let param = format!("{param}.role");
                    let message =
                        format!("{param} is {other:?}, expected user, assistant, system or developer");
                    return Err(ApiError::invalid_param(param, message));
                }
            }
        }
        "reasoning" => {
            let said = |field: &str| text(item.get(field), &format!("{param}.{field}"));
            let thought = match said("content")? {
                content if content.is_empty() => said("summary")?,
                content => content,
            };
            if !thought.is_empty() {
                // A thought begins what the assistant says in its turn.
                assistant(all)["reasoning_content"] = thought.into();
            }
        }
        "function_call" => {
            let (id, name) = (string(item, "call_id", param)?, string(item, "name", param)?);
            let arguments = string(item, "arguments", param)?;
            // What is no JSON is handed on as the model wrote it.
            let arguments = match serde_json::from_str(&arguments) {
                Ok(Value::Object(object)) => Value::Object(object),
                _ => Value::String(arguments),
            };
            let call =
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            let message = assistant(all);
            match message.get_mut("tool_calls").and_then(Value::as_array_mut) {
                Some(calls) => calls.push(call),
                None => message["tool_calls"] = json!([call]),
            }
        }
        "function_call_output" => {
            let id = string(item, "call_id", param)?;
            let content = text(item.get("output"), &format!("{param}.output"))?;
            all.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
        other => {
            let param = format!("{param}.type");
            let message = match other {
                "" => format!("{param} is missing"),
                "item_reference" => {
                    format!("{param} is {other:?}, but this server keeps nothing; send the item itself")
                }
                other => format!("{param} is {other:?}, which is not supported"),
            };
            return Err(ApiError::invalid_param(param, message));
        }
    }
    Ok(())
}

/// The message of the assistant's turn.
fn assistant(all: &mut Vec<Value>) -> &mut Value {
    if all.last().is_none_or(|last| last["role"] != "assistant") {
        all.push(json!({"role": "assistant", "content": ""}));
    }
    let last = all.len() - 1;
    &mut all[last]
}

fn append(message: &mut Value, text: &str, between: &str) {
    let said = message["content"].as_str().unwrap_or_default();
    let between = if said.is_empty() { "" } else { between };
    message["content"] = format!("{said}{between}{text}").into();
}

fn string(item: &Map<String, Value>, field: &str, param: &str) -> Result<String, ApiError> {
    let text = item.get(field).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| {
        let param = format!("{param}.{field}");
        ApiError::invalid_param(&*param, format!("{param} must be a string"))
    })
}

/// A text, or parts of text, a line each.
fn text(content: Option<&Value>, param: &str) -> Result<String, ApiError> {
    let parts = match content {
        None | Some(Value::Null) => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        Some(_) => {
            return Err(ApiError::invalid_param(
                param,
                format!("{param} must be a string or an array of parts"),
            ));
        }
    };
    let part = |(at, part): (usize, &Value)| {
        let param = format!("{param}[{at}]");
        let field = match part.get("type").and_then(Value::as_str).unwrap_or_default() {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => "text",
            "refusal" => "refusal",
            other => {
                let message = format!("{param} is of the type {other:?}; this model reads text only");
                return Err(ApiError::invalid_param(format!("{param}.type"), message));
            }
        };
        let text = part.get(field).and_then(Value::as_str).map(str::to_owned);
        text.ok_or_else(|| {
            ApiError::invalid_param(format!("{param}.{field}"), format!("{param}.{field} must be a string"))
        })
    };
    Ok(parts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instructions: Option<&str>, input: Value) -> Result<Vec<Value>, ApiError> {
        messages(instructions.map(str::to_owned), serde_json::from_value(input).unwrap())
    }

    #[test]
    fn items_become_turns() {
        let found = of(
            Some("Be brief."),
            json!([
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
                {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Ask."}]},
                {"type": "message", "role": "assistant", "id": "m", "status": "completed",
                 "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
                {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{\"city\": \"Paris\"}"},
                {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{\"ci"},
                {"type": "function_call_output", "call_id": "a", "output": "rain"},
                {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "no"}]},
            ]),
        );
        let call = |id: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
        let expected = json!([
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Ask.",
             "tool_calls": [call("a", json!({"city": "Paris"})), call("b", json!("{\"ci"))]},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": "no"},
        ]);
        assert_eq!(Value::from(found.unwrap()), expected);
        assert_eq!(of(None, json!("Hi")).unwrap(), [json!({"role": "user", "content": "Hi"})]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (input, param) in [
            (json!([]), "input"),
            (json!([{}]), "input[0].type"),
            (json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
            (json!([{"role": "wizard", "content": "x"}]), "input[0].role"),
            (json!([{"role": "user", "content": 5}]), "input[0].content"),
            (json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0].type"),
            (json!([{"type": "function_call", "call_id": "a"}]), "input[0].name"),
            (json!([{"type": "function_call_output", "output": "a"}]), "input[0].call_id"),
        ] {
            assert_eq!(of(None, input.clone()).unwrap_err().param.as_deref(), Some(param), "{input}");
        }
    }
}
