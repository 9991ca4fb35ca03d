//! Answers as server-sent events.

use crate::chat::{Answers, Delta};
use crate::error::ApiError;
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_stream::Stream;

/// Turns steps of answers into the events of an interface.
pub trait Events: Send + Unpin + 'static {
    /// What comes before the first step.
    fn begin(&mut self) -> Vec<Event>;

    /// A step.
    fn delta(&mut self, delta: Delta) -> Vec<Event>;

    /// An answer failed; nothing comes after this.
    fn error(&mut self, error: &ApiError) -> Vec<Event>;

    /// All answers have ended.
    fn end(&mut self) -> Vec<Event>;
}

/// A stream of the events of `answers`, with a comment after each `keep_alive` of silence.
pub fn stream(answers: Answers, mut events: impl Events, keep_alive: Duration) -> Response {
    let waiting = events.begin().into();
    let stream = EventStream { answers, events, waiting, ended: false };
    let keep_alive = KeepAlive::new().interval(keep_alive).text("keep-alive");
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    // Proxies that collect answers before they pass them on are asked not to.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct EventStream<E> {
    answers: Answers,
    events: E,
    waiting: VecDeque<Event>,
    ended: bool,
}

impl<E: Events> Stream for EventStream<E> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let events = match Pin::new(&mut self.answers).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(delta))) => self.events.delta(delta),
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    self.events.error(&error)
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    self.events.end()
                }
            };
            self.waiting.extend(events);
        }
    }
}
