//! A file that shrinks while it is mapped: a message instead of a bare signal.
//!
//! When a mapped file is cut off, its last pages are gone, and the system ends the process with `SIGBUS` at the next
//! access. A command that calls [`report`], and [`enter`]s every file that its libraries map, says which file it was and
//! exits with 3 instead. Faults anywhere else are handled as before.
//!
//! A handler of a signal is given nothing but the address, so what it needs stands in a table of the process. The table is
//! empty until a command enters something, and no library does.
#![allow(unsafe_code)]

use std::ops::Range;
use std::path::Path;

/// Exit code for a file that is not what it should be, as everywhere.
#[cfg(unix)]
const INVALID: i32 = 3;

/// Sets the process's handler of `SIGBUS`. From now on, an access to a mapped file that is no longer there ends this
/// process with exit code 3 and a line on standard error: `program`, the file's name, and `problem`, which says what
/// happened and what to do. Windows does not let anybody cut off a mapped file, and nothing is done there.
pub fn report(program: &'static str, problem: &'static str) {
    #[cfg(unix)]
    unix::install(program, problem);
    #[cfg(not(unix))]
    let _ = (program, problem);
}

/// Enters a mapping of the file at `path`, which stands at the addresses `bytes`, until the entry is dropped. Drop it
/// before the file is unmapped.
pub fn enter(path: &Path, bytes: Range<usize>) -> Place {
    Place::enter(path, bytes)
}

pub use places::Place;

/// Where files are mapped. Fixed places, read by the handler without locks.
mod places {
    use std::ops::Range;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
    use trit_text::printable::escape;

    /// Mappings that are known at a time; what is mapped beyond them ends as it would without a handler. A model has one
    /// for weights, one for planes and one for each table that is no small one.
    const PLACES: usize = 256;

    /// One mapping: `[start, end)`, 0 where the place is free, and the name of its file, which is never freed.
    pub(super) struct Slot {
        start: AtomicUsize,
        end: AtomicUsize,
        name: AtomicPtr<&'static [u8]>,
    }

    static SLOTS: [Slot; PLACES] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name: AtomicPtr::new(std::ptr::null_mut()),
        }
    }; PLACES];

    /// Which places are taken, and the names given so far.
    static TAKEN: Mutex<Taken> = Mutex::new(Taken { places: [false; PLACES], names: Vec::new() });

    struct Taken {
        places: [bool; PLACES],
        /// Leaked, once for each file: the handler may look at one at any time.
        names: Vec<&'static &'static [u8]>,
    }

    impl Taken {
        fn name(&mut self, path: &Path) -> &'static &'static [u8] {
            let text = escape(&path.display().to_string()).into_owned();
            if let Some(known) = self.names.iter().copied().find(|name| **name == text.as_bytes()) {
                return known;
            }
            let bytes: &'static [u8] = text.into_bytes().leak();
            let name: &'static &'static [u8] = Box::leak(Box::new(bytes));
            self.names.push(name);
            name
        }
    }

    /// A mapping's entry, for as long as it lives.
    pub struct Place(Option<usize>);

    impl Place {
        pub(super) fn enter(path: &Path, bytes: Range<usize>) -> Place {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(index) = taken.places.iter().position(|taken| !taken) else { return Place(None) };
            taken.places[index] = true;
            let name: *const &'static [u8] = taken.name(path);
            let slot = &SLOTS[index];
            slot.name.store(name.cast_mut(), Ordering::Release);
            slot.start.store(bytes.start, Ordering::Release);
            // Last: until then the place is empty.
            slot.end.store(bytes.end, Ordering::Release);
            Place(Some(index))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            if let Some(index) = self.0 {
                let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
                SLOTS[index].end.store(0, Ordering::Release);
                taken.places[index] = false;
            }
        }
    }

    /// The name of the file that is mapped at `address`. Takes no lock and no memory: called by a signal handler.
    pub(super) fn file_at(address: usize) -> Option<&'static [u8]> {
        // Whoever has a fault in a mapping borrows it, so that its place does not change meanwhile; others may.
        let holds = |slot: &&Slot| {
            let end = slot.end.load(Ordering::Acquire);
            slot.start.load(Ordering::Acquire) <= address && address < end
        };
        let name = SLOTS.iter().find(holds)?.name.load(Ordering::Acquire);
        // SAFETY: null, or a name, which is leaked and never changes.
        unsafe { name.as_ref() }.copied()
    }
}

