//! Every way through a grouped product gives the same bits, by kernels in Rust that check what they are handed.

use super::*;
use crate::engine::pool::Pool;
use std::sync::Arc;
use trit_format::dense243::Code;
use trit_format::kernel::{KernelArgs, KernelKind, KernelSpec};
use trit_format::manifest::Grouping;
use trit_format::plan::{Activation, ActivationRule, Buffer, DType, Plan, ScaleRule};
use trit_format::target::Target;
use trit_format::tile;
use trit_gemm::{KernelFn, KernelShape, MachineCode};
use trit_kernels::quantize::{QuantizedRow, quantize};

const K: usize = 200;
const OUT: BufferId = BufferId(3);
const INPUT: Quantized = Quantized { values: BufferId(0), scale: BufferId(1), sum: BufferId(2) };

macro_rules! kernel {
    ($name:ident, $abi:literal) => {
        /// What a kernel for `COLUMNS` columns and `M` rows computes; `M` of 0 is a kernel for blocks.
        unsafe extern $abi fn $name<const COLUMNS: usize, const M: usize>(args: *const KernelArgs) {
            // SAFETY: the caller's arguments, which these tests are about: what is read here is what kernels read.
            unsafe { compute(&*args, COLUMNS, M) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
kernel!(in_rust, "sysv64");
#[cfg(not(target_arch = "x86_64"))]
kernel!(in_rust, "C");

unsafe fn compute(args: &KernelArgs, columns: usize, m: usize) {
    let (rows, align) = if m == 0 { (args.rows as usize, 64) } else { (m, 4) };
    assert!(
        args.activations.addr().is_multiple_of(align) && args.activation_stride.is_multiple_of(align as u64)
    );
    assert!(args.weights.addr().is_multiple_of(64));
    assert!(m > 0 || args.tiles == 1 && !args.scratch.is_null());
    for t in 0..args.tiles as usize {
        for r in 0..rows {
            let at = r * args.activation_stride as usize + t * args.activation_advance as usize;
            let sum = r * args.sum_stride as usize + t * args.sum_advance as usize;
            // SAFETY: as documented at `KernelArgs`.
            let (weights, activations, sum, out) = unsafe {
                (
                    std::slice::from_raw_parts(
                        args.weights.add(t * tile::bytes(columns)),
                        tile::bytes(columns),
                    ),
                    std::slice::from_raw_parts(args.activations.add(at), columns),
                    *args.sums.add(sum),
                    std::slice::from_raw_parts_mut(
                        args.out.add(r * args.out_stride as usize + t * tile::ROWS),
                        tile::ROWS,
                    ),
                )
            };
            assert_eq!(sum, activations.iter().map(|&a| i32::from(a)).sum::<i32>());
            trit_kernels::ternary::portable(weights, columns, Code::SignedFix, activations, 0, 1, out, 0);
        }
    }
}

fn kernels<const COLUMNS: usize>(block: bool) -> Kernels {
    let (k, code) = (COLUMNS as u32, Code::SignedFix);
    let spec = |m, kind| KernelSpec { k, m, kind, code, unroll: 1, prefetch: 0 };
    let mut kernels: Vec<(KernelSpec, KernelFn)> = vec![
        (spec(1, KernelKind::Stream), in_rust::<COLUMNS, 1>),
        (spec(2, KernelKind::Stream), in_rust::<COLUMNS, 2>),
        (spec(3, KernelKind::Stream), in_rust::<COLUMNS, 3>),
        (spec(4, KernelKind::Stream), in_rust::<COLUMNS, 4>),
    ];
    if block {
        kernels.push((spec(8, KernelKind::Block), in_rust::<COLUMNS, 0>));
    }
    // SAFETY: they compute what their specifications say, for a process as long as it runs, on every CPU.
    let code_of = unsafe { MachineCode::new(kernels, Target::X86_64V2, Arc::new(())) };
    code_of.kernels(KernelShape { k, code }, |_| 0).unwrap()
}

/// In -1..1.
fn float(i: usize) -> f32 {
    ((i * 7919 + i * i % 577) % 2003) as f32 / 1001.0 - 1.0
}

fn matrix(columns: usize, epilogue: Epilogue) -> (PackedMatrix, Vec<u8>) {
    let order = if matches!(epilogue, Epilogue::Gate(_)) { RowOrder::Paired } else { RowOrder::Sequential };
    let segment = Segment { name: String::new(), rows: 90, scale: 1.0, rule: ScaleRule::Multiply };
    let matrix = PackedMatrix {
        name: String::new(),
        k: K as u32,
        code: Code::SignedFix,
        order,
        grouping: Some(Grouping {
            columns: columns as u32,
            scale_columns: columns as u32,
            scale: DType::F32,
        }),
        segments: vec![segment; 2],
        offset: 0,
    };
    let codes = matrix.code_bytes() as usize;
    let mut weights = Vec::new();
    for t in 0..matrix.tiles() as usize {
        weights.extend((0..codes).map(|i| Code::SignedFix.store(((i * 31 + t * 17) % 243) as u8).unwrap()));
        let scales = matrix.scales() as usize * tile::ROWS;
        weights.extend((0..scales).flat_map(|i| (1.5 + float(i + t)).to_le_bytes()));
        weights.resize((t + 1) * matrix.tile_bytes() as usize, 0);
    }
    (matrix, weights)
}

/// 64 bytes of alignment, as weights have.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

struct Case<const COLUMNS: usize> {
    rule: ActivationRule,
    epilogue: Epilogue,
    rows: usize,
}

impl<const COLUMNS: usize> Case<COLUMNS> {
    fn arena(&self) -> Arena {
        let (groups, digits) = (K.div_ceil(COLUMNS), self.rule.digits());
        let len = digits * ActivationRule::digit_len(K as u32, COLUMNS as u32) as usize;
        let mut plan = Plan {
            buffers: Vec::new(),
            row_bytes: 0,
            body: vec![],
            head: vec![],
            residual: OUT,
            logits: OUT,
            kv: vec![],
            layers: vec![],
        };
        for (dtype, len) in
            [(DType::I8, len), (DType::F32, groups), (DType::I32, digits * groups), (DType::F32, 200)]
        {
            let bytes = (len * dtype.size()) as u64;
            let stride = if (len, dtype.size()) == (1, 4) { 4 } else { bytes.next_multiple_of(64) };
            let (name, offset) = (String::new(), plan.row_bytes);
            plan.buffers.push(Buffer { name, dtype, len: len as u32, offset, stride });
            plan.row_bytes += stride.next_multiple_of(64);
        }
        Arena::new(&plan, self.rows).unwrap()
    }

    fn quantize(&self, row: usize, out: QuantizedRow) {
        let input: Vec<f32> = (0..K).map(|i| float(i + 37 * row)).collect();
        quantize(&input, self.rule, out);
    }

    /// The results of every row by some kernels, from rows in the arena or a worker's own.
    fn run(&self, kernels: &Kernels, own: bool, threads: usize) -> Vec<u32> {
        let arena = self.arena();
        let mut mine = OwnRows::new(
            self.rows,
            arena.stride::<i8>(INPUT.values),
            arena.len(INPUT.scale),
            arena.len(INPUT.sum),
        )
        .unwrap();
        for r in 0..self.rows {
            if own {
                self.quantize(r, mine.row_mut(r));
            } else {
                // SAFETY: no worker runs.
                let row = unsafe {
                    QuantizedRow {
                        values: arena.row_mut(INPUT.values, r, 0, arena.len(INPUT.values)),
                        scales: arena.row_mut(INPUT.scale, r, 0, arena.len(INPUT.scale)),
                        sums: arena.row_mut(INPUT.sum, r, 0, arena.len(INPUT.sum)),
                    }
                };
                self.quantize(r, row);
            }
            // SAFETY: as above.
            unsafe { arena.row_mut::<f32>(OUT, r, 0, 200) }.fill(0.5);
        }
        let (matrix, bytes) = matrix(COLUMNS, self.epilogue);
        let mut lines = vec![Line([0; 64]); bytes.len() / 64];
        lines.iter_mut().zip(bytes.as_chunks().0).for_each(|(line, bytes)| line.0 = *bytes);
        // SAFETY: lines are their bytes, one after the other.
        let weights = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), bytes.len()) };
        Pool::new(threads).unwrap().run(|worker| {
            let input = match own {
                true => mine.first(self.rows),
                // SAFETY: nobody writes the input.
                false => unsafe { in_arena(&arena, INPUT, 0..self.rows) },
            };
            let (epilogue, matrix) = (self.epilogue, &matrix);
            let step = TernaryStep {
                packed: matrix,
                weights,
                kernels,
                arena: &arena,
                input,
                epilogue,
                out: OUT,
                at: 7,
            };
            // SAFETY: only this step runs.
            unsafe { step.run(worker, 0..self.rows, &mut ProductScratch::default()) };
        });
        // SAFETY: no worker runs.
        let row = |r| unsafe { arena.row::<f32>(OUT, r) }.iter().map(|y| y.to_bits());
        (0..self.rows).flat_map(row).collect()
    }
}

fn check<const COLUMNS: usize>(rule: ActivationRule) {
    for epilogue in [Epilogue::Store, Epilogue::Add, Epilogue::Gate(Activation::Silu)] {
        for rows in [1, 2, 4, 7, 45, 130] {
            let case = Case::<COLUMNS> { rule, epilogue, rows };
            let expected = case.run(&Kernels::portable(), false, 1);
            for (block, own, threads) in
                [(false, false, 1), (true, false, 2), (false, true, 2), (true, true, 1)]
            {
                let ours = case.run(&kernels::<COLUMNS>(block), own, threads);
                assert!(ours == expected, "{rule:?} {epilogue:?} {rows} block {block} own {own}");
            }
            // What is before and after the results stays.
            let (edge, width) =
                (0.5f32.to_bits(), if matches!(epilogue, Epilogue::Gate(_)) { 90 } else { 180 });
            for row in expected.chunks(200) {
                assert!(row[..7].iter().chain(&row[7 + width..]).all(|y| *y == edge));
                assert!(row[7..7 + width].iter().any(|y| *y != edge));
            }
        }
    }
}

#[test]
fn every_kernel_and_every_place_of_the_rows_gives_the_same_bits() {
    check::<32>(ActivationRule::Fixed24PerGroup { columns: 32 });
    check::<64>(ActivationRule::Fixed24PerGroup { columns: 64 });
    check::<128>(ActivationRule::AbsmaxPerGroup { columns: 128 });
    check::<128>(ActivationRule::Fixed24PerGroup { columns: 128 });
    check::<256>(ActivationRule::AbsmaxPerGroup { columns: 256 });
}
