//! Tables of mlx-lm's codes of 3, 4, 5, 6 and 8 bits, `w = scale * code + bias` with a scale and a bias for each group of
//! columns: embeddings and heads beside ternary linears.
//!
//! Codes of a row stand one after the other in its bits, the first in the lowest bits of the first byte, so that codes of 3, 5
//! and 6 bits go on from one byte to the next. A weight is the f32 product of scale and code, rounded, plus the bias, rounded
//! once more; with scales of 16 bits the product is exact. (MLX itself computes in the type of the scales.)
//!
//! A bundle keeps such a table as int8 codes in blocks of 32 columns, with scale and offset. Codes of up to 7 bits go there as
//! they are. Those of 8 bits lose 128, which the offset gains. Where that changes the bits of any weight (with scales of
//! f32, or a bias far below 128 scales, which mlx-lm does not choose), the table is written out as F32 instead.

use crate::checkpoint::{Affine, ElementType, RawTensor};
use crate::error::CompileError;
use crate::files::mapped::MappedFile;
use crate::model::float::FloatType;
use crate::model::{Dense, RowCoder};
use crate::weights::affine;
use crate::weights::dense::{not_finite_at, place};
use rayon::prelude::*;
use std::io::Write;
use std::sync::Arc;
use trit_format::coded::{self, RowLayout};
use trit_format::plan::DType;

/// The bits that a code may have.
pub(crate) const BITS: [u8; 5] = [3, 4, 5, 6, 8];

/// Columns of a block in a bundle. They divide every group size of mlx-lm.
const COLUMNS: usize = 32;

/// How a bundle keeps such a table.
const DTYPE: DType = DType::I8Blocks { columns: COLUMNS as u32, offsets: true };

/// Rows that are written out or looked at in one go.
const ROWS: usize = 1 << 8;

/// Whether a tensor is such a table.
pub(crate) fn is_one(tensor: &RawTensor) -> bool {
    matches!(tensor.dtype, ElementType::Codes(bits) if BITS.contains(&bits))
}

/// The matrix in such a table, `shape` as `what` says.
///
/// # Errors
/// Another shape, or an element that is not finite.
pub(super) fn dense(tensor: RawTensor, shape: &[usize], what: &str) -> Result<Dense, CompileError> {
    tensor.expect_shape(shape, what)?;
    let coder = Coder::new(&tensor)?;
    let keeps = coder.look(&tensor)?;
    let (name, shape) = (tensor.name.clone(), shape.to_vec());
    if !keeps {
        let data = Arc::new(coder.written_out(&tensor)?.whole());
        return Ok(Dense { name, dtype: DType::F32, shape, data, coder: None });
    }
    let data = Arc::new(tensor.bytes);
    Ok(Dense { name, dtype: DTYPE, shape, data, coder: Some(Arc::new(coder)) })
}

/// Reads rows of such codes.
struct Coder {
    bits: u8,
    affine: Arc<Affine>,
    /// Type of scales and biases.
    float: FloatType,
    k: usize,
}

impl Coder {
    /// # Errors
    /// [`CompileError::Internal`] where codes, scales and biases do not go together, which reading them has checked.
    fn new(tensor: &RawTensor) -> Result<Coder, CompileError> {
        let coder = || {
            let (ElementType::Codes(bits), Some(affine)) = (tensor.dtype, &tensor.affine) else {
                return None;
            };
            let &[rows, k] = tensor.shape.as_slice() else { return None };
            let float = affine.scales.dtype.float()?;
            let coder = Coder { bits, affine: affine.clone(), float, k };
            let floats = rows.checked_mul(coder.float_bytes()?)?;
            let lens = [&tensor.bytes, &affine.scales.bytes, &affine.biases.bytes].map(|b| b.as_ref().len());
            let whole = k > 0 && affine.group.is_multiple_of(COLUMNS);
            (whole && [rows.checked_mul(coder.stored_bytes(k)?)?, floats, floats] == lens).then_some(coder)
        };
        coder().ok_or_else(|| {
            CompileError::Internal(format!(
                "tensor {} has codes, scales and biases of other sizes",
                tensor.name
            ))
        })
    }

    /// Bytes of the scales of a row; `None` where it is no whole groups.
    fn float_bytes(&self) -> Option<usize> {
        let whole = self.k.is_multiple_of(self.affine.group.max(1));
        whole.then_some(self.k / self.affine.group.max(1) * self.float.dtype().size())
    }

