//! The C interface of the runtime, `include/trit.h`: the shared library `libtrit.so`, the static one `libtrit.a`.
//!
//! Calls from C enter; what `trit-runtime` gives leaves as numbers, copied bytes and opaque handles. Nothing is computed here.
//! The comments of the items are those of the header, which `tests/header.rs` writes.
//!
//! | file | holds |
//! |---|---|
//! | `types` | what the header declares: codes, structures, constants, handles |
//! | `model_calls`, `session_calls` | the functions of the header |
//! | `pointers` | what C hands over, checked: the only place that reads and writes through its pointers |
//! | `model`, `session`, `options` | what the functions do, in terms of the runtime |
//! | `failure` | errors: their codes, and what a caller can do |
//! | `guard` | no panic leaves a call or is printed |
//!
//! Errors are handed out through a last argument, not kept for the thread: a program's tasks, goroutines and callbacks move between
//! threads, and would find the error of somebody else. Handles are closed through a pointer to the pointer, which becomes null,
//! so that a handle that was closed is an error and no memory that is used again.
//!
//! A call takes its session for itself and gives it back. Who calls meanwhile, from another thread or from the callback, is told
//! that it is busy; nobody waits. So a callback cannot close what called it.
//!
//! What a model's text ends with need not have run: the last token of an answer only runs when the text goes on. `session` keeps
//! such tokens (`unrun`) and lets them run before whatever comes next, so that a session's text is always what its caller was told.
//!
//! The library handles no signals and prints nothing. It has one state that belongs to the process: panics are shown by a hook of
//! Rust's standard library, and `guard` replaces it by one that is silent about the library's own. The standard library is a part
//! of `libtrit.so` that no other library sees.
//!
//! `unsafe` stands in 3 files: `model_calls.rs` and `session_calls.rs` (functions that C calls), `pointers.rs` (memory that C hands
//! over). The others deny it.
#![deny(unsafe_code)]

mod failure;
mod guard;
mod model;
pub mod model_calls;
mod options;
mod pointers;
mod session;
pub mod session_calls;
pub mod types;

pub use model_calls::*;
pub use session_calls::*;
pub use types::*;
