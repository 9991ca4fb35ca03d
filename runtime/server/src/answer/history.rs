//! Messages and tools as a chat template expects them.

use super::form::{Arguments, END_CALL, Form, START_CALL};
use crate::chat::{Messages, ToolChoice};
use serde_json::{Map, Value, json};

/// What a chat template is given.
#[derive(Clone, Debug, PartialEq)]
pub struct ForTemplate {
    /// The messages.
    pub messages: Vec<Value>,
    /// The tools; empty where the template is to know of none.
    pub tools: Vec<Value>,
}

impl Form {
    /// What the template is given for `messages`. Where it knows no tools, they are told in the system message; where it does
    /// not write earlier calls and their results, they become text.
    pub fn for_template(&self, messages: &Messages) -> ForTemplate {
        let offered = messages.tool_choice != ToolChoice::Never;
        let tools = if offered { messages.tools.clone() } else { Vec::new() };
        let mut all: Vec<Value> = Vec::with_capacity(messages.messages.len());
        for (at, message) in messages.messages.iter().enumerate() {
            let Value::Object(message) = message else {
                all.push(message.clone());
                continue;
            };
            let mut message = message.clone();
            if message.get("tool_calls").is_some_and(|calls| calls.as_array().is_none_or(Vec::is_empty)) {
                message.remove("tool_calls");
            }
            if message.contains_key("tool_calls") {
                self.earlier_calls(&mut message);
            }
            // Templates add texts to it, which Python does not do with what is not there.
            if message.get("content").is_none_or(Value::is_null) {
                message.insert("content".to_owned(), "".into());
            }
            if message.get("role") == Some(&"tool".into()) {
                if self.earlier.is_none() {
                    add_result(&mut all, &message);
                    continue;
                }
                name_tool(&messages.messages[..at], &mut message);
            }
            all.push(Value::Object(message));
        }
        if self.tells_tools || tools.is_empty() {
            return ForTemplate { messages: all, tools };
        }
        let told = self.tell(&tools);
        match all.first_mut().filter(|first| matches!(first["role"].as_str(), Some("system" | "developer"))) {
            Some(system) => {
                let said = system["content"].as_str().unwrap_or_default();
                system["content"] = format!("{said}\n\n{told}").into();
            }
            None => all.insert(0, json!({"role": "system", "content": told})),
        }
        ForTemplate { messages: all, tools: Vec::new() }
    }

    /// Earlier calls as the template expects their arguments, or as text.
    fn earlier_calls(&self, message: &mut Map<String, Value>) {
        let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) else { return };
        let mut text = String::new();
        for call in calls.iter_mut() {
            let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else { continue };
            let arguments = object(function.get("arguments"));
            match self.earlier {
                Some(Arguments::Object) => drop(function.insert("arguments".to_owned(), arguments)),
                Some(Arguments::Text) => {
                    drop(function.insert("arguments".to_owned(), arguments.to_string().into()));
                }
                None => {
                    let call = json!({"name": function.get("name"), "arguments": arguments});
                    text.push_str(&format!("\n{START_CALL}\n{call}\n{END_CALL}"));
                }
            }
        }
        if self.earlier.is_none() {
            message.remove("tool_calls");
            let said = message.get("content").and_then(Value::as_str).unwrap_or_default();
            let whole = format!("{said}{text}");
            message.insert("content".to_owned(), whole.trim_start_matches('\n').into());
        }
    }

    /// Words that tell a model of tools, for templates that do not.
    fn tell(&self, tools: &[Value]) -> String {
        let functions = tools.iter().filter_map(|tool| tool.get("function"));
        let functions: String = functions.map(|function| format!("{function}\n")).collect();
        format!(
            "You may call these functions:\n<tools>\n{functions}</tools>\n\nTo call one, write its name and arguments as a JSON \
             object in this way:\n{START_CALL}\n{{\"name\": \"the function's name\", \"arguments\": {{}}}}\n{END_CALL}"
        )
    }
}

/// The arguments of a call as an object. What a model wrote wrongly is in it as it wrote it.
fn object(arguments: Option<&Value>) -> Value {
    match arguments {
        Some(Value::Object(object)) => Value::Object(object.clone()),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Value::Object(object),
            _ if text.trim().is_empty() => json!({}),
            _ => json!({"INVALID_JSON": text}),
        },
        None | Some(Value::Null) => json!({}),
        Some(other) => json!({"INVALID_JSON": other}),
    }
}

