//! Which file is mapped at an address, for a program's handler of SIGBUS.
//!
//! Where a mapped file gets shorter while it is read, the system sends SIGBUS instead of an error. A library must not
//! take signals, so this one keeps only what a handler cannot find out by itself, and keeps it only for programs that
//! ask for it with [`record_mapped_files`]. A handler may run at any instruction. It may call [`mapped_file_at`],
//! which takes no lock and no memory: it walks a list that only grows and whose entries are never freed.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use trit_text::printable::escape;

/// Where a file is mapped.
struct Entry {
    start: usize,
    /// 0 once the file is no longer mapped.
    end: AtomicUsize,
    name: Box<[u8]>,
    next: OnceLock<&'static Entry>,
}

static RECORDING: AtomicBool = AtomicBool::new(false);
static FIRST: OnceLock<&'static Entry> = OnceLock::new();

/// From here on, records where files are mapped, so that [`mapped_file_at`] finds them. Each file that is mapped then
/// costs some hundred bytes, which are kept until the process ends.
pub fn record_mapped_files() {
    RECORDING.store(true, Ordering::Relaxed);
}

/// The file that is mapped at `address`: its path, spelled so that a terminal may show it. Only files that were mapped
/// after [`record_mapped_files`] are found. May be called in a signal handler.
pub fn mapped_file_at(address: usize) -> Option<&'static [u8]> {
    let mut next = FIRST.get();
    while let Some(entry) = next {
        if (entry.start..entry.end.load(Ordering::Acquire)).contains(&address) {
            return Some(&entry.name);
        }
        next = entry.next.get();
    }
    None
}

/// A mapping that can be found, until this is dropped.
pub(super) struct Region(Option<&'static Entry>);

impl Region {
    /// The file at `path`, mapped at `bytes`.
    pub(super) fn new(path: &Path, bytes: &[u8]) -> Region {
        if !RECORDING.load(Ordering::Relaxed) {
            return Region(None);
        }
        let start = bytes.as_ptr() as usize;
        let entry: &'static Entry = Box::leak(Box::new(Entry {
            start,
            end: AtomicUsize::new(start + bytes.len()),
            name: escape(&path.display().to_string()).as_bytes().into(),
            next: OnceLock::new(),
        }));
        let mut last = &FIRST;
        while last.set(entry).is_err() {
            // `set` failed, so there is an entry.
            let Some(taken) = last.get() else { continue };
            last = &taken.next;
        }
        Region(Some(entry))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(entry) = self.0 {
            entry.end.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_are_found_while_they_are_mapped() {
        let (one, two) = ([0u8; 100], [0u8; 100]);
        let at = |bytes: &[u8], offset: usize| mapped_file_at(bytes.as_ptr() as usize + offset);
        let unasked = Region::new(Path::new("unasked"), &one);
        assert_eq!(at(&one, 0), None);
        drop(unasked);
        record_mapped_files();
        let first = Region::new(Path::new("one\u{1b}"), &one);
        let _second = Region::new(Path::new("two"), &two);
        assert_eq!(at(&one, 99), Some(&br"one\u{1b}"[..]));
        assert_eq!(at(&two, 0), Some(&b"two"[..]));
        drop(first);
        assert_eq!(at(&one, 0), None);
    }
}
