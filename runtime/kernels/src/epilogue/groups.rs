//! Turns the sums of groups of columns into floats. Each sum is multiplied by the scale of its activations and by the
//! scale of its weights, and the products of a row are added one after the other.

use crate::isa::{Isa, LANES, Tier, dispatch};
use crate::load_float::{Bf16Bytes, F16Bytes, F32Bytes, LoadFloat};
use trit_format::dense243::{Code, SIGNS, TRITS};
use trit_format::plan::DType;

// A tile has one vector of rows for each weight of a byte, so that the number of vectors is that of its digits.
const _: () = assert!(LANES == trit_format::tile::LANES);

/// The integer sums of one tile with one row of activations, for some consecutive groups.
#[derive(Clone, Copy)]
pub struct GroupSums<'a> {
    /// `[digits, stride]`. The first `[groups, tile_rows]` of each digit count.
    pub sums: &'a [i32],
    /// Elements from one digit to the next. The least significant digit is the first.
    pub stride: usize,
    /// Number of digits. A group's sum is `s0 + 256 * s1 + 65536 * s2`, in wrapping i32.
    pub digits: usize,
    /// Index of the first of the groups.
    pub first: usize,
    /// `[groups]`: the scale of the activations in each group, which is what an integer of 1 stands for.
    pub scales: &'a [f32],
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
}

/// For each group in order, `acc[row] += sum as f32 * (scale of activations * scale of weights[row])`, with every
/// operation rounded. The result is the same bits however a row's groups are divided among calls.
///
/// # Panics
/// If a slice is too short, `acc` has another length than a tile has rows, or the type is an integer type (validation
/// refuses such scales).
pub fn add_groups(sums: &GroupSums, weights: WeightScales, acc: &mut [f32]) {
    add_groups_on(Tier::best(), sums, weights, acc);
}

fn add_groups_on(tier: Tier, sums: &GroupSums, weights: WeightScales, acc: &mut [f32]) {
    assert_eq!(acc.len(), weights.code.tile_rows());
    match weights.dtype {
        DType::F32 => groups::<F32Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, acc),
        DType::F16 => groups::<F16Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, acc),
        DType::Bf16 => groups::<Bf16Bytes>(tier, sums, weights.bytes.as_chunks().0, weights.groups, acc),
        other => unreachable!("no float scales: {other:?}"),
    }
}

dispatch!(
    fn groups<E: LoadFloat>(sums: &GroupSums, weights: &[E::Raw], shared: usize, acc: &mut [f32]) = groups_body
);

