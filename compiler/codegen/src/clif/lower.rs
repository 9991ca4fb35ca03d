//! [`Program`] to Cranelift IR.

use crate::program::{Acc, Dot, FEATURES, Node, Op, Program, Reg, Touch};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I8X16, I16X8, I32, I32X4, I64};
use cranelift_codegen::ir::{
    AbiParam, Endianness, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use std::mem::offset_of;
use trit_format::kernel::KernelArgs;
use trit_format::target::Arch;
use trit_format::tile::{self, LANES, QUAD, ROWS, VECTOR};

const I32_BYTES: u64 = size_of::<i32>() as u64;

/// A function of one argument, a pointer to [`KernelArgs`].
pub(super) fn function(program: &Program, config: TargetFrontendConfig) -> Function {
    // On x86-64 this is the System V convention, on aarch64 the platform's standard one.
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(I64));
    let mut function = Function::with_name_signature(UserFuncName::user(0, 0), signature);
    let mut context = FunctionBuilderContext::new();
    let mut lower = Lower::new(program, FunctionBuilder::new(&mut function, &mut context));
    let start = lower.start;
    lower.nodes(&program.body, start);
    lower.b.ins().return_(&[]);
    lower.b.seal_all_blocks();
    lower.b.finalize(config);
    function
}

/// Where the enclosing loops stand.
#[derive(Clone, Copy)]
struct At {
    weights: Value,
    activations: Value,
    sums: Value,
    out: Value,
}

/// Distances from one activation row to the next, in bytes.
struct RowStrides {
    activations: Value,
    sums: Value,
    out: Value,
}

struct Lower<'a> {
    program: &'a Program,
    b: FunctionBuilder<'a>,
    start: At,
    tiles: Value,
    strides: RowStrides,
    /// Next byte to touch, where anything is touched.
    touched: Variable,
    /// Accumulators by row, part and feature; no row group has more than 4 rows and parts in all.
    accumulators: Vec<Variable>,
    registers: Vec<Option<Value>>,
    /// 0x80 in each byte.
    sign_bits: Option<Value>,
    zero: Value,
}

/// Rows and parts that can be told apart.
const MAX_PARTS: usize = 4;

impl<'a> Lower<'a> {
    fn new(program: &'a Program, mut b: FunctionBuilder<'a>) -> Self {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let args = b.block_params(entry)[0];
        let mut field = |offset: usize| b.ins().load(I64, MemFlagsData::trusted(), args, offset as i32);
        let start = At {
            weights: field(offset_of!(KernelArgs, weights)),
            activations: field(offset_of!(KernelArgs, activations)),
            sums: field(offset_of!(KernelArgs, sums)),
            out: field(offset_of!(KernelArgs, out)),
        };
        let tiles = field(offset_of!(KernelArgs, tiles));
        let activations = field(offset_of!(KernelArgs, activation_stride));
        let (sums, out) = (field(offset_of!(KernelArgs, sum_stride)), field(offset_of!(KernelArgs, out_stride)));
        let log = i64::from(I32_BYTES.ilog2());
        let strides =
            RowStrides { activations, sums: b.ins().ishl_imm_u(sums, log), out: b.ins().ishl_imm_u(out, log) };
        let unsigned = uses(&program.body, &|op| matches!(op, Op::XorSign(..)));
        let sign_bits = unsigned.then(|| constant(&mut b, [0x80; 16]));
        let zero = constant(&mut b, [0; 16]);
        let touched = b.declare_var(I64);
        let accumulators = (0..MAX_PARTS * MAX_PARTS * FEATURES).map(|_| b.declare_var(I32X4)).collect();
        Lower { program, b, start, tiles, strides, touched, accumulators, registers: Vec::new(), sign_bits, zero }
    }

