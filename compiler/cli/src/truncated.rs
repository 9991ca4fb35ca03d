//! A checkpoint that gets shorter while it is mapped ends the program in a message, not in SIGBUS without a word.
//!
//! The library records where files are mapped (`tritc::files::record_mapped_files`). The handler of the signal is the
//! program's. It may run at any instruction, so it calls only what POSIX allows there: `write`, `_exit` and `signal`.
#![allow(unsafe_code)]

use libc::{c_int, c_void, siginfo_t};
use std::ptr;
use tritc::files::{mapped_file_at, record_mapped_files};

/// The exit code of input that is invalid.
const INVALID: c_int = 3;

/// From here on, a mapped file that gets shorter while it is read ends the process with exit code 3 and a message that
/// names it.
pub fn explain_truncated_files() {
    record_mapped_files();
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
    if let Some(name) = mapped_file_at(address) {
        let rest = b": got shorter while it was read, or cannot be read from its disk any more. No bundle was written; \
                     compile again when nothing writes to it\n";
        for part in [&b"tritc: "[..], name, rest] {
            // SAFETY: `write` may be called in a handler; the part is as long as it says. Printed or not, the process
            // ends.
            unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: `_exit` may be called in a handler.
        unsafe { libc::_exit(INVALID) };
    }
    // No file of ours: when this returns the instruction runs again, and the signal does what it always did.
    // SAFETY: `signal` may be called in a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
