//! The text form of a program.

use crate::program::{Acc, Dot, Node, Op, Program, Reg};
use std::fmt;
use trit_format::tile::{LANES, QUAD, ROWS};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} for {}", self.spec, self.target)?;
        writeln!(f, "vector of {} bytes: {} lanes of {QUAD} k", self.vector, self.lanes())?;
        self.nodes(f, &self.body, 0)
    }
}

impl Program {
    fn nodes(&self, f: &mut fmt::Formatter<'_>, nodes: &[Node], depth: usize) -> fmt::Result {
        let pad = "  ";
        for node in nodes {
            let indent = pad.repeat(depth);
            match node {
                Node::Op(op) => self.op(f, op, &indent)?,
                Node::Tiles(body) => {
                    writeln!(f, "{indent}for tile in 0..tiles")?;
                    self.nodes(f, body, depth + 1)?;
                }
                Node::Rows { first, groups, rows, body } => {
                    writeln!(f, "{indent}for row in {first}..{} step {rows}", first + groups * rows)?;
                    self.nodes(f, body, depth + 1)?;
                }
                Node::Lanes { parts, body } => {
                    writeln!(f, "{indent}for lane in 0..{LANES} step {}", parts * self.lanes())?;
                    self.nodes(f, body, depth + 1)?;
                }
                Node::Quads { count, unroll, touch, body } => {
                    writeln!(f, "{indent}for quad in 0..{count} unroll {unroll}")?;
                    if let Some(touch) = touch {
                        writeln!(
                            f,
                            "{indent}{pad}each iteration: touch {} lines of the next tile, advance {} bytes",
                            touch.lines, touch.stride
                        )?;
                    }
                    let inner = pad.repeat(depth + 1);
                    body.iter().try_for_each(|op| self.op(f, op, &inner))?;
                }
            }
        }
        Ok(())
    }

    fn op(&self, f: &mut fmt::Formatter<'_>, op: &Op, indent: &str) -> fmt::Result {
        f.write_str(indent)?;
        let lane = |part: u8| u32::from(part) * self.lanes();
        match *op {
            Op::Zero(acc) => writeln!(f, "{acc} = 0"),
            Op::Broadcast(r, row) => writeln!(f, "{r} = broadcast activations[row + {row}, quad]"),
            Op::Load(r, part) => writeln!(f, "{r} = load weights[tile, quad, lane + {}]", lane(part)),
            Op::XorSign(r, x) => writeln!(f, "{r} = {x} xor 0x80"),
            Op::SignMask(r, a) => writeln!(f, "{r} = {a} < 0"),
            Op::Magnitude(r, a) => writeln!(f, "{r} = abs {a}"),
            Op::NegateWhere(r, x, mask) => writeln!(f, "{r} = negate {x} where {mask}"),
            Op::Times3(r, x) => writeln!(f, "{r} = times3 {x}"),
            Op::Dot4(acc, x, a, dot) => {
                let (features, activations) = match dot {
                    Dot::UnsignedSigned => ("u8", "i8"),
                    Dot::SignedSigned => ("i8", "i8"),
                    Dot::SignedMagnitude => ("i8", "u8"),
                };
                writeln!(f, "{acc} += dot4 {x} as {features}, {a} as {activations}")
            }
            Op::Sum(r, row) => writeln!(f, "{r} = broadcast sums[row + {row}]"),
            Op::Recover(r, high, low) => writeln!(f, "{r} = (3 * {high} - {low}) >> 8"),
            Op::Subtract(r, a, b) => writeln!(f, "{r} = {a} - {b}"),
            Op::Store { value, row, digit, part } => {
                let at = u32::from(digit) * LANES as u32 + lane(part);
                writeln!(f, "store out[row + {row}, tile * {ROWS} + lane + {at}] = {value}")
            }
        }
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Display for Acc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}[{}, {}]", self.feature, self.row, self.part)
    }
}
