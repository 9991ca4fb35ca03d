//! Which bundles a user trusts: records of those that the user compiled, and keys of others who sign theirs, in a folder of the
//! user's own.
//!
//! A bundle's machine code is as dangerous as any executable. So the compiler leaves an empty file, named after the bundle's
//! header, in a folder that only the user writes to. A runtime runs embedded code where it finds that file, or where its
//! caller says so. The header holds the digest of every section, so the header's digest names the whole bundle.
//!
//! Keys stand in its folder `keys`, each in a file `NAME.pub` ([`crate::signature`]).
//!
//! Whoever can write to that folder can have code run. So a record counts only if it is a regular file of this user (or of
//! the administrator), in a folder that belongs to them too and that nobody else may write to. Where a record does not count,
//! the error says why and what to do. Windows gives such rights to every user's data folder by itself, so they are not
//! checked there.

mod keys;
mod records;

use crate::container::Digest;
use crate::signature::{MAX_BYTES, SignatureError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use keys::{Keys, read_key, read_own, read_signature};
pub use records::Records;

/// The variable that names another folder than the usual one.
pub const FOLDER_VARIABLE: &str = "TRIT_TRUST_DIR";

/// Why records of trust cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The variable that names the folder holds no absolute path. What it means would depend on where a program is started.
    #[error(
        "{FOLDER_VARIABLE} is {0:?}, no absolute path; give the whole path, or unset it for the usual folder"
    )]
    Relative(PathBuf),
    /// The environment names no folder.
    #[error("there is no home folder; set {FOLDER_VARIABLE} to an absolute path")]
    NoFolder,
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The folder or record.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder, or a record in it, belongs to somebody else.
    #[error(
        "{path} belongs to user {owner}, not to this one ({user}); what is in it does not count: {remedy}"
    )]
    Owner {
        /// The folder or record.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
        /// What to do.
        remedy: String,
    },
    /// Others can change what is in the folder.
    #[error(
        "others may write to {path} (mode {mode:04o}), so that what is in it does not count; chmod {remedy} {path}"
    )]
    Writable {
        /// The folder, or one that it is in.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What `chmod` is to be asked for.
        remedy: &'static str,
    },
    /// A record is a link, a folder, or something else that is no regular file.
    #[error(
        "{0} is no regular file and does not count as a record of trust; remove it and compile the bundle again"
    )]
    NoFile(PathBuf),
    /// The file of a key is a link, a folder, too long, or something else that is no regular file.
    #[error("{0} is no regular file of at most {MAX_BYTES} bytes and does not count as a key")]
    NoKeyFile(PathBuf),
    /// The file of a key holds none.
    #[error("{path}: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: SignatureError,
    },
}

/// The folder of trusted bundles, from the environment: `$TRIT_TRUST_DIR`, else `trit/trusted` in
/// `$XDG_DATA_HOME`, `$LOCALAPPDATA` (Windows) or `$HOME/.local/share`, the first that is an absolute path. `None`
/// where there is none: then no bundle is trusted.
///
/// # Errors
/// [`TrustError::Relative`] where `$TRIT_TRUST_DIR` is set to anything but an absolute path: to go on with another folder
/// would trust what the user meant to leave out.
pub fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>, TrustError> {
    if let Some(folder) = variable(FOLDER_VARIABLE).map(PathBuf::from) {
        return if folder.is_absolute() { Ok(Some(folder)) } else { Err(TrustError::Relative(folder)) };
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("LOCALAPPDATA").filter(|_| cfg!(windows)))
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")));
    Ok(data.map(|data| data.join(Path::new("trit").join("trusted"))))
}

/// The name of a bundle's file in that folder: 64 hexadecimal digits, the BLAKE3 of `header`, the bytes of its
/// header and section table ([`crate::container::Header::encode`]).
pub fn file_name(header: &[u8]) -> String {
    Digest::of(header).to_string()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        folder(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())).unwrap()
    }

    #[test]
    fn the_first_absolute_folder_counts() {
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.local/share/trit/trusted".into()));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]), Some("/x/trit/trusted".into()));
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_DATA_HOME", "x")]),
            Some("/h/.local/share/trit/trusted".into())
        );
        assert_eq!(with(&[("HOME", "/h"), (FOLDER_VARIABLE, "/t")]), Some("/t".into()));
        assert_eq!(with(&[("HOME", "relative")]), None);
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_relative_folder_of_ones_own_is_an_error() {
        for relative in ["trusted", "./trusted", ""] {
            let found = folder(|name| match name {
                FOLDER_VARIABLE => Some(relative.into()),
                _ => Some("/h".into()),
            });
            assert!(matches!(found, Err(TrustError::Relative(path)) if path == Path::new(relative)));
        }
    }

    #[test]
    fn the_name_is_the_headers_digest() {
        // The BLAKE3 of no bytes, from its specification.
        assert_eq!(file_name(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    }
}
