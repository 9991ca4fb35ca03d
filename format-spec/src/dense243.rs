//! Dense243: five trits in one byte, and the stored codes derived from it; and the code of weights that are signs alone.
//!
//! The canonical byte of trits `t[0..5]`, each in {-1, 0, +1}, is `sum (t[i] + 1) * 3^i`, in `0..=242`; `243..=255`
//! are invalid. That is 1.6 bits a weight, where log2(3) = 1.585 is the least possible.
//!
//! A matrix without zeros needs one bit a weight: eight signs `w[0..8]`, each -1 or +1, are the byte
//! `sum (w[i] + 1) / 2 * 2^i`, and every byte is valid. It is the same number in base 2.

use crate::tile::LANES;

use serde::{Deserialize, Serialize};

/// Trits in one byte.
pub const TRITS: usize = 5;
/// Signs in one byte, which is also the most weights that any code has in one.
pub const SIGNS: usize = 8;
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

/// The byte of up to eight signs, the first least significant: a bit is set where a weight is above 0. Missing weights
/// give clear bits.
#[inline]
pub fn encode_signs(weights: &[i8]) -> u8 {
    weights.iter().rev().fold(0, |byte, &w| byte << 1 | u8::from(w > 0))
}

/// The eight signs of a byte, each -1 or 1.
#[inline]
pub fn decode_signs(byte: u8) -> [i8; SIGNS] {
    std::array::from_fn(|i| (byte >> i & 1) as i8 * 2 - 1)
}

/// How a canonical byte is stored in a weight section. Each code of trits is a bijection of `0..=242` onto 243 bytes.
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
    /// Eight signs: bit `i` is set where weight `i` is +1, and clear where it is -1. There is no zero. The byte is a
    /// fraction of 256, so that doubling it modulo 256 shifts out one sign, the most significant first.
    Binary,
}

impl Code {
    /// Every code, in the order of their manifest index.
    pub const ALL: [Code; 3] = [Code::SignedFix, Code::Spread, Code::Binary];
    /// The codes of five trits.
    pub const TERNARY: [Code; 2] = [Code::SignedFix, Code::Spread];

