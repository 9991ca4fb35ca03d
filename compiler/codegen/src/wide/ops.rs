//! The operations of a [`Program`](crate::program::Program) as VEX or EVEX instructions.

use super::constants::{Constant, Operand};
use super::registers::{self, Places, Vector};
use super::{MAX_ROWS, Refused, WideEmitter};
use crate::program::{Dot, Op};
use iced_x86::code_asm::*;
use trit_format::tile::{LANES, QUAD, VECTOR};

const YMM: [AsmRegisterYmm; 16] =
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];
const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15,
    zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30,
    zmm31,
];

fn ymm(register: Vector) -> AsmRegisterYmm {
    YMM[usize::from(register)]
}

fn zmm(register: Vector) -> AsmRegisterZmm {
    ZMM[usize::from(register)]
}

/// `name dest, x, source` in the program's width. A second name is that of the 512-bit form.
macro_rules! three {
    ($e:ident, $name:ident, $d:expr, $x:expr, $operand:expr) => {
        three!($e, $name, $name, $d, $x, $operand)
    };
    ($e:ident, $name:ident, $wide:ident, $d:expr, $x:expr, $operand:expr) => {{
        let (d, x) = ($d, $x);
        match ($e.program.vector == 64, $operand) {
            (true, Operand::Register(y)) => $e.asm.$wide(zmm(d), zmm(x), zmm(y)),
            (true, Operand::Memory(y)) => $e.asm.$wide(zmm(d), zmm(x), y),
            (false, Operand::Register(y)) => $e.asm.$name(ymm(d), ymm(x), ymm(y)),
            (false, Operand::Memory(y)) => $e.asm.$name(ymm(d), ymm(x), y),
        }
    }};
}

/// `name dest, operand` in the program's width, the operand being the same in both.
macro_rules! two {
    ($e:ident, $name:ident, $wide:ident, $d:expr, $from:expr) => {
        match $e.program.vector == 64 {
            true => $e.asm.$wide(zmm($d), $from),
            false => $e.asm.$name(ymm($d), $from),
        }
    };
}

/// `name dest, x, count` in the program's width.
macro_rules! shift {
    ($e:ident, $name:ident, $d:expr, $x:expr, $count:expr) => {
        match $e.program.vector == 64 {
            true => $e.asm.$name(zmm($d), zmm($x), $count),
            false => $e.asm.$name(ymm($d), ymm($x), $count),
        }
    };
}

