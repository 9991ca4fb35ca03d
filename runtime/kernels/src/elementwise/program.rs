//! Several operations in one pass over memory.
//!
//! A [`Program`] is a list of steps on slots. It goes over its inputs by blocks: each step runs over a whole block before the
//! next one, and all slots of a block stay in the first-level cache. So arrays are read and written once, whatever the number
//! of operations, and packed bytes are taken apart once for each input and put together once.
//!
//! Slots of packed trits hold planes (`isa/trits.rs`), where the opposite of a value is the same planes the other way
//! round, which costs nothing. Slots of int8 trits hold those.

mod int8;
mod packed;

use super::{NoTrit, TritOp, checked, filled};
use crate::isa::{CHUNK, TritTier, bytes_of, bytes_of_mut};
use std::cell::Cell;

/// Chunks of a block. A slot of planes is then 4 KiB and eight of them 32 KiB. Slots stand one behind the other, so that the
/// same chunk has the same place in its page in all of them: a CPU takes a load for one of a value that was just stored
/// if the two places in their pages are the same.
const BLOCK: usize = 32;
/// The most slots of a program.
pub const MAX_SLOTS: usize = 64;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A slot.
    Slot(usize),
    /// An input, which is read here and stays in a slot.
    Input {
        /// Which input.
        input: usize,
        /// The slot that has it from the next step on.
        keep: usize,
    },
}

/// A value, or its opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Where the value comes from.
    pub from: Source,
    /// Whether its opposite is meant.
    pub negated: bool,
}

/// A step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An operation of two operands.
    Binary {
        /// Which operation.
        op: TritOp,
        /// Its operands.
        operands: [Operand; 2],
        /// The slot of the result; `None` writes it out, which is the last step. It is none of the operands' slots.
        to: Option<usize>,
    },
    /// Writes a value out, which is the last step.
    Store(Operand),
}

/// Steps that have been checked.
#[derive(Clone, Debug)]
pub struct Program {
    inputs: usize,
    slots: usize,
    steps: Vec<Step>,
}

impl Program {
    /// A program of these steps; `None` if they are none: a step reads a slot that was not written before, uses a slot for
    /// two things, or the last one, and only that one, does not write the result.
    pub fn new(steps: Vec<Step>) -> Option<Program> {
        let mut written = [false; MAX_SLOTS];
        let mut inputs = 0;
        let (last, before) = steps.split_last()?;
        let ends = |step: &Step| matches!(step, Step::Store(_) | Step::Binary { to: None, .. });
        if !ends(last) || before.iter().any(ends) {
            return None;
        }
        for step in &steps {
            let (operands, to): (&[Operand], _) = match step {
                Step::Binary { operands, to, .. } => (operands, *to),
                Step::Store(operand) => (std::slice::from_ref(operand), None),
            };
            let (mut reads, mut writes) = (Vec::new(), Vec::from_iter(to));
            for operand in operands {
                match operand.from {
                    Source::Slot(slot) => reads.push(slot),
                    Source::Input { input, keep } => {
                        inputs = inputs.max(input.checked_add(1)?);
                        writes.push(keep);
                    }
                }
            }
            if reads.iter().any(|r| !written.get(*r).is_some_and(|w| *w)) {
                return None;
            }
            for (i, &to) in writes.iter().enumerate() {
                if reads.contains(&to) || writes[..i].contains(&to) {
                    return None;
                }
                *written.get_mut(to)? = true;
            }
        }
        let slots = written.iter().rposition(|w| *w)? + 1;
        Some(Program { inputs, slots, steps })
    }

    /// How many inputs it reads.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Runs on packed trits, canonical bytes.
    ///
    /// # Panics
    /// If there are other than [`Program::inputs`] inputs, or slices differ in length.
    pub fn run(&self, tier: TritTier, inputs: &[&[u8]], out: &mut [u8]) {
        assert_eq!(inputs.len(), self.inputs, "an operand for each input");
        assert!(inputs.iter().all(|input| input.len() == out.len()), "operands of the same length");
        // A single operation needs no planes.
        if let [Step::Binary { op, operands: [a, b], to: None }] = self.steps[..]
            && let (Source::Input { input: ia, .. }, Source::Input { input: ib, .. }) = (a.from, b.from)
        {
            return packed::single(tier, op, [a.negated, b.negated], inputs[ia], inputs[ib], out);
        }
        self.with_slots(2 * BLOCK, |memory| packed::run(tier, self, memory, inputs, out));
    }

