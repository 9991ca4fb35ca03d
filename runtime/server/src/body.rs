//! Bodies of requests: read within limits, parsed, and taken apart field by field, so that an error names its field.
//!
//! Many large bodies at a time could take more memory than there is, so few of them are read at a time. Small ones never wait
//! for large ones.

use crate::error::{ApiError, ErrorKind};
use crate::front::Front;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// A body of more bytes is large.
const LARGE: usize = 64 << 10;
/// How many large bodies are read and parsed at a time. Parsed, a body takes up to twenty times its size.
static LARGE_ONES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4));

/// The fields of a request: a JSON object. Fields that nobody takes are ignored.
#[derive(Clone, Debug, Default)]
pub struct Fields(Map<String, Value>);

impl FromRequest<Arc<Front>> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, front: &Arc<Front>) -> Result<Fields, ApiError> {
        let options = front.options();
        let limit = options.max_body;
        let too_large =
            || ApiError::new(ErrorKind::TooLarge, format!("the body is larger than {limit} bytes"));
        let stated = request.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        if stated.is_some_and(|len: usize| len > limit) {
            return Err(too_large());
        }
        let read = read(request.into_body(), limit);
        let slow = |_| ApiError::new(ErrorKind::Timeout, "the body came too slowly");
        let (bytes, _permit) =
            timeout(options.transfer_timeout, read).await.map_err(slow)??.ok_or_else(too_large)?;
        if bytes.len() <= LARGE {
            return Fields::parse(&bytes);
        }
        let parsed = tokio::task::spawn_blocking(move || Fields::parse(&bytes)).await;
        parsed.map_err(|_| ApiError::internal("the body could not be parsed"))?
    }
}

/// The bytes of a body; `None` where there are more than `limit`. What comes with them must live while they are used.
async fn read(
    body: Body,
    limit: usize,
) -> Result<Option<(Vec<u8>, Option<tokio::sync::SemaphorePermit<'static>>)>, ApiError> {
    let (mut bytes, mut permit) = (Vec::new(), None);
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::invalid("the body broke off"))?;
        if frame.len() > limit - bytes.len() {
            return Ok(None);
        }
        if bytes.len() + frame.len() > LARGE && permit.is_none() {
            permit = LARGE_ONES.acquire().await.ok();
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(Some((bytes, permit)))
}

impl Fields {
    /// Parses a body.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where it is no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(other) => {
                Err(ApiError::invalid(format!("the body must be a JSON object, but is {}", kind(&other))))
            }
            Err(error) => Err(ApiError::invalid(format!("the body is no JSON: {error}"))),
        }
    }

    /// Takes a field; `None` where it is missing or null.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] naming the field, or the part of it, that has the wrong type.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.0.remove(name).filter(|value| !value.is_null()) else { return Ok(None) };
        serde_path_to_error::deserialize(value).map(Some).map_err(|error| {
            let param = match error.path().to_string().as_str() {
                "." => name.to_owned(),
                inner if inner.starts_with('[') => format!("{name}{inner}"),
                inner => format!("{name}.{inner}"),
            };
            ApiError::invalid_param(&*param, format!("{param}: {}", error.into_inner()))
        })
    }

    /// Whether there is such a field, which is not null.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    ///
    /// # Errors
    /// As [`Fields::take`], and where it is missing.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        let missing = || {
            let message = format!("you must provide {name}");
            ApiError::invalid_param(name, message).with_code("missing_required_parameter")
        };
        self.take(name)?.ok_or_else(missing)
    }

    /// Takes a number within a range.
    ///
    /// # Errors
    /// As [`Fields::take`], and where it is outside.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take::<f32>(name)? else { return Ok(None) };
        match range.contains(&value) {
            true => Ok(Some(value)),
            false => {
                let expected = match (range.start(), range.end()) {
                    (low, &f32::MAX) => format!("{low} or more"),
                    (low, high) => format!("from {low} to {high}"),
                };
                let message = format!("{name} is {value}, expected a number {expected}");
                Err(ApiError::invalid_param(name, message).with_code("invalid_value"))
            }
        }
    }

    /// Takes a count within a range.
    ///
    /// # Errors
    /// As [`Fields::take`], and where it is outside.
    pub fn count(&mut self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take::<i64>(name)? else { return Ok(None) };
        match usize::try_from(value).ok().filter(|value| range.contains(value)) {
            Some(value) => Ok(Some(value)),
            None => {
                let expected = match (range.start(), range.end()) {
                    (low, &usize::MAX) => format!("{low} or more"),
                    (low, high) => format!("from {low} to {high}"),
                };
                let message = format!("{name} is {value}, expected a whole number {expected}");
                Err(ApiError::invalid_param(name, message).with_code("invalid_value"))
            }
        }
    }
}

/// What a value is, in the words of JSON.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn errors_name_the_field_and_the_part_of_it() {
        let mut all =
            fields(r#"{"a": "x", "b": [1, "y"], "c": null, "d": {"e": [{"f": 1}]}, "g": -1, "h": 3.5}"#);
        assert_eq!(all.take::<String>("a").unwrap().as_deref(), Some("x"));
        assert_eq!(all.take::<Vec<u32>>("b").unwrap_err().param.as_deref(), Some("b[1]"));
        assert_eq!(all.take::<String>("c").unwrap(), None);
        #[derive(serde::Deserialize, Debug)]
        struct Outer {
            #[allow(dead_code)]
            e: Vec<std::collections::BTreeMap<String, String>>,
        }
        assert_eq!(all.take::<Outer>("d").unwrap_err().param.as_deref(), Some("d.e[0].f"));
        let error = all.count("g", 1..=usize::MAX).unwrap_err();
        assert_eq!(error.message, "g is -1, expected a whole number 1 or more");
        assert_eq!(
            all.number("h", 0.0..=2.0).unwrap_err().message,
            "h is 3.5, expected a number from 0 to 2"
        );
        assert_eq!(all.required::<String>("z").unwrap_err().param.as_deref(), Some("z"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (bytes, words) in [
            (&b"[1]"[..], "an array"),
            (b"", "no JSON"),
            (b"{\"a\": \xff\"}", "no JSON"),
            (b"{\"a\": \"\xff\"}", "no JSON"),
        ] {
            let error = Fields::parse(bytes).unwrap_err();
            assert!(error.message.contains(words) && error.kind == ErrorKind::InvalidRequest, "{error}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Fields::parse(format!("{{\"a\": {deep}}}").as_bytes()).is_err());
    }
}
