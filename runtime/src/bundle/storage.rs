//! Reads an open bundle, checks its digests, and decides where its bytes are kept.
//!
//! Small sections are copied, and the copy is what is checked and used. Weights can be read at the full speed of memory
//! only from huge pages: with pages of 4 KiB the translation of addresses costs a quarter of it. A mapped file has
//! small pages, so weights and planes are copied into huge ones, and the digest is checked on the copy. Where memory is
//! short, or on request, they stay mapped and then depend on what happens to the file. So do rows of large tables,
//! which are read when they are needed. Only numbers ever depend on the file: no address, length or branch does.
#![allow(unsafe_code)]

use super::mapped_files::MappingHook;
use super::mapping::FileMapping;
use super::source::{Change, FileSource, Source};
use crate::RuntimeError;
use crate::limits::available;
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
/// Bytes that are read and digested at a time where no copy of the whole section is kept.
const WINDOW: usize = 16 << 20;
/// Bytes of memory that must stay free beside a copy, for caches, activations and other programs. It is as much as the
/// copy takes, but at least the first number and at most the second.
const SPARE: (usize, usize) = (128 << 20, 1 << 30);
/// Alignment in bytes that kernels need of weights: see `trit_format::kernel`.
const ALIGNMENT: u64 = 64;

/// Where weights and planes are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightMemory {
    /// In huge pages where there is room for a copy, else as [`WeightMemory::Mapped`].
    #[default]
    Auto,
    /// In a mapping of the file. Processes share it and the system can take its memory back, but it is slower.
    Mapped,
}

/// An open bundle.
pub(crate) struct Storage {
    source: Box<dyn Source>,
    path: PathBuf,
    /// The hook that is called for each mapping.
    hook: Option<MappingHook>,
    /// Whether something is still read from the source after loading.
    needed: AtomicBool,
    /// What went wrong in a pass, where no error could be returned: how the file changed, or what the system said.
    failure: OnceLock<Result<Change, (io::ErrorKind, String)>>,
}

/// The bytes of a section or a table as loading keeps them.
pub(crate) enum LoadedBytes {
    /// In a mapping of the file.
    Mapped(FileMapping),
    /// In a copy, in huge pages.
    Copied(ReadOnlyMemory),
}

impl LoadedBytes {
    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        match self {
            LoadedBytes::Mapped(map) => map,
            LoadedBytes::Copied(memory) => memory.bytes(),
        }
    }

    /// Changes a copy in place. A mapping cannot be changed; the result is then `false`.
    ///
    /// # Errors
    /// Those of `change`, and [`RuntimeError::System`] where the system refuses to make memory writable.
    pub fn rewrite(
        &mut self,
        change: impl FnOnce(&mut [u8]) -> Result<(), RuntimeError>,
    ) -> Result<bool, RuntimeError> {
        let LoadedBytes::Copied(memory) = self else { return Ok(false) };
        memory.rewrite(change)?;
        Ok(true)
    }
}

/// Memory for a copy that has not been read yet, in huge pages where the system has them.
pub(crate) struct Room(trit_gemm::AlignedMemory);

impl Room {
    /// Memory for `len` bytes; `None` where the system refuses it.
    fn new(len: usize) -> Option<Room> {
        trit_gemm::AlignedMemory::huge(1, len, "a copy of a section").ok().map(Room)
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    /// Makes the memory read-only.
    pub fn keep(self) -> Result<LoadedBytes, RuntimeError> {
        Ok(LoadedBytes::Copied(self.0.read_only()?))
    }
}

impl Storage {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Storage, RuntimeError> {
        let source = FileSource::open(path);
        let source = source.map_err(|source| RuntimeError::Io { path: path.to_owned(), source })?;
        Ok(Storage::new(Box::new(source), path))
    }

    /// Uses a source; `path` names it in errors.
    pub fn new(source: Box<dyn Source>, path: &Path) -> Storage {
        Storage {
            source,
            path: path.to_owned(),
            hook: None,
            needed: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// The same storage with `hook`, which is called for each mapping from here on.
    pub fn with_hook(self, hook: Option<MappingHook>) -> Storage {
        Storage { hook, ..self }
    }

    /// Reads header and section table once, and checks that copy. Returns the header and its bytes, whose digest is the
    /// bundle's name.
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

    /// The file of the bundle's signature, where there is one.
    pub fn signature(&self) -> io::Result<Option<Vec<u8>>> {
        self.source.signature()
    }

    /// Copies a section of at most `most` bytes, and checks its digest on the copy.
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

    /// Checks that `bytes` have the section's digest.
    pub fn check(&self, section: &Section, bytes: &[u8]) -> Result<(), RuntimeError> {
        match Digest::of(bytes) == section.digest {
            true => Ok(()),
            false => Err(self.format(FormatError::Digest(section.kind))),
        }
    }

    /// Reads a section once, and copies `parts` of it: each is a range of the section and the memory for its bytes. If
    /// `verify` is set, the whole section is read and its digest is checked on the bytes that are copied. Otherwise
    /// only the parts are read.
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

    /// Memory for a copy of `len` bytes; `None` where `memory` allows no copy or there is no room for one.
    pub fn room(&self, len: u64, memory: WeightMemory) -> Option<Room> {
        let len = usize::try_from(len).ok()?;
        let fits = || available().is_none_or(|free| free >= len.saturating_add(len.clamp(SPARE.0, SPARE.1)));
        // A source that cannot be mapped must be copied, even where memory is short.
        match self.mappable(len).is_none() || (memory == WeightMemory::Auto && fits()) {
            true => Room::new(len),
            false => None,
        }
    }

    /// The file and the bundle's offset in it, where `len` bytes of it can be mapped.
    fn mappable(&self, len: usize) -> Option<(&File, u64)> {
        self.source.file().filter(|(_, at)| at.is_multiple_of(ALIGNMENT) && len > 0)
    }

    /// Loads bytes of the bundle: copies or maps them, as `memory` says.
    pub fn load(&self, range: Range<u64>, memory: WeightMemory) -> Result<LoadedBytes, RuntimeError> {
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
        Ok(LoadedBytes::Mapped(map))
    }

    /// Tells the system that these bytes of the file will not be read again, so that a large file's cached pages do not
    /// displace memory that is needed.
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

    /// As [`Storage::read`], during a pass, where no error can be returned. After an error `to` is zero, the results of
    /// the pass must not be used, and [`Storage::intact`] returns the error.
    pub fn read_in_pass(&self, offset: u64, to: &mut [u8]) {
        if let Err(error) = self.read(offset, to) {
            self.fail(error);
            to.fill(0);
        }
    }

    /// Notes that the source is still needed after loading.
    pub fn need(&self) {
        self.needed.store(true, Ordering::Relaxed);
    }

    /// Keeps an error, for [`Storage::intact`] to return.
    pub fn fail(&self, error: RuntimeError) {
        // Only the first error is kept, because it says most.
        let _ = self.failure.set(match error {
            RuntimeError::Changed { how, .. } => Ok(how),
            RuntimeError::Io { source, .. } => Err((source.kind(), source.to_string())),
            other => Err((io::ErrorKind::Other, other.to_string())),
        });
    }

    /// Checks that everything computed so far came from the bytes that were loaded.
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

    /// Checks that the source has not changed since it was opened.
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

    /// The error that the bundle is not valid, with its path.
    pub fn format(&self, source: FormatError) -> RuntimeError {
        RuntimeError::Format { path: self.path.clone(), source }
    }
}
