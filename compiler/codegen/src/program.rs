//! A kernel as a small program over virtual vectors: what every emitter lowers, and what people read.
//!
//! A [`KernelSpec`] and a [`Target`] enter, a tree of loops and about a dozen operations leaves. The program fixes the
//! arithmetic (which [`Dot`], so which correction), the order of the passes over a tile and how many accumulators live
//! in registers; an emitter only chooses instructions. `Display` gives its text form.
//!
//! # Arithmetic
//!
//! A stored byte `x_0` (as i8) holds the trits of five rows. Its features `x_{j+1} = 3 * x_j mod 256` are multiplied
//! by the activation and summed, `X_j = sum x_j * a`, and `(3 * X_j - X_{j+1}) >> 8` is the ternary dot product of
//! tile digit `4 - j`, exactly. With bytes read as u8 (`x_0 ^ 0x80`) the same expression gives that plus `sum a`.
//! The shift sees `256 * (sum + sum a)` in i32, so that the result is exact for activations of -127 to 127 up to
//! [`MAX_K`](trit_format::kernel::MAX_K) columns, and for -128 too up to 32768.

use crate::error::{CodegenError, check};
use trit_format::dense243::{Code, TRITS};
use trit_format::kernel::KernelSpec;
use trit_format::target::Target;
use trit_format::tile::{QUAD, VECTOR, padded_k};

/// Features a byte is expanded to: one more than trits, since each trit is the difference of two.
pub const FEATURES: usize = TRITS + 1;

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
    /// Feature `X_j`.
    pub feature: u8,
}

/// How four products are formed and summed into each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// u8 features by i8 activations (`vpdpbusd`); each result holds `sum a` too much.
    UnsignedSigned,
    /// i8 by i8 (`sdot`, or `smull` and pairwise sums).
    SignedSigned,
    /// i8 features that carry the activation's sign, by the activation's magnitude as u8 (`pmaddubsw`). Sums of two
    /// products reach at most `2 * 127 * 128 = 32512`, so that they never saturate: no feature is -128.
    SignedMagnitude,
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
    /// Three times each byte, modulo 256: the next feature.
    Times3(Reg, Reg),
    /// `acc += dot4(features, activations)` in each lane.
    Dot4(Acc, Reg, Reg, Dot),
    /// The sum of the activations of `row` in every lane.
    Sum(Reg, u8),
    /// `(3 * high - low) >> 8` in i32.
    Recover(Reg, Acc, Acc),
    /// `a - b` in i32.
    Subtract(Reg, Reg, Reg),
    /// Writes one i32 a lane to `out[row, digit * 16 + lane]`.
    Store {
        /// What is written.
        value: Reg,
        /// Activation row within the group.
        row: u8,
        /// Trit within the byte, least significant first.
        digit: u8,
        /// Vector within the lanes of one pass.
        part: u8,
    },
}

/// Reads of the next tile that bring it into the cache while this one is computed. They stay inside the weights: the
/// last tile touches itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Cache lines read in one iteration, 64 bytes apart.
    pub lines: u32,
    /// Bytes to advance after them. Over the passes of a tile this adds up to no more than a tile.
    pub stride: u32,
}

/// A loop or an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One operation.
    Op(Op),
    /// Once for each tile; their number is an argument of the call.
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
    pub spec: KernelSpec,
    /// For which tier.
    pub target: Target,
    /// Bytes of a vector register.
    pub vector: u32,
    /// The tile loop.
    pub body: Vec<Node>,
}

impl Program {
    /// The program of `spec` on `target`.
    ///
    /// # Errors
    /// [`CodegenError::Unsupported`] for a target without an emitter, [`CodegenError::Code`] and
    /// [`CodegenError::Range`] for a specification that cannot be served.
    pub fn new(spec: &KernelSpec, target: Target) -> Result<Program, CodegenError> {
        check(spec)?;
        let machine = Machine::of(target).ok_or(CodegenError::Unsupported { target })?;
        if spec.code != Code::SignedFix {
            return Err(CodegenError::Code { spec: *spec, target });
        }
        // Rows in as few groups as possible, then what is left in one smaller group.
        let rows = spec.m.min(machine.most_rows);
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
        Ok(Program { spec: *spec, target, vector: machine.vector, body })
    }

    /// Lanes in one vector.
    pub fn lanes(&self) -> u32 {
        self.vector / QUAD as u32
    }
}

/// What of a tier shapes the program.
struct Machine {
    /// Bytes of a vector.
    vector: u32,
    /// Groups of [`FEATURES`] accumulators that fit its registers beside the operands.
    accumulator_groups: u32,
    /// Activation rows that share features.
    most_rows: u32,
    /// Parts whose features are computed side by side.
    together: u8,
    dot: Dot,
}

impl Machine {
    /// The wide x86-64 tiers belong to an emitter of their own and have none yet.
    fn of(target: Target) -> Option<Machine> {
        let machine = |accumulator_groups, most_rows, together, dot| Machine {
            vector: 16,
            accumulator_groups,
            most_rows,
            together,
            dot,
        };
        match target {
            // The activation's sign goes into the features, so rows have none in common. 12 of 16 registers hold
            // accumulators; a spilled temporary costs less than preparing the activations for two more passes.
            Target::X86_64V2 | Target::X86_64V3 => Some(machine(2, 1, 1, Dot::SignedMagnitude)),
            // 12 of 16 registers.
            Target::X86_64V3Vnni => Some(machine(2, 2, 1, Dot::UnsignedSigned)),
            // 24 of 32 registers. Chains of features are interleaved for cores that execute in order.
            Target::Aarch64 => Some(machine(4, 4, 2, Dot::SignedSigned)),
            Target::Aarch64Dotprod => Some(machine(4, 4, 4, Dot::SignedSigned)),
            _ => None,
        }
    }

