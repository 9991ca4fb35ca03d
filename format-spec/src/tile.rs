//! The row-lane tile: 80 rows of a ternary matrix, or 128 rows of a matrix of signs, as one sequential stream of bytes.
//!
//! One byte holds the weights of five or eight rows at the same `k`, as [`Code::digits`] says. One 64-byte vector holds
//! 16 lanes of 4 consecutive `k`:
//!
//! ```text
//! tile row   = digit * 16 + lane              digit in 0..5 or 0..8, lane in 0..16
//! byte index = (k / 4) * 64 + lane * 4 + k % 4
//! ```
//!
//! so that a broadcast of four activations meets every byte of the vector. Rows past the end and `k` past the end
//! hold weight 0, or -1 in a code without zeros: activations are 0 from `k` on, and nobody reads the results of rows
//! past the end. A tile is `k_padded * 16` bytes in every code, where `k_padded` is `k` rounded up to 4.

use crate::dense243::{Code, SIGNS, TRITS};

mod encoder;

pub use encoder::TileEncoder;

/// Rows in a tile of trits; [`Code::tile_rows`] gives those of any code.
pub const ROWS: usize = TRITS * LANES;
/// The most rows that a tile of any code has.
pub const MAX_ROWS: usize = SIGNS * LANES;
/// Lanes of four consecutive `k` in a 64-byte vector.
pub const LANES: usize = 16;
/// Consecutive `k` in a lane.
pub const QUAD: usize = 4;
/// Bytes in one vector: 16 lanes of 4.
pub const VECTOR: usize = LANES * QUAD;

/// `k` rounded up to a whole quad.
pub const fn padded_k(k: usize) -> usize {
    k.next_multiple_of(QUAD)
}

/// Bytes of one tile of `k` columns.
pub const fn bytes(k: usize) -> usize {
    padded_k(k) * LANES
}

/// Why a tile cannot be encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The slices have other lengths than a tile of that many columns.
    #[error("{trits} trits and {bytes} bytes are no tile of {k} columns")]
    Shape {
        /// Columns.
        k: usize,
        /// Trits there are.
        trits: usize,
        /// Bytes there are.
        bytes: usize,
    },
    /// The byte at this offset is none that trits encode to.
    #[error("the byte at offset {0} stands for no trits")]
    Byte(usize),
    /// A weight is 0, and the code has no zero.
    #[error("the weight at [{row}, {column}] is 0, which {} cannot store", Code::Binary.name())]
    Zero {
        /// Row of the tile.
        row: usize,
        /// Column.
        column: usize,
    },
}

/// Where, in scales, the scale `index` of tile row `row` stands among those of its tile, `[scales, tile_rows]`.
#[inline]
pub const fn scale_at(code: Code, index: usize, row: usize) -> usize {
    index * code.tile_rows() + row
}

/// Encodes one tile from up to [`Code::tile_rows`] rows of trits, row-major `[rows, k]`. This is the readable definition;
/// [`TileEncoder`] gives the same bytes fast.
///
/// # Errors
/// [`TileError::Shape`] if `k` is 0, `trits` is not `rows * k` long with at most that many rows, or `out` is not
/// `bytes(k)` long; [`TileError::Zero`] with a weight that the code cannot store.
pub fn encode(trits: &[i8], k: usize, code: Code, out: &mut [u8]) -> Result<(), TileError> {
    let shape = TileError::Shape { k, trits: trits.len(), bytes: out.len() };
    let rows = trits.len().checked_div(k).ok_or(shape)?;
    // First the columns, so that no number of them overflows after it.
    if k > out.len() / LANES || rows > code.tile_rows() || rows * k != trits.len() || out.len() != bytes(k) {
        return Err(shape);
    }
    if let (false, Some(at)) = (code.has_zero(), trits.iter().position(|&t| t == 0)) {
        return Err(TileError::Zero { row: at / k, column: at % k });
    }
    let filler = if code.has_zero() { 0 } else { -1 };
    let trit = |row: usize, col: usize| if row < rows && col < k { trits[row * k + col] } else { filler };
    for (quad, vector) in out.chunks_exact_mut(VECTOR).enumerate() {
        for (i, byte) in vector.iter_mut().enumerate() {
            let (lane, col) = (i / QUAD, quad * QUAD + i % QUAD);
            let digits: [i8; SIGNS] = std::array::from_fn(|digit| trit(digit * LANES + lane, col));
            // That no weight is a 0 that cannot be stored was checked above.
            *byte = code.encode(&digits[..code.digits()]).unwrap_or(0);
        }
    }
    Ok(())
}

