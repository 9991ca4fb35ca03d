//! Serves a bundle over HTTP, in the interfaces that clients speak.
//!
//! A request passes [`connections`](Server) (limits, time-outs), [`front`](Front) (keys, log), and a handler of one of the
//! interfaces, which makes a [`ChatRequest`](chat::ChatRequest) of it. [`AppState::answer`](state::AppState::answer) hands that
//! to the scheduler and gives the parts of the answer, which the handler turns into its interface's JSON or events.
//!
//! | module | holds |
//! |---|---|
//! | `server`, `connections` | listening, limits of connections, the end |
//! | `front`, `routes`, `access` | what every request passes: keys, places, the log; which handler answers |
//! | `options` | how a server is set up |
//! | `body` | bodies of requests, field by field |
//! | `chat` | what a client asks for and what it gets, whichever interface it speaks |
//! | `state`, `prompt`, `run`, `follow` | from a request to tokens, to the scheduler, to the parts of an answer |
//! | `constrain` | what an answer must be like |
//! | `tokens` | what single tokens stand for |
//! | `answer/` | the parts of an answer: reasoning, text, calls of tools |
//! | `openai/`, `anthropic/` | the interfaces of OpenAI and Anthropic |
//! | `page/` | the page to chat on |
//! | `plain` | routes that belong to no interface |
//! | `sse` | answers as server-sent events |
//! | `metrics` | what is counted |
//! | `error` | what went wrong, in each interface's shape |

#![forbid(unsafe_code)]

pub mod access;
pub mod answer;
pub mod anthropic;
pub mod body;
pub mod chat;
mod connections;
pub mod constrain;
pub mod error;
mod follow;
pub mod front;
pub mod metrics;
pub mod openai;
pub mod options;
pub mod page;
pub mod plain;
pub mod prompt;
mod routes;
pub mod run;
mod server;
pub mod sse;
pub mod state;
pub mod tokens;

pub use access::{KeyError, Keys, Origins};
pub use front::Front;
pub use options::ServerOptions;
pub use server::{Drained, Ender, Server};
