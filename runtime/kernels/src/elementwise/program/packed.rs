//! Programs on packed trits, whose slots hold planes.

use super::super::{OnChunk, TritOp, VALUES, ZEROS, over_chunks};
use super::{BLOCK, Block, Blocks, Operand, Program, Source, Step};
use crate::isa::{CHUNK, TritIsa, dispatch_trits};

dispatch_trits!(
    /// A single operation of two inputs or their opposites, which needs no planes.
    pub(super) fn single(op: TritOp, negated: [bool; 2], a: &[u8], b: &[u8], out: &mut [u8]) = single_body);

#[inline(always)]
fn single_body<I: TritIsa>(isa: I, op: TritOp, negated: [bool; 2], a: &[u8], b: &[u8], out: &mut [u8]) {
    match op {
        TritOp::Add => over_chunks(isa, [a, b], out, ZEROS, &mut Signed { op: TritOp::Add, negated }),
        TritOp::Mul => over_chunks(isa, [a, b], out, ZEROS, &mut Signed { op: TritOp::Mul, negated }),
        TritOp::Min => over_chunks(isa, [a, b], out, ZEROS, &mut Signed { op: TritOp::Min, negated }),
        TritOp::Max => over_chunks(isa, [a, b], out, ZEROS, &mut Signed { op: TritOp::Max, negated }),
    }
}

/// An operation on packed bytes or their opposites.
struct Signed {
    op: TritOp,
    negated: [bool; 2],
}
impl<I: TritIsa> OnChunk<I, 2> for Signed {
    #[inline(always)]
    fn run(&mut self, isa: I, [a, b]: [&[u8; CHUNK]; 2], to: &mut [u8; CHUNK]) {
        for part in 0..CHUNK / I::BYTES {
            let (mut x, mut y) = (isa.load(a, part), isa.load(b, part));
            if self.negated[0] {
                x = isa.sub(isa.splat(VALUES - 1), x);
            }
            if self.negated[1] {
                y = isa.sub(isa.splat(VALUES - 1), y);
            }
            isa.store(isa.binary(self.op, x, y), to, part);
        }
    }
}

/// The planes of each chunk of a slot.
type Planes = [[[u8; CHUNK]; 2]];

dispatch_trits!(
    /// Runs a program with slots of planes in `memory`.
    pub(super) fn run(program: &Program, memory: &mut [[u8; CHUNK]], inputs: &[&[u8]], out: &mut [u8]) = run_body);

#[inline(always)]
fn run_body<I: TritIsa>(
    isa: I,
    program: &Program,
    memory: &mut [[u8; CHUNK]],
    inputs: &[&[u8]],
    out: &mut [u8],
) {
    let mut slots: Vec<&mut Planes> = memory.as_chunks_mut::<2>().0.chunks_exact_mut(BLOCK).collect();
    let mut blocks = Blocks::new(inputs, out, ZEROS);
    while let Some((block, out)) = blocks.next() {
        for step in &program.steps {
            match *step {
                Step::Binary { op, operands: [a, b], to } => {
                    let mut kept = [taken(&mut slots, a), taken(&mut slots, b)];
                    match to {
                        Some(to) => {
                            let result = std::mem::take(&mut slots[to]);
                            let target = &mut result[..out.len()];
                            planes_of_sources(isa, op, [a, b], &slots, &mut kept, &block, target);
                            slots[to] = result;
                        }
                        None => planes_of_sources(isa, op, [a, b], &slots, &mut kept, &block, out),
                    }
                    let [kept_a, kept_b] = kept;
                    put_back(&mut slots, a, kept_a);
                    put_back(&mut slots, b, kept_b);
                }
                Step::Store(operand) => {
                    let kept = taken(&mut slots, operand);
                    match operand.from {
                        Source::Slot(slot) => {
                            store_planes(
                                isa,
                                FromSlot { planes: slots[slot], negated: operand.negated },
                                out,
                            );
                        }
                        Source::Input { input, .. } => {
                            let (chunks, negated) = (block.chunks(input), operand.negated);
                            store_planes(isa, FromInput { chunks, keep: &mut *kept, negated }, out);
                        }
                    }
                    put_back(&mut slots, operand, kept);
                }
            }
        }
    }
    blocks.finish();
}

#[inline(always)]
fn store_planes<I: TritIsa>(isa: I, mut from: impl PlaneSource<I>, out: &mut [[u8; CHUNK]]) {
    for (i, to) in out.iter_mut().enumerate() {
        for part in 0..CHUNK / I::BYTES {
            isa.store(isa.repack(from.planes(isa, i, part)), to, part);
        }
    }
}

/// The slot that an operand is kept in, taken out of the others; an empty one for an operand that is in a slot already.
fn taken<'a>(slots: &mut [&'a mut Planes], operand: Operand) -> &'a mut Planes {
    match operand.from {
        Source::Slot(_) => &mut [],
        Source::Input { keep, .. } => std::mem::take(&mut slots[keep]),
    }
}

/// Puts back what [`taken`] took.
fn put_back<'a>(slots: &mut [&'a mut Planes], operand: Operand, slot: &'a mut Planes) {
    if let Source::Input { keep, .. } = operand.from {
        slots[keep] = slot;
    }
}

