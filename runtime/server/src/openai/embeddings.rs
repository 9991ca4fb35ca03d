//! `/v1/embeddings`: one vector for each text.
//!
//! Texts run directly on the engine that the scheduler's requests run on, a few tokens at a time and one text after the other.
//! The engine gives turns in the order in which they are asked for, so that an answer waits for one of these short steps
//! at most before each of its own.

use super::texts::Texts;
use crate::body::Fields;
use crate::error::{ApiError, ErrorKind};
use crate::front::Loaded;
use crate::run::runtime_error;
use crate::state::AppState;
use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trit_runtime::text::TextError;
use trit_runtime::{Pooling, SequenceOptions};

/// Most texts of a request, as in OpenAI's interface.
const MOST_TEXTS: usize = 2048;
/// Tokens of a step beside answers that are being generated, and where there are none.
const ROWS: (usize, usize) = (16, 256);

/// `POST /v1/embeddings`.
pub async fn create(Loaded(state): Loaded, mut fields: Fields) -> Result<Json<Value>, ApiError> {
    let Some(pooling) = state.options.embeddings else {
        let message = "this server makes no embeddings; it was started for answers alone";
        return Err(ApiError::new(ErrorKind::NotFound, message).with_code("unsupported_endpoint"));
    };
    state.expect_model(fields.take::<String>("model")?.as_deref())?;
    let texts = texts(&mut fields)?;
    let encoding = fields.take::<Encoding>("encoding_format")?.unwrap_or(Encoding::Float);
    let dimensions = state.model.manifest().hyperparameters.hidden_dim as usize;
    if fields.count("dimensions", 1..=usize::MAX)?.is_some_and(|asked| asked != dimensions) {
        let message =
            format!("this model's embeddings have {dimensions} dimensions, and cannot be shortened");
        return Err(ApiError::invalid_param("dimensions", message).with_code("invalid_value"));
    }
    let mut ids = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        ids.push(tokens(&state, text, index).await?);
    }
    let prompt_tokens: usize = ids.iter().map(Vec::len).sum();
    let mut data = Vec::with_capacity(ids.len());
    for (index, ids) in ids.into_iter().enumerate() {
        let embedded = state.clone();
        let turns = state.embeddings.clone();
        let vector = state.blocking_on(turns, move |stop| embed(&embedded, &ids, pooling, stop)).await?;
        let embedding = match encoding {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(base64::encode(bytes))
            }
        };
        data.push(json!({"object": "embedding", "index": index, "embedding": embedding}));
    }
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": state.name,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    })))
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// Numbers.
    Float,
    /// The bytes of f32 values, little-endian, in base64.
    Base64,
}

/// A text, or its tokens.
#[derive(Debug, PartialEq, Eq)]
enum Text {
    Words(String),
    Ids(Vec<u32>),
}

fn texts(fields: &mut Fields) -> Result<Vec<Text>, ApiError> {
    let texts: Vec<Text> = match fields.required("input")? {
        Texts::One(text) => vec![Text::Words(text)],
        Texts::Ids(ids) if ids.is_empty() => Vec::new(),
        Texts::Ids(ids) => vec![Text::Ids(ids)],
        Texts::Several(texts) => texts.into_iter().map(Text::Words).collect(),
        Texts::Lists(lists) => lists.into_iter().map(Text::Ids).collect(),
    };
    let refused = |message: String| Err(ApiError::invalid_param("input", message).with_code("invalid_value"));
    match texts.len() {
        0 => refused("input is empty, expected at least one text".to_owned()),
        n if n > MOST_TEXTS => refused(format!("input has {n} texts, expected no more than {MOST_TEXTS}")),
        _ => Ok(texts),
    }
}

/// The tokens of the text that stands at `index`.
async fn tokens(state: &Arc<AppState>, text: Text, index: usize) -> Result<Vec<u32>, ApiError> {
    let param = format!("input[{index}]");
    let refused =
        |message: String| ApiError::invalid_param(param.clone(), message).with_code("invalid_value");
    let limit = state.scheduler.context_length();
    let too_long = |at_least: usize| {
        let message = format!("{param} has at least {at_least} tokens, and the context has room for {limit}");
        ApiError::invalid_param(param.clone(), message).with_code("context_length_exceeded")
    };
    let ids = match text {
        Text::Ids(ids) => {
            let vocab = state.vocab_size();
            if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
                return Err(refused(format!("{param} has the token {id}, but the model has {vocab} tokens")));
            }
            ids
        }
        Text::Words(text) => {
            let tokenizer = state.tokenizer()?.clone();
            let encoded = state.blocking(move |_| Ok(tokenizer.encode_within(&text, true, limit))).await?;
            encoded.map_err(|error| match error {
                TextError::TooLong { at_least, .. } => too_long(at_least),
                other => refused(other.to_string()),
            })?
        }
    };
    match ids.len() {
        0 => Err(refused(format!("{param} is empty"))),
        n if n > limit => Err(too_long(n)),
        _ => Ok(ids),
    }
}

/// The embedding of a text. Nobody waits for it any more once `stop` is set.
fn embed(state: &AppState, ids: &[u32], pooling: Pooling, stop: &AtomicBool) -> Result<Vec<f32>, ApiError> {
    let (engine, scheduler) = (state.scheduler.engine(), &state.scheduler);
    let failed = |error| runtime_error(&error);
    let context = Some(scheduler.context_length());
    let options = SequenceOptions { context, snapshots: 0, ..scheduler.options().sequence };
    let mut sequence = engine.sequence(options).map_err(failed)?;
    let rows = || if scheduler.statistics().running > 0 { ROWS.0 } else { ROWS.1 };
    engine.embed(&mut sequence, ids, pooling, rows, Some(stop)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Text>, ApiError> {
        texts(&mut Fields::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn inputs_are_texts_or_tokens() {
        let words = |text: &str| Text::Words(text.to_owned());
        assert_eq!(read(r#"{"input": "a"}"#).unwrap(), [words("a")]);
        assert_eq!(read(r#"{"input": ["a", "b"]}"#).unwrap(), [words("a"), words("b")]);
        assert_eq!(read(r#"{"input": [1, 2]}"#).unwrap(), [Text::Ids(vec![1, 2])]);
        assert_eq!(read(r#"{"input": [[1], [2, 3]]}"#).unwrap(), [Text::Ids(vec![1]), Text::Ids(vec![2, 3])]);
        for wrong in
            [r#"{}"#, r#"{"input": []}"#, r#"{"input": 3}"#, r#"{"input": [-1]}"#, r#"{"input": ["a", 1]}"#]
        {
            let error = read(wrong).unwrap_err();
            assert_eq!(
                (error.kind, error.param.as_deref()),
                (ErrorKind::InvalidRequest, Some("input")),
                "{wrong}"
            );
        }
        let many = json!({"input": vec!["a"; MOST_TEXTS + 1]}).to_string();
        assert!(read(&many).unwrap_err().message.contains("2048"));
    }
}
