//! Turns the sums of groups of columns into floats. Each sum is multiplied by the scale of its activations and by the
//! scale of its weights, and the products of a row are added one after the other.

use crate::isa::{Isa, LANES, Tier, dispatch};
use crate::load_float::{Bf16Bytes, F16Bytes, F32Bytes, LoadFloat};
use trit_format::dense243::{Code, SIGNS, TRITS};
use trit_format::plan::DType;

// A tile has one vector of rows for each weight of a byte, so that the number of vectors is that of its digits.
const _: () = assert!(LANES == trit_format::tile::LANES);

/// The integer sums of one tile with some rows of activations, for some consecutive groups.
#[derive(Clone, Copy)]
pub struct GroupSums<'a> {
    /// `[rows, digits, groups, tile_rows]`. The least significant digit is the first.
    pub sums: &'a [i32],
    /// Number of digits. A group's sum is `s0 + 256 * s1 + 65536 * s2`, in wrapping i32.
    pub digits: usize,
    /// Index of the first of the groups.
    pub first: usize,
    /// Number of groups.
    pub groups: usize,
    /// The scales of the activations in each group, which are what an integer of 1 stands for: `[rows, scale_stride]`, of
    /// which those of `first` and the groups after it are read. The last row may end with them.
    pub scales: &'a [f32],
    /// Elements from the scales of one row to those of the next.
    pub scale_stride: usize,
}

/// The scales of a tile's weights.
#[derive(Clone, Copy)]
pub struct WeightScales<'a> {
    /// `[scales, tile_rows]` little-endian floats.
    pub bytes: &'a [u8],
    /// Type of the scales: F32, F16 or BF16.
    pub dtype: DType,
    /// The code of the tile, which decides how many rows it has.
    pub code: Code,
    /// How many groups share a scale. If a row has one scale, this is more than the row has groups.
    pub groups: usize,
}

impl WeightScales<'_> {
    /// The scale of row `row` of the tile in group `group`.
    ///
    /// # Panics
    /// If there is no such row or group, or the type is an integer type.
    pub fn one(&self, group: usize, row: usize) -> f32 {
        assert!(row < self.code.tile_rows());
        let at = trit_format::tile::scale_at(self.code, group / self.groups, row) * self.dtype.size();
        let mut scale = [0.0];
        crate::head::widen_row(&self.bytes[at..], self.dtype, 1, 0, &mut scale);
        scale[0]
    }

    /// The scales of all rows in some first groups, `[groups, tile_rows]`.
    ///
    /// # Panics
    /// As [`WeightScales::one`].
    pub fn widen(&self, out: &mut [f32]) {
        let rows = self.code.tile_rows();
        for (g, out) in out.chunks_exact_mut(rows).enumerate() {
            crate::head::widen_row(self.bytes, self.dtype, rows, g / self.groups, out);
        }
    }
}

/// For each row and each group in order, `acc[row] += sum as f32 * (scale of activations * scale of weights[row])`, with
/// every operation rounded. `acc` is `[rows, tile_rows]`. The result is the same bits however groups and rows are divided
/// among calls.
///
/// # Panics
/// If a slice is too short, `acc` is not whole rows of a tile, or the type is an integer type (validation refuses such
/// scales).
pub fn add_groups(sums: &GroupSums, weights: WeightScales, acc: &mut [f32]) {
    add_groups_on(Tier::best(), sums, weights, acc);
}

fn add_groups_on(tier: Tier, sums: &GroupSums, weights: WeightScales, acc: &mut [f32]) {
    let tile_rows = weights.code.tile_rows();
    assert!(acc.len().is_multiple_of(tile_rows));
    let (rows, in_row) = (acc.len() / tile_rows, sums.digits * sums.groups * tile_rows);
    if rows == 0 || sums.groups == 0 {
        return;
    }
    assert!(sums.sums.len() >= rows * in_row);
    assert!(sums.scales.len() >= (rows - 1) * sums.scale_stride + sums.first + sums.groups);
    let vectors = tile_rows / LANES;
    match weights.dtype {
        DType::F32 => {
            groups::<F32Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, vectors, acc)
        }
        DType::F16 => {
            groups::<F16Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, vectors, acc)
        }
        DType::Bf16 => {
            groups::<Bf16Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, vectors, acc)
        }
        other => unreachable!("no float scales: {other:?}"),
    }
}

dispatch!(
    fn groups<E: LoadFloat>(
        sums: &GroupSums,
        weights: &[E::Raw],
        shared: usize,
        vectors: usize,
        acc: &mut [f32],
    ) = groups_body
);

