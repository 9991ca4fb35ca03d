//! Which bundles a user compiled: names only, no file system.
//!
//! A bundle's machine code is as dangerous as any executable. `tritc compile` leaves an empty file, named after the
//! bundle's header, in a folder that only the user writes to; a runtime runs embedded code only where that file
//! stands, or when told to. The header holds the digest of every section, so its digest names the whole bundle.

use crate::container::Digest;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names another folder than the usual one.
pub const FOLDER_VARIABLE: &str = "TRIT_TRUST_DIR";

/// The folder of trusted bundles, from the environment: `$TRIT_TRUST_DIR`, else `trit/trusted` in
/// `$XDG_DATA_HOME`, `$LOCALAPPDATA` (Windows) or `$HOME/.local/share`, the first that is an absolute path. `None`
/// where there is none: then no bundle is trusted.
pub fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = || {
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("LOCALAPPDATA").filter(|_| cfg!(windows)))
            .or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))
    };
    absolute(FOLDER_VARIABLE).or_else(|| data().map(|data| data.join(Path::new("trit").join("trusted"))))
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
        folder(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
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
    fn the_name_is_the_headers_digest() {
        // The BLAKE3 of no bytes, from its specification.
        assert_eq!(file_name(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    }
}
