//! What was typed in earlier chats. It is a convenience, so no problem with it ever ends a chat or delays it.

use rustyline::history::{FileHistory, History};
use rustyline::{Editor, Helper};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Entries that are remembered.
pub const ENTRIES: usize = 1000;
/// Longest entry that is remembered, in bytes.
const ENTRY_BYTES: usize = 16 << 10;
/// A larger file is not read, in bytes: `ENTRIES` of the longest, with every byte escaped, are somewhat less.
const FILE_BYTES: u64 = 33 << 20;

/// The file, from the environment: `trit/history` in `$XDG_STATE_HOME`, `$LOCALAPPDATA` (Windows) or
/// `$HOME/.local/state`, the first that is an absolute path.
fn file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("LOCALAPPDATA").filter(|_| cfg!(windows)))
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")));
    state.map(|state| state.join("trit").join("history"))
}

/// Reads the history, and gives the file to add to; `None` where there can be none.
pub fn open<H: Helper>(editor: &mut Editor<H, FileHistory>) -> Option<PathBuf> {
    let path = file(|name| std::env::var_os(name))?;
    read(editor.history_mut(), &path).then_some(path)
}

/// Whether the file can be used. What a user typed is for that user alone.
fn read(history: &mut FileHistory, path: &Path) -> bool {
    match fs::metadata(path) {
        // Anything else might be waited for, or never end.
        Ok(found) => found.is_file() && found.len() <= FILE_BYTES && history.load(path).is_ok(),
        Err(_) => path.parent().is_some_and(|folder| private(folder).is_ok()),
    }
}

fn private(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Remembers an entry, in the file too where there is one. At once, because a chat may end in any way.
pub fn add<H: Helper>(editor: &mut Editor<H, FileHistory>, path: Option<&Path>, entry: &str) {
    keep(editor.history_mut(), path, entry);
}

fn keep(history: &mut FileHistory, path: Option<&Path>, entry: &str) {
    if entry.trim().is_empty() || entry.len() > ENTRY_BYTES {
        return;
    }
    let added = history.add(entry);
    if let (Ok(true), Some(path)) = (added, path) {
        let _ = history.append(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::Config;

    fn history() -> FileHistory {
        FileHistory::with_config(&Config::builder().max_history_size(ENTRIES).unwrap().build())
    }

    fn entries(path: &Path) -> Vec<String> {
        let mut history = history();
        assert!(read(&mut history, path));
        history.iter().cloned().collect()
    }

    #[test]
    #[cfg(unix)]
    fn the_first_absolute_folder_counts() {
        let with = |variables: &[(&str, &str)]| {
            file(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.local/state/trit/history".into()));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/trit/history".into()));
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]),
            Some("/h/.local/state/trit/history".into())
        );
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn entries_of_several_lines_are_found_again_by_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trit").join("history");
        let mut first = history();
        assert!(read(&mut first, &path));
        for entry in ["one", "two\nlines \\", "", "  ", &"x".repeat(ENTRY_BYTES + 1), "three"] {
            keep(&mut first, Some(&path), entry);
        }
        assert_eq!(entries(&path), ["one", "two\nlines \\", "three"]);
        // Another chat at the same time.
        let (mut second, mut third) = (history(), history());
        assert!(read(&mut second, &path) && read(&mut third, &path));
        keep(&mut second, Some(&path), "four");
        keep(&mut third, Some(&path), "five");
        assert_eq!(entries(&path)[2..], ["three", "four", "five"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn the_file_stays_small_and_keeps_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let mut history = history();
        assert!(read(&mut history, &path));
        for n in 0..ENTRIES + 10 {
            keep(&mut history, Some(&path), &format!("entry {n}"));
        }
        let kept = entries(&path);
        assert_eq!((kept.len(), kept[0].as_str()), (ENTRIES, "entry 10"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!read(&mut history(), folder.path()), "a folder");
        let path = folder.path().join("history");
        fs::write(&path, b"#V2\n\xff\n").unwrap();
        assert!(!read(&mut history(), &path), "no text");
        assert_eq!(fs::read(&path).unwrap(), b"#V2\n\xff\n");
        fs::File::create(&path).unwrap().set_len(FILE_BYTES + 1).unwrap();
        assert!(!read(&mut history(), &path), "too large");
        assert!(!read(&mut history(), &path.join("below")), "a file is no folder");
        keep(&mut history(), Some(&path.join("below")), "entry");
    }
}
