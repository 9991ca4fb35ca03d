//! The wide emitter: lowers a [`Program`] to x86-64 machine code with 256-bit (VEX) or 512-bit (EVEX) vectors.
//!
//! It chooses instructions, registers and addressing; arithmetic, passes and unrolling are the program's. Everything
//! lives in registers: a program that needs more is refused. The order of operations is kept, because the CPUs with
//! these tiers rename registers and look far enough ahead to overlap several quads by themselves.
//!
//! A kernel is one function of the System V convention. Constants stand behind the code, aligned to a vector, and are
//! addressed relative to the instruction pointer; those used most stay in registers that are left.

mod constants;
mod ops;
mod registers;

use crate::error::CodegenError;
use crate::program::{Node, Op, Program, Start, Touch};
use constants::Constants;
use iced_x86::IcedError;
use iced_x86::code_asm::{
    CodeAssembler, dword_ptr, qword_ptr, r8, r9, r10, r11d, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi, rdx,
    rsi, rsp,
};
use registers::Registers;
use std::fmt;
use std::mem::offset_of;
use trit_format::kernel::KernelArgs;
use trit_format::tile::{self, QUAD, VECTOR};

/// Bytes that constants are aligned to: a cache line, as the whole kernel is.
const ALIGNMENT: usize = 64;

/// Machine code of `program`.
pub(crate) fn emit(program: &Program) -> Result<Vec<u8>, CodegenError> {
    // The length of the code is known once it is assembled, and it does not depend on the gap behind the code.
    let refused = |refused: Refused| CodegenError::backend(&program.spec, program.target, refused);
    let (bytes, code) = WideEmitter::assemble(program, 0).map_err(refused)?;
    if code.is_multiple_of(ALIGNMENT) {
        return Ok(bytes);
    }
    Ok(WideEmitter::assemble(program, code.next_multiple_of(ALIGNMENT) - code).map_err(refused)?.0)
}

/// Why a program cannot be written with this tier's registers and instructions.
enum Refused {
    /// The assembler refused an instruction.
    Assembler(IcedError),
    /// More values are live at the same time than there are registers.
    Registers { needed: usize, found: usize },
    /// The tier has no such operation.
    Operation(Op),
    /// An activation row beyond those that can be addressed.
    Row(u8),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Assembler(e) => write!(f, "assembler: {e}"),
            Refused::Registers { needed, found } => {
                write!(
                    f,
                    "needs {needed} vector registers of {found}; fewer rows share a pass in a smaller m"
                )
            }
            Refused::Operation(op) => write!(f, "no instruction for {op:?}"),
            Refused::Row(row) => write!(f, "row {row} of a group, where groups have at most {MAX_ROWS}"),
        }
    }
}

impl From<IcedError> for Refused {
    fn from(e: IcedError) -> Refused {
        Refused::Assembler(e)
    }
}

/// Activation rows that share a pass: as many as scaled addressing reaches.
const MAX_ROWS: u8 = 4;

/// What stands in which general register, for the whole kernel:
///
/// | register | holds |
/// |---|---|
/// | `rdi` | the arguments |
/// | `rsi`, `rbp` | the tile's weights; tiles left |
/// | `rax`, `rcx` | where the inner loop stands in weights and activations; free in the epilogue |
/// | `rdx`, `r15`, `r10` | activations, sums and results of the group of rows |
/// | `r8`, `r9` | one and three times the bytes between activation rows |
/// | `r12`, `r13` | bytes between rows of results and of sums |
/// | `rbx` | results of the tile |
/// | `r11` | iterations left |
/// | `r14` | next line to prefetch, where a tile is passed over several times |
struct WideEmitter<'p> {
    asm: CodeAssembler,
    program: &'p Program,
    registers: Registers,
    constants: Constants,
    prefetch: Option<Prefetch>,
    /// First byte of the pass within a vector of weights; its results stand as far into a digit's.
    lane: u32,
}

