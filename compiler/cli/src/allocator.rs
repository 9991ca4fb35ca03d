//! Where the system has no more memory, a program ends as it does where a disk is full: with a message and exit code 3,
//! not by an abort.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, for a program to declare as its `#[global_allocator]`. Where an allocation fails, the
/// process ends.
pub struct EndsWhereMemoryEnds;

/// Ends the process where there is no memory at `pointer`, as the allocator gave it.
fn expect(pointer: *mut u8) -> *mut u8 {
    #[cfg(unix)]
    if pointer.is_null() {
        let message = b"tritc: the system has no more memory; no bundle was written. Close other programs, or compile where \
                        there is more of it\n";
        // SAFETY: the message is as long as it says, and both calls take no memory. Printed or not, the process ends.
        unsafe {
            libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            libc::_exit(3);
        }
    }
    pointer
}

// SAFETY: every call goes to the system's allocator as it came, and what that gives is given back, or the process ends.
unsafe impl GlobalAlloc for EndsWhereMemoryEnds {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises what the system's allocator asks for, here and below.
        expect(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        expect(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        expect(unsafe { System.realloc(pointer, layout, size) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
