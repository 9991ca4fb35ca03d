//! Up to eight rows by `smmla`: weights are expanded in registers, as stream kernels do, and never stored.
//!
//! ```text
//! for tile
//!   for 2 or 4 lanes                  10 or 20 tile rows: as many accumulators as features, pairs of rows and of lanes
//!     for 8 columns                   six features by each pair of rows
//!     results: differences of features
//! ```
//!
//! Expanding a byte to its five trits and storing them takes 15 instructions for a vector, expanding it to six features
//! five; in return there are six products for five. With few rows that is less: of the instructions of `chunks` 0.85 with
//! eight, 0.7 with four, 0.55 with two.
//!
//! The features are those of [`program`](crate::program): `x_{j+1} = 3 * x_j` modulo 256 as i8, whose sums `X_j` give the
//! product of digit `4 - j` as `(3 * X_j - X_{j+1}) / 256`, without a remainder.

use super::asm::{Asm, Label, MLS_4S, MUL_16B, NEG_4S, SMMLA, V, X, ZIP1_2D, ZIP1_4S, ZIP2_2D, ZIP2_4S};
use super::{
    ACTIVATIONS, ARGS, COLUMNS, DIGITS, OUT, OUT_STRIDE, PACKED, Products, ROWS_LEFT, STEPS, STRIDE, TILES,
    WEIGHTS, pack, row,
};
use crate::program::features;
use std::mem::offset_of;
use trit_format::dense243::{Code, TRITS};
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::tile::{self, LANES, QUAD, VECTOR, padded_k};

/// The most rows.
const MOST_ROWS: usize = 8;
const FEATURES: usize = features(Code::SignedFix);
/// Columns that one `smmla` takes, two quads.
const STEP: usize = 2 * QUAD;
/// The last row's number.
const LAST: X = X(9);
/// The weights of the lanes of a pass.
const LANES_AT: X = X(27);
const PASSES: X = X(28);
const ACTIVATION_VECTORS: V = V(24);
const THREE: V = V(28);
const NINE: V = V(29);
/// Bytes of two lanes and the feature in the making, for each pair of lanes.
const BYTES: [(V, V); 2] = [(V(30), V(31)), (V(26), V(27))];

/// Whether kernels of `spec` have such a part. Signs have eight features, for which there are not enough registers, and
/// are decoded by one instruction each.
pub(super) fn serves(spec: &KernelSpec, products: Products) -> bool {
    products == Products::Matrix && spec.code == Code::SignedFix
}

/// All tiles by up to [`MOST_ROWS`] rows, then on to `end`; with more rows only on.
pub(super) fn emit(a: &mut Asm, k: usize, end: Label) {
    let many = a.label();
    a.load(ROWS_LEFT, ARGS, offset_of!(KernelArgs, rows));
    a.compare(ROWS_LEFT, MOST_ROWS as u32 + 1);
    a.jump_unless_below(many);
    a.load(ACTIVATIONS, ARGS, offset_of!(KernelArgs, activations));
    a.copy(PACKED, DIGITS);
    a.constant(STEPS, k.div_ceil(COLUMNS) as u64);
    a.sub(LAST, ROWS_LEFT, 1);
    for pairs in 1..=MOST_ROWS / 2 {
        let more = a.label();
        if 2 * pairs < MOST_ROWS {
            a.compare(ROWS_LEFT, 2 * pairs as u32 + 1);
            a.jump_unless_below(more);
        }
        // Two pairs of lanes share the activations where there are registers for their sums.
        Few { k, pairs, lanes: if pairs <= 2 { 2 } else { 1 } }.tiles(a);
        a.jump(end);
        a.place(more);
    }
    a.place(many);
}

/// The part for one or two rows, for three or four, and so on.
struct Few {
    k: usize,
    /// Pairs of rows.
    pairs: usize,
    /// Pairs of lanes of a pass.
    lanes: usize,
}

impl Few {
    fn rows(&self) -> usize {
        2 * self.pairs
    }

    /// Bytes of the lanes of a pass, both of a quad of weights and of a row of results.
    fn pass_bytes(&self) -> usize {
        8 * self.lanes
    }

    fn sum(&self, lanes: usize, feature: usize, pair: usize) -> V {
        V(((lanes * FEATURES + feature) * self.pairs + pair) as u8)
    }

    fn tiles(&self, a: &mut Asm) {
        self.point(a, ACTIVATIONS, STRIDE);
        pack(a, Products::Matrix, self.rows());
        self.point(a, OUT, OUT_STRIDE);
        a.fill_bytes(THREE, 3);
        a.fill_bytes(NINE, 9);
        let next_tile = a.here();
        a.copy(LANES_AT, WEIGHTS);
        a.constant(PASSES, (VECTOR / self.pass_bytes()) as u64);
        let pass = a.here();
        self.multiply(a);
        self.results(a);
        a.add(LANES_AT, LANES_AT, self.pass_bytes() as u32);
        (0..self.rows()).for_each(|n| a.add(row(n), row(n), self.pass_bytes() as u32));
        a.count_down(PASSES, 1);
        a.jump_if_not_equal(pass);
        (0..self.rows()).for_each(|n| a.add(row(n), row(n), (4 * (TRITS - 1) * LANES) as u32));
        a.add(WEIGHTS, WEIGHTS, tile::bytes(self.k) as u32);
        a.count_down(TILES, 1);
        a.jump_if_not_equal(next_tile);
    }

