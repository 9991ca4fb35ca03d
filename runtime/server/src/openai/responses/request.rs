//! The fields of a request to `/v1/responses`.

use super::input::{self, Input};
use crate::body::Fields;
use crate::chat::{ChatRequest, Format, Generation, Messages, Prompt, ToolChoice};
use crate::error::ApiError;
use crate::openai::{chat::MOST_LOGPROBS, sampling};
use crate::state::AppState;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a request asks for.
pub(super) struct Asked {
    pub request: ChatRequest,
    /// Whether the answer comes as events.
    pub stream: bool,
    /// Whether the answer tells probabilities.
    pub logprobs: bool,
    /// Fields that the response repeats.
    pub echo: Map<String, Value>,
}

/// Takes all fields.
pub(super) fn take(fields: &mut Fields, state: &AppState) -> Result<Asked, ApiError> {
    state.expect_model(fields.take::<String>("model")?.as_deref())?;
    refuse_memory(fields)?;
    let mut echo = Map::new();
    let mut messages = conversation(fields, &mut echo)?;
    let mut generation = sampling::take(fields, state.vocab_size())?;
    if let Some(most) = fields.count("max_output_tokens", 1..=usize::MAX)? {
        generation.max_tokens = Some(most);
    }
    generation.n = 1;
    let include: Vec<String> = fields.take("include")?.unwrap_or_default();
    let top = fields.count("top_logprobs", 0..=MOST_LOGPROBS)?;
    let logprobs =
        include.iter().any(|what| what == "message.output_text.logprobs") || top.is_some_and(|top| top > 0);
    generation.logprobs = logprobs.then(|| top.unwrap_or(0));
    generation.format = format(fields, &generation, &mut echo)?;
    reasoning(fields, &mut messages, &mut echo)?;
    repeat(fields, &generation, top, &mut echo)?;
    let stream = fields.take("stream")?.unwrap_or(false);
    Ok(Asked {
        request: ChatRequest { prompt: Prompt::Messages(messages), generation },
        stream,
        logprobs,
        echo,
    })
}

/// What would need a memory of earlier responses.
fn refuse_memory(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, instead) in [
        ("previous_response_id", "send what was said as input"),
        ("conversation", "send what was said as input"),
        ("prompt", "send instructions and input"),
    ] {
        if fields.take::<Value>(name)?.is_some() {
            let message = format!("{name} is not supported, because this server keeps nothing; {instead}");
            return Err(ApiError::invalid_param(name, message).with_code("unsupported_parameter"));
        }
    }
    if fields.take::<bool>("background")?.unwrap_or(false) {
        let message = "background is not supported; wait for the answer, or stream it";
        return Err(ApiError::invalid_param("background", message).with_code("unsupported_parameter"));
    }
    Ok(())
}

fn conversation(fields: &mut Fields, echo: &mut Map<String, Value>) -> Result<Messages, ApiError> {
    let instructions: Option<String> = fields.take("instructions")?;
    let input: Input = fields.required("input")?;
    echo.insert("instructions".to_owned(), json!(instructions));
    let mut messages = Messages {
        messages: input::messages(instructions, input)?,
        arguments: fields.take("chat_template_kwargs")?.unwrap_or_default(),
        ..Messages::default()
    };
    let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
    for (at, tool) in tools.iter().enumerate() {
        messages.tools.push(nested(tool, at)?);
    }
    messages.parallel_tool_calls = fields.take("parallel_tool_calls")?.unwrap_or(true);
    let choice: Value = fields.take("tool_choice")?.unwrap_or_else(|| "auto".into());
    messages.tool_choice = tool_choice(&choice, &messages.tools)?;
    echo.insert("tools".to_owned(), tools.into());
    echo.insert("tool_choice".to_owned(), choice);
    echo.insert("parallel_tool_calls".to_owned(), messages.parallel_tool_calls.into());
    Ok(messages)
}

/// A tool in the shape that chats use: its fields stand in `function`.
fn nested(tool: &Value, at: usize) -> Result<Value, ApiError> {
    let refused = |field: &str, problem: String| {
        let param = format!("tools[{at}]{field}");
        Err(ApiError::invalid_param(&*param, format!("{param} {problem}")))
    };
    let Some(fields) = tool.as_object() else { return refused("", "must be an object".to_owned()) };
    match fields.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(other) => {
            return refused(".type", format!("is {other:?}; this server has no tools but functions"));
        }
        None => return refused(".type", "must be \"function\"".to_owned()),
    }
    if fields.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return refused(".name", "must be a string that is not empty".to_owned());
    }
    if fields.get("parameters").is_some_and(|schema| !schema.is_object() && !schema.is_null()) {
        return refused(".parameters", "must be a JSON schema, which is an object".to_owned());
    }
    let kept = fields.iter().filter(|(name, value)| *name != "type" && !value.is_null());
    let function: Map<String, Value> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &Value, tools: &[Value]) -> Result<ToolChoice, ApiError> {
    let refused =
        |message: String| Err(ApiError::invalid_param("tool_choice", message).with_code("invalid_value"));
    let found = match (
        choice.as_str(),
        choice.get("type").and_then(Value::as_str),
        choice.get("name").and_then(Value::as_str),
    ) {
        (Some("auto"), ..) => return Ok(ToolChoice::Auto),
        (Some("none"), ..) => return Ok(ToolChoice::Never),
        (Some("required"), ..) => ToolChoice::Required,
        (None, Some("function"), Some(name)) => ToolChoice::Function(name.to_owned()),
        _ => {
            return refused(format!(
                "tool_choice is {choice}, expected auto, none, required, or a function by its name"
            ));
        }
    };
    let is_there = match &found {
        ToolChoice::Function(name) => tools.iter().any(|tool| tool["function"]["name"] == name.as_str()),
        _ => !tools.is_empty(),
    };
    if is_there {
        Ok(found)
    } else {
        refused("tool_choice asks for a call, but tools has no such tool".to_owned())
    }
}

