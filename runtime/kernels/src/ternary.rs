//! Ternary matrix products without generated code: a readable reference, and the portable kernel that reads the same
//! bytes.

use crate::isa::{Isa, LANES, Tier, dispatch};
use trit_format::dense243::{Code, SIGNS, TRITS};
use trit_format::tile::{self, QUAD, VECTOR};

/// The sums of every row of `weights`, tile after tile, decoded trit by trit, or `None` if a byte is invalid.
/// `activations` is `[k]`.
pub fn reference(weights: &[u8], k: usize, code: Code, activations: &[i8]) -> Option<Vec<i32>> {
    let mut sums = Vec::new();
    for tile in weights.chunks_exact(tile::bytes(k)) {
        let trits = tile::decode(tile, k, code).ok()?;
        for row in trits.chunks_exact(k) {
            sums.push(row.iter().zip(activations).map(|(&t, &a)| i32::from(t) * i32::from(a)).sum());
        }
    }
    Some(sums)
}

/// The portable kernel: `out[r * out_stride + t * tile_rows + row] = sum over k of trit[row, k] * activations[r *
/// activation_stride + k]` for every tile `t` in `weights` and `m` activation rows, exact in wrapping i32 (see
/// [`trit_format::kernel::MAX_K`]). A tile has [`Code::tile_rows`] rows. Bytes that encode no trits give some number.
///
/// No trit is decoded by itself. A stored byte `s` has the features `x_0 = s` and `x_{i+1} = 3 x_i mod 256`, read as
/// i8. If `X_i` is the sum of `x_i * a`, then `(3 X_i - X_{i+1}) / 256` is the sum for the trit of weight `3^(4-i)`.
///
/// A byte `s` of eight signs has the features `x_0 = s / 128` and `x_i = s mod 2^(8-i)` for `i` in 1 to 7. They are below
/// 128, so that they are the same number as i8 and as u8. `X_i - X_{i+1}` is `2^(7-i) B`, where `B` is the sum of the
/// activations that meet a set bit, and `X_0` is that of the upper bit. The weight being `2 bit - 1`, the result is
/// `2 B - sum a`.
///
/// # Panics
/// If a slice is too short for the shapes. Activation rows must have `padded_k(k)` entries, zero from `k` on.
#[allow(clippy::too_many_arguments)]
pub fn portable(
    weights: &[u8],
    k: usize,
    code: Code,
    activations: &[i8],
    activation_stride: usize,
    m: usize,
    out: &mut [i32],
    out_stride: usize,
) {
    if k > 0 && m > 0 {
        tiles(Tier::best(), weights, k, code, activations, activation_stride, m, out, out_stride);
    }
}

/// Writes the trits of one row of a tile of `k` columns, as [`portable`] reads them, to `out`, `[k]`: -1, 0 or 1 each.
///
/// # Panics
/// If the tile is too short or has no such row.
pub fn row(tile: &[u8], code: Code, row: usize, out: &mut [f32]) {
    assert!(row < code.tile_rows());
    let (digit, lane) = (row / LANES, row % LANES);
    for (vector, out) in
        tile[..tile::bytes(out.len())].as_chunks::<VECTOR>().0.iter().zip(out.chunks_mut(QUAD))
    {
        for (byte, out) in vector[lane * QUAD..].iter().zip(out) {
            if let Code::Binary = code {
                *out = [-1.0, 1.0][usize::from(byte >> digit & 1)];
                continue;
            }
            let mut x = match code {
                Code::Spread => signed_fix(*byte),
                _ => *byte,
            } as i8;
            // Trit `digit` has the weight 3^(4 - digit).
            for _ in digit + 1..TRITS {
                x = x.wrapping_mul(3);
            }
            let trit = (i32::from(x) * 3 - i32::from(x.wrapping_mul(3))) >> 8;
            *out = trit as f32;
        }
    }
}

dispatch!(
    fn tiles(
        weights: &[u8],
        k: usize,
        code: Code,
        activations: &[i8],
        activation_stride: usize,
        m: usize,
        out: &mut [i32],
        out_stride: usize,
    ) = tiles_body
);

