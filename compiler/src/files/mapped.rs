//! Maps checkpoint files for reading, because a checkpoint may be larger than memory. This is the library's only
//! unsafe code.
//!
//! A mapping has no error for a file that got shorter, as reading has. The system sends a signal instead. This library takes
//! no signals: a program that does, and wants to say whose mapping it was, gives a hook ([`on_mapping`]).
#![allow(unsafe_code)]

use crate::error::CompileError;
use crate::files::locate::at;
use crate::files::unchanged::InputFile;
use memmap2::Mmap;
use std::any::Any;
use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::Chunks;
use std::sync::{Arc, OnceLock};

/// What a hook gives back. It is dropped before the file is unmapped.
pub type MappingGuard = Box<dyn Any + Send + Sync>;

/// A function that is told the path of a file that is mapped, and at which addresses.
pub type MappingHook = fn(&Path, Range<usize>) -> MappingGuard;

/// For the whole process, as signals are.
static HOOK: OnceLock<MappingHook> = OnceLock::new();

/// From here on, calls `hook` for every file that is mapped in this process. The first hook stays.
pub fn on_mapping(hook: MappingHook) {
    HOOK.get_or_init(|| hook);
}

/// A whole file, mapped for reading.
pub(crate) struct MappedFile {
    path: PathBuf,
    /// The file as it was when it was mapped.
    source: InputFile,
    // This field stands before the mapping, so that it is dropped first.
    _guard: Option<MappingGuard>,
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`, which must be a file and not empty.
    pub(crate) fn open(path: &Path) -> Result<Arc<MappedFile>, CompileError> {
        let io = |source| CompileError::Io { path: path.to_owned(), source };
        let invalid =
            |problem: &str| CompileError::Invalid { path: path.to_owned(), problem: problem.to_owned() };
        // `at` says more about a link to nothing than opening it would, and opening a pipe would wait for its writer.
        if at(path)?.is_some_and(|metadata| !metadata.is_file()) {
            return Err(invalid("is not a file"));
        }
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(invalid("is not a file"));
        }
        if metadata.len() == 0 {
            return Err(invalid("is empty; download it again"));
        }
        // SAFETY: the mapping is read-only and nothing in this process writes to or truncates a file it reads a
        // checkpoint from. Another process that does so while we compile breaks this promise for any program that
        // maps files; it is the usual price of a mapping. Bytes that change are still values, and the change is
        // noticed before the bundle gets its name (`Inputs::expect_unchanged`); a file that gets shorter ends the
        // program, unless it handles SIGBUS.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Arc::new(MappedFile::new(path, InputFile::new(path, &metadata), map)))
    }

    /// Writes a file without a name, in the system's folder for temporary files, and maps it. `origin` is the file
    /// that errors about its contents are to name.
    ///
    /// # Errors
    /// There is no space, or `write` fails. The error names the folder and what to do.
    pub(crate) fn temporary(
        origin: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<Arc<MappedFile>, CompileError> {
        let io = |source: io::Error| CompileError::Invalid {
            path: std::env::temp_dir(),
            problem: format!(
                "a temporary file for a tensor of {} cannot be written ({source}); name a folder with more space in \
                 the environment variable TMPDIR",
                origin.display()
            ),
        };
        let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(io)?);
        write(&mut out).map_err(io)?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        let metadata = file.metadata().map_err(io)?;
        // SAFETY: the mapping is read-only, and the file has no name by which anybody else could open it.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Arc::new(MappedFile::new(origin, InputFile::new(origin, &metadata), map)))
    }

    fn new(path: &Path, source: InputFile, map: Mmap) -> MappedFile {
        let start = map.as_ptr() as usize;
        let guard = HOOK.get().map(|enter| enter(path, start..start + map.len()));
        MappedFile { path: path.to_owned(), source, _guard: guard, map }
    }

    /// The whole file as a range.
    pub(crate) fn whole(self: &Arc<Self>) -> MappedSlice {
        MappedSlice { file: self.clone(), range: 0..self.map.len() }
    }

    /// The file as it was when it was mapped.
    pub(crate) fn source(&self) -> &InputFile {
        &self.source
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses what Git leaves in place of a large file that it did not fetch.
    pub(crate) fn refuse_lfs_pointer(&self) -> Result<(), CompileError> {
        if !self.map.starts_with(b"version https://git-lfs") {
            return Ok(());
        }
        let problem = "is a Git LFS pointer, not the file itself; run `git lfs pull`".to_owned();
        Err(CompileError::Invalid { path: self.path.clone(), problem })
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// About so many bytes are in a batch.
const BATCH_BYTES: usize = 32 << 20;

/// See [`MappedSlice::batches`].
pub(crate) struct Batches<'a> {
    slice: &'a MappedSlice,
    chunks: Chunks<'a, u8>,
}

impl<'a> Iterator for Batches<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.slice.release();
        self.chunks.next()
    }
}

impl Drop for Batches<'_> {
    fn drop(&mut self) {
        self.slice.release();
    }
}

/// A range of a mapped file, which it keeps mapped.
#[derive(Clone)]
pub(crate) struct MappedSlice {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedSlice {
    /// The bytes `range` of `file`, or `None` where the file is shorter.
    pub(crate) fn new(file: Arc<MappedFile>, range: Range<usize>) -> Option<MappedSlice> {
        file.bytes().get(range.clone())?;
        Some(MappedSlice { file, range })
    }

    /// The file the range belongs to.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The bytes in batches of some 32 MB. Each batch but the last is a multiple of `unit` bytes, which count as 1
    /// where they are 0. A batch is given back to the system when the next one is asked for, so that a pass over a
    /// table larger than memory does not keep it resident.
    pub(crate) fn batches(&self, unit: usize) -> Batches<'_> {
        let unit = unit.max(1);
        let len = (BATCH_BYTES / unit).max(1) * unit;
        Batches { slice: self, chunks: self.as_ref().chunks(len) }
    }

    /// Gives the range's pages back to the system; reading the range again loads them again. This bounds the resident
    /// memory of a pass over a large checkpoint.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is a shared, read-only mapping of a file (made in `MappedFile::open` or
            // `MappedFile::temporary`), so pages that are dropped come back with the bytes of the file, also for
            // those who still hold a reference to them.
            let advised = unsafe {
                self.file.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
            // This is only advice. Where the system declines it, more memory stays resident and nothing else changes.
            drop(advised);
        }
    }
}

impl AsRef<[u8]> for MappedSlice {
    fn as_ref(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}
