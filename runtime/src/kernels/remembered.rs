//! The file of this user that remembers which variants were fastest on this machine. It is a list of pairs, the oldest
//! first.
//!
//! The file is read within limits, whatever it holds, and an entry can only choose among the variants that the program
//! knows. The file stays small, because the pairs that were added least recently are removed.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most pairs that are kept. A bundle adds a few for each tier that it runs on.
const MOST: usize = 512;
/// Most bytes of the file. A longer file counts as empty.
const MOST_BYTES: usize = 256 << 10;
/// Longest key and longest name in bytes. A key holds the CPU's name and the names of some variants.
const MOST_LEN: usize = 1024;
/// How often the file's lock is tried, and how long the pauses are. Other processes hold the lock while they write a
/// few KB.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Pairs of a key, which says what was timed on which CPU, and the name of the fastest variant.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Remembered {
    fastest: Vec<(String, String)>,
}

impl Remembered {
    /// The pairs in `file`; none where it cannot be read or holds something else.
    pub fn read(file: &Path) -> Remembered {
        let read = || {
            // Only files are opened, because opening a pipe would wait for somebody to write to it.
            if !fs::metadata(file).ok()?.is_file() {
                return None;
            }
            let mut bytes = Vec::new();
            File::open(file).ok()?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
            if bytes.len() > MOST_BYTES { None } else { serde_json::from_slice(&bytes).ok() }
        };
        let mut remembered: Remembered = read().unwrap_or_default();
        remembered.trim();
        remembered
    }

    /// The name that was remembered for `key`.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.fastest.iter().rev().find(|(k, _)| k == key).map(|(_, name)| name.as_str())
    }

    /// Remembers `name` for `key`, as the newest pair.
    pub fn add(&mut self, key: String, name: String) {
        self.fastest.retain(|(k, _)| *k != key);
        self.fastest.push((key, name));
        self.trim();
    }

    fn trim(&mut self) {
        self.fastest.retain(|(key, name)| key.len() <= MOST_LEN && name.len() <= MOST_LEN);
        let over = self.fastest.len().saturating_sub(MOST);
        self.fastest.drain(..over);
    }

    /// The bytes of the file, without the oldest pairs where there are too many.
    fn encode(mut self) -> Option<Vec<u8>> {
        loop {
            let bytes = serde_json::to_vec_pretty(&self).ok()?;
            if bytes.len() <= MOST_BYTES {
                return Some(bytes);
            }
            self.fastest.drain(..self.fastest.len().div_ceil(4));
        }
    }

    /// Adds `new` pairs to those that are in `file` now, which other processes may have written meanwhile. Returns
    /// `None` where nothing was written; the next load then times again.
    pub fn write(new: &[(String, String)], file: &Path) -> Option<()> {
        fs::create_dir_all(file.parent()?).ok()?;
        let lock = File::create(with_ending(file, "lock")).ok()?;
        let mut tries = 0;
        // Dropping the file unlocks it. On systems without locks the worst case is that one writer's pairs are lost.
        while let Err(TryLockError::WouldBlock) = lock.try_lock() {
            tries += 1;
            if tries == TRIES {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
        let mut remembered = Remembered::read(file);
        new.iter().cloned().for_each(|(key, name)| remembered.add(key, name));
        let bytes = remembered.encode()?;
        // The file is renamed when it is complete, so that nobody reads half of it.
        let part = with_ending(file, "part");
        let written = File::create(&part).and_then(|mut out| out.write_all(&bytes));
        written.and_then(|()| fs::rename(&part, file)).ok()
    }
}

/// `file` with another ending, in the same folder.
fn with_ending(file: &Path, ending: &str) -> PathBuf {
    file.with_extension(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("trit-remembered-{}-{name}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("kernels.json")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pair(i: usize) -> (String, String) {
        (format!("key {i}"), format!("name {i}"))
    }

    #[test]
    fn the_least_recently_added_give_way() {
        let folder = Folder::new("most");
        for first in (0..MOST + 90).step_by(10) {
            let pairs: Vec<_> = (first..first + 10).map(pair).collect();
            Remembered::write(&pairs, &folder.file()).unwrap();
            // Added again, and so the newest.
            Remembered::write(&[pair(7)], &folder.file()).unwrap();
        }
        let remembered = Remembered::read(&folder.file());
        assert_eq!(remembered.fastest.len(), MOST);
        assert_eq!(remembered.find("key 7"), Some("name 7"));
        assert_eq!(remembered.find("key 8"), None);
        let last = MOST + 90 - 1;
        assert_eq!(remembered.find(&format!("key {last}")), Some(format!("name {last}").as_str()));
    }

    #[test]
    fn the_file_stays_small_whatever_is_remembered() {
        let folder = Folder::new("bytes");
        let long = |i: usize, len: usize| (format!("{i:0len$}"), "n".repeat(1000));
        let pairs: Vec<_> = (0..400).map(|i| long(i, 1000)).chain([long(1, MOST_LEN + 1)]).collect();
        Remembered::write(&pairs, &folder.file()).unwrap();
        let len = fs::metadata(folder.file()).unwrap().len();
        assert!(len <= MOST_BYTES as u64, "{len}");
        let remembered = Remembered::read(&folder.file());
        assert!(remembered.find(&long(399, 1000).0).is_some());
        assert!(remembered.find(&long(0, 1000).0).is_none());
        assert!(remembered.find(&long(1, MOST_LEN + 1).0).is_none());
    }

    #[test]
    fn files_that_hold_something_else_are_empty_and_replaced() {
        let folder = Folder::new("other");
        let many: Vec<_> = (0..20_000).map(pair).collect();
        let long = serde_json::to_vec(&Remembered { fastest: many }).unwrap();
        let nested = ["[".repeat(5000), "]".repeat(5000)].concat().into_bytes();
        let contents: [&[u8]; 6] =
            [&long, &nested, b"", b"{\"fastest\":{\"key 1\":\"name 9\"}}", b"\xff\xfe{", b"null"];
        for bytes in contents {
            fs::write(folder.file(), bytes).unwrap();
            assert!(Remembered::read(&folder.file()).fastest.is_empty());
            Remembered::write(&[pair(1)], &folder.file()).unwrap();
            assert_eq!(Remembered::read(&folder.file()).fastest, [pair(1)]);
        }
        fs::remove_file(folder.file()).unwrap();
        fs::create_dir(folder.file()).unwrap();
        assert!(Remembered::read(&folder.file()).fastest.is_empty());
        assert!(Remembered::write(&[pair(1)], &folder.file()).is_none());
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let folder = Folder::new("writers");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let file = folder.file();
                scope.spawn(move || {
                    for i in 0..10 {
                        // Who did not get the lock tries again, as the next load would.
                        while Remembered::write(&[pair(writer * 10 + i)], &file).is_none() {}
                    }
                });
            }
        });
        let remembered = Remembered::read(&folder.file());
        assert_eq!(remembered.fastest.len(), 80);
    }
}
