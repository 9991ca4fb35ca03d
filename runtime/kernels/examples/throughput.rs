//! Throughput of each kernel on one thread: `cargo run --release -p trit-kernels --example throughput`.
//!
//! Shapes are those of a 2B model. Tables are larger than the caches, so GB/s compares with the memory's streaming
//! bandwidth, which the first line measures with a plain read of the same size.

use std::hint::black_box;
use std::time::Instant;
use trit_format::dense243::Code;
use trit_format::plan::{Activation, ActivationRule, DType, ScaleRule};
use trit_format::tile;
use trit_kernels::{epilogue, head, norm, quantize, rope, ternary};

/// Seconds of the fastest of several runs of `work`.
fn seconds(runs: usize, mut work: impl FnMut()) -> f64 {
    let time = |()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| ()).map(time).fold(f64::INFINITY, f64::min)
}

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn report(name: &str, rate: f64, unit: &str) {
    println!("{name:44} {rate:9.2} {unit}");
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("small") {
        return small();
    }
    const HIDDEN: usize = 2560;
    const VOCAB: usize = 65536;
    // These bytes are ordinary numbers both as bf16 and as f16, because subnormal numbers would be slow.
    let table: Vec<u8> =
        (0..VOCAB * HIDDEN).flat_map(|i| ((i * 7919 % 1009) as u16 + 0x3800).to_le_bytes()).collect();
    let words = table.chunks_exact(64).len() as f64 * 64.0;
    let t = seconds(5, || {
        let mut sums = [0u64; 8];
        for chunk in table.chunks_exact(64) {
            for (sum, b) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
                *sum ^= u64::from_le_bytes(b.try_into().unwrap_or_default());
            }
        }
        black_box(sums);
    });
    report("plain read", words / t / 1e9, "GB/s");

    let (x, mut logits) = (floats(HIDDEN), vec![0.0; VOCAB]);
    let codes = |columns, offsets| DType::I8Blocks { columns, offsets };
    for dtype in [DType::F32, DType::Bf16, DType::F16, codes(16, false), codes(32, false), codes(32, true)] {
        let row_bytes = dtype.row_bytes(HIDDEN as u64).unwrap_or(1) as usize;
        let rows = (table.len() / row_bytes).min(VOCAB);
        let logits = &mut logits[..rows];
        let t = seconds(5, || head::dot_rows(&table, dtype, HIDDEN, 0..rows, &x, logits));
        report(&format!("head {dtype}"), (rows * row_bytes) as f64 / t / 1e9, "GB/s");
        report(&format!("head {dtype}"), rows as f64 / t / 1e6, "M rows/s");
    }
    block(&table, HIDDEN);
    portable();
    small();
}

fn block(table: &[u8], hidden: usize) {
    const M: usize = 8;
    const ROWS: usize = 16384;
    let x = floats(M * hidden);
    let inputs: Vec<&[f32]> = x.chunks(hidden).collect();
    let mut out = vec![0.0; M * ROWS];
    let t = seconds(5, || {
        let mut outs: Vec<&mut [f32]> = out.chunks_mut(ROWS).collect();
        head::dot_rows_block(table, DType::Bf16, hidden, 0..ROWS, &inputs, &mut outs);
    });
    report("head Bf16, 8 inputs", (M * ROWS * hidden) as f64 / t / 1e9, "G multiply-adds/s");
}

fn portable() {
    const K: usize = 2560;
    const TILES: usize = 512;
    let activations: Vec<i8> = (0..8 * K).map(|i| (i * 31 % 255) as i8).collect();
    for code in Code::ALL {
        let weights: Vec<u8> = (0..TILES * tile::bytes(K))
            .map(|i| code.store((i * 37 % code.values()) as u8).unwrap())
            .collect();
        let mut out = vec![0; 8 * TILES * code.tile_rows()];
        for m in [1, 8] {
            let t = seconds(5, || {
                ternary::portable(&weights, K, code, &activations, K, m, &mut out, TILES * code.tile_rows())
            });
            report(
                &format!("portable ternary {code:?}, m = {m}"),
                weights.len() as f64 / t / 1e9,
                "GB/s of weights",
            );
            report("", (weights.len() * 5 * m) as f64 / t / 1e9, "G multiply-adds/s");
        }
    }
}

