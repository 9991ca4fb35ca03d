//! Files that take long to make and that a user names: what may be replaced, and how a file appears whole or not at all.
//!
//! The compiler and the runtime's command both write such files, so the definition of what they may replace stands here,
//! beside the other things that they share.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;

/// A kind of file that a command writes, and may replace.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What it is called, without an article: `.trit bundle`.
    pub name: &'static str,
    /// A name to suggest: `model.trit`.
    pub example: &'static str,
    /// Whether a file is of this kind, as its first bytes or its last ones say.
    pub is: fn(&mut File) -> io::Result<bool>,
}

/// A file that may not be written, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct OutputError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// Why it may not be.
    pub problem: OutputProblem,
}

/// Why a file may not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputProblem {
    /// The folder it would stand in does not exist.
    #[error("cannot be written: there is no folder {folder}")]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A link stands there that leads to nothing.
    #[error("is a link to nothing")]
    DanglingLink,
    /// A folder stands there.
    #[error("is a folder")]
    Folder {
        /// A name that a file of this kind could have: [`Kind::example`].
        example: &'static str,
    },
    /// A device, a pipe or the like stands there.
    #[error("is not an ordinary file")]
    NotOrdinary,
    /// It is one of the files that are read to make it.
    #[error("is what is read")]
    IsInput,
    /// A file of another kind stands there.
    #[error("exists and is no {name}")]
    OtherKind {
        /// The kind that could be replaced: [`Kind::name`].
        name: &'static str,
    },
}

/// Refuses to replace anything but an ordinary file of the same kind that is none of `inputs`.
///
/// # Errors
/// [`OutputError`] where `out` is a folder, a device or a pipe, a link to nothing, one of `inputs` by whatever name, or a
/// file of another kind, or where its folder does not exist.
pub fn check(out: &Path, kind: &Kind, inputs: &[&Path]) -> Result<(), OutputError> {
    let refuse = |problem| Err(OutputError { path: out.to_owned(), problem });
    let folder = folder(out);
    if !folder.is_dir() {
        return refuse(OutputProblem::NoFolder { folder: folder.to_owned() });
    }
    let metadata = match fs::metadata(out) {
        Ok(metadata) => metadata,
        Err(_) if fs::symlink_metadata(out).is_ok() => return refuse(OutputProblem::DanglingLink),
        Err(_) => return Ok(()),
    };
    if metadata.is_dir() {
        return refuse(OutputProblem::Folder { example: kind.example });
    }
    if !metadata.is_file() {
        return refuse(OutputProblem::NotOrdinary);
    }
    if inputs.iter().any(|input| is_same(input, out, &metadata)) {
        return refuse(OutputProblem::IsInput);
    }
    match File::open(out).and_then(|mut file| (kind.is)(&mut file)) {
        Ok(true) => Ok(()),
        _ => refuse(OutputProblem::OtherKind { name: kind.name }),
    }
}

