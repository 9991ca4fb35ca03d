//! `precompiled_charsmap`: a table of SentencePiece's normalizer, in base64. It is a trie in a double array (32 bits a
//! unit) and the texts that its leaves point to, each of which ends in a zero byte. The library that applies the table trusts
//! every unit, so every unit is checked here.

/// Longest table in bytes: eight times those in use.
const MAX_BYTES: usize = 2 << 20;

/// Checks a table, and gives how many times longer a text may become by it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(base64: &str) -> Result<usize, String> {
    if base64.len() > MAX_BYTES / 3 * 4 {
        return Err(format!("has {} characters, expected no more than {}", base64.len(), MAX_BYTES / 3 * 4));
    }
    let bytes = decode(base64).ok_or("is no base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("is empty")?;
    let size = u32::from_le_bytes(*size) as usize;
    let (trie, texts) = rest.split_at_checked(size / 4 * 4).ok_or("ends inside its trie")?;
    let texts = std::str::from_utf8(texts).map_err(|_| "holds texts that are not UTF-8")?;
    let (units, _) = trie.as_chunks::<4>();
    let units: Vec<usize> = units.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    longest(&units, texts)
}

/// Visits every node that a text can lead to.
fn longest(units: &[usize], texts: &str) -> Result<usize, String> {
    let beyond = || "leads out of its trie".to_owned();
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let root = *units.first().ok_or("has no trie")?;
    let mut seen = vec![false; units.len()];
    // Nodes whose children are to be visited, with the bytes that led there.
    let mut nodes = vec![(offset(root), 1)];
    let mut growth = 1;
    while let Some((base, depth)) = nodes.pop() {
        for byte in 1..=255 {
            // What follows a node is looked at before it is known whether it belongs to it.
            let node = base ^ byte;
            let unit = *units.get(node).ok_or_else(beyond)?;
            if unit & (1 << 31 | 0xff) != byte || std::mem::replace(&mut seen[node], true) {
                continue;
            }
            let child = node ^ offset(unit);
            if (unit >> 8) & 1 == 1 {
                let at = units.get(child).ok_or_else(beyond)? & ((1 << 31) - 1);
                let text = texts.get(at..).ok_or("points to no text")?;
                let text = &text[..text.find('\0').unwrap_or(text.len())];
                growth = growth.max(text.len().div_ceil(depth));
            }
            nodes.push((child, depth + 1));
        }
    }
    Ok(growth)
}

/// Standard base64 with its padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digit = |byte: &u8| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for four in digits.chunks(4) {
        let bits = four.iter().try_fold(0_u32, |bits, byte| Some(bits << 6 | u32::from(digit(byte)?)))?;
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(decode("YWJjZA==").unwrap(), b"abcd");
        assert_eq!(decode("YWJjZGU=").unwrap(), b"abcde");
        assert_eq!(decode("/+8A").unwrap(), [255, 239, 0]);
        assert!(decode("YWJ").is_none() && decode("YW!j").is_none());
    }

    /// No table that leads out of its trie stands here: who reads it without looking would panic.
    /// A trie in which the byte "a" leads to the first text.
    fn units() -> Vec<usize> {
        let mut units = vec![0; 512];
        // The root's children stand at 256 ^ byte.
        units[0] = 256 << 10;
        let (node, child) = (256 ^ usize::from(b'a'), 3);
        units[node] = (node ^ child) << 10 | 1 << 8 | usize::from(b'a');
        units[child] = 1 << 31;
        units
    }

    #[test]
    fn a_table_is_followed_to_its_ends() {
        assert_eq!(longest(&units(), "four\0"), Ok(4));
        assert_eq!(longest(&[], ""), Err("has no trie".to_owned()));
        assert_eq!(longest(&units(), "four and more\0"), Ok(13));
    }
}