    /// Short name, as in kernel names.
    pub const fn name(self) -> &'static str {
        match self {
            Code::SignedFix => "sfix",
            Code::Spread => "spread",
            Code::Binary => "binary",
        }
    }

    /// Weights in one byte: five trits or eight signs.
    #[inline]
    pub const fn digits(self) -> usize {
        match self {
            Code::SignedFix | Code::Spread => TRITS,
            Code::Binary => SIGNS,
        }
    }

    /// Rows of a tile: one for each weight of a byte, in each lane.
    #[inline]
    pub const fn tile_rows(self) -> usize {
        self.digits() * LANES
    }

    /// Number of canonical bytes: 243, or 256 of signs.
    #[inline]
    pub const fn values(self) -> usize {
        match self {
            Code::SignedFix | Code::Spread => VALUES,
            Code::Binary => 256,
        }
    }

    /// Whether a weight may be 0.
    #[inline]
    pub const fn has_zero(self) -> bool {
        !matches!(self, Code::Binary)
    }

    /// The stored byte of a canonical byte, or `None` from [`Code::values`] on.
    #[inline]
    pub fn store(self, byte: u8) -> Option<u8> {
        (usize::from(byte) < self.values()).then(|| match self {
            Code::SignedFix => ((u32::from(byte) * 256).div_ceil(243).max(1) as u8) ^ 0x80,
            Code::Spread => byte + byte / 27,
            Code::Binary => byte,
        })
    }

    /// The canonical byte of a stored byte, or `None` where no canonical byte is stored so.
    #[inline]
    pub fn load(self, stored: u8) -> Option<u8> {
        let guess = match self {
            // `ceil(256 b / 243) = s` gives `b = floor(243 s / 256)`; only b = 0 is moved, to s = 1.
            Code::SignedFix => (u32::from(stored ^ 0x80) * 243 / 256) as u8,
            Code::Spread => stored - stored / 28,
            Code::Binary => stored,
        };
        (self.store(guess) == Some(stored)).then_some(guess)
    }

    /// For each stored byte the byte of the code `to` with the same weights; a number above 255 where there is none.
    pub fn table_to(self, to: Code) -> [u16; 256] {
        std::array::from_fn(|stored| {
            let canonical = self.load(stored as u8).filter(|_| self.digits() == to.digits());
            canonical.and_then(|canonical| to.store(canonical)).map_or(0x100, u16::from)
        })
    }

    /// Replaces each byte by its entry in such a table. Whether all had one; otherwise the bytes are not to be used.
    pub fn recode(table: &[u16; 256], bytes: &mut [u8]) -> bool {
        // What is wrong is collected instead of returned at once, so that the loop has no branch.
        let wrong = bytes.iter_mut().fold(0, |wrong, byte| {
            let new = table[usize::from(*byte)];
            *byte = new as u8;
            wrong | new >> 8
        });
        wrong == 0
    }

    /// The stored byte of [`Code::digits`] weights, the first least significant. Missing weights are zero, or -1 in a code
    /// without zeros. `None` if there are more weights than that, or if a 0 is to be stored in a code without zeros.
    pub fn encode(self, weights: &[i8]) -> Option<u8> {
        if weights.len() > self.digits() || !self.has_zero() && weights.contains(&0) {
            return None;
        }
        if let Code::Binary = self {
            return Some(encode_signs(weights));
        }
        let mut trits = [0; TRITS];
        trits[..weights.len()].copy_from_slice(weights);
        self.store(encode(trits))
    }

    /// The weights of a stored byte, of which the first [`Code::digits`] count, or `None` where no weights are stored so.
    #[inline]
    pub fn decode(self, stored: u8) -> Option<[i8; SIGNS]> {
        let byte = self.load(stored)?;
        if let Code::Binary = self {
            return Some(decode_signs(byte));
        }
        let mut weights = [0; SIGNS];
        weights[..TRITS].copy_from_slice(&decode(byte)?);
        Some(weights)
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
            let stored: std::collections::BTreeSet<u8> = (0..=255).filter_map(|b| code.store(b)).collect();
            assert_eq!(stored.len(), code.values());
            for byte in 0..=255u8 {
                assert_eq!(
                    code.load(byte).and_then(|b| code.store(b)),
                    stored.contains(&byte).then_some(byte)
                );
            }
            assert!((code.values()..256).all(|byte| code.store(byte as u8).is_none()));
        }
    }

    #[test]
    fn signs_are_the_bits_of_a_byte() {
        assert_eq!(encode_signs(&[1, -1, -1, 1, 1, -1, -1, -1]), 0b11001);
        assert_eq!(Code::Binary.encode(&[1, -1]), Some(1));
        assert_eq!(Code::Binary.encode(&[1, 0]), None);
        assert_eq!(Code::Binary.encode(&[1; 9]), None);
        assert_eq!(Code::SignedFix.encode(&[1; 6]), None);
        for code in Code::ALL {
            assert_eq!(code.tile_rows(), code.digits() * 16);
            for byte in 0..=255 {
                let weights = code.decode(byte);
                assert_eq!(
                    weights.and_then(|w| code.encode(&w[..code.digits()])),
                    code.load(byte).map(|_| byte)
                );
            }
        }
    }

    /// The identity the kernels rest on: `(2 x_i - x_{i+1}) / 256` is the bit of weight `2^(7-i)`, with bytes read as u8.
    #[test]
    fn doubled_bytes_give_the_signs_most_significant_first() {
        for byte in 0..=255u8 {
            let mut x = byte;
            for sign in decode_signs(byte).into_iter().rev() {
                let next = x.wrapping_add(x);
                assert_eq!((2 * i32::from(x) - i32::from(next)) >> 7, i32::from(sign) + 1);
                x = next;
            }
            assert_eq!(x, 0);
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
