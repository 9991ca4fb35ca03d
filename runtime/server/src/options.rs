//! How a server is set up.

use crate::access::{Keys, Origins};
use std::time::Duration;
use trit_runtime::Pooling;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Keys of which a client must have one; without any, everybody may ask.
    pub keys: Keys,
    /// Pages of which other places may ask, from a browser.
    pub origins: Origins,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Most connections at a time.
    pub max_connections: usize,
    /// How long a connection may take to send the head of a request, and to begin the next one.
    pub head_timeout: Duration,
    /// How long a connection may take to send the body of a request, and how long it may take nothing of an answer.
    pub transfer_timeout: Duration,
    /// How long an answer may take from its request to its end; `None`: any time.
    pub request_timeout: Option<Duration>,
    /// How long a stream of events is silent before it sends a comment, so that nobody on the way takes it for dead.
    pub keep_alive: Duration,
    /// How long answers may take to end after the server is told to end.
    pub drain: Duration,
    /// Whether prompts and answers are logged.
    pub log_prompts: bool,
    /// What embeddings are made of; `None` where none are made.
    pub embeddings: Option<Pooling>,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            keys: Keys::default(),
            origins: Origins::default(),
            max_body: 16 << 20,
            // Below the 1024 files that systems grant a process by default.
            max_connections: 900,
            head_timeout: Duration::from_secs(30),
            transfer_timeout: Duration::from_secs(60),
            request_timeout: Some(Duration::from_secs(3600)),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            log_prompts: false,
            embeddings: None,
        }
    }
}
