//! What the fuzz targets share: small bundles, changes of their manifests, and running whatever was accepted.
//!
//! A target stands in `fuzz_targets/`, what it begins with in `seeds/`. `.ci/fuzz` builds and runs all of them.
//!
//! | module | holds |
//! |---|---|
//! | [`bundle`] | the small bundles of the format's own tests |
//! | [`assembled`] | bundles whose sections have the bytes that a target wants; a short form of a whole bundle |
//! | [`leaves`] | where the numbers of an encoded manifest stand |
//! | [`edits`] | changes of a manifest, made from a fuzzer's bytes |
//! | [`running`] | loading a bundle and running some tokens |
//! | `checkpoints` | checkpoints in a folder, read as the compiler reads them (feature `compiler`) |
#![forbid(unsafe_code)]

#[cfg(feature = "runtime")]
pub mod assembled;
#[cfg(feature = "runtime")]
#[path = "../../../format-spec/tests/bundle/mod.rs"]
pub mod bundle;
#[cfg(feature = "compiler")]
pub mod checkpoints;
#[cfg(feature = "runtime")]
pub mod edits;
#[cfg(feature = "runtime")]
pub mod leaves;
#[cfg(feature = "runtime")]
pub mod running;