    /// [`row`]s to rows of activations or results. The last of an odd number stands for two: it is multiplied twice, and
    /// what is written twice is the same.
    fn point(&self, a: &mut Asm, first: X, stride: X) {
        let last = self.rows() - 1;
        a.copy(row(0), first);
        (1..last).for_each(|n| a.add_register(row(n), row(n - 1), stride));
        a.multiply_add(row(last), LAST, stride, first);
    }

    /// The sums of the features of one pass.
    fn multiply(&self, a: &mut Asm) {
        const STEPS_TOGETHER: usize = COLUMNS / STEP;
        let (weights, packed, left) = (X(16), X(17), X(13));
        (0..self.lanes * FEATURES * self.pairs).for_each(|n| a.zero(V(n as u8)));
        a.copy(weights, LANES_AT);
        a.copy(packed, PACKED);
        let quads = padded_k(self.k) / QUAD;
        let (whole, rest) = (quads / (2 * STEPS_TOGETHER), quads % (2 * STEPS_TOGETHER));
        if whole > 0 {
            a.constant(left, whole as u64);
            let again = a.here();
            (0..STEPS_TOGETHER).for_each(|step| self.step(a, (weights, step), packed, 2));
            a.add(weights, weights, (2 * STEPS_TOGETHER * VECTOR) as u32);
            a.count_down(left, 1);
            a.jump_if_not_equal(again);
        }
        (0..rest.div_ceil(2))
            .for_each(|step| self.step(a, (weights, step), packed, (rest - 2 * step).min(2)));
    }

    /// Two quads of a pass, or the last one.
    fn step(&self, a: &mut Asm, (weights, step): (X, usize), packed: X, quads: usize) {
        a.load_all_next(ACTIVATION_VECTORS, self.pairs, packed, None);
        let (first, second) = BYTES[0];
        // A missing quad meets activations of zero.
        for (quad, bytes) in [first, second].into_iter().enumerate().take(quads) {
            let at = (2 * step + quad) * VECTOR;
            match self.lanes {
                1 => a.load_half(bytes, weights, at),
                _ => a.load_vector(bytes, weights, at),
            }
        }
        if self.lanes == 2 {
            a.op(ZIP2_4S, BYTES[1].0, first, second);
        }
        a.op(ZIP1_4S, first, first, second);
        for (lanes, bytes) in BYTES.into_iter().enumerate().take(self.lanes) {
            self.features(a, lanes, bytes);
        }
    }

    /// Multiplies the features of a pair of lanes. Each is three times the one before, or nine times the one before that,
    /// so that it need not wait for it.
    fn features(&self, a: &mut Asm, lanes: usize, (mut this, mut next): (V, V)) {
        for feature in 0..FEATURES {
            if feature == 0 {
                a.op(MUL_16B, next, this, THREE);
            }
            for pair in 0..self.pairs {
                a.op(SMMLA, self.sum(lanes, feature, pair), ACTIVATION_VECTORS.plus(pair), this);
            }
            if feature + 2 < FEATURES {
                a.op(MUL_16B, this, this, NINE);
            }
            (this, next) = (next, this);
        }
    }

    /// The sums of one pass to the results at [`row`]s.
    fn results(&self, a: &mut Asm) {
        let three = ACTIVATION_VECTORS;
        let [even, odd] = [1, 2].map(|n| ACTIVATION_VECTORS.plus(n));
        a.fill_4s(three, 3);
        let lanes_and_pairs = || (0..self.lanes).flat_map(|l| (0..self.pairs).map(move |pair| (l, pair)));
        for feature in (1..FEATURES).rev() {
            for (lanes, pair) in lanes_and_pairs() {
                a.op(MLS_4S, self.sum(lanes, feature, pair), self.sum(lanes, feature - 1, pair), three);
            }
        }
        for feature in 1..FEATURES {
            let at = 4 * LANES * (TRITS - feature);
            for (lanes, pair) in lanes_and_pairs() {
                let sum = self.sum(lanes, feature, pair);
                a.shift_right_4s(sum, sum, 8);
                a.unary(NEG_4S, sum, sum);
            }
            for pair in 0..self.pairs {
                let (sum, further) = (self.sum(0, feature, pair), self.sum(self.lanes - 1, feature, pair));
                let (even_row, odd_row) = (row(2 * pair), row(2 * pair + 1));
                if self.lanes == 1 {
                    a.store_half(sum, even_row, at);
                    a.op(ZIP2_2D, odd, sum, sum);
                    a.store_half(odd, odd_row, at);
                } else {
                    a.op(ZIP1_2D, even, sum, further);
                    a.store_vector(even, even_row, at);
                    a.op(ZIP2_2D, odd, sum, further);
                    a.store_vector(odd, odd_row, at);
                }
            }
        }
    }
}
