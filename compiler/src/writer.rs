//! Writes a bundle beside its final name, section by section, and renames it when it is whole.

use crate::error::CompileError;
#[cfg(unix)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;
use trit_format::container::{Digest, Header, MAGIC, Section, SectionKind};

/// Temporary files of bundles that are being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files of bundles that are being written, then ends the process with `code`. For whoever hears
/// of Ctrl-C and other requests to end: no destructors run, and no bundle is begun or finished any more.
pub(crate) fn abandon_and_exit(code: i32) -> ! {
    let files = unfinished();
    for file in files.iter() {
        // It may be finished, and renamed, by now.
        let _ = fs::remove_file(file);
    }
    std::process::exit(code)
}

/// Refuses to replace anything but a bundle.
///
/// # Errors
/// [`CompileError::Usage`] where `out` is a folder, its folder does not exist, or it is a file that is no bundle.
pub fn check_output(out: &Path) -> Result<(), CompileError> {
    let usage = |problem: &str| Err(CompileError::Usage(format!("{}: {problem}", out.display())));
    let folder = folder(out);
    if !folder.is_dir() {
        return usage(&format!("cannot be written: there is no folder {}", folder.display()));
    }
    match fs::metadata(out) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => usage("is a folder; name a file, such as model.trit, with -o"),
        Ok(metadata) if !metadata.is_file() => usage("is not an ordinary file; name another with -o"),
        Ok(_) => {
            let mut magic = [0; MAGIC.len()];
            let found = File::open(out).and_then(|mut file| file.read_exact(&mut magic));
            if found.is_err() || magic != MAGIC {
                return usage("exists and is no .trit bundle; remove it, or name another file with -o");
            }
            Ok(())
        }
    }
}

fn folder(out: &Path) -> &Path {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Ends the names of temporary files.
const PART: &str = ".part";
/// Random characters in them.
const RANDOM: usize = 6;
/// Times that a temporary file is made anew where another process took it for abandoned.
#[cfg(unix)]
const TRIES: usize = 8;

/// How names of temporary files for `out` begin.
fn prefix(out: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(out.file_name().unwrap_or("bundle".as_ref()));
    prefix.push(".");
    prefix
}

/// Removes temporary files that processes left which could not remove them, as when they were killed: those that nobody
/// holds a lock on. Nothing else depends on it, so what fails is left alone.
#[cfg(unix)]
fn remove_abandoned(folder: &Path, prefix: &OsStr) {
    let is_ours = |name: &OsStr| {
        let middle = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let random = middle.and_then(|rest| rest.strip_suffix(PART.as_bytes()));
        random.is_some_and(|random| random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_ours(&entry.file_name()) {
            continue;
        }
        let file = File::options().read(true).write(true).open(entry.path());
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A bundle being written. Dropped unfinished, it leaves nothing behind.
pub(crate) struct BundleWriter {
    file: Option<NamedTempFile>,
    temporary: PathBuf,
    out: PathBuf,
    /// Bytes written, those of the header included.
    at: u64,
    count: usize,
    sections: Vec<Section>,
}

impl BundleWriter {
    /// Begins a bundle of exactly `count` sections that will stand at `out`.
    pub fn create(out: &Path, count: usize) -> Result<BundleWriter, CompileError> {
        let prefix = prefix(out);
        #[cfg(unix)]
        remove_abandoned(folder(out), &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PART).rand_bytes(RANDOM);
        #[cfg(unix)]
        {
            // Like any new file, less what the umask forbids; temporary files are private otherwise.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let mut unfinished = unfinished();
        let io = |source| CompileError::Io { path: folder(out).to_owned(), source };
        let mut file = builder.tempfile_in(folder(out)).map_err(io)?;
        #[cfg(unix)]
        for _ in 0..TRIES {
            // Says that the file is being written. Where the system has no such locks nobody else gets one either.
            let _ = file.as_file().try_lock();
            // Whoever looked between the two lines took it for abandoned.
            if file.path().exists() {
                break;
            }
            file = builder.tempfile_in(folder(out)).map_err(io)?;
        }
        let temporary = file.path().to_owned();
        unfinished.push(temporary.clone());
        drop(unfinished);
        let at = Header::bytes(count);
        let io = |source| CompileError::Io { path: out.to_owned(), source };
        file.as_file_mut().seek(SeekFrom::Start(at)).map_err(io)?;
        Ok(BundleWriter { file: Some(file), temporary, out: out.to_owned(), at, count, sections: Vec::new() })
    }

    /// Begins a section, at the next offset of its alignment.
    pub fn section(&mut self, kind: SectionKind) -> Result<SectionWriter<'_>, CompileError> {
        let offset = self.at.next_multiple_of(kind.alignment());
        self.write(&vec![0; (offset - self.at) as usize])?;
        Ok(SectionWriter { kind, offset, hasher: blake3::Hasher::new(), bundle: self })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        let path = self.out.clone();
        let file = self.file()?;
        file.write_all(bytes).map_err(|source| CompileError::Io { path, source })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn file(&mut self) -> Result<&mut File, CompileError> {
        let file = self.file.as_mut().map(NamedTempFile::as_file_mut);
        file.ok_or_else(|| CompileError::Internal("a finished bundle was written to".to_owned()))
    }

    /// Writes the header, lets `check` see the whole file, and gives it its name.
    ///
    /// # Errors
    /// [`CompileError::Io`], and what `check` gives; `out` is then as it was.
    pub fn finish(
        mut self,
        check: impl FnOnce(&Path) -> Result<(), CompileError>,
    ) -> Result<Header, CompileError> {
        if self.sections.len() != self.count {
            let (found, expected) = (self.sections.len(), self.count);
            return Err(CompileError::Internal(format!("{found} sections were written, not {expected}")));
        }
        let header = Header { sections: std::mem::take(&mut self.sections) };
        let path = self.out.clone();
        let io = |source| CompileError::Io { path: path.clone(), source };
        let file = self.file()?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(&header.encode()).map_err(io)?;
        file.sync_all().map_err(io)?;
        check(&self.temporary)?;
        if let Some(file) = self.file.take() {
            file.persist(&self.out).map_err(|e| io(e.error))?;
        }
        Ok(header)
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        // The file removes itself; from here on nobody else needs to.
        drop(self.file.take());
        unfinished().retain(|path| *path != self.temporary);
    }
}

/// A section being written.
pub(crate) struct SectionWriter<'b> {
    kind: SectionKind,
    offset: u64,
    hasher: blake3::Hasher,
    bundle: &'b mut BundleWriter,
}

impl SectionWriter<'_> {
    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        if bytes.len() < 1 << 20 {
            self.hasher.update(bytes);
        } else {
            self.hasher.update_rayon(bytes);
        }
        self.bundle.write(bytes)
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.bundle.at - self.offset
    }

    /// Ends the section.
    pub fn finish(self) {
        let (kind, offset, len) = (self.kind, self.offset, self.len());
        let digest = Digest(self.hasher.finalize().into());
        self.bundle.sections.push(Section { kind, offset, len, digest });
    }
}