/// An operation on planes, compiled for each kind of source.
#[inline(always)]
fn planes_of_sources<I: TritIsa>(
    isa: I,
    op: TritOp,
    [a, b]: [Operand; 2],
    slots: &[&mut Planes],
    [kept_a, kept_b]: &mut [&mut Planes; 2],
    block: &Block,
    to: &mut [impl Target<I>],
) {
    let len = to.len();
    match (a.from, b.from) {
        (Source::Slot(sa), Source::Slot(sb)) => {
            let a = FromSlot { planes: &slots[sa][..len], negated: a.negated };
            let b = FromSlot { planes: &slots[sb][..len], negated: b.negated };
            planes_of_operation(isa, op, a, b, to);
        }
        (Source::Slot(sa), Source::Input { input, .. }) => {
            let a = FromSlot { planes: &slots[sa][..len], negated: a.negated };
            let b = FromInput {
                chunks: &block.chunks(input)[..len],
                keep: &mut kept_b[..len],
                negated: b.negated,
            };
            planes_of_operation(isa, op, a, b, to);
        }
        (Source::Input { input, .. }, Source::Slot(sb)) => {
            // All operations are commutative.
            let a = FromInput {
                chunks: &block.chunks(input)[..len],
                keep: &mut kept_a[..len],
                negated: a.negated,
            };
            let b = FromSlot { planes: &slots[sb][..len], negated: b.negated };
            planes_of_operation(isa, op, b, a, to);
        }
        (Source::Input { input: ia, .. }, Source::Input { input: ib, .. }) => {
            let a =
                FromInput { chunks: &block.chunks(ia)[..len], keep: &mut kept_a[..len], negated: a.negated };
            let b =
                FromInput { chunks: &block.chunks(ib)[..len], keep: &mut kept_b[..len], negated: b.negated };
            planes_of_operation(isa, op, a, b, to);
        }
    }
}

/// Compiled for each operation.
#[inline(always)]
fn planes_of_operation<I: TritIsa>(
    isa: I,
    op: TritOp,
    a: impl PlaneSource<I>,
    b: impl PlaneSource<I>,
    to: &mut [impl Target<I>],
) {
    match op {
        TritOp::Add => planes_loop(isa, TritOp::Add, a, b, to),
        TritOp::Mul => planes_loop(isa, TritOp::Mul, a, b, to),
        TritOp::Min => planes_loop(isa, TritOp::Min, a, b, to),
        TritOp::Max => planes_loop(isa, TritOp::Max, a, b, to),
    }
}

#[inline(always)]
fn planes_loop<I: TritIsa>(
    isa: I,
    op: TritOp,
    mut a: impl PlaneSource<I>,
    mut b: impl PlaneSource<I>,
    to: &mut [impl Target<I>],
) {
    for (i, to) in to.iter_mut().enumerate() {
        for part in 0..CHUNK / I::BYTES {
            let (a, b) = (a.planes(isa, i, part), b.planes(isa, i, part));
            to.put(isa, part, op.on_planes(isa, a, b));
        }
    }
}

/// Planes of a block, chunk by chunk.
trait PlaneSource<I: TritIsa> {
    fn planes(&mut self, isa: I, i: usize, part: usize) -> [I::Bytes; 2];
}

struct FromSlot<'a> {
    planes: &'a Planes,
    negated: bool,
}
impl<I: TritIsa> PlaneSource<I> for FromSlot<'_> {
    #[inline(always)]
    fn planes(&mut self, isa: I, i: usize, part: usize) -> [I::Bytes; 2] {
        let (planes, first) = (&self.planes[i], usize::from(self.negated));
        [isa.load(&planes[first], part), isa.load(&planes[1 - first], part)]
    }
}

struct FromInput<'a> {
    chunks: &'a [[u8; CHUNK]],
    keep: &'a mut Planes,
    negated: bool,
}
impl<I: TritIsa> PlaneSource<I> for FromInput<'_> {
    #[inline(always)]
    fn planes(&mut self, isa: I, i: usize, part: usize) -> [I::Bytes; 2] {
        let [plus, minus] = isa.unpack(isa.load(&self.chunks[i], part));
        self.keep[i].put(isa, part, [plus, minus]);
        if self.negated { [minus, plus] } else { [plus, minus] }
    }
}

/// Where planes go: a slot, or the output.
trait Target<I: TritIsa> {
    fn put(&mut self, isa: I, part: usize, planes: [I::Bytes; 2]);
}
impl<I: TritIsa> Target<I> for [[u8; CHUNK]; 2] {
    #[inline(always)]
    fn put(&mut self, isa: I, part: usize, [plus, minus]: [I::Bytes; 2]) {
        isa.store(plus, &mut self[0], part);
        isa.store(minus, &mut self[1], part);
    }
}
impl<I: TritIsa> Target<I> for [u8; CHUNK] {
    #[inline(always)]
    fn put(&mut self, isa: I, part: usize, planes: [I::Bytes; 2]) {
        isa.store(isa.repack(planes), self, part);
    }
}
