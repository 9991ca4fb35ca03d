//! A mapped file that got shorter: reading what is no longer there raises SIGBUS, which ends a program without a word.
//! Here it ends with a message that names the file.
//!
//! The handler may run at any instruction, so it only reads atomics and memory that is never freed, and calls `write` and
//! `_exit`, which POSIX allows there.

use libc::{c_int, c_void, siginfo_t};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use trit_text::printable::escape;

/// The exit code of input that is invalid.
const INVALID: c_int = 3;

/// Where a file is mapped, in a list that only grows: the handler may be walking it.
struct Entry {
    start: AtomicUsize,
    /// 0 once the file is no longer mapped.
    end: AtomicUsize,
    message: Box<[u8]>,
    next: *mut Entry,
}

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// A mapping that the handler knows of, until this is dropped.
pub(super) struct Region(&'static Entry);

// SAFETY: an entry's `next` is written before it is published and never after; all else in it is atomic or immutable.
unsafe impl Sync for Entry {}

impl Region {
    /// The file at `path`, mapped at `bytes`.
    pub(super) fn new(path: &Path, bytes: &[u8]) -> Region {
        let message = format!(
            "tritc: {}: got shorter while it was read, or cannot be read from its disk any more. No bundle was written; \
             compile again when nothing writes to it\n",
            escape(&path.display().to_string())
        );
        let start = bytes.as_ptr() as usize;
        // Leaked, some hundred bytes for each file that is opened: see above.
        let entry = Box::into_raw(Box::new(Entry {
            start: AtomicUsize::new(start),
            end: AtomicUsize::new(start + bytes.len()),
            message: message.into_bytes().into_boxed_slice(),
            next: ENTRIES.load(Ordering::Acquire),
        }));
        loop {
            // SAFETY: `entry` comes from a box and is not published yet, so nobody else reads it.
            let next = unsafe { (*entry).next };
            match ENTRIES.compare_exchange(next, entry, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: it comes from a box that is never freed.
                Ok(_) => return Region(unsafe { &*entry }),
                // SAFETY: as above, not published yet.
                Err(newer) => unsafe { (*entry).next = newer },
            }
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
    }
}

/// From here on, a mapped file that gets shorter while it is read ends the process with exit code 3 and a message, not
/// with SIGBUS. For programs: it takes the signal's handler.
pub fn explain_truncated_files() {
    // SAFETY: `sigaction` is plain data for which zeros are valid; the handler has the signature that SA_SIGINFO asks
    // for, and does only what a handler may (see `explain`).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        // Without a handler the process ends all the same, and leaves the same behind.
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

extern "C" fn explain(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the system passes a valid `info`; for SIGBUS it holds the address.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut next = ENTRIES.load(Ordering::Acquire);
    // SAFETY: entries come from boxes that are never freed, and are whole before they are published.
    while let Some(entry) = unsafe { next.as_ref() } {
        if (entry.start.load(Ordering::Acquire)..entry.end.load(Ordering::Acquire)).contains(&address) {
            // SAFETY: both may be called in a handler; the message is as long as it says. Whether it is printed or not,
            // the process ends.
            unsafe {
                libc::write(libc::STDERR_FILENO, entry.message.as_ptr().cast(), entry.message.len());
                libc::_exit(INVALID);
            }
        }
        next = entry.next;
    }
    // None of ours: when this returns the instruction runs again, and the signal does what it always did.
    // SAFETY: `signal` may be called in a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
