//! A kernel as a small program: what every emitter lowers.
//!
//! The program is the body of the inner loop, one quad of four `k`; around it stand loops the specification fixes:
//!
//! ```text
//! for each tile
//!   for each pass over the tile (`groups` vectors of `lanes` lanes at a time)
//!     for each quad of k: body
//!     for each activation row, vector and digit: recover and store
//! ```

use std::fmt;
use trit_format::dense243::TRITS;
use trit_format::kernel::KernelSpec;
use trit_format::target::Target;
use trit_format::tile;

/// Feature sums a digit recovery needs: one more than there are digits.
pub const FEATURES: usize = TRITS + 1;

/// How four products of bytes are added to a 32-bit lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// Signed features times signed activations (`sdot`).
    Signed,
    /// Unsigned features times signed activations (`vpdpbusd`); needs the sum of the activations afterwards.
    Unsigned,
    /// Signed features, carrying the activation's sign, times the activation's magnitude (`pmaddubsw`).
    Magnitude,
}

/// One operation on vectors. Registers are numbered; `group` is the vector within the pass, `row` the activation row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Four activations of `row` in every lane.
    Broadcast {
        /// Activation row.
        row: usize,
    },
    /// The stored bytes of vector `group`.
    Load {
        /// Vector within the pass.
        group: usize,
    },
    /// XOR 0x80: the signed form of a stored byte to its unsigned form.
    Flip,
    /// Gives the loaded bytes the signs of `row`'s activations.
    ApplySign {
        /// Activation row.
        row: usize,
    },
    /// Multiplies every byte by 3, modulo 256: the next feature.
    Times3,
    /// Adds the products of the features and `row`'s activations to an accumulator.
    Dot {
        /// Vector within the pass.
        group: usize,
        /// Activation row.
        row: usize,
        /// Which feature.
        feature: usize,
    },
}

/// A kernel, lowered to vector operations but not to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it computes.
    pub spec: KernelSpec,
    /// The tier it is for.
    pub target: Target,
    /// 32-bit lanes of one vector.
    pub lanes: usize,
    /// Vectors handled in one pass over a tile; `16 / (lanes * groups)` passes.
    pub groups: usize,
    /// How products are accumulated.
    pub dot: Dot,
    /// One quad of `k`.
    pub body: Vec<Op>,
}

impl Program {
    /// The program for a supported target and a specification in range.
    pub(crate) fn new(spec: &KernelSpec, target: Target) -> Program {
        let m = spec.m as usize;
        let dot = match target {
            Target::Aarch64 | Target::Aarch64Dotprod => Dot::Signed,
            Target::X86_64V2 | Target::X86_64V3 => Dot::Magnitude,
            _ => Dot::Unsigned,
        };
        // As many accumulators as leave registers for operands: 24 of 32 on aarch64, 12 of 16 on x86-64. NEON
        // without dot products needs more temporaries, and so does the magnitude form.
        let accumulators = match target {
            Target::Aarch64Dotprod => 24,
            Target::X86_64V2 | Target::X86_64V3 => 6,
            _ => 12,
        };
        let groups = match accumulators / (FEATURES * m) {
            0 | 1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
        let mut body: Vec<Op> = (0..m).map(|row| Op::Broadcast { row }).collect();
        for group in 0..groups {
            if dot == Dot::Magnitude {
                for row in 0..m {
                    body.extend([Op::Load { group }, Op::ApplySign { row }]);
                    features(&mut body, group, row..row + 1);
                }
            } else {
                body.push(Op::Load { group });
                if dot == Dot::Unsigned {
                    body.push(Op::Flip);
                }
                features(&mut body, group, 0..m);
            }
        }
        Program { spec: *spec, target, lanes: 4, groups, dot, body }
    }

    /// Passes over a tile.
    pub fn passes(&self) -> usize {
        tile::LANES / (self.lanes * self.groups)
    }

    /// Quads of `k`.
    pub fn quads(&self) -> usize {
        tile::padded_k(self.spec.k as usize) / tile::QUAD
    }
}

fn features(body: &mut Vec<Op>, group: usize, rows: std::ops::Range<usize>) {
    for feature in 0..FEATURES {
        if feature > 0 {
            body.push(Op::Times3);
        }
        body.extend(rows.clone().map(|row| Op::Dot { group, row, feature }));
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} for {}", self.spec, self.target)?;
        writeln!(f, "tile loop, {} passes of {} vectors of {} lanes", self.passes(), self.groups, self.lanes)?;
        writeln!(f, "quad loop, {} times, unrolled {}", self.quads(), self.spec.unroll)?;
        for op in &self.body {
            match op {
                Op::Broadcast { row } => writeln!(f, "  a{row} = broadcast quad of row {row}")?,
                Op::Load { group } => writeln!(f, "  x = load vector {group}")?,
                Op::Flip => writeln!(f, "  x = x ^ 0x80")?,
                Op::ApplySign { row } => writeln!(f, "  x = x with signs of a{row}")?,
                Op::Times3 => writeln!(f, "  x = 3 * x")?,
                Op::Dot { group, row, feature } => {
                    let kind = match self.dot {
                        Dot::Signed => "x * a",
                        Dot::Unsigned => "unsigned x * a",
                        Dot::Magnitude => "x * |a|",
                    };
                    writeln!(f, "  X{feature}[row {row}, vector {group}] += dot4({kind}{row})")?;
                }
            }
        }
        let sum = if self.dot == Dot::Unsigned { " - sum(a)" } else { "" };
        writeln!(f, "digit {} - i = (3 * X[i] - X[i + 1]) >> 8{sum}", TRITS - 1)
    }
}
