//! A kernel as a small program over virtual vectors. Every emitter lowers it, and people can read it.
//!
//! A [`KernelSpec`] and a [`Target`] enter, a tree of loops and about a dozen operations leaves. The program fixes the
//! arithmetic (which [`Dot`], so which correction), the order of the passes over a tile and how many accumulators live
//! in registers; an emitter only chooses instructions. `Display` gives its text form.
//!
//! # Arithmetic
//!
//! [`SignedFix`](trit_format::dense243::Code::SignedFix): a stored byte `x_0` (as i8) holds the trits of five rows.
//! Its features `x_{j+1} = 3 * x_j mod 256` are multiplied by the activation and summed, `X_j = sum x_j * a`, and
//! `(3 * X_j - X_{j+1}) >> 8` is the ternary dot product of tile digit `4 - j`, exactly. With bytes read as u8
//! (`x_0 ^ 0x80`) the same expression gives that plus `sum a`. The shift sees `256 * (sum + sum a)` in i32, so that
//! the result is exact for activations of -127 to 127 up to [`MAX_K`](trit_format::kernel::MAX_K) columns, and for
//! -128 too up to 32768.
//!
//! [`Spread`](trit_format::dense243::Code::Spread): a stored byte is `28 * h + l` with `h = d_3 + 3 * d_4` and
//! `l = d_0 + 3 * d_1 + 9 * d_2`, where digit `d_i` is trit `i` plus 1. `h` depends on the byte's upper six bits
//! alone, so that one [`Table`] gives `28 * h` and another `d_4`; `l` is below 28, an index itself. The five features
//! are `l`, `d_1`, `d_2`, `28 * h` and `d_4`; their sums give those of the digits, each `sum a` too much.
//!
//! [`Binary`](trit_format::dense243::Code::Binary) is the same method in base 2. A stored byte `x_0` holds the signs of
//! eight rows: bit `b` stands for the weight `2 b - 1`. Its features are `x_{j+1} = 2 * x_j mod 256`, one addition each,
//! where base 3 takes two. With bytes read as u8, the bit that falls out is `2 * x_j - x_{j+1} = 256 b`, so that
//! `(2 * X_j - X_{j+1}) >> 7` is twice the sum `B` of the activations that meet a set bit of tile digit `7 - j`, and
//! `2 B - sum a` is the dot product. `x_8` is 0, so that eight features suffice for eight rows. The three ways in which
//! products are formed read the features so:
//!
//! - [`Dot::UnsignedSigned`]: as u8, which is what is written above.
//! - [`Dot::SignedSigned`]: as i8, which is 256 less where the upper bit is set. `2 * X_j - X_{j+1}` is then `256` times
//!   the difference of two neighbouring `B`. These add up: `256 B = -(2 * X_j + X_{j+1} + ... + X_7)`.
//! - [`Dot::UnsignedPairs`]: sums of two products have 16 bits, so that features must be below 128. Instead of shifting
//!   upper bits out they are masked off: `y_0 = x_0 >> 7` and `y_j = x_0 mod 2^(8-j)`. Each takes one operation as well,
//!   and `Y_j - Y_{j+1}` is `2^(7-j) B`. No activation's sign has to be moved to a feature.
//! - [`Dot::UnsignedPairs16`]: where rows are short, as groups are, sums of all columns have 16 bits as well if features
//!   are small. They are single bits, and a few shifts bring each of them down to one of the lowest places: of bits
//!   below `2^s`, `q` quads add up to `2^(s-1) * 2 * 128 * q` in magnitude, which has 16 bits for `q * 2^(s-1) <= 128`.
//!   Sums are widened once, after the last column.
//!
//! The shifts see at most `256 * B` with `B` the sum of up to `k` activations: exact up to
//! [`MAX_K`](trit_format::kernel::MAX_K) columns, for activations of -128 too.

use crate::error::{CodegenError, check};
use trit_format::dense243::{Code, SIGNS, TRITS};
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::QUAD;

mod machine;

use machine::Machine;

/// Features that a byte of the code is expanded to. For `SignedFix` these are one more than trits, since each trit is the
/// difference of two.
pub const fn features(code: Code) -> usize {
    match code {
        Code::SignedFix => TRITS + 1,
        Code::Binary => SIGNS,
        _ => TRITS,
    }
}

/// A virtual vector register, written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u16);

/// A vector of i32 sums, one for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acc {
    /// Activation row within the group.
    pub row: u8,
    /// Vector within the lanes of one pass.
    pub part: u8,
    /// Which of the byte's features is summed.
    pub feature: u8,
}

/// Sixty-four bytes looked up by the upper six bits of a byte of code `Spread`, or by its `l`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `28 * h` by the upper six bits.
    High28,
    /// `d_4` by the upper six bits.
    Digit4,
    /// `d_1` by `l`.
    Digit1,
    /// `d_2` by `l`.
    Digit2,
}

