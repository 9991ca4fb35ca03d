//! Decides which vector register holds what. Accumulators come first, then the values of a block of operations, then
//! constants.

use super::Refused;
use crate::program::{Acc, Dot, Node, Op, Program, Reg};
use std::collections::BTreeMap;

/// A vector register, by number.
pub(super) type Vector = u8;

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In the temporary of that number.
    Temporary(u8),
    /// In the accumulator itself.
    Accumulator(Acc),
}

/// The registers of an operation's operands and of its result.
#[derive(Clone, Copy, Default)]
pub(super) struct Places {
    /// In the order of [`Op::reads`].
    pub reads: [Option<Place>; 2],
    /// The result. For an [`Op::Dot4`] that takes several instructions, it is the value that they pass on.
    pub writes: Option<Place>,
}

/// The registers of a kernel.
pub(super) struct Registers {
    /// The number of accumulators of all sets in the pass that has most of them.
    accumulators: usize,
    temporaries: usize,
    found: usize,
    /// The pass's accumulators of the first set, in the order they were cleared.
    pass: Vec<Acc>,
}

impl Registers {
    /// Counts what the program needs.
    pub(super) fn of(program: &Program) -> Result<Registers, Refused> {
        let found = if program.vector == 64 { 32 } else { 16 };
        let mut registers = Registers { accumulators: 0, temporaries: 0, found, pass: Vec::new() };
        registers.count(&program.body);
        let needed = registers.accumulators + registers.temporaries;
        if needed > found { Err(Refused::Registers { needed, found }) } else { Ok(registers) }
    }

    fn count(&mut self, nodes: &[Node]) {
        let ops: Vec<Op> =
            nodes.iter().filter_map(|node| if let Node::Op(op) = node { Some(*op) } else { None }).collect();
        let cleared = ops.iter().filter(|op| matches!(op, Op::Zero(_))).count();
        self.temporaries = self.temporaries.max(places(&ops).1);
        for node in nodes {
            match node {
                Node::Op(_) => {}
                Node::Quads { sets, body, .. } => {
                    self.accumulators = self.accumulators.max(cleared * *sets as usize);
                    self.temporaries = self.temporaries.max(places(body).1);
                }
                Node::Tiles(body) | Node::Rows { body, .. } | Node::Lanes { body, .. } => self.count(body),
            }
        }
    }

    /// Registers that nothing is computed in.
    pub(super) fn unused(&self) -> std::ops::Range<Vector> {
        (self.accumulators + self.temporaries) as Vector..self.found as Vector
    }

    /// Forgets the accumulators of the pass before.
    pub(super) fn begin_pass(&mut self) {
        self.pass.clear();
    }

    /// Gives an accumulator its register.
    pub(super) fn clear(&mut self, acc: Acc) -> Vector {
        self.pass.push(acc);
        self.pass.len() as Vector - 1
    }

    /// The registers of one set.
    pub(super) fn set(&self, set: u32) -> std::ops::Range<Vector> {
        let first = set as Vector * self.pass.len() as Vector;
        first..first + self.pass.len() as Vector
    }

    /// # Panics
    /// If the program reads an accumulator that it has not cleared.
    pub(super) fn accumulator(&self, acc: Acc, set: u32) -> Vector {
        let index = self.pass.iter().position(|&a| a == acc).expect("a pass clears its accumulators first");
        self.set(set).start + index as Vector
    }

    pub(super) fn at(&self, place: Place) -> Vector {
        match place {
            Place::Temporary(i) => self.accumulators as Vector + i,
            Place::Accumulator(acc) => self.accumulator(acc, 0),
        }
    }
}

/// Places for the operations of one block, and how many temporaries they take. A temporary is free again after its
/// last use. The result of the same operation may take it too, unless the result is written before the operand is
/// read for the last time.
///
/// # Panics
/// If a register is read before it is written.
pub(super) fn places(ops: &[Op]) -> (Vec<Places>, usize) {
    let mut last = BTreeMap::new();
    for (i, op) in ops.iter().enumerate() {
        last.extend(op.reads().chain(op.writes()).map(|r| (r.0, i)));
    }
    let mut at: BTreeMap<u16, Place> = BTreeMap::new();
    let mut taken: Vec<bool> = Vec::new();
    let take = |taken: &mut Vec<bool>| {
        let free = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        taken.resize(taken.len().max(free + 1), false);
        taken[free] = true;
        Place::Temporary(free as u8)
    };
    let release = |taken: &mut Vec<bool>, place: Place| {
        if let Place::Temporary(i) = place {
            taken[usize::from(i)] = false;
        }
    };
    let mut list = Vec::with_capacity(ops.len());
    for (i, op) in ops.iter().enumerate() {
        let find = |r: Reg| *at.get(&r.0).expect("a program writes a register before it reads it");
        let mut reads = op.reads();
        let mut places = Places { reads: [reads.next().map(find), reads.next().map(find)], writes: None };
        let dying: Vec<Place> = op.reads().filter(|r| last[&r.0] == i).map(find).collect();
        let reused = !matches!(op, Op::Times3(..));
        if reused {
            dying.iter().for_each(|&place| release(&mut taken, place));
        }
        match (*op, op.writes()) {
            (Op::Take(r, acc), _) => {
                at.insert(r.0, Place::Accumulator(acc));
            }
            (Op::Dot4(.., Dot::SignedMagnitude | Dot::UnsignedPairs | Dot::UnsignedPairs16), _) => {
                let passed_on = take(&mut taken);
                release(&mut taken, passed_on);
                places.writes = Some(passed_on);
            }
            (_, Some(r)) => {
                let result = take(&mut taken);
                if last[&r.0] == i {
                    release(&mut taken, result);
                }
                at.insert(r.0, result);
                places.writes = Some(result);
            }
            _ => {}
        }
        if !reused {
            dying.iter().for_each(|&place| release(&mut taken, place));
        }
        list.push(places);
    }
    (list, taken.len())
}