    fn vectors(&self) -> u32 {
        VECTOR as u32 / self.vector
    }

    /// Vectors of lanes in one pass: a power of two, so that passes are alike.
    fn parts(&self, rows: u32) -> u32 {
        let most = (self.accumulator_groups / rows).clamp(1, self.vectors());
        1 << most.ilog2()
    }

    fn passes(&self, rows: u32) -> u32 {
        self.vectors() / self.parts(rows)
    }

    /// A pass over one tile for `rows` activation rows: clear, accumulate, recover, store.
    fn pass(&self, spec: &KernelSpec, rows: u8, passes: u32) -> Node {
        let parts = self.parts(rows.into()) as u8;
        let mut body = Vec::new();
        for (row, part) in accumulators(rows, parts) {
            body.extend((0..FEATURES as u8).map(|feature| Node::Op(Op::Zero(Acc { row, part, feature }))));
        }
        // A line is touched for every 64 bytes the passes consume, spread evenly over all of them.
        let touch = (spec.prefetch > 0).then(|| Touch {
            lines: (spec.unroll / passes).max(1),
            stride: VECTOR as u32 * spec.unroll / passes,
        });
        let count = (padded_k(spec.k as usize) / QUAD) as u32;
        let mut regs = Regs(0);
        body.push(Node::Quads { count, unroll: spec.unroll, touch, body: self.quad(rows, parts, &mut regs) });
        body.extend(self.epilogue(rows, parts, &mut regs).into_iter().map(Node::Op));
        Node::Lanes { parts: parts.into(), body }
    }

    /// What one quad of `k` adds to the accumulators.
    fn quad(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        let mut ops = Vec::new();
        let activations: Vec<Reg> =
            (0..rows).map(|row| regs.def(&mut ops, |r| Op::Broadcast(r, row))).collect();
        let factors: Vec<(Reg, Option<Reg>)> = activations
            .into_iter()
            .map(|a| match self.dot {
                Dot::SignedMagnitude => {
                    let sign = regs.def(&mut ops, |r| Op::SignMask(r, a));
                    (regs.def(&mut ops, |r| Op::Magnitude(r, a)), Some(sign))
                }
                Dot::UnsignedSigned | Dot::SignedSigned => (a, None),
            })
            .collect();
        for first in (0..parts).step_by(self.together.into()) {
            let together = first..parts.min(first + self.together);
            let mut features: Vec<Reg> =
                together.clone().map(|part| self.load(part, &factors, &mut ops, regs)).collect();
            for feature in 0..FEATURES as u8 {
                if feature > 0 {
                    for x in &mut features {
                        *x = regs.def(&mut ops, |r| Op::Times3(r, *x));
                    }
                }
                for (part, &x) in together.clone().zip(&features) {
                    for (row, &(a, _)) in (0u8..).zip(&factors) {
                        ops.push(Op::Dot4(Acc { row, part, feature }, x, a, self.dot));
                    }
                }
            }
        }
        ops
    }

    /// The first feature, in the form that the dot product multiplies.
    fn load(&self, part: u8, factors: &[(Reg, Option<Reg>)], ops: &mut Vec<Op>, regs: &mut Regs) -> Reg {
        let mut x = regs.def(ops, |r| Op::Load(r, part));
        if self.dot == Dot::UnsignedSigned {
            x = regs.def(ops, |r| Op::XorSign(r, x));
        }
        if let &[(_, Some(sign))] = factors {
            x = regs.def(ops, |r| Op::NegateWhere(r, x, sign));
        }
        x
    }

    fn epilogue(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        let mut ops = Vec::new();
        for row in 0..rows {
            let sum = (self.dot == Dot::UnsignedSigned).then(|| regs.def(&mut ops, |r| Op::Sum(r, row)));
            for part in 0..parts {
                for feature in 0..TRITS as u8 {
                    let acc = |feature| Acc { row, part, feature };
                    let mut value = regs.def(&mut ops, |r| Op::Recover(r, acc(feature), acc(feature + 1)));
                    if let Some(sum) = sum {
                        value = regs.def(&mut ops, |r| Op::Subtract(r, value, sum));
                    }
                    // The first product of three shifts out the most significant trit.
                    ops.push(Op::Store { value, row, digit: TRITS as u8 - 1 - feature, part });
                }
            }
        }
        ops
    }
}

/// Pairs of row and part that have accumulators, in register order.
pub(crate) fn accumulators(rows: u8, parts: u8) -> impl Iterator<Item = (u8, u8)> {
    (0..rows).flat_map(move |row| (0..parts).map(move |part| (row, part)))
}

/// Numbers registers.
struct Regs(u16);

impl Regs {
    fn def(&mut self, ops: &mut Vec<Op>, op: impl FnOnce(Reg) -> Op) -> Reg {
        let reg = Reg(self.0);
        self.0 += 1;
        ops.push(op(reg));
        reg
    }
}