    /// The floats of row `row` of scales or biases, for each group.
    fn floats<'a>(&self, tensor: &'a RawTensor, row: usize) -> impl Iterator<Item = f32> + 'a {
        let len = self.float_bytes().unwrap_or(0);
        // `new` has checked that there are such rows.
        affine::floats(self.float, &tensor.bytes.as_ref()[row * len..][..len])
    }

    /// Whether all weights have the same bits as a bundle keeps them.
    ///
    /// # Errors
    /// An element that is not finite.
    fn look(&self, tensor: &RawTensor) -> Result<bool, CompileError> {
        let len = self.stored_bytes(self.k).unwrap_or(1).max(1);
        let layout = RowLayout::new(DTYPE, self.k as u64);
        let (mut first, mut keeps) = (0, layout.is_some());
        for batch in tensor.bytes.batches(len) {
            let one = |(nth, stored): (usize, &[u8])| {
                let (row, mut values) = (first + nth, vec![0.0; self.k]);
                self.decode(row, stored, &mut values);
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err((row * self.k + at, values[at]));
                }
                // Smaller codes are computed with as they are.
                let Some(layout) = layout.filter(|_| self.bits == 8) else { return Ok(true) };
                let (mut kept, mut again) = (vec![0; layout.bytes()], vec![0.0; self.k]);
                self.encode(row, stored, layout, &mut kept);
                let read = coded::decode_row(layout, &kept, &mut again);
                Ok(read.is_some() && values.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()))
            };
            let found: Result<Vec<bool>, (usize, f32)> = batch.par_chunks(len).enumerate().map(one).collect();
            let found = found.map_err(|(at, x)| not_finite_at(tensor, x, &place(at, &tensor.shape)))?;
            keeps &= found.iter().all(|&same| same);
            first += batch.len() / len;
        }
        Ok(keeps)
    }

    /// All weights as F32, in a mapped temporary file without a name.
    fn written_out(&self, tensor: &RawTensor) -> Result<Arc<MappedFile>, CompileError> {
        let len = self.stored_bytes(self.k).unwrap_or(1).max(1);
        MappedFile::temporary(tensor.bytes.path(), |out| {
            let (mut values, mut row) = (vec![0.0f32; self.k], 0);
            for stored in tensor.bytes.as_ref().chunks(ROWS * len) {
                for stored in stored.chunks_exact(len) {
                    self.decode(row, stored, &mut values);
                    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
                    row += 1;
                }
                tensor.bytes.release();
            }
            Ok(())
        })
    }
}

/// Writes the codes of a row, `bits` of each.
fn unpack(bits: u8, stored: &[u8], out: &mut [u8]) {
    let mask = u8::MAX >> (8 - bits);
    let at = |byte: usize| u16::from(stored.get(byte).copied().unwrap_or(0));
    for (i, code) in out.iter_mut().enumerate() {
        let bit = i * usize::from(bits);
        *code = ((at(bit / 8) | at(bit / 8 + 1) << 8) >> (bit % 8)) as u8 & mask;
    }
}

