//! `/v1/responses`.
//!
//! Nothing is kept: a request that goes on where an earlier one ended brings along what was said, and one that names an earlier
//! response is refused.
//!
//! | module | holds |
//! |---|---|
//! | `request` | the fields of a request |
//! | `input` | items of input to messages |
//! | `output` | an answer as items, and what happens to them as events |

mod input;
mod output;
mod request;

use super::shapes;
use crate::body::Fields;
use crate::chat::{Content, Delta, FinishReason, Usage};
use crate::error::{ApiError, ErrorKind};
use crate::front::Loaded;
use crate::sse::{self, Events};
use crate::state::Caller;
use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use output::Output;
use serde_json::{Map, Value, json};

/// `POST /v1/responses`.
///
/// # Errors
/// [`ApiError`] where the request makes no sense or cannot be run.
pub async fn create(Loaded(state): Loaded, caller: Caller, mut fields: Fields) -> Result<Response, ApiError> {
    let asked = request::take(&mut fields, &state)?;
    let mut answers = state.answer(asked.request, &caller).await?;
    let head = Head {
        id: shapes::new_id("resp_"),
        created: shapes::now(),
        model: state.name.clone(),
        echo: asked.echo,
    };
    let output = Output::new(asked.logprobs);
    if asked.stream {
        let events = ResponseEvents { head, output, number: 0, end: None };
        return Ok(sse::stream(answers, events, state.options.keep_alive));
    }
    let (mut output, mut end) = (output, None);
    while let Some(delta) = answers.next().await {
        let delta = delta?;
        match delta.content {
            Content::Part(part) => drop(output.push(part, &delta.tokens)),
            Content::End { finish, usage } => {
                output.end(&finish, &delta.tokens);
                end = Some((finish, usage));
            }
        }
    }
    let (finish, usage) = end.ok_or_else(|| ApiError::internal("an answer broke off"))?;
    Ok(Json(head.ended(&output, &finish, &usage)).into_response())
}

/// What a response says of itself.
struct Head {
    id: String,
    created: u64,
    model: String,
    /// Fields of the request that the response repeats.
    echo: Map<String, Value>,
}

impl Head {
    fn json(&self, status: &str, output: Value) -> Value {
        let mut all = json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "background": false,
            "error": null, "incomplete_details": null, "model": self.model, "output": output,
            "previous_response_id": null, "store": false, "truncation": "disabled", "usage": null,
        });
        if let Some(all) = all.as_object_mut() {
            all.extend(self.echo.clone());
        }
        all
    }

    fn ended(&self, output: &Output, finish: &FinishReason, usage: &Usage) -> Value {
        let cut_off = *finish == FinishReason::Length;
        let mut all = self.json(if cut_off { "incomplete" } else { "completed" }, output.items());
        if cut_off {
            all["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            all["completed_at"] = shapes::now().into();
        }
        all["usage"] = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
            "output_tokens": usage.generated,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.generated,
        });
        all
    }

    fn failed(&self, output: &Output, error: &ApiError) -> Value {
        let code = match error.kind {
            ErrorKind::InvalidRequest => "invalid_prompt",
            _ => "server_error",
        };
        let mut all = self.json("failed", output.items());
        all["error"] = json!({"code": code, "message": error.message});
        all
    }
}

/// Turns steps of an answer into events.
struct ResponseEvents {
    head: Head,
    output: Output,
    /// Of the next event.
    number: usize,
    end: Option<(FinishReason, Usage)>,
}

impl ResponseEvents {
    /// An event is named after its type, and all of them are numbered.
    fn event(&mut self, mut value: Value) -> Event {
        value["sequence_number"] = self.number.into();
        self.number += 1;
        let name = value["type"].as_str().unwrap_or_default().to_owned();
        Event::default().event(name).data(value.to_string())
    }

    fn events(&mut self, values: Vec<Value>) -> Vec<Event> {
        values.into_iter().map(|value| self.event(value)).collect()
    }
}

impl Events for ResponseEvents {
    fn begin(&mut self) -> Vec<Event> {
        let response = self.head.json("in_progress", json!([]));
        let event = |name: &str| json!({"type": name, "response": response});
        let events = vec![event("response.created"), event("response.in_progress")];
        self.events(events)
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        let events = match delta.content {
            Content::Part(part) => self.output.push(part, &delta.tokens),
            Content::End { finish, usage } => {
                let events = self.output.end(&finish, &delta.tokens);
                self.end = Some((finish, usage));
                events
            }
        };
        self.events(events)
    }

    fn error(&mut self, error: &ApiError) -> Vec<Event> {
        let response = self.head.failed(&self.output, error);
        vec![self.event(json!({"type": "response.failed", "response": response}))]
    }

    fn end(&mut self) -> Vec<Event> {
        let Some((finish, usage)) = self.end.take() else { return Vec::new() };
        let response = self.head.ended(&self.output, &finish, &usage);
        let name = match finish {
            FinishReason::Length => "response.incomplete",
            _ => "response.completed",
        };
        vec![self.event(json!({"type": name, "response": response}))]
    }
}
