//! The tokenizers library may still panic on a file that passed every check here. Such a panic becomes an error.
//!
//! What a panic prints is for the process's panic hook to decide, which only a program sets. The standard one prints the
//! message. A program that wants none of those panics that become errors asks [`panic_is_expected`] in a hook of its own.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether panics of this thread are expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread, at this moment, becomes an error of this crate. For a program's panic hook, which then
/// need not print it: the error says what happened.
pub fn panic_is_expected() -> bool {
    EXPECTED.get()
}

/// Runs `work` and turns a panic into an error. `part` says in words what `work` does.
///
/// Values that `work` changes may be half changed after a panic: `work` must own what it changes, or not use it again.
///
/// # Errors
/// That it panicked, and what it said.
pub(crate) fn guarded<T>(part: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    let nested = EXPECTED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(nested);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("{part} failed in the tokenizers library: {text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where() {
        let leaves = String::new();
        let error = guarded("reading tea leaves", || leaves.parse::<u8>().expect("no leaves")).unwrap_err();
        assert!(error.contains("reading tea leaves") && error.contains("no leaves"), "{error}");
        assert_eq!(guarded("adding", || 1 + 1), Ok(2));
        assert!(!panic_is_expected() && guarded("asking", panic_is_expected).unwrap());
    }
}
