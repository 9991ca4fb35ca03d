//! Programs on int8 trits. Inputs are not copied, but looked at when they are first used.

use super::super::{TritOp, largest_of, look};
use super::{BLOCK, Block, Blocks, MAX_SLOTS, Operand, Program, Source, Step};
use crate::isa::{CHUNK, TritIsa, dispatch_trits};

dispatch_trits!(
    /// Runs a program with slots of int8 trits in `memory`. Returns the largest value of all inputs, plus 1 as u8.
    pub(super) fn run(program: &Program, memory: &mut [[u8; CHUNK]], inputs: &[&[u8]], out: &mut [u8]) -> u8 = run_body);

#[inline(always)]
fn run_body<I: TritIsa>(
    isa: I,
    program: &Program,
    memory: &mut [[u8; CHUNK]],
    inputs: &[&[u8]],
    out: &mut [u8],
) -> u8 {
    let mut slots: Vec<&mut [[u8; CHUNK]]> = memory.chunks_exact_mut(BLOCK).collect();
    let mut seen = isa.splat(0);
    let mut blocks = Blocks::new(inputs, out, 0);
    while let Some((block, out)) = blocks.next() {
        // Inputs are not copied: a slot that keeps one stands for where it is.
        let mut held = [None; MAX_SLOTS];
        for step in &program.steps {
            match *step {
                Step::Binary { op, operands, to } => {
                    let result = to.map(|to| std::mem::take(&mut slots[to])).unwrap_or_default();
                    let [a, b] = operands.map(|operand| TritSource::new(operand, &slots, &held, &block));
                    let target = match to {
                        Some(_) => &mut result[..out.len()],
                        None => &mut *out,
                    };
                    seen = trits_of_operation(isa, op, a, b, target, seen);
                    if let Some(to) = to {
                        slots[to] = result;
                        held[to] = None;
                    }
                    for operand in operands {
                        if let Source::Input { input, keep } = operand.from {
                            held[keep] = Some(input);
                        }
                    }
                }
                Step::Store(operand) => {
                    let from = TritSource::new(operand, &slots, &held, &block);
                    for (from, to) in from.chunks.iter().zip(&mut *out) {
                        for part in 0..CHUNK / I::BYTES {
                            let x = isa.load(from, part);
                            seen = look(isa, seen, x);
                            isa.store(sign(isa, x, operand.negated), to, part);
                        }
                    }
                }
            }
        }
    }
    blocks.finish();
    largest_of(isa, seen)
}

/// Int8 trits of a block.
struct TritSource<'a> {
    chunks: &'a [[u8; CHUNK]],
    negated: bool,
    /// Whether it must be looked at whether these are trits.
    unseen: bool,
}

impl<'a> TritSource<'a> {
    #[inline(always)]
    fn new(
        operand: Operand,
        slots: &'a [&mut [[u8; CHUNK]]],
        held: &[Option<usize>],
        block: &'a Block,
    ) -> TritSource<'a> {
        let (chunks, unseen) = match operand.from {
            Source::Input { input, .. } => (block.chunks(input), true),
            Source::Slot(slot) => match held[slot] {
                Some(input) => (block.chunks(input), false),
                None => (&*slots[slot], false),
            },
        };
        TritSource { chunks, negated: operand.negated, unseen }
    }
}

/// Compiled for each operation, and for each sign of the operands.
#[inline(always)]
fn trits_of_operation<I: TritIsa>(
    isa: I,
    op: TritOp,
    a: TritSource,
    b: TritSource,
    to: &mut [[u8; CHUNK]],
    seen: I::Bytes,
) -> I::Bytes {
    match op {
        TritOp::Add => trits_of_signs(isa, TritOp::Add, a, b, to, seen),
        TritOp::Mul => trits_of_signs(isa, TritOp::Mul, a, b, to, seen),
        TritOp::Min => trits_of_signs(isa, TritOp::Min, a, b, to, seen),
        TritOp::Max => trits_of_signs(isa, TritOp::Max, a, b, to, seen),
    }
}

#[inline(always)]
fn trits_of_signs<I: TritIsa>(
    isa: I,
    op: TritOp,
    a: TritSource,
    b: TritSource,
    to: &mut [[u8; CHUNK]],
    seen: I::Bytes,
) -> I::Bytes {
    match (a.negated, b.negated) {
        (false, false) => trits_loop(isa, op, [false, false], a, b, to, seen),
        // All operations are commutative.
        (false, true) => trits_loop(isa, op, [true, false], b, a, to, seen),
        (true, false) => trits_loop(isa, op, [true, false], a, b, to, seen),
        (true, true) => trits_loop(isa, op, [true, true], a, b, to, seen),
    }
}

#[inline(always)]
fn trits_loop<I: TritIsa>(
    isa: I,
    op: TritOp,
    [an, bn]: [bool; 2],
    a: TritSource,
    b: TritSource,
    to: &mut [[u8; CHUNK]],
    mut seen: I::Bytes,
) -> I::Bytes {
    for ((x, y), to) in a.chunks.iter().zip(b.chunks).zip(to) {
        for part in 0..CHUNK / I::BYTES {
            let (x, y) = (isa.load(x, part), isa.load(y, part));
            if a.unseen {
                seen = look(isa, seen, x);
            }
            if b.unseen {
                seen = look(isa, seen, y);
            }
            isa.store(op.on_trits(isa, sign(isa, x, an), sign(isa, y, bn)), to, part);
        }
    }
    seen
}

#[inline(always)]
fn sign<I: TritIsa>(isa: I, x: I::Bytes, negated: bool) -> I::Bytes {
    if negated { isa.sub(isa.splat(0), x) } else { x }
}
