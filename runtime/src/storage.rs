//! Where the bytes of an open bundle are kept.
//!
//! What is small is copied, and the copy is what is checked and used. Weights stream from memory at its full speed only
//! from huge pages: with pages of 4 KiB the translation of addresses costs a quarter of it. A mapped file has small pages,
//! so the sections that stream are copied into huge ones, and what is checked against the digest is the copy. Where memory
//! is short, or on request, they stay mapped, and then depend on what becomes of the file; so do rows of large tables,
//! which are read when they are needed. Nothing but numbers ever depends on either.
#![allow(unsafe_code)]

use crate::RuntimeError;
use crate::limits::available;
use crate::mapped_files::MappingHook;
use crate::mapping::FileMapping;
use crate::source::{Change, FileSource, Source};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use trit_format::FormatError;
use trit_format::container::{Digest, Header, Section};
use trit_gemm::ReadOnlyMemory;

/// Bytes that one thread reads at a time.
const PIECE: usize = 4 << 20;
/// Bytes that are read and digested at a time where no copy is kept.
const WINDOW: usize = 16 << 20;
/// Memory that must stay free beside a copy: for caches, activations and other programs. At least the first, at most
/// the second, between them as much as the copy takes.
const SPARE: (usize, usize) = (128 << 20, 1 << 30);
/// Alignment of weights in bytes, as kernels read them: see `trit_format::kernel`.
const ALIGNMENT: u64 = 64;

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
    source: Box<dyn Source>,
    path: PathBuf,
    /// Told of what is mapped.
    hook: Option<MappingHook>,
    /// Whether something is still read from the source after loading.
    needed: AtomicBool,
    /// What went wrong where no error could be returned: what the system said, or what became of the file.
    failure: OnceLock<Result<Change, (io::ErrorKind, String)>>,
}

/// Bytes that stream.
pub(crate) enum Streamed {
    /// In a mapping of the file.
    Mapped(FileMapping),
    /// Copied to huge pages.
    Copied(ReadOnlyMemory),
}

impl Streamed {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Streamed::Mapped(map) => map,
            Streamed::Copied(memory) => memory.bytes(),
        }
    }

    /// Changes a copy in place; a mapping stays as it is, and `false` says so.
    ///
    /// # Errors
    /// Those of `change`, and [`RuntimeError::System`] where the system refuses to make memory writable.
    pub fn rewrite(
        &mut self,
        change: impl FnOnce(&mut [u8]) -> Result<(), RuntimeError>,
    ) -> Result<bool, RuntimeError> {
        let Streamed::Copied(memory) = self else { return Ok(false) };
        memory.rewrite(change)?;
        Ok(true)
    }
}

/// Memory that bytes are to be read into, in huge pages where the system has them.
pub(crate) struct Room(trit_gemm::AlignedMemory);

impl Room {
    /// `None` where memory is refused.
    fn new(len: usize) -> Option<Room> {
        trit_gemm::AlignedMemory::huge(1, len, "a copy of a section").ok().map(Room)
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// Ends the writing.
    pub fn keep(self) -> Result<Streamed, RuntimeError> {
        Ok(Streamed::Copied(self.0.read_only()?))
    }
}

impl Storage {
    /// The file at `path`.
    pub fn open(path: &Path) -> Result<Storage, RuntimeError> {
        let source = FileSource::open(path);
        let source = source.map_err(|source| RuntimeError::Io { path: path.to_owned(), source })?;
        Ok(Storage::new(Box::new(source), path))
    }

