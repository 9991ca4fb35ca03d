//! The embedding and the language-model head, which read rows of a `[vocab, hidden]` table in the checkpoint's own
//! type, or of int8 codes that stand for the checkpoint's floats.

use crate::isa::Tier;
use crate::load_float::{Bf16Bytes, F16Bytes, F32Bytes};
use crate::table::{Coded, Floats, Rows, all_rows, widen};
use std::ops::Range;
use trit_format::coded::RowLayout;
use trit_format::plan::DType;

/// `out[i] = table[rows.start + i] . input` in f32. `table` is `[vocab, hidden]` of f32, f16 or bf16 as little-endian
/// bytes, or rows of codes; `input` is `[hidden]` and `out` is `[rows.len()]`. A row's result is the same bits on every CPU,
/// whatever rows and inputs are computed together with it. Codes give the bits of the f32 that they stand for.
///
/// # Panics
/// If a slice has another length or is too short, or no table is of the type (validation refuses such tables).
pub fn dot_rows(
    table: &[u8],
    dtype: DType,
    hidden: usize,
    rows: Range<usize>,
    input: &[f32],
    out: &mut [f32],
) {
    dot_rows_block(table, dtype, hidden, rows, &[input], &mut [out]);
}

/// [`dot_rows`] for several inputs: `outs[m][i] = table[rows.start + i] . inputs[m]`. Each table row is read from memory
/// once.
///
/// # Panics
/// As [`dot_rows`], or if there are more or fewer outputs than inputs.
pub fn dot_rows_block(
    table: &[u8],
    dtype: DType,
    hidden: usize,
    rows: Range<usize>,
    inputs: &[&[f32]],
    outs: &mut [&mut [f32]],
) {
    assert!(inputs.len() == outs.len() && inputs.iter().all(|x| x.len() == hidden));
    assert!(outs.iter().all(|y| y.len() == rows.len()));
    if hidden == 0 {
        return outs.iter_mut().for_each(|out| out.fill(0.0));
    }
    let bytes = row_bytes(dtype, hidden);
    with_rows(&table[rows.start * bytes..rows.end * bytes], dtype, hidden, Products { inputs, outs });
}

/// Writes row `row` of such a table to `out`, `[hidden]`, as f32.
///
/// # Panics
/// As [`dot_rows`].
pub fn widen_row(table: &[u8], dtype: DType, hidden: usize, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), hidden);
    if hidden == 0 {
        return;
    }
    let bytes = row_bytes(dtype, hidden);
    with_rows(&table[row * bytes..(row + 1) * bytes], dtype, hidden, Values { out });
}

fn row_bytes(dtype: DType, hidden: usize) -> usize {
    let bytes = dtype.row_bytes(hidden as u64).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.expect("validation refuses tables whose rows are no whole blocks")
}

/// What is done with some rows of a table.
trait Use {
    fn of<R: Rows>(self, rows: R);
}

struct Products<'a, 'b> {
    inputs: &'a [&'a [f32]],
    outs: &'a mut [&'b mut [f32]],
}

impl Use for Products<'_, '_> {
    fn of<R: Rows>(self, rows: R) {
        all_rows(Tier::best(), rows, self.inputs, self.outs);
    }
}

/// Those of the first row.
struct Values<'a> {
    out: &'a mut [f32],
}

impl Use for Values<'_> {
    fn of<R: Rows>(self, rows: R) {
        widen(Tier::best(), rows, 0, self.out);
    }
}

