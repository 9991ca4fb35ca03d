//! Ternary matrix products in safe Rust: the readable reference, and the portable kernel over the same bytes.

use trit_format::dense243::{Code, TRITS};
use trit_format::tile::{self, LANES, QUAD, ROWS, VECTOR};

/// The sums of every row of `weights`, tile after tile, decoded trit by trit; `None` where a byte is invalid.
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

/// The portable kernel: `out[r * out_stride + row] = sum over k of trit[row, k] * activations[r * activation_stride + k]`
/// for every tile in `weights` and `m` activation rows, exact in wrapping i32 (see [`trit_format::kernel::MAX_K`]).
///
/// No trit is isolated: with features `x_0 = s` and `x_{i+1} = 3 x_i mod 256` of a stored byte `s`, and `X_i` the sum
/// of `x_i * a`, `(3 X_i - X_{i+1}) / 256` is the sum for the trit of weight `3^(4-i)`.
///
/// # Panics
/// If a slice is too short for the shapes; activation rows have `padded_k(k)` entries, zero from `k` on.
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
    let translation = translation(code);
    for (t, tile) in weights.chunks_exact(tile::bytes(k)).enumerate() {
        for r in 0..m {
            let activations = &activations[r * activation_stride..][..tile::padded_k(k)];
            let out = &mut out[r * out_stride + t * ROWS..][..ROWS];
            one_tile(tile, translation.as_ref(), activations, out.try_into().expect("80 rows"));
        }
    }
}

/// What turns a stored byte into the signed fix form; `None` where it already is.
fn translation(code: Code) -> Option<[u8; 256]> {
    (code != Code::SignedFix)
        .then(|| std::array::from_fn(|b| code.load(b as u8).map_or(0, |byte| Code::SignedFix.store(byte))))
}

fn one_tile(tile: &[u8], translation: Option<&[u8; 256]>, activations: &[i8], out: &mut [i32; ROWS]) {
    let mut sums = [[0i32; LANES]; TRITS + 1];
    for (vector, quad) in tile.chunks_exact(VECTOR).zip(activations.chunks_exact(QUAD)) {
        let mut x: [i8; VECTOR] = std::array::from_fn(|i| vector[i] as i8);
        if let Some(table) = translation {
            x = x.map(|b| table[usize::from(b as u8)] as i8);
        }
        let quad: [i32; QUAD] = std::array::from_fn(|c| i32::from(quad[c]));
        for sum in &mut sums {
            for lane in 0..LANES {
                let dot: i32 = (0..QUAD).map(|c| i32::from(x[lane * QUAD + c]) * quad[c]).sum();
                sum[lane] = sum[lane].wrapping_add(dot);
            }
            x = x.map(|b| b.wrapping_mul(3));
        }
    }
    for i in 0..TRITS {
        for lane in 0..LANES {
            let trits = sums[i][lane].wrapping_mul(3).wrapping_sub(sums[i + 1][lane]) >> 8;
            out[(TRITS - 1 - i) * LANES + lane] = trits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Sizes around quads and the models' own, random and saturating activations, one row and several.
    #[test]
    fn portable_equals_the_reference_bit_for_bit() {
        let mut random = Random(12);
        for (k, tiles) in [(1, 1), (4, 2), (5, 1), (12, 3), (63, 2), (872, 2), (1408, 1), (2560, 1), (6912, 1)] {
            for code in Code::ALL {
                let mut weights = vec![0; tiles * tile::bytes(k)];
                for tile in weights.chunks_exact_mut(tile::bytes(k)) {
                    let trits: Vec<i8> = (0..ROWS * k).map(|_| (random.next() % 3) as i8 - 1).collect();
                    tile::encode(&trits, k, code, tile);
                }
                let (m, stride) = (3, tile::padded_k(k) + 4);
                let mut activations = vec![0; m * stride];
                for (r, row) in activations.chunks_exact_mut(stride).enumerate() {
                    for a in &mut row[..k] {
                        *a = match r {
                            0 => random.next() as i8,
                            1 => 127,
                            _ => -128,
                        };
                    }
                }
                let out_stride = tiles * ROWS + 1;
                let mut out = vec![0; m * out_stride];
                portable(&weights, k, code, &activations, stride, m, &mut out, out_stride);
                for r in 0..m {
                    let expected = reference(&weights, k, code, &activations[r * stride..][..k]).unwrap();
                    assert_eq!(out[r * out_stride..][..tiles * ROWS], expected, "k={k} {code:?} row {r}");
                }
            }
        }
    }
}