impl WideEmitter<'_> {
    pub(super) fn load_constants(&mut self) -> Result<(), Refused> {
        for (register, from) in self.constants.loads() {
            two!(self, vmovdqu, vmovdqu64, register, from)?;
        }
        Ok(())
    }

    /// Operations in a row, `quad` quads past where the inner loop stands, adding to accumulators of that set.
    pub(super) fn block(&mut self, ops: &[Op], quad: u32, set: u32) -> Result<(), Refused> {
        let (places, _) = registers::places(ops);
        let mut i = 0;
        while i < ops.len() {
            // Where a byte is only needed as u8, the exclusive or loads it, and no instruction of its own does.
            if let (&Op::Load(r, part), Some(&Op::XorSign(_, x))) = (&ops[i], ops.get(i + 1))
                && r == x
                && !ops[i + 2..].iter().any(|op| op.reads().any(|read| read == r))
                && let Operand::Register(bits) = self.constants.operand(Constant::SignBits)
            {
                let to = self.written(&places[i + 1]);
                let from = Operand::Memory(self.weights(quad, part));
                three!(self, vpxor, vpxord, to, bits, from)?;
                i += 2;
                continue;
            }
            self.op(&ops[i], &places[i], quad, set)?;
            i += 1;
        }
        Ok(())
    }

    fn op(&mut self, op: &Op, places: &Places, quad: u32, set: u32) -> Result<(), Refused> {
        let read =
            |i: usize| self.registers.at(places.reads[i].expect("an operation's operands have places"));
        match *op {
            Op::Zero(acc) => {
                let acc = self.registers.clear(acc);
                self.zero(acc)?;
            }
            Op::Broadcast(_, row) => {
                let from = self.row(rcx, r8, r9, row)? + (quad * QUAD as u32) as i32;
                two!(self, vpbroadcastd, vpbroadcastd, self.written(places), dword_ptr(from))?;
            }
            Op::Load(_, part) => {
                let from = self.weights(quad, part);
                two!(self, vmovdqu, vmovdqu64, self.written(places), from)?;
            }
            Op::XorSign(..) => {
                let bits = self.constants.operand(Constant::SignBits);
                three!(self, vpxor, vpxord, self.written(places), read(0), bits)?;
            }
            Op::Magnitude(..) => {
                let x = read(0);
                match self.program.vector == 64 {
                    true => self.asm.vpabsb(zmm(self.written(places)), zmm(x))?,
                    false => self.asm.vpabsb(ymm(self.written(places)), ymm(x))?,
                }
            }
            Op::TimesSign(..) if self.program.vector == 32 => {
                let (d, x, a) = (self.written(places), read(0), read(1));
                self.asm.vpsignb(ymm(d), ymm(x), ymm(a))?;
            }
            Op::Times3(..) => {
                let (d, x) = (self.written(places), read(0));
                three!(self, vpaddb, d, x, Operand::Register(x))?;
                three!(self, vpaddb, d, d, Operand::Register(x))?;
            }
            Op::Double(..) => {
                let (d, x) = (self.written(places), read(0));
                three!(self, vpaddb, d, x, Operand::Register(x))?;
            }
            Op::And(_, _, mask) => {
                let mask = self.constants.operand(Constant::Bytes(mask));
                three!(self, vpand, vpandd, self.written(places), read(0), mask)?;
            }
            Op::ShiftRight(_, _, n) => {
                let (d, x) = (self.written(places), read(0));
                shift!(self, vpsrlw, d, x, u32::from(n))?;
            }
            Op::Lookup(_, _, table) if self.program.vector == 64 => {
                let (d, x) = (self.written(places), read(0));
                match self.constants.operand(Constant::Table(table)) {
                    Operand::Register(table) => self.asm.vpermb(zmm(d), zmm(x), zmm(table))?,
                    Operand::Memory(table) => self.asm.vpermb(zmm(d), zmm(x), table)?,
                }
            }
            Op::SubtractBytes(..) => {
                three!(self, vpsubb, self.written(places), read(0), Operand::Register(read(1)))?;
            }
            Op::Dot4(acc, _, _, dot) => {
                let (acc, x, a) = (self.registers.accumulator(acc, set), read(0), read(1));
                match dot {
                    Dot::UnsignedSigned => three!(self, vpdpbusd, acc, x, Operand::Register(a))?,
                    Dot::SignedMagnitude | Dot::UnsignedPairs => {
                        let t = self.written(places);
                        // The first operand is the unsigned one.
                        let (unsigned, signed) = if dot == Dot::UnsignedPairs { (x, a) } else { (a, x) };
                        three!(self, vpmaddubsw, t, unsigned, Operand::Register(signed))?;
                        three!(self, vpmaddwd, t, t, self.constants.operand(Constant::I16(1)))?;
                        three!(self, vpaddd, acc, acc, Operand::Register(t))?;
                    }
                    Dot::UnsignedPairs16 => {
                        let t = self.written(places);
                        three!(self, vpmaddubsw, t, x, Operand::Register(a))?;
                        three!(self, vpaddw, acc, acc, Operand::Register(t))?;
                    }
                    Dot::SignedSigned => return Err(Refused::Operation(*op)),
                }
            }
            Op::Sum(_, row) => {
                let from = self.row_of_epilogue(r15, r13, row)?;
                two!(self, vpbroadcastd, vpbroadcastd, self.written(places), dword_ptr(from))?;
            }
            Op::Recover { base, high, low, shift, .. } => {
                let high = self.registers.accumulator(high, 0);
                let low = low.map(|acc| self.registers.accumulator(acc, 0));
                let (d, mut x) = (self.written(places), high);
                for _ in 1..base {
                    three!(self, vpaddd, d, x, Operand::Register(high))?;
                    x = d;
                }
                if let Some(low) = low {
                    three!(self, vpsubd, d, x, Operand::Register(low))?;
                    x = d;
                }
                if shift > 0 || x != d {
                    shift!(self, vpsrad, d, x, u32::from(shift))?;
                }
            }
            Op::Widen { acc, twice, .. } => {
                let acc = self.registers.accumulator(acc, 0);
                let factor = self.constants.operand(Constant::I16(1 + i16::from(twice)));
                three!(self, vpmaddwd, self.written(places), acc, factor)?;
            }
            // The accumulator's own register is read.
            Op::Take(..) => {}
            Op::Multiply(_, _, c) => {
                three!(
                    self,
                    vpmulld,
                    self.written(places),
                    read(0),
                    self.constants.operand(Constant::I32(c))
                )?;
            }
            Op::ShiftRightI32(_, _, n) => {
                let (d, x) = (self.written(places), read(0));
                shift!(self, vpsrad, d, x, u32::from(n))?;
            }
            Op::Subtract(..) => {
                three!(self, vpsubd, self.written(places), read(0), Operand::Register(read(1)))?;
            }
            Op::Store { row, digit, part, .. } => {
                let value = read(0);
                let at = self.lane
                    + u32::from(digit) * (LANES * QUAD) as u32
                    + u32::from(part) * self.program.vector;
                let to = self.row_of_epilogue(r10, r12, row)? + at as i32;
                match self.program.vector == 64 {
                    true => self.asm.vmovdqu64(to, zmm(value))?,
                    false => self.asm.vmovdqu(to, ymm(value))?,
                }
            }
            Op::SignMask(..) | Op::NegateWhere(..) | Op::TimesSign(..) | Op::Lookup(..) => {
                return Err(Refused::Operation(*op));
            }
        }
        Ok(())
    }

    /// Clears the sets of accumulators after the first.
    pub(super) fn clear_sets(&mut self, sets: u32) -> Result<(), Refused> {
        for set in 1..sets {
            self.registers.set(set).try_for_each(|acc| self.zero(acc))?;
        }
        Ok(())
    }

    /// Adds the sets of accumulators up into the first.
    pub(super) fn add_up(&mut self, sets: u32) -> Result<(), Refused> {
        for set in 1..sets {
            for (to, from) in self.registers.set(0).zip(self.registers.set(set)) {
                three!(self, vpaddd, to, to, Operand::Register(from))?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, register: Vector) -> Result<(), Refused> {
        Ok(three!(self, vpxor, vpxord, register, register, Operand::Register(register))?)
    }

    /// # Panics
    /// If the operation writes no register.
    fn written(&self, places: &Places) -> Vector {
        self.registers.at(places.writes.expect("an operation's result has a place"))
    }

    fn weights(&self, quad: u32, part: u8) -> AsmMemoryOperand {
        rax + (quad * VECTOR as u32 + self.lane + u32::from(part) * self.program.vector) as i32
    }

    /// The address of a row of the group, `triple` holding three times `stride`.
    fn row(
        &self,
        first: AsmRegister64,
        stride: AsmRegister64,
        triple: AsmRegister64,
        row: u8,
    ) -> Result<AsmMemoryOperand, Refused> {
        match row {
            0 => Ok(first + 0),
            1 | 2 => Ok(first + stride * i32::from(row)),
            3 => Ok(first + triple * 1),
            MAX_ROWS.. => Err(Refused::Row(row)),
        }
    }

    /// As `row`. The triple stride is computed anew in a register that is free outside the inner loop.
    fn row_of_epilogue(
        &mut self,
        first: AsmRegister64,
        stride: AsmRegister64,
        row: u8,
    ) -> Result<AsmMemoryOperand, Refused> {
        if row == 3 {
            self.asm.lea(rcx, stride + stride * 2)?;
        }
        self.row(first, stride, rcx, row)
    }
}
