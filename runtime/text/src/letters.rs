//! The characters that stand for bytes in byte-level vocabularies (`bytes_to_unicode` of GPT-2's encoder).

use std::collections::HashMap;
use std::sync::LazyLock;

static LETTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut letters = ['\0'; 256];
    let mut unseen = '\u{100}'..='\u{143}';
    for (letter, byte) in letters.iter_mut().zip(0..=255_u8) {
        *letter = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            // Bytes that cannot be seen get letters of their own, in order; there are 68 of them.
            _ => unseen.next().unwrap_or_default(),
        };
    }
    letters
});

static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| LETTERS.iter().copied().zip(0..=255).collect());

/// The character that stands for a byte.
pub(crate) fn letter_of(byte: u8) -> char {
    LETTERS[usize::from(byte)]
}

/// The byte that a character stands for.
pub(crate) fn byte_of(letter: char) -> Option<u8> {
    BYTES.get(&letter).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter() {
        assert!((0..=255).all(|byte| byte_of(letter_of(byte)) == Some(byte)));
        assert_eq!([b'!', b' ', b'\n', 0xad].map(letter_of), ['!', 'Ġ', 'Ċ', '\u{143}']);
    }
}
