//! OpenAI's interface.
//!
//! | module | answers |
//! |---|---|
//! | `chat` | `/v1/chat/completions` |
//! | `completions` | `/v1/completions` |
//! | `embeddings` | `/v1/embeddings` |
//! | `responses/` | `/v1/responses` |
//! | `models` | `/v1/models` |
//! | `messages`, `sampling`, `texts`, `tools` | read what requests have in common |
//! | `shapes` | write what answers have in common |

pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod messages;
pub mod models;
pub mod responses;
pub mod sampling;
pub mod shapes;
mod texts;
pub mod tools;
