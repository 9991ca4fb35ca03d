//! Serves a bundle over HTTP, in the interfaces that clients speak.
//!
//! | module | holds |
//! |---|---|
//! | `chat` | what a client asks for and what it gets, whichever interface it speaks |
//! | `answer/` | the parts of an answer: reasoning, text, calls of tools |
//! | `error` | what went wrong, in each interface's shape |

#![forbid(unsafe_code)]

pub mod answer;
pub mod chat;
pub mod error;