#[cfg(unix)]
mod unix {
    use super::{INVALID, places};
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;

    /// What the handler needs. It is set before the handler is.
    struct Setting {
        /// How the signal was handled before.
        before: libc::sigaction,
        /// What the line begins with.
        program: &'static str,
        /// What it ends with.
        problem: &'static str,
    }

    static SETTING: OnceLock<Setting> = OnceLock::new();

    pub fn install(program: &'static str, problem: &'static str) {
        SETTING.get_or_init(|| {
            let mut before = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: asks for the handler and changes nothing; `before` is large enough, and all of it may be zero.
            let before = unsafe {
                libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr());
                before.assume_init()
            };
            Setting { before, program, problem }
        });
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: every field of the structure may be zero; the handler has the signature that SA_SIGINFO asks for, runs
        // on the threads' alternate stack where they have one, and calls only what may be called in a handler.
        unsafe {
            let action = action.assume_init_mut();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, action, std::ptr::null_mut());
        }
    }

    extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system hands over a valid structure, which for this signal holds the address.
        let address = unsafe { (*info).si_addr() }.addr();
        let setting = SETTING.get();
        if let (Some(file), Some(Setting { program, problem, .. })) = (places::file_at(address), setting) {
            for part in [program.as_bytes(), b": ", file, b": ", problem.as_bytes(), b"\n"] {
                // SAFETY: `write` may be called in a handler and reads only `part`. A line that cannot be written is lost.
                unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
            }
            // SAFETY: ends the process; nothing of it runs any more.
            unsafe { libc::_exit(INVALID) };
        }
        // Not ours: as it was before, and the same instruction faults again.
        // SAFETY: `sigaction` may be called in a handler; what it is given is what it once gave, or the default.
        unsafe {
            match setting {
                Some(Setting { before, .. }) => libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()),
                None => {
                    libc::signal(libc::SIGBUS, libc::SIG_DFL);
                    0
                }
            };
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{Place, enter, report};
    use memmap2::Mmap;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    /// Runs a test of this module in a process of its own, which it is to end.
    fn child(test: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("truncation::tests::{test}"), "--nocapture"]);
        command.env("TRIT_TRUNCATION_CHILD", "1").output().unwrap()
    }

    fn is_child() -> bool {
        std::env::var_os("TRIT_TRUNCATION_CHILD").is_some()
    }

    /// A file of some pages.
    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1 << 16]).unwrap();
        file
    }

    /// The file mapped, and entered under that name.
    fn map(file: &File, name: &str) -> (Place, Mmap) {
        // SAFETY: a test's own file; what it does to it is the point.
        let map = unsafe { Mmap::map(file) }.unwrap();
        let bytes = map.as_ptr_range();
        (enter(name.as_ref(), bytes.start.addr()..bytes.end.addr()), map)
    }

    #[test]
    fn a_mapped_file_that_was_cut_off_is_named() {
        if is_child() {
            report("program", "was cut off; copy it again");
            let file = file();
            drop(map(&file, "another.trit"));
            let (_place, map) = map(&file, "a\x1bb.trit");
            file.set_len(1 << 12).unwrap();
            println!("{}", std::hint::black_box(&map)[1 << 15]);
            return;
        }
        let output = child("a_mapped_file_that_was_cut_off_is_named");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(err.contains("program: a\\u{1b}b.trit: was cut off; copy it again"), "{err}");
    }

    #[test]
    fn other_faults_end_the_process_as_ever() {
        if is_child() {
            report("program", "was cut off; copy it again");
            let (ours, file) = (file(), file());
            let _ours = map(&ours, "ours.trit");
            // SAFETY: as above, and nobody enters it.
            let map = unsafe { Mmap::map(&file) }.unwrap();
            file.set_len(0).unwrap();
            println!("{}", std::hint::black_box(&map)[0]);
            return;
        }
        let output = child("other_faults_end_the_process_as_ever");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{err}");
        assert!(!err.contains("ours.trit"), "{err}");
    }
}
