//! A call's work enters, its status leaves: whatever goes wrong is one, and no panic leaves the call or is printed.

use crate::failure::Failure;
use crate::pointers::ErrorOut;
use crate::types::trit_status;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// How many calls of the library this thread is in. A callback may make calls too.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// What the last panic of this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// While it lives, the thread is in a call.
struct InCall;

impl InCall {
    fn enter() -> InCall {
        CALLS.set(CALLS.get() + 1);
        InCall
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        CALLS.set(CALLS.get() - 1);
    }
}

/// Runs the work of a call. Where it fails, `error` receives why.
pub fn call(error: ErrorOut, work: impl FnOnce() -> Result<(), Failure>) -> trit_status {
    quiet();
    let _in_call = InCall::enter();
    let done = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let said = PANIC.take();
        let first = said.lines().next().unwrap_or_default();
        Err(Failure::new(
            trit_status::TRIT_INTERNAL,
            format!("a defect of the library: {first}; please report it"),
        ))
    });
    match done {
        Ok(()) => {
            error.none();
            trit_status::TRIT_OK
        }
        Err(failure) => {
            let status = failure.status;
            error.set(failure);
            status
        }
    }
}

/// Runs what closes a handle, which has no error to return. A panic leaves the rest of its memory as it is.
pub fn close<T>(owned: T) {
    quiet();
    let _in_call = InCall::enter();
    let _ = panic::catch_unwind(AssertUnwindSafe(move || drop(owned)));
}

/// Sets the hook once: a panic of a thread that is in a call, or of one that the engine started, is kept and not printed.
/// Those of other threads go where they went before.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            // Where the thread ends, its values may be gone already.
            let in_call = CALLS.try_with(Cell::get).is_ok_and(|calls| calls > 0);
            let ours = std::thread::current().name().is_some_and(|name| name.starts_with("trit-"));
            match in_call || ours {
                true => {
                    let _ = PANIC.try_with(|said| said.replace(words(info)));
                }
                false => before(info),
            }
        }));
    });
}

/// What a panic said, and where.
fn words(info: &PanicHookInfo<'_>) -> String {
    let said = info.payload_as_str().unwrap_or("no reason given");
    match info.location() {
        Some(place) => format!("{said} ({}:{})", place.file(), place.line()),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status() {
        let status = call(ErrorOut::nowhere(), || panic!("no tea"));
        assert_eq!(status, trit_status::TRIT_INTERNAL);
        assert_eq!(CALLS.get(), 0);
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("not even closing works");
            }
        }
        close(Bad);
        assert!(PANIC.take().starts_with("not even closing works (runtime/capi/src/guard.rs:"));
        assert_eq!(call(ErrorOut::nowhere(), || Ok(())), trit_status::TRIT_OK);
    }
}
