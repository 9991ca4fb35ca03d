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
//!
//! # Faults that were planted
//!
//! What the target `plan` finds was tried by leaving out one check of the manifest's validation at a time. Each began with the
//! seeds alone, on 2 cores that were busy with other work, where it tries 23 to 67 inputs a second.
//!
//! | check that was left out | file in `format-spec/src` | found after inputs | seconds |
//! |---|---|---|---|
//! | a tensor's or matrix's bytes end within their section | `validate.rs` | 2,969 | 105 |
//! | a vector is as long as the step that uses it wants | `validate/plan.rs` | 1,786 | 65 |
//! | a buffer is as long as the step that uses it wants | `validate/plan.rs` | 866 | 37 |
//! | a part of a buffer that a step writes ends within it | `validate/plan.rs` | 8,928 | 206 |
//! | a step reads what was written whole | `validate/dataflow.rs` | 503 | 22 |
//! | a step does not write over what it reads | `validate/dataflow.rs` | 532 | 23 |
//! | what a matrix multiplies was quantized by groups like its own | `validate/dataflow.rs` | 5,362 | 80 |
//!
//! The last two were not found in 25,000 inputs before accepted plans were followed byte by byte (`accesses` of [`bundle`]), and edits
//! put one buffer over another and changed the rules of quantizing: without these checks nothing leaves its memory, and logits are
//! wrong in the same way however tokens are grouped. The other rows were measured before the edit that puts one buffer over another.
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
