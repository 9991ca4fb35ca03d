//! Trits to the codes of a tile, fast: lane by lane, so that each row is read once and the rows of a byte stay in L1.

use super::{LANES, QUAD, VECTOR};
use crate::dense243::Code;
use crate::manifest::TileLayout;

/// Canonical byte of five zeros; `ZEROS + t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4` is that of five trits.
const ZEROS: i8 = 121;

/// Encodes tiles of one layout, with memory that is kept from tile to tile.
///
/// Groups of columns stand one after another, which is the layout of a tile whose columns are filled up to whole groups. So
/// this encodes tiles with and without groups; scales follow a tile's codes and are not written here.
#[derive(Clone, Debug)]
pub struct TileEncoder {
    k: usize,
    code: Code,
    /// The stored byte of each canonical byte. Entries from [`Code::values`] on are never looked up.
    stored: [u8; 256],
    /// The rows of one lane, `[digits, k]`.
    trits: Vec<i8>,
    /// The lane's bytes: `k`, filled up to whole quads or groups.
    lane: Vec<u8>,
}

impl TileEncoder {
    /// An encoder for tiles of `layout`.
    pub fn new(layout: TileLayout) -> TileEncoder {
        let (k, code) = (layout.k as usize, layout.code);
        TileEncoder {
            k,
            code,
            stored: std::array::from_fn(|byte| code.store(byte as u8).unwrap_or(0)),
            trits: vec![0; code.digits() * k],
            lane: vec![0; layout.code_bytes() as usize / LANES],
        }
    }

    /// Fills `codes`, the codes of one tile. `read_row` is asked once for each of the tile's [`Code::tile_rows`] rows and
    /// writes its `[k]` trits, each -1, 0 or 1; rows that fill up the tile are zeros. A code without zeros stores -1 for 0,
    /// so that the caller must know that no other weight is 0, or that its scale is.
    ///
    /// # Errors
    /// The first error of `read_row`; `codes` is then half written.
    ///
    /// # Panics
    /// If `codes` is not as long as the layout's codes of a tile.
    pub fn encode<E>(
        &mut self,
        mut read_row: impl FnMut(usize, &mut [i8]) -> Result<(), E>,
        codes: &mut [u8],
    ) -> Result<(), E> {
        assert_eq!(codes.len(), self.lane.len() * LANES);
        for lane in 0..LANES {
            for (digit, trits) in self.trits.chunks_exact_mut(self.k).enumerate() {
                read_row(digit * LANES + lane, trits)?;
            }
            self.encode_lane();
            for (vector, quad) in codes.chunks_exact_mut(VECTOR).zip(self.lane.chunks_exact(QUAD)) {
                vector[lane * QUAD..][..QUAD].copy_from_slice(quad);
            }
        }
        Ok(())
    }

    /// The stored bytes of one lane from its rows, the first least significant.
    fn encode_lane(&mut self) {
        let (k, stored) = (self.k, &self.stored);
        if let Code::Binary = self.code {
            self.lane.fill(0);
            for (digit, signs) in self.trits.chunks_exact(k).enumerate() {
                for (byte, &sign) in self.lane.iter_mut().zip(signs) {
                    *byte |= u8::from(sign > 0) << digit;
                }
            }
            return;
        }
        let [t0, t1, t2, t3, t4] = std::array::from_fn(|digit| &self.trits[digit * k..][..k]);
        let (out, padding) = self.lane.split_at_mut(k);
        for (i, byte) in out.iter_mut().enumerate() {
            // Wrapping: the sum is 0..=242, read as u8.
            let high = t4[i].wrapping_mul(81).wrapping_add(t3[i].wrapping_mul(27));
            let low = t2[i].wrapping_mul(9).wrapping_add(t1[i].wrapping_mul(3)).wrapping_add(t0[i]);
            *byte = ZEROS.wrapping_add(high).wrapping_add(low) as u8;
        }
        out.iter_mut().for_each(|byte| *byte = stored[usize::from(*byte)]);
        padding.fill(stored[ZEROS as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROWS, bytes, encode};
    use super::*;
    use crate::manifest::Grouping;
    use crate::plan::DType;
    use std::convert::Infallible;

    /// Rows of trits, the rest of the tile zeros.
    fn rows(trits: &[i8], k: usize) -> impl FnMut(usize, &mut [i8]) -> Result<(), Infallible> {
        move |row, out| {
            match trits.get(row * k..(row + 1) * k) {
                Some(trits) => out.copy_from_slice(trits),
                None => out.fill(0),
            }
            Ok(())
        }
    }

    #[test]
    fn the_fast_encoder_is_the_readable_one() {
        for (n, k) in [(1, 1), (80, 4), (79, 5), (16, 12), (80, 63)] {
            for code in Code::ALL {
                let trit = |i: usize| (i * 7 % 11 % 3) as i8 - 1;
                let weight = |i| if trit(i) == 0 && !code.has_zero() { 1 } else { trit(i) };
                let trits: Vec<i8> = (0..n * k).map(weight).collect();
                let (mut expected, mut found) = (vec![0; bytes(k)], vec![0; bytes(k)]);
                encode(&trits, k, code, &mut expected).unwrap();
                let layout = TileLayout { k: k as u32, grouping: None, code };
                let mut encoder = TileEncoder::new(layout);
                // Twice: nothing is left of an earlier tile.
                for _ in 0..2 {
                    encoder.encode(rows(&trits, k), &mut found).unwrap();
                    assert_eq!(found, expected, "{n} {k} {code:?}");
                }
            }
        }
    }

    #[test]
    fn groups_are_filled_up_with_zeros() {
        let k = 70;
        let trits: Vec<i8> = (0..ROWS * k).map(|i| (i * 5 % 13 % 3) as i8 - 1).collect();
        let grouping = Grouping { columns: 32, scale_columns: 32, scale: DType::F32 };
        let layout = TileLayout { k: k as u32, grouping: Some(grouping), code: Code::Spread };
        let mut found = vec![0; layout.code_bytes() as usize];
        TileEncoder::new(layout).encode(rows(&trits, k), &mut found).unwrap();
        for (g, codes) in found.chunks_exact(bytes(32)).enumerate() {
            let of_group: Vec<i8> = (0..ROWS * 32)
                .map(|i| (i / 32, g * 32 + i % 32))
                .map(|(row, col)| if col < k { trits[row * k + col] } else { 0 })
                .collect();
            let mut expected = vec![0; bytes(32)];
            encode(&of_group, 32, Code::Spread, &mut expected).unwrap();
            assert_eq!(codes, expected, "group {g}");
        }
    }
}
