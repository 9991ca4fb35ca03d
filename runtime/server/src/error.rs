//! What went wrong with a request, in the shape that each interface's clients expect.
//!
//! Statuses are those that the official client libraries of OpenAI and Anthropic turn into exception classes of their own.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// The field of the request that is wrong, such as `messages[0].content`.
    pub param: Option<String>,
    /// A name for the error that programs look for, such as `context_length_exceeded`.
    pub code: Option<&'static str>,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense, or asks for what is not possible.
    InvalidRequest,
    /// There is no such model, or no such address.
    NotFound,
    /// The address takes no requests of this method.
    MethodNotAllowed,
    /// The key is missing or wrong.
    Unauthorized,
    /// The request comes from a place that may not ask.
    Forbidden,
    /// The request is too large.
    TooLarge,
    /// As many requests wait as may wait.
    Overloaded {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The server is starting or ending.
    Unavailable,
    /// The request took too long.
    Timeout,
    /// A defect, or a failure of the machine.
    Internal,
}

/// An interface, by the shape that its errors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// Anthropic's: `{"type": "error", "error": {"type", "message"}}`.
    Anthropic,
}

impl Interface {
    /// The interface that an address belongs to.
    pub fn of(path: &str) -> Interface {
        match path.strip_prefix("/v1/messages") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Interface::Anthropic,
            _ => Interface::OpenAi,
        }
    }
}

impl ApiError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into(), param: None, code: None }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::InvalidRequest, message)
    }

    /// A field of a request that makes no sense.
    pub fn invalid_param(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::invalid(message) }
    }

    /// A defect, or a failure of the machine.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Internal, message)
    }

    /// The same error with a name that programs look for.
    pub fn with_code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// The same error about a field of the request.
    pub fn with_param(self, param: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..self }
    }

    /// The status of an answer with this error.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error as an interface's JSON.
    pub fn body(&self, interface: Interface) -> Value {
        let ApiError { message, param, code, .. } = self;
        match interface {
            Interface::OpenAi => {
                json!({"error": {"message": message, "type": self.openai_type(), "param": param, "code": code}})
            }
            Interface::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_type(), "message": message}})
            }
        }
    }

    /// The error as an answer in an interface's shape.
    pub fn response(&self, interface: Interface) -> Response {
        let mut response = (self.status(), Json(self.body(interface))).into_response();
        let headers = response.headers_mut();
        match self.kind {
            ErrorKind::Overloaded { retry_after } => {
                // Whole seconds, rounded up: those who come early wait again.
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            // Client libraries repeat a request that fails this way. What took too long would take as long again.
            ErrorKind::Timeout => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            ErrorKind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    fn openai_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::InvalidRequest
            | ErrorKind::NotFound
            | ErrorKind::MethodNotAllowed
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::TooLarge => "invalid_request_error",
            ErrorKind::Overloaded { .. } => "rate_limit_error",
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal => "server_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::InvalidRequest | ErrorKind::MethodNotAllowed => "invalid_request_error",
            ErrorKind::NotFound => "not_found_error",
            ErrorKind::Unauthorized => "authentication_error",
            ErrorKind::Forbidden => "permission_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::Overloaded { .. } => "rate_limit_error",
            ErrorKind::Unavailable => "overloaded_error",
            ErrorKind::Timeout => "timeout_error",
            ErrorKind::Internal => "api_error",
        }
    }
}

impl IntoResponse for ApiError {
    /// An answer that carries the error. What every answer passes on its way out renders it in the shape of the interface
    /// that the request belongs to.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_its_own_shape() {
        let error = ApiError::invalid_param("temperature", "too hot").with_code("invalid_value");
        let expected = json!({"error": {"message": "too hot", "type": "invalid_request_error",
            "param": "temperature", "code": "invalid_value"}});
        assert_eq!(error.body(Interface::OpenAi), expected);
        let expected =
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "too hot"}});
        assert_eq!(error.body(Interface::Anthropic), expected);
        assert_eq!(error.response(Interface::OpenAi).status(), 400);
    }

    #[test]
    fn who_must_wait_is_told_how_long() {
        let kind = ErrorKind::Overloaded { retry_after: Duration::from_millis(1200) };
        let response = ApiError::new(kind, "full").response(Interface::OpenAi);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
            (429, &"2".parse().unwrap())
        );
        let timeout = ApiError::new(ErrorKind::Timeout, "slow").response(Interface::Anthropic);
        assert_eq!(
            (timeout.status().as_u16(), timeout.headers()["x-should-retry"].as_bytes()),
            (504, &b"false"[..])
        );
    }

    #[test]
    fn addresses_say_which_interface_is_spoken() {
        assert_eq!(Interface::of("/v1/messages"), Interface::Anthropic);
        assert_eq!(Interface::of("/v1/messages/count_tokens"), Interface::Anthropic);
        assert_eq!(Interface::of("/v1/messagesx"), Interface::OpenAi);
        assert_eq!(Interface::of("/health"), Interface::OpenAi);
    }
}
