//! The fields of a request to `/v1/messages`.

use super::content;
use crate::body::Fields;
use crate::chat::{ChatRequest, Format, Generation, Messages, Prompt, ToolChoice};
use crate::error::ApiError;
use crate::openai::sampling;
use crate::state::AppState;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trit_runtime::sample::SamplerOverrides;

/// What a request asks for.
pub(super) struct Asked {
    pub request: ChatRequest,
    /// Whether the answer comes as events.
    pub stream: bool,
    /// Whether thoughts are left out of the answer.
    pub hides_thoughts: bool,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    description: Option<String>,
    input_schema: Option<Map<String, Value>>,
    #[serde(rename = "type")]
    kind: Option<String>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Choice {
    Auto {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Any {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Tool {
        name: String,
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    None,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    display: Option<String>,
}

#[derive(Default, Deserialize)]
struct OutputConfig {
    effort: Option<String>,
    format: Option<OutputFormat>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputFormat {
    JsonSchema { schema: Value },
}

#[derive(Default, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

/// Takes all fields.
pub(super) fn take(fields: &mut Fields, state: &AppState) -> Result<Asked, ApiError> {
    let mut messages = prompt(fields, state)?;
    let thinking: Option<Thinking> = fields.take("thinking")?;
    let config: OutputConfig = fields.take("output_config")?.unwrap_or_default();
    match thinking.as_ref().map(|thinking| thinking.kind.as_str()) {
        None | Some("adaptive") => {}
        Some("enabled") => set(&mut messages, "enable_thinking", true),
        Some("disabled") => set(&mut messages, "enable_thinking", false),
        Some(other) => {
            let message =
                format!("thinking is of the type {other:?}, expected enabled, disabled or adaptive");
            return Err(ApiError::invalid_param("thinking.type", message));
        }
    }
    if let Some(effort) = config.effort {
        set(&mut messages, "reasoning_effort", effort);
    }
    if let Some(arguments) = fields.take::<Map<String, Value>>("chat_template_kwargs")? {
        messages.arguments.extend(arguments);
    }
    let format = match config.format {
        Some(OutputFormat::JsonSchema { schema }) => Format::JsonSchema(schema),
        None => Format::Text,
    };
    let stop: Vec<String> = fields.take("stop_sequences")?.unwrap_or_default();
    sampling::check_stop(&stop, "stop_sequences")?;
    let max_tokens = fields.count("max_tokens", 1..=usize::MAX)?;
    let generation = Generation {
        max_tokens: Some(
            max_tokens.ok_or_else(|| ApiError::invalid_param("max_tokens", "max_tokens: field required"))?,
        ),
        stop,
        n: 1,
        seed: sampling::seed(fields)?,
        sampling: SamplerOverrides {
            temperature: fields.number("temperature", 0.0..=2.0)?,
            top_p: fields.number("top_p", 0.0..=1.0)?,
            top_k: fields.count("top_k", 0..=usize::MAX)?,
            min_p: fields.number("min_p", 0.0..=1.0)?,
            repeat_penalty: fields.number("repeat_penalty", f32::MIN_POSITIVE..=f32::MAX)?,
            ..SamplerOverrides::default()
        },
        format,
        user: fields.take::<Metadata>("metadata")?.unwrap_or_default().user_id,
        ..Generation::default()
    };
    let hides_thoughts = thinking.is_some_and(|thinking| thinking.display.as_deref() == Some("omitted"));
    let stream = fields.take("stream")?.unwrap_or(false);
    Ok(Asked {
        request: ChatRequest { prompt: Prompt::Messages(messages), generation },
        stream,
        hides_thoughts,
    })
}

fn set(messages: &mut Messages, name: &str, value: impl Into<Value>) {
    messages.arguments.insert(name.to_owned(), value.into());
}

/// Takes the fields that make the prompt.
pub(super) fn prompt(fields: &mut Fields, state: &AppState) -> Result<Messages, ApiError> {
    let model: String = fields.required("model")?;
    state.expect_model(Some(&model))?;
    let mut messages = Messages { parallel_tool_calls: true, ..Messages::default() };
    if let Some(system) = fields.take::<content::Text>("system")? {
        messages.messages.push(json!({"role": "system", "content": system.join("system")?}));
    }
    let said: Vec<content::Message> = fields.required("messages")?;
    if said.is_empty() {
        return Err(ApiError::invalid_param("messages", "messages: at least one message is required"));
    }
    for (at, message) in said.into_iter().enumerate() {
        message.add_to(&mut messages.messages, at)?;
    }
    // What the assistant has begun to say is continued.
    let last = messages.messages.last();
    messages.continue_last = last.is_some_and(|m| m["role"] == "assistant" && m.get("tool_calls").is_none());
    for (at, tool) in fields.take::<Vec<Tool>>("tools")?.unwrap_or_default().into_iter().enumerate() {
        messages.tools.push(tool.json(at)?);
    }
    let choice: Choice =
        fields.take("tool_choice")?.unwrap_or(Choice::Auto { disable_parallel_tool_use: false });
    let (tool_choice, one) = match choice {
        Choice::None => (ToolChoice::Never, false),
        Choice::Auto { disable_parallel_tool_use: one } => (ToolChoice::Auto, one),
        Choice::Any { disable_parallel_tool_use: one } => (ToolChoice::Required, one),
        Choice::Tool { name, disable_parallel_tool_use: one } => {
            if !messages.tools.iter().any(|tool| tool["function"]["name"] == name.as_str()) {
                let message = format!("tool_choice names the tool {name:?}, which is not among the tools");
                return Err(ApiError::invalid_param("tool_choice.name", message));
            }
            (ToolChoice::Function(name), one)
        }
    };
    if tool_choice == ToolChoice::Required && messages.tools.is_empty() {
        return Err(ApiError::invalid_param(
            "tool_choice",
            "tool_choice demands a tool, but there are no tools",
        ));
    }
    (messages.tool_choice, messages.parallel_tool_calls) = (tool_choice, !one);
    Ok(messages)
}

impl Tool {
    /// The tool in OpenAI's shape.
    fn json(self, at: usize) -> Result<Value, ApiError> {
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            let message = format!(
                "tools[{at}] is of the type {kind:?}, which this server does not have; describe the tool with name and input_schema"
            );
            return Err(ApiError::invalid_param(format!("tools[{at}].type"), message));
        }
        let Some(schema) = self.input_schema else {
            let param = format!("tools[{at}].input_schema");
            return Err(ApiError::invalid_param(&*param, format!("{param}: field required")));
        };
        let mut function = Map::new();
        function.insert("name".to_owned(), self.name.into());
        if let Some(description) = self.description {
            function.insert("description".to_owned(), description.into());
        }
        function.insert("parameters".to_owned(), schema.into());
        if let Some(strict) = self.strict {
            function.insert("strict".to_owned(), strict.into());
        }
        Ok(json!({"type": "function", "function": function}))
    }
}
