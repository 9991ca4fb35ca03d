//! Mapping: a file's bytes appear in memory without being copied.
#![allow(unsafe_code)]

use super::mapped_files::{MappingGuard, MappingHook};
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A part of a file that is mapped read-only: weights, planes or a table.
pub(crate) struct FileMapping {
    /// What the program's hook returned for this mapping. It is dropped before the mapping is.
    _guard: Option<MappingGuard>,
    map: Mmap,
}

impl FileMapping {
    /// Maps the `len` bytes of `file` from `offset` on, and calls `hook` with `path` and the addresses.
    pub fn new(
        file: &File,
        path: &Path,
        offset: u64,
        len: usize,
        hook: Option<&MappingHook>,
    ) -> std::io::Result<FileMapping> {
        // SAFETY: the mapping is private and read-only, but others may write to the file, and the bytes then change
        // under us, which no slice allows for. They are weights, planes and tables: kernels and the portable code take
        // every byte as a number and compute no address, length or branch target from it, so that what changes is
        // numbers (`tests/tests/any_bytes.rs` runs them on random ones). Manifest, header and code, on which safety
        // depends, are never mapped. Where the file is cut off, the system ends the process at the next access
        // (`mapped_files`).
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file) }?;
        let bytes = map.as_ptr_range();
        let guard = hook.map(|hook| hook.enter(path, bytes.start.addr()..bytes.end.addr()));
        Ok(FileMapping { _guard: guard, map })
    }
}

impl Deref for FileMapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