#[inline(always)]
fn groups_body<I: Isa, E: LoadFloat>(
    isa: I,
    sums: &GroupSums,
    weights: &[E::Raw],
    shared: usize,
    vectors: usize,
    acc: &mut [f32],
) {
    // The choice stands outside the loop, so that the loop vectorizes.
    match (vectors, sums.digits) {
        (TRITS, 1) => groups_of::<I, E, 1, TRITS>(isa, sums, weights, shared, acc),
        (TRITS, _) => groups_of::<I, E, 3, TRITS>(isa, sums, weights, shared, acc),
        (_, 1) => groups_of::<I, E, 1, SIGNS>(isa, sums, weights, shared, acc),
        _ => groups_of::<I, E, 3, SIGNS>(isa, sums, weights, shared, acc),
    }
}

#[inline(always)]
fn groups_of<I: Isa, E: LoadFloat, const DIGITS: usize, const VECTORS: usize>(
    isa: I,
    sums: &GroupSums,
    weights: &[E::Raw],
    shared: usize,
    acc: &mut [f32],
) {
    let weights: &[[[E::Raw; LANES]; VECTORS]] = weights.as_chunks().0.as_chunks().0;
    let acc: &mut [[[f32; LANES]; VECTORS]] = acc.as_chunks_mut().0.as_chunks_mut().0;
    let all: &[[[i32; LANES]; VECTORS]] = sums.sums.as_chunks().0.as_chunks().0;
    let rows = acc.iter_mut().zip(all.chunks_exact(DIGITS * sums.groups));
    let rows = rows.zip(sums.scales.chunks(sums.scale_stride));
    if sums.groups == 1 {
        // Block kernels give one group of many rows. The scales of its weights are widened once.
        let raw = &weights[sums.first / shared];
        let mut wide = [isa.splat(0.0); VECTORS];
        for (wide, raw) in wide.iter_mut().zip(raw) {
            *wide = E::widen(isa, raw);
        }
        for ((acc, digits), scales) in rows {
            let scale = isa.splat(scales[sums.first]);
            for v in 0..VECTORS {
                let sum = joined::<I, DIGITS, VECTORS>(isa, digits, 1, (0, v));
                let factor = isa.mul(scale, wide[v]);
                isa.store(isa.add(isa.load(&acc[v]), isa.mul(sum, factor)), &mut acc[v]);
            }
        }
        return;
    }
    for ((acc, digits), scales) in rows {
        let mut total = [isa.splat(0.0); VECTORS];
        for (total, acc) in total.iter_mut().zip(&*acc) {
            *total = isa.load(acc);
        }
        let (mut of, mut left) = (sums.first / shared, shared - sums.first % shared);
        for (g, &scale) in scales[sums.first..][..sums.groups].iter().enumerate() {
            if left == 0 {
                (of, left) = (of + 1, shared);
            }
            left -= 1;
            let (scale, weights) = (isa.splat(scale), &weights[of]);
            for v in 0..VECTORS {
                let sum = joined::<I, DIGITS, VECTORS>(isa, digits, sums.groups, (g, v));
                let factor = isa.mul(scale, E::widen(isa, &weights[v]));
                total[v] = isa.add(total[v], isa.mul(sum, factor));
            }
        }
        for (total, acc) in total.iter().zip(acc) {
            isa.store(*total, acc);
        }
    }
}

/// The sums of vector `v` of group `g` of a row as floats; `digits` is `[DIGITS, groups]`.
#[inline(always)]
fn joined<I: Isa, const DIGITS: usize, const VECTORS: usize>(
    isa: I,
    digits: &[[[i32; LANES]; VECTORS]],
    groups: usize,
    (g, v): (usize, usize),
) -> I::F32 {
    let mut sum = digits[g][v];
    for d in 1..DIGITS {
        for lane in 0..LANES {
            sum[lane] = sum[lane].wrapping_add(digits[d * groups + g][v][lane] << (8 * d));
        }
    }
    isa.load(&sum.map(|sum| sum as f32))
}

