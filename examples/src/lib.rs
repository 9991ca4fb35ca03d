//! Short programs that use `trit-runtime` as a library, in `src/bin`, and the model they are shown with, in `models`.
//!
//! | program | shows |
//! |---|---|
//! | `generate` | loading a bundle, a prompt, sampling, text as it comes |
//! | `logits` | the model's opinion after each token of a text |
#![forbid(unsafe_code)]
