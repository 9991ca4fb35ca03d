//! Few rows, where there is `smmla` or `sdot`: weights are expanded in registers, as stream kernels do, and never stored.
//!
//! ```text
//! for tile
//!   for 2 or 4 lanes                  10 or 20 tile rows: up to 24 accumulators, of features by rows
//!     for 8 or 4 columns              six features by each row, or pair of rows
//!     results: differences of features
//! ```
//!
//! Expanding a byte to its five trits and storing them takes 15 instructions for a vector, expanding it to six features
//! five; in return there are six products for five. With few rows that is less: with `smmla`, of the instructions of
//! `chunks` 0.8 with eight, 0.65 with four, 0.55 with two; with `sdot` 0.8 with four and 0.7 with two.
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

const FEATURES: usize = features(Code::SignedFix);
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

/// The part for a number of rows.
#[derive(Clone, Copy)]
struct Few {
    products: Products,
    k: usize,
    /// For `smmla` an even number, of which the last may be missing.
    rows: usize,
    /// Vectors of weights in a pass: of two lanes and two quads for `smmla`, of four lanes and one quad for `sdot`.
    vectors: usize,
}

/// The parts that a kernel of `spec` has, for fewest rows first. Signs have eight features, for which there are not enough
/// registers, and are decoded by one instruction each.
fn parts(spec: &KernelSpec, products: Products) -> Vec<Few> {
    let (rows, vectors): (&[usize], &dyn Fn(usize) -> usize) = match products {
        _ if spec.code != Code::SignedFix => (&[], &|_| 1),
        Products::Long => (&[], &|_| 1),
        // More than one row, which `sdot` reads from memory as fast by itself.
        Products::Dot => (&[2, 3, 4], &|_| 1),
        // Two pairs of lanes share the activations where there are registers for their sums.
        Products::Matrix => (&[2, 4, 6, 8], &|rows| if rows <= 4 { 2 } else { 1 }),
    };
    rows.iter().map(|&rows| Few { products, k: spec.k as usize, rows, vectors: vectors(rows) }).collect()
}

/// All tiles, then on to `end`, where the rows are few; otherwise only on.
pub(super) fn emit(a: &mut Asm, spec: &KernelSpec, products: Products, end: Label) {
    let parts = parts(spec, products);
    let Some(most) = parts.last().map(|few| few.rows) else { return };
    let other = a.label();
    a.load(ROWS_LEFT, ARGS, offset_of!(KernelArgs, rows));
    a.compare(ROWS_LEFT, most as u32 + 1);
    a.jump_unless_below(other);
    if products == Products::Dot {
        a.compare(ROWS_LEFT, parts[0].rows as u32);
        a.jump_if_below(other);
    }
    a.load(ACTIVATIONS, ARGS, offset_of!(KernelArgs, activations));
    a.copy(PACKED, DIGITS);
    a.constant(STEPS, (spec.k as usize).div_ceil(COLUMNS) as u64);
    a.sub(LAST, ROWS_LEFT, 1);
    for few in parts {
        let more = a.label();
        if few.rows < most {
            a.compare(ROWS_LEFT, few.rows as u32 + 1);
            a.jump_unless_below(more);
        }
        few.tiles(a);
        a.jump(end);
        a.place(more);
    }
    a.place(other);
}

impl Few {
    /// Vectors of activations that meet a vector of weights.
    fn operands(&self) -> usize {
        self.products.operands(self.rows)
    }

    /// Quads of a vector of weights.
    fn unit(&self) -> usize {
        self.products.unit()
    }

    /// Bytes of the lanes of a pass, both of a quad of weights and of a row of results.
    fn pass_bytes(&self) -> usize {
        16 * self.vectors / self.unit()
    }

    fn sum(&self, vector: usize, feature: usize, operand: usize) -> V {
        V(((vector * FEATURES + feature) * self.operands() + operand) as u8)
    }

    fn tiles(&self, a: &mut Asm) {
        self.point(a, ACTIVATIONS, STRIDE);
        pack(a, self.products, self.rows);
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
        (0..self.rows).for_each(|n| a.add(row(n), row(n), self.pass_bytes() as u32));
        a.count_down(PASSES, 1);
        a.jump_if_not_equal(pass);
        (0..self.rows).for_each(|n| a.add(row(n), row(n), (4 * (TRITS - 1) * LANES) as u32));
        a.add(WEIGHTS, WEIGHTS, tile::bytes(self.k) as u32);
        a.count_down(TILES, 1);
        a.jump_if_not_equal(next_tile);
    }

