//! The folder of records as it stands in the file system, and who may write to it.

use super::{TrustError, folder};
use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

/// This user's records of trusted bundles.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Those of the folder that the environment names ([`folder`]).
    ///
    /// # Errors
    /// [`TrustError::Relative`], and [`TrustError::NoFolder`] where the environment names none.
    pub fn of_user() -> Result<Records, TrustError> {
        folder(|name| std::env::var_os(name))?.map(Records::in_folder).ok_or(TrustError::NoFolder)
    }

    /// Those of a folder, which need not be there yet.
    pub fn in_folder(folder: PathBuf) -> Records {
        Records { folder }
    }

    /// Where they stand.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the bundle of that name ([`super::file_name`]) is recorded as trusted. Where there is no folder, none is.
    ///
    /// # Errors
    /// [`TrustError`] where the folder or the record is such that it does not count.
    pub fn contains(&self, name: &str) -> Result<bool, TrustError> {
        match self.open() {
            Err(TrustError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(other) => Err(other),
            Ok(folder) => system::is_record(&folder, &self.folder, name),
        }
    }

    /// Records a bundle as trusted and gives the record's place. A missing folder is made, with rights for this user alone.
    ///
    /// # Errors
    /// [`TrustError`] where the folder cannot be made or written, or the record would not count.
    pub fn add(&self, name: &str) -> Result<PathBuf, TrustError> {
        let mut folders = DirBuilder::new();
        folders.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        folders.create(&self.folder).map_err(|source| self.io(source))?;
        let folder = self.open()?;
        let path = self.folder.join(name);
        system::create(&folder, &path, name)
            .map_err(|source| TrustError::Io { path: path.clone(), source })?;
        match system::is_record(&folder, &self.folder, name)? {
            true => Ok(path),
            false => Err(TrustError::Io { path, source: io::ErrorKind::NotFound.into() }),
        }
    }

    fn io(&self, source: io::Error) -> TrustError {
        TrustError::Io { path: self.folder.clone(), source }
    }

    /// Opens and checks the folder. Records are then looked up in the opened folder, so that renaming something meanwhile does
    /// not put an unchecked folder in its place.
    fn open(&self) -> Result<system::Folder, TrustError> {
        system::open(&self.folder).map_err(|source| self.io(source)).and_then(|opened| {
            system::check(&opened, &self.folder)?;
            Ok(opened)
        })
    }
}

/// Systems with owners and permissions.
#[cfg(unix)]
pub(super) mod system {
    use super::*;
    use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    /// Permissions of the group and of everybody else to write.
    pub const OTHERS_WRITE: u32 = 0o022;
    /// Permission of everybody to write. With the sticky bit, as on `/tmp`, everybody may change only what is their own.
    const ALL_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;

    pub type Folder = File;

    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Whether files of `owner` are this user's or the administrator's.
    pub fn own(path: &Path, owner: u32, remedy: impl FnOnce() -> String) -> Result<(), TrustError> {
        let user = rustix::process::geteuid().as_raw();
        match owner == user || owner == 0 {
            true => Ok(()),
            false => Err(TrustError::Owner { path: path.to_owned(), owner, user, remedy: remedy() }),
        }
    }

    /// Whether nobody else can write to the opened folder, nor put another in its place. What the group may do to folders
    /// above is not looked at: many systems give each user a group of their own, and whatever others move here must still
    /// belong to this user to count.
    pub fn check(opened: &Folder, path: &Path) -> Result<(), TrustError> {
        let io = |source| TrustError::Io { path: path.to_owned(), source };
        let metadata = opened.metadata().map_err(io)?;
        own(path, metadata.uid(), || {
            format!("set {} to a folder of your own", super::super::FOLDER_VARIABLE)
        })?;
        let refused = |path: &Path, mode: u32, remedy| {
            Err(TrustError::Writable { path: path.to_owned(), mode: mode & 0o7777, remedy })
        };
        if metadata.mode() & OTHERS_WRITE != 0 {
            return refused(path, metadata.mode(), "go-w");
        }
        for above in std::fs::canonicalize(path).map_err(io)?.ancestors().skip(1) {
            let mode = std::fs::metadata(above).map_err(io)?.mode();
            if mode & ALL_WRITE != 0 && mode & STICKY == 0 {
                return refused(above, mode, "o-w");
            }
        }
        Ok(())
    }

    /// Whether the opened folder holds that record.
    pub fn is_record(opened: &Folder, folder: &Path, name: &str) -> Result<bool, TrustError> {
        let path = || folder.join(name);
        let found = match statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(e) => return Err(TrustError::Io { path: path(), source: e.into() }),
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(TrustError::NoFile(path()));
        }
        own(&path(), found.st_uid, || "remove it and compile the bundle again".to_owned())?;
        Ok(true)
    }

    /// Makes an empty record in the opened folder, or leaves the one that is there.
    pub fn create(opened: &Folder, _: &Path, name: &str) -> io::Result<()> {
        // `NONBLOCK`, so that this does not wait for a reader if a pipe stands there.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(opened, name, flags, Mode::RUSR | Mode::WUSR).map(drop).map_err(Into::into)
    }
}

/// Systems where a user's folders are the user's own unless somebody changed that.
#[cfg(not(unix))]
pub(super) mod system {
    use super::*;

    pub type Folder = ();

    pub fn open(path: &Path) -> io::Result<Folder> {
        match std::fs::metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub fn check((): &Folder, _: &Path) -> Result<(), TrustError> {
        Ok(())
    }

    pub fn is_record((): &Folder, folder: &Path, name: &str) -> Result<bool, TrustError> {
        let path = folder.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => Ok(true),
            Ok(_) => Err(TrustError::NoFile(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(TrustError::Io { path, source }),
        }
    }

    pub fn create((): &Folder, path: &Path, _: &str) -> io::Result<()> {
        std::fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
    }
}
