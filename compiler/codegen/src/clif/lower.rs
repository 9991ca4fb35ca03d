//! Lowers a [`Program`] to Cranelift IR: the function, its loops and their pointers.

use crate::program::{Node, Op, Program, Touch, features};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I8X16, I32X4, I64};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use std::mem::offset_of;
use trit_format::dense243::Code;
use trit_format::kernel::KernelArgs;
use trit_format::tile::{self, QUAD, VECTOR};

pub(super) const I32_BYTES: u32 = size_of::<i32>() as u32;
/// Rows of a group, and parts of a pass, that can be told apart.
pub(super) const MAX_PARTS: usize = 4;

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

/// What the enclosing loops have advanced: one address for each [`Pointer`].
#[derive(Clone, Copy)]
pub(super) struct At([Value; 4]);

/// An operand of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pointer {
    Weights,
    Activations,
    Sums,
    Out,
}

impl At {
    pub(super) fn get(&self, pointer: Pointer) -> Value {
        self.0[pointer as usize]
    }

    fn with(mut self, pointer: Pointer, address: Value) -> At {
        self.0[pointer as usize] = address;
        self
    }
}

/// What an iteration advances, and by how many bytes.
type Step = (Pointer, Value);

/// When a loop ends. It runs at least once.
enum Until {
    /// After as many iterations as the variable says, which counts down.
    Counted(Variable),
    /// When the weights have reached an address.
    WeightsAt(Value),
}

pub(super) struct Lower<'a> {
    pub(super) program: &'a Program,
    pub(super) b: FunctionBuilder<'a>,
    start: At,
    /// The pointer to [`KernelArgs`].
    args: Value,
    tiles: Value,
    /// Bytes from one activation row to the next, in each operand that has rows.
    row_strides: [Step; 3],
    /// Multiples of these strides for the rows of a group after the first. They are made outside the loops.
    row_offsets: Vec<[Step; 3]>,
    /// Next byte to touch, where anything is touched.
    touched: Variable,
    /// By row, part and feature.
    pub(super) accumulators: Vec<Variable>,
    /// Values of the program's registers in the operations lowered last.
    pub(super) registers: Vec<Option<Value>>,
    /// 0, 3 and 0x80 in each byte. They are made once, outside the loops. Where nothing uses them, they give no code.
    pub(super) zero: Value,
    pub(super) three: Value,
    pub(super) sign_bits: Value,
    /// The masks of features of signs; none for other codes.
    pub(super) masks: Vec<(u8, Value)>,
}

impl<'a> Lower<'a> {
    fn new(program: &'a Program, mut b: FunctionBuilder<'a>) -> Self {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let args = b.block_params(entry)[0];
        let mut field = |offset: usize| b.ins().load(I64, MemFlagsData::trusted(), args, offset as i32);
        let start = At([
            field(offset_of!(KernelArgs, weights)),
            field(offset_of!(KernelArgs, activations)),
            field(offset_of!(KernelArgs, sums)),
            field(offset_of!(KernelArgs, out)),
        ]);
        let tiles = field(offset_of!(KernelArgs, tiles));
        let activations = field(offset_of!(KernelArgs, activation_stride));
        let [sums, out] =
            [offset_of!(KernelArgs, sum_stride), offset_of!(KernelArgs, out_stride)].map(&mut field);
        let [sums, out] = [sums, out].map(|stride| b.ins().ishl_imm_u(stride, i64::from(I32_BYTES.ilog2())));
        let row_strides = [(Pointer::Activations, activations), (Pointer::Sums, sums), (Pointer::Out, out)];
        let row_offsets = (1..MAX_PARTS.min(program.spec.m as usize) as i64)
            .map(|row| row_strides.map(|(pointer, stride)| (pointer, b.ins().imul_imm_s(stride, row))))
            .collect();
        let [zero, three, sign_bits] = [0, 3, 0x80].map(|byte| constant(&mut b, I8X16, byte));
        let masks = match program.spec.code {
            Code::Binary => {
                let masks = (1..8).map(|bits| 0xff >> bits).chain([2, 4, 8]);
                masks.map(|mask| (mask, constant(&mut b, I8X16, mask))).collect()
            }
            _ => Vec::new(),
        };
        let touched = b.declare_var(I64);
        let accumulators =
            (0..MAX_PARTS * MAX_PARTS * features(program.spec.code)).map(|_| b.declare_var(I32X4)).collect();
        let registers = Vec::new();
        Lower {
            program,
            b,
            start,
            args,
            tiles,
            row_strides,
            row_offsets,
            touched,
            accumulators,
            registers,
            zero,
            three,
            sign_bits,
            masks,
        }
    }