fn small() {
    const N: usize = 6912;
    let (x, w) = (floats(N), floats(N));
    let (mut out, mut q) = (vec![0.0; N], vec![0i8; N]);
    let rate = |t: f64| N as f64 * 1000.0 / t / 1e9;
    let rule = ActivationRule::AbsmaxPerToken { floor: 1e-5 };
    let t = seconds(5, || {
        (0..1000).for_each(|_| {
            black_box(quantize::per_token(black_box(&x), 1e-5, &mut q));
        })
    });
    report("quantize 6912", rate(t), "G elements/s");
    let mut scratch = Vec::new();
    for n in [2560, N] {
        let (x, w) = (&x[..n], &w[..n]);
        let rate = |t: f64| n as f64 * 1000.0 / t / 1e9;
        let t = seconds(50, || {
            (0..1000).for_each(|_| norm::rms_norm(black_box(x), w, 1e-5, &mut out[..n]));
        });
        report(&format!("RMSNorm {n}"), rate(t), "G elements/s");
        let t = seconds(50, || {
            (0..1000).for_each(|_| {
                let (scales, sums) = (&mut [0.0], &mut [0]);
                let row = quantize::QuantizedRow { values: &mut q[..n], scales, sums };
                norm::norm_quantize(black_box(x), w, 1e-5, rule, &mut scratch, row);
            })
        });
        report(&format!("RMSNorm and quantize {n}"), rate(t), "G elements/s");
    }
    let table = rope::RopeTable::new(&floats(64), 1.0, 8);
    let heads = &mut out[..25 * 128];
    let t = seconds(50, || (0..1000).for_each(|_| table.rotate(black_box(heads), 7)));
    report("RoPE of 25 heads of 128", 25.0 * 128.0 * 1000.0 / t / 1e9, "G elements/s");
    groups(&sums_of(3 * 20 * 80));
    let by = epilogue::Scale { s: 100.0, w: 0.5, rule: ScaleRule::Multiply };
    let sums = sums_of(N);
    for activation in [Activation::Relu2, Activation::Silu] {
        let t = seconds(5, || {
            for _ in 0..1000 {
                for (sums, out) in sums.chunks(80).zip(out.chunks_mut(80)) {
                    epilogue::gate(activation, black_box(sums), by, sums, by, out);
                }
            }
        });
        report(&format!("gate {activation:?} 6912"), rate(t), "G elements/s");
    }
}

fn sums_of(n: usize) -> Vec<i32> {
    (0..n as i32).map(|i| i * 31 % 4001 - 2000).collect()
}

/// Times turning the group sums of a tile of 2560 columns, in groups of 128, into floats, and the quantization before
/// it.
fn groups(sums: &[i32]) {
    const GROUPS: usize = 20;
    /// Rows of activations that a block kernel multiplies together.
    const BLOCK_ROWS: usize = 64;
    let (x, bytes) = (floats(GROUPS * 128), vec![1; GROUPS * 80 * 4]);
    let (mut values, mut scales, mut of_digits) =
        (vec![0; 3 * x.len()], vec![0.0; GROUPS], vec![0; 3 * GROUPS]);
    let rules = [
        ("int8", ActivationRule::AbsmaxPerGroup { columns: 128 }),
        ("24 bits", ActivationRule::Fixed24PerGroup { columns: 128 }),
    ];
    for (name, rule) in rules {
        let t = seconds(20, || {
            for _ in 0..1000 {
                let row =
                    quantize::QuantizedRow { values: &mut values, scales: &mut scales, sums: &mut of_digits };
                quantize::quantize(black_box(&x), rule, row);
            }
        });
        report(
            &format!("quantize 2560 by groups, {name}"),
            x.len() as f64 * 1000.0 / t / 1e9,
            "G elements/s",
        );
        for (of, shared) in [("row", usize::MAX), ("group", 1)] {
            let digits = rule.digits();
            let sums = epilogue::GroupSums {
                sums,
                digits,
                first: 0,
                groups: GROUPS,
                scales: &scales,
                scale_stride: GROUPS,
            };
            let weights = epilogue::WeightScales {
                bytes: &bytes,
                dtype: DType::F16,
                code: Code::SignedFix,
                groups: shared,
            };
            let mut acc = [0.0; 80];
            let t = seconds(20, || {
                (0..1000).for_each(|_| epilogue::add_groups(black_box(&sums), weights, black_box(&mut acc)));
            });
            let name = format!("group sums to floats, {name}, a scale a {of}");
            report(&name, t * 1e9 / (1000 * GROUPS) as f64, "ns a group");
            // As block kernels give them: one group of many rows.
            let block = vec![1000; BLOCK_ROWS * digits * 80];
            let scales = vec![0.5; BLOCK_ROWS];
            let sums =
                epilogue::GroupSums { sums: &block, groups: 1, scales: &scales, scale_stride: 1, ..sums };
            let mut acc = vec![0.0; BLOCK_ROWS * 80];
            let t = seconds(20, || {
                (0..100).for_each(|_| epilogue::add_groups(black_box(&sums), weights, black_box(&mut acc)));
            });
            report(&format!("{name}, {BLOCK_ROWS} rows"), t * 1e9 / (100 * BLOCK_ROWS) as f64, "ns a group");
        }
    }
}