#[inline(always)]
fn groups_body<I: Isa, E: LoadFloat>(
    isa: I,
    sums: &GroupSums,
    weights: &[E::Raw],
    shared: usize,
    acc: &mut [f32],
) {
    // The choice stands outside the loop, so that the loop vectorizes.
    match (acc.len() / LANES, sums.digits) {
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
    let groups = sums.scales.len();
    let mut digits: [&[[[i32; LANES]; VECTORS]]; DIGITS] = [&[]; DIGITS];
    for (d, digit) in digits.iter_mut().enumerate() {
        let sums = sums.sums[d * sums.stride..][..groups * VECTORS * LANES].as_chunks::<LANES>().0;
        *digit = &sums.as_chunks().0[..groups];
    }
    let weights: &[[[E::Raw; LANES]; VECTORS]] = weights.as_chunks().0.as_chunks().0;
    let mut total = [isa.splat(0.0); VECTORS];
    for (total, acc) in total.iter_mut().zip(acc.as_chunks().0) {
        *total = isa.load(acc);
    }
    let (mut of, mut left) = (sums.first / shared, shared - sums.first % shared);
    for (g, &scale) in sums.scales.iter().enumerate() {
        if left == 0 {
            (of, left) = (of + 1, shared);
        }
        left -= 1;
        let (scale, weights) = (isa.splat(scale), &weights[of]);
        for v in 0..VECTORS {
            let mut sum = digits[0][g][v];
            for d in 1..DIGITS {
                for lane in 0..LANES {
                    sum[lane] = sum[lane].wrapping_add(digits[d][g][v][lane] << (8 * d));
                }
            }
            let factor = isa.mul(scale, E::widen(isa, &weights[v]));
            let sum = isa.load(&sum.map(|sum| sum as f32));
            total[v] = isa.add(total[v], isa.mul(sum, factor));
        }
    }
    for (total, acc) in total.iter().zip(acc.as_chunks_mut().0) {
        isa.store(*total, acc);
    }
}

/// [`add_groups`] for one row of a tile of `rows` rows, for tests: `weights` are that row's scales.
pub fn add_groups_reference(
    sums: &GroupSums,
    (row, rows): (usize, usize),
    weights: &[f32],
    groups_a_scale: usize,
    acc: f32,
) -> f32 {
    let mut acc = acc;
    for (g, scale) in sums.scales.iter().enumerate() {
        let digit = |d: usize| sums.sums[d * sums.stride + g * rows + row].wrapping_mul(1 << (8 * d));
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

    #[test]
    fn every_tier_and_every_division_is_the_reference_bit_for_bit() {
        let mut random = Random(5);
        let sizes = [(1, 1), (20, 1), (20, 4), (21, usize::MAX), (7, 3)];
        let codes = [Code::SignedFix, Code::Binary];
        for ((groups, shared), code) in sizes.into_iter().flat_map(|size| codes.map(|code| (size, code))) {
            let rows = code.tile_rows();
            for (digits, dtype) in
                [1, 3].into_iter().flat_map(|d| [DType::F32, DType::F16, DType::Bf16].map(|t| (d, t)))
            {
                let count = (groups - 1) / shared + 1;
                let (bytes, wide) = scales(dtype, &floats(count * rows, 3));
                let stride = groups * rows + 16;
                let sums: Vec<i32> =
                    (0..digits * stride).map(|_| (random.next() % 32001) as i32 - 16000).collect();
                let a = floats(groups, 4);
                let part = |of: std::ops::Range<usize>| GroupSums {
                    sums: &sums[of.start * rows..],
                    stride,
                    digits,
                    first: of.start,
                    scales: &a[of],
                };
                let whole = part(0..groups);
                let of_row = |row: usize| {
                    let weights: Vec<f32> = wide.chunks(rows).map(|scales| scales[row]).collect();
                    for g in 0..groups {
                        let scales = WeightScales { bytes: &bytes, dtype, code, groups: shared };
                        assert_eq!(scales.one(g, row), weights[g / shared]);
                    }
                    add_groups_reference(&whole, (row, rows), &weights, shared, 0.25)
                };
                let expected: Vec<f32> = (0..rows).map(of_row).collect();
                let weights = WeightScales { bytes: &bytes, dtype, code, groups: shared };
                for tier in Tier::supported() {
                    let mut acc = vec![0.25; rows];
                    add_groups_on(tier, &whole, weights, &mut acc);
                    assert_eq!(acc, expected, "{tier:?} {groups} {shared} {digits} {dtype:?}");
                    let mut acc = vec![0.25; rows];
                    for first in (0..groups).step_by(2) {
                        add_groups_on(tier, &part(first..(first + 2).min(groups)), weights, &mut acc);
                    }
                    assert_eq!(acc, expected, "{tier:?} in pieces");
                }
                let mut acc = vec![0.25; rows];
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
            let sums = GroupSums { sums: &sums, stride: rows, digits: 3, first: 0, scales: &[1.0] };
            let (bytes, _) = scales(DType::F32, &vec![1.0; rows]);
            let mut acc = vec![0.0; rows];
            add_groups(&sums, WeightScales { bytes: &bytes, dtype: DType::F32, code, groups: 1 }, &mut acc);
            assert_eq!(acc, vec![(127i64 * 65536 * 128) as f32; rows]);
        }
    }
}