impl RowCoder for Coder {
    fn stored_bytes(&self, k: usize) -> Option<usize> {
        let bits = k.checked_mul(usize::from(self.bits))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn decode(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        let mut codes = vec![0; out.len()];
        unpack(self.bits, stored, &mut codes);
        let floats = self.floats(&self.affine.scales, row).zip(self.floats(&self.affine.biases, row));
        let groups = out.chunks_mut(self.affine.group).zip(codes.chunks(self.affine.group));
        for ((out, codes), (scale, bias)) in groups.zip(floats) {
            out.iter_mut().zip(codes).for_each(|(out, &code)| *out = scale * f32::from(code) + bias);
        }
    }

    fn encode(&self, row: usize, stored: &[u8], layout: RowLayout, out: &mut [u8]) {
        let mut codes = vec![0; layout.k()];
        unpack(self.bits, stored, &mut codes);
        let shift = if self.bits == 8 { 128 } else { 0 };
        let codes: Vec<i8> =
            codes.into_iter().map(|code: u8| code.wrapping_sub(shift).cast_signed()).collect();
        let blocks = self.affine.group / COLUMNS;
        let repeated = |floats: Vec<f32>| -> Vec<f32> {
            floats.into_iter().flat_map(|x| std::iter::repeat_n(x, blocks)).collect()
        };
        let scales: Vec<f32> = self.floats(&self.affine.scales, row).collect();
        let biases = self.floats(&self.affine.biases, row).zip(&scales);
        let offsets = biases.map(|(bias, scale)| bias + scale * f32::from(shift)).collect();
        let written = coded::encode_row(layout, &codes, &repeated(scales), &repeated(offsets), out);
        // `layout` is that of `DTYPE`, and rows are as long as `stored_bytes` says.
        written.expect("a row of the type's own layout");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What `mx.quantize` of mlx 0.32.4 makes of 32 numbers: words, and the codes that `mx.dequantize` finds in them.
    const PACKED: [(u8, &[u32], [u8; 32]); 5] = [
        (
            3,
            &[0xa4f5c735, 0x9462d5dd, 0x8ad82dca],
            [5, 6, 4, 3, 4, 3, 5, 7, 4, 4, 6, 6, 5, 3, 5, 6, 2, 4, 1, 2, 1, 5, 2, 6, 5, 5, 0, 4, 5, 5, 2, 4],
        ),
        (
            4,
            &[0x8a48b4bc, 0x85e38d88, 0x5968d50b, 0xd7a7b258],
            [
                12, 11, 4, 11, 8, 4, 10, 8, 8, 8, 13, 8, 3, 14, 5, 8, 11, 0, 5, 13, 8, 6, 9, 5, 8, 5, 2, 11,
                7, 10, 7, 13,
            ],
        ),
        (
            5,
            &[0x166e6a0d, 0xfc762e06, 0xd5eefc1e, 0x1d749108, 0xbcb8fc4b],
            [
                13, 16, 26, 28, 6, 11, 24, 0, 14, 17, 29, 24, 15, 15, 16, 31, 14, 15, 21, 17, 16, 8, 18, 14,
                29, 24, 18, 24, 15, 28, 18, 23,
            ],
        ),
        (
            6,
            &[0x64f786f2, 0xda6c01eb, 0x6568e365, 0x1cbdf86f, 0x2a1f752b, 0x53e6f0f2],
            [
                50, 27, 56, 61, 36, 45, 30, 0, 44, 41, 29, 25, 35, 35, 22, 25, 47, 33, 31, 47, 28, 44, 18,
                29, 31, 40, 34, 60, 48, 27, 62, 20,
            ],
        ),
        (
            8,
            &[0xbd44bc00, 0xefe1108d, 0x3a776e7e, 0x477f5ad5, 0x77e12354, 0x6a4f84cb, 0x6c678459, 0x51ff461c],
            [
                0, 188, 68, 189, 141, 16, 225, 239, 126, 110, 119, 58, 213, 90, 127, 71, 84, 35, 225, 119,
                203, 132, 79, 106, 89, 132, 103, 108, 28, 70, 255, 81,
            ],
        ),
    ];

    #[test]
    fn codes_stand_where_mlx_puts_them() {
        for (bits, words, codes) in PACKED {
            let stored: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut found = [0xaa; 32];
            unpack(bits, &stored, &mut found);
            assert_eq!(found, codes, "{bits} bits");
        }
        assert!(BITS.iter().eq(PACKED.iter().map(|(bits, ..)| bits)));
    }

    const K: usize = 384;
    const ROWS_TRIED: usize = 5;

    fn tensor(name: &str, dtype: ElementType, columns: usize, bytes: &[u8]) -> RawTensor {
        let file = MappedFile::temporary(Path::new("test"), |out| out.write_all(bytes)).unwrap();
        RawTensor {
            name: name.to_owned(),
            dtype,
            shape: vec![ROWS_TRIED, columns],
            bytes: file.whole(),
            interleaved_heads: None,
            tiled_heads: None,
            affine: None,
            tolerance: None,
        }
    }

    /// Rows as a bundle has them stand for the bits that are read from the files, in every packing.
    #[test]
    fn rows_of_a_bundle_stand_for_the_bits_of_the_codes() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u32
        };
        for (bits, group) in BITS.into_iter().flat_map(|bits| [32, 64, 128].map(|group| (bits, group))) {
            for dtype in [ElementType::F16, ElementType::Bf16, ElementType::F32] {
                // Over a factor of 168, of either sign; codes of 8 bits with scales of f32 are the case that is not kept.
                let mut floats = |least: f32| {
                    let one = |random: u32| {
                        least * (1.0 + random as f32 / 1e5) * if random & 1 == 0 { 1.0 } else { -1.0 }
                    };
                    let all = (0..ROWS_TRIED * K / group).map(|_| one(random()));
                    let bytes = |x: f32| match dtype {
                        ElementType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
                        ElementType::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
                        _ => x.to_le_bytes().to_vec(),
                    };
                    all.flat_map(bytes).collect::<Vec<u8>>()
                };
                let (scales, biases) = (floats(0.002), floats(0.3));
                let [scales, biases] =
                    [scales, biases].map(|bytes| tensor("floats", dtype, K / group, &bytes));
                let codes: Vec<u8> =
                    (0..ROWS_TRIED * K * usize::from(bits) / 8).map(|_| random() as u8).collect();
                let affine = Some(Arc::new(Affine { group, scales, biases }));
                let whole = RawTensor { affine, ..tensor("codes", ElementType::Codes(bits), K, &codes) };
                let coder = Coder::new(&whole).unwrap();
                let wide = bits == 8 && dtype == ElementType::F32;
                assert_eq!(coder.look(&whole).unwrap(), !wide, "{bits} bits, groups of {group}, {dtype}");
                let layout = RowLayout::new(DTYPE, K as u64).unwrap();
                let len = coder.stored_bytes(K).unwrap();
                for row in (0..ROWS_TRIED).filter(|_| !wide) {
                    let stored = &codes[row * len..][..len];
                    let (mut expected, mut found) = ([0.0; K], [0.0; K]);
                    coder.decode(row, stored, &mut expected);
                    let mut kept = vec![0xaa; layout.bytes()];
                    coder.encode(row, stored, layout, &mut kept);
                    coded::decode_row(layout, &kept, &mut found).unwrap();
                    assert_eq!(expected.map(f32::to_bits), found.map(f32::to_bits), "{bits} bits, row {row}");
                }
                // Too few bytes of any part are no table.
                let short = RawTensor { shape: vec![ROWS_TRIED + 1, K], ..whole };
                assert!(Coder::new(&short).is_err());
            }
        }
    }
}