    /// A source, and the path that names it in errors.
    pub fn new(source: Box<dyn Source>, path: &Path) -> Storage {
        Storage {
            source,
            path: path.to_owned(),
            hook: None,
            needed: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// The same, where `hook` is told of what is mapped from here on.
    pub fn with_hook(self, hook: Option<MappingHook>) -> Storage {
        Storage { hook, ..self }
    }

    /// Header and section table: read once, then checked on that copy, and the copy's digest is the bundle's name.
    pub fn header(&self) -> Result<(Header, Vec<u8>), RuntimeError> {
        let len = self.source.len();
        let mut head = vec![0; len.min(trit_format::container::HEADER_BYTES) as usize];
        self.read(0, &mut head)?;
        let first = head.len();
        if first as u64 == trit_format::container::HEADER_BYTES {
            head.resize(Header::announced(&head).min(len) as usize, 0);
            self.read(first as u64, &mut head[first..])?;
        }
        let header = Header::parse_head(&head, len).map_err(|source| self.format(source))?;
        for gap in header.gaps() {
            let mut bytes = vec![0; (gap.end - gap.start) as usize];
            self.read(gap.start, &mut bytes)?;
            trit_format::container::check_padding(&bytes, gap.start).map_err(|source| self.format(source))?;
        }
        head.truncate(Header::bytes(header.sections.len()) as usize);
        Ok((header, head))
    }

    /// A copy of a section of at most `most` bytes, checked.
    pub fn copy(&self, section: &Section, most: usize) -> Result<Vec<u8>, RuntimeError> {
        let mut bytes = Vec::new();
        let len = usize::try_from(section.len)
            .ok()
            .filter(|&len| len <= most && bytes.try_reserve_exact(len).is_ok());
        let Some(len) = len else {
            let problem = format!("has {} bytes; {most} are possible", section.len);
            return Err(
                self.format(FormatError::Record { record: format!("section {}", section.kind), problem })
            );
        };
        bytes.resize(len, 0);
        self.read(section.offset, &mut bytes)?;
        self.check(section, &bytes)?;
        Ok(bytes)
    }

    /// Checks bytes that were read as a section.
    pub fn check(&self, section: &Section, bytes: &[u8]) -> Result<(), RuntimeError> {
        match Digest::of(bytes) == section.digest {
            true => Ok(()),
            false => Err(self.format(FormatError::Digest(section.kind))),
        }
    }

    /// Reads a section once, checks its digest if `verify` says so, and leaves the bytes of `parts` (places in the section,
    /// and where they go) where they are wanted: what was checked is what is kept. Nothing else is, nor read where it
    /// need not be.
    pub fn take(
        &self,
        section: &Section,
        verify: bool,
        parts: &mut [(Range<u64>, &mut [u8])],
    ) -> Result<(), RuntimeError> {
        use rayon::prelude::*;
        if !verify {
            return parts.iter_mut().try_for_each(|(range, to)| self.read(section.offset + range.start, to));
        }
        let mut window = vec![0; WINDOW.min(usize::try_from(section.len).unwrap_or(WINDOW))];
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < section.len {
            let here = &mut window[..(section.len - at).min(WINDOW as u64) as usize];
            let pieces = here.par_chunks_mut(PIECE).enumerate();
            pieces.try_for_each(|(i, piece)| self.read(section.offset + at + (i * PIECE) as u64, piece))?;
            hasher.update_rayon(here);
            let end = at + here.len() as u64;
            for (range, to) in parts.iter_mut() {
                let (from, until) = (range.start.max(at), range.end.min(end));
                if from < until {
                    to[(from - range.start) as usize..(until - range.start) as usize]
                        .copy_from_slice(&here[(from - at) as usize..(until - at) as usize]);
                }
            }
            at = end;
        }
        match Digest(hasher.finalize().into()) == section.digest {
            true => Ok(()),
            false => Err(self.format(FormatError::Digest(section.kind))),
        }
    }

    /// Memory for a copy of `len` bytes, where `memory` allows one and there is room.
    pub fn room(&self, len: u64, memory: Memory) -> Option<Room> {
        let len = usize::try_from(len).ok()?;
        let fits = || available().is_none_or(|free| free >= len.saturating_add(len.clamp(SPARE.0, SPARE.1)));
        // What cannot be mapped is copied, come what may.
        match self.mappable(len).is_none() || (memory == Memory::Auto && fits()) {
            true => Room::new(len),
            false => None,
        }
    }

    /// The file of which `len` bytes can be mapped, and the bundle's offset in it.
    fn mappable(&self, len: usize) -> Option<(&File, u64)> {
        self.source.file().filter(|(_, at)| at.is_multiple_of(ALIGNMENT) && len > 0)
    }

    /// Takes bytes of the bundle in, as `memory` says.
    pub fn stream(&self, range: Range<u64>, memory: Memory) -> Result<Streamed, RuntimeError> {
        use rayon::prelude::*;
        let none = || RuntimeError::System("there is no memory for the bundle's weights".into());
        let len = usize::try_from(range.end - range.start).map_err(|_| none())?;
        if let Some(mut room) = self.room(len as u64, memory) {
            let pieces = room.bytes_mut().par_chunks_mut(PIECE).enumerate();
            pieces.try_for_each(|(i, piece)| self.read(range.start + (i * PIECE) as u64, piece))?;
            self.forget(range.start, len);
            return room.keep();
        }
        let (file, at) = self.mappable(len).ok_or_else(none)?;
        let map = FileMapping::new(file, &self.path, at + range.start, len, self.hook.as_ref());
        let map = map.map_err(|e| self.io(e))?;
        self.need();
        Ok(Streamed::Mapped(map))
    }

    /// A large file's pages would crowd out what is needed: it will not be read again.
    fn forget(&self, offset: u64, len: usize) {
        #[cfg(target_os = "linux")]
        if let Some((file, at)) = self.source.file()
            && available().is_some_and(|free| free < 4 * len)
        {
            use std::os::fd::AsRawFd;
            let (fd, offset) = (file.as_raw_fd(), (at + offset) as libc::off_t);
            // SAFETY: advice about a file that is open; it changes no memory of ours.
            let _ = unsafe { libc::posix_fadvise(fd, offset, len as libc::off_t, libc::POSIX_FADV_DONTNEED) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    /// Fills `to` with the bundle's bytes from `offset` on.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), RuntimeError> {
        self.source.read_at(offset, to).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(Change::Ended),
            _ => self.io(source),
        })
    }

    /// [`Storage::read`] during a pass, whose results an error makes worthless: [`Storage::intact`] then gives it. `to` is
    /// zero.
    pub fn read_in_pass(&self, offset: u64, to: &mut [u8]) {
        if let Err(error) = self.read(offset, to) {
            self.fail(error);
            to.fill(0);
        }
    }

    /// Says that the source is read after loading too.
    pub fn need(&self) {
        self.needed.store(true, Ordering::Relaxed);
    }

    /// Keeps an error for [`Storage::intact`].
    pub fn fail(&self, error: RuntimeError) {
        // The first says most.
        let _ = self.failure.set(match error {
            RuntimeError::Changed { how, .. } => Ok(how),
            RuntimeError::Io { source, .. } => Err((source.kind(), source.to_string())),
            other => Err((io::ErrorKind::Other, other.to_string())),
        });
    }

    /// Whether all that was computed from the source so far came from the bytes that were loaded.
    pub fn intact(&self) -> Result<(), RuntimeError> {
        match self.failure.get() {
            Some(Ok(how)) => return Err(self.changed(how.clone())),
            Some(Err((kind, text))) => return Err(self.io(io::Error::new(*kind, text.clone()))),
            None => {}
        }
        if self.needed.load(Ordering::Relaxed) {
            return self.unchanged();
        }
        Ok(())
    }

    /// Whether the source is what it was when it was opened.
    pub fn unchanged(&self) -> Result<(), RuntimeError> {
        match self.source.changed() {
            Ok(None) => Ok(()),
            Ok(Some(how)) => Err(self.changed(how)),
            Err(source) => Err(self.io(source)),
        }
    }

    /// The path that names the bundle in errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn changed(&self, how: Change) -> RuntimeError {
        RuntimeError::Changed { path: self.path.clone(), how }
    }

    fn io(&self, source: io::Error) -> RuntimeError {
        RuntimeError::Io { path: self.path.clone(), source }
    }

    /// The bundle is no valid one.
    pub fn format(&self, source: FormatError) -> RuntimeError {
        RuntimeError::Format { path: self.path.clone(), source }
    }
}