/// A result as something that the user says. Several in a row are said at once.
fn add_result(all: &mut Vec<Value>, message: &Map<String, Value>) {
    let content = match &message["content"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let result = format!("<tool_response>\n{content}\n</tool_response>");
    let last = all.last_mut().filter(|last| last["role"] == "user");
    match last.and_then(|last| last.get_mut("content")) {
        Some(Value::String(said)) if said.ends_with("</tool_response>") => {
            said.push('\n');
            said.push_str(&result);
        }
        _ => all.push(json!({"role": "user", "content": result})),
    }
}

/// Says which tool a result is of, which some templates want, where the client did not.
fn name_tool(before: &[Value], message: &mut Map<String, Value>) {
    if message.contains_key("name") {
        return;
    }
    let Some(id) = message.get("tool_call_id") else { return };
    let calls = before.iter().rev().filter_map(|m| m.get("tool_calls")).filter_map(Value::as_array).flatten();
    let name =
        calls.filter(|call| call.get("id") == Some(id)).find_map(|call| call.pointer("/function/name"));
    if let Some(name) = name.cloned() {
        message.insert("name".to_owned(), name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::form::Calls;
    use super::*;

    fn form(tells_tools: bool, earlier: Option<Arguments>) -> Form {
        Form { thoughts: false, calls: Calls::Marked, tells_tools, earlier, special: Vec::new() }
    }

    fn conversation(arguments: Value) -> Messages {
        Messages {
            messages: vec![
                json!({"role": "user", "content": "Weather?"}),
                json!({"role": "assistant", "content": null, "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "weather", "arguments": arguments}}]}),
                json!({"role": "tool", "tool_call_id": "a", "content": "rain"}),
                json!({"role": "tool", "tool_call_id": "b", "content": "no"}),
            ],
            tools: vec![json!({"type": "function", "function": {"name": "weather"}})],
            ..Messages::default()
        }
    }

    #[test]
    fn arguments_come_as_the_template_wants_them() {
        let object = form(true, Some(Arguments::Object));
        for arguments in [json!({"city": "Paris"}), json!("{\"city\": \"Paris\"}")] {
            let found = object.for_template(&conversation(arguments));
            let call = &found.messages[1]["tool_calls"][0]["function"]["arguments"];
            assert_eq!((call, &found.messages[1]["content"]), (&json!({"city": "Paris"}), &json!("")));
            assert_eq!(
                (&found.messages[2]["name"], found.messages[3].get("name")),
                (&json!("weather"), None)
            );
            assert_eq!(found.tools.len(), 1);
        }
        let text = form(true, Some(Arguments::Text)).for_template(&conversation(json!({"a": 1})));
        assert_eq!(text.messages[1]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        for (given, expected) in [
            (json!(""), json!({})),
            (json!(null), json!({})),
            (json!("{\"ci"), json!({"INVALID_JSON": "{\"ci"})),
            (json!("[1]"), json!({"INVALID_JSON": "[1]"})),
        ] {
            let found = object.for_template(&conversation(given));
            assert_eq!(found.messages[1]["tool_calls"][0]["function"]["arguments"], expected);
        }
    }

    #[test]
    fn a_template_that_knows_no_tools_gets_text() {
        let form = form(false, None);
        let mut messages = conversation(json!({"city": "Paris"}));
        let found = form.for_template(&messages);
        assert!(found.tools.is_empty());
        assert_eq!(found.messages[0]["role"], "system");
        assert!(found.messages[0]["content"].as_str().unwrap().contains("{\"name\":\"weather\"}"));
        let call = "<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Paris\"}}\n</tool_call>";
        assert_eq!(found.messages[2], json!({"role": "assistant", "content": call}));
        let results = "<tool_response>\nrain\n</tool_response>\n<tool_response>\nno\n</tool_response>";
        assert_eq!(found.messages[3], json!({"role": "user", "content": results}));
        // What the model reads of earlier calls is what it is told to write.
        let mut splitter = form.splitter(&messages, "");
        assert_eq!([splitter.push(call), splitter.finish()].concat().len(), 2);
        messages.tool_choice = ToolChoice::Never;
        assert_eq!(form.for_template(&messages).messages[0]["role"], "user");
        messages.tool_choice = ToolChoice::Auto;
        messages.messages.insert(0, json!({"role": "system", "content": "Be brief."}));
        let told = form.for_template(&messages).messages;
        assert!(told[0]["content"].as_str().unwrap().starts_with("Be brief.\n\nYou may call"));
    }
}
