//! Ternary matrices become tiles.

use crate::error::CompileError;
use crate::lower::LoweredProduct;
use rayon::prelude::*;
use std::sync::LazyLock;
use trit_format::dense243::{self, Code};
use trit_format::manifest::RowOrder;
use trit_format::tile::{self, LANES, QUAD, ROWS, VECTOR};

/// Tiles encoded between two writes: bounds memory to a few megabytes whatever the matrix.
const TILES_PER_WRITE: usize = 32;

/// Encodes every tile of a product, in parallel, and hands the bytes to `write` in order.
///
/// # Errors
/// What reading a row or `write` gives.
pub fn pack(
    product: &LoweredProduct,
    write: &mut dyn FnMut(&[u8]) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let k = product.record.k as usize;
    let tiles = product.record.tiles() as usize;
    let mut buffer = vec![0; TILES_PER_WRITE.min(tiles) * tile::bytes(k)];
    for first in (0..tiles).step_by(TILES_PER_WRITE) {
        let count = TILES_PER_WRITE.min(tiles - first);
        let bytes = &mut buffer[..count * tile::bytes(k)];
        bytes.par_chunks_exact_mut(tile::bytes(k)).enumerate().try_for_each_init(
            || vec![0i8; ROWS * k],
            |trits, (i, out)| {
                read_tile(product, first + i, trits)?;
                encode(trits, k, product.record.code, out);
                Ok::<(), CompileError>(())
            },
        )?;
        write(bytes)?;
    }
    Ok(())
}

/// The 80 rows of a tile, `[80, k]`, zero where there is no row.
fn read_tile(product: &LoweredProduct, tile: usize, trits: &mut [i8]) -> Result<(), CompileError> {
    let k = product.record.k as usize;
    for (i, out) in trits.chunks_exact_mut(k).enumerate() {
        let (matrix, row) = match product.record.order {
            RowOrder::Paired => {
                let half = ROWS / 2;
                (Some(&product.matrices[i / half]), tile * half + i % half)
            }
            _ => {
                let mut row = tile * ROWS + i;
                let matrix = product.matrices.iter().find(|m| {
                    let here = row < m.rows;
                    row -= if here { 0 } else { m.rows };
                    here
                });
                (matrix, row)
            }
        };
        match matrix.filter(|m| row < m.rows) {
            Some(matrix) => matrix.trits.read_row(row, out)?,
            None => out.fill(0),
        }
    }
    Ok(())
}

/// The fast twin of [`tile::encode`] for whole tiles: five passes over the rows, each adding one digit's weight.
fn encode(trits: &[i8], k: usize, code: Code, out: &mut [u8]) {
    static STORED: LazyLock<[[u8; 256]; 2]> = LazyLock::new(|| {
        [Code::SignedFix, Code::Spread].map(|c| std::array::from_fn(|b| if b < dense243::VALUES { c.store(b as u8) } else { 0 }))
    });
    out.fill(0);
    let mut weight = 1u8;
    for digit in 0..dense243::TRITS {
        for lane in 0..LANES {
            let row = &trits[(digit * LANES + lane) * k..][..k];
            for (quad, vector) in row.chunks(QUAD).zip(out.chunks_exact_mut(VECTOR)) {
                let bytes = &mut vector[lane * QUAD..(lane + 1) * QUAD];
                for (c, byte) in bytes.iter_mut().enumerate() {
                    let trit = quad.get(c).copied().unwrap_or(0);
                    *byte += (trit + 1) as u8 * weight;
                }
            }
        }
        weight = weight.wrapping_mul(3);
    }
    let table = &STORED[usize::from(code == Code::Spread)];
    out.iter_mut().for_each(|b| *b = table[usize::from(*b)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_encoder_equals_the_readable_one() {
        for k in [1, 4, 5, 12, 63, 384] {
            let trits: Vec<i8> = (0..ROWS * k).map(|i| ((i * 2_654_435_761) >> 7) as u8 % 3).map(|t| t as i8 - 1).collect();
            for code in Code::ALL {
                let (mut fast, mut readable) = (vec![0; tile::bytes(k)], vec![0; tile::bytes(k)]);
                encode(&trits, k, code, &mut fast);
                tile::encode(&trits, k, code, &mut readable);
                assert_eq!(fast, readable);
            }
        }
    }
}
