//! Serves a bundle over HTTP, in the interfaces that clients speak.

#![forbid(unsafe_code)]
