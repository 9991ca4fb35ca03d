//! A file that shrinks while it is mapped: a message instead of a bare signal.
//!
//! What is copied to memory is safe from that. What stays in the file's mapping (weights with `--mmap` or where memory is
//! short) is gone when the file is cut off, and the system ends the process with `SIGBUS` at the next access. A program
//! that calls [`report_truncation`] says which file it was and exits with 3 instead. Faults anywhere else are handled as
//! before.
#![allow(unsafe_code)]

/// Exit code for a file that is not what it should be, as everywhere.
#[cfg(unix)]
const INVALID: i32 = 3;

/// From now on, an access to a mapped bundle that is no longer there ends this process with a line on standard error that
/// starts with `program`, and exit code 3. For programs, not for libraries: it sets the process's handler of `SIGBUS`.
/// Windows does not let anybody cut off a mapped file, and nothing is done there.
pub fn report_truncation(program: &'static str) {
    #[cfg(unix)]
    unix::install(program);
    #[cfg(not(unix))]
    let _ = program;
}

pub(crate) use places::Place;

/// Where files are mapped. Fixed places, read by the handler without locks.
mod places {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

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
            let text: String = path.to_string_lossy().chars().flat_map(printable).collect();
            if let Some(known) = self.names.iter().copied().find(|name| **name == text.as_bytes()) {
                return known;
            }
            let bytes: &'static [u8] = text.into_bytes().leak();
            let name: &'static &'static [u8] = Box::leak(Box::new(bytes));
            self.names.push(name);
            name
        }
    }

    /// Not what a terminal would obey.
    fn printable(c: char) -> impl Iterator<Item = char> {
        let escaped = c.is_control().then(|| c.escape_default());
        let plain = escaped.is_none().then_some(c);
        escaped.into_iter().flatten().chain(plain)
    }

    /// A mapping's entry, for as long as it lives.
    pub(crate) struct Place(Option<usize>);

    impl Place {
        /// Enters the `len` bytes at `start` as a mapping of the file at `path`.
        pub fn enter(path: &Path, start: *const u8, len: usize) -> Place {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(index) = taken.places.iter().position(|taken| !taken) else { return Place(None) };
            taken.places[index] = true;
            let name: *const &'static [u8] = taken.name(path);
            let slot = &SLOTS[index];
            slot.name.store(name.cast_mut(), Ordering::Release);
            slot.start.store(start.addr(), Ordering::Release);
            // Last: until then the place is empty.
            slot.end.store(start.addr() + len, Ordering::Release);
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

    /// How the signal was handled before, and what to begin the line with. Set before the handler is.
    static BEFORE: OnceLock<(libc::sigaction, &'static str)> = OnceLock::new();

    pub fn install(program: &'static str) {
        BEFORE.get_or_init(|| {
            let mut before = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: asks for the handler and changes nothing; `before` is large enough, and all of it may be zero.
            let before = unsafe {
                libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr());
                before.assume_init()
            };
            (before, program)
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
        let before = BEFORE.get();
        if let (Some(file), Some((_, program))) = (places::file_at(address), before) {
            let problem: &[u8] =
                b": changed while it was running: it was cut off, or its disk failed; copy it again\n";
            for part in [program.as_bytes(), b": ", file, problem] {
                // SAFETY: `write` may be called in a handler and reads only `part`. A line that cannot be written is lost.
                unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
            }
            // SAFETY: ends the process; nothing of it runs any more.
            unsafe { libc::_exit(INVALID) };
        }
        // Not ours: as it was before, and the same instruction faults again.
        // SAFETY: `sigaction` may be called in a handler; what it is given is what it once gave, or the default.
        unsafe {
            match before {
                Some((before, _)) => libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()),
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
    use crate::mapping::FileMapping;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    /// Runs a test of this module in a process of its own, which it is to end.
    fn child(test: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("fault::tests::{test}"), "--nocapture"]);
        command.env("TRIT_FAULT_CHILD", "1").output().unwrap()
    }

    fn is_child() -> bool {
        std::env::var_os("TRIT_FAULT_CHILD").is_some()
    }

    /// A file of some pages.
    fn file() -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1 << 16]).unwrap();
        file
    }

    #[test]
    fn a_mapped_file_that_was_cut_off_is_named() {
        if is_child() {
            super::report_truncation("program");
            let file = file();
            let gone = FileMapping::new(&file, "another.trit".as_ref(), 0, 1 << 12).unwrap();
            drop(gone);
            let map = FileMapping::new(&file, "a\x1bb.trit".as_ref(), 0, 1 << 16).unwrap();
            file.set_len(1 << 12).unwrap();
            println!("{}", std::hint::black_box(&map)[1 << 15]);
            return;
        }
        let output = child("a_mapped_file_that_was_cut_off_is_named");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(err.contains("program: a\\u{1b}b.trit: changed while it was running"), "{err}");
    }

    #[test]
    fn other_faults_end_the_process_as_ever() {
        if is_child() {
            super::report_truncation("program");
            let (ours, file) = (file(), file());
            let _ours = FileMapping::new(&ours, "ours.trit".as_ref(), 0, 1 << 16).unwrap();
            // SAFETY: a test's own file; what it does to it is the point.
            let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
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
