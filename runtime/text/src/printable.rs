//! Text from files and models on its way to a terminal.
//!
//! Names, keys, licences and error messages repeat what a file says, and a model writes what it likes. Control
//! characters among them can move the cursor, set the window's title or, on some terminals, type a command; marks that
//! change the direction of writing make a line read otherwise than it is. Messages show such characters as `\u{..}`;
//! generated text loses them where a person reads it, and keeps every byte in a pipe.

use std::borrow::Cow;
use std::fmt::Write;

/// One line for people: every control character, line breaks too, every mark that changes the direction of writing and
/// every separator of lines as `\u{..}`. Text without them is given back as it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| c.is_control() || is_separator(c) || turns_direction(c))
}

/// [`escape`] for text of several lines: line breaks and tabs stay.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| {
        !matches!(c, '\n' | '\t') && (c.is_control() || is_separator(c) || turns_direction(c))
    })
}

/// What a model writes, for a terminal: line breaks and tabs stay, carriage returns (which let a line be written over)
/// and marks of direction are left out, all other control characters are shown as `\u{..}`. Each character is judged
/// alone, so it does not matter how the text is cut into pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminalFilter;

impl TerminalFilter {
    /// A piece of text as it may be printed.
    pub fn piece<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let left_out = |c: char| c == '\r' || turns_direction(c);
        let shown = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
        if !text.contains(left_out) {
            return escape_where(text, shown);
        }
        let kept: String = text.chars().filter(|&c| !left_out(c)).collect();
        Cow::Owned(escape_where(&kept, shown).into_owned())
    }
}

fn escape_where(text: &str, escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) {
            // A string takes whatever is written.
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Line and paragraph separator, which some programs break lines at.
fn is_separator(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// The marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// JSON that says the same, with what [`escape`] spells out as `\uXXXX`: JSON allows such characters in strings, and a terminal
/// obeys them.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let mut utf8 = [0; 4];
        // JSON's own text has none of them; all are of the basic plane.
        match escape(c.encode_utf8(&mut utf8)) {
            Cow::Borrowed(_) => out.push(c),
            Cow::Owned(_) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that a terminal may obey, and which are so listed nowhere else.
    const HOSTILE: &str = "\0\x07\x08\x0b\x0c\x1b\x1f\x7f\u{80}\u{9b}\u{9d}\u{9f}";
    const DIRECTION: &str =
        "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let text = format!("a\nb\tc\rd{HOSTILE}{DIRECTION}\u{2028}\u{2029}");
        let safe = escape(&text);
        assert!(safe.starts_with(r"a\u{a}b\u{9}c\u{d}d\u{0}\u{7}\u{8}"), "{safe}");
        assert!(safe.is_ascii() && !safe.contains(char::is_control), "{safe:?}");
        assert_eq!(escape("\x1b[2J\u{202e}txt"), r"\u{1b}[2J\u{202e}txt");
        assert_eq!(escape_lines("a\n\tb\r\x1b"), "a\n\tb\\u{d}\\u{1b}");
        for plain in ["", "naïve 日本語 👩‍👩‍👧 \\u{1b} שלום"] {
            assert!(matches!(escape(plain), Cow::Borrowed(same) if same == plain));
            assert!(matches!(escape_lines(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn generated_text_keeps_its_lines_and_loses_what_a_terminal_obeys() {
        let piece = |text: &str| TerminalFilter.piece(text).into_owned();
        assert_eq!(piece("one\r\n\ttwo"), "one\n\ttwo");
        assert_eq!(piece("\x1b]0;title\x07"), r"\u{1b}]0;title\u{7}");
        assert_eq!(piece(DIRECTION), "");
        assert!(piece(HOSTILE).is_ascii() && !piece(HOSTILE).contains(char::is_control));
        let text = format!("a\r{HOSTILE}é{DIRECTION}\n");
        let cut: String = text.chars().map(|c| piece(&c.to_string())).collect();
        assert_eq!(cut, piece(&text));
        assert!(matches!(TerminalFilter.piece("plain\n"), Cow::Borrowed("plain\n")));
    }

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let text = "a\u{9b}31m\u{7f}\u{202e}\n é日👩\u{1b}";
        let json = serde_json::to_string(&[text]).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(|c: char| c.is_control() || c == '\u{202e}'), "{escaped:?}");
        assert!(escaped.contains(r"\u009b31m\u007f\u202e") && escaped.contains("é日👩"), "{escaped}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&escaped).unwrap(), [text]);
    }
}
