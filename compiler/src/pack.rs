//! Trits to tiles: the weight section, made tile by tile on all threads.
//!
//! A product and its matrices enter, the product's tiles leave in order through a sink, a bounded number at a time.
//! `trit_format::tile` says where a weight stands; here it gets there fast. The groups of a grouped product stand one
//! after another, which is the layout of a tile whose columns are filled up to whole groups; their scales follow.

pub(crate) mod planes;

use crate::error::CompileError;
use crate::model::Ternary;
use half::{bf16, f16};
use rayon::prelude::*;
use trit_format::dense243::{Code, TRITS};
use trit_format::manifest::{Grouping, Product, RowOrder};
use trit_format::plan::DType;
use trit_format::tile;

/// Bytes of tiles in memory at a time, unless one tile is larger.
const CHUNK_BYTES: usize = 16 << 20;

/// Canonical byte of five zeros; `ZEROS + t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4` is that of five trits.
const ZEROS: i8 = 121;

/// Packs `product`, whose segments are `matrices`, and hands its tiles to `sink` in order.
///
/// # Errors
/// An illegal code in the checkpoint, always the first one by tile, and what `sink` gives.
pub(crate) fn pack(
    product: &Product,
    matrices: &[&Ternary],
    mut sink: impl FnMut(&[u8]) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let k = product.k as usize;
    let tiles = product.tiles() as usize;
    let tile_bytes = product.tile_bytes() as usize;
    let lane_bytes = product.code_bytes() as usize / tile::LANES;
    let at_once = (CHUNK_BYTES / tile_bytes).clamp(1, tiles.max(1));
    let stored = stored_bytes(product.code);
    let mut buffer = vec![0; at_once * tile_bytes];
    for first in (0..tiles).step_by(at_once) {
        let chunk = &mut buffer[..at_once.min(tiles - first) * tile_bytes];
        let results: Vec<Result<(), CompileError>> = chunk
            .par_chunks_mut(tile_bytes)
            .enumerate()
            .map_init(
                || Rows { trits: vec![0; TRITS * k], bytes: vec![0; lane_bytes] },
                |rows, (index, out)| pack_tile(product, matrices, &stored, first + index, rows, out),
            )
            .collect();
        results.into_iter().collect::<Result<(), CompileError>>()?;
        sink(chunk)?;
    }
    matrices.iter().for_each(|m| m.trits.release());
    Ok(())
}

/// One thread's memory.
struct Rows {
    /// The five rows of one lane, `[5, k]`.
    trits: Vec<i8>,
    /// The lane's bytes: `k`, filled up to whole quads or groups.
    bytes: Vec<u8>,
}

/// Fills one tile, lane by lane: each of its 80 rows is read once, and five rows at a time stay in L1.
fn pack_tile(
    product: &Product,
    matrices: &[&Ternary],
    stored: &[u8; 256],
    tile: usize,
    rows: &mut Rows,
    out: &mut [u8],
) -> Result<(), CompileError> {
    let k = product.k as usize;
    let (codes, scales) = out.split_at_mut(product.code_bytes() as usize);
    for lane in 0..tile::LANES {
        for (digit, trits) in rows.trits.chunks_exact_mut(k).enumerate() {
            match source(product, tile, digit * tile::LANES + lane) {
                Some((segment, row)) => matrices[segment].trits.read_row(row, trits)?,
                None => trits.fill(0),
            }
        }
        encode_lane(&rows.trits, k, stored, &mut rows.bytes);
        for (vector, quad) in codes.chunks_exact_mut(tile::VECTOR).zip(rows.bytes.chunks_exact(tile::QUAD)) {
            vector[lane * tile::QUAD..][..tile::QUAD].copy_from_slice(quad);
        }
    }
    match product.grouping {
        Some(grouping) => pack_scales(product, grouping, matrices, tile, scales),
        None => Ok(()),
    }
}

/// Writes the scales of a tile, `[scales, 80]`. Rows that fill it up have 0, and so has what fills up the tile.
fn pack_scales(
    product: &Product,
    grouping: Grouping,
    matrices: &[&Ternary],
    tile: usize,
    out: &mut [u8],
) -> Result<(), CompileError> {
    let size = grouping.scale.size();
    let mut factors = vec![0.0; product.scales() as usize];
    out.fill(0);
    for row in 0..tile::ROWS {
        let Some((segment, at)) = source(product, tile, row) else { continue };
        matrices[segment].factors(at, grouping.scale_columns, &mut factors)?;
        for (index, &factor) in factors.iter().enumerate() {
            let place = &mut out[(index * tile::ROWS + row) * size..][..size];
            if !store(factor, grouping.scale, place) {
                return Err(CompileError::Internal(format!(
                    "{}: the scale {factor} of row {at} is not exact as {:?}",
                    matrices[segment].name, grouping.scale
                )));
            }
        }
    }
    Ok(())
}

/// Stores a scale, and says whether that was exact.
fn store(x: f32, dtype: DType, out: &mut [u8]) -> bool {
    match dtype {
        DType::F32 => {
            out.copy_from_slice(&x.to_le_bytes());
            true
        }
        DType::F16 => {
            out.copy_from_slice(&f16::from_f32(x).to_le_bytes());
            f16::from_f32(x).to_f32() == x
        }
        DType::Bf16 => {
            out.copy_from_slice(&bf16::from_f32(x).to_le_bytes());
            bf16::from_f32(x).to_f32() == x
        }
        _ => false,
    }
}