impl Table {
    /// Its bytes. No stored byte reaches the other entries, so their values do not matter.
    pub fn bytes(self) -> [u8; 64] {
        // A byte 28 * h + l has the upper six bits 7 * h + l / 4, and l / 4 is below 7.
        std::array::from_fn(|i| match self {
            Table::High28 => 28 * (i / 7).min(8) as u8,
            Table::Digit4 => (i / 21) as u8,
            Table::Digit1 => (i / 3 % 3) as u8,
            Table::Digit2 => (i / 9 % 3) as u8,
        })
    }
}

/// How four products are formed and summed into each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// u8 features by i8 activations (`vpdpbusd`). Each result is too large by `sum a`.
    UnsignedSigned,
    /// i8 by i8 (`sdot`, or `smull` and pairwise sums).
    SignedSigned,
    /// i8 features that carry the activation's sign, by the activation's magnitude as u8 (`pmaddubsw`). No feature is
    /// -128, so sums of two products reach at most `2 * 127 * 128 = 32512` and never saturate.
    SignedMagnitude,
    /// u8 features below 128 by i8 activations (`pmaddubsw`, or `smull`, for which they are i8 as well). Sums of two
    /// products are as small.
    UnsignedPairs,
    /// As [`Dot::UnsignedPairs`], but sums of two products are summed in i16: each lane of i32 is two of them.
    UnsignedPairs16,
}

/// One operation. `part` counts vectors from the pass's first lane, `row` activation rows from the group's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `acc = 0`.
    Zero(Acc),
    /// The activation quad of `row` in every lane.
    Broadcast(Reg, u8),
    /// Stored weight bytes of the quad.
    Load(Reg, u8),
    /// Flips the sign bit of each byte: i8 order to u8 order.
    XorSign(Reg, Reg),
    /// `-1` where a byte is negative, else `0`.
    SignMask(Reg, Reg),
    /// Magnitude of each byte, as u8.
    Magnitude(Reg, Reg),
    /// Negates the bytes of the second register where the third, a sign mask, is set.
    NegateWhere(Reg, Reg, Reg),
    /// The bytes of the second register times the sign, -1, 0 or 1, of those of the third.
    TimesSign(Reg, Reg, Reg),
    /// Three times each byte, modulo 256: the next feature.
    Times3(Reg, Reg),
    /// Twice each byte, modulo 256: the next feature in base 2.
    Double(Reg, Reg),
    /// The bits of each byte that the mask has.
    And(Reg, Reg, u8),
    /// Each byte shifted right by so many bits. As many upper bits of the result are unspecified.
    ShiftRight(Reg, Reg, u8),
    /// The table's byte for the lower six bits of each byte.
    Lookup(Reg, Reg, Table),
    /// `a - b` in bytes, modulo 256.
    SubtractBytes(Reg, Reg, Reg),
    /// `acc += dot4(features, activations)` in each lane.
    Dot4(Acc, Reg, Reg, Dot),
    /// The sum of the activations of `row` in every lane.
    Sum(Reg, u8),
    /// `(base * high - low) >> shift` in i32.
    Recover {
        /// The result.
        value: Reg,
        /// 1, 2 or 3.
        base: u8,
        /// Sums of a feature.
        high: Acc,
        /// Sums of the feature after it; `None` where that is 0.
        low: Option<Acc>,
        /// How many bits the result is shifted right by.
        shift: u8,
    },
    /// The sum of the two i16 in each lane of the accumulator, once or twice, as i32.
    Widen {
        /// The result.
        value: Reg,
        /// Sums in i16.
        acc: Acc,
        /// Whether the sum is doubled.
        twice: bool,
    },
    /// The accumulator as it stands.
    Take(Reg, Acc),
    /// Times a constant, in wrapping i32.
    Multiply(Reg, Reg, i32),
    /// Each i32 shifted right by so many bits, keeping its sign.
    ShiftRightI32(Reg, Reg, u8),
    /// `a - b` in i32.
    Subtract(Reg, Reg, Reg),
    /// Writes one i32 a lane to `out[row, digit * 16 + lane]`.
    Store {
        /// What is written.
        value: Reg,
        /// Activation row within the group.
        row: u8,
        /// Trit or sign within the byte, least significant first.
        digit: u8,
        /// Vector within the lanes of one pass.
        part: u8,
    },
}

impl Op {
    /// The register it writes.
    pub(crate) fn writes(&self) -> Option<Reg> {
        match *self {
            Op::Zero(_) | Op::Dot4(..) | Op::Store { .. } => None,
            Op::Broadcast(r, _)
            | Op::Load(r, _)
            | Op::XorSign(r, _)
            | Op::SignMask(r, _)
            | Op::Magnitude(r, _)
            | Op::NegateWhere(r, ..)
            | Op::TimesSign(r, ..)
            | Op::Times3(r, _)
            | Op::Double(r, _)
            | Op::And(r, ..)
            | Op::ShiftRight(r, ..)
            | Op::Lookup(r, ..)
            | Op::SubtractBytes(r, ..)
            | Op::Sum(r, _)
            | Op::Recover { value: r, .. }
            | Op::Widen { value: r, .. }
            | Op::Take(r, _)
            | Op::Multiply(r, ..)
            | Op::ShiftRightI32(r, ..)
            | Op::Subtract(r, ..) => Some(r),
        }
    }