/// `text.format`.
fn format(
    fields: &mut Fields,
    generation: &Generation,
    echo: &mut Map<String, Value>,
) -> Result<Format, ApiError> {
    #[derive(Deserialize)]
    struct Text {
        format: Option<Map<String, Value>>,
    }
    let asked = fields.take::<Text>("text")?.and_then(|text| text.format);
    let Some(asked) = asked else {
        echo.insert("text".to_owned(), json!({"format": {"type": "text"}}));
        return Ok(generation.format.clone());
    };
    let format = match asked.get("type").and_then(Value::as_str) {
        Some("text") => Format::Text,
        Some("json_object") => Format::JsonObject,
        Some("json_schema") => match asked.get("schema") {
            Some(schema) if !schema.is_null() => Format::JsonSchema(schema.clone()),
            _ => {
                let param = "text.format.schema";
                let error = ApiError::invalid_param(param, format!("you must provide {param}"));
                return Err(error.with_code("missing_required_parameter"));
            }
        },
        other => {
            let message = format!(
                "the format is {:?}, expected text, json_object or json_schema",
                other.unwrap_or_default()
            );
            return Err(ApiError::invalid_param("text.format.type", message).with_code("invalid_value"));
        }
    };
    echo.insert("text".to_owned(), json!({"format": asked}));
    Ok(format)
}

/// `reasoning.effort`, which a template may know.
fn reasoning(
    fields: &mut Fields,
    messages: &mut Messages,
    echo: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    #[derive(Default, Deserialize)]
    struct Reasoning {
        effort: Option<String>,
    }
    let Reasoning { effort } = fields.take("reasoning")?.unwrap_or_default();
    echo.insert("reasoning".to_owned(), json!({"effort": effort, "summary": null}));
    if let Some(effort) = effort {
        if effort == "none" {
            messages.arguments.entry("enable_thinking").or_insert(Value::Bool(false));
        }
        messages.arguments.entry("reasoning_effort").or_insert(Value::String(effort));
    }
    Ok(())
}

/// What else the response repeats.
fn repeat(
    fields: &mut Fields,
    generation: &Generation,
    top: Option<usize>,
    echo: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let metadata: Map<String, Value> = fields.take("metadata")?.unwrap_or_default();
    for (name, value) in [
        ("max_output_tokens", json!(generation.max_tokens)),
        ("metadata", Value::Object(metadata)),
        ("temperature", json!(generation.sampling.temperature)),
        ("top_p", json!(generation.sampling.top_p)),
        ("top_logprobs", json!(top.unwrap_or(0))),
        ("user", json!(generation.user)),
    ] {
        echo.insert(name.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: Value) -> Fields {
        Fields::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn tools_are_those_of_chats() {
        let tool = json!({"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true, "description": null});
        let asked = json!({"input": "Hi", "tools": [tool], "tool_choice": {"type": "function", "name": "f"}});
        let mut echo = Map::new();
        let messages = conversation(&mut fields(asked), &mut echo).unwrap();
        let expected = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}});
        assert_eq!(messages.tools, [expected]);
        assert_eq!((messages.tool_choice, &echo["tools"][0]), (ToolChoice::Function("f".into()), &tool));
        for (tool, param) in [
            (json!({"type": "web_search"}), "tools[0].type"),
            (json!({"type": "function"}), "tools[0].name"),
            (json!({"type": "function", "name": "f", "parameters": 5}), "tools[0].parameters"),
            (json!(5), "tools[0]"),
        ] {
            let error = conversation(&mut fields(json!({"input": "Hi", "tools": [tool]})), &mut Map::new())
                .unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
        let error =
            conversation(&mut fields(json!({"input": "Hi", "tool_choice": "required"})), &mut Map::new())
                .unwrap_err();
        assert_eq!(error.param.as_deref(), Some("tool_choice"));
    }

    #[test]
    fn what_needs_a_memory_is_refused() {
        for (name, value) in [
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!("conv_1")),
            ("prompt", json!({"id": "p"})),
            ("background", json!(true)),
        ] {
            let error = refuse_memory(&mut fields(json!({name: value}))).unwrap_err();
            assert_eq!((error.param.as_deref(), error.code), (Some(name), Some("unsupported_parameter")));
        }
        assert!(
            refuse_memory(&mut fields(json!({"background": false, "previous_response_id": null}))).is_ok()
        );
    }

    #[test]
    fn formats_and_efforts_are_read() {
        let of =
            |text: Value| format(&mut fields(json!({"text": text})), &Generation::default(), &mut Map::new());
        let schema = json!({"type": "object"});
        let asked = json!({"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}});
        assert_eq!(of(asked).unwrap(), Format::JsonSchema(schema));
        assert_eq!(of(json!({"format": {"type": "json_object"}})).unwrap(), Format::JsonObject);
        assert_eq!(of(json!({"verbosity": "low"})).unwrap(), Format::Text);
        for (text, param) in [
            (json!({"format": {"type": "xml"}}), "text.format.type"),
            (json!({"format": {"type": "json_schema"}}), "text.format.schema"),
            (json!({"format": 5}), "text.format"),
        ] {
            assert_eq!(of(text).unwrap_err().param.as_deref(), Some(param));
        }
        let mut messages = Messages::default();
        reasoning(&mut fields(json!({"reasoning": {"effort": "none"}})), &mut messages, &mut Map::new())
            .unwrap();
        assert_eq!(
            Value::Object(messages.arguments),
            json!({"enable_thinking": false, "reasoning_effort": "none"})
        );
    }
}