    fn nodes(&mut self, nodes: &[Node], at: At) {
        for node in nodes {
            match node {
                Node::Op(op) => self.op(op, at, 0),
                Node::Tiles(body) => self.tiles(body, at),
                Node::Rows { first, groups, rows, body } => {
                    let mut at = at;
                    for (pointer, bytes) in self.rows_bytes(*first) {
                        at = at.with(pointer, self.b.ins().iadd(at.get(pointer), bytes));
                    }
                    let steps = if *groups > 1 { self.rows_bytes(*rows) } else { Vec::new() };
                    self.times(*groups, at, &steps, |lower, at| lower.nodes(body, at));
                }
                Node::Lanes { parts, body } => {
                    let bytes = parts * self.program.vector;
                    let step = self.b.ins().iconst(I64, i64::from(bytes));
                    // A lane is 4 bytes of weights and one i32 of results.
                    let steps = [(Pointer::Weights, step), (Pointer::Out, step)];
                    self.times(VECTOR as u32 / bytes, at, &steps, |lower, at| lower.nodes(body, at));
                }
                Node::Quads { count, unroll, touch, body, .. } => {
                    self.quads(*count, *unroll, *touch, body, at)
                }
            }
        }
    }

    fn field(&mut self, offset: usize) -> Value {
        self.b.ins().load(I64, MemFlagsData::trusted(), self.args, offset as i32)
    }

    /// How many bytes so many activation rows take in each operand that has rows.
    fn rows_bytes(&mut self, rows: u32) -> Vec<Step> {
        if rows == 0 {
            return Vec::new();
        }
        self.row_strides.map(|(p, stride)| (p, self.b.ins().imul_imm_s(stride, i64::from(rows)))).to_vec()
    }

