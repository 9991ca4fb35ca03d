//! Trits to tiles: the weight section, made tile by tile on all threads.
//!
//! A packed matrix and its matrices enter, and its tiles leave in order through a sink, a bounded number at a time.
//! `trit_format::tile` says where a weight stands, and its `TileEncoder` puts it there; the scales of groups follow a
//! tile's codes.

pub(crate) mod planes;

use crate::error::CompileError;
use crate::model::{Scales, Ternary};
use half::{bf16, f16};
use rayon::prelude::*;
use trit_format::manifest::{Grouping, PackedMatrix, RowOrder};
use trit_format::plan::DType;
use trit_format::tile::{self, TileEncoder};

/// Bytes of tiles in memory at a time, unless one tile is larger.
const CHUNK_BYTES: usize = 16 << 20;

/// Packs `packed`, whose segments are `matrices`, and hands its tiles to `sink` in order.
///
/// # Errors
/// An illegal code in the checkpoint, always the first one by tile, and what `sink` gives.
pub(crate) fn pack(
    packed: &PackedMatrix,
    matrices: &[&Ternary],
    mut sink: impl FnMut(&[u8]) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let tiles = packed.tiles() as usize;
    let tile_bytes = packed.tile_bytes() as usize;
    let at_once = (CHUNK_BYTES / tile_bytes).clamp(1, tiles.max(1));
    let encoder = TileEncoder::new(packed.tile_layout());
    let mut buffer = vec![0; at_once * tile_bytes];
    for first in (0..tiles).step_by(at_once) {
        let chunk = &mut buffer[..at_once.min(tiles - first) * tile_bytes];
        let results: Vec<Result<(), CompileError>> = chunk
            .par_chunks_mut(tile_bytes)
            .enumerate()
            .map_init(
                || encoder.clone(),
                |encoder, (index, out)| pack_tile(packed, matrices, encoder, first + index, out),
            )
            .collect();
        results.into_iter().collect::<Result<(), CompileError>>()?;
        sink(chunk)?;
    }
    matrices.iter().for_each(|m| m.trits.release());
    Ok(())
}

/// Fills one tile.
fn pack_tile(
    packed: &PackedMatrix,
    matrices: &[&Ternary],
    encoder: &mut TileEncoder,
    tile: usize,
    out: &mut [u8],
) -> Result<(), CompileError> {
    let (codes, scales) = out.split_at_mut(packed.code_bytes() as usize);
    let read_row = |row: usize, trits: &mut [i8]| match source(packed, tile, row) {
        Some((segment, row)) => matrices[segment].trits.read_row(row, trits),
        None => {
            trits.fill(0);
            Ok(())
        }
    };
    let of_signs = |row: usize, trits: &mut [i8]| {
        read_row(row, trits)?;
        match source(packed, tile, row) {
            Some((segment, row)) => expect_signs(matrices[segment], row, trits),
            None => Ok(()),
        }
    };
    match packed.code.has_zero() {
        true => encoder.encode(read_row, codes)?,
        false => encoder.encode(of_signs, codes)?,
    }
    match packed.grouping {
        Some(grouping) => pack_scales(packed, grouping, matrices, tile, scales),
        None => Ok(()),
    }
}

/// Checks that no weight of a row is zero unless its scale is, which lowering found out. A zero would be stored as -1.
fn expect_signs(matrix: &Ternary, row: usize, trits: &[i8]) -> Result<(), CompileError> {
    if !trits.contains(&0) {
        return Ok(());
    }
    let columns = match matrix.scales {
        Scales::Rows { columns, .. } => columns,
        Scales::Tensor { .. } => 0,
    };
    let mut factors = vec![0.0; matrix.scales_per_row().max(1)];
    matrix.factors(row, columns, &mut factors)?;
    let run = if columns == 0 { matrix.k } else { columns as usize };
    for (index, (trits, &factor)) in trits.chunks(run).zip(&factors).enumerate() {
        if let (true, Some(at)) = (factor != 0.0, trits.iter().position(|&t| t == 0)) {
            let column = index * run + at;
            return Err(CompileError::Internal(format!(
                "{}: the weight at row {row}, column {column} is 0 in a matrix of signs",
                matrix.name
            )));
        }
    }
    Ok(())
}

