//! Where the bytes that every token reads are kept.
//!
//! Weights stream from memory at its full speed only from huge pages: with pages of 4 KiB the translation of addresses
//! costs a quarter of it. A mapped file has small pages, so the sections that stream are copied into huge ones, and what is
//! checked against the digest is the copy. Where memory is short, or on request, they stay mapped.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut, UncheckedAdvice};
use std::fs::File;
use std::ops::Range;

/// Alignment that huge pages need.
const HUGE: usize = 2 << 20;
/// Bytes that one thread copies at a time.
const PIECE: usize = 4 << 20;
/// Memory that must stay free beside a copy: for caches, activations and other programs.
const SPARE: usize = 1 << 30;

/// Where the sections that stream are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// In huge pages where there is room for them, else as [`Memory::Mapped`].
    #[default]
    Auto,
    /// In the file's mapping: shared between processes and given back under pressure, but slower.
    Mapped,
}

/// An open bundle.
pub(crate) struct Storage {
    file: File,
    map: Mmap,
}

/// A section that streams.
pub(crate) enum Streamed {
    /// In the mapping.
    Mapped(Range<usize>),
    /// Copied to huge pages, from `start` on.
    Copied {
        /// The memory.
        memory: Mmap,
        /// First byte.
        start: usize,
        /// Bytes.
        len: usize,
    },
}

impl Storage {
    /// A file and its mapping.
    pub fn new(file: File, map: Mmap) -> Storage {
        Storage { file, map }
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Takes a section in, as `memory` says.
    pub fn stream(&self, range: Range<usize>, memory: Memory) -> Streamed {
        let copy = match memory {
            Memory::Auto if available().is_none_or(|free| free >= range.len().saturating_add(SPARE)) => {
                self.copy(&range)
            }
            _ => None,
        };
        copy.unwrap_or(Streamed::Mapped(range))
    }

    /// `None` where memory is refused.
    fn copy(&self, range: &Range<usize>) -> Option<Streamed> {
        use rayon::prelude::*;
        let len = range.len();
        let mut memory = MmapMut::map_anon(len.checked_add(HUGE)?).ok()?;
        // A system without huge pages gives small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let start = memory.as_ptr().addr().next_multiple_of(HUGE) - memory.as_ptr().addr();
        let pieces = memory[start..start + len].par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(i, piece)| self.read(range.start + i * PIECE, piece));
        // A large file's pages would crowd out what is needed: it will not be read again.
        #[cfg(target_os = "linux")]
        if available().is_some_and(|free| free < 4 * len) {
            use std::os::fd::AsRawFd;
            let (fd, offset) = (self.file.as_raw_fd(), range.start as libc::off_t);
            // SAFETY: advice about a file that is open; it changes no memory of ours.
            let _ = unsafe { libc::posix_fadvise(fd, offset, len as libc::off_t, libc::POSIX_FADV_DONTNEED) };
        }
        let memory = memory.make_read_only().ok()?;
        Some(Streamed::Copied { memory, start, len })
    }

    /// Fills `to` with the file's bytes from `offset` on, without making the mapping's pages part of this process.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        #[cfg(unix)]
        if std::os::unix::fs::FileExt::read_exact_at(&self.file, to, offset as u64).is_ok() {
            return;
        }
        to.copy_from_slice(&self.map[offset..offset + to.len()]);
    }

    /// Gives back the mapping's pages of `range`, which were read only to be checked.
    pub fn release(&self, range: Range<usize>) {
        // SAFETY: a read-only mapping of a file: pages come back with the same content when they are read again.
        let _ =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}

impl Streamed {
    /// The section's bytes.
    pub fn bytes<'a>(&'a self, storage: &'a Storage) -> &'a [u8] {
        match self {
            Streamed::Mapped(range) => &storage.map[range.clone()],
            Streamed::Copied { memory, start, len } => &memory[*start..*start + *len],
        }
    }
}

/// Bytes that programs may take without others being pushed out, where the system says.
pub fn available() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1 << 10)
}
