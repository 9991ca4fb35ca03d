//! A product with groups of columns, and how a grouped kernel is tried on it.

use crate::guarded::{Against, Guarded};
use crate::random::Random;
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::target::Target;
use trit_format::tile;

/// Runs a kernel on operands that are as [`KernelArgs`] asks.
pub type Run<'a> = &'a dyn Fn(&KernelArgs);

/// Of either sign, of sizes so different that the order of a sum and each rounding show.
fn float(random: &mut Random) -> f32 {
    let size = [1e-3, 0.1, 1.0, 3e4][(random.next() % 4) as usize];
    (random.next() % 2001) as f32 / 1000.0 * size - size
}

/// What is multiplied.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub columns: usize,
    pub groups: usize,
    pub tiles: usize,
    pub rows: usize,
    /// Rows, sums, scales, tiles and results are so many lines or elements farther apart than they need to be.
    pub gap: usize,
}

/// Runs a kernel on operands in guarded memory and compares.
pub fn check(kernel: Run, spec: &KernelSpec, target: Target, sizes: Sizes, against: Against) {
    let Sizes { columns, groups, tiles, rows, gap } = sizes;
    let (code, in_tile) = (spec.code, spec.code.tile_rows());
    let mut random = Random(0x9e37_79b9_7f4a_7c15 + (columns * 31 + groups * 7 + rows) as u64);
    // The extremes stand among the first, so that every size has them.
    let extremes = [-128i8, 127, -128, -127];
    let activations: Vec<i8> =
        (0..rows * groups * columns).map(|i| if i < 4 { extremes[i] } else { random.next() as i8 }).collect();
    let trits: Vec<i8> = (0..tiles * groups * in_tile * columns)
        .map(|_| match code.has_zero() {
            true => (random.next() % 3) as i8 - 1,
            false => (random.next() % 2) as i8 * 2 - 1,
        })
        .collect();
    let weight_scales: Vec<f32> = (0..tiles * groups * in_tile).map(|_| float(&mut random)).collect();
    let scales: Vec<f32> = (0..rows * groups).map(|_| float(&mut random)).collect();
    let before: Vec<f32> = (0..rows * tiles * in_tile).map(|_| float(&mut random)).collect();

    let weight_stride = groups * tile::bytes(columns) + 64 * gap;
    let mut packed = vec![0xa5; (tiles - 1) * weight_stride + groups * tile::bytes(columns)];
    for (i, trits) in trits.chunks_exact(in_tile * columns).enumerate() {
        let at = i / groups * weight_stride + i % groups * tile::bytes(columns);
        tile::encode(trits, columns, code, &mut packed[at..][..tile::bytes(columns)]).unwrap();
    }
    let k = groups * columns;
    let stride = k.next_multiple_of(64) + 64 * gap;
    let (per_row, out_stride) = (groups + gap, tiles * in_tile + gap);
    let mut padded = vec![77i8; (rows - 1) * stride + k];
    let mut sums = vec![i32::MIN; (rows - 1) * per_row + groups];
    let mut padded_scales = vec![f32::NAN; (rows - 1) * per_row + groups];
    let mut out = vec![f32::NAN; (rows - 1) * out_stride + tiles * in_tile];
    for r in 0..rows {
        let row = &activations[r * k..][..k];
        padded[r * stride..][..k].copy_from_slice(row);
        for (g, group) in row.chunks_exact(columns).enumerate() {
            sums[r * per_row + g] = group.iter().map(|&a| i32::from(a)).sum();
        }
        padded_scales[r * per_row..][..groups].copy_from_slice(&scales[r * groups..][..groups]);
        let n = tiles * in_tile;
        out[r * out_stride..][..n].copy_from_slice(&before[r * n..][..n]);
    }
    let mut packed = Guarded::new(&packed, against);
    let mut padded = Guarded::new(&padded, against);
    let mut sums = Guarded::new(&sums, against);
    let mut padded_scales = Guarded::new(&padded_scales, against);
    let mut of_weights = Guarded::new(&weight_scales, against);
    let mut out = Guarded::new(&out, against);
    let mut scratch = Guarded::new(&vec![0xc7u8; spec.scratch_bytes(rows)], against);
    let args = KernelArgs {
        weights: packed.as_mut_ptr(),
        activations: padded.as_mut_ptr(),
        sums: sums.as_mut_ptr(),
        out: out.as_mut_ptr().cast(),
        tiles: tiles as u64,
        activation_stride: stride as u64,
        sum_stride: per_row as u64,
        out_stride: out_stride as u64,
        rows: rows as u64,
        scratch: scratch.as_mut_ptr(),
        weight_scales: of_weights.as_mut_ptr(),
        activation_scales: padded_scales.as_mut_ptr(),
        activation_scale_stride: per_row as u64,
        groups: groups as u64,
        weight_stride: weight_stride as u64,
        ..KernelArgs::NOTHING
    };
    kernel(&args);
    let name = format!("{spec} for {target}, {sizes:?}, {against:?}");
    assert!(out.surroundings_are_intact() && scratch.surroundings_are_intact(), "{name}: wrote outside");
    for (r, found) in out.values().chunks(out_stride).enumerate() {
        for (i, found) in found.iter().enumerate() {
            if i >= tiles * in_tile {
                assert!(found.is_nan(), "{name}: wrote between rows");
                continue;
            }
            let (tile, row) = (i / in_tile, i % in_tile);
            let mut expected = before[r * tiles * in_tile + i];
            for g in 0..groups {
                let trits = &trits[((tile * groups + g) * in_tile + row) * columns..][..columns];
                let activations = &activations[r * k + g * columns..][..columns];
                let products = activations.iter().zip(trits).map(|(&a, &t)| i32::from(a) * i32::from(t));
                let scale = scales[r * groups + g] * weight_scales[(tile * groups + g) * in_tile + row];
                expected += products.sum::<i32>() as f32 * scale;
            }
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{name}: row {r}, result {i}: {found}, {expected}"
            );
        }
    }
}
