//! Anthropic's interface: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! | module | holds |
//! |---|---|
//! | `request` | the fields of a request |
//! | `content` | messages in Anthropic's blocks to messages as chat templates know them |
//! | `blocks` | an answer as blocks |
//! | `events` | an answer as events |

mod blocks;
mod content;
mod events;
mod request;

use crate::body::Fields;
use crate::chat::{Answers, Content, FinishReason, Prompt, Usage};
use crate::error::ApiError;
use crate::front::Loaded;
use crate::sse;
use crate::state::Caller;
use axum::Json;
use axum::response::{IntoResponse, Response};
use blocks::Blocks;
use serde_json::{Value, json};

/// `POST /v1/messages`.
///
/// # Errors
/// [`ApiError`] where the request makes no sense or cannot be run.
pub async fn create(Loaded(state): Loaded, caller: Caller, mut fields: Fields) -> Result<Response, ApiError> {
    let asked = request::take(&mut fields, &state)?;
    let answers = state.answer(asked.request, &caller).await?;
    let message = Message { id: crate::answer::unique("msg_"), model: state.name.clone() };
    if asked.stream {
        let events = events::MessageEvents::new(message, answers.prompt_tokens(), asked.hides_thoughts);
        return Ok(sse::stream(answers, events, state.options.keep_alive));
    }
    Ok(Json(whole(answers, &message, asked.hides_thoughts).await?).into_response())
}

/// `POST /v1/messages/count_tokens`: how many tokens the prompt of a request has.
///
/// # Errors
/// [`ApiError`] where the request makes no sense, or is too long for the context.
pub async fn count_tokens(Loaded(state): Loaded, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    let messages = request::prompt(&mut fields, &state)?;
    let made = state.make_prompt(&Prompt::Messages(messages)).await?;
    Ok(Json(json!({"input_tokens": made.ids.len()})))
}

/// What a message says of itself.
struct Message {
    id: String,
    model: String,
}

impl Message {
    fn json(&self, content: Value, end: Option<&FinishReason>, usage: &Value) -> Value {
        let (stop_reason, stop_sequence) = end.map_or((Value::Null, Value::Null), stop);
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": stop_sequence, "usage": usage,
        })
    }
}

async fn whole(mut answers: Answers, message: &Message, hides_thoughts: bool) -> Result<Value, ApiError> {
    let mut blocks = Blocks::new(hides_thoughts);
    let mut end = None;
    while let Some(delta) = answers.next().await {
        match delta?.content {
            Content::Part(part) => blocks.push(part),
            Content::End { finish, usage } => end = Some((finish, usage)),
        }
    }
    let (finish, usage) = end.ok_or_else(|| ApiError::internal("an answer broke off"))?;
    Ok(message.json(blocks.into_json(), Some(&finish), &usage_json(&usage)))
}

/// Why an answer ended, and the text that it stopped at.
fn stop(finish: &FinishReason) -> (Value, Value) {
    match finish {
        FinishReason::Stop => ("end_turn".into(), Value::Null),
        FinishReason::StopText(text) => ("stop_sequence".into(), text.as_str().into()),
        FinishReason::Length => ("max_tokens".into(), Value::Null),
        FinishReason::ToolCalls => ("tool_use".into(), Value::Null),
    }
}

/// Anthropic counts tokens that were cached apart from the others of the prompt.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.generated,
    })
}