/// Writes the scales of a tile, `[scales, tile_rows]`. Rows that fill it up have 0, and so has what fills up the tile.
fn pack_scales(
    packed: &PackedMatrix,
    grouping: Grouping,
    matrices: &[&Ternary],
    tile: usize,
    out: &mut [u8],
) -> Result<(), CompileError> {
    let size = grouping.scale.size();
    let mut factors = vec![0.0; packed.scales() as usize];
    out.fill(0);
    for row in 0..packed.code.tile_rows() {
        let Some((segment, at)) = source(packed, tile, row) else { continue };
        matrices[segment].factors(at, grouping.scale_columns, &mut factors)?;
        for (index, &factor) in factors.iter().enumerate() {
            let place = &mut out[tile::scale_at(packed.code, index, row) * size..][..size];
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

/// Which row of which segment stands in row `row` of tile `tile`; `None` for padding.
fn source(packed: &PackedMatrix, tile: usize, row: usize) -> Option<(usize, usize)> {
    let in_tile = packed.code.tile_rows();
    match packed.order {
        RowOrder::Sequential => {
            let mut rest = tile * in_tile + row;
            for (index, segment) in packed.segments.iter().enumerate() {
                if rest < segment.rows as usize {
                    return Some((index, rest));
                }
                rest -= segment.rows as usize;
            }
            None
        }
        RowOrder::Paired => {
            let half = in_tile / 2;
            let (index, row) = (row / half, tile * half + row % half);
            (row < packed.segments[index].rows as usize).then_some((index, row))
        }
        other => unreachable!("lowering makes no {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TernaryRows;
    use std::sync::Arc;
    use trit_format::dense243::Code;
    use trit_format::manifest::Segment;
    use trit_format::plan::ScaleRule;

    struct Plain(Vec<i8>, usize);

    impl TernaryRows for Plain {
        fn read_row(&self, row: usize, out: &mut [i8]) -> Result<(), CompileError> {
            out.copy_from_slice(&self.0[row * self.1..][..self.1]);
            Ok(())
        }
    }

    fn trits(rows: usize, k: usize, seed: usize, code: Code) -> Vec<i8> {
        let trit = |i: usize| ((i * 31 + i / k * 7 + seed * 5) % 17 % 3) as i8 - 1;
        (0..rows * k).map(trit).map(|t| if t == 0 && !code.has_zero() { 1 } else { t }).collect()
    }

    fn packed(
        sizes: &[usize],
        k: usize,
        code: Code,
        order: RowOrder,
    ) -> (PackedMatrix, Vec<Vec<i8>>, Vec<u8>) {
        let data: Vec<Vec<i8>> = sizes.iter().enumerate().map(|(i, &rows)| trits(rows, k, i, code)).collect();
        let matrix = |rows: &Vec<i8>| Ternary {
            rotation: None,
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
        let packed =
            PackedMatrix { name: "p".into(), k: k as u32, code, order, grouping: None, segments, offset: 0 };
        let mut bytes = Vec::new();
        let references: Vec<&Ternary> = matrices.iter().collect();
        pack(&packed, &references, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
        (packed, data, bytes)
    }

    #[test]
    fn sequential_matrices_are_the_readable_encoding_of_their_rows() {
        for (sizes, k) in [(vec![80], 4), (vec![5], 13), (vec![100, 30, 31], 66), (vec![1], 1)] {
            for code in Code::ALL {
                let (_, data, bytes) = packed(&sizes, k, code, RowOrder::Sequential);
                let all = data.concat();
                let expected: Vec<u8> = all
                    .chunks(code.tile_rows() * k)
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
    fn paired_matrices_put_forty_rows_of_each_matrix_in_a_tile() {
        let (rows, k) = (45, 10);
        let (packed, data, bytes) = packed(&[rows, rows], k, Code::SignedFix, RowOrder::Paired);
        assert_eq!(bytes.len() as u64, packed.bytes().unwrap());
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
