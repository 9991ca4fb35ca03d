//! The operations of a [`Program`](crate::program::Program) as Cranelift IR.

use super::lower::{At, I32_BYTES, Lower, MAX_PARTS, Pointer, constant};
use crate::program::{Acc, Dot, Op, Reg, features};
use crate::tier::{Backend, Tier};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use trit_format::target::Arch;
use trit_format::tile::{LANES, QUAD, VECTOR};

/// Lanes of a vector of i32.
const I32_LANES: usize = 4;

impl Lower<'_> {
    fn accumulator(&self, acc: Acc) -> Variable {
        let group = usize::from(acc.row) * MAX_PARTS + usize::from(acc.part);
        self.accumulators[group * features(self.program.spec.code) + usize::from(acc.feature)]
    }

    fn define(&mut self, reg: Reg, value: impl FnOnce(&mut FunctionBuilder<'_>) -> Value) {
        let index = usize::from(reg.0);
        self.registers.resize(self.registers.len().max(index + 1), None);
        self.registers[index] = Some(value(&mut self.b));
    }

    /// # Panics
    /// If the program reads a register before writing it.
    fn reg(&self, reg: Reg) -> Value {
        self.registers[usize::from(reg.0)].expect("a program writes a register before it reads it")
    }

    /// One operation, `quad` quads past where the inner loop stands.
    pub(super) fn op(&mut self, op: &Op, at: At, quad: u32) {
        let vector = self.program.vector;
        match *op {
            Op::Zero(acc) => {
                let zero = constant(&mut self.b, I32X4, 0);
                self.b.def_var(self.accumulator(acc), zero);
            }
            Op::Broadcast(r, row) => {
                let from = self.row(at, Pointer::Activations, row);
                // A load of a float goes straight to a vector register; that of an integer would pass through a
                // general one.
                let four = self.b.ins().load(F32, MemFlagsData::trusted(), from, (quad * QUAD as u32) as i32);
                let all = self.b.ins().splat(F32X4, four);
                self.define(r, |b| b.ins().bitcast(I8X16, little(), all));
            }
            Op::Load(r, part) => {
                let from = at.get(Pointer::Weights);
                let offset = quad * VECTOR as u32 + u32::from(part) * vector;
                self.define(r, |b| b.ins().load(I8X16, MemFlagsData::trusted(), from, offset as i32));
            }
            Op::XorSign(r, x) => {
                let (x, bits) = (self.reg(x), self.sign_bits);
                self.define(r, |b| b.ins().bxor(bits, x));
            }
            Op::SignMask(r, a) => {
                let (a, zero) = (self.reg(a), self.zero);
                self.define(r, |b| b.ins().icmp(IntCC::SignedGreaterThan, zero, a));
            }
            Op::Magnitude(r, a) => {
                let a = self.reg(a);
                self.define(r, |b| b.ins().iabs(a));
            }
            Op::NegateWhere(r, x, mask) => {
                let (x, mask) = (self.reg(x), self.reg(mask));
                let flipped = self.b.ins().bxor(mask, x);
                self.define(r, |b| b.ins().isub(flipped, mask));
            }
            Op::Times3(r, x) => {
                let x = self.reg(x);
                // This is one instruction in place of two additions. x86-64 cannot multiply bytes.
                if self.program.target.arch() == Arch::Aarch64 {
                    let three = self.three;
                    return self.define(r, |b| b.ins().imul(x, three));
                }
                let double = self.b.ins().iadd(x, x);
                self.define(r, |b| b.ins().iadd(double, x));
            }
            Op::Double(r, x) => {
                let x = self.reg(x);
                self.define(r, |b| b.ins().iadd(x, x));
            }
            Op::And(r, x, mask) => {
                let found = self.masks.iter().find(|&&(known, _)| known == mask);
                let (x, mask) = (self.reg(x), found.expect("masks of signs are known").1);
                self.define(r, |b| b.ins().band(x, mask));
            }
            Op::ShiftRight(r, x, bits) => {
                let x = self.reg(x);
                self.define(r, |b| {
                    // x86-64 cannot shift bytes.
                    let words = b.ins().bitcast(I16X8, little(), x);
                    let shifted = b.ins().ushr_imm_u(words, i64::from(bits));
                    b.ins().bitcast(I8X16, little(), shifted)
                });
            }
            Op::Dot4(acc, x, a, dot) => {
                let variable = self.accumulator(acc);
                let sum = self.b.use_var(variable);
                let sum = self.dot4(sum, self.reg(x), self.reg(a), dot);
                self.b.def_var(variable, sum);
            }
            Op::Sum(r, row) => {
                let from = self.row(at, Pointer::Sums, row);
                let sum = self.b.ins().load(I32, MemFlagsData::trusted(), from, 0);
                self.define(r, |b| b.ins().splat(I32X4, sum));
            }
            Op::Recover { value, base, high, low, shift } => {
                let high = self.b.use_var(self.accumulator(high));
                let low = low.map(|low| self.b.use_var(self.accumulator(low)));
                let times = |b: &mut FunctionBuilder<'_>, x| b.ins().iadd(x, high);
                let multiple = (1..base).fold(high, |x, _| times(&mut self.b, x));
                let difference = low.map_or(multiple, |low| self.b.ins().isub(multiple, low));
                match shift {
                    0 => self.define(value, |_| difference),
                    _ => self.define(value, |b| b.ins().sshr_imm_u(difference, i64::from(shift))),
                }
            }
            Op::Widen { value, acc, twice } => {
                let sums = self.b.use_var(self.accumulator(acc));
                let sums = self.b.ins().bitcast(I16X8, little(), sums);
                let mut wide = widening_pairwise_sum(&mut self.b, sums);
                if twice {
                    wide = self.b.ins().iadd(wide, wide);
                }
                self.define(value, |_| wide);
            }
            Op::Take(r, acc) => {
                let sum = self.b.use_var(self.accumulator(acc));
                self.define(r, |_| sum);
            }
            Op::Multiply(r, x, factor) => {
                let x = self.reg(x);
                let bytes = factor.to_le_bytes().repeat(I32_LANES);
                let factor = self.b.func.dfg.constants.insert(bytes.into());
                let factor = self.b.ins().vconst(I32X4, factor);
                self.define(r, |b| b.ins().imul(x, factor));
            }
            Op::ShiftRightI32(r, x, bits) => {
                let x = self.reg(x);
                self.define(r, |b| b.ins().sshr_imm_u(x, i64::from(bits)));
            }
            Op::Subtract(r, x, y) => {
                let (x, y) = (self.reg(x), self.reg(y));
                self.define(r, |b| b.ins().isub(x, y));
            }
            Op::TimesSign(..) | Op::Lookup(..) | Op::SubtractBytes(..) => {
                unreachable!("programs of 128-bit tiers have no {op:?}")
            }
            Op::Store { value, row, digit, part } => {
                let (value, to) = (self.reg(value), self.row(at, Pointer::Out, row));
                let offset = u32::from(digit) * LANES as u32 * I32_BYTES + u32::from(part) * vector;
                // Not `trusted`: results are aligned to an i32, not to a vector.
                self.b.ins().store(MemFlagsData::new().with_notrap(), value, to, offset as i32);
            }
        }
    }

    /// `sum + dot4(features, activations)` in the shape that instruction selection folds.
    fn dot4(&mut self, sum: Value, x: Value, a: Value, dot: Dot) -> Value {
        let b = &mut self.b;
        match dot {
            Dot::SignedMagnitude => {
                // The first operand is the signed one.
                let pairs = b.ins().x86_pmaddubsw(x, a);
                let fours = widening_pairwise_sum(b, pairs);
                b.ins().iadd(fours, sum)
            }
            Dot::UnsignedPairs16 => {
                let pairs = if self.program.target.arch() == Arch::X86_64 {
                    b.ins().x86_pmaddubsw(a, x)
                } else {
                    let (x_low, x_high) = (b.ins().swiden_low(x), b.ins().swiden_high(x));
                    let (a_low, a_high) = (b.ins().swiden_low(a), b.ins().swiden_high(a));
                    let (low, high) = (b.ins().imul(a_low, x_low), b.ins().imul(a_high, x_high));
                    b.ins().iadd_pairwise(low, high)
                };
                let sums = b.ins().bitcast(I16X8, little(), sum);
                let sums = b.ins().iadd(sums, pairs);
                b.ins().bitcast(I32X4, little(), sums)
            }
            Dot::UnsignedPairs if self.program.target.arch() == Arch::X86_64 => {
                let pairs = b.ins().x86_pmaddubsw(a, x);
                let fours = widening_pairwise_sum(b, pairs);
                b.ins().iadd(fours, sum)
            }
            Dot::SignedSigned | Dot::UnsignedSigned | Dot::UnsignedPairs => {
                // Features below 128 are the same numbers with a sign.
                let (x_low, x_high) = if dot != Dot::UnsignedSigned {
                    (b.ins().swiden_low(x), b.ins().swiden_high(x))
                } else {
                    (b.ins().uwiden_low(x), b.ins().uwiden_high(x))
                };
                let (a_low, a_high) = (b.ins().swiden_low(a), b.ins().swiden_high(a));
                // x86-64 wants the signed operand first.
                let (low, high) = (b.ins().imul(a_low, x_low), b.ins().imul(a_high, x_high));
                let backend = Tier::of(self.program.target).backend;
                let fours = if matches!(backend, Backend::Cranelift { pairs: true, .. }) {
                    // Without the dot-product instruction, sums of two products are formed in i16: at most
                    // 2 * 127 * 128 = 32512, since no feature is -128 where products are formed so.
                    let pairs = b.ins().iadd_pairwise(low, high);
                    widening_pairwise_sum(b, pairs)
                } else {
                    let (low, high) = (widening_pairwise_sum(b, low), widening_pairwise_sum(b, high));
                    b.ins().iadd_pairwise(low, high)
                };
                b.ins().iadd(fours, sum)
            }
        }
    }
}

/// Sums of adjacent i16 as i32.
fn widening_pairwise_sum(b: &mut FunctionBuilder<'_>, pairs: Value) -> Value {
    let (low, high) = (b.ins().swiden_low(pairs), b.ins().swiden_high(pairs));
    b.ins().iadd_pairwise(low, high)
}

/// Flags that say how lanes of different widths overlap.
fn little() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}
