//! Trits and scales in the blocks of each ternary type.
//!
//! In all of them a weight is a trit times the scale of its block, or of its row. Codes are trit + 1. Of Q1_0 every weight
//! is -1 or 1.
//!
//! | type | bytes of a block | trit i of the block |
//! |---|---|---|
//! | TQ1_0 | 48 of five digits, 4 of four digits, d | first 32 bytes: byte i % 32, digit i / 32; next 16 and last 4 alike |
//! | PTQ1_0 | 24 of five digits, 2 of four digits, d | first 16 bytes: byte i % 16, digit i / 16; next 8 and last 2 alike |
//! | TQ2_0 | 64 of four codes, d | byte 32 * (i / 128) + i % 32, bits 2 * (i % 128 / 32) |
//! | Q1_0 | d, 16 of eight signs | byte i / 8, bit i % 8, set for +1 and clear for -1: there is no zero |
//! | Q2_0, PQ2_0 | d, 16 or 32 of four codes | byte i / 4, bits 2 * (i % 4) |
//! | STQ1_0 | 32 of two slots, 8 of eight signs, d | below |
//! | IQ1_BN | 12 of five digits, 1 of four digits | sixteen i: five to a byte, last digit first; the 16th in the last byte |
//! | IQ2_BN | 16 of four codes | byte i % 16, bits 2 * (i / 16) |
//!
//! A byte of digits stands for the number `q = sum over n of (trit_n + 1) * 3^(4 - n)` as `ceil(q * 256 / 243)`, so
//! that its digits come out of multiplications: digit n is the upper byte of `3 * (byte * 3^n mod 256)`. Of the 256
//! bytes 13 stand for no number; with four digits the fifth is zero.
//!
//! In STQ1_0 one of four trits is zero. The four of group g (0 to 63) stand 16 apart, from trit `64 * (g / 16) + g % 16` on.
//! A group has a slot of four bits, in byte g / 2, the even group's in the lower half, and a sign, bit g % 8 of byte
//! `32 + g / 8`. The slot's upper two bits say which trit is zero. Of the others the first is +1, the second and third are
//! -1 where bit 0 and bit 1 of the slot are set; the sign negates all three. Every byte is valid, and no block is zero.
//!
//! Sources: `ggml-quants.c` of llama.cpp and of the forks of PrismML and Tencent (llama.cpp's pull request 22836),
//! `iqk_quantize.cpp` of ik_llama.cpp.

use crate::checkpoint::BlockType;
use trit_format::dense243::decode_signs;

/// The index in the block of a byte that stands for no trits.
pub(super) type Illegal = usize;

/// The trits of every byte that stands for five digits, most significant first; `NONE` where it stands for none.
static FIVE: [[i8; 5]; 256] = five();

/// A value that no trit has.
const NONE: i8 = i8::MAX;

const fn five() -> [[i8; 5]; 256] {
    let mut table = [[NONE; 5]; 256];
    let mut number = 0usize;
    while number < 243 {
        let (mut rest, mut digit) = (number, 5);
        while digit > 0 {
            digit -= 1;
            table[(number * 256).div_ceil(243)][digit] = (rest % 3) as i8 - 1;
            rest /= 3;
        }
        number += 1;
    }
    table
}

/// Writes the trits of one block; `block` and `out` have the type's sizes.
///
/// # Errors
/// A byte that stands for no trits.
pub(super) fn decode(kind: BlockType, block: &[u8], out: &mut [i8]) -> Result<(), Illegal> {
    match kind {
        BlockType::Tq1_0 => staged(block, out, [32, 16, 4]),
        BlockType::Ptq1_0 => staged(block, out, [16, 8, 2]),
        BlockType::Tq2_0 => {
            planes(&block[..32], &mut out[..128])?;
            planes(&block[32..64], &mut out[128..]).map_err(|at| at + 32)
        }
        BlockType::Q1_0 => {
            for (signs, &byte) in out.as_chunks_mut().0.iter_mut().zip(&block[2..]) {
                *signs = decode_signs(byte);
            }
            Ok(())
        }
        BlockType::Q2_0 | BlockType::Q2_0Prism | BlockType::Pq2_0 => {
            codes(&block[2..], out).map_err(|at| at + 2)
        }
        BlockType::Stq1_0 => {
            slots(block, out);
            Ok(())
        }
        BlockType::Iq1Bn => sixteens(block, out),
        BlockType::Iq2Bn => planes(block, out),
        // `Blocks` holds ternary types only.
        BlockType::Integers(_) => Err(0),
    }
}

/// Whether all trits of a block are zero, judged by its bytes. The code of zero is 1, the byte of five zeros is 128,
/// that of four is 127, and that of four in a shared byte is 43. Bytes that stand for no trits are none of these.
pub(super) fn are_zero(kind: BlockType, block: &[u8]) -> bool {
    let all = |bytes: &[u8], zeros: u8| bytes.iter().all(|&byte| byte == zeros);
    match kind {
        BlockType::Tq1_0 => all(&block[..48], 128) && all(&block[48..52], 127),
        BlockType::Ptq1_0 => all(&block[..24], 128) && all(&block[24..26], 127),
        BlockType::Iq1Bn => all(&block[..12], 128) && block[12] == 43,
        BlockType::Tq2_0 => all(&block[..64], 0x55),
        BlockType::Q2_0 | BlockType::Q2_0Prism | BlockType::Pq2_0 => all(&block[2..], 0x55),
        BlockType::Iq2Bn => all(block, 0x55),
        BlockType::Q1_0 | BlockType::Stq1_0 | BlockType::Integers(_) => false,
    }
}