/// [`add_groups`] for one row of activations and one row of a tile of `rows` rows, for tests: `weights` are that row's scales.
pub fn add_groups_reference(
    sums: &GroupSums,
    (row, rows): (usize, usize),
    weights: &[f32],
    groups_a_scale: usize,
    acc: f32,
) -> f32 {
    let mut acc = acc;
    for (g, scale) in sums.scales[sums.first..][..sums.groups].iter().enumerate() {
        let digit = |d: usize| sums.sums[(d * sums.groups + g) * rows + row].wrapping_mul(1 << (8 * d));
        let sum = (0..sums.digits).map(digit).fold(0, i32::wrapping_add);
        acc += sum as f32 * (scale * weights[(sums.first + g) / groups_a_scale]);
    }
    acc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, floats};
    use half::{bf16, f16};
    use std::ops::Range;

    /// The scales of a tile, `[scales, tile_rows]`, as bytes and as f32.
    fn scales(dtype: DType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
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

    const ROWS: usize = 3;

    #[test]
    fn every_tier_and_every_division_is_the_reference_bit_for_bit() {
        let mut random = Random(5);
        let sizes = [(1, 1), (20, 1), (20, 4), (21, usize::MAX), (7, 3)];
        let codes = [Code::SignedFix, Code::Binary];
        for ((groups, shared), code) in sizes.into_iter().flat_map(|size| codes.map(|code| (size, code))) {
            let tile_rows = code.tile_rows();
            for (digits, dtype) in
                [1, 3].into_iter().flat_map(|d| [DType::F32, DType::F16, DType::Bf16].map(|t| (d, t)))
            {
                let count = (groups - 1) / shared + 1;
                let (bytes, wide) = scales(dtype, &floats(count * tile_rows, 3));
                // There is room between the scales of two rows, but not behind the last.
                let scale_stride = groups + 2;
                let a = floats(ROWS * scale_stride - 2, 4);
                let all: Vec<i32> = (0..ROWS * digits * groups * tile_rows)
                    .map(|_| (random.next() % 32001) as i32 - 16000)
                    .collect();
                let weights = WeightScales { bytes: &bytes, dtype, code, groups: shared };
                let whole = GroupSums { sums: &all, digits, first: 0, groups, scales: &a, scale_stride };
                // The sums of some groups and rows, as a kernel for them writes them.
                let part = |groups_of: Range<usize>, rows: Range<usize>| -> Vec<i32> {
                    let lines = rows.flat_map(|r| (0..digits).map(move |d| r * digits + d));
                    let runs = lines.flat_map(|line| groups_of.clone().map(move |g| line * groups + g));
                    runs.flat_map(|run| all[run * tile_rows..][..tile_rows].iter().copied()).collect()
                };
                let expected: Vec<f32> = (0..ROWS)
                    .flat_map(|r| {
                        let sums = part(0..groups, r..r + 1);
                        let at = |row: usize| {
                            let wide: Vec<f32> = wide.chunks(tile_rows).map(|scales| scales[row]).collect();
                            for g in 0..groups {
                                assert_eq!(weights.one(g, row), wide[g / shared]);
                            }
                            let sums = GroupSums { sums: &sums, scales: &a[r * scale_stride..], ..whole };
                            add_groups_reference(&sums, (row, tile_rows), &wide, shared, 0.25)
                        };
                        (0..tile_rows).map(at).collect::<Vec<f32>>()
                    })
                    .collect();
                for tier in Tier::supported() {
                    for (groups_at_once, rows_at_once) in [(groups, ROWS), (2, ROWS), (1, ROWS), (groups, 1)]
                    {
                        let mut acc = vec![0.25; ROWS * tile_rows];
                        for (first, row) in (0..groups)
                            .step_by(groups_at_once)
                            .flat_map(|first| (0..ROWS).step_by(rows_at_once).map(move |row| (first, row)))
                        {
                            let end = (first + groups_at_once).min(groups);
                            let sums = part(first..end, row..row + rows_at_once);
                            let acc = &mut acc[row * tile_rows..][..rows_at_once * tile_rows];
                            let scales = &a[row * scale_stride..];
                            let sums = GroupSums { sums: &sums, first, groups: end - first, scales, ..whole };
                            add_groups_on(tier, &sums, weights, acc);
                        }
                        let name = format!("{tier:?} {groups} {shared} {digits} {dtype:?}");
                        assert_eq!(
                            acc, expected,
                            "{name}, {groups_at_once} groups, {rows_at_once} rows at once"
                        );
                    }
                }
                let mut acc = vec![0.25; ROWS * tile_rows];
                add_groups(&whole, weights, &mut acc);
                assert_eq!(acc, expected);
            }
        }
    }

    /// With the largest integers of 24 bits in the longest group, the sum of the digits' sums is still exact.
    #[test]
    fn digits_of_the_longest_group_do_not_overflow() {
        let digits = [0, 0, 127 * 128];
        for code in Code::ALL {
            let rows = code.tile_rows();
            let sums: Vec<i32> = digits.iter().flat_map(|&s| vec![s; rows]).collect();
            let sums =
                GroupSums { sums: &sums, digits: 3, first: 0, groups: 1, scales: &[1.0], scale_stride: 1 };
            let (bytes, _) = scales(DType::F32, &vec![1.0; rows]);
            let mut acc = vec![0.0; rows];
            add_groups(&sums, WeightScales { bytes: &bytes, dtype: DType::F32, code, groups: 1 }, &mut acc);
            assert_eq!(acc, vec![(127i64 * 65536 * 128) as f32; rows]);
        }
    }
}
