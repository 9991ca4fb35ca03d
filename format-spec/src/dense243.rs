//! Dense243: five trits in one byte, and the stored codes derived from it.
//!
//! The canonical byte of trits `t[0..5]`, each in {-1, 0, +1}, is `sum (t[i] + 1) * 3^i`, in `0..=242`; `243..=255`
//! are invalid. That is 1.6 bits a weight, where log2(3) = 1.585 is the least possible.

use serde::{Deserialize, Serialize};

/// Trits in one byte.
pub const TRITS: usize = 5;
/// Number of valid canonical bytes, `3^5`.
pub const VALUES: usize = 243;

/// The canonical byte of five trits. The first trit is the least significant. A number below -1 counts as -1, and one above
/// 1 as 1.
#[inline]
pub fn encode(trits: [i8; TRITS]) -> u8 {
    trits.iter().rev().fold(0, |byte, &t| byte * 3 + (t.signum() + 1) as u8)
}

/// The trits of a canonical byte, or `None` for 243 and above.
#[inline]
pub fn decode(byte: u8) -> Option<[i8; TRITS]> {
    if usize::from(byte) >= VALUES {
        return None;
    }
    let mut rest = byte;
    Some([(); TRITS].map(|()| {
        let digit = (rest % 3) as i8 - 1;
        rest /= 3;
        digit
    }))
}

/// How a canonical byte is stored in a weight section. Each code is a bijection of `0..=242` onto 243 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Code {
    /// Fixed point, in the way of TQ1_0: `max(1, ceil(256 * b / 243)) ^ 0x80`, read as i8. The byte is a fraction of 256,
    /// so that multiplying it by 3 modulo 256 shifts out one trit. It is never -128, so its negation fits i8.
    ///
    /// The idea is that of llama.cpp's TQ1_0 (compilade, ggml-org/llama.cpp pull request 8151): five trits are stored as
    /// `ceil(256 * b / 243)`, rounded up, and each multiplication by 3 brings up the next trit above the byte. Only this
    /// idea was taken. The least 1, the flipped sign bit, the order of trits and tiles, and the kernels are this
    /// project's: they never extract a trit, but sum the products of the bytes `3^j * x mod 256` and take the
    /// difference of two such sums (`trit_codegen::program`).
    SignedFix,
    /// Made for lookup: `b + b / 27`. The upper six bits are the index of a table that gives the upper two trits, and
    /// what is left is an index of the lower three. It needs tables of 64 bytes, which AVX-512 VBMI has.
    Spread,
}

impl Code {
    /// Every code, in the order of their manifest index.
    pub const ALL: [Code; 2] = [Code::SignedFix, Code::Spread];

    /// Short name, as in kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Code::SignedFix => "sfix",
            Code::Spread => "spread",
        }
    }

    /// The stored byte of a canonical byte, or `None` for 243 and above.
    #[inline]
    pub fn store(self, byte: u8) -> Option<u8> {
        (usize::from(byte) < VALUES).then(|| match self {
            Code::SignedFix => ((u32::from(byte) * 256).div_ceil(243).max(1) as u8) ^ 0x80,
            Code::Spread => byte + byte / 27,
        })
    }

    /// The canonical byte of a stored byte, or `None` where no canonical byte is stored so.
    #[inline]
    pub fn load(self, stored: u8) -> Option<u8> {
        let guess = match self {
            // `ceil(256 b / 243) = s` gives `b = floor(243 s / 256)`; only b = 0 is moved, to s = 1.
            Code::SignedFix => (u32::from(stored ^ 0x80) * 243 / 256) as u8,
            Code::Spread => stored - stored / 28,
        };
        (self.store(guess) == Some(stored)).then_some(guess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(encode([-1, 0, 1, 1, 0]), 156);
        assert_eq!(encode([1, 0, -1, 1, 0]), 140);
        assert_eq!(encode([0; 5]), 121);
        assert_eq!(encode([1; 5]), 242);
        assert_eq!(encode([-1; 5]), 0);
    }

    #[test]
    fn every_byte_decodes_to_what_encoded_it_or_is_refused() {
        for byte in 0..=255u8 {
            assert_eq!(decode(byte).map(encode), (byte < 243).then_some(byte));
        }
    }

    #[test]
    fn codes_are_bijections_of_the_canonical_bytes() {
        for code in Code::ALL {
            let stored: std::collections::BTreeSet<u8> = (0..243).filter_map(|b| code.store(b)).collect();
            assert_eq!(stored.len(), VALUES);
            for byte in 0..=255u8 {
                assert_eq!(
                    code.load(byte).and_then(|b| code.store(b)),
                    stored.contains(&byte).then_some(byte)
                );
            }
            assert!((243..=255).all(|byte| code.store(byte).is_none()));
        }
    }

    #[test]
    fn numbers_that_are_no_trits_count_as_their_sign() {
        assert_eq!(encode([i8::MIN, -2, 2, i8::MAX, 0]), encode([-1, -1, 1, 1, 0]));
    }

    /// The identity the kernels rest on: `(3 x_i - x_{i+1}) / 256` is the trit of weight `3^(4-i)`.
    #[test]
    fn signed_fix_features_give_the_trits_most_significant_first() {
        for byte in 0..243u8 {
            let mut x = Code::SignedFix.store(byte).unwrap() as i8;
            assert_ne!(x, i8::MIN);
            for trit in decode(byte).unwrap().into_iter().rev() {
                let next = x.wrapping_mul(3);
                assert_eq!((3 * i32::from(x) - i32::from(next)) >> 8, i32::from(trit));
                x = next;
            }
        }
    }
}