impl WideEmitter<'_> {
    /// The kernel with `gap` bytes between code and constants, and the length of its code.
    fn assemble(program: &Program, gap: usize) -> Result<(Vec<u8>, usize), Refused> {
        let mut asm = CodeAssembler::new(64)?;
        let registers = Registers::of(program)?;
        let constants = Constants::of(program, registers.unused(), &mut asm);
        let prefetch = Prefetch::of(&program.body);
        let mut emitter = WideEmitter { asm, program, registers, constants, prefetch, lane: 0 };
        emitter.kernel()?;
        if gap > 0 {
            emitter.asm.db(&vec![0; gap])?;
        }
        let constants = emitter.constants.place(&mut emitter.asm, program.vector)?;
        let bytes = emitter.asm.assemble(0)?;
        let code = bytes.len() - constants - gap;
        Ok((bytes, code))
    }

    fn kernel(&mut self) -> Result<(), Refused> {
        let saved = [rbx, rbp, r12, r13, r14, r15];
        saved.into_iter().try_for_each(|r| self.asm.push(r))?;
        let field = |offset: usize| qword_ptr(rdi + offset as i32);
        self.asm.mov(rsi, field(offset_of!(KernelArgs, weights)))?;
        self.asm.mov(rbx, field(offset_of!(KernelArgs, out)))?;
        self.asm.mov(rbp, field(offset_of!(KernelArgs, tiles)))?;
        self.asm.mov(r8, field(offset_of!(KernelArgs, activation_stride)))?;
        self.asm.lea(r9, r8 + r8 * 2)?;
        self.asm.mov(r12, field(offset_of!(KernelArgs, out_stride)))?;
        self.asm.shl(r12, 2)?;
        self.asm.mov(r13, field(offset_of!(KernelArgs, sum_stride)))?;
        self.asm.shl(r13, 2)?;
        self.load_constants()?;
        let program = self.program;
        self.nodes(&program.body)?;
        self.asm.vzeroupper()?;
        saved.into_iter().rev().try_for_each(|r| self.asm.pop(r))?;
        Ok(self.asm.ret()?)
    }

    fn nodes(&mut self, nodes: &[Node]) -> Result<(), Refused> {
        let op = |node: &Node| if let Node::Op(op) = node { Some(*op) } else { None };
        let mut rest = nodes;
        while let Some(first) = rest.first() {
            let ops: Vec<Op> = rest.iter().map_while(op).collect();
            rest = &rest[ops.len().max(1)..];
            match first {
                Node::Op(_) => self.block(&ops, 0, 0)?,
                Node::Tiles(body) => self.tiles(body)?,
                Node::Rows { groups, rows, body, .. } => self.rows(*groups, *rows, body, rest.is_empty())?,
                Node::Lanes { parts, body } => {
                    for lane in (0..VECTOR as u32).step_by((parts * self.program.vector) as usize) {
                        self.lane = lane;
                        self.registers.begin_pass();
                        self.nodes(body)?;
                    }
                }
                Node::Quads { count, unroll, sets, body, .. } => self.quads(*count, *unroll, *sets, body)?,
            }
        }
        Ok(())
    }

    fn tiles(&mut self, body: &[Node]) -> Result<(), Refused> {
        let field = |offset: usize| qword_ptr(rdi + offset as i32);
        self.asm.mov(rdx, field(offset_of!(KernelArgs, activations)))?;
        self.asm.mov(r15, field(offset_of!(KernelArgs, sums)))?;
        // The distances from where the rows of a tile end to where those of the next tile begin. They are kept on the
        // stack, because all general registers are taken.
        let rows = rows_moved_on(body);
        for (advance, bytes, stride) in [
            (offset_of!(KernelArgs, sum_advance), size_of::<i32>(), r13),
            (offset_of!(KernelArgs, activation_advance), 1, r8),
        ] {
            self.asm.imul_3(rax, field(advance), bytes as i32)?;
            self.asm.imul_3(rcx, stride, rows as i32)?;
            self.asm.sub(rax, rcx)?;
            self.asm.push(rax)?;
        }
        let mut next = self.asm.create_label();
        self.asm.set_label(&mut next)?;
        self.asm.mov(r10, rbx)?;
        if let Some(Prefetch::Apart(bytes, _)) = self.prefetch {
            self.asm.lea(r14, rsi + i64::from(bytes))?;
        }
        self.nodes(body)?;
        self.asm.add(rsi, tile::bytes(self.program.spec.k as usize) as i32)?;
        self.asm.add(rbx, (self.program.spec.code.tile_rows() * size_of::<i32>()) as i32)?;
        self.asm.add(rdx, qword_ptr(rsp))?;
        self.asm.add(r15, qword_ptr(rsp + 8))?;
        self.asm.dec(rbp)?;
        self.asm.jnz(next)?;
        Ok(self.asm.add(rsp, 16)?)
    }

    /// Groups of rows follow one another, so that each begins where the one before ended.
    fn rows(&mut self, groups: u32, rows: u32, body: &[Node], last: bool) -> Result<(), Refused> {
        let mut next = self.asm.create_label();
        // The counter is kept on the stack, because all general registers are taken. A group runs for thousands of
        // cycles, so that costs nothing.
        if groups > 1 {
            self.asm.push(groups as i32)?;
            self.asm.set_label(&mut next)?;
        }
        self.nodes(body)?;
        if moves_on(groups, last) {
            for _ in 0..rows {
                self.asm.add(rdx, r8)?;
                self.asm.add(r15, r13)?;
                self.asm.add(r10, r12)?;
            }
        }
        if groups > 1 {
            self.asm.dec(dword_ptr(rsp))?;
            self.asm.jnz(next)?;
            self.asm.pop(rax)?;
        }
        Ok(())
    }

    fn quads(&mut self, count: u32, unroll: u32, sets: u32, body: &[Op]) -> Result<(), Refused> {
        self.asm.mov(rax, rsi)?;
        self.asm.mov(rcx, rdx)?;
        self.clear_sets(sets)?;
        let iterations = count / unroll;
        if count == unroll {
            self.iteration(unroll, sets, body)?;
        } else if iterations > 0 {
            let mut next = self.asm.create_label();
            self.asm.mov(r11d, iterations as i32)?;
            self.asm.set_label(&mut next)?;
            self.iteration(unroll, sets, body)?;
            self.asm.add(rax, (unroll * VECTOR as u32) as i32)?;
            self.asm.add(rcx, (unroll * QUAD as u32) as i32)?;
            self.asm.dec(r11d)?;
            self.asm.jnz(next)?;
        }
        for quad in 0..count % unroll {
            self.quad(quad, sets, body)?;
        }
        self.add_up(sets)
    }

    fn iteration(&mut self, unroll: u32, sets: u32, body: &[Op]) -> Result<(), Refused> {
        for quad in 0..unroll {
            if let Some(Prefetch::Apart(_, touch)) = self.prefetch {
                // The prefetches stand apart from each other: two at once made the kernel a fifth slower than one.
                for line in (0..touch.lines).filter(|line| line * unroll / touch.lines == quad) {
                    self.asm.prefetcht0(qword_ptr(r14 + (line * VECTOR as u32) as i32))?;
                }
            }
            self.quad(quad, sets, body)?;
        }
        if let Some(Prefetch::Apart(_, touch)) = self.prefetch {
            self.asm.add(r14, touch.stride as i32)?;
        }
        Ok(())
    }

    fn quad(&mut self, quad: u32, sets: u32, body: &[Op]) -> Result<(), Refused> {
        if let Some(Prefetch::Along(bytes)) = self.prefetch {
            self.asm.prefetcht0(qword_ptr(rax + (i64::from(bytes) + i64::from(quad * VECTOR as u32))))?;
        }
        self.block(body, quad, quad % sets)
    }
}

