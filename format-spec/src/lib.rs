//! The `.trit` bundle: what its bytes are, how they are read, and what makes them valid.
//!
//! `SPEC.md` beside this crate is normative; this crate is its readable implementation. Bytes enter, validated
//! records leave. Nothing here but [`trust`] opens a file, and nothing runs code or multiplies a matrix.
//!
//! | module | defines |
//! |---|---|
//! | [`dense243`] | five trits a byte, and the codes that are bijections of that byte |
//! | [`tile`] | the row-lane tile: where a weight stands in the weight section |
//! | [`target`] | instruction-set tiers code can be generated for |
//! | [`kernel`] | kernel specifications, the kernel directory, the calling convention |
//! | [`coded`] | rows of int8 codes with scales: tables that are quantized |
//! | [`planes`] | a head's table in two planes of 4 bits, with error bounds |
//! | [`plan`] | the typed steps of a forward pass and their buffers |
//! | [`draft`] | the plan of a block that drafts tokens |
//! | [`manifest`] | everything a bundle says about itself |
//! | [`container`] | header, section table, digests |
//! | [`program`] | programs of one file: the runtime with a bundle after it |
//! | [`saved`] | sequences in files: tokens with their KV cache and recurrent state |
//! | [`signature`] | who made a bundle |
//! | [`text`] | a plan as text |
//! | [`trust`] | which files say that the user trusts a bundle, or who signed it |
#![forbid(unsafe_code)]

pub mod coded;
pub mod container;
pub mod dense243;
pub mod draft;
pub mod error;
pub mod kernel;
pub mod manifest;
pub mod plan;
pub mod planes;
pub mod program;
pub mod saved;
pub mod signature;
pub mod target;
pub mod text;
pub mod tile;
pub mod trust;
mod validate;

pub use error::FormatError;
