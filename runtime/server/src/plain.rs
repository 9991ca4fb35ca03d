//! Routes that belong to no interface: how the server is, and its texts as tokens, in the shapes of llama-server.

use crate::body::Fields;
use crate::error::ApiError;
use crate::front::{Front, Loaded};
use crate::openai;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /health`: whether requests are answered.
pub async fn health(State(front): State<Arc<Front>>) -> Response {
    let (status, word) = match front.state() {
        _ if front.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Some(_) => (StatusCode::OK, "ok"),
    };
    (status, Json(json!({"status": word}))).into_response()
}

/// `GET /metrics`: counters and gauges for Prometheus.
pub async fn metrics(State(front): State<Arc<Front>>) -> Response {
    let statistics = front.state().map(|state| (state.name.as_str(), state.scheduler.statistics()));
    let text = front.metrics().text(statistics.as_ref().map(|(name, statistics)| (*name, statistics)));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /slots`: what runs now.
pub async fn slots(Loaded(state): Loaded) -> Json<Value> {
    let running = state.scheduler.slots();
    let context = state.scheduler.context_length();
    let all = state.scheduler.options().slots.max(running.len());
    let slots = (0..all).map(|id| match running.get(id) {
        Some(slot) => json!({
            "id": id,
            "is_processing": true,
            "n_ctx": context,
            "request": slot.request,
            "prompt_tokens": slot.prompt,
            "position": slot.position,
            "generated_tokens": slot.generated,
            "age_ms": slot.arrived.elapsed().as_millis() as u64,
        }),
        None => json!({"id": id, "is_processing": false, "n_ctx": context}),
    });
    Json(Value::Array(slots.collect()))
}

/// `POST /tokenize`: `{"content"}` to `{"tokens"}`.
pub async fn tokenize(Loaded(state): Loaded, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    let content: String = fields.required("content")?;
    let add_special = fields.take("add_special")?.unwrap_or(false);
    let with_pieces = fields.take("with_pieces")?.unwrap_or(false);
    let tokenizer = state.tokenizer()?.clone();
    let shared = state.clone();
    let tokens = state.blocking(move |_| {
        let ids = tokenizer.encode(&content, add_special);
        let ids = ids.map_err(|error| ApiError::invalid_param("content", error.to_string()))?;
        if !with_pieces {
            return Ok(json!(ids));
        }
        let piece = |id: u32| {
            let token = shared.token_text(id)?;
            // Bytes that are no whole characters are given as numbers.
            let piece = String::from_utf8(token.bytes).map_or_else(|e| json!(e.into_bytes()), Value::from);
            Ok(json!({"id": id, "piece": piece}))
        };
        ids.into_iter().map(piece).collect::<Result<Value, ApiError>>()
    });
    Ok(Json(json!({"tokens": tokens.await?})))
}

/// `POST /detokenize`: `{"tokens"}` to `{"content"}`.
pub async fn detokenize(Loaded(state): Loaded, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    let tokens: Vec<u32> = fields.required("tokens")?;
    let tokenizer = state.tokenizer()?.clone();
    if let Some(id) = tokens.iter().find(|&&id| tokenizer.token_of(id).is_none()) {
        let message = format!("the vocabulary has no token {id}");
        return Err(ApiError::invalid_param("tokens", message));
    }
    let decoded = state.blocking(move |_| {
        tokenizer.decode(&tokens, false).map_err(|error| ApiError::invalid_param("tokens", error.to_string()))
    });
    Ok(Json(json!({"content": decoded.await?})))
}

/// `POST /apply-template`: `{"messages"}` to the `{"prompt"}` that the chat template makes of them.
pub async fn apply_template(Loaded(state): Loaded, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    let messages = openai::messages::take(&mut fields)?;
    Ok(Json(json!({"prompt": state.render_prompt(messages).await?})))
}
