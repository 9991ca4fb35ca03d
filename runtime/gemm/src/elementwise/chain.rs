//! Several operations in one pass over memory.

use super::packed::{PackedTrits, on_packed};
use super::{TritOp, on_trits};
use crate::GemmError;
use std::collections::HashMap;
use trit_kernels::elementwise::TritTier;
use trit_kernels::elementwise::program::{MAX_SLOTS, Operand, Program, Source, Step};

/// Most operations of a chain.
const MOST_OPERATIONS: usize = 1 << 16;

/// A value of a chain that is being built: an input, or the result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    node: usize,
    negated: bool,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    Input(usize),
    Binary(TritOp, Value, Value),
}

/// Builds a [`Chain`]. Equal operations of equal values are done once.
#[derive(Clone, Debug, Default)]
pub struct ChainBuilder {
    nodes: Vec<Node>,
    known: HashMap<Node, usize>,
    inputs: usize,
}

impl ChainBuilder {
    /// The next input.
    pub fn input(&mut self) -> Value {
        self.inputs += 1;
        self.value(Node::Input(self.inputs - 1))
    }

    fn value(&mut self, node: Node) -> Value {
        let next = self.nodes.len();
        let at = *self.known.entry(node).or_insert(next);
        if at == next {
            self.nodes.push(node);
        }
        Value { node: at, negated: false }
    }

    fn binary(&mut self, op: TritOp, a: Value, b: Value) -> Value {
        // All operations are commutative.
        let (a, b) = if (a.node, a.negated) <= (b.node, b.negated) { (a, b) } else { (b, a) };
        self.value(Node::Binary(op, a, b))
    }

    /// The saturating sum.
    pub fn tadd(&mut self, a: Value, b: Value) -> Value {
        self.binary(TritOp::Add, a, b)
    }

    /// The product.
    pub fn tmul(&mut self, a: Value, b: Value) -> Value {
        self.binary(TritOp::Mul, a, b)
    }

    /// The smaller.
    pub fn tmin(&mut self, a: Value, b: Value) -> Value {
        self.binary(TritOp::Min, a, b)
    }

    /// The larger.
    pub fn tmax(&mut self, a: Value, b: Value) -> Value {
        self.binary(TritOp::Max, a, b)
    }

    /// The opposite.
    pub fn tnot(&mut self, a: Value) -> Value {
        Value { negated: !a.negated, ..a }
    }

    /// `clamp(a * b + c, -1, 1)`.
    pub fn ternary_fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        let product = self.tmul(a, b);
        self.tadd(product, c)
    }

    /// Number of different operations so far; opposites cost nothing and are not counted.
    pub fn operations(&self) -> usize {
        self.nodes.len() - self.inputs
    }

    /// The chain that computes `result`.
    ///
    /// # Errors
    /// [`GemmError::Chain`] for a value of another builder, a chain without inputs, more than 65536 operations, and one that
    /// needs more than about 60 values at a time.
    pub fn finish(&self, result: Value) -> Result<Chain, GemmError> {
        let problem = |problem: &str| GemmError::Chain { problem: problem.to_owned() };
        if result.node >= self.nodes.len() {
            return Err(problem("a value belongs to another chain"));
        }
        if self.operations() > MOST_OPERATIONS {
            return Err(problem("there are more than 65536 operations: divide it"));
        }
        let planner =
            Planner::new(&self.nodes, result).ok_or_else(|| problem("a value belongs to another chain"))?;
        let steps =
            planner.steps().ok_or_else(|| problem("too many values are needed at a time: divide it"))?;
        let program = Program::new(steps).ok_or_else(|| problem("it cannot be put into steps"))?;
        Ok(Chain { program, inputs: self.inputs, operations: self.operations() })
    }
}

