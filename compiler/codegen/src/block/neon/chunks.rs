//! Many rows: a chunk of a tile is decoded to digits in scratch memory, which then meet all rows.
//!
//! ```text
//! for tile
//!   for chunk of k                    digits of the tile's chunk go to scratch, which then stay in L1
//!     for rows, 8 or 4 at a time      their activations go to scratch in the order in which they are multiplied
//!       for 64 bytes of a unit        16, 8 or 4 tile rows: 16 accumulators, or as many as the rows need
//!         for unit of the chunk       1, 2 or 4 quads
//!         results: store, or add to what the chunk before has stored
//! ```
//!
//! A vector of digits holds what one instruction multiplies. Of tile rows by columns that is 4 by 4 for `sdot`, as weights
//! are stored, 2 by 8 for `smmla`, and 1 by 16 for `smlal`, whose two halves of eight columns add to the same sums. Bytes
//! are brought into this order before they are decoded, when they are a fifth or an eighth as many. Trits are decoded to
//! -1, 0 and 1, so that no sum of the activations is subtracted; signs to -1 and 0, of which it is.

use super::asm::{
    ADD_4S, ADDP_4S, Asm, NEG_4S, SADDLP_4S, SMLAL, SMLAL2, SMMLA, SUB_4S, V, X, ZIP1_2D, ZIP1_4S, ZIP2_2D,
    ZIP2_4S,
};
use super::decode::{self, TOGETHER};
use super::{
    ACTIVATIONS, ARGS, CHUNKS, COLUMNS, DIGITS, NeonBlocking, OPERANDS, OUT, OUT_STRIDE, PACKED, Products,
    ROW, ROW_OUT, ROW_SUMS, ROWS_LEFT, STEPS, STRIDE, SUM_STRIDE, TILES, WEIGHTS, pack, row,
};
use crate::block;
use std::mem::offset_of;
use trit_format::dense243::Code;
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::tile::{LANES, QUAD, VECTOR, padded_k};

/// Bytes of digits of a unit in one pass.
const PASS: usize = TOGETHER * 16;

// Vector registers of the inner loop beside the activations: 16 accumulators, and digits twice.
const ACCUMULATORS: V = V(0);
const DIGIT_VECTORS: [V; 2] = [V(24), V(28)];

impl Products {
    /// Quads whose digits form one vector.
    pub(super) const fn unit(self) -> usize {
        match self {
            Products::Long => 4,
            Products::Dot => 1,
            Products::Matrix => 2,
        }
    }

    /// Activation rows of a group.
    const fn rows(self) -> usize {
        match self {
            Products::Long | Products::Dot => 4,
            Products::Matrix => 8,
        }
    }
}

/// The sizes that follow from a specification.
#[derive(Clone, Copy)]
struct Shape {
    products: Products,
    code: Code,
    /// Columns of all chunks but the last, of the last, and how many chunks.
    chunk: usize,
    last: usize,
    chunks: usize,
    /// Quads that the weights of the last chunk hold.
    last_quads: usize,
}

impl Shape {
    fn new(spec: &KernelSpec, blocking: NeonBlocking) -> Shape {
        let k = padded_k(spec.k as usize);
        let (chunk, last, chunks) = block::chunks(k, COLUMNS, blocking.columns);
        let last_quads = (k - (chunks - 1) * chunk) / QUAD;
        Shape { products: blocking.products, code: spec.code, chunk, last, chunks, last_quads }
    }

    /// Bytes of digits of one unit. They are those of the passes one after the other.
    fn unit_bytes(self) -> usize {
        self.passes() * PASS
    }

    /// Passes over the tile's rows.
    fn passes(self) -> usize {
        self.code.digits() * self.products.unit()
    }

    /// Bytes of a row of results of one pass, and of one tile.
    fn pass_out(self) -> usize {
        VECTOR / self.products.unit()
    }

    fn tile_out(self) -> usize {
        4 * self.code.digits() * LANES
    }

    /// Bytes of the digits of a chunk.
    fn digits(self) -> usize {
        self.chunk * self.code.tile_rows()
    }
}

