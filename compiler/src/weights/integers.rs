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
//!
//! So in every type a weight is `scale * code`, or `scale * code + offset`, with a code that fits an int8 and one scale and
//! offset for 16 or 32 weights: the factors of f16 and of small integers are multiplied first, and a minimum that is taken away
//! is its negative added. Blocks are taken apart in this form. No product is rounded: an f16 has 11 bits, and scales and codes
//! of a type together have at most 12 bits. Only the sum with an offset is.

use crate::checkpoint::IntegerType;
use half::f16;

/// The values that the codes of IQ4_NL and IQ4_XS stand for.
const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of floats with two bits of exponent and one of mantissa.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// How many weights share a scale, and whether they have an offset too.
pub(super) fn form(kind: IntegerType) -> (usize, bool) {
    match kind {
        IntegerType::Q3K | IntegerType::Q6K => (16, false),
        IntegerType::Q2K => (16, true),
        IntegerType::Q4_1 | IntegerType::Q5_1 | IntegerType::Q4K | IntegerType::Q5K => (32, true),
        IntegerType::Q4_0
        | IntegerType::Q5_0
        | IntegerType::Q8_0
        | IntegerType::Iq4Nl
        | IntegerType::Iq4Xs
        | IntegerType::Mxfp4 => (32, false),
    }
}

/// Blocks taken apart.
pub(super) struct Parts {
    /// A code for each weight.
    pub codes: Vec<i8>,
    /// A scale for each run of weights that [`form`] says.
    pub scales: Vec<f32>,
    /// An offset for each, or nothing.
    pub offsets: Vec<f32>,
}

impl Parts {
    /// Room for so many blocks.
    pub fn new(kind: IntegerType, blocks: usize) -> Parts {
        let (columns, offsets) = form(kind);
        let runs = blocks * kind.weights() / columns;
        let offsets = vec![0.0; if offsets { runs } else { 0 }];
        Parts { codes: vec![0; blocks * kind.weights()], scales: vec![0.0; runs], offsets }
    }

    /// Takes one block apart, block `at` of those there is room for.
    pub fn take_apart(&mut self, kind: IntegerType, at: usize, block: &[u8]) {
        let (columns, has_offsets) = form(kind);
        let runs = kind.weights() / columns;
        let offsets = if has_offsets { at * runs..(at + 1) * runs } else { 0..0 };
        let codes = &mut self.codes[at * kind.weights()..][..kind.weights()];
        take_apart(kind, block, codes, &mut self.scales[at * runs..][..runs], &mut self.offsets[offsets]);
    }
}

/// Writes the weights of one block; `block` and `out` have the type's sizes.
pub(super) fn decode(kind: IntegerType, block: &[u8], out: &mut [f32]) {
    // No block has more weights, and none more scales.
    let (mut codes, mut scales, mut offsets) = ([0; 256], [0.0; 16], [0.0; 16]);
    let (columns, has_offsets) = form(kind);
    let runs = kind.weights() / columns;
    let codes = &mut codes[..kind.weights()];
    let offsets = &mut offsets[..if has_offsets { runs } else { 0 }];
    take_apart(kind, block, codes, &mut scales[..runs], offsets);
    for (run, (out, codes)) in out.chunks_exact_mut(columns).zip(codes.chunks_exact(columns)).enumerate() {
        let scale = scales[run];
        match offsets.get(run) {
            None => out.iter_mut().zip(codes).for_each(|(out, &q)| *out = scale * f32::from(q)),
            Some(offset) => {
                out.iter_mut().zip(codes).for_each(|(out, &q)| *out = scale * f32::from(q) + offset);
            }
        }
    }
}

