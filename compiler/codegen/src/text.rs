//! The text form of a program.

use crate::program::{Acc, Dot, Node, Op, Program, Reg, Start, Table};
use std::fmt;
use trit_format::tile::{LANES, QUAD};

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
                    writeln!(f, "{indent}for tile in 0..tiles, advance activations and sums")?;
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
                Node::Quads { count, unroll, sets, touch, body } => {
                    writeln!(f, "{indent}for quad in 0..{count} unroll {unroll}")?;
                    if *sets > 1 {
                        writeln!(
                            f,
                            "{indent}{pad}quads in turn: {sets} sets of sums, added up after the loop"
                        )?;
                    }
                    if let Some(touch) = touch {
                        let (verb, at) = match touch.start {
                            Start::NextTile => ("touch", "of the next tile".to_owned()),
                            Start::Ahead(bytes) => ("prefetch", format!("{bytes} bytes ahead")),
                        };
                        let (lines, stride) = (touch.lines, touch.stride);
                        writeln!(
                            f,
                            "{indent}{pad}each iteration: {verb} {lines} lines {at}, advance {stride} bytes"
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
            Op::TimesSign(r, x, a) => writeln!(f, "{r} = {x} times sign {a}"),
            Op::ShiftRight(r, x, n) => writeln!(f, "{r} = bytes {x} >> {n}"),
            Op::Lookup(r, x, table) => writeln!(f, "{r} = {table}[{x} & 63]"),
            Op::SubtractBytes(r, a, b) => writeln!(f, "{r} = bytes {a} - {b}"),
            Op::Take(r, acc) => writeln!(f, "{r} = {acc}"),
            Op::Multiply(r, x, c) => writeln!(f, "{r} = {x} * {c}"),
            Op::ShiftRightI32(r, x, n) => writeln!(f, "{r} = {x} >> {n}"),
            Op::Times3(r, x) => writeln!(f, "{r} = times3 {x}"),
            Op::Double(r, x) => writeln!(f, "{r} = double {x}"),
            Op::And(r, x, mask) => writeln!(f, "{r} = bytes {x} and {mask:#04x}"),
            Op::Dot4(acc, x, a, dot) => {
                let (features, activations) = match dot {
                    Dot::UnsignedSigned | Dot::UnsignedPairs => ("u8", "i8"),
                    Dot::UnsignedPairs16 => {
                        return writeln!(f, "{acc} += dot2 {x} as u8, {a} as i8, in i16");
                    }
                    Dot::SignedSigned => ("i8", "i8"),
                    Dot::SignedMagnitude => ("i8", "u8"),
                };
                writeln!(f, "{acc} += dot4 {x} as {features}, {a} as {activations}")
            }
            Op::Widen { value, acc, twice } => {
                writeln!(f, "{value} = {}pairs of i16 {acc}", if twice { "2 * " } else { "" })
            }
            Op::Sum(r, row) => writeln!(f, "{r} = broadcast sums[row + {row}]"),
            Op::Recover { value, base, high, low: Some(low), shift } => {
                writeln!(f, "{value} = ({base} * {high} - {low}) >> {shift}")
            }
            Op::Recover { value, base, high, low: None, shift } => {
                writeln!(f, "{value} = {base} * {high} >> {shift}")
            }
            Op::Subtract(r, a, b) => writeln!(f, "{r} = {a} - {b}"),
            Op::Store { value, row, digit, part } => {
                let at = u32::from(digit) * LANES as u32 + lane(part);
                let rows = self.spec.code.tile_rows();
                writeln!(f, "store out[row + {row}, tile * {rows} + lane + {at}] = {value}")
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

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::High28 => "high28",
            Table::Digit4 => "digit4",
            Table::Digit1 => "digit1",
            Table::Digit2 => "digit2",
        })
    }
}
