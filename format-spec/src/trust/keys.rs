//! The folder of keys whose signatures count, and what files of keys and signatures must be like.

use super::records::system;
use super::{TrustError, folder};
use crate::signature::{self, MAX_BYTES, PublicKey};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The name of the folder within that of the records.
const FOLDER: &str = "keys";
/// What the files of keys end in.
const EXTENSION: &str = "pub";

/// Keys whose signatures a user trusts, each with a name: the files `NAME.pub` of a folder.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

impl Keys {
    /// Those in the folder that the environment names ([`folder`]).
    ///
    /// # Errors
    /// [`TrustError::Relative`], and [`TrustError::NoFolder`] where the environment names none.
    pub fn of_user() -> Result<Keys, TrustError> {
        folder(|name| std::env::var_os(name))?
            .map(|folder| Keys::beside_records(&folder))
            .ok_or(TrustError::NoFolder)
    }

    /// Those that belong to a folder of records.
    pub fn beside_records(records: &Path) -> Keys {
        Keys { folder: records.join(FOLDER) }
    }

    /// Where they stand.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of a trusted key; `None` where it is not trusted. Where there is no folder, none is.
    ///
    /// # Errors
    /// [`TrustError`] where the key is not found, and the folder, or one of its files, is such that it does not count.
    pub fn name_of(&self, key: PublicKey) -> Result<Option<String>, TrustError> {
        let io = |source| TrustError::Io { path: self.folder.clone(), source };
        match system::open(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
            Ok(opened) => system::check(&opened, &self.folder)?,
        }
        let mut problem = None;
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(io)? {
            paths.push(entry.map_err(io)?.path());
        }
        // Of two names for a key always the same one.
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == EXTENSION)) {
            match read_key(&path) {
                Ok(found) if found == key => {
                    return Ok(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
                }
                Ok(_) => {}
                Err(error) => problem = Some(error),
            }
        }
        problem.map_or(Ok(None), Err)
    }
}

/// Reads the file of a public key, which nobody but this user or the administrator may write to.
///
/// # Errors
/// As [`read_own`]; [`TrustError::Key`] where the file holds no public key.
pub fn read_key(path: &Path) -> Result<PublicKey, TrustError> {
    let (_, bytes) = read_own(path)?;
    PublicKey::from_pem(&bytes).map_err(|problem| TrustError::Key { path: path.to_owned(), problem })
}

/// Reads the file of a key, of either kind, and gives the open file too.
///
/// # Errors
/// [`TrustError::Io`], [`TrustError::NoKeyFile`]; [`TrustError::Owner`] and [`TrustError::Writable`] where the file is
/// somebody else's, or others may write to it.
pub fn read_own(path: &Path) -> Result<(File, Vec<u8>), TrustError> {
    let io = |source| TrustError::Io { path: path.to_owned(), source };
    let found = read_small(path).map_err(io)?;
    let (file, bytes) = found.ok_or_else(|| TrustError::NoKeyFile(path.to_owned()))?;
    check_unwritable(path, &file)?;
    Ok((file, bytes))
}

/// Reads the file of a bundle's signature, which stands beside it; `None` where there is none.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::InvalidData`] for what can be no signature.
pub fn read_signature(bundle: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_small(&signature::beside(bundle)) {
        Ok(Some((_, bytes))) => Ok(Some(bytes)),
        Ok(None) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file, or too long")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file of at most [`MAX_BYTES`] bytes and reads it, without waiting for a pipe. `None` where it is no regular file,
/// or longer.
fn read_small(path: &Path) -> io::Result<Option<(File, Vec<u8>)>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    (&mut file).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((file.metadata()?.is_file() && bytes.len() <= MAX_BYTES).then_some((file, bytes)))
}

/// Checks that an open file of a key belongs to this user or the administrator, and that nobody else may write to it.
#[cfg(unix)]
fn check_unwritable(path: &Path, file: &File) -> Result<(), TrustError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    system::own(path, metadata.uid(), || "copy the key to a file of your own".to_owned())?;
    let (mode, path) = (metadata.mode(), path.to_owned());
    match mode & system::OTHERS_WRITE {
        0 => Ok(()),
        _ => Err(TrustError::Writable { path, mode: mode & 0o7777, remedy: "go-w" }),
    }
}

/// Files of users are their own here unless somebody changed that.
#[cfg(not(unix))]
fn check_unwritable(_: &Path, _: &File) -> Result<(), TrustError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn key(byte: u8) -> PublicKey {
        PublicKey::of(&SigningKey::from_bytes(&[byte; 32]))
    }

    #[test]
    fn keys_count_by_name_and_bad_files_only_where_none_is_found() {
        let records = tempfile::tempdir().unwrap();
        let keys = Keys::beside_records(records.path());
        assert_eq!(keys.name_of(key(1)).unwrap(), None);
        fs::create_dir(keys.folder()).unwrap();
        fs::set_permissions(keys.folder(), Permissions::from_mode(0o700)).unwrap();
        for (name, byte) in [("vendor.pub", 1), ("second.pub", 1), ("other.pub", 2), ("no-key.txt", 3)] {
            fs::write(keys.folder().join(name), key(byte).to_pem()).unwrap();
        }
        assert_eq!(keys.name_of(key(1)).unwrap().as_deref(), Some("second"));
        assert_eq!(keys.name_of(key(2)).unwrap().as_deref(), Some("other"));
        assert_eq!(keys.name_of(key(3)).unwrap(), None);

        fs::write(keys.folder().join("bad.pub"), "no key").unwrap();
        assert_eq!(keys.name_of(key(2)).unwrap().as_deref(), Some("other"));
        let error = keys.name_of(key(3)).unwrap_err();
        assert!(matches!(&error, TrustError::Key { .. }) && error.to_string().contains("bad.pub"), "{error}");
        fs::write(keys.folder().join("bad.pub"), vec![b'-'; MAX_BYTES + 1]).unwrap();
        assert!(matches!(keys.name_of(key(3)), Err(TrustError::NoKeyFile(_))));
    }

    #[test]
    fn what_others_can_write_does_not_count() {
        let records = tempfile::tempdir().unwrap();
        let keys = Keys::beside_records(records.path());
        fs::create_dir(keys.folder()).unwrap();
        let file = keys.folder().join("vendor.pub");
        fs::write(&file, key(1).to_pem()).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        fs::set_permissions(keys.folder(), Permissions::from_mode(0o700)).unwrap();
        let error = keys.name_of(key(1)).unwrap_err().to_string();
        assert!(error.contains("vendor.pub") && error.contains("chmod go-w"), "{error}");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(keys.name_of(key(1)).unwrap().as_deref(), Some("vendor"));
        fs::set_permissions(keys.folder(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(keys.name_of(key(1)), Err(TrustError::Writable { .. })));
    }
}