/// All rows by all tiles.
pub(super) fn emit(a: &mut Asm, spec: &KernelSpec, blocking: NeonBlocking) {
    let shape = Shape::new(spec, blocking);
    a.add(PACKED, DIGITS, shape.digits() as u32);
    a.load(SUM_STRIDE, ARGS, offset_of!(KernelArgs, sum_stride));
    a.shift_left(SUM_STRIDE, SUM_STRIDE, 2);
    let tile = a.here();
    a.load(ACTIVATIONS, ARGS, offset_of!(KernelArgs, activations));
    a.constant(CHUNKS, shape.chunks as u64);
    let next_chunk = a.here();
    decode_chunk(a, shape);
    groups(a, shape);
    a.add(ACTIVATIONS, ACTIVATIONS, shape.chunk as u32);
    a.count_down(CHUNKS, 1);
    a.jump_if_not_equal(next_chunk);
    a.add(OUT, OUT, shape.tile_out() as u32);
    a.count_down(TILES, 1);
    a.jump_if_not_equal(tile);
}

/// The chunk at [`WEIGHTS`], which moves on, to [`DIGITS`]; and how long it is to [`STEPS`].
fn decode_chunk(a: &mut Asm, shape: Shape) {
    let (to, units, step) = (X(16), X(17), X(19));
    let unit = shape.products.unit();
    let (chunk_units, last_units) = (shape.chunk / QUAD / unit, shape.last_quads / unit);
    let remainder = shape.last_quads % unit;
    decode::constants(a, shape.code, to);
    a.copy(to, DIGITS);
    a.constant(step, (unit * PASS) as u64);
    let (is_last, decoded, next) = (a.label(), a.label(), a.label());
    a.constant(units, last_units as u64);
    a.constant(STEPS, (shape.last / COLUMNS) as u64);
    if shape.chunks > 1 {
        a.compare(CHUNKS, 1);
        a.jump_if_equal(is_last);
        a.constant(units, chunk_units as u64);
        a.constant(STEPS, (shape.chunk / COLUMNS) as u64);
        a.place(is_last);
    }
    if last_units == 0 {
        a.jump_if_zero(units, decoded);
    }
    let again = a.here();
    decode_unit(a, shape, unit, (to, step));
    a.count_down(units, 1);
    a.jump_if_not_equal(again);
    a.place(decoded);
    // The columns after those that are stored meet activations of zero, whatever their digits are.
    if remainder > 0 {
        if shape.chunks > 1 {
            a.compare(CHUNKS, 1);
            a.jump_if_not_equal(next);
        }
        decode_unit(a, shape, remainder, (to, step));
    }
    a.place(next);
}

/// A unit of which `quads` are stored.
fn decode_unit(a: &mut Asm, shape: Shape, quads: usize, (to, step): (X, X)) {
    let unit = shape.products.unit();
    for part in 0..unit {
        gather(a, shape.products, part, quads);
        decode::bytes(a, shape.code, to, step);
        // From the part's last digit to the next part's first, or to the next unit.
        let back = if part + 1 < unit { shape.unit_bytes() - PASS } else { (unit - 1) * PASS };
        if back > 0 {
            a.sub(to, to, back as u32);
        }
    }
    a.add(WEIGHTS, WEIGHTS, (quads * VECTOR) as u32);
}

/// Loads a part of the lanes of a unit, in the order in which vectors of digits are multiplied.
fn gather(a: &mut Asm, products: Products, part: usize, quads: usize) {
    let (bytes, free) = (decode::BYTES, decode::FREE);
    match products {
        Products::Dot => a.load_all(bytes, TOGETHER, WEIGHTS),
        // Eight lanes of two quads: the quads of a lane side by side.
        Products::Matrix => {
            for quad in 0..quads {
                let at = quad * VECTOR + part * 32;
                a.load_vectors((free.plus(2 * quad), free.plus(2 * quad + 1)), WEIGHTS, at);
            }
            for half in 0..2 {
                let (first, second) = (free.plus(half), free.plus(2 + half));
                a.op(ZIP1_4S, bytes.plus(2 * half), first, second);
                a.op(ZIP2_4S, bytes.plus(2 * half + 1), first, second);
            }
        }
        // Four lanes of four quads, transposed.
        Products::Long => {
            for quad in 0..quads {
                a.load_vector(free.plus(quad), WEIGHTS, quad * VECTOR + part * 16);
            }
            let pairs = free.plus(4);
            for odd in 0..2 {
                let (first, third) = (free.plus(odd), free.plus(2 + odd));
                a.op(ZIP1_4S, pairs.plus(odd), first, third);
                a.op(ZIP2_4S, pairs.plus(2 + odd), first, third);
            }
            for half in 0..2 {
                let (even, odd) = (pairs.plus(2 * half), pairs.plus(2 * half + 1));
                a.op(ZIP1_4S, bytes.plus(2 * half), even, odd);
                a.op(ZIP2_4S, bytes.plus(2 * half + 1), even, odd);
            }
        }
    }
}

