//! Classes of characters as Python knows them, where Rust's differ.

use super::unicode_tables::{ALPHABETIC, DECIMAL, DIGIT, NUMERIC, TITLECASE, UNPRINTABLE};
use std::sync::LazyLock;

/// A table of runs as ranges that a search can use: first character, and the first one beyond.
struct Ranges(LazyLock<Vec<(u32, u32)>>);

impl Ranges {
    fn range_of(&self, c: char) -> Option<(u32, u32)> {
        let c = c as u32;
        let at = self.0.partition_point(|(_, end)| *end <= c);
        self.0.get(at).copied().filter(|(start, _)| *start <= c)
    }

    fn has(&self, c: char) -> bool {
        self.range_of(c).is_some()
    }
}

macro_rules! ranges {
    ($name:ident, $table:expr) => {
        static $name: Ranges = Ranges(LazyLock::new(|| decode($table)));
    };
}

ranges!(UNPRINTABLE_RANGES, UNPRINTABLE);
ranges!(ALPHABETIC_RANGES, ALPHABETIC);
ranges!(DECIMAL_RANGES, DECIMAL);
ranges!(DIGIT_RANGES, DIGIT);
ranges!(NUMERIC_RANGES, NUMERIC);

fn decode(table: &[u32]) -> Vec<(u32, u32)> {
    let mut end = 0;
    table
        .chunks_exact(2)
        .map(|run| {
            let start = end + run[0];
            end = start + run[1];
            (start, end)
        })
        .collect()
}

/// `str.isspace`: what `strip`, `split` and the lexer take for whitespace. Rust lacks four control characters.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Where `str.splitlines` cuts.
pub fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

pub fn is_printable(c: char) -> bool {
    if c.is_ascii() { (' '..='~').contains(&c) } else { !UNPRINTABLE_RANGES.has(c) }
}

pub fn is_alphabetic(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { ALPHABETIC_RANGES.has(c) }
}

/// The value of a decimal digit of any script: runs are multiples of ten, and begin with zero.
pub fn decimal_value(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    DECIMAL_RANGES.range_of(c).map(|(start, _)| (c as u32 - start) % 10)
}

pub fn is_digit(c: char) -> bool {
    decimal_value(c).is_some() || (!c.is_ascii() && DIGIT_RANGES.has(c))
}

pub fn is_numeric(c: char) -> bool {
    is_digit(c) || (!c.is_ascii() && NUMERIC_RANGES.has(c))
}

pub fn is_alphanumeric(c: char) -> bool {
    is_alphabetic(c) || is_numeric(c)
}

/// Letters that are an upper and a lower case in one, such as U+01C5.
pub fn is_titlecase(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
        || matches!(c, '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}' | '\u{1fa8}'..='\u{1faf}')
}

/// Whether a character has a case at all, for `title`, `istitle` and `swapcase`.
pub fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_titlecase(c)
}

/// Appends the titlecase of a character.
pub fn push_title(out: &mut String, c: char) {
    if let Ok(at) = TITLECASE.binary_search_by_key(&c, |(c, _)| *c) {
        out.push_str(TITLECASE[at].1);
        return;
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    out.extend(upper.flat_map(char::to_lowercase));
}

/// `str.lower`, which Rust gives for a whole string: the end of a word decides about sigma.
pub fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// Appends all but the first character in lower case: the first one decides whether a sigma is a final one.
fn push_lowered_rest(out: &mut String, text: &str, first: char) {
    let lowered = lower(text);
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    out.push_str(lowered.get(skipped..).unwrap_or_default());
}

/// `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        push_title(&mut out, first);
        push_lowered_rest(&mut out, text, first);
    }
    out
}

/// `str.title`: each run of cased characters begins in titlecase.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_cased(c) != is_cased(first)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if is_cased(first) {
            push_title(&mut out, first);
            push_lowered_rest(&mut out, run, first);
        } else {
            out.push_str(run);
        }
        rest = after;
    }
    out
}