/// Writes the codes of one block, its scales, and its offsets where the type has some.
fn take_apart(kind: IntegerType, block: &[u8], codes: &mut [i8], scales: &mut [f32], offsets: &mut [f32]) {
    match kind {
        IntegerType::Q4_0 => {
            scales[0] = half(block, 0);
            nibbles(&block[2..], codes, |q| q as i8 - 8);
        }
        IntegerType::Q4_1 => {
            (scales[0], offsets[0]) = (half(block, 0), half(block, 2));
            nibbles(&block[4..], codes, |q| q as i8);
        }
        IntegerType::Q5_0 => {
            scales[0] = half(block, 0);
            fives(&block[2..], codes, |q| q as i8 - 16);
        }
        IntegerType::Q5_1 => {
            (scales[0], offsets[0]) = (half(block, 0), half(block, 2));
            fives(&block[4..], codes, |q| q as i8);
        }
        IntegerType::Q8_0 => {
            scales[0] = half(block, 0);
            codes.iter_mut().zip(&block[2..]).for_each(|(code, &q)| *code = q as i8);
        }
        IntegerType::Q2K => q2_k(block, codes, scales, offsets),
        IntegerType::Q3K => q3_k(block, codes, scales),
        IntegerType::Q4K => pairs(block, None, &block[16..], codes, (scales, offsets)),
        IntegerType::Q5K => pairs(block, Some(&block[16..48]), &block[48..], codes, (scales, offsets)),
        IntegerType::Q6K => q6_k(block, codes, scales),
        IntegerType::Iq4Nl => {
            scales[0] = half(block, 0);
            nibbles(&block[2..], codes, |q| CURVE[usize::from(q)]);
        }
        IntegerType::Iq4Xs => iq4_xs(block, codes, scales),
        IntegerType::Mxfp4 => {
            scales[0] = exponent(block[0]);
            nibbles(&block[1..], codes, |q| E2M1[usize::from(q)]);
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
fn nibbles(bytes: &[u8], out: &mut [i8], code: impl Fn(u8) -> i8) {
    let (low, high) = out.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).for_each(|(out, byte)| *out = code(byte & 15));
    high.iter_mut().zip(bytes).for_each(|(out, byte)| *out = code(byte >> 4));
}

/// The same, after 32 bits that are the fifth bits of the codes.
fn fives(bytes: &[u8], out: &mut [i8], code: impl Fn(u8) -> i8) {
    let (bits, bytes) = bytes.split_at(4);
    let fifth = |at: usize| (bits[at / 8] >> (at % 8) & 1) << 4;
    let (low, high) = out.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).enumerate().for_each(|(at, (out, byte))| *out = code(byte & 15 | fifth(at)));
    high.iter_mut()
        .zip(bytes)
        .enumerate()
        .for_each(|(at, (out, byte))| *out = code(byte >> 4 | fifth(at + 16)));
}

fn q2_k(block: &[u8], codes: &mut [i8], scales: &mut [f32], offsets: &mut [f32]) {
    let (d, m) = (half(block, 80), half(block, 82));
    for (pair, (scale, offset)) in block.iter().zip(scales.iter_mut().zip(offsets)) {
        (*scale, *offset) = (d * f32::from(pair & 15), -(m * f32::from(pair >> 4)));
    }
    codes.iter_mut().enumerate().for_each(|(i, code)| *code = quarter(&block[16..80], i) as i8);
}

fn q3_k(block: &[u8], codes: &mut [i8], scales: &mut [f32]) {
    let (d, packed) = (half(block, 108), &block[96..108]);
    for (group, scale) in scales.iter_mut().enumerate() {
        // The lower four bits of sixteen scales stand in eight bytes, the upper two in four.
        let low = packed[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
        *scale = d * f32::from((low | high << 4) as i8 - 32);
    }
    for (i, code) in codes.iter_mut().enumerate() {
        // The third bit is set where the code is not negative.
        let third = block[i % 32] >> (i / 32) & 1;
        *code = quarter(&block[32..96], i) as i8 - 4 * (1 - third as i8);
    }
}

/// Code `i` of 256 with four codes to a byte: 32 bytes have the first 128, and codes in the same bits of successive bytes
/// follow each other.
fn quarter(bytes: &[u8], i: usize) -> u8 {
    bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// Q4_K, and with fifth bits Q5_K.
fn pairs(
    block: &[u8],
    fifths: Option<&[u8]>,
    packed: &[u8],
    codes: &mut [i8],
    (scales, offsets): (&mut [f32], &mut [f32]),
) {
    let (d, m, pairs) = (half(block, 0), half(block, 2), &block[4..16]);
    for (group, codes) in codes.chunks_exact_mut(32).enumerate() {
        let (scale, min) = pair(pairs, group);
        (scales[group], offsets[group]) = (d * f32::from(scale), -(m * f32::from(min)));
        // Two groups share 32 bytes. The lower halves of the bytes belong to the first group.
        let packed = &packed[32 * (group / 2)..][..32];
        let shift = 4 * (group % 2);
        for (at, (code, byte)) in codes.iter_mut().zip(packed).enumerate() {
            let fifth = fifths.map_or(0, |bits| (bits[at] >> group & 1) << 4);
            *code = (byte >> shift & 15 | fifth) as i8;
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

fn q6_k(block: &[u8], codes: &mut [i8], scales: &mut [f32]) {
    let d = half(block, 208);
    scales.iter_mut().zip(&block[192..208]).for_each(|(scale, &q)| *scale = d * f32::from(q as i8));
    for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        for (i, code) in codes.iter_mut().enumerate() {
            let (run, at) = (i / 32, i % 32);
            // Runs 0 and 1 are in the lower halves of the 64 bytes, runs 2 and 3 in the upper halves.
            let low = low[32 * (run % 2) + at] >> (4 * (run / 2)) & 15;
            *code = (low | (high[at] >> (2 * run) & 3) << 4) as i8 - 32;
        }
    }
}

fn iq4_xs(block: &[u8], codes: &mut [i8], scales: &mut [f32]) {
    let d = half(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    for (group, (codes, packed)) in codes.chunks_exact_mut(32).zip(block[8..].chunks_exact(16)).enumerate() {
        let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
        let high = (upper >> (2 * group) & 3) as u8;
        scales[group] = d * f32::from((low | high << 4) as i8 - 32);
        nibbles(packed, codes, |q| CURVE[usize::from(q)]);
    }
}