/// Where the block's scale is, an f16; `None` where rows have the scale.
pub(super) fn scale_at(kind: BlockType) -> Option<usize> {
    match kind {
        BlockType::Tq1_0 => Some(52),
        BlockType::Tq2_0 => Some(64),
        BlockType::Ptq1_0 => Some(26),
        BlockType::Stq1_0 => Some(40),
        BlockType::Q1_0 | BlockType::Q2_0 | BlockType::Q2_0Prism | BlockType::Pq2_0 => Some(0),
        _ => None,
    }
}

/// Three runs of bytes, the last with four digits a byte. The digits n of the bytes of a run are successive trits.
fn staged(block: &[u8], out: &mut [i8], runs: [usize; 3]) -> Result<(), Illegal> {
    let (mut start, mut rest) = (0, out);
    for (run, digits) in runs.into_iter().zip([5, 5, 4]) {
        let (trits, after) = rest.split_at_mut(run * digits);
        for (at, &byte) in block[start..start + run].iter().enumerate() {
            let five = FIVE[byte as usize];
            if five[0] == NONE || (digits == 4 && five[4] != -1) {
                return Err(start + at);
            }
            trits.iter_mut().skip(at).step_by(run).zip(five).for_each(|(trit, digit)| *trit = digit);
        }
        (start, rest) = (start + run, after);
    }
    Ok(())
}

/// Four codes to a byte. Codes in the same bits of successive bytes are successive trits.
fn planes(bytes: &[u8], out: &mut [i8]) -> Result<(), Illegal> {
    for (plane, trits) in out.chunks_exact_mut(bytes.len()).enumerate() {
        trits.iter_mut().zip(bytes).for_each(|(trit, byte)| *trit = code(*byte, plane));
    }
    legal(bytes)
}

/// Four codes to a byte. The codes of a byte are successive trits.
fn codes(bytes: &[u8], out: &mut [i8]) -> Result<(), Illegal> {
    for (trits, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
        *trits = [0, 1, 2, 3].map(|i| code(*byte, i));
    }
    legal(bytes)
}

fn code(byte: u8, i: usize) -> i8 {
    (byte >> (2 * i) & 3) as i8 - 1
}

/// Four codes to a byte. None may be 3, which would stand for +2.
fn legal(bytes: &[u8]) -> Result<(), Illegal> {
    let illegal = |byte: &u8| byte & (byte >> 1) & 0x55 != 0;
    // The loop has no branch, because nearly all blocks are legal.
    match bytes.iter().fold(false, |any, byte| any | illegal(byte)) {
        false => Ok(()),
        true => Err(bytes.iter().position(illegal).unwrap_or(0)),
    }
}

/// The four trits of each slot, and with the sign in bit 4 of each negated slot.
static SLOTS: [[i8; 4]; 32] = {
    let mut table = [[0; 4]; 32];
    let mut code = 0;
    while code < 32 {
        let (zero, sign) = (code >> 2 & 3, if code & 16 == 0 { 1 } else { -1 });
        let signs =
            [sign, if code & 1 == 0 { sign } else { -sign }, if code & 2 == 0 { sign } else { -sign }];
        let (mut lane, mut next) = (0, 0);
        while lane < 4 {
            if lane != zero {
                table[code][lane] = signs[next];
                next += 1;
            }
            lane += 1;
        }
        code += 1;
    }
    table
};

/// A slot of four bits and a sign for each group of four trits that stand 16 apart.
fn slots(block: &[u8], out: &mut [i8]) {
    for (chunk, trits) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for at in 0..16 {
            let group = 16 * chunk + at;
            let slot = block[group / 2] >> (4 * (group % 2)) & 15;
            let sign = block[32 + group / 8] >> (group % 8) & 1;
            let four = SLOTS[usize::from(sign << 4 | slot)];
            four.into_iter().enumerate().for_each(|(lane, trit)| trits[at + 16 * lane] = trit);
        }
    }
}

/// Sixteen trits in three bytes of five digits and one digit of a shared byte, all least significant first.
fn sixteens(block: &[u8], out: &mut [i8]) -> Result<(), Illegal> {
    // Four digits whose most significant fifth is zero.
    let shared = FIVE[block[12] as usize];
    if shared[0] != -1 {
        return Err(12);
    }
    for (group, (bytes, trits)) in
        block.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<16>().0).enumerate()
    {
        for (at, &byte) in bytes.iter().enumerate() {
            let mut five = FIVE[byte as usize];
            if five[0] == NONE {
                return Err(3 * group + at);
            }
            five.reverse();
            trits[5 * at..5 * at + 5].copy_from_slice(&five);
        }
        trits[15] = shared[4 - group];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of llama.cpp's pull request 22836, by sign and slot: a code of two bits for each of four trits, the first
    /// in the lowest bits.
    const CODEBOOK: [u8; 32] = [
        0xa9, 0x89, 0x29, 0x09, 0xa6, 0x86, 0x26, 0x06, 0x9a, 0x92, 0x1a, 0x12, 0x6a, 0x62, 0x4a, 0x42, 0x01,
        0x21, 0x81, 0xa1, 0x04, 0x24, 0x84, 0xa4, 0x10, 0x18, 0x90, 0x98, 0x40, 0x48, 0x60, 0x68,
    ];

    #[test]
    fn slots_are_those_of_the_table() {
        for (code, byte) in CODEBOOK.into_iter().enumerate() {
            assert_eq!(SLOTS[code], [0, 1, 2, 3].map(|i| self::code(byte, i)), "{code:#04x}");
        }
    }
}
