//! Files that a command writes: what may be replaced, and how a file appears whole or not at all.
//!
//! Both commands write files that take long to make and are named by the user. One definition of what they may replace
//! stands here, beside the other things that compiler and runtime share.

#[cfg(unix)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;

/// A kind of file that a command writes, and may replace.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What it is called, without an article: `.trit bundle`.
    pub name: &'static str,
    /// A name to suggest: `model.trit`.
    pub example: &'static str,
    /// Whether a file's first bytes are of this kind.
    pub is: fn(&mut dyn Read) -> io::Result<bool>,
}

/// Refuses to replace anything but an ordinary file of the same kind that is none of `inputs`.
///
/// # Errors
/// The message for the user, where `out` is a folder, a device or a pipe, a link to nothing, one of `inputs` by whatever
/// name, or a file of another kind, or where its folder does not exist.
pub fn check(out: &Path, kind: &Kind, inputs: &[&Path]) -> Result<(), String> {
    let refuse = |problem: &str| Err(format!("{}: {problem}", out.display()));
    let folder = folder(out);
    if !folder.is_dir() {
        return refuse(&format!("cannot be written: there is no folder {}", folder.display()));
    }
    let metadata = match fs::metadata(out) {
        Ok(metadata) => metadata,
        Err(_) if fs::symlink_metadata(out).is_ok() => {
            return refuse("is a link to nothing; remove it, or name another file with -o");
        }
        Err(_) => return Ok(()),
    };
    if metadata.is_dir() {
        return refuse(&format!("is a folder; name a file, such as {}, with -o", kind.example));
    }
    if !metadata.is_file() {
        return refuse("is not an ordinary file; name another with -o");
    }
    if inputs.iter().any(|input| is_same(input, out, &metadata)) {
        return refuse("is what is read; name another file with -o");
    }
    match File::open(out).and_then(|mut file| (kind.is)(&mut file)) {
        Ok(true) => Ok(()),
        _ => refuse(&format!("exists and is no {}; remove it, or name another file with -o", kind.name)),
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

/// Temporary files of what is being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files of all [`Pending`] ones, then lets `end` end the process. For signal handlers: no
/// destructors run, and no file is begun any more.
pub fn abandon(end: impl FnOnce()) {
    let files = unfinished();
    for file in files.iter() {
        // It may be finished, and renamed, by now.
        let _ = fs::remove_file(file);
    }
    end();
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
}

impl Pending {
    /// Begins what will stand at `out`.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn create(out: &Path) -> io::Result<Pending> {
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
        // Held until the file is listed, so that none is made after a signal that would stay.
        let mut unfinished = unfinished();
        let mut file = builder.tempfile_in(folder(out))?;
        #[cfg(unix)]
        for _ in 0..TRIES {
            // Says that the file is being written. Where the system has no such locks nobody else gets one either.
            let _ = file.as_file().try_lock();
            // Whoever looked between the two lines took it for abandoned.
            if file.path().exists() {
                break;
            }
            file = builder.tempfile_in(folder(out))?;
        }
        let temporary = file.path().to_owned();
        unfinished.push(temporary.clone());
        drop(unfinished);
        Ok(Pending { file: Some(file), temporary, out: out.to_owned() })
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
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The file removes itself; from here on nobody else needs to.
        drop(self.file.take());
        unfinished().retain(|path| *path != self.temporary);
    }
}

/// Whether Ctrl-C, too, ends the process at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// It does, with exit code 130, as shells count.
    Too,
    /// The program itself listens to it.
    Apart,
}

/// Removes unfinished files when the process is asked to end (SIGTERM) or its terminal goes away (SIGHUP), then ends as
/// it would have without this. `before` runs first. A signal that was ignored from the start, as `nohup` does, stays
/// ignored. For programs: it takes the signals' handlers.
pub fn clean_up_when_killed(interrupts: Interrupts, before: impl Fn() + Send + 'static) {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let wait = move || {
            let wanted =
                [SIGTERM, SIGHUP].into_iter().chain((interrupts == Interrupts::Too).then_some(SIGINT));
            // Where the system refuses, the signal still ends the process: only files stay.
            let signals = signal_hook::iterator::Signals::new(wanted.filter(|&signal| !is_ignored(signal)));
            let Ok(mut signals) = signals else { return };
            if let Some(signal) = signals.forever().next() {
                before();
                abandon(|| {
                    if signal != SIGINT {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    std::process::exit(128 + signal);
                });
            }
        };
        // Handlers are set by the thread that listens: without it, the signals do what they did before.
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    }
    #[cfg(not(unix))]
    {
        let _ = before;
        if interrupts == Interrupts::Too {
            // Without a handler Ctrl-C still ends the process.
            let _ = ctrlc::set_handler(|| abandon(|| std::process::exit(130)));
        }
    }
}

/// Whether whoever started this process wants it to go on in spite of the signal.
#[cfg(unix)]
pub fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal n is bit n - 1. Of systems that do not say, most programs are not started that way.
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
        let refused = |out: &Path| check(out, &NOTES, &[&input]).err().unwrap_or_else(|| panic!("{out:?}"));
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
        let mut file = Pending::create(&out).unwrap();
        file.file().write_all(b"half").unwrap();
        assert_eq!(names(), 1);
        drop(file);
        assert_eq!(names(), 0);
        let mut file = Pending::create(&out).unwrap();
        file.file().write_all(b"whole").unwrap();
        assert!(!out.exists() && file.temporary().exists());
        file.keep().unwrap();
        assert_eq!((fs::read(&out).unwrap(), names()), (b"whole".to_vec(), 1));
    }
}
