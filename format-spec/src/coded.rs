//! Rows of int8 codes: how a row of a table of type [`DType::I8Blocks`] is stored, and what its codes stand for.
//!
//! A row of `k` columns is cut into blocks of `columns`. It is, one after another: its codes i8 `[k]`, the scales of its
//! blocks f32 `[k / columns]`, where the type has offsets those of its blocks f32 `[k / columns]`, and zeros up to a multiple
//! of 64 bytes. So a row is read in one go, and a matrix of rows is one stream. A code stands for `scale * code`, or for
//! `scale * code + offset`; each operation is rounded to f32 once.

use crate::plan::DType;
use std::ops::Range;

/// Columns that a block may have. A vector holds sixteen f32, so that a vector never needs two scales.
pub const BLOCK_COLUMNS: [u32; 2] = [16, 32];

/// Rows start at multiples of this number of bytes, as tensors do.
const ALIGNMENT: u64 = 64;

/// Where the parts of a row stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowLayout {
    k: usize,
    columns: usize,
    offsets: bool,
}

impl RowLayout {
    /// The layout of rows of `k` columns. `None` where the type is not [`DType::I8Blocks`], its blocks have another number of
    /// columns than [`BLOCK_COLUMNS`], or rows are empty, no whole blocks, or larger than any memory.
    pub fn new(dtype: DType, k: u64) -> Option<RowLayout> {
        let DType::I8Blocks { columns, offsets } = dtype else { return None };
        row_bytes(columns, offsets, k)?;
        // The bytes of a row fit a usize, so these numbers do.
        Some(RowLayout { k: k as usize, columns: columns as usize, offsets })
    }

    /// Columns of a row.
    pub const fn k(self) -> usize {
        self.k
    }

    /// Columns of a block.
    pub const fn columns(self) -> usize {
        self.columns
    }

    /// Whether blocks have offsets.
    pub const fn has_offsets(self) -> bool {
        self.offsets
    }

    /// Blocks of a row.
    pub const fn blocks(self) -> usize {
        self.k / self.columns
    }

    /// The bytes of the codes within a row.
    pub const fn codes(self) -> Range<usize> {
        0..self.k
    }

    /// The bytes of the scales within a row.
    pub const fn scales(self) -> Range<usize> {
        self.k..self.k + 4 * self.blocks()
    }

    /// The bytes of the offsets within a row; empty where there are none.
    pub const fn offsets(self) -> Range<usize> {
        let start = self.scales().end;
        if self.offsets { start..start + 4 * self.blocks() } else { start..start }
    }

    /// Bytes of a row.
    pub const fn bytes(self) -> usize {
        self.offsets().end.next_multiple_of(ALIGNMENT as usize)
    }
}

/// Bytes of a row of `k` columns; `None` as in [`RowLayout::new`].
pub(crate) fn row_bytes(columns: u32, offsets: bool, k: u64) -> Option<u64> {
    if !BLOCK_COLUMNS.contains(&columns) || k == 0 || !k.is_multiple_of(columns.into()) {
        return None;
    }
    let floats = k / u64::from(columns) * if offsets { 2 } else { 1 };
    let bytes = floats.checked_mul(4)?.checked_add(k)?.checked_next_multiple_of(ALIGNMENT)?;
    usize::try_from(bytes).is_ok().then_some(bytes)
}

/// Writes one row. `codes` are `[k]`, `scales` and, where the type has offsets, `offsets` are `[blocks]`. `None` if a slice has
/// another length; nothing is written then.
pub fn encode_row(
    layout: RowLayout,
    codes: &[i8],
    scales: &[f32],
    offsets: &[f32],
    out: &mut [u8],
) -> Option<()> {
    let expected = [layout.k, layout.blocks(), layout.offsets().len() / 4, layout.bytes()];
    if [codes.len(), scales.len(), offsets.len(), out.len()] != expected {
        return None;
    }
    let (stored_codes, rest) = out.split_at_mut(layout.k);
    stored_codes.iter_mut().zip(codes).for_each(|(out, code)| *out = code.cast_unsigned());
    let floats = scales.iter().chain(offsets);
    let (places, _) = rest.as_chunks_mut::<4>();
    places.iter_mut().zip(floats).for_each(|(out, x)| *out = x.to_le_bytes());
    out[layout.offsets().end..].fill(0);
    Some(())
}

