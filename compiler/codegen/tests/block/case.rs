//! A product, what it gives, and how a block kernel is tried on it.

use crate::guarded::{Against, Guarded};
use crate::random::Random;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{self, MAX_ROWS};

/// Runs a kernel on operands that are as [`KernelArgs`] asks.
pub type Run<'a> = &'a dyn Fn(&KernelArgs);

/// A product `[tiles * 128, k] x [k, rows]`, of which kernels may compute any first tiles, of as many rows as their code
/// has, and rows.
pub struct Case {
    pub k: usize,
    rows: usize,
    tiles: usize,
    /// For codes with zeros, and for codes without: there 1 stands in place of 0.
    weights: [Weights; 2],
    activations: Vec<i8>,
}

/// Weights and what they give.
struct Weights {
    trits: Vec<i8>,
    /// `[rows, tiles * 128]`.
    expected: Vec<i32>,
}

impl Case {
    pub fn new(
        k: usize,
        rows: usize,
        tiles: usize,
        trit: impl FnMut(usize) -> i8,
        activation: impl FnMut(usize) -> i8,
    ) -> Case {
        let trits: Vec<i8> = (0..tiles * MAX_ROWS * k).map(trit).collect();
        let signs = trits.iter().map(|&t| if t == 0 { 1 } else { t }).collect();
        let activations: Vec<i8> = (0..rows * k).map(activation).collect();
        let dot = |a: &[i8], t: &[i8]| a.iter().zip(t).map(|(&a, &t)| i32::from(a) * i32::from(t)).sum();
        let weights = [trits, signs].map(|trits: Vec<i8>| {
            let of_row = |a| trits.chunks_exact(k).map(move |t| dot(a, t));
            let expected = activations.chunks_exact(k).flat_map(of_row).collect();
            Weights { trits, expected }
        });
        Case { k, rows, tiles, weights, activations }
    }

    pub fn random(k: usize, rows: usize, tiles: usize) -> Case {
        let (mut t, mut a) = (Random(0x9e37_79b9_7f4a_7c15 + k as u64), Random(77 + k as u64));
        // The extremes stand among the first, so that every size has them.
        let activation = |i| if i < 4 { [-128, 127, -128, -127][i] } else { a.next() as i8 };
        Case::new(k, rows, tiles, |_| (t.next() % 3) as i8 - 1, activation)
    }

    /// Runs a kernel on the first `rows` and `tiles` in guarded memory and compares.
    pub fn check(
        &self,
        kernel: Run,
        spec: &KernelSpec,
        target: Target,
        (rows, tiles): (usize, usize),
        against: Against,
        gap: usize,
    ) {
        const UNWRITTEN: i32 = 0x0bad_0bad;
        let (k, rows_in_tile) = (self.k, spec.code.tile_rows());
        let weights = &self.weights[usize::from(!spec.code.has_zero())];
        assert!(rows <= self.rows && tiles <= self.tiles && spec.k as usize == k);
        let mut packed = vec![0; tiles * tile::bytes(k)];
        for (tile, trits) in
            packed.chunks_exact_mut(tile::bytes(k)).zip(weights.trits.chunks(rows_in_tile * k))
        {
            tile::encode(trits, k, spec.code, tile).unwrap();
        }
        let (read, n) = (k.next_multiple_of(BLOCK_COLUMNS), tiles * rows_in_tile);
        let (stride, sum_stride, out_stride) = (read + 64 * gap, 1 + gap, n + gap);
        // Beyond the columns that are read stands what would spoil the results.
        let mut activations = vec![77i8; (rows - 1) * stride + read];
        let mut sums = vec![i32::MIN; (rows - 1) * sum_stride + 1];
        for (r, row) in self.activations.chunks_exact(k).take(rows).enumerate() {
            activations[r * stride..][..k].copy_from_slice(row);
            activations[r * stride..][k..read].fill(0);
            sums[r * sum_stride] = row.iter().map(|&a| i32::from(a)).sum();
        }
        let mut packed = Guarded::new(&packed, against);
        let mut activations = Guarded::new(&activations, against);
        let mut sums = Guarded::new(&sums, against);
        let mut out = Guarded::new(&vec![UNWRITTEN; (rows - 1) * out_stride + n], against);
        let mut scratch = Guarded::new(&vec![0xc7u8; spec.scratch_bytes(rows)], against);
        let args = KernelArgs {
            weights: packed.as_mut_ptr(),
            activations: activations.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
            out: out.as_mut_ptr(),
            tiles: tiles as u64,
            activation_stride: stride as u64,
            sum_stride: sum_stride as u64,
            out_stride: out_stride as u64,
            rows: rows as u64,
            scratch: scratch.as_mut_ptr(),
            activation_advance: 0,
            sum_advance: 0,
            ..KernelArgs::NOTHING
        };
        kernel(&args);
        let intact = out.surroundings_are_intact() && scratch.surroundings_are_intact();
        assert!(intact, "{spec} for {target}, {rows} rows, {tiles} tiles: wrote outside");
        for (r, found) in out.values().chunks(out_stride).enumerate() {
            let expected = &weights.expected[r * self.tiles * MAX_ROWS..][..n];
            let wrong = found[..n].iter().zip(expected).position(|(a, b)| a != b);
            if let Some(i) = wrong {
                panic!(
                    "{spec} for {target}, {rows} rows, {tiles} tiles, {against:?}: row {r}, result {i} is {}, expected {}",
                    found[i], expected[i]
                );
            }
            assert!(found[n..].iter().all(|&v| v == UNWRITTEN), "{spec} for {target}: wrote between rows");
        }
    }
}
