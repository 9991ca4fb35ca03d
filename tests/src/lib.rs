//! What the end-to-end tests share.
//!
//! | module | gives |
//! |---|---|
//! | [`workbench`] | folders, the built commands, compiled bundles |
//! | [`golden`] | outputs of Hugging Face transformers |
//! | [`large`] | a model with large tables |
//! | [`distance`] | how far two vectors are apart |
//! | [`serving`] | a server that runs, and a client that speaks plain HTTP |
//! | [`load`] | a load test of the server |
//! | `traced` | commands that are killed at a system call, or told that it failed |
//! | [`ways`] | the ways in which a model can be run |
//! | [`plots`] | pictures of measurements, for BENCHMARKS.md |
//!
//! Some data is not in the repository (a larger model, prompts from books). It is looked for in a folder `shared` next
//! to the repository, or in `$TRIT_SHARED`; tests that need it say plainly that they did not run ([`workbench::shared`]).
#![forbid(unsafe_code)]

pub mod distance;
pub mod engines;
pub mod golden;
pub mod large;
pub mod load;
pub mod plots;
pub mod serving;
#[cfg(target_os = "linux")]
pub mod traced;
pub mod ways;
pub mod workbench;
