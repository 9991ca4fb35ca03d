//! JSON that users and other programs wrote: conversations, messages, tools.

use std::io::Read;

/// Most bytes of a file. Nobody had a conversation that is larger.
const LARGEST: u64 = 64 << 20;

/// The bytes of a JSON file, without the byte order mark that some editors begin a file with.
///
/// # Errors
/// What is wrong with the file, without its name.
pub fn bytes(file: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("has more than {LARGEST} bytes, and no conversation has"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_left_out_and_what_never_ends_is_refused() {
        assert_eq!(bytes(&b"\xef\xbb\xbf[]"[..]), Ok(b"[]".to_vec()));
        assert_eq!(bytes(&b"\xef\xbb"[..]), Ok(b"\xef\xbb".to_vec()));
        assert!(bytes(std::io::repeat(b' ')).unwrap_err().contains("more than"));
    }
}
