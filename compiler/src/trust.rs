//! Records that this user compiled a bundle, so that the runtime runs its code without being told to.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::PathBuf;
use trit_format::trust;

/// The record of the bundle with that fingerprint, whether it is there or not; `None` where this user has no folder
/// for such records.
fn file(fingerprint: &str) -> Option<PathBuf> {
    trust::folder(|name| std::env::var_os(name)).map(|folder| folder.join(fingerprint))
}

/// Records the bundle with that fingerprint ([`crate::bundle::Bundle::fingerprint`]) as trusted.
///
/// # Errors
/// Whatever the file system says; `NotFound` where the environment names no folder for records.
pub fn record(fingerprint: &str) -> io::Result<PathBuf> {
    let file = file(fingerprint).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no home folder; set {}", trust::FOLDER_VARIABLE))
    })?;
    let mut folders = DirBuilder::new();
    folders.recursive(true);
    #[cfg(unix)]
    {
        // Who can write here can have code run.
        use std::os::unix::fs::DirBuilderExt;
        folders.mode(0o700);
    }
    if let Some(folder) = file.parent() {
        folders.create(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(&file)?;
    Ok(file)
}

/// Whether the bundle with that fingerprint is recorded as trusted.
pub fn is_recorded(fingerprint: &str) -> bool {
    file(fingerprint).is_some_and(|file| file.is_file())
}
