//! Where a bundle's bytes come from.
//!
//! Loading reads every byte on which safety depends once, into private memory, and checks that copy. A source may
//! therefore answer reads as it likes, even differently each time: the result is at worst an error or wrong numbers.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use trit_format::{program, trust};

/// What happened to a source while it was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The file that holds it became shorter.
    CutOff {
        /// Bytes of the file when it was opened.
        from: u64,
        /// Bytes it has now.
        to: u64,
    },
    /// A read found that the source ends earlier than it did when it was opened.
    Ended,
    /// Somebody wrote to the file.
    Written,
    /// A change that a source of another kind reports, as the end of a sentence.
    Other(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CutOff { from, to } => write!(f, "it was cut off, from {from} to {to} bytes"),
            Change::Ended => f.write_str("it was cut off"),
            Change::Written => f.write_str("it was written to"),
            Change::Other(what) => f.write_str(what),
        }
    }
}

/// The bytes of one bundle, which can be read at any position.
pub trait Source: Send + Sync {
    /// How many bytes the bundle has.
    fn len(&self) -> u64;

    /// Whether the bundle has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to` with the bytes from `offset` on.
    ///
    /// # Errors
    /// Those of the system, and [`io::ErrorKind::UnexpectedEof`] where the source ends too early.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()>;

    /// What happened to the bytes since the source was opened; `None` where nothing did, or where that cannot be known
    /// without reading them. It is called after every pass of a model that still needs the source.
    ///
    /// # Errors
    /// What the system says.
    fn changed(&self) -> io::Result<Option<Change>> {
        Ok(None)
    }

    /// The file of the bundle's signature ([`trit_format::signature`]), where there is one.
    ///
    /// # Errors
    /// What the system says.
    fn signature(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// The file that holds the bundle, and the bundle's offset in it, where the file may be mapped. Mapped memory shows
    /// whatever others write to the file. `None` where the source is no file.
    fn file(&self) -> Option<(&File, u64)> {
        None
    }
}

/// A bundle in a file, or in a part of one.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    offset: u64,
    len: u64,
    /// The identity of the whole file when it was opened.
    identity: Identity,
    signature: Signed,
}

/// Where a bundle's signature is.
#[derive(Debug)]
enum Signed {
    /// Nowhere.
    No,
    /// Beside this bundle, if there is one.
    Beside(PathBuf),
    /// Here, as it was in a program.
    Here(Vec<u8>),
}

/// What changes when a file is written to. The `ctime` is not part of it: it also changes when the file is deleted or
/// another one is renamed over it, and neither touches the bytes that this process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: Option<SystemTime>,
}

impl Identity {
    fn of(file: &File) -> io::Result<Identity> {
        let metadata = file.metadata()?;
        Ok(Identity { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl FileSource {
    /// The whole file at `path`, or the bundle in a one-file program ([`trit_format::program`]). Its signature stands beside
    /// the bundle, or in the program.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::IsADirectory`] for a folder, [`io::ErrorKind::InvalidData`] for a program that
    /// was damaged.
    pub fn open(path: &Path) -> io::Result<FileSource> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, not a .trit bundle"));
        }
        let len = file.metadata()?.len();
        Ok(match program_in(&file, len)? {
            Some(program::Program { offset, len, signature }) => {
                let signature = signature.map_or(Signed::No, Signed::Here);
                FileSource { signature, ..FileSource::part(file, offset, len)? }
            }
            None => {
                let signature = Signed::Beside(path.to_owned());
                FileSource { signature, ..FileSource::part(file, 0, len)? }
            }
        })
    }

    /// The `len` bytes of a file from `offset` on: a bundle inside another file. It can be mapped where `offset` is a
    /// multiple of 64, and is copied otherwise.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] where the file ends before.
    pub fn part(file: File, offset: u64, len: u64) -> io::Result<FileSource> {
        let identity = Identity::of(&file)?;
        if offset.checked_add(len).is_none_or(|end| end > identity.len) {
            let problem = format!("has {} bytes, too few for {len} from {offset} on", identity.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        Ok(FileSource { file, offset, len, identity, signature: Signed::No })
    }
}

/// The bundle in a file of `len` bytes, where that is a program with one.
fn program_in(file: &File, len: u64) -> io::Result<Option<program::Program>> {
    program::find(len, |at, to| read_exact_at(file, to, at))
}

/// Whether the file at `path` is a one-file program.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::InvalidData`] for a program that was damaged.
pub fn is_program(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok(program_in(&file, len)?.is_some())
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(to.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_exact_at(&self.file, to, self.offset + offset)
    }

    fn changed(&self) -> io::Result<Option<Change>> {
        let now = Identity::of(&self.file)?;
        Ok(match self.identity.len {
            len if now.len < len => Some(Change::CutOff { from: len, to: now.len }),
            _ if now != self.identity => Some(Change::Written),
            _ => None,
        })
    }

    fn signature(&self) -> io::Result<Option<Vec<u8>>> {
        match &self.signature {
            Signed::No => Ok(None),
            Signed::Here(file) => Ok(Some(file.clone())),
            Signed::Beside(bundle) => trust::read_signature(bundle),
        }
    }

    fn file(&self) -> Option<(&File, u64)> {
        Some((&self.file, self.offset))
    }
}

/// A bundle in memory, such as a `Vec<u8>` or a constant of the program. It cannot be mapped, so weights are copied from it.
#[derive(Debug)]
pub struct MemorySource<T> {
    bytes: T,
}

impl<T: AsRef<[u8]>> MemorySource<T> {
    /// The bundle whose bytes these are.
    pub fn new(bytes: T) -> MemorySource<T> {
        MemorySource { bytes }
    }
}

impl<T: AsRef<[u8]> + Send + Sync> Source for MemorySource<T> {
    fn len(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|from| self.bytes.as_ref().get(from..));
        let from = from.and_then(|from| from.get(..to.len()));
        to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut to: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !to.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, to, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                to = &mut to[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_part_of_a_file_ends_where_it_says() {
        let source = FileSource::part(file(b"0123456789"), 2, 5).unwrap();
        let mut to = [0; 3];
        source.read_at(2, &mut to).unwrap();
        assert_eq!((&to, source.len()), (b"456", 5));
        for offset in [3, 5, u64::MAX] {
            assert_eq!(source.read_at(offset, &mut to).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        for (offset, len) in [(2, 9), (11, 0), (u64::MAX, 2)] {
            FileSource::part(file(b"0123456789"), offset, len).unwrap_err();
        }
    }

    #[test]
    fn memory_ends_where_its_bytes_end() {
        let source = MemorySource::new(b"0123456789");
        let mut to = [0; 3];
        source.read_at(7, &mut to).unwrap();
        assert_eq!((&to, source.len(), source.file().is_none()), (b"789", 10, true));
        for offset in [8, 10, 11, u64::MAX] {
            assert_eq!(source.read_at(offset, &mut to).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        source.read_at(10, &mut []).unwrap();
    }

    #[test]
    fn changes_of_the_file_are_seen() {
        let written = file(b"0123456789");
        let source = FileSource::part(written.try_clone().unwrap(), 0, 10).unwrap();
        assert_eq!(source.changed().unwrap(), None);
        written.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(source.changed().unwrap(), Some(Change::Written));
        written.set_len(4).unwrap();
        let change = source.changed().unwrap().unwrap();
        assert_eq!(change, Change::CutOff { from: 10, to: 4 });
        assert_eq!(change.to_string(), "it was cut off, from 10 to 4 bytes");
        assert_eq!(source.read_at(3, &mut [0; 3]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
