//! What other people's code does with a file that passed every check here may still be a panic. It becomes an error, and
//! its message does not reach the terminal.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Puts a hook before the one there is, once, which stays silent where a panic is expected.
static HOOK: Once = Once::new();

/// Runs `work`, of which `part` says in words what it does.
///
/// Values that `work` changes may be half changed after a panic: `work` must own what it changes, or not use it again.
///
/// # Errors
/// That it panicked, and what it said.
pub(crate) fn guarded<T>(part: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                before(info);
            }
        }));
    });
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
        assert!(!EXPECTED.get());
    }
}
