//! Comparing records with bytes written by hand.

pub mod steps;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Bytes of hexadecimal digits, blanks ignored; `'text'` stands for its UTF-8.
pub fn bytes(hex: &str) -> Vec<u8> {
    let part = |(i, part): (usize, &str)| match i % 2 {
        1 => part.as_bytes().to_vec(),
        _ => {
            let digits: Vec<u8> = part.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            digits.chunks(2).map(|d| u8::from_str_radix(str::from_utf8(d).unwrap(), 16).unwrap()).collect()
        }
    };
    hex.split('\'').enumerate().flat_map(part).collect()
}

/// The manifest's encoding, stated apart from the crate's own.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding()
}

/// `record` is encoded as `hex`, and `hex` decoded as `record`.
#[track_caller]
pub fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: T, hex: &str) {
    let expected = bytes(hex);
    let found = bincode::serde::encode_to_vec(&record, config()).unwrap();
    assert_eq!(found, expected, "{record:?}");
    assert_eq!(
        bincode::serde::decode_from_slice::<T, _>(&expected, config()).unwrap(),
        (record, expected.len())
    );
}
