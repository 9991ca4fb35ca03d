//! Lets a program know which files are mapped, because the memory of a mapped file is gone when the file is cut off.
//!
//! Copies in memory are safe from that. Sections that stay mapped ([`crate::WeightMemory::Mapped`], or where memory is
//! short) are not: the system ends the process with a signal at the next access. This library handles no signals. A
//! program that wants to name the file then keeps a table of all mappings, which its signal handler reads.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What the function of a [`MappingHook`] returns. It is dropped before the file is unmapped.
pub type MappingGuard = Box<dyn Any + Send + Sync>;

/// The type of the function that a hook calls.
type Enter = dyn Fn(&Path, Range<usize>) -> MappingGuard + Send + Sync;

/// A function that is called for every mapping of a file or a part of one. Its arguments are the path that names the
/// bundle in errors, and the addresses of the mapping.
#[derive(Clone)]
pub struct MappingHook(Arc<Enter>);

impl MappingHook {
    /// A hook that calls `enter`.
    pub fn new(enter: impl Fn(&Path, Range<usize>) -> MappingGuard + Send + Sync + 'static) -> MappingHook {
        MappingHook(Arc::new(enter))
    }

    /// Calls the function: the file at `path` is mapped at the addresses `bytes`.
    pub(crate) fn enter(&self, path: &Path, bytes: Range<usize>) -> MappingGuard {
        (self.0)(path, bytes)
    }
}

impl fmt::Debug for MappingHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MappingHook")
    }
}