/// All activation rows by the digits of a chunk.
fn groups(a: &mut Asm, shape: Shape) {
    let most = shape.products.rows();
    a.copy(ROW, ACTIVATIONS);
    a.copy(ROW_OUT, OUT);
    a.load(ROW_SUMS, ARGS, offset_of!(KernelArgs, sums));
    a.load(ROWS_LEFT, ARGS, offset_of!(KernelArgs, rows));
    let (tail, done) = (a.label(), a.label());
    a.compare(ROWS_LEFT, most as u32);
    a.jump_if_below(tail);
    let group = a.here();
    rows(a, shape, most);
    // The strides times 8 or 4, in a register that is free now.
    for (pointer, stride) in [(ROW, STRIDE), (ROW_OUT, OUT_STRIDE), (ROW_SUMS, SUM_STRIDE)] {
        a.shift_left(X(16), stride, most.ilog2());
        a.add_register(pointer, pointer, X(16));
    }
    a.sub(ROWS_LEFT, ROWS_LEFT, most as u32);
    a.compare(ROWS_LEFT, most as u32);
    a.jump_unless_below(group);
    a.place(tail);
    for left in 1..most {
        let other = a.label();
        a.compare(ROWS_LEFT, left as u32);
        a.jump_if_not_equal(other);
        rows(a, shape, left);
        a.jump(done);
        a.place(other);
    }
    a.place(done);
}

/// `rows` activation rows by the digits of a chunk, in passes over the tile's rows.
fn rows(a: &mut Asm, shape: Shape, rows: usize) {
    let (digits, left, out) = (X(19), X(20), X(21));
    a.copy(row(0), ROW);
    (1..rows).for_each(|n| a.add_register(row(n), row(n - 1), STRIDE));
    pack(a, shape.products, rows);
    a.copy(digits, DIGITS);
    a.constant(left, shape.passes() as u64);
    a.copy(out, ROW_OUT);
    let again = a.here();
    multiply(a, shape, rows, digits);
    results(a, shape, rows, out);
    a.add(digits, digits, PASS as u32);
    a.add(out, out, shape.pass_out() as u32);
    a.count_down(left, 1);
    a.jump_if_not_equal(again);
}

/// The sums of one pass to the accumulators.
fn multiply(a: &mut Asm, shape: Shape, rows: usize, first: X) {
    let (digits, packed, left, unit_bytes) = (X(16), X(17), X(22), X(23));
    let products = shape.products;
    let operands = products.operands(rows);
    for n in 0..operands * TOGETHER {
        a.zero(ACCUMULATORS.plus(n));
    }
    a.copy(digits, first);
    a.copy(packed, PACKED);
    a.copy(left, STEPS);
    a.constant(unit_bytes, shape.unit_bytes() as u64);
    let units = COLUMNS / QUAD / products.unit();
    // Vectors of activations serve 16 columns, or the eight of a unit of `smmla`.
    let units_packed = if products == Products::Dot { 16 / QUAD } else { 1 };
    let load = |a: &mut Asm, unit: usize| {
        if unit.is_multiple_of(units_packed) {
            a.load_all_next(OPERANDS[unit / units_packed % 2], operands, packed, None);
        }
        a.load_all_next(DIGIT_VECTORS[unit % 2], TOGETHER, digits, Some(unit_bytes));
    };
    let again = a.here();
    load(a, 0);
    for unit in 0..units {
        if unit + 1 < units {
            load(a, unit + 1);
        }
        let activations = OPERANDS[unit / units_packed % 2];
        let digits = DIGIT_VECTORS[unit % 2];
        for (n, v) in (0..operands).flat_map(|n| (0..TOGETHER).map(move |v| (n, v))) {
            let (sum, x, d) = (ACCUMULATORS.plus(n * TOGETHER + v), activations.plus(n), digits.plus(v));
            match products {
                Products::Long => a.op(SMLAL, sum, d, x),
                Products::Dot => a.sdot_by_quad(sum, d, x, unit % units_packed),
                Products::Matrix => a.op(SMMLA, sum, x, d),
            }
        }
        if products == Products::Long {
            for (n, v) in (0..operands).flat_map(|n| (0..TOGETHER).map(move |v| (n, v))) {
                a.op(SMLAL2, ACCUMULATORS.plus(n * TOGETHER + v), digits.plus(v), activations.plus(n));
            }
        }
    }
    a.count_down(left, 1);
    a.jump_if_not_equal(again);
}