/// Whether both names lead to one file, through links of either kind too.
fn is_same(input: &Path, out: &Path, metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let _ = out;
        fs::metadata(input).is_ok_and(|m| (m.dev(), m.ino()) == (metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        matches!((fs::canonicalize(input), fs::canonicalize(out)), (Ok(a), Ok(b)) if a == b)
    }
}

/// The folder that a file stands in.
pub fn folder(out: &Path) -> &Path {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A list of the files that are being written and not whole yet. Whoever ends a process without running destructors, as a
/// handler of a signal does, removes them with [`Unfinished::abandon`]. Clones are the same list. A program that takes no
/// signals gives [`Pending::create`] a new one and forgets about it.
#[derive(Clone, Debug, Default)]
pub struct Unfinished(Arc<Mutex<Listed>>);

/// The files, and whether more may come.
#[derive(Debug, Default)]
struct Listed {
    files: Vec<PathBuf>,
    abandoned: bool,
}

impl Unfinished {
    fn list(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the temporary files of the list, then lets `end` end the process, or whatever else writes the files. No file
    /// is begun any more, and the list stays locked meanwhile, so that none is finished either.
    pub fn abandon(&self, end: impl FnOnce()) {
        let mut list = self.list();
        list.abandoned = true;
        for file in &list.files {
            // It may be finished, and renamed, by now.
            let _ = fs::remove_file(file);
        }
        end();
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
    prefix.push(out.file_name().unwrap_or("output".as_ref()));
    prefix.push(".");
    prefix
}

/// Makes a temporary file in a folder with these rights, on systems whose files have such.
fn temporary_file(folder: &Path, prefix: &OsStr, mode: u32) -> io::Result<NamedTempFile> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    // The library would say which temporary file it is, where the message is to name the one that it becomes.
    let mut said = None;
    let open = |path: &Path| options.open(path).inspect_err(|error| said = error.raw_os_error());
    let made = tempfile::Builder::new().prefix(prefix).suffix(PART).rand_bytes(RANDOM).make_in(folder, open);
    made.map_err(|error| said.map_or(error, io::Error::from_raw_os_error))
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

/// A file being written beside its final name, so that renaming cannot cross file systems. Dropped before
/// [`Pending::keep`] it leaves nothing behind.
pub struct Pending {
    file: Option<NamedTempFile>,
    temporary: PathBuf,
    out: PathBuf,
    unfinished: Unfinished,
}

impl Pending {
    /// Begins what will stand at `out`, and lists it in `unfinished` until it is kept or dropped.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn create(out: &Path, unfinished: &Unfinished) -> io::Result<Pending> {
        // Like any new file, less what the umask forbids.
        Pending::with_mode(out, unfinished, 0o666)
    }

    /// As [`Pending::create`], for what nobody but its owner may read.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn private(out: &Path, unfinished: &Unfinished) -> io::Result<Pending> {
        Pending::with_mode(out, unfinished, 0o600)
    }

    /// Begins a file with these rights, on systems whose files have such.
    fn with_mode(out: &Path, unfinished: &Unfinished, mode: u32) -> io::Result<Pending> {
        let prefix = prefix(out);
        #[cfg(unix)]
        remove_abandoned(folder(out), &prefix);
        // Held until the file is listed, so that none is made after a signal that would stay.
        let mut list = unfinished.list();
        if list.abandoned {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut file = temporary_file(folder(out), &prefix, mode)?;
        #[cfg(unix)]
        for _ in 0..TRIES {
            // Says that the file is being written. Where the system has no such locks nobody else gets one either.
            let _ = file.as_file().try_lock();
            // Whoever looked between the two lines took it for abandoned.
            if file.path().exists() {
                break;
            }
            file = temporary_file(folder(out), &prefix, mode)?;
        }
        let temporary = file.path().to_owned();
        list.files.push(temporary.clone());
        drop(list);
        Ok(Pending { file: Some(file), temporary, out: out.to_owned(), unfinished: unfinished.clone() })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("taken only by keep, which ends it").as_file_mut()
    }

    /// Where it stands until it is kept.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What the system says; nothing is left behind then.
    pub fn keep(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist(&self.out).map(drop).map_err(|e| e.error)
    }

    /// As [`Pending::keep`], for a file that replaces none.
    ///
    /// # Errors
    /// What the system says, [`io::ErrorKind::AlreadyExists`] where there is a file of that name; nothing is left behind then.
    pub fn keep_new(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        file.as_file().sync_all()?;
        file.persist_noclobber(&self.out).map(drop).map_err(|e| e.error)
    }

    /// Makes the file one that can be run by whoever may read it, on systems whose files say so.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_executable(&mut self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = self.file().metadata()?.permissions().mode();
            let runs = mode | (mode & 0o444) >> 2;
            self.file().set_permissions(fs::Permissions::from_mode(runs))?;
        }
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The file removes itself; from here on nobody else needs to.
        drop(self.file.take());
        self.unfinished.list().files.retain(|path| *path != self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    const NOTES: Kind = Kind {
        name: "note",
        example: "note.txt",
        is: |file| {
            let mut first = [0; 5];
            file.read_exact(&mut first).map(|()| first == *b"note:")
        },
    };

    #[test]
    fn only_files_of_the_same_kind_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (input, own) = (file("input", "note: read"), file("own", "note: mine"));
        let (other, empty) = (file("other", "years of work"), file("empty", ""));
        let refused = |out: &Path| match check(out, &NOTES, &[&input]) {
            Err(error) => error.to_string(),
            Ok(()) => panic!("{out:?}"),
        };
        for new in [&own, &folder.path().join("new")] {
            check(new, &NOTES, &[&input]).unwrap();
        }
        for (out, words) in [
            (input.clone(), "is what is read"),
            (other, "is no note"),
            (empty, "is no note"),
            (folder.path().to_owned(), "is a folder"),
            (folder.path().join("no/new"), "there is no folder"),
        ] {
            let message = refused(&out);
            assert!(
                message.starts_with(&format!("{}: ", out.display())) && message.contains(words),
                "{message}"
            );
        }
        #[cfg(unix)]
        {
            let at = |name: &str| folder.path().join(name);
            fs::hard_link(&input, at("hard")).unwrap();
            std::os::unix::fs::symlink(&input, at("soft")).unwrap();
            std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
            assert!(refused(&at("hard")).contains("is what is read"));
            assert!(refused(&at("soft")).contains("is what is read"));
            assert!(refused(&at("dangling")).contains("a link to nothing"));
            assert!(refused(Path::new("/dev/null")).contains("is not an ordinary file"));
        }
    }

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let out = folder.path().join("out");
        let unfinished = Unfinished::default();
        let mut file = Pending::create(&out, &unfinished).unwrap();
        file.file().write_all(b"half").unwrap();
        assert_eq!(names(), 1);
        drop(file);
        assert_eq!(names(), 0);
        let file = Pending::create(&out, &unfinished).unwrap();
        let mut ended = false;
        unfinished.abandon(|| ended = true);
        assert_eq!((names(), ended), (0, true));
        drop(file);
        // Whoever cannot begin one hears of no temporary name.
        let nowhere = Pending::create(&folder.path().join("no/out"), &Unfinished::default()).err().unwrap();
        assert!(nowhere.raw_os_error().is_some() && !nowhere.to_string().contains("out"), "{nowhere}");
        // Whoever was told to end begins nothing any more.
        assert!(Pending::create(&out, &unfinished).is_err());
        assert_eq!(names(), 0);
        let mut file = Pending::create(&out, &Unfinished::default()).unwrap();
        file.file().write_all(b"whole").unwrap();
        assert!(!out.exists() && file.temporary().exists());
        file.keep().unwrap();
        assert_eq!((fs::read(&out).unwrap(), names()), (b"whole".to_vec(), 1));
        // What is there stays where a new file was to be.
        let file = Pending::create(&out, &Unfinished::default()).unwrap();
        assert_eq!(file.keep_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&out).unwrap(), names()), (b"whole".to_vec(), 1));
        fs::remove_file(&out).unwrap();
        let mut file = Pending::create(&out, &Unfinished::default()).unwrap();
        file.make_executable().unwrap();
        file.keep_new().unwrap();
        assert_eq!(names(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&out).unwrap().permissions().mode();
            assert!(mode & 0o100 != 0 && (mode & 0o011 != 0) == (mode & 0o044 != 0), "{mode:o}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let write = |pending: io::Result<Pending>| {
            pending.unwrap().keep().unwrap();
            fs::metadata(&out).unwrap().permissions().mode() & 0o777
        };
        let unfinished = Unfinished::default();
        // Whatever stood there before.
        assert_ne!(write(Pending::create(&out, &unfinished)) & 0o400, 0);
        fs::set_permissions(&out, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(write(Pending::private(&out, &unfinished)), 0o600);
    }
}