    /// The registers it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = Reg> + use<> {
        let (a, b) = match *self {
            Op::Zero(_)
            | Op::Broadcast(..)
            | Op::Load(..)
            | Op::Sum(..)
            | Op::Recover { .. }
            | Op::Widen { .. }
            | Op::Take(..) => (None, None),
            Op::XorSign(_, x)
            | Op::SignMask(_, x)
            | Op::Magnitude(_, x)
            | Op::Times3(_, x)
            | Op::Double(_, x)
            | Op::And(_, x, _)
            | Op::ShiftRight(_, x, _)
            | Op::Lookup(_, x, _)
            | Op::Multiply(_, x, _)
            | Op::ShiftRightI32(_, x, _) => (Some(x), None),
            Op::NegateWhere(_, x, y)
            | Op::TimesSign(_, x, y)
            | Op::SubtractBytes(_, x, y)
            | Op::Dot4(_, x, y, _)
            | Op::Subtract(_, x, y) => (Some(x), Some(y)),
            Op::Store { value, .. } => (Some(value), None),
        };
        [a, b].into_iter().flatten()
    }
}

/// Brings weights into the cache before they are needed, once in each iteration of the inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Where the address stands when a tile begins.
    pub start: Start,
    /// Cache lines of one iteration, 64 bytes apart.
    pub lines: u32,
    /// Bytes to advance after them. Over the passes of a tile this adds up to no more than a tile.
    pub stride: u32,
}

/// Where a [`Touch`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the next tile. The bytes are read and so must lie inside the weights: the last tile touches itself.
    NextTile,
    /// So many bytes past the start of this tile. The bytes are prefetched, for which any address is allowed.
    Ahead(u32),
}

/// A loop or an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One operation.
    Op(Op),
    /// Once for each tile; their number is an argument of the call. After each, activations and sums move on by the
    /// call's advances.
    Tiles(Vec<Node>),
    /// `groups` times `rows` activation rows, from row `first`.
    Rows {
        /// First activation row.
        first: u32,
        /// Iterations.
        groups: u32,
        /// Activation rows of one iteration.
        rows: u32,
        /// What each does.
        body: Vec<Node>,
    },
    /// A pass over the tile for every `parts` vectors of lanes.
    Lanes {
        /// Vectors of lanes handled in one pass.
        parts: u32,
        /// What each does.
        body: Vec<Node>,
    },
    /// The inner loop: once for each quad of `k`, `unroll` at a time, a remainder after it.
    Quads {
        /// Quads in a row.
        count: u32,
        /// Quads of one iteration.
        unroll: u32,
        /// Sets of accumulators that successive quads of an iteration use in turn, so that sums need not wait for
        /// each other. [`Op::Zero`] clears all; when the loop ends they are added up into the first.
        sets: u32,
        /// Once an iteration.
        touch: Option<Touch>,
        /// What each quad does.
        body: Vec<Op>,
    },
}

/// A whole kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it computes.
    pub(crate) spec: KernelSpec,
    /// For which tier.
    pub(crate) target: Target,
    /// Bytes of a vector register.
    pub(crate) vector: u32,
    /// The tile loop.
    pub(crate) body: Vec<Node>,
}

impl Program {
    /// The program of `spec` on `target`.
    ///
    /// # Errors
    /// [`CodegenError::Unsupported`] for a target without an emitter, [`CodegenError::Kind`], [`CodegenError::Code`]
    /// and [`CodegenError::Range`] for a specification that cannot be served.
    pub fn new(spec: &KernelSpec, target: Target) -> Result<Program, CodegenError> {
        check(spec)?;
        if !crate::supported().contains(&target) {
            return Err(CodegenError::Unsupported { target });
        }
        if spec.kind != KernelKind::Stream {
            return Err(CodegenError::Kind { spec: *spec, target });
        }
        let machine = Machine::of(target, spec).ok_or(CodegenError::Code { spec: *spec, target })?;
        // The rows form as few groups as possible. What is left forms one smaller group.
        let rows = spec.m.min(machine.registers.most_rows);
        let mut groups = vec![(0, spec.m / rows, rows)];
        if !spec.m.is_multiple_of(rows) {
            groups.push((spec.m - spec.m % rows, 1, spec.m % rows));
        }
        let passes: u32 = groups.iter().map(|&(_, n, rows)| n * machine.passes(rows)).sum();
        let body = groups.into_iter().map(|(first, groups, rows)| Node::Rows {
            first,
            groups,
            rows,
            body: vec![machine.pass(spec, rows as u8, passes)],
        });
        let body = vec![Node::Tiles(body.collect())];
        Ok(Program { spec: *spec, target, vector: machine.registers.vector, body })
    }

    /// Bytes of a vector register.
    pub fn vector(&self) -> u32 {
        self.vector
    }

    /// The tile loop.
    pub fn body(&self) -> &[Node] {
        &self.body
    }

    /// Lanes in one vector.
    pub fn lanes(&self) -> u32 {
        self.vector / QUAD as u32
    }
}
