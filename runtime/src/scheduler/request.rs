//! What is asked of a scheduler, and what it answers.

use crate::RuntimeError;
use crate::generate::Finish;
use crate::generate::guide::{Guide, GuideError};
use crate::sample::Sampler;
use std::time::Duration;

/// A text to continue.
pub struct Request {
    /// The tokens of the text so far, at least one.
    pub ids: Vec<u32>,
    /// Chooses the tokens of the answer.
    pub sampler: Sampler,
    /// Most tokens to generate.
    pub max_new: usize,
    /// Ids that end the answer, and are no part of it.
    pub stop_ids: Vec<u32>,
    /// Whether to go on after a stop id, which is then part of the answer.
    pub ignore_eos: bool,
    /// Restricts what may be said.
    pub guide: Option<Box<dyn Guide>>,
    /// How many of the most probable tokens are told with each token; `None` tells no probabilities.
    pub logprobs: Option<usize>,
    /// Who asks. Those who ask get turns in equal parts, however many requests each of them has.
    pub user: u64,
}

/// What becomes of a request. After [`Event::Ended`] nothing comes any more.
#[derive(Debug)]
pub enum Event {
    /// Its prompt begins to run.
    Began {
        /// Tokens of the prompt that need not run, because they ran for an earlier request.
        cached: usize,
    },
    /// A token was chosen.
    Token(Chosen),
    /// The answer has ended.
    Ended(Result<Ended, RequestError>),
}

/// A token that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub id: u32,
    /// Natural logarithm of the probability that the model gives it, before anything that chooses among tokens; `None`
    /// where [`Request::logprobs`] is `None`.
    pub logprob: Option<f32>,
    /// The most probable tokens with the same, most probable first; as many as [`Request::logprobs`] asks for.
    pub top: Vec<(u32, f32)>,
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Why.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// How many of them did not have to run.
    pub cached: usize,
    /// Tokens of the answer.
    pub generated: usize,
    /// Tokens drafted, and how many of them were accepted.
    pub drafted: (usize, usize),
    /// Time until the prompt began to run, from then to the first token, and for the other tokens.
    pub times: [Duration; 3],
}

/// Why an answer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The model could not be run on it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Its guide gave up.
    #[error("{0}")]
    Guide(#[from] GuideError),
    /// The scheduler was dropped.
    #[error("the server is shutting down")]
    Stopped,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// As many requests wait as may wait.
    #[error("{waiting} requests wait already")]
    Full {
        /// Requests that wait.
        waiting: usize,
        /// When there may be room, by the pace of the last requests.
        retry_after: Duration,
    },
    /// No requests are taken any more.
    #[error("the server is shutting down")]
    Draining,
    /// The request can never run.
    #[error(transparent)]
    Impossible(#[from] RuntimeError),
}
