//! Blocks of small integers that stand for floats.
//!
//! | type | bytes of a block | weight |
//! |---|---|---|
//! | Q4_0 | f16 d, 16 of two codes | `d * (q - 8)` |
//! | Q4_1 | f16 d, f16 m, 16 of two codes | `d * q + m` |
//! | Q5_0 | f16 d, 4 of fifth bits, 16 of two codes | `d * (q - 16)` |
//! | Q5_1 | f16 d, f16 m, 4 of fifth bits, 16 of two codes | `d * q + m` |
//! | Q8_0 | f16 d, 32 i8 | `d * q` |
//! | Q2_K | 16 of a scale and a minimum, 4 bits each, 64 of four codes, f16 d, f16 m | `(d * scale) * q - m * min`, a pair for 16 weights |
//! | Q3_K | 32 of third bits, 64 of four codes, 12 of 6-bit scales, f16 d | `(d * (scale - 32)) * (q - 4)`, a scale for 16 weights |
//! | Q4_K | f16 d, f16 m, 12 of 6-bit pairs, 128 of two codes | `(d * scale) * q - m * min`, a pair for 32 weights |
//! | Q5_K | f16 d, f16 m, 12 of 6-bit pairs, 32 of fifth bits, 128 of two codes | the same |
//! | Q6_K | 128 of lower 4 bits, 64 of upper 2, 16 i8 scales, f16 d | `(d * scale) * (q - 32)`, a scale for 16 weights |
//! | IQ4_NL | f16 d, 16 of two codes | `d * CURVE[q]` |
//! | IQ4_XS | f16 d, 2 of upper bits of scales, 4 of lower ones, 128 of two codes | `(d * (scale - 32)) * CURVE[q]`, a scale for 32 weights |
//! | MXFP4 | exponent e, 16 of two codes | `2^(e - 128) * E2M1[q]` |
//!
//! Where two codes share a byte the lower half comes first, and the upper halves of the same bytes follow. All operations
//! are in f32 and in this order, which gives the same numbers as `dequantize_row_*` of ggml's `ggml-quants.c` and as
//! `gguf/quants.py`.

use crate::checkpoint::IntegerType;
use half::f16;

/// The values that the codes of IQ4_NL and IQ4_XS stand for.
const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of floats with two bits of exponent and one of mantissa.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Writes the weights of one block; `block` and `out` have the type's sizes.
pub(super) fn decode(kind: IntegerType, block: &[u8], out: &mut [f32]) {
    match kind {
        IntegerType::Q4_0 => {
            let d = half(block, 0);
            nibbles(&block[2..], out, |q| d * f32::from(q as i8 - 8));
        }
        IntegerType::Q4_1 => {
            let (d, m) = (half(block, 0), half(block, 2));
            nibbles(&block[4..], out, |q| d * f32::from(q) + m);
        }
        IntegerType::Q5_0 => {
            let d = half(block, 0);
            fives(&block[2..], out, |q| d * f32::from(q as i8 - 16));
        }
        IntegerType::Q5_1 => {
            let (d, m) = (half(block, 0), half(block, 2));
            fives(&block[4..], out, |q| d * f32::from(q) + m);
        }
        IntegerType::Q8_0 => {
            let d = half(block, 0);
            out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = d * f32::from(q as i8));
        }
        IntegerType::Q2K => q2_k(block, out),
        IntegerType::Q3K => q3_k(block, out),
        IntegerType::Q4K => pairs(block, None, &block[16..], out),
        IntegerType::Q5K => pairs(block, Some(&block[16..48]), &block[48..], out),
        IntegerType::Q6K => q6_k(block, out),
        IntegerType::Iq4Nl => {
            let d = half(block, 0);
            nibbles(&block[2..], out, |q| d * f32::from(CURVE[usize::from(q)]));
        }
        IntegerType::Iq4Xs => iq4_xs(block, out),
        IntegerType::Mxfp4 => {
            let d = exponent(block[0]);
            nibbles(&block[1..], out, |q| d * f32::from(E2M1[usize::from(q)]));
        }
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `2^(e - 128)`. The two smallest are not normal numbers.
fn exponent(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}

/// Two codes to a byte: the lower halves of all bytes, then the upper ones.
fn nibbles(bytes: &[u8], out: &mut [f32], weight: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).for_each(|(out, byte)| *out = weight(byte & 15));
    high.iter_mut().zip(bytes).for_each(|(out, byte)| *out = weight(byte >> 4));
}

