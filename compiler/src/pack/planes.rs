//! Makes the planes section from a head's table, row by row on all threads.
//!
//! A table enters; the four arrays of its planes leave in order through a sink. Memory is bounded: the low plane is
//! encoded in a second pass over the table, not kept during the first. `trit_format::planes` says what a row becomes.

use crate::error::CompileError;
use rayon::prelude::*;
use trit_format::planes::{Layout, ROW_BYTES, encode_row};

/// Bytes of a plane in memory at a time.
const CHUNK_BYTES: usize = 16 << 20;
/// The least rows, and below the least columns, for which planes are worth their bytes. For smaller tables, selecting
/// rows costs as much as reading less saves.
const LEAST_ROWS: u64 = 1024;
/// See [`LEAST_ROWS`].
const LEAST_HIDDEN: u64 = 256;

/// The layout of the planes of a head table of that shape, where it gets some.
pub(crate) fn layout(shape: &[u64]) -> Option<Layout> {
    let &[rows, hidden] = shape else { return None };
    Layout::new(rows, hidden).filter(|_| rows >= LEAST_ROWS && hidden >= LEAST_HIDDEN)
}

/// Encodes a table, of which `read_row` writes the values of a row, and hands the bytes of its planes to `sink` in order,
/// `layout.bytes()` in all.
///
/// # Errors
/// What `sink` gives.
pub(crate) fn encode(
    read_row: impl Fn(usize, &mut [f32]) + Sync,
    layout: Layout,
    mut sink: impl FnMut(&[u8]) -> Result<(), CompileError>,
) -> Result<(), CompileError> {
    let (rows, row_bytes) = (layout.rows(), layout.plane_row_bytes());
    let at_once = (CHUNK_BYTES / row_bytes).clamp(1, rows);
    let mut scales = vec![0; rows * layout.blocks()];
    let mut records = vec![0; rows * ROW_BYTES];
    let mut plane = vec![0; at_once * row_bytes];
    for low in [false, true] {
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let plane = &mut plane[..count * row_bytes];
            let scales = &mut scales[first * layout.blocks()..][..count * layout.blocks()];
            let records = &mut records[first * ROW_BYTES..][..count * ROW_BYTES];
            let outputs = (plane.par_chunks_exact_mut(row_bytes))
                .zip(scales.par_chunks_exact_mut(layout.blocks()))
                .zip(records.par_chunks_exact_mut(ROW_BYTES));
            outputs.enumerate().for_each_init(
                || (vec![0f32; layout.hidden()], vec![0; row_bytes]),
                |(weights, other), (i, ((plane, scales), record))| {
                    read_row(first + i, weights);
                    let (high, low) = if low { (&mut other[..], plane) } else { (plane, &mut other[..]) };
                    let row = encode_row(layout, weights, high, low, scales);
                    let row = row.expect("slices of the layout's own lengths");
                    record.copy_from_slice(&row.to_bytes());
                },
            );
            sink(plane)?;
        }
    }
    sink(&scales)?;
    sink(&vec![0; (layout.records().start - layout.scales().end) as usize])?;
    sink(&records)
}
