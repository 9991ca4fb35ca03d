//! Notices whether somebody wrote to a file since it was opened. A compilation takes minutes and reads its mapped
//! checkpoint more than once, and it must not make a bundle of halves of two checkpoints.

use crate::error::CompileError;
use crate::files::locate::at;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What differs between a file and the same file after it was written to or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// Bytes.
    len: u64,
    modified: Option<SystemTime>,
    /// The device, and the number of the file on it, where the system has such numbers.
    place: Option<(u64, u64)>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let place = None;
        Identity { len: metadata.len(), modified: metadata.modified().ok(), place }
    }
}

/// A file as it was when it was opened.
#[derive(Clone, Debug)]
pub struct InputFile {
    path: PathBuf,
    identity: Identity,
}

impl InputFile {
    /// The file at `path`, which has that metadata.
    pub(crate) fn new(path: &Path, metadata: &Metadata) -> InputFile {
        InputFile { path: path.to_owned(), identity: Identity::of(metadata) }
    }

    /// Reads all of the file at `path`. A file of more than `most` bytes is refused, because no such file makes
    /// sense.
    ///
    /// # Errors
    /// A file that cannot be read, or is larger.
    pub(crate) fn read(path: &Path, most: u64) -> Result<(InputFile, Vec<u8>), CompileError> {
        let io = |source| CompileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let source = InputFile::new(path, &file.metadata().map_err(io)?);
        let too_long = || CompileError::Invalid {
            path: path.to_owned(),
            problem: format!("is over {} MiB, which is no plausible size", most >> 20),
        };
        if source.identity.len > most {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        // Where the file grows meanwhile, no more of it is read.
        let read = bytes.try_reserve_exact(source.identity.len as usize);
        read.map_err(|e| CompileError::System(format!("{}: no memory to read it: {e}", path.display())))?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > most { Err(too_long()) } else { Ok((source, bytes)) }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.identity.len
    }

    /// Refuses a file that is no longer what it was; `metadata` is that of now.
    pub(crate) fn expect(&self, metadata: &Metadata) -> Result<(), CompileError> {
        let now = Identity::of(metadata);
        if now == self.identity {
            return Ok(());
        }
        let what = match (now.len, self.identity.len) {
            (now, was) if now != was => format!("had {was} bytes and has {now}"),
            _ if now.place != self.identity.place => "is another file by the same name".to_owned(),
            _ => "was written to".to_owned(),
        };
        let problem = format!(
            "changed while it was read: it {what}. No bundle was written; compile again when nothing writes to it"
        );
        Err(CompileError::Invalid { path: self.path.clone(), problem })
    }
}

/// Every file that a model was read from.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub(crate) Vec<InputFile>);

impl Inputs {
    /// Refuses files that changed since they were opened.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] for the first that was written to, replaced or removed.
    pub fn expect_unchanged(&self) -> Result<(), CompileError> {
        for source in &self.0 {
            let Some(metadata) = at(&source.path)? else {
                let problem = "was removed while it was read. No bundle was written".to_owned();
                return Err(CompileError::Invalid { path: source.path.clone(), problem });
            };
            source.expect(&metadata)?;
        }
        Ok(())
    }
}