/// The sums of one pass to the results of its rows, the first of which stands at `first`.
fn results(a: &mut Asm, shape: Shape, rows: usize, first: X) {
    let (out, sums) = (X(16), X(17));
    // Free here.
    let taken = DIGIT_VECTORS[0];
    let correction = DIGIT_VECTORS[1];
    let count = TOGETHER / shape.products.unit();
    let sums_of: Vec<V> = (0..rows).map(|row| finish(a, shape.products, row, rows)).collect();
    if shape.code == Code::Binary {
        // A digit -1 stands for a sign of +1: twice the sum of the digits is to be subtracted from minus that of the
        // activations.
        sums_of.iter().for_each(|&sum| (0..count).for_each(|i| a.shift_left_4s(sum.plus(i), sum.plus(i), 1)));
    }
    let combine = if shape.code == Code::Binary { SUB_4S } else { ADD_4S };
    a.copy(out, first);
    let (later, end) = (a.label(), a.label());
    if shape.chunks > 1 {
        a.compare(CHUNKS, shape.chunks as u32);
        a.jump_if_not_equal(later);
    }
    if shape.code == Code::Binary {
        a.copy(sums, ROW_SUMS);
    }
    for &sum in &sums_of {
        if shape.code == Code::Binary {
            a.broadcast(correction, sums);
            a.add_register(sums, sums, SUM_STRIDE);
            a.unary(NEG_4S, correction, correction);
            (0..count).for_each(|i| a.op(combine, sum.plus(i), correction, sum.plus(i)));
        }
        a.store_all(sum, count, out);
        a.add_register(out, out, OUT_STRIDE);
    }
    if shape.chunks > 1 {
        a.jump(end);
        a.place(later);
        // The sums may be subtracted only once: here they come from the first chunk's results.
        for &sum in &sums_of {
            a.load_all(taken, count, out);
            (0..count).for_each(|i| a.op(combine, sum.plus(i), taken.plus(i), sum.plus(i)));
            a.store_all(sum, count, out);
            a.add_register(out, out, OUT_STRIDE);
        }
    }
    a.place(end);
}

/// Brings the sums of a row into the order of results, in successive registers from the one that is returned. All rows
/// are to be finished, in order.
fn finish(a: &mut Asm, products: Products, row: usize, rows: usize) -> V {
    let sum = |n: usize| ACCUMULATORS.plus(n);
    match products {
        Products::Dot => sum(row * TOGETHER),
        // Eight sums of i16 for each of four results.
        Products::Long => {
            let at = row * TOGETHER;
            (at..at + TOGETHER).for_each(|n| a.unary(SADDLP_4S, sum(n), sum(n)));
            a.op(ADDP_4S, sum(at), sum(at), sum(at + 1));
            a.op(ADDP_4S, sum(at + 2), sum(at + 2), sum(at + 3));
            a.op(ADDP_4S, sum(at), sum(at), sum(at + 2));
            sum(at)
        }
        // Each register holds two results of this row and two of the next.
        Products::Matrix => {
            let at = row / 2 * TOGETHER;
            let even = OPERANDS[0].plus(row / 2 * 2);
            if row % 2 == 1 {
                return sum(at);
            }
            for half in 0..2 {
                a.op(ZIP1_2D, even.plus(half), sum(at + 2 * half), sum(at + 2 * half + 1));
            }
            for half in (0..2).filter(|_| row + 1 < rows) {
                a.op(ZIP2_2D, sum(at + half), sum(at + 2 * half), sum(at + 2 * half + 1));
            }
            even
        }
    }
}