    fn tiles(&mut self, body: &[Node], at: At) {
        let tile_bytes = tile::bytes(self.program.spec.k as usize) as i64;
        let left = self.b.declare_var(I64);
        self.b.def_var(left, self.tiles);
        let weights = self.b.ins().iconst(I64, tile_bytes);
        let out = self.b.ins().iconst(I64, i64::from(self.program.spec.code.tile_rows() as u32 * I32_BYTES));
        let activations = self.field(offset_of!(KernelArgs, activation_advance));
        let sums = self.field(offset_of!(KernelArgs, sum_advance));
        let sums = self.b.ins().ishl_imm_u(sums, i64::from(I32_BYTES.ilog2()));
        let steps = [
            (Pointer::Weights, weights),
            (Pointer::Out, out),
            (Pointer::Activations, activations),
            (Pointer::Sums, sums),
        ];
        self.repeat(Until::Counted(left), at, &steps, |lower, at| {
            if lower.program.spec.prefetch > 0 {
                let this = at.get(Pointer::Weights);
                let next = lower.b.ins().iadd(this, weights);
                let left = lower.b.use_var(left);
                let more = lower.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, left, 1);
                let touched = lower.b.ins().select(more, next, this);
                lower.b.def_var(lower.touched, touched);
            }
            lower.nodes(body, at);
        });
    }

    /// The remainder comes first. Then nothing after the loop uses its pointers, so that they advance in place.
    fn quads(&mut self, count: u32, unroll: u32, touch: Option<Touch>, body: &[Op], at: At) {
        let first = count % unroll;
        (0..first).for_each(|quad| body.iter().for_each(|op| self.op(op, at, quad)));
        if first == count {
            return;
        }
        let each = [(Pointer::Weights, VECTOR as u32), (Pointer::Activations, QUAD as u32)];
        let at = each.into_iter().fold(at, |at, (pointer, bytes)| self.skip(at, pointer, bytes * first));
        let end = self.skip(at, Pointer::Weights, VECTOR as u32 * (count - first)).get(Pointer::Weights);
        let steps =
            each.map(|(pointer, bytes)| (pointer, self.b.ins().iconst(I64, i64::from(bytes * unroll))));
        self.repeat(Until::WeightsAt(end), at, &steps, |lower, at| {
            if let Some(touch) = touch {
                lower.touch(touch);
            }
            (0..unroll).for_each(|quad| body.iter().for_each(|op| lower.op(op, at, quad)));
        });
    }

    fn skip(&mut self, at: At, pointer: Pointer, bytes: u32) -> At {
        if bytes == 0 {
            return at;
        }
        let address = self.b.ins().iadd_imm_s(at.get(pointer), i64::from(bytes));
        at.with(pointer, address)
    }

    fn touch(&mut self, touch: Touch) {
        let at = self.b.use_var(self.touched);
        for line in 0..touch.lines {
            // For all that Cranelift knows the load may trap, so it is kept although nothing uses its result.
            self.b.ins().load(I8, MemFlagsData::new(), at, (line * VECTOR as u32) as i32);
        }
        let next = self.b.ins().iadd_imm_s(at, i64::from(touch.stride));
        self.b.def_var(self.touched, next);
    }

    /// Runs `body` a constant number of times.
    fn times(&mut self, count: u32, at: At, steps: &[Step], body: impl FnOnce(&mut Self, At)) {
        if count == 1 {
            return body(self, at);
        }
        let left = self.b.declare_var(I64);
        let start = self.b.ins().iconst(I64, i64::from(count));
        self.b.def_var(left, start);
        self.repeat(Until::Counted(left), at, steps, body);
    }

    /// Runs `body` until then.
    fn repeat(&mut self, until: Until, at: At, steps: &[Step], body: impl FnOnce(&mut Self, At)) {
        let variables: Vec<Variable> = steps.iter().map(|_| self.b.declare_var(I64)).collect();
        for (&variable, &(pointer, _)) in variables.iter().zip(steps) {
            self.b.def_var(variable, at.get(pointer));
        }
        let (header, exit) = (self.b.create_block(), self.b.create_block());
        self.b.ins().jump(header, &[]);
        self.b.switch_to_block(header);
        let stepped = variables.iter().zip(steps);
        let now = stepped.clone().fold(at, |at, (&v, &(pointer, _))| at.with(pointer, self.b.use_var(v)));
        body(self, now);
        let mut next = now;
        for (&variable, &(pointer, step)) in stepped {
            let advanced = self.b.ins().iadd(now.get(pointer), step);
            self.b.def_var(variable, advanced);
            next = next.with(pointer, advanced);
        }
        let more = match until {
            Until::Counted(left) => {
                let more = self.b.use_var(left);
                let more = self.b.ins().iadd_imm_s(more, -1);
                self.b.def_var(left, more);
                more
            }
            Until::WeightsAt(end) => {
                self.b.ins().icmp(IntCC::UnsignedLessThan, next.get(Pointer::Weights), end)
            }
        };
        self.b.ins().brif(more, header, &[], exit, &[]);
        self.b.switch_to_block(exit);
    }

    /// The address of a row of the group, for an operand that has rows.
    pub(super) fn row(&mut self, at: At, pointer: Pointer, row: u8) -> Value {
        let offsets = usize::from(row).checked_sub(1).map(|later| self.row_offsets[later]);
        let offset = offsets.into_iter().flatten().find(|&(p, _)| p == pointer);
        offset.map_or(at.get(pointer), |(_, offset)| self.b.ins().iadd(at.get(pointer), offset))
    }
}

/// A vector of 16 equal bytes.
pub(super) fn constant(b: &mut FunctionBuilder<'_>, vector: Type, byte: u8) -> Value {
    let bytes = b.func.dfg.constants.insert(vec![byte; 16].into());
    b.ins().vconst(vector, bytes)
}