/// Decodes one tile to trits, row-major `[tile_rows, k]`.
///
/// # Errors
/// [`TileError::Shape`] if `tile` is not `bytes(k)` long, [`TileError::Byte`] with the first byte that no trits encode to.
pub fn decode(tile: &[u8], k: usize, code: Code) -> Result<Vec<i8>, TileError> {
    // First, so that no number of columns overflows below.
    if tile.len() / LANES < k || tile.len() != bytes(k) {
        return Err(TileError::Shape { k, trits: 0, bytes: tile.len() });
    }
    let mut trits = vec![0; code.tile_rows() * k];
    for (at, &byte) in tile.iter().enumerate() {
        let digits = code.decode(byte).ok_or(TileError::Byte(at))?;
        let (lane, col) = (at % VECTOR / QUAD, at / VECTOR * QUAD + at % QUAD);
        if col < k {
            for (digit, trit) in digits.into_iter().enumerate().take(code.digits()) {
                trits[(digit * LANES + lane) * k + col] = trit;
            }
        }
    }
    Ok(trits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_decode_to_what_encoded_them() {
        for (rows, k, code) in [(1, 1), (80, 4), (79, 5), (16, 12), (80, 63), (128, 9)]
            .into_iter()
            .flat_map(|(rows, k)| Code::ALL.map(|code| (rows, k, code)))
            .filter(|&(rows, _, code)| rows <= code.tile_rows())
        {
            let trit = |i: usize| (i * 7 % 11 % 3) as i8 - 1;
            let weight = |i| if trit(i) == 0 && !code.has_zero() { 1 } else { trit(i) };
            let trits: Vec<i8> = (0..rows * k).map(weight).collect();
            let mut tile = vec![0; bytes(k)];
            encode(&trits, k, code, &mut tile).unwrap();
            let decoded = decode(&tile, k, code).unwrap();
            assert_eq!(decoded[..trits.len()], trits);
            assert_eq!(decoded.len(), code.tile_rows() * k);
            let filler = if code.has_zero() { 0 } else { -1 };
            assert!(decoded[trits.len()..].iter().all(|&t| t == filler));
        }
    }

    #[test]
    fn signs_stand_where_trits_do_and_have_no_zero() {
        let (digit, lane, k) = (6, 5, 6);
        let mut signs = vec![-1; MAX_ROWS * 8];
        signs[(digit * LANES + lane) * 8 + k] = 1;
        let mut tile = vec![0; bytes(8)];
        encode(&signs, 8, Code::Binary, &mut tile).unwrap();
        assert_eq!(tile[(k / 4) * 64 + lane * 4 + k % 4], 1 << digit);
        assert_eq!(tile.iter().filter(|&&b| b != 0).count(), 1);
        signs[8 + 3] = 0;
        let refused = encode(&signs, 8, Code::Binary, &mut tile);
        assert_eq!(refused, Err(TileError::Zero { row: 1, column: 3 }));
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut trits = vec![0; ROWS * 8];
        let (digit, lane, k) = (3, 5, 6);
        trits[(digit * LANES + lane) * 8 + k] = 1;
        let mut tile = vec![0; bytes(8)];
        encode(&trits, 8, Code::SignedFix, &mut tile).unwrap();
        let at = (k / 4) * 64 + lane * 4 + k % 4;
        assert_eq!(Some(tile[at]), Code::SignedFix.store(121 + 27));
        assert_eq!(tile.iter().filter(|&&b| Some(b) != Code::SignedFix.store(121)).count(), 1);
    }

    #[test]
    fn a_byte_that_no_trits_encode_to_is_located() {
        let mut tile = vec![Code::SignedFix.store(121).unwrap(); bytes(4)];
        tile[9] = 0x80;
        for (trits, k, len) in [(4, 0, 64), (5, 4, 64), (81 * 4, 4, 64), (4, 4, 63), (0, usize::MAX, 64)] {
            let encoded = encode(&vec![0; trits], k, Code::SignedFix, &mut vec![0; len]);
            assert!(matches!(encoded, Err(TileError::Shape { .. })), "{trits} {k} {len}");
        }
        for k in [0, 3 * 4, 5, usize::MAX] {
            assert!(matches!(decode(&tile, k, Code::SignedFix), Err(TileError::Shape { .. })), "{k}");
        }
        assert_eq!(decode(&tile, 4, Code::SignedFix), Err(TileError::Byte(9)));
    }
}