    fn nodes(&mut self, nodes: &[Node], at: At) {
        for node in nodes {
            match node {
                Node::Op(op) => self.op(op, at, 0),
                Node::Tiles(body) => self.tiles(body, at),
                Node::Rows { first, groups, rows, body } => self.rows(*first, *groups, *rows, body, at),
                Node::Lanes { parts, body } => {
                    let bytes = i64::from(parts * self.program.vector);
                    let count = (VECTOR as i64 / bytes) as u32;
                    let step = self.b.ins().iconst(I64, bytes);
                    // A lane is 4 bytes of weights and one i32 of results.
                    self.repeat(count, at, [Some(step), None, None, Some(step)], |lower, at| lower.nodes(body, at));
                }
                Node::Quads { count, unroll, touch, body } => self.quads(*count, *unroll, *touch, body, at),
            }
        }
    }

    fn tiles(&mut self, body: &[Node], at: At) {
        let tile_bytes = tile::bytes(self.program.spec.k as usize) as i64;
        let touches = self.program.spec.prefetch > 0;
        let left = self.b.declare_var(I64);
        self.b.def_var(left, self.tiles);
        let weights_step = self.b.ins().iconst(I64, tile_bytes);
        let out_step = self.b.ins().iconst(I64, (ROWS as u64 * I32_BYTES) as i64);
        self.repeat_while(at, [Some(weights_step), None, None, Some(out_step)], |lower, at| {
            let more = lower.b.use_var(left);
            let more = lower.b.ins().iadd_imm_s(more, -1);
            lower.b.def_var(left, more);
            if touches {
                let next = lower.b.ins().iadd_imm_s(at.weights, tile_bytes);
                let next = lower.b.ins().select(more, next, at.weights);
                lower.b.def_var(lower.touched, next);
            }
            lower.nodes(body, at);
            lower.b.use_var(left)
        });
    }

    fn rows(&mut self, first: u32, groups: u32, rows: u32, body: &[Node], mut at: At) {
        if first > 0 {
            at.activations = self.row(at.activations, self.strides.activations, first);
            at.sums = self.row(at.sums, self.strides.sums, first);
            at.out = self.row(at.out, self.strides.out, first);
        }
        let mut step = |stride: Value| Some(self.b.ins().imul_imm_s(stride, i64::from(rows)));
        let steps =
            [None, step(self.strides.activations), step(self.strides.sums), step(self.strides.out)];
        self.repeat(groups, at, steps, |lower, at| lower.nodes(body, at));
    }

    fn quads(&mut self, count: u32, unroll: u32, touch: Option<Touch>, body: &[Op], mut at: At) {
        let whole = count - count % unroll;
        if whole > 0 {
            let weights_step = self.b.ins().iconst(I64, (VECTOR as u32 * unroll).into());
            let activations_step = self.b.ins().iconst(I64, (QUAD as u32 * unroll).into());
            let end = self.b.ins().iadd_imm_s(at.weights, i64::from(whole) * VECTOR as i64);
            at = self.repeat_until(end, at, [Some(weights_step), Some(activations_step), None, None], |lower, at| {
                if let Some(touch) = touch {
                    lower.touch(touch);
                }
                (0..unroll).for_each(|quad| body.iter().for_each(|op| lower.op(op, at, quad)));
            });
        }
        (0..count - whole).for_each(|quad| body.iter().for_each(|op| self.op(op, at, quad)));
    }

    /// Runs `body` `count` times, then leaves.
    fn repeat(&mut self, count: u32, at: At, steps: [Option<Value>; 4], mut body: impl FnMut(&mut Self, At)) {
        if count == 1 {
            return body(self, at);
        }
        let left = self.b.declare_var(I64);
        let start = self.b.ins().iconst(I64, count.into());
        self.b.def_var(left, start);
        self.repeat_while(at, steps, |lower, at| {
            body(lower, at);
            let more = lower.b.use_var(left);
            let more = lower.b.ins().iadd_imm_s(more, -1);
            lower.b.def_var(left, more);
            more
        });
    }

