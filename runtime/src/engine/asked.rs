//! What all rows of a pass are asked for, in the order in which it is computed.

use super::core::Chunk;
use super::execute::{Run, Wanted};
use super::logits::LogitsRequest;
use super::screening::Largest;
use super::token_set::TokenSet;
use crate::load::Model;
use trit_kernels::planes::MAX_TOP;

/// The logits of allowed tokens are computed one by one, without planes, where these are at most one in so many of the
/// vocabulary. On one thread 2000 of 128256 rows of 2560 bf16 values take 3.3 ms, all planes 24.5 ms and all logits 48 ms.
/// Four times as many would still pay, but these rows are read from the file, which need not be in the system's cache.
const ALONE: usize = 64;

/// All requests of a pass: first those for the largest logits, which the head handles together, then those for all
/// logits, then those for hidden states.
pub(super) struct Asked<'a> {
    requests: Vec<Request<'a>>,
}

/// One request.
pub(super) struct Request<'a> {
    pub chunk: usize,
    pub row: usize,
    /// The row among all rows of the pass.
    at: usize,
    what: What<'a>,
}

enum What<'a> {
    Largest {
        count: usize,
        within: f32,
        allowed: Option<&'a TokenSet>,
        forced: Vec<u32>,
    },
    /// Logits of these tokens and no others.
    Only(Vec<u32>),
    All,
    Hidden,
}

impl<'a> Asked<'a> {
    pub fn new(model: &Model, chunks: &[Chunk<'a>], runs: &[Run]) -> Asked<'a> {
        let vocab = model.manifest().hyperparameters.vocab_size;
        let mut requests = Vec::new();
        for (chunk, (asks, run)) in chunks.iter().zip(runs).enumerate() {
            for &(row, request) in &asks.requests {
                requests.push(Request {
                    chunk,
                    row,
                    at: run.rows.start + row,
                    what: What::of(request, vocab),
                });
            }
        }
        requests.sort_by_key(|request| match request.what {
            What::Largest { .. } | What::Only(_) => 0,
            What::All => 1,
            What::Hidden => 2,
        });
        Asked { requests }
    }

    /// The requests for logits, in the order of [`Asked::wanted`].
    pub fn of_head(&self) -> &[Request<'a>] {
        &self.requests[..self.logits()]
    }

    /// The requests for hidden states, in the order of [`Asked::hidden`].
    pub fn of_body(&self) -> &[Request<'a>] {
        &self.requests[self.logits()..]
    }

    fn logits(&self) -> usize {
        self.requests.partition_point(|request| !matches!(request.what, What::Hidden))
    }

    /// The rows that run through the head.
    pub fn wanted(&self) -> Vec<Wanted<'_>> {
        let requests = self.of_head().iter();
        requests.map(|request| Wanted { row: request.at, largest: request.largest() }).collect()
    }

    /// The rows whose hidden states are wanted.
    pub fn hidden(&self) -> Vec<usize> {
        self.of_body().iter().map(|request| request.at).collect()
    }

    /// How many of the largest logits the largest request wants for which planes are read.
    pub fn count(&self) -> usize {
        let counts = self.requests.iter().map(|request| match request.what {
            What::Largest { count, .. } => count,
            _ => 0,
        });
        counts.max().unwrap_or(0)
    }
}

impl Request<'_> {
    /// What is asked of the largest logits, where those suffice.
    fn largest(&self) -> Option<Largest<'_>> {
        match &self.what {
            &What::Largest { count, within, allowed, ref forced } => {
                Some(Largest { count, within, allowed, forced, only: false })
            }
            What::Only(ids) => {
                Some(Largest { count: 1, within: 0.0, allowed: None, forced: ids, only: true })
            }
            What::All | What::Hidden => None,
        }
    }

    /// Whether planes are read for it, where the head has planes.
    pub fn reads_planes(&self) -> bool {
        matches!(self.what, What::Largest { .. })
    }
}

impl<'a> What<'a> {
    fn of(request: &'a LogitsRequest, vocab: u32) -> What<'a> {
        let LogitsRequest::Largest { count, within, allowed, forced } = request else {
            return match request {
                LogitsRequest::Hidden => What::Hidden,
                _ => What::All,
            };
        };
        let allowed = allowed.as_deref();
        let mut forced: Vec<u32> = forced.iter().copied().filter(|&id| id < vocab).collect();
        let only = allowed.filter(|allowed| allowed.len() <= (vocab as usize / ALONE).max(1));
        if let Some(only) = only {
            forced.extend(only.iter().take_while(|&id| id < vocab));
        }
        forced.sort_unstable();
        forced.dedup();
        match count {
            _ if only.is_some() => What::Only(forced),
            1..=MAX_TOP if *within < f32::INFINITY => {
                What::Largest { count: *count, within: *within, allowed, forced }
            }
            _ => What::All,
        }
    }
}