/// Hands over the rows in `bytes`, by their type.
fn with_rows(bytes: &[u8], dtype: DType, hidden: usize, with: impl Use) {
    let layout = || RowLayout::new(dtype, hidden as u64).expect("its rows have a size");
    match dtype {
        DType::F32 => with.of(Floats::<F32Bytes> { numbers: bytes.as_chunks().0, hidden }),
        DType::F16 => with.of(Floats::<F16Bytes> { numbers: bytes.as_chunks().0, hidden }),
        DType::Bf16 => with.of(Floats::<Bf16Bytes> { numbers: bytes.as_chunks().0, hidden }),
        DType::I8Blocks { columns: 16, offsets: false } => {
            with.of(Coded::<1, false> { bytes, layout: layout() });
        }
        DType::I8Blocks { columns: 16, offsets: true } => {
            with.of(Coded::<1, true> { bytes, layout: layout() });
        }
        DType::I8Blocks { offsets: false, .. } => with.of(Coded::<2, false> { bytes, layout: layout() }),
        DType::I8Blocks { offsets: true, .. } => with.of(Coded::<2, true> { bytes, layout: layout() }),
        other => unreachable!("no table: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::reference;
    use crate::table::ROWS_IN_CACHE;
    use crate::testing::{Random, floats};
    use half::{bf16, f16};
    use trit_format::coded::{decode_row, encode_row};

    /// Products on one tier.
    struct On<'a, 'b>(Tier, Products<'a, 'b>);

    impl Use for On<'_, '_> {
        fn of<R: Rows>(self, rows: R) {
            all_rows(self.0, rows, self.1.inputs, self.1.outs);
        }
    }

    /// The first row's values on one tier.
    struct ValuesOn<'a>(Tier, &'a mut [f32]);

    impl Use for ValuesOn<'_> {
        fn of<R: Rows>(self, rows: R) {
            widen(self.0, rows, 0, self.1);
        }
    }

    const CODED: [DType; 4] = [
        DType::I8Blocks { columns: 16, offsets: false },
        DType::I8Blocks { columns: 16, offsets: true },
        DType::I8Blocks { columns: 32, offsets: false },
        DType::I8Blocks { columns: 32, offsets: true },
    ];

    /// A table of codes as bytes, and the values of its rows in f32 by the readable decoder. Codes are of all magnitudes, and
    /// products of scales with codes are rounded before offsets are added.
    fn coded_table(dtype: DType, rows: usize, hidden: usize) -> (Vec<u8>, Vec<f32>) {
        let layout = RowLayout::new(dtype, hidden as u64).unwrap();
        let (mut random, blocks) = (Random(77), layout.blocks());
        let (mut bytes, mut wide) = (vec![0xaa; rows * layout.bytes()], vec![0.0; rows * hidden]);
        for (row, (bytes, wide)) in
            bytes.chunks_exact_mut(layout.bytes()).zip(wide.chunks_exact_mut(hidden)).enumerate()
        {
            let codes: Vec<i8> = (0..hidden).map(|_| random.next() as i8).collect();
            let scales: Vec<f32> = floats(blocks, row as u64 + 1).iter().map(|x| x * 0.3).collect();
            let offsets = floats(if layout.has_offsets() { blocks } else { 0 }, row as u64 + 1001);
            encode_row(layout, &codes, &scales, &offsets, bytes).unwrap();
            decode_row(layout, bytes, wide).unwrap();
        }
        (bytes, wide)
    }

    #[test]
    fn codes_give_the_bits_of_the_floats_that_they_stand_for_on_every_tier_and_in_every_block() {
        let vocab = ROWS_IN_CACHE + 6;
        for hidden in [16, 32, 48, 64, 96, 112, 256, 384] {
            let inputs: Vec<Vec<f32>> = (0..7).map(|m| floats(hidden, 11 + m)).collect();
            for dtype in CODED.into_iter().filter(|dtype| RowLayout::new(*dtype, hidden as u64).is_some()) {
                let (bytes, wide) = coded_table(dtype, vocab, hidden);
                let row_bytes = bytes.len() / vocab;
                for m in [1, 2, 4, 7] {
                    let inputs: Vec<&[f32]> = inputs[..m].iter().map(Vec::as_slice).collect();
                    let of_all =
                        |input: &&[f32]| wide.chunks(hidden).map(|row| reference(row, input)).collect();
                    let expected: Vec<Vec<f32>> = inputs.iter().map(of_all).collect();
                    for tier in Tier::supported() {
                        let mut outs = vec![vec![f32::NAN; vocab]; m];
                        let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                        let products = Products { inputs: &inputs, outs: &mut slices };
                        with_rows(&bytes, dtype, hidden, On(tier, products));
                        assert_eq!(outs, expected, "{tier:?} {dtype:?} hidden={hidden} m={m}");
                    }
                    // As a table of F32, and some rows alone.
                    let floats: Vec<u8> = wide.iter().flat_map(|x| x.to_le_bytes()).collect();
                    let (mut of_codes, mut of_floats) = ([0.0; 4], [0.0; 4]);
                    dot_rows(&bytes, dtype, hidden, 3..7, inputs[0], &mut of_codes);
                    dot_rows(&floats, DType::F32, hidden, 3..7, inputs[0], &mut of_floats);
                    assert_eq!(of_codes.map(f32::to_bits), of_floats.map(f32::to_bits));
                }
                for (row, wide) in wide.chunks_exact(hidden).enumerate() {
                    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let mut out = vec![f32::NAN; hidden];
                    widen_row(&bytes, dtype, hidden, row, &mut out);
                    assert_eq!(bits(&out), bits(wide), "{dtype:?} hidden={hidden} row={row}");
                    for tier in Tier::supported() {
                        let mut out = vec![f32::NAN; hidden];
                        let row = &bytes[row * row_bytes..][..row_bytes];
                        with_rows(row, dtype, hidden, ValuesOn(tier, &mut out));
                        assert_eq!(bits(&out), bits(wide), "{tier:?} {dtype:?} hidden={hidden}");
                    }
                }
            }
        }
    }

    /// A table as bytes, and the values of its rows in f32.
    fn table(dtype: DType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (bytes, wide): (Vec<Vec<u8>>, Vec<f32>) = values
            .iter()
            .map(|&v| match dtype {
                DType::F16 => (f16::from_f32(v).to_le_bytes().to_vec(), f16::from_f32(v).to_f32()),
                DType::Bf16 => (bf16::from_f32(v).to_le_bytes().to_vec(), bf16::from_f32(v).to_f32()),
                _ => (v.to_le_bytes().to_vec(), v),
            })
            .unzip();
        (bytes.concat(), wide)
    }

    #[test]
    fn every_row_is_the_reference_bit_for_bit_on_every_tier_and_in_every_block() {
        let vocab = ROWS_IN_CACHE + 6;
        for hidden in [1, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 100, 384] {
            let inputs: Vec<Vec<f32>> = (0..7).map(|m| floats(hidden, 11 + m)).collect();
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let (bytes, wide) = table(dtype, &floats(vocab * hidden, 10));
                for m in [1, 2, 4, 7] {
                    let inputs: Vec<&[f32]> = inputs[..m].iter().map(Vec::as_slice).collect();
                    let mut expected = Vec::new();
                    for input in &inputs {
                        expected
                            .push(wide.chunks(hidden).map(|row| reference(row, input)).collect::<Vec<f32>>());
                    }
                    for tier in Tier::supported() {
                        let mut outs = vec![vec![f32::NAN; vocab]; m];
                        let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                        let products = Products { inputs: &inputs, outs: &mut slices };
                        with_rows(&bytes, dtype, hidden, On(tier, products));
                        assert_eq!(outs, expected, "{tier:?} {dtype:?} hidden={hidden} m={m}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_of_rows_is_those_rows_near_the_exact_product() {
        let (vocab, hidden) = (9, 2560);
        let x = floats(hidden, 12);
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let (bytes, wide) = table(dtype, &floats(vocab * hidden, 13));
            let mut out = [0.0; 4];
            dot_rows(&bytes, dtype, hidden, 3..7, &x, &mut out);
            for (i, y) in out.iter().enumerate() {
                let row = &wide[(3 + i) * hidden..(4 + i) * hidden];
                let terms = || row.iter().zip(&x).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let magnitude: f64 = terms().map(f64::abs).sum();
                // Each lane adds 80 products, and adding the lanes takes 5 more steps.
                assert!(
                    (f64::from(*y) - terms().sum::<f64>()).abs() < magnitude * 85.0 * f64::from(f32::EPSILON)
                );
            }
        }
    }

    #[test]
    fn rows_widen_exactly() {
        for hidden in [1, 16, 45] {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let (bytes, wide) = table(dtype, &floats(3 * hidden, 14));
                let mut out = vec![0.0; hidden];
                for row in 0..3 {
                    widen_row(&bytes, dtype, hidden, row, &mut out);
                    assert_eq!(out, wide[row * hidden..(row + 1) * hidden]);
                }
            }
        }
    }
}