    /// [`row`]s to rows of activations or results. Where the last is missing it is the one before: that is multiplied
    /// twice, and what is written twice is the same.
    fn point(&self, a: &mut Asm, first: X, stride: X) {
        let last = self.rows - 1;
        a.copy(row(0), first);
        (1..last).for_each(|n| a.add_register(row(n), row(n - 1), stride));
        a.multiply_add(row(last), LAST, stride, first);
    }

    /// The sums of the features of one pass.
    fn multiply(&self, a: &mut Asm) {
        let (weights, packed, left) = (X(16), X(17), X(13));
        (0..self.vectors * FEATURES * self.operands()).for_each(|n| a.zero(V(n as u8)));
        a.copy(weights, LANES_AT);
        a.copy(packed, PACKED);
        let quads = padded_k(self.k) / QUAD;
        let together = COLUMNS / QUAD;
        let some = |a: &mut Asm, quads: usize| {
            for first in (0..quads).step_by(self.unit()) {
                self.unit_of_weights(a, (weights, first), packed, (quads - first).min(self.unit()));
            }
        };
        if quads >= together {
            a.constant(left, (quads / together) as u64);
            let again = a.here();
            some(a, together);
            a.add(weights, weights, (together * VECTOR) as u32);
            a.count_down(left, 1);
            a.jump_if_not_equal(again);
        }
        some(a, quads % together);
    }

    /// The quads of a vector of weights, of which `quads` are there.
    fn unit_of_weights(&self, a: &mut Asm, (weights, first): (X, usize), packed: X, quads: usize) {
        // A vector of activations holds 16 columns of a row, or eight of two.
        let packed_quads = if self.products == Products::Matrix { 2 } else { 4 };
        if first.is_multiple_of(packed_quads) {
            a.load_all_next(ACTIVATION_VECTORS, self.operands(), packed, None);
        }
        let at = |quad: usize| (first + quad) * VECTOR;
        let (this, other) = BYTES[0];
        if self.products == Products::Matrix {
            // A missing quad meets activations of zero.
            for (quad, bytes) in [this, other].into_iter().enumerate().take(quads) {
                match self.vectors {
                    1 => a.load_half(bytes, weights, at(quad)),
                    _ => a.load_vector(bytes, weights, at(quad)),
                }
            }
            if self.vectors == 2 {
                a.op(ZIP2_4S, BYTES[1].0, this, other);
            }
            a.op(ZIP1_4S, this, this, other);
        } else {
            a.load_vector(this, weights, at(0));
        }
        for vector in 0..self.vectors {
            self.features(a, vector, first % packed_quads);
        }
    }

    /// Multiplies the features of a vector. Each is three times the one before, or nine times the one before that, so that
    /// it need not wait for it.
    fn features(&self, a: &mut Asm, vector: usize, quad: usize) {
        let (mut this, mut next) = BYTES[vector];
        for feature in 0..FEATURES {
            if feature == 0 {
                a.op(MUL_16B, next, this, THREE);
            }
            for operand in 0..self.operands() {
                let (sum, x) = (self.sum(vector, feature, operand), ACTIVATION_VECTORS.plus(operand));
                match self.products {
                    Products::Matrix => a.op(SMMLA, sum, x, this),
                    _ => a.sdot_by_quad(sum, this, x, quad),
                }
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
        let sums = || (0..self.vectors).flat_map(|v| (0..self.operands()).map(move |operand| (v, operand)));
        for feature in (1..FEATURES).rev() {
            for (vector, operand) in sums() {
                let [sum, before] = [feature, feature - 1].map(|f| self.sum(vector, f, operand));
                a.op(MLS_4S, sum, before, three);
            }
        }
        for feature in 1..FEATURES {
            let at = 4 * LANES * (TRITS - feature);
            for (vector, operand) in sums() {
                let sum = self.sum(vector, feature, operand);
                a.shift_right_4s(sum, sum, 8);
                a.unary(NEG_4S, sum, sum);
            }
            for operand in 0..self.operands() {
                let [sum, further] = [0, self.vectors - 1].map(|vector| self.sum(vector, feature, operand));
                match (self.products, self.vectors) {
                    (Products::Matrix, 1) => {
                        a.store_half(sum, row(2 * operand), at);
                        a.op(ZIP2_2D, odd, sum, sum);
                        a.store_half(odd, row(2 * operand + 1), at);
                    }
                    (Products::Matrix, _) => {
                        a.op(ZIP1_2D, even, sum, further);
                        a.store_vector(even, row(2 * operand), at);
                        a.op(ZIP2_2D, odd, sum, further);
                        a.store_vector(odd, row(2 * operand + 1), at);
                    }
                    _ => a.store_vector(sum, row(operand), at),
                }
            }
        }
    }
}