/// Features of a byte, one more than the trits that it holds; below, as many as the signs that it holds.
const OF_TRITS: usize = TRITS + 1;
const OF_SIGNS: usize = SIGNS;
/// Activation rows that share the features of a tile's bytes.
const GROUP: usize = 8;
/// Quads whose features are kept for a group of rows. They take 6 or 8 KiB, which stay in L1.
const QUADS_KEPT: usize = 16;
/// How many bytes ahead of a read are prefetched. A core reads about that much in the time that memory takes to answer.
const PREFETCH: usize = 8 << 10;

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn tiles_body<I: Isa>(
    isa: I,
    weights: &[u8],
    k: usize,
    code: Code,
    activations: &[i8],
    activation_stride: usize,
    m: usize,
    out: &mut [i32],
    out_stride: usize,
) {
    // The number of features is a constant of the loops, so that their sums are kept in registers.
    let (a, stride) = (activations, activation_stride);
    match code {
        Code::Binary => tiles_of::<I, OF_SIGNS>(isa, weights, k, code, a, stride, m, out, out_stride),
        _ => tiles_of::<I, OF_TRITS>(isa, weights, k, code, a, stride, m, out, out_stride),
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn tiles_of<I: Isa, const FEATURES: usize>(
    isa: I,
    weights: &[u8],
    k: usize,
    code: Code,
    activations: &[i8],
    activation_stride: usize,
    m: usize,
    out: &mut [i32],
    out_stride: usize,
) {
    let rows_in_tile = code.tile_rows();
    let row = |r: usize| activations[r * activation_stride..][..tile::padded_k(k)].as_chunks::<QUAD>().0;
    for (t, tile) in weights.chunks_exact(tile::bytes(k)).enumerate() {
        let vectors = tile.as_chunks::<VECTOR>().0;
        let mut write = |r: usize, sums: [I::I32; FEATURES]| {
            let mut lanes = [[0; LANES]; FEATURES];
            for i in 0..FEATURES {
                lanes[i] = isa.to_array(sums[i]);
            }
            let out = &mut out[r * out_stride + t * rows_in_tile..][..rows_in_tile];
            match FEATURES {
                OF_SIGNS => {
                    let all = row(r).as_flattened().iter().fold(0i32, |sum, &a| sum.wrapping_add(a.into()));
                    signs(&lanes, all, out);
                }
                _ => trits(&lanes, out),
            }
        };
        if m == 1 {
            write(0, one_row(isa, vectors, code, row(0)));
            continue;
        }
        for first in (0..m).step_by(GROUP) {
            let group = GROUP.min(m - first);
            let mut sums = [[isa.zero(); FEATURES]; GROUP];
            for from in (0..vectors.len()).step_by(QUADS_KEPT) {
                let kept = QUADS_KEPT.min(vectors.len() - from);
                let mut features = [[isa.load_bytes(&[0; VECTOR]); FEATURES]; QUADS_KEPT];
                for (features, vector) in features.iter_mut().zip(&vectors[from..from + kept]) {
                    for i in 0..FEATURES {
                        let before = features[i.saturating_sub(1)];
                        features[i] = feature::<I, FEATURES>(isa, vector, code, i, before);
                    }
                }
                for (r, sums) in sums[..group].iter_mut().enumerate() {
                    let quads = &row(first + r)[from..from + kept];
                    *sums = add_quads(isa, *sums, &features[..kept], quads);
                }
            }
            for (r, sums) in sums[..group].iter().enumerate() {
                write(first + r, *sums);
            }
        }
    }
}

/// The feature sums of a tile with one activation row.
#[inline(always)]
fn one_row<I: Isa, const FEATURES: usize>(
    isa: I,
    vectors: &[[u8; VECTOR]],
    code: Code,
    row: &[[i8; QUAD]],
) -> [I::I32; FEATURES] {
    let mut sums = [isa.zero(); FEATURES];
    for (vector, &quad) in vectors.iter().zip(row) {
        isa.prefetch(vector, PREFETCH);
        let mut x = isa.load_bytes(vector);
        for (i, sum) in sums.iter_mut().enumerate() {
            x = feature::<I, FEATURES>(isa, vector, code, i, x);
            *sum = isa.dot4(*sum, x, quad);
        }
    }
    sums
}

/// Adds to `sums` those of some quads whose features are known.
#[inline(always)]
fn add_quads<I: Isa, const FEATURES: usize>(
    isa: I,
    mut sums: [I::I32; FEATURES],
    features: &[[I::I8; FEATURES]],
    row: &[[i8; QUAD]],
) -> [I::I32; FEATURES] {
    for (features, &quad) in features.iter().zip(row) {
        for i in 0..FEATURES {
            sums[i] = isa.dot4(sums[i], features[i], quad);
        }
    }
    sums
}

/// Feature `i` of a vector of weights, `before` being the feature before it.
#[inline(always)]
fn feature<I: Isa, const FEATURES: usize>(
    isa: I,
    vector: &[u8; VECTOR],
    code: Code,
    i: usize,
    before: I::I8,
) -> I::I8 {
    match (FEATURES, i) {
        (OF_SIGNS, _) => {
            let mut bytes = [0; VECTOR];
            for (to, from) in bytes.iter_mut().zip(vector) {
                *to = if i == 0 { from >> 7 } else { from & (0xff >> i) };
            }
            isa.load_bytes(&bytes)
        }
        (_, 0) => load(isa, vector, code),
        _ => isa.triple(before),
    }
}

/// One vector of weights in the signed fix form.
#[inline(always)]
fn load<I: Isa>(isa: I, vector: &[u8; VECTOR], code: Code) -> I::I8 {
    match code {
        Code::SignedFix => isa.load_bytes(vector),
        Code::Spread => {
            let mut fix = [0; VECTOR];
            for i in 0..VECTOR {
                fix[i] = signed_fix(vector[i]);
            }
            isa.load_bytes(&fix)
        }
        // Validation refuses codes this runtime does not know.
        other => unreachable!("{other:?}"),
    }
}

/// The signed fix form of a byte `s` in the spread code: `b = s - s / 28`, then
/// `ceil(256 b / 243) = b + ceil(13 b / 243)`. This is 16-bit arithmetic, which vectorizes.
#[inline(always)]
fn signed_fix(spread: u8) -> u8 {
    let b = u16::from(spread - spread / 28);
    ((b + (13 * b).div_ceil(243)).max(1) as u8) ^ 0x80
}

/// The dot products of the rows of a tile of signs from the feature sums of its lanes, and the sum of all activations.
#[inline(always)]
fn signs(sums: &[[i32; LANES]], all: i32, out: &mut [i32]) {
    for (digit, out) in out.chunks_exact_mut(LANES).enumerate() {
        for lane in 0..LANES {
            let sum = |i: usize| sums[i][lane];
            let set = match digit {
                0 | 7 => sum(7 - digit),
                _ => sum(7 - digit).wrapping_sub(sum(8 - digit)) >> digit,
            };
            out[lane] = set.wrapping_mul(2).wrapping_sub(all);
        }
    }
}

/// The dot products of a tile's rows from the feature sums of its lanes.
#[inline(always)]
fn trits(sums: &[[i32; LANES]], out: &mut [i32]) {
    for (i, out) in out.chunks_exact_mut(LANES).rev().enumerate() {
        for lane in 0..LANES {
            out[lane] = sums[i][lane].wrapping_mul(3).wrapping_sub(sums[i + 1][lane]) >> 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// A random weight that the code can store.
    fn weight(random: &mut Random, code: Code) -> i8 {
        match code.has_zero() {
            true => (random.next() % 3) as i8 - 1,
            false => (random.next() >> 7 & 1) as i8 * 2 - 1,
        }
    }

    /// Tries sizes around those of quads and of kept quads and those of models, random and saturating activations, one
    /// row and several rows within a group and across groups, every code and every tier.
    #[test]
    fn portable_equals_the_reference_bit_for_bit() {
        let mut random = Random(12);
        for (k, tiles_in) in [
            (1, 1),
            (4, 2),
            (5, 1),
            (12, 3),
            (63, 2),
            (64, 1),
            (65, 1),
            (872, 2),
            (1408, 1),
            (2560, 1),
            (6912, 1),
        ] {
            for code in Code::ALL {
                let rows_in_tile = code.tile_rows();
                let mut weights = vec![0; tiles_in * tile::bytes(k)];
                for (t, tile) in weights.chunks_exact_mut(tile::bytes(k)).enumerate() {
                    let trits: Vec<i8> = (0..rows_in_tile * k)
                        .map(|i| match i / k {
                            // Rows of one sign are multiplied with the largest activations.
                            0 if t == 0 => 1,
                            1 if t == 0 => -1,
                            _ => weight(&mut random, code),
                        })
                        .collect();
                    tile::encode(&trits, k, code, tile).unwrap();
                }
                let (m, stride) = (11, tile::padded_k(k) + 4);
                let mut activations = vec![0; m * stride];
                for (r, row) in activations.chunks_exact_mut(stride).enumerate() {
                    for a in &mut row[..k] {
                        *a = match r {
                            1 => 127,
                            2 => -128,
                            _ => random.next() as i8,
                        };
                    }
                }
                let rows = activations.chunks_exact(stride);
                let expected: Vec<_> =
                    rows.map(|row| reference(&weights, k, code, &row[..k]).unwrap()).collect();
                let out_stride = tiles_in * rows_in_tile + 1;
                for tier in Tier::supported() {
                    for (first, m) in [(0, 11), (0, 8), (1, 3), (1, 1), (2, 1)] {
                        let mut out = vec![i32::MIN; m * out_stride];
                        tiles(
                            tier,
                            &weights,
                            k,
                            code,
                            &activations[first * stride..],
                            stride,
                            m,
                            &mut out,
                            out_stride,
                        );
                        for (out, expected) in out.chunks_exact(out_stride).zip(&expected[first..]) {
                            assert_eq!(out[..tiles_in * rows_in_tile], *expected, "{tier:?} k={k} {code:?}");
                            assert_eq!(out[tiles_in * rows_in_tile], i32::MIN);
                        }
                    }
                }
                let mut out = vec![0; tiles_in * rows_in_tile];
                portable(&weights, k, code, &activations, stride, 1, &mut out, 0);
                assert_eq!(out, expected[0]);
            }
        }
    }

    /// The largest possible sums, for which the feature sums wrap.
    #[test]
    fn the_longest_rows_are_exact() {
        let k = trit_format::kernel::MAX_K as usize;
        for code in Code::ALL {
            let rows_in_tile = code.tile_rows();
            let trits: Vec<i8> = (0..rows_in_tile * k).map(|i| [1, -1][i / k % 2]).collect();
            let mut weights = vec![0; tile::bytes(k)];
            tile::encode(&trits, k, code, &mut weights).unwrap();
            for a in [127i8, -128] {
                for tier in Tier::supported() {
                    let mut out = vec![0; rows_in_tile];
                    tiles(tier, &weights, k, code, &vec![a; k], k, 1, &mut out, rows_in_tile);
                    for (row, &sum) in out.iter().enumerate() {
                        let sign = [1, -1][row % 2];
                        assert_eq!(sum, sign * i32::from(a) * k as i32, "{tier:?} {code:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_spread_byte_becomes_its_signed_fix_form() {
        for byte in 0..243 {
            assert_eq!(Code::Spread.store(byte).map(signed_fix), Code::SignedFix.store(byte), "{byte}");
        }
    }

    #[test]
    fn single_rows_are_those_of_the_tile() {
        let mut random = Random(8);
        for k in [1, 7, 64, 130] {
            for code in Code::ALL {
                let trits: Vec<i8> = (0..code.tile_rows() * k).map(|_| weight(&mut random, code)).collect();
                let mut bytes = vec![0; tile::bytes(k)];
                tile::encode(&trits, k, code, &mut bytes).unwrap();
                for (r, trits) in trits.chunks_exact(k).enumerate() {
                    let mut out = vec![9.0; k];
                    row(&bytes, code, r, &mut out);
                    assert_eq!(
                        out,
                        trits.iter().map(|&t| f32::from(t)).collect::<Vec<f32>>(),
                        "{code:?} {r}"
                    );
                }
            }
        }
    }

    #[test]
    fn invalid_bytes_do_not_panic() {
        for code in Code::ALL {
            let weights: Vec<u8> = (0..=255).collect();
            // Every byte is eight signs.
            assert_eq!(reference(&weights, 16, code, &[1; 16]).is_none(), code.has_zero());
            portable(&weights, 16, code, &[1; 16], 16, 1, &mut [0; 128], 128);
        }
    }
}