    /// Runs `body` until the weights reach `end`, and says where that left the pointers.
    fn repeat_until(
        &mut self,
        end: Value,
        at: At,
        steps: [Option<Value>; 4],
        mut body: impl FnMut(&mut Self, At),
    ) -> At {
        let variables = self.enter(at, steps);
        let header = self.b.create_block();
        self.b.ins().jump(header, &[]);
        self.b.switch_to_block(header);
        let at = self.current(at, variables);
        body(self, at);
        let next = self.advance(at, variables, steps);
        let exit = self.b.create_block();
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, next.weights, end);
        self.b.ins().brif(more, header, &[], exit, &[]);
        self.b.switch_to_block(exit);
        next
    }

    /// Runs `body` until the value it gives is zero.
    fn repeat_while(&mut self, at: At, steps: [Option<Value>; 4], body: impl FnOnce(&mut Self, At) -> Value) {
        let variables = self.enter(at, steps);
        let header = self.b.create_block();
        self.b.ins().jump(header, &[]);
        self.b.switch_to_block(header);
        let at = self.current(at, variables);
        let more = body(self, at);
        self.advance(at, variables, steps);
        let exit = self.b.create_block();
        self.b.ins().brif(more, header, &[], exit, &[]);
        self.b.switch_to_block(exit);
    }

    fn enter(&mut self, at: At, steps: [Option<Value>; 4]) -> [Option<Variable>; 4] {
        let mut index = 0;
        steps.map(|step| {
            let value = at.pointers()[index];
            index += 1;
            step.map(|_| {
                let variable = self.b.declare_var(I64);
                self.b.def_var(variable, value);
                variable
            })
        })
    }

    fn current(&mut self, mut at: At, variables: [Option<Variable>; 4]) -> At {
        for (pointer, variable) in at.pointers_mut().into_iter().zip(variables) {
            if let Some(variable) = variable {
                *pointer = self.b.use_var(variable);
            }
        }
        at
    }

    fn advance(&mut self, mut at: At, variables: [Option<Variable>; 4], steps: [Option<Value>; 4]) -> At {
        for ((pointer, variable), step) in at.pointers_mut().into_iter().zip(variables).zip(steps) {
            if let (Some(variable), Some(step)) = (variable, step) {
                *pointer = self.b.ins().iadd(*pointer, step);
                self.b.def_var(variable, *pointer);
            }
        }
        at
    }

    fn touch(&mut self, touch: Touch) {
        let at = self.b.use_var(self.touched);
        for line in 0..touch.lines {
            // May trap as far as Cranelift knows, so that it keeps a load whose result nothing uses.
            self.b.ins().load(I8, MemFlagsData::new(), at, (line * VECTOR as u32) as i32);
        }
        let next = self.b.ins().iadd_imm_s(at, touch.stride.into());
        self.b.def_var(self.touched, next);
    }

    /// One operation, `quad` quads past where the inner loop stands.
    fn op(&mut self, op: &Op, at: At, quad: u32) {
        let vector = self.program.vector;
        match *op {
            Op::Zero(acc) => self.b.def_var(self.accumulator(acc), self.zero_sums()),
            Op::Broadcast(r, row) => {
                let from = self.row(at.activations, self.strides.activations, row.into());
                let offset = (quad * QUAD as u32) as i32;
                let four = self.b.ins().load(I32, MemFlagsData::trusted(), from, offset);
                let all = self.b.ins().splat(I32X4, four);
                let all = self.b.ins().bitcast(I8X16, little(), all);
                self.define(r, all);
            }
            Op::Load(r, part) => {
                let offset = (quad * VECTOR as u32 + u32::from(part) * vector) as i32;
                let bytes = self.b.ins().load(I8X16, MemFlagsData::trusted(), at.weights, offset);
                self.define(r, bytes);
            }
            Op::XorSign(r, x) => {
                let bits = self.sign_bits.expect("made where the program flips signs");
                let flipped = self.b.ins().bxor(bits, self.reg(x));
                self.define(r, flipped);
            }
            Op::SignMask(r, a) => {
                let mask = self.b.ins().icmp(IntCC::SignedGreaterThan, self.zero, self.reg(a));
                self.define(r, mask);
            }
            Op::Magnitude(r, a) => {
                let magnitude = self.b.ins().iabs(self.reg(a));
                self.define(r, magnitude);
            }
            Op::NegateWhere(r, x, mask) => {
                let flipped = self.b.ins().bxor(self.reg(mask), self.reg(x));
                let negated = self.b.ins().isub(flipped, self.reg(mask));
                self.define(r, negated);
            }
            Op::Times3(r, x) => {
                let x = self.reg(x);
                let double = self.b.ins().iadd(x, x);
                let triple = self.b.ins().iadd(double, x);
                self.define(r, triple);
            }
            Op::Dot4(acc, x, a, dot) => {
                let variable = self.accumulator(acc);
                let sum = self.b.use_var(variable);
                let sum = self.dot4(sum, self.reg(x), self.reg(a), dot);
                self.b.def_var(variable, sum);
            }
            Op::Sum(r, row) => {
                let from = self.row(at.sums, self.strides.sums, row.into());
                let sum = self.b.ins().load(I32, MemFlagsData::trusted(), from, 0);
                let all = self.b.ins().splat(I32X4, sum);
                self.define(r, all);
            }
            Op::Recover(r, high, low) => {
                let high = self.b.use_var(self.accumulator(high));
                let low = self.b.use_var(self.accumulator(low));
                let double = self.b.ins().iadd(high, high);
                let triple = self.b.ins().iadd(double, high);
                let difference = self.b.ins().isub(triple, low);
                let digit = self.b.ins().sshr_imm_u(difference, 8);
                self.define(r, digit);
            }
            Op::Subtract(r, a, b) => {
                let difference = self.b.ins().isub(self.reg(a), self.reg(b));
                self.define(r, difference);
            }
            Op::Store { value, row, digit, part } => {
                let to = self.row(at.out, self.strides.out, row.into());
                let offset = u32::from(digit) * LANES as u32 * I32_BYTES as u32 + u32::from(part) * vector;
                // Results are i32 in an array of i32: never aligned to a vector by contract.
                let flags = MemFlagsData::new().with_notrap();
                self.b.ins().store(flags, self.reg(value), to, offset as i32);
            }
        }
    }

    /// `sum + dot4(features, activations)` in the shape that instruction selection folds.
    fn dot4(&mut self, sum: Value, x: Value, a: Value, dot: Dot) -> Value {
        let ins = &mut self.b;
        match dot {
            Dot::SignedMagnitude => {
                // The first operand is the signed one.
                let pairs = ins.ins().x86_pmaddubsw(x, a);
                let fours = widening_pairwise_sum(ins, pairs);
                ins.ins().iadd(fours, sum)
            }
            Dot::SignedSigned | Dot::UnsignedSigned => {
                let (x_low, x_high) = if dot == Dot::SignedSigned {
                    (ins.ins().swiden_low(x), ins.ins().swiden_high(x))
                } else {
                    (ins.ins().uwiden_low(x), ins.ins().uwiden_high(x))
                };
                let (a_low, a_high) = (ins.ins().swiden_low(a), ins.ins().swiden_high(a));
                // x86-64 wants the signed operand first.
                let (low, high) = (ins.ins().imul(a_low, x_low), ins.ins().imul(a_high, x_high));
                let fours = if self.program.target == trit_format::target::Target::Aarch64 {
                    // Without the dot-product instruction, sums of two products are formed in i16: at most
                    // 2 * 127 * 128 = 32512, since no feature is -128.
                    let pairs = ins.ins().iadd_pairwise(low, high);
                    widening_pairwise_sum(ins, pairs)
                } else {
                    let (low, high) = (widening_pairwise_sum(ins, low), widening_pairwise_sum(ins, high));
                    ins.ins().iadd_pairwise(low, high)
                };
                ins.ins().iadd(fours, sum)
            }
        }
    }
}
