//! Tools that the model may call, and whether it does.

use crate::body::Fields;
use crate::chat::{Messages, ToolChoice};
use crate::error::ApiError;
use serde::Deserialize;
use serde_json::Value;

/// Takes the fields about tools into `messages`.
///
/// # Errors
/// [`crate::error::ErrorKind::InvalidRequest`] naming the field.
pub fn take(fields: &mut Fields, messages: &mut Messages) -> Result<(), ApiError> {
    for old in ["functions", "function_call"] {
        if fields.take::<Value>(old)?.is_some() {
            let message = format!("{old} is not supported; use tools and tool_choice");
            return Err(ApiError::invalid_param(old, message).with_code("unsupported_parameter"));
        }
    }
    messages.tools = fields.take("tools")?.unwrap_or_default();
    for (index, tool) in messages.tools.iter().enumerate() {
        check(tool).map_err(|(param, problem)| {
            let param = format!("tools[{index}]{param}");
            ApiError::invalid_param(&*param, format!("{param} {problem}"))
        })?;
    }
    messages.parallel_tool_calls = fields.take("parallel_tool_calls")?.unwrap_or(true);
    messages.tool_choice = choice(fields, &messages.tools)?;
    Ok(())
}

fn check(tool: &Value) -> Result<(), (&'static str, &'static str)> {
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return Err((".type", "must be \"function\"; other tools are not supported"));
    }
    let function =
        tool.get("function").and_then(Value::as_object).ok_or((".function", "must be an object"))?;
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err((".function.name", "must be a string that is not empty"));
    }
    match function.get("parameters") {
        None | Some(Value::Object(_) | Value::Null) => Ok(()),
        Some(_) => Err((".function.parameters", "must be a JSON schema, which is an object")),
    }
}

fn choice(fields: &mut Fields, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    #[derive(Deserialize)]
    struct Function {
        name: String,
    }
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected none, auto, required, or {\"type\": \"function\", \"function\": {\"name\"}}"
    )]
    enum Choice {
        Word(String),
        Named { function: Function },
    }
    let refused =
        |message: String| ApiError::invalid_param("tool_choice", message).with_code("invalid_value");
    let choice = match fields.take::<Choice>("tool_choice")? {
        None => return Ok(ToolChoice::Auto),
        Some(Choice::Word(word)) => match word.as_str() {
            "auto" => return Ok(ToolChoice::Auto),
            "none" => return Ok(ToolChoice::Never),
            "required" => ToolChoice::Required,
            other => {
                return Err(refused(format!("tool_choice is {other:?}, expected none, auto or required")));
            }
        },
        Some(Choice::Named { function }) => ToolChoice::Function(function.name),
    };
    let is_there = match &choice {
        ToolChoice::Function(name) => tools.iter().any(|tool| tool["function"]["name"] == name.as_str()),
        _ => !tools.is_empty(),
    };
    match is_there {
        true => Ok(choice),
        false => Err(refused("tool_choice asks for a call, but tools has no such tool".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(json: &str) -> Result<Messages, ApiError> {
        let mut messages = Messages::default();
        take(&mut Fields::parse(json.as_bytes()).unwrap(), &mut messages)?;
        Ok(messages)
    }

    #[test]
    fn tools_and_choices_are_checked() {
        let tool = r#""tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]"#;
        let choice =
            |choice: &str| taken(&format!("{{{tool}, \"tool_choice\": {choice}}}")).map(|m| m.tool_choice);
        assert_eq!(taken(&format!("{{{tool}}}")).unwrap().tool_choice, ToolChoice::Auto);
        assert_eq!(choice("\"required\"").unwrap(), ToolChoice::Required);
        assert_eq!(choice("\"none\"").unwrap(), ToolChoice::Never);
        let named = choice(r#"{"type": "function", "function": {"name": "f"}}"#).unwrap();
        assert_eq!(named, ToolChoice::Function("f".to_owned()));
        for wrong in ["\"perhaps\"", "5", r#"{"type": "function", "function": {"name": "g"}}"#] {
            assert_eq!(choice(wrong).unwrap_err().param.as_deref(), Some("tool_choice"), "{wrong}");
        }
        for (json, param) in [
            (r#"{"tools": 5}"#, "tools"),
            (r#"{"tools": [{}]}"#, "tools[0].type"),
            (r#"{"tools": [{"type": "function"}]}"#, "tools[0].function"),
            (r#"{"tools": [{"type": "function", "function": {"name": ""}}]}"#, "tools[0].function.name"),
            (
                r#"{"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}"#,
                "tools[0].function.parameters",
            ),
            (r#"{"tool_choice": "required"}"#, "tool_choice"),
            (r#"{"functions": []}"#, "functions"),
        ] {
            assert_eq!(taken(json).unwrap_err().param.as_deref(), Some(param), "{json}");
        }
    }
}