/// The same, after 32 bits that are the fifth bits of the codes.
fn fives(bytes: &[u8], out: &mut [f32], weight: impl Fn(u8) -> f32) {
    let (bits, bytes) = bytes.split_at(4);
    let fifth = |at: usize| (bits[at / 8] >> (at % 8) & 1) << 4;
    let (low, high) = out.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).enumerate().for_each(|(at, (out, byte))| *out = weight(byte & 15 | fifth(at)));
    high.iter_mut()
        .zip(bytes)
        .enumerate()
        .for_each(|(at, (out, byte))| *out = weight(byte >> 4 | fifth(at + 16)));
}

fn q2_k(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 80), half(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = (block[i / 16] & 15, block[i / 16] >> 4);
        let (scale, min) = (d * f32::from(scale), m * f32::from(min));
        *out = scale * f32::from(quarter(&block[16..80], i)) - min;
    }
}

fn q3_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 108);
    let scales = &block[96..108];
    for (i, out) in out.iter_mut().enumerate() {
        // The lower four bits of sixteen scales stand in eight bytes, the upper two in four.
        let group = i / 16;
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        // The third bit is set where the code is not negative.
        let third = block[i % 32] >> (i / 32) & 1;
        *out = scale * f32::from(quarter(&block[32..96], i) as i8 - 4 * (1 - third as i8));
    }
}

/// Code `i` of 256 with four codes to a byte: 32 bytes have the first 128, and codes in the same bits of successive bytes
/// follow each other.
fn quarter(bytes: &[u8], i: usize) -> u8 {
    bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// Q4_K, and with fifth bits Q5_K.
fn pairs(block: &[u8], fifths: Option<&[u8]>, codes: &[u8], out: &mut [f32]) {
    let (d, m, pairs) = (half(block, 0), half(block, 2), &block[4..16]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = pair(pairs, group);
        let (scale, min) = (d * f32::from(scale), m * f32::from(min));
        // Two groups share 32 bytes. The lower halves of the bytes belong to the first group.
        let codes = &codes[32 * (group / 2)..][..32];
        let shift = 4 * (group % 2);
        for (at, (out, code)) in out.iter_mut().zip(codes).enumerate() {
            let fifth = fifths.map_or(0, |bits| (bits[at] >> group & 1) << 4);
            *out = scale * f32::from(code >> shift & 15 | fifth) - min;
        }
    }
}

/// The scale and the minimum of a group, 6 bits each. Those of the first four groups stand in bytes of their own. Of
/// those of the last four groups, the upper two bits stand in the upper two bits of these bytes.
fn pair(pairs: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (pairs[group] & 63, pairs[group + 4] & 63);
    }
    let low = pairs[group + 4];
    (low & 15 | pairs[group - 4] >> 6 << 4, low >> 4 | pairs[group] >> 6 << 4)
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 208);
    for (half, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        let scales = &block[192 + 8 * half..][..8];
        for (i, out) in out.iter_mut().enumerate() {
            let (run, at) = (i / 32, i % 32);
            // Runs 0 and 1 are in the lower halves of the 64 bytes, runs 2 and 3 in the upper halves.
            let low = low[32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
            let code = low | (high[at] >> (2 * run) & 3) << 4;
            *out = d * f32::from(scales[i / 16] as i8) * f32::from(code as i8 - 32);
        }
    }
}

fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for (group, (out, codes)) in out.chunks_exact_mut(32).zip(block[8..].chunks_exact(16)).enumerate() {
        let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
        let high = (upper >> (2 * group) & 3) as u8;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        nibbles(codes, out, |q| scale * f32::from(CURVE[usize::from(q)]));
    }
}