/// Writes what the codes of one row stand for, `[k]`. `None` if a slice has another length.
pub fn decode_row(layout: RowLayout, row: &[u8], out: &mut [f32]) -> Option<()> {
    if [row.len(), out.len()] != [layout.bytes(), layout.k] {
        return None;
    }
    let float = |part: Range<usize>, block: usize| {
        let bytes = row[part].as_chunks::<4>().0;
        bytes.get(block).map(|&bytes| f32::from_le_bytes(bytes))
    };
    let blocks = row[layout.codes()].chunks_exact(layout.columns).zip(out.chunks_exact_mut(layout.columns));
    for (block, (codes, out)) in blocks.enumerate() {
        let scale = float(layout.scales(), block)?;
        let offset = float(layout.offsets(), block);
        for (out, code) in out.iter_mut().zip(codes) {
            let x = scale * f32::from(code.cast_signed());
            *out = offset.map_or(x, |offset| x + offset);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(columns: u32, offsets: bool, k: u64) -> Option<RowLayout> {
        RowLayout::new(DType::I8Blocks { columns, offsets }, k)
    }

    #[test]
    fn a_row_is_codes_then_scales_then_offsets() {
        let row = layout(16, true, 48).unwrap();
        assert_eq!((row.codes(), row.scales(), row.offsets(), row.bytes()), (0..48, 48..60, 60..72, 128));
        let codes: Vec<i8> = (0..48).map(|i| (i * 5 - 128) as i8).collect();
        let (scales, offsets) = ([0.5, -2.0, 0.0], [1.0, 0.25, -3.0]);
        let mut bytes = vec![0xaa; 128];
        encode_row(row, &codes, &scales, &offsets, &mut bytes).unwrap();
        assert_eq!(bytes[..3], [0x80, 0x85, 0x8a]);
        assert_eq!(bytes[48..52], 0.5f32.to_le_bytes());
        assert_eq!(bytes[64..68], 0.25f32.to_le_bytes());
        assert!(bytes[72..].iter().all(|&byte| byte == 0));
        let mut values = vec![0.0; 48];
        decode_row(row, &bytes, &mut values).unwrap();
        for (i, value) in values.iter().enumerate() {
            assert_eq!(*value, scales[i / 16] * f32::from(codes[i]) + offsets[i / 16]);
        }
    }

    #[test]
    fn rows_without_offsets_are_shorter() {
        for (columns, k, bytes) in
            [(16, 4096, 4096 + 1024), (32, 4096, 4096 + 512), (32, 96, 128), (16, 16, 64)]
        {
            let row = layout(columns, false, k).unwrap();
            assert_eq!((row.bytes(), row.offsets().len()), (bytes, 0));
        }
        let row = layout(32, false, 32).unwrap();
        let mut bytes = [0; 64];
        encode_row(row, &[-3; 32], &[0.75], &[], &mut bytes).unwrap();
        let mut values = [0.0; 32];
        decode_row(row, &bytes, &mut values).unwrap();
        assert_eq!(values, [-2.25; 32]);
    }

    #[test]
    fn other_lengths_are_refused() {
        let row = layout(16, false, 32).unwrap();
        let mut bytes = [0xaa; 64];
        assert_eq!(encode_row(row, &[0; 16], &[1.0; 2], &[], &mut bytes), None);
        assert_eq!(encode_row(row, &[0; 32], &[1.0; 2], &[1.0; 2], &mut bytes), None);
        assert_eq!(bytes, [0xaa; 64]);
        assert_eq!(decode_row(row, &bytes, &mut [0.0; 31]), None);
        for (columns, k) in [(0, 32), (8, 32), (64, 64), (16, 0), (16, 24), (32, 48), (16, u64::MAX - 15)] {
            assert_eq!(layout(columns, true, k), None, "{columns} {k}");
        }
        assert_eq!(RowLayout::new(DType::I8, 32), None);
    }
}
