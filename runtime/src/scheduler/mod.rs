//! The scheduler: many requests share one engine.

mod request;

pub use request::{Chosen, Ended, Event, Refused, Request, RequestError};