/// Whether pointers move on to the rows that follow. After the last group of a tile there are none.
fn moves_on(groups: u32, last: bool) -> bool {
    groups > 1 || !last
}

/// Activation rows by which a tile moves the pointers on.
fn rows_moved_on(tile: &[Node]) -> u32 {
    let last = tile.len().saturating_sub(1);
    let rows = tile.iter().enumerate().map(|(i, node)| match node {
        Node::Rows { groups, rows, .. } if moves_on(*groups, i == last) => groups * rows,
        _ => 0,
    });
    rows.sum()
}

/// How lines to be prefetched are found.
#[derive(Clone, Copy)]
enum Prefetch {
    /// So many bytes past the weights that are loaded. This is for tiles with a single pass, which goes over them in
    /// order.
    Along(u32),
    /// By an address of its own, which stands so many bytes past the tile when a tile begins.
    Apart(u32, Touch),
}

impl Prefetch {
    /// Found in the first inner loop, because all inner loops of a kernel are alike.
    fn of(nodes: &[Node]) -> Option<Prefetch> {
        nodes.iter().find_map(|node| match node {
            Node::Tiles(body) | Node::Rows { body, .. } | Node::Lanes { body, .. } => Prefetch::of(body),
            &Node::Quads {
                unroll, touch: Some(touch @ Touch { start: Start::Ahead(bytes), .. }), ..
            } => {
                let along = touch.stride == VECTOR as u32 * unroll;
                Some(if along { Prefetch::Along(bytes) } else { Prefetch::Apart(bytes, touch) })
            }
            Node::Op(_) | Node::Quads { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trit_format::dense243::Code;
    use trit_format::kernel::{KernelKind, KernelSpec};
    use trit_format::target::Target;

    #[test]
    fn programs_that_do_not_fit_are_refused() {
        let spec =
            KernelSpec { k: 64, m: 1, kind: KernelKind::Stream, code: Code::Spread, unroll: 1, prefetch: 0 };
        let narrow = |m| {
            let program = Program::new(&KernelSpec { m, ..spec }, Target::X86_64V4Vbmi).unwrap();
            emit(&Program { vector: 32, ..program }).unwrap_err().to_string()
        };
        assert!(narrow(4).contains("needs 27 vector registers of 16"), "{}", narrow(4));
        assert!(narrow(1).contains("no instruction for Lookup"), "{}", narrow(1));
    }
}
