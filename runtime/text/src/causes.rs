//! Errors with what caused them, in one line.

use std::error::Error;

/// `message`, and behind it each cause that it does not say already. `first` is the nearest cause.
pub fn with_causes(mut message: String, first: Option<&(dyn Error + 'static)>) -> String {
    let mut cause = first;
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error as Io;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Outer {
        words: &'static str,
        source: Io,
    }

    #[test]
    fn a_cause_is_said_once() {
        let outer = |words| Outer { words, source: Io::other("no room") };
        let said = |error: &Outer| with_causes(error.to_string(), error.source());
        assert_eq!(said(&outer("not written")), "not written: no room");
        assert_eq!(said(&outer("not written, no room")), "not written, no room");
        assert_eq!(with_causes("alone".into(), None), "alone");
    }
}