    /// Runs on int8 trits.
    ///
    /// # Errors
    /// The first value of an input that is no trit; `out` then holds nothing of use.
    ///
    /// # Panics
    /// As [`Program::run`].
    pub fn run_i8(&self, tier: TritTier, inputs: &[&[i8]], out: &mut [i8]) -> Result<(), NoTrit> {
        assert_eq!(inputs.len(), self.inputs, "an operand for each input");
        assert!(inputs.iter().all(|input| input.len() == out.len()), "operands of the same length");
        let bytes: Vec<&[u8]> = inputs.iter().map(|input| bytes_of(input)).collect();
        let run = |memory: &mut _| int8::run(tier, self, memory, &bytes, bytes_of_mut(out));
        checked(self.with_slots(BLOCK, run), inputs)
    }

    /// Runs `work` on memory for the slots, of `chunks` chunks each, aligned so that no load or store touches two cache lines.
    /// Each thread keeps its memory, because short arrays would take less time than it takes to make it.
    fn with_slots<T>(&self, chunks: usize, work: impl FnOnce(&mut [[u8; CHUNK]]) -> T) -> T {
        thread_local!(static MEMORY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
        let mut memory = MEMORY.take();
        let len = self.slots * chunks * CHUNK;
        if memory.len() < len + CHUNK {
            memory.resize(len + CHUNK, 0);
        }
        let start = memory.as_ptr().align_offset(CHUNK).min(CHUNK);
        let done = work(memory[start..start + len].as_chunks_mut().0);
        MEMORY.set(memory);
        done
    }
}

/// The chunks of the inputs that a block goes over.
struct Block<'a> {
    inputs: &'a [&'a [u8]],
    /// The first chunk.
    at: usize,
    len: usize,
    /// The last chunk of each input, filled up, where that is the block.
    tails: &'a [[u8; CHUNK]],
}

impl Block<'_> {
    #[inline(always)]
    fn chunks(&self, input: usize) -> &[[u8; CHUNK]] {
        match self.tails {
            [] => &self.inputs[input].as_chunks::<CHUNK>().0[self.at..][..self.len],
            tails => std::slice::from_ref(&tails[input]),
        }
    }
}

/// Goes over the inputs and the output by blocks. What lies behind the last whole chunk is a block of its own, filled up.
struct Blocks<'a> {
    inputs: &'a [&'a [u8]],
    whole: &'a mut [[u8; CHUNK]],
    rest: &'a mut [u8],
    tails: Vec<[u8; CHUNK]>,
    last: [u8; CHUNK],
    at: usize,
}

impl<'a> Blocks<'a> {
    fn new(inputs: &'a [&'a [u8]], out: &'a mut [u8], fill: u8) -> Blocks<'a> {
        let (whole, rest) = out.as_chunks_mut::<CHUNK>();
        let tails = inputs.iter().map(|input| filled(input, fill)).collect();
        Blocks { inputs, whole, rest, tails, last: [fill; CHUNK], at: 0 }
    }

    /// The next block of the inputs and of the output.
    #[inline(always)]
    fn next(&mut self) -> Option<(Block<'_>, &mut [[u8; CHUNK]])> {
        let (at, chunks) = (self.at, self.whole.len());
        if at < chunks {
            let len = BLOCK.min(chunks - at);
            self.at += len;
            let block = Block { inputs: self.inputs, at, len, tails: &[] };
            return Some((block, &mut self.whole[at..at + len]));
        }
        if at > chunks || self.rest.is_empty() {
            return None;
        }
        self.at += 1;
        let block = Block { inputs: self.inputs, at, len: 1, tails: &self.tails };
        Some((block, std::slice::from_mut(&mut self.last)))
    }

    /// Writes what the last block gave.
    fn finish(self) {
        self.rest.copy_from_slice(&self.last[..self.rest.len()]);
    }
}