/// Puts the operations that a result needs into steps.
struct Planner<'a> {
    nodes: &'a [Node],
    result: Value,
    /// The last node that needs each node; none where it is not needed.
    last: Vec<Option<usize>>,
    slots: Vec<Option<usize>>,
    free: Vec<usize>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    /// `None` if an operation is of a value that does not exist before it.
    fn new(nodes: &'a [Node], result: Value) -> Option<Planner<'a>> {
        let mut last = vec![None; nodes.len()];
        last[result.node] = Some(nodes.len());
        for (at, node) in nodes.iter().enumerate().rev() {
            if let (Node::Binary(_, a, b), Some(_)) = (node, last[at]) {
                for operand in [a, b] {
                    if operand.node >= at {
                        return None;
                    }
                    last[operand.node].get_or_insert(at);
                }
            }
        }
        let slots = vec![None; nodes.len()];
        Some(Planner { nodes, result, last, slots, free: (0..MAX_SLOTS).rev().collect(), steps: Vec::new() })
    }

    /// `None` if there are too few slots.
    fn steps(mut self) -> Option<Vec<Step>> {
        for (at, node) in self.nodes.iter().enumerate() {
            let (&Node::Binary(op, a, b), Some(_)) = (node, self.last[at]) else { continue };
            let is_result = at == self.result.node;
            // The opposite of the result is an operation of opposites.
            let (op, [a, b]) = match is_result && self.result.negated {
                true => opposite(op, a, b),
                false => (op, [a, b]),
            };
            let unread = self.slots[a.node].is_none();
            let first = self.operand(a)?;
            let second = match a.node == b.node && unread {
                // The input is in a slot only after the step, so the other side reads it too, into a slot that stays free.
                true => Operand { negated: b.negated, ..moved(first, *self.free.first()?) },
                false => self.operand(b)?,
            };
            let operands = [first, second];
            if is_result {
                self.steps.push(Step::Binary { op, operands, to: None });
                return Some(self.steps);
            }
            // Not the slot that stays free.
            let to = if self.free.len() > 1 { self.free.pop()? } else { return None };
            self.slots[at] = Some(to);
            self.steps.push(Step::Binary { op, operands, to: Some(to) });
            for operand in [a, b] {
                if self.last[operand.node] == Some(at) {
                    self.free.extend(self.slots[operand.node].take());
                }
            }
        }
        let operand = self.operand(self.result)?;
        self.steps.push(Step::Store(operand));
        Some(self.steps)
    }

    /// A value as an operand of the next step: its slot, or the input, which gets one.
    fn operand(&mut self, value: Value) -> Option<Operand> {
        let from = match (self.slots[value.node], self.nodes[value.node]) {
            (None, Node::Input(input)) => {
                let keep = self.free.pop()?;
                self.slots[value.node] = Some(keep);
                Source::Input { input, keep }
            }
            (slot, _) => Source::Slot(slot?),
        };
        Some(Operand { from, negated: value.negated })
    }
}

/// An input that is kept in another slot.
fn moved(operand: Operand, keep: usize) -> Operand {
    match operand.from {
        Source::Input { input, .. } => Operand { from: Source::Input { input, keep }, ..operand },
        Source::Slot(_) => operand,
    }
}

/// The operation and operands whose result is the opposite.
fn opposite(op: TritOp, a: Value, b: Value) -> (TritOp, [Value; 2]) {
    let not = |value: Value| Value { negated: !value.negated, ..value };
    match op {
        TritOp::Add => (TritOp::Add, [not(a), not(b)]),
        TritOp::Mul => (TritOp::Mul, [not(a), b]),
        TritOp::Min => (TritOp::Max, [not(a), not(b)]),
        TritOp::Max => (TritOp::Min, [not(a), not(b)]),
    }
}

/// Several operations in one pass over memory: arrays are read once, and there are no arrays in between.
#[derive(Clone, Debug)]
pub struct Chain {
    program: Program,
    inputs: usize,
    operations: usize,
}

impl Chain {
    /// Begins a chain.
    pub fn builder() -> ChainBuilder {
        ChainBuilder::default()
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of different operations; opposites are not counted.
    pub fn operations(&self) -> usize {
        self.operations
    }

    fn check_count(&self, given: usize) -> Result<(), GemmError> {
        match given == self.inputs {
            true => Ok(()),
            false => Err(GemmError::Chain {
                problem: format!("it has {} inputs, and {given} arrays were given", self.inputs),
            }),
        }
    }

    /// Runs on packed arrays.
    ///
    /// # Errors
    /// [`GemmError::Chain`] for another number of arrays, [`GemmError::Shapes`] where shapes differ, [`GemmError::Memory`]
    /// where memory is refused.
    pub fn run(&self, inputs: &[&PackedTrits]) -> Result<PackedTrits, GemmError> {
        self.check_count(inputs.len())?;
        let first = inputs.first().ok_or_else(|| GemmError::Chain { problem: "it has no input".into() })?;
        let mut out = first.room_like()?;
        self.run_into(inputs, &mut out)?;
        Ok(out)
    }

    /// [`Chain::run`] into an array.
    ///
    /// # Errors
    /// As there.
    pub fn run_into(&self, inputs: &[&PackedTrits], out: &mut PackedTrits) -> Result<(), GemmError> {
        self.check_count(inputs.len())?;
        let used = self.program.inputs();
        on_packed(inputs, out, |x, out| self.program.run(TritTier::best(), &x[..used], out))
    }

    /// Runs on int8 trits.
    ///
    /// # Errors
    /// [`GemmError::Chain`] for another number of arrays, [`GemmError::Length`] where lengths differ, [`GemmError::Operand`]
    /// with the first value that is no trit; then `out` holds nothing of use.
    pub fn run_i8(&self, inputs: &[&[i8]], out: &mut [i8]) -> Result<(), GemmError> {
        self.check_count(inputs.len())?;
        let used = self.program.inputs();
        on_trits(inputs, out, |x, out| self.program.run_i8(TritTier::best(), &x[..used], out))
    }
}
