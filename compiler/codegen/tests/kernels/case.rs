//! A product, what it gives, and how a stream kernel is tried on it.

use crate::guarded::{Against, Guarded};
use crate::random::Random;
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{self, padded_k};

/// Runs a kernel on operands that are as [`KernelArgs`] asks.
pub type Run<'a> = &'a dyn Fn(&KernelArgs);

#[derive(Clone, Copy, Debug)]
pub enum Activations {
    Random,
    /// All 127, -127 or -128, against weights of the same sign, of opposite sign, or alternating.
    Saturating(i8, Weights),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights {
    Random,
    All(i8),
    Alternating,
}

/// One product `[n, k] x [k, m]` and what it gives; or, where activations advance, one of each tile.
pub struct Case {
    k: usize,
    m: usize,
    tiles: usize,
    /// Rows of a tile.
    rows_in_tile: usize,
    pub weights: Vec<u8>,
    /// `m` rows of `stride`, which end in a gap filled with values that must not be read.
    pub activations: Vec<i8>,
    stride: usize,
    /// Bytes from one tile's activations to the next's, 0 where all have the same.
    advance: usize,
    /// `m` rows, of one sum, or of one for each tile where activations advance.
    pub sums: Vec<i32>,
    /// `m` rows of `tiles * tile_rows`.
    pub expected: Vec<i32>,
}

impl Case {
    pub fn new(spec: &KernelSpec, n: usize, activations: Activations, seed: u64) -> Case {
        Case::advancing(spec, n, 0, activations, seed)
    }

    pub fn advancing(
        spec: &KernelSpec,
        n: usize,
        advance: usize,
        activations: Activations,
        seed: u64,
    ) -> Case {
        let (k, m, tiles) = (spec.k as usize, spec.m as usize, n.div_ceil(spec.code.tile_rows()));
        let (rows_in_tile, has_zero) = (spec.code.tile_rows(), spec.code.has_zero());
        let mut random = Random(seed * 2 + 0x9e37_79b9_7f4a_7c15);
        let weights = match activations {
            Activations::Random => Weights::Random,
            Activations::Saturating(_, weights) => weights,
        };
        let trits: Vec<i8> = (0..n * k)
            .map(|i| match weights {
                Weights::Random if has_zero => (random.next() % 3) as i8 - 1,
                Weights::Random => (random.next() % 2) as i8 * 2 - 1,
                Weights::All(trit) => trit,
                Weights::Alternating => [1, -1][i % 2],
            })
            .collect();
        let mut packed = vec![0; tiles * tile::bytes(k)];
        for (tile, rows) in packed.chunks_exact_mut(tile::bytes(k)).zip(trits.chunks(rows_in_tile * k)) {
            tile::encode(rows, k, spec.code, tile).unwrap();
        }
        let read = (tiles - 1) * advance + padded_k(k);
        let stride = read + 8;
        let mut values = vec![77i8; m * stride];
        for row in values.chunks_exact_mut(stride) {
            for tile in (0..tiles).take(if advance > 0 { tiles } else { 1 }) {
                let of_tile = &mut row[tile * advance..][..padded_k(k)];
                of_tile[k..].fill(0);
                for (i, a) in of_tile[..k].iter_mut().enumerate() {
                    *a = match activations {
                        Activations::Random => random.next() as i8,
                        Activations::Saturating(value, Weights::Alternating) => [value, 127][i % 2],
                        Activations::Saturating(value, _) => value,
                    };
                }
            }
        }
        // The last row ends where its padding ends.
        values.truncate((m - 1) * stride + read);
        let rows: Vec<&[i8]> = values.chunks(stride).collect();
        let dot = |row: &[i8], n: usize| -> i32 {
            let (trits, of_tile) = (&trits[n * k..][..k], &row[n / rows_in_tile * advance..][..k]);
            trits.iter().zip(of_tile).map(|(&t, &a)| i32::from(t) * i32::from(a)).sum()
        };
        // Rows past the end hold 0, or -1 in a code without zeros.
        let filler = |row: &[i8], n: usize| -> i32 {
            let of_tile = &row[n / rows_in_tile * advance..][..k];
            if has_zero { 0 } else { -of_tile.iter().map(|&a| i32::from(a)).sum::<i32>() }
        };
        let result = |row: &[i8], i: usize| if i < n { dot(row, i) } else { filler(row, i) };
        let result = &result;
        let of_row = |row| (0..tiles * rows_in_tile).map(move |i| result(row, i));
        let expected = rows.iter().flat_map(|&row| of_row(row)).collect();
        let sum = |row: &[i8], tile: usize| row[tile * advance..][..k].iter().map(|&a| i32::from(a)).sum();
        let sums_of_row = if advance > 0 { tiles } else { 1 };
        let sums = rows.iter().flat_map(|row| (0..sums_of_row).map(move |tile| sum(row, tile))).collect();
        Case {
            k,
            m,
            tiles,
            rows_in_tile,
            weights: packed,
            activations: values,
            stride,
            advance,
            sums,
            expected,
        }
    }

    /// Runs a kernel on guarded operands, `gap` elements between rows of sums and of results.
    pub fn run(&self, kernel: Run, against: Against, gap: usize) -> Vec<i32> {
        const UNWRITTEN: i32 = 0x0bad_0bad;
        let row = self.tiles * self.rows_in_tile;
        let sums_of_row = self.sums.len() / self.m;
        let (sum_stride, out_stride) = (sums_of_row + gap, row + gap);
        let mut sums = vec![i32::MIN; (self.m - 1) * sum_stride + sums_of_row];
        for (to, from) in sums.chunks_mut(sum_stride).zip(self.sums.chunks(sums_of_row)) {
            to[..sums_of_row].copy_from_slice(from);
        }
        let mut weights = Guarded::new(&self.weights, against);
        let mut activations = Guarded::new(&self.activations, against);
        let mut sums = Guarded::new(&sums, against);
        let mut out = Guarded::new(&vec![UNWRITTEN; (self.m - 1) * out_stride + row], against);
        let args = KernelArgs {
            weights: weights.as_mut_ptr(),
            activations: activations.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
            out: out.as_mut_ptr(),
            tiles: self.tiles as u64,
            activation_stride: self.stride as u64,
            sum_stride: sum_stride as u64,
            out_stride: out_stride as u64,
            rows: 0,
            scratch: std::ptr::null_mut(),
            activation_advance: self.advance as u64,
            sum_advance: u64::from(self.advance > 0),
            ..KernelArgs::NOTHING
        };
        kernel(&args);
        assert!(out.surroundings_are_intact(), "wrote outside the results");
        let mut written = Vec::new();
        for chunk in out.values().chunks(out_stride) {
            written.extend_from_slice(&chunk[..row]);
            assert!(chunk[row..].iter().all(|&v| v == UNWRITTEN), "wrote between rows");
        }
        written
    }

    pub fn check(&self, kernel: Run, spec: &KernelSpec, target: Target, what: &dyn std::fmt::Debug) {
        assert_eq!((spec.k as usize, spec.m as usize), (self.k, self.m));
        for (against, gap) in [(Against::End, 0), (Against::Start, 3)] {
            let found = self.run(kernel, against, gap);
            let wrong = found.iter().zip(&self.expected).position(|(a, b)| a != b);
            if let Some(i) = wrong {
                let results = self.tiles * self.rows_in_tile;
                let (row, at) = (i / results, i % results);
                panic!(
                    "{spec} for {target}, {what:?}, {against:?}: row {row}, result {at} of {} is {}, expected {}",
                    results, found[i], self.expected[i]
                );
            }
        }
    }
}
