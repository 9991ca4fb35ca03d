//! Makes the inner parts of a program, in the form that the registers of a tier allow.

use super::{Acc, Dot, Node, Op, Reg, Start, Table, Touch, features};
use crate::tier::{RegisterBudget, Tier};
use trit_format::dense243::{Code, SIGNS, TRITS};
use trit_format::kernel::KernelSpec;
use trit_format::target::Target;
use trit_format::tile::{self, QUAD, VECTOR, padded_k};

/// The inverse of 7 modulo `2^32`. Multiplying a multiple of 7 by it divides it by 7.
const INVERSE_OF_7: i32 = 0xb6db_6db7_u32 as i32;

/// What decides the form of a program for a tier.
pub(super) struct Machine {
    pub registers: RegisterBudget,
    code: Code,
    decode: Decode,
}

/// How features come from a stored byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decode {
    /// [`Code::SignedFix`].
    Fix,
    /// [`Code::Spread`], by table.
    Spread,
    /// [`Code::Binary`], by doubling.
    Doubled,
    /// [`Code::Binary`], by masks.
    Masked,
    /// [`Code::Binary`], by single bits, so many of which are masked after one shift.
    Bits(u8),
}

/// Most sums of two products by a single lowest bit that i16 holds.
const MOST_PAIRS: usize = 128;

/// How many of the lowest bits of a byte may be features whose sums over all `k` columns have 16 bits; 0 if none may.
fn bits_of_i16(k: u32) -> u8 {
    let quads = padded_k(k as usize) / QUAD;
    (MOST_PAIRS / quads).checked_ilog2().map_or(0, |bits| bits as u8 + 1)
}

/// An activation row as the dot product multiplies it.
struct Factor {
    /// What is multiplied.
    by: Reg,
    /// What gives its sign to the first feature.
    sign: Option<Sign>,
}

/// Where the signs of an activation row come from.
#[derive(Clone, Copy)]
enum Sign {
    /// A mask.
    Mask(Reg),
    /// The activations of that row, which are broadcast once more. The register that they would otherwise keep holds
    /// a constant instead; without it, every dot product would read the constant from memory.
    Row(u8),
}

impl Machine {
    /// `None` where no emitter of the target reads the code.
    pub(super) fn of(target: Target, spec: &KernelSpec) -> Option<Machine> {
        let code = spec.code;
        let mut registers = Tier::of(target).registers(code)?;
        let decode = match (code, registers.dot) {
            (Code::SignedFix, _) => Decode::Fix,
            (Code::Spread, _) => Decode::Spread,
            (Code::Binary, Dot::UnsignedPairs) => match bits_of_i16(spec.k) {
                // One bit would take a shift for each feature.
                0 | 1 => Decode::Masked,
                bits => Decode::Bits(bits.min(4)),
            },
            (Code::Binary, _) => Decode::Doubled,
            _ => return None,
        };
        if let Decode::Bits(_) = decode {
            registers.dot = Dot::UnsignedPairs16;
        }
        Some(Machine { registers, code, decode })
    }

    fn vectors(&self) -> u32 {
        VECTOR as u32 / self.registers.vector
    }

    /// Vectors of lanes in one pass. They are a power of two, so that all passes are alike.
    fn parts(&self, rows: u32) -> u32 {
        let most = (self.registers.accumulator_groups / rows).clamp(1, self.vectors());
        1 << most.ilog2()
    }

    /// Passes over a tile for `rows` activation rows.
    pub(super) fn passes(&self, rows: u32) -> u32 {
        self.vectors() / self.parts(rows)
    }

