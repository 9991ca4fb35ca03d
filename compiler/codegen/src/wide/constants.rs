//! Vectors of constants. They stand behind the code, and in registers as long as any are left.

use super::Refused;
use super::registers::Vector;
use crate::program::{Dot, Node, Op, Program, Table};
use iced_x86::IcedError;
use iced_x86::code_asm::{AsmMemoryOperand, CodeAssembler, CodeLabel, ptr};
use std::ops::Range;

/// A constant that an operation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    /// 0x80 in every byte.
    SignBits,
    /// The value in every byte.
    Bytes(u8),
    /// The value in every i16.
    I16(i16),
    /// The table, once.
    Table(Table),
    /// The value in every i32.
    I32(i32),
}

impl Constant {
    fn of(op: &Op) -> Option<Constant> {
        match *op {
            Op::XorSign(..) => Some(Constant::SignBits),
            Op::And(.., mask) => Some(Constant::Bytes(mask)),
            Op::Dot4(.., Dot::SignedMagnitude | Dot::UnsignedPairs) => Some(Constant::I16(1)),
            Op::Widen { twice, .. } => Some(Constant::I16(1 + i16::from(twice))),
            Op::Lookup(.., table) => Some(Constant::Table(table)),
            Op::Multiply(.., c) => Some(Constant::I32(c)),
            _ => None,
        }
    }

    fn bytes(self, vector: u32) -> Vec<u8> {
        let repeat = |pattern: &[u8]| pattern.iter().copied().cycle().take(vector as usize).collect();
        match self {
            Constant::SignBits => repeat(&[0x80]),
            Constant::Bytes(byte) => repeat(&[byte]),
            Constant::I16(value) => repeat(&value.to_le_bytes()),
            Constant::Table(table) => repeat(&table.bytes()),
            Constant::I32(c) => repeat(&c.to_le_bytes()),
        }
    }
}

/// A constant or a value as the last operand of an instruction.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    Register(Vector),
    Memory(AsmMemoryOperand),
}

/// The constants of a kernel.
pub(super) struct Constants(Vec<(Constant, CodeLabel, Option<Vector>)>);

impl Constants {
    /// The constants that the program needs. Those of inner loops get registers first.
    pub(super) fn of(program: &Program, registers: Range<Vector>, asm: &mut CodeAssembler) -> Constants {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        collect(&program.body, &mut inner, &mut outer);
        let mut constants: Vec<Constant> = Vec::new();
        for constant in inner.into_iter().chain(outer) {
            if !constants.contains(&constant) {
                constants.push(constant);
            }
        }
        let registers = registers.map(Some).chain(std::iter::repeat(None));
        Constants(constants.into_iter().zip(registers).map(|(c, r)| (c, asm.create_label(), r)).collect())
    }

    /// # Panics
    /// If the program does not need it.
    pub(super) fn operand(&self, constant: Constant) -> Operand {
        let &(_, label, register) = self
            .0
            .iter()
            .find(|(c, ..)| *c == constant)
            .expect("all constants of the program were collected");
        register.map_or_else(|| Operand::Memory(ptr(label)), Operand::Register)
    }

    /// Registers to be loaded before the first tile, and from where.
    pub(super) fn loads(&self) -> Vec<(Vector, AsmMemoryOperand)> {
        self.0.iter().filter_map(|&(_, label, register)| Some((register?, ptr(label)))).collect()
    }

    /// Writes them to where the assembler stands. Gives their length in bytes.
    pub(super) fn place(&mut self, asm: &mut CodeAssembler, vector: u32) -> Result<usize, Refused> {
        self.0.iter_mut().try_for_each(|(constant, label, _)| -> Result<(), IcedError> {
            asm.set_label(label)?;
            asm.db(&constant.bytes(vector))
        })?;
        Ok(self.0.len() * vector as usize)
    }
}

fn collect(nodes: &[Node], inner: &mut Vec<Constant>, outer: &mut Vec<Constant>) {
    for node in nodes {
        match node {
            Node::Op(op) => outer.extend(Constant::of(op)),
            Node::Quads { body, .. } => inner.extend(body.iter().filter_map(Constant::of)),
            Node::Tiles(body) | Node::Rows { body, .. } | Node::Lanes { body, .. } => {
                collect(body, inner, outer)
            }
        }
    }
}
