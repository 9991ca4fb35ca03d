//! `/v1/chat/completions`.

use super::shapes::{self, chat_logprobs, finish_reason};
use super::{messages, sampling};
use crate::answer::Part;
use crate::body::Fields;
use crate::chat::{Answer, ChatRequest, Content, Delta, Prompt, Usage};
use crate::error::ApiError;
use crate::front::Loaded;
use crate::sse::{self, Events};
use crate::state::Caller;
use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most of the most probable tokens that are told with each token.
pub const MOST_LOGPROBS: usize = 20;

/// How a stream is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    /// Whether an event with the usage comes before the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// `POST /v1/chat/completions`.
pub async fn create(Loaded(state): Loaded, caller: Caller, mut fields: Fields) -> Result<Response, ApiError> {
    state.expect_model(fields.take::<String>("model")?.as_deref())?;
    let stream = fields.take("stream")?.unwrap_or(false);
    let options: StreamOptions = fields.take("stream_options")?.unwrap_or_default();
    let conversation = messages::take(&mut fields)?;
    let mut generation = sampling::take(&mut fields, state.vocab_size())?;
    if let Some(kinds) = fields.take::<Vec<String>>("modalities")?
        && kinds.iter().any(|kind| kind != "text")
    {
        return Err(ApiError::invalid_param("modalities", "this model writes text only"));
    }
    let wanted = fields.take("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0..=MOST_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "top_logprobs needs logprobs to be true";
        return Err(ApiError::invalid_param("top_logprobs", message).with_code("invalid_value"));
    }
    generation.logprobs = wanted.then(|| top.unwrap_or(0));
    let answer = ChatRequest { prompt: Prompt::Messages(conversation), generation };
    let answers = state.answer(answer, &caller).await?;
    let head = Head { id: shapes::new_id("chatcmpl-"), created: shapes::now(), model: state.name.clone() };
    if stream {
        let events =
            Chunks { head, include_usage: options.include_usage, begun: answers.count(), usages: Vec::new() };
        return Ok(sse::stream(answers, events, state.options.keep_alive));
    }
    let answers = answers.collect().await?;
    Ok(Json(head.whole(&answers)).into_response())
}

/// What all chunks of an answer have in common.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn object(&self, object: &str, choices: Value) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, value) in [
            ("id", json!(self.id)),
            ("object", json!(object)),
            ("created", json!(self.created)),
            ("model", json!(self.model)),
            ("choices", choices),
        ] {
            map.insert(name.to_owned(), value);
        }
        map
    }

    fn whole(&self, answers: &[Answer]) -> Value {
        let choices = answers.iter().enumerate().map(|(index, answer)| {
            json!({
                "index": index,
                "message": message(answer),
                "logprobs": chat_logprobs(&answer.tokens),
                "finish_reason": answer.finish.as_ref().map(finish_reason),
            })
        });
        let mut whole = self.object("chat.completion", Value::Array(choices.collect()));
        let usages: Vec<Usage> = answers.iter().map(|answer| answer.usage).collect();
        whole.insert("usage".to_owned(), shapes::usage(&usages));
        if let [usage] = &usages[..] {
            whole.insert("timings".to_owned(), shapes::timings(usage));
        }
        Value::Object(whole)
    }
}

/// The message of an answer.
fn message(answer: &Answer) -> Value {
    let text = match answer.text.is_empty() && !answer.tool_calls.is_empty() {
        true => Value::Null,
        false => json!(answer.text),
    };
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    if !answer.tool_calls.is_empty() {
        let calls = answer.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        message["tool_calls"] = Value::Array(calls.collect());
    }
    message
}

/// The events of a stream.
struct Chunks {
    head: Head,
    include_usage: bool,
    /// How many answers there are, each of which begins with a chunk that says who speaks.
    begun: usize,
    /// Of the answers that have ended.
    usages: Vec<Usage>,
}

impl Chunks {
    fn chunk(&self, choices: Value) -> Map<String, Value> {
        let mut chunk = self.head.object("chat.completion.chunk", choices);
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    }

    fn choice(&self, index: usize, delta: Value, logprobs: Value, finish: Value) -> Map<String, Value> {
        self.chunk(json!([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]))
    }
}

impl Events for Chunks {
    fn begin(&mut self) -> Vec<Event> {
        let speaks = json!({"role": "assistant", "content": ""});
        let chunk = |index| self.choice(index, speaks.clone(), Value::Null, Value::Null);
        (0..self.begun).map(|index| shapes::event(&Value::Object(chunk(index)))).collect()
    }

    fn delta(&mut self, delta: Delta) -> Vec<Event> {
        let logprobs = chat_logprobs(&delta.tokens);
        let chunk = match delta.content {
            Content::Part(part) => {
                let new = match part {
                    Part::Reasoning(text) => json!({"reasoning_content": text}),
                    Part::Text(text) => json!({"content": text}),
                    Part::ToolCall { index, id, name } => {
                        let function = json!({"name": name, "arguments": ""});
                        json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
                    }
                    Part::ToolArguments { index, json } => {
                        json!({"tool_calls": [{"index": index, "function": {"arguments": json}}]})
                    }
                };
                self.choice(delta.choice, new, logprobs, Value::Null)
            }
            Content::End { finish, usage } => {
                let mut chunk = self.choice(delta.choice, json!({}), logprobs, json!(finish_reason(&finish)));
                chunk.insert("timings".to_owned(), shapes::timings(&usage));
                self.usages.push(usage);
                chunk
            }
        };
        vec![shapes::event(&Value::Object(chunk))]
    }

    fn error(&mut self, error: &ApiError) -> Vec<Event> {
        vec![shapes::error_event(error)]
    }

    fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.include_usage {
            let mut chunk = self.chunk(json!([]));
            chunk.insert("usage".to_owned(), shapes::usage(&self.usages));
            events.push(shapes::event(&Value::Object(chunk)));
        }
        events.push(shapes::done());
        events
    }
}