    /// What goes over one tile for `rows` activation rows, `passes` being those of all rows: clear, accumulate,
    /// recover, store.
    pub(super) fn pass(&self, spec: &KernelSpec, rows: u8, passes: u32) -> Node {
        let parts = self.parts(rows.into()) as u8;
        let mut body = Vec::new();
        for (row, part) in accumulators(rows, parts) {
            body.extend(
                (0..features(self.code) as u8).map(|feature| Node::Op(Op::Zero(Acc { row, part, feature }))),
            );
        }
        let count = (padded_k(spec.k as usize) / QUAD) as u32;
        let sets = if rows == 1 { self.registers.sets.min(spec.unroll) } else { 1 };
        let touch = self.touch(spec, passes);
        let mut regs = Regs(0);
        let quad = self.quad(rows, parts, &mut regs);
        body.push(Node::Quads { count, unroll: spec.unroll, sets, touch, body: quad });
        let epilogue = match self.decode {
            Decode::Fix => self.recover_fix(rows, parts, &mut regs),
            Decode::Spread => self.recover_spread(rows, parts, &mut regs),
            Decode::Doubled | Decode::Masked | Decode::Bits(_) => self.recover_signs(rows, parts, &mut regs),
        };
        body.extend(epilogue.into_iter().map(Node::Op));
        Node::Lanes { parts: parts.into(), body }
    }

    /// One cache line for every 64 bytes that the passes consume, spread evenly over all passes.
    fn touch(&self, spec: &KernelSpec, passes: u32) -> Option<Touch> {
        // Only the first of several passes waits for memory, so what is needed next is the next tile.
        let start = match self.registers.vector {
            16 => Start::NextTile,
            _ if passes == 1 => Start::Ahead(spec.prefetch),
            _ => Start::Ahead(spec.prefetch.max(tile::bytes(spec.k as usize) as u32)),
        };
        (spec.prefetch > 0).then(|| Touch {
            start,
            lines: (spec.unroll / passes).max(1),
            stride: VECTOR as u32 * spec.unroll / passes,
        })
    }

    /// What one quad of `k` adds to the accumulators.
    fn quad(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        let mut ops = Vec::new();
        let factors: Vec<Factor> = (0..rows).map(|row| self.factor(row, &mut ops, regs)).collect();
        for first in (0..parts).step_by(self.registers.together.into()) {
            let together = first..parts.min(first + self.registers.together);
            match self.decode {
                Decode::Spread => together.for_each(|part| self.spread(part, &factors, &mut ops, regs)),
                _ => self.chain(together, &factors, &mut ops, regs),
            }
        }
        ops
    }

    fn factor(&self, row: u8, ops: &mut Vec<Op>, regs: &mut Regs) -> Factor {
        let a = regs.def(ops, |r| Op::Broadcast(r, row));
        match self.registers.dot {
            Dot::SignedMagnitude => {
                let sign = match self.registers.vector {
                    16 => Sign::Mask(regs.def(ops, |r| Op::SignMask(r, a))),
                    _ => Sign::Row(row),
                };
                Factor { by: regs.def(ops, |r| Op::Magnitude(r, a)), sign: Some(sign) }
            }
            Dot::UnsignedSigned | Dot::SignedSigned | Dot::UnsignedPairs | Dot::UnsignedPairs16 => {
                Factor { by: a, sign: None }
            }
        }
    }

    /// Codes whose features come from each other by one or two operations.
    fn chain(&self, parts: std::ops::Range<u8>, factors: &[Factor], ops: &mut Vec<Op>, regs: &mut Regs) {
        let mut bytes: Vec<Reg> = parts.clone().map(|part| self.load(part, factors, ops, regs)).collect();
        let mut now = bytes.clone();
        for feature in 0..features(self.code) as u8 {
            for (x, byte) in now.iter_mut().zip(&mut bytes) {
                if let (Decode::Bits(bits), 1..) = (self.decode, feature)
                    && feature.is_multiple_of(bits)
                {
                    *byte = regs.def(ops, |r| Op::ShiftRight(r, *byte, bits));
                }
                *x = self.feature(feature, *byte, *x, ops, regs);
            }
            for (part, &x) in parts.clone().zip(&now) {
                self.dots(part, feature, x, factors, ops);
            }
        }
    }

