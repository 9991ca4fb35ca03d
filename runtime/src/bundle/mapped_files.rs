//! Lets a program know which files are mapped: the memory of a mapped file is gone when the file is cut off.
//!
//! What is copied to memory is safe from that. What stays in the file's mapping ([`crate::WeightMemory::Mapped`], or
//! where memory is short) is not: the system ends the process with a signal at the next access. This library takes no
//! signals. A program that wants to say which file it was enters each mapping in a table of its own, which its handler
//! reads.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What a [`MappingHook`] gives back. It is dropped before the file is unmapped.
pub type MappingGuard = Box<dyn Any + Send + Sync>;

/// What a hook calls.
type Enter = dyn Fn(&Path, Range<usize>) -> MappingGuard + Send + Sync;

/// A function that is called for every file, or part of one, that is mapped: with the path that names the bundle in
/// errors, and the addresses of the mapping.
#[derive(Clone)]
pub struct MappingHook(Arc<Enter>);

impl MappingHook {
    /// The hook that calls `enter`.
    pub fn new(enter: impl Fn(&Path, Range<usize>) -> MappingGuard + Send + Sync + 'static) -> MappingHook {
        MappingHook(Arc::new(enter))
    }

    /// Says that the file at `path` is mapped at `bytes`.
    pub(crate) fn enter(&self, path: &Path, bytes: Range<usize>) -> MappingGuard {
        (self.0)(path, bytes)
    }
}

impl fmt::Debug for MappingHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MappingHook")
    }
}