/// The stored bytes of one lane: `trits` is `[5, k]`, least significant digit first; `out` is `k` filled up.
fn encode_lane(trits: &[i8], k: usize, stored: &[u8; 256], out: &mut [u8]) {
    let [t0, t1, t2, t3, t4] = std::array::from_fn(|digit| &trits[digit * k..][..k]);
    let (out, padding) = out.split_at_mut(k);
    for (i, byte) in out.iter_mut().enumerate() {
        // Wrapping: the sum is 0..=242, read as u8.
        let high = t4[i].wrapping_mul(81).wrapping_add(t3[i].wrapping_mul(27));
        let low = t2[i].wrapping_mul(9).wrapping_add(t1[i].wrapping_mul(3)).wrapping_add(t0[i]);
        *byte = ZEROS.wrapping_add(high).wrapping_add(low) as u8;
    }
    out.iter_mut().for_each(|byte| *byte = stored[usize::from(*byte)]);
    padding.fill(stored[ZEROS as usize]);
}

/// The stored byte of each canonical byte. Entries from 243 on are never looked up.
fn stored_bytes(code: Code) -> [u8; 256] {
    std::array::from_fn(|byte| code.store(byte as u8).unwrap_or(0))
}

/// Which row of which segment stands in row `row` of tile `tile`; `None` for padding.
fn source(product: &Product, tile: usize, row: usize) -> Option<(usize, usize)> {
    match product.order {
        RowOrder::Sequential => {
            let mut rest = tile * tile::ROWS + row;
            for (index, segment) in product.segments.iter().enumerate() {
                if rest < segment.rows as usize {
                    return Some((index, rest));
                }
                rest -= segment.rows as usize;
            }
            None
        }
        RowOrder::Paired => {
            const HALF: usize = tile::ROWS / 2;
            let (index, row) = (row / HALF, tile * HALF + row % HALF);
            (row < product.segments[index].rows as usize).then_some((index, row))
        }
        other => unreachable!("lowering makes no {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scales, TernaryRows};
    use std::sync::Arc;
    use trit_format::manifest::Segment;
    use trit_format::plan::ScaleRule;

    struct Plain(Vec<i8>, usize);

    impl TernaryRows for Plain {
        fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
            out.copy_from_slice(&self.0[row * self.1..][..self.1]);
            Ok(())
        }
    }

    fn trits(rows: usize, k: usize, seed: usize) -> Vec<i8> {
        (0..rows * k).map(|i| ((i * 31 + i / k * 7 + seed * 5) % 17 % 3) as i8 - 1).collect()
    }

    fn packed(sizes: &[usize], k: usize, code: Code, order: RowOrder) -> (Product, Vec<Vec<i8>>, Vec<u8>) {
        let data: Vec<Vec<i8>> = sizes.iter().enumerate().map(|(i, &rows)| trits(rows, k, i)).collect();
        let matrix = |rows: &Vec<i8>| Ternary {
            name: "m".into(),
            rows: rows.len() / k,
            k,
            scales: Scales::Tensor { scale: 1.0, rule: ScaleRule::Multiply },
            trits: Arc::new(Plain(rows.clone(), k)),
        };
        let matrices: Vec<Ternary> = data.iter().map(matrix).collect();
        let segment = |&rows: &usize| Segment {
            name: "m".into(),
            rows: rows as u32,
            scale: 1.0,
            rule: ScaleRule::Multiply,
        };
        let segments = sizes.iter().map(segment).collect();
        let product =
            Product { name: "p".into(), k: k as u32, code, order, grouping: None, segments, offset: 0 };
        let mut bytes = Vec::new();
        let references: Vec<&Ternary> = matrices.iter().collect();
        pack(&product, &references, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
        (product, data, bytes)
    }

    #[test]
    fn sequential_products_are_the_readable_encoding_of_their_rows() {
        for (sizes, k) in [(vec![80], 4), (vec![5], 13), (vec![100, 30, 31], 66), (vec![1], 1)] {
            for code in Code::ALL {
                let (_, data, bytes) = packed(&sizes, k, code, RowOrder::Sequential);
                let all = data.concat();
                let expected: Vec<u8> = all
                    .chunks(tile::ROWS * k)
                    .flat_map(|rows| {
                        let mut tile = vec![0; tile::bytes(k)];
                        tile::encode(rows, k, code, &mut tile).unwrap();
                        tile
                    })
                    .collect();
                assert_eq!(bytes, expected, "{sizes:?} {k} {code:?}");
            }
        }
    }

    #[test]
    fn paired_products_put_forty_rows_of_each_matrix_in_a_tile() {
        let (rows, k) = (45, 10);
        let (product, data, bytes) = packed(&[rows, rows], k, Code::SignedFix, RowOrder::Paired);
        assert_eq!(bytes.len() as u64, product.bytes().unwrap());
        for (t, tile) in bytes.chunks(tile::bytes(k)).enumerate() {
            let decoded = tile::decode(tile, k, Code::SignedFix).unwrap();
            for (row, found) in decoded.chunks(k).enumerate() {
                let (half, at) = (row / 40, t * 40 + row % 40);
                let expected = if at < rows { data[half][at * k..][..k].to_vec() } else { vec![0; k] };
                assert_eq!(found, expected, "tile {t} row {row}");
            }
        }
    }
}