    /// A feature of the stored byte, where `before` is the feature before it. Of single bits, the lowest is the first,
    /// and the byte has been shifted.
    fn feature(&self, feature: u8, byte: Reg, before: Reg, ops: &mut Vec<Op>, regs: &mut Regs) -> Reg {
        match (self.decode, feature) {
            (Decode::Masked, 0) => {
                let upper = regs.def(ops, |r| Op::ShiftRight(r, byte, 7));
                regs.def(ops, |r| Op::And(r, upper, 1))
            }
            (Decode::Masked, _) => regs.def(ops, |r| Op::And(r, byte, 0xff >> feature)),
            (Decode::Bits(bits), _) => regs.def(ops, |r| Op::And(r, byte, 1 << (feature % bits))),
            (_, 0) => byte,
            (Decode::Doubled, _) => regs.def(ops, |r| Op::Double(r, before)),
            _ => regs.def(ops, |r| Op::Times3(r, before)),
        }
    }

    /// The first feature, in the form that the dot product multiplies.
    fn load(&self, part: u8, factors: &[Factor], ops: &mut Vec<Op>, regs: &mut Regs) -> Reg {
        let mut x = regs.def(ops, |r| Op::Load(r, part));
        if self.decode == Decode::Fix && self.registers.dot == Dot::UnsignedSigned {
            x = regs.def(ops, |r| Op::XorSign(r, x));
        }
        match *factors {
            [Factor { sign: Some(Sign::Mask(mask)), .. }] => {
                x = regs.def(ops, |r| Op::NegateWhere(r, x, mask));
            }
            [Factor { sign: Some(Sign::Row(row)), .. }] => {
                let a = regs.def(ops, |r| Op::Broadcast(r, row));
                x = regs.def(ops, |r| Op::TimesSign(r, x, a));
            }
            _ => {}
        }
        x
    }

    fn spread(&self, part: u8, factors: &[Factor], ops: &mut Vec<Op>, regs: &mut Regs) {
        let byte = regs.def(ops, |r| Op::Load(r, part));
        let upper = regs.def(ops, |r| Op::ShiftRight(r, byte, 2));
        let high = regs.def(ops, |r| Op::Lookup(r, upper, Table::High28));
        let low = regs.def(ops, |r| Op::SubtractBytes(r, byte, high));
        self.dots(part, 3, high, factors, ops);
        let digit4 = regs.def(ops, |r| Op::Lookup(r, upper, Table::Digit4));
        self.dots(part, 4, digit4, factors, ops);
        self.dots(part, 0, low, factors, ops);
        for (feature, table) in [(1, Table::Digit1), (2, Table::Digit2)] {
            let digit = regs.def(ops, |r| Op::Lookup(r, low, table));
            self.dots(part, feature, digit, factors, ops);
        }
    }

    fn dots(&self, part: u8, feature: u8, x: Reg, factors: &[Factor], ops: &mut Vec<Op>) {
        for (row, factor) in (0u8..).zip(factors) {
            ops.push(Op::Dot4(Acc { row, part, feature }, x, factor.by, self.registers.dot));
        }
    }

    fn recover_fix(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        let mut ops = Vec::new();
        for row in 0..rows {
            let sum =
                (self.registers.dot == Dot::UnsignedSigned).then(|| regs.def(&mut ops, |r| Op::Sum(r, row)));
            for part in 0..parts {
                for feature in 0..TRITS as u8 {
                    let acc = |feature| Acc { row, part, feature };
                    let mut value = regs.def(&mut ops, |value| Op::Recover {
                        value,
                        base: 3,
                        high: acc(feature),
                        low: Some(acc(feature + 1)),
                        shift: 8,
                    });
                    if let Some(sum) = sum {
                        value = regs.def(&mut ops, |r| Op::Subtract(r, value, sum));
                    }
                    // Multiplying by three shifts the most significant trit out first.
                    ops.push(Op::Store { value, row, digit: TRITS as u8 - 1 - feature, part });
                }
            }
        }
        ops
    }

