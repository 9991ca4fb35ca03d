//! Conversations in OpenAI's form become conversations as chat templates know them.

use super::tools;
use crate::body::{Fields, kind};
use crate::chat::Messages;
use crate::error::ApiError;
use serde_json::{Map, Value};

/// Takes a conversation and what belongs to it.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] naming the field.
pub fn take(fields: &mut Fields) -> Result<Messages, ApiError> {
    let given: Vec<Value> = fields.required("messages")?;
    if given.is_empty() {
        return Err(ApiError::invalid_param("messages", "messages is empty, expected at least one message"));
    }
    let mut messages = Messages {
        messages: given
            .into_iter()
            .enumerate()
            .map(|(at, given)| message(at, given))
            .collect::<Result<_, _>>()?,
        arguments: fields.take("chat_template_kwargs")?.unwrap_or_default(),
        continue_last: fields.take("continue_final_message")?.unwrap_or(false),
        ..Messages::default()
    };
    if let Some(effort) = fields.take::<String>("reasoning_effort")? {
        if effort == "none" {
            messages.arguments.entry("enable_thinking").or_insert(Value::Bool(false));
        }
        messages.arguments.entry("reasoning_effort").or_insert(Value::String(effort));
    }
    tools::take(fields, &mut messages)?;
    Ok(messages)
}

/// One message: its content becomes one text, and arguments of calls become objects.
fn message(at: usize, given: Value) -> Result<Value, ApiError> {
    let wrong = |param: &str, problem: String| {
        let param = format!("messages[{at}]{param}");
        ApiError::invalid_param(&*param, format!("{param} {problem}"))
    };
    let Value::Object(mut message) = given else {
        return Err(wrong("", format!("is {}, expected an object", kind(&given))));
    };
    let role = match message.get("role") {
        Some(Value::String(role)) => role.clone(),
        Some(other) => return Err(wrong(".role", format!("is {}, expected a string", kind(other)))),
        None => return Err(wrong(".role", "is missing".to_owned())),
    };
    let role = match role.as_str() {
        "system" | "user" | "assistant" | "tool" => role,
        // The newer name of the system message.
        "developer" => "system".to_owned(),
        // The older name of a tool's result.
        "function" => "tool".to_owned(),
        other => {
            return Err(wrong(
                ".role",
                format!("is {other:?}, expected system, developer, user, assistant or tool"),
            ));
        }
    };
    let calls = message.get_mut("tool_calls").map(Value::take).filter(|calls| !calls.is_null());
    match message.get_mut("content").map(Value::take) {
        None | Some(Value::Null) if role == "assistant" => {
            message.insert("content".to_owned(), Value::String(String::new()));
        }
        None | Some(Value::Null) => return Err(wrong(".content", "is missing".to_owned())),
        Some(content) => {
            let text =
                text(content).map_err(|(param, problem)| wrong(&format!(".content{param}"), problem))?;
            message.insert("content".to_owned(), Value::String(text));
        }
    }
    match calls {
        None => drop(message.shift_remove("tool_calls")),
        Some(Value::Array(calls)) => {
            let call = |(index, call)| {
                with_arguments(call).map_err(|problem| wrong(&format!(".tool_calls[{index}]"), problem))
            };
            let calls = calls.into_iter().enumerate().map(call).collect::<Result<_, _>>()?;
            message.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        Some(other) => return Err(wrong(".tool_calls", format!("is {}, expected an array", kind(&other)))),
    }
    message.insert("role".to_owned(), Value::String(role));
    Ok(Value::Object(message))
}

/// The text of a content: a string, or parts of text, a line each.
fn text(content: Value) -> Result<String, (String, String)> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            return Err((
                String::new(),
                format!("is {}, expected a string or an array of parts", kind(&other)),
            ));
        }
    };
    let part = |(index, part): (usize, Value)| {
        let at = |field: &str| format!("[{index}]{field}");
        let Value::Object(mut part) = part else {
            return Err((at(""), format!("is {}, expected an object", kind(&part))));
        };
        let name = part.get("type").and_then(Value::as_str).unwrap_or("text").to_owned();
        let field = match name.as_str() {
            "text" | "input_text" | "output_text" => "text",
            "refusal" => "refusal",
            "image_url" | "input_image" | "input_audio" | "audio" | "video_url" | "file" | "input_file" => {
                return Err((at(".type"), format!("is {name:?}; this model reads text only")));
            }
            _ => return Err((at(".type"), format!("is {name:?}, expected text"))),
        };
        match part.remove(field) {
            Some(Value::String(text)) => Ok(text),
            _ => Err((at(&format!(".{field}")), "must be a string".to_owned())),
        }
    };
    let texts: Result<Vec<String>, _> = parts.into_iter().enumerate().map(part).collect();
    Ok(texts?.join("\n"))
}

/// A call with its arguments as an object, which templates write in the model's own form. Arguments that are no JSON, as a
/// model may have written them, stay a text.
fn with_arguments(call: Value) -> Result<Value, String> {
    let Value::Object(mut call) = call else { return Err(format!("is {}, expected an object", kind(&call))) };
    let Some(Value::Object(function)) = call.get_mut("function") else {
        return Err("has no function".to_owned());
    };
    if !matches!(function.get("name"), Some(Value::String(_))) {
        return Err("has a function without a name".to_owned());
    }
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) if text.trim().is_empty() => Some(Value::Object(Map::new())),
        Some(Value::String(text)) => serde_json::from_str(text).ok().filter(Value::is_object),
        None | Some(Value::Null) => Some(Value::Object(Map::new())),
        Some(Value::Object(_)) => None,
        Some(other) => return Err(format!("has arguments that are {}, expected a string", kind(other))),
    };
    if let Some(arguments) = arguments {
        function.insert("arguments".to_owned(), arguments);
    }
    Ok(Value::Object(call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn taken(messages: Value) -> Result<Messages, ApiError> {
        take(&mut Fields::parse(json!({ "messages": messages }).to_string().as_bytes()).unwrap())
    }

    #[test]
    fn messages_become_what_templates_know() {
        let messages = taken(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
            {"role": "assistant", "content": "done", "tool_calls": null},
        ]));
        let expected = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a\nb"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"z": 1, "a": 2}}}]},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
            {"role": "assistant", "content": "done"},
        ]);
        // As text, because the order of keys counts: templates write them out.
        assert_eq!(Value::Array(messages.unwrap().messages).to_string(), expected.to_string());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (messages, param) in [
            (json!([]), "messages"),
            (json!("hello"), "messages"),
            (json!(["hello"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": 1, "content": "x"}]), "messages[0].role"),
            (json!([{"role": "wizard", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (json!([{"role": "user", "content": [5]}]), "messages[0].content[0]"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "messages[0].content[0].type",
            ),
            (json!([{"role": "assistant", "tool_calls": 1}]), "messages[0].tool_calls"),
            (json!([{"role": "assistant", "tool_calls": [{"id": "x"}]}]), "messages[0].tool_calls[0]"),
        ] {
            let error = taken(messages.clone()).expect_err(&messages.to_string());
            assert_eq!(error.param.as_deref(), Some(param), "{messages}");
        }
    }

    #[test]
    fn effort_reaches_the_template() {
        let body = r#"{"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "none",
            "chat_template_kwargs": {"a": 1}}"#;
        let messages = take(&mut Fields::parse(body.as_bytes()).unwrap()).unwrap();
        let expected = json!({"a": 1, "enable_thinking": false, "reasoning_effort": "none"});
        assert_eq!(Value::Object(messages.arguments), expected);
    }
}
