//! Addresses and who answers at them.

use crate::front::Front;
use crate::{anthropic, openai, page, plain};
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;

/// Addresses that need no key: whether the server is there, and the page, which asks for the key.
pub const OPEN: [&str; 2] = ["/health", "/"];

/// Every address, as the metrics name it.
const KNOWN: [&str; 17] = [
    "/",
    "/health",
    "/metrics",
    "/slots",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/tokenize",
    "/v1/detokenize",
];

/// What the metrics call an address: one of those that are known, so that nobody can make up names without end.
pub fn label(path: &str) -> &'static str {
    match path.strip_prefix("/v1/models/") {
        Some(_) => "/v1/models/{id}",
        None => KNOWN.iter().find(|known| **known == path).copied().unwrap_or("other"),
    }
}

/// All of them.
pub fn all() -> Router<Arc<Front>> {
    page::routes()
        .route("/health", get(plain::health))
        .route("/metrics", get(plain::metrics))
        .route("/slots", get(plain::slots))
        .route("/tokenize", post(plain::tokenize))
        .route("/detokenize", post(plain::detokenize))
        .route("/apply-template", post(plain::apply_template))
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/responses", post(openai::responses::create))
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{id}", get(openai::models::one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_few_names() {
        assert_eq!(label("/v1/chat/completions"), "/v1/chat/completions");
        assert_eq!(label("/v1/models/anything"), "/v1/models/{id}");
        assert_eq!(label("/anything"), "other");
    }
}