    fn recover_signs(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        const LAST: u8 = SIGNS as u8 - 1;
        let mut ops = Vec::new();
        for row in 0..rows {
            let sum = regs.def(&mut ops, |r| Op::Sum(r, row));
            for part in 0..parts {
                let acc = |feature| Acc { row, part, feature };
                // The sum of the features after the one at hand, negated; bytes read as i8 need it.
                let mut later = None;
                for feature in (0..=LAST).rev() {
                    let digit = if let Decode::Bits(_) = self.decode { feature } else { LAST - feature };
                    let twice = match (self.decode, self.registers.dot) {
                        (Decode::Bits(bits), _) => {
                            let (acc, place) = (acc(feature), feature % bits);
                            let sum = regs.def(&mut ops, |value| Op::Widen { value, acc, twice: place == 0 });
                            match place {
                                0 | 1 => sum,
                                _ => regs.def(&mut ops, |r| Op::ShiftRightI32(r, sum, place - 1)),
                            }
                        }
                        (Decode::Doubled, Dot::SignedSigned) => {
                            let x = regs.def(&mut ops, |r| Op::Take(r, acc(feature)));
                            let once = match later {
                                None => regs.def(&mut ops, |r| Op::Multiply(r, x, -1)),
                                Some(later) => regs.def(&mut ops, |r| Op::Subtract(r, later, x)),
                            };
                            later = Some(once);
                            let scaled = regs.def(&mut ops, |r| Op::Subtract(r, once, x));
                            regs.def(&mut ops, |r| Op::ShiftRightI32(r, scaled, 7))
                        }
                        (decode, _) => {
                            let (base, shift) = match (decode, feature) {
                                (Decode::Doubled, _) => (2, 7),
                                // One bit alone.
                                (_, 0 | LAST) => (2, 0),
                                _ => (1, digit - 1),
                            };
                            let alone = feature == LAST || decode == Decode::Masked && feature == 0;
                            let low = (!alone).then_some(acc(feature + 1));
                            let high = acc(feature);
                            regs.def(&mut ops, |value| Op::Recover { value, base, high, low, shift })
                        }
                    };
                    let value = regs.def(&mut ops, |r| Op::Subtract(r, twice, sum));
                    ops.push(Op::Store { value, row, digit, part });
                }
            }
        }
        ops
    }

    fn recover_spread(&self, rows: u8, parts: u8, regs: &mut Regs) -> Vec<Op> {
        let mut ops = Vec::new();
        for row in 0..rows {
            let sum = regs.def(&mut ops, |r| Op::Sum(r, row));
            for part in 0..parts {
                let [low, one, two, high28, four] = [0, 1, 2, 3, 4]
                    .map(|feature| regs.def(&mut ops, |r| Op::Take(r, Acc { row, part, feature })));
                let mut times = |x, c, ops: &mut Vec<Op>| regs.def(ops, |r| Op::Multiply(r, x, c));
                let (three_ones, nine_twos) = (times(one, 3, &mut ops), times(two, 9, &mut ops));
                let three_fours = times(four, 3, &mut ops);
                let rest = regs.def(&mut ops, |r| Op::Subtract(r, low, three_ones));
                let zero = regs.def(&mut ops, |r| Op::Subtract(r, rest, nine_twos));
                // `sum of 28 * h * a` is a multiple of 4 and 7, and far from overflow.
                let sevens = regs.def(&mut ops, |r| Op::ShiftRightI32(r, high28, 2));
                let high = regs.def(&mut ops, |r| Op::Multiply(r, sevens, INVERSE_OF_7));
                let three = regs.def(&mut ops, |r| Op::Subtract(r, high, three_fours));
                for (digit, x) in (0..).zip([zero, one, two, three, four]) {
                    let value = regs.def(&mut ops, |r| Op::Subtract(r, x, sum));
                    ops.push(Op::Store { value, row, digit, part });
                }
            }
        }
        ops
    }
}

/// Pairs of row and part that have accumulators, in register order.
fn accumulators(rows: u8, parts: u8) -> impl Iterator<Item = (u8, u8)> {
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
