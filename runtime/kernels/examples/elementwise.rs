//! Speed of element-wise arithmetic of trits on one thread, on every tier of this CPU:
//! `cargo run --release -p trit-kernels --example elementwise -- [KIB of each array ...]`.
//!
//! Prints G trit operations/s, one for each trit of the result, and for arrays beyond the caches the share of the memory's
//! bandwidth: bytes read and written over what a plain read of the same memory gives in the same run. A chain of operations
//! is compared with the same operations called one after the other. Each round runs every alternative once, so that other load
//! disturbs all of them alike; medians are printed.

use std::hint::black_box;
use std::time::Instant;
use trit_gemm::AlignedMemory;
use trit_kernels::elementwise::program::{Operand, Program, Source, Step};
use trit_kernels::elementwise::{
    TritOp, TritTier, binary, binary_i8, multiply_add, multiply_add_i8, negate, negate_i8, pack, unpack,
};

const ROUNDS: usize = 9;

/// Arrays of the same number of bytes.
struct Arrays(Vec<AlignedMemory>);

/// An operation of the chains.
#[derive(Clone, Copy)]
enum Called {
    Binary(TritOp, usize, usize, usize),
    Not(usize, usize),
}

/// Operations on arrays 0, 1, 2 (inputs) and 3.. (results), of which the last is the result.
struct Chain {
    name: &'static str,
    inputs: usize,
    calls: &'static [Called],
    /// The same as steps of a program.
    steps: fn() -> Vec<Step>,
}

fn step(op: TritOp, (a, an): (Source, bool), (b, bn): (Source, bool), to: Option<usize>) -> Step {
    Step::Binary { op, operands: [Operand { from: a, negated: an }, Operand { from: b, negated: bn }], to }
}

fn input(i: usize) -> Source {
    Source::Input { input: i, keep: i }
}

const CHAINS: [Chain; 4] = [
    Chain {
        name: "not(add(a, b))",
        inputs: 2,
        calls: &[Called::Binary(TritOp::Add, 0, 1, 3), Called::Not(3, 4)],
        steps: || {
            // -(a + b) is -a + -b.
            vec![step(TritOp::Add, (input(0), true), (input(1), true), None)]
        },
    },
    Chain {
        name: "max(min(a, not b), min(not a, b))",
        inputs: 2,
        calls: &[
            Called::Not(1, 3),
            Called::Binary(TritOp::Min, 0, 3, 4),
            Called::Not(0, 3),
            Called::Binary(TritOp::Min, 3, 1, 5),
            Called::Binary(TritOp::Max, 4, 5, 3),
        ],
        steps: || {
            vec![
                step(TritOp::Min, (input(0), false), (input(1), true), Some(2)),
                step(TritOp::Min, (Source::Slot(0), true), (Source::Slot(1), false), Some(3)),
                step(TritOp::Max, (Source::Slot(2), false), (Source::Slot(3), false), None),
            ]
        },
    },
    Chain {
        name: "max(min(add(a, b), c), not(mul(a, c)))",
        inputs: 3,
        calls: &[
            Called::Binary(TritOp::Add, 0, 1, 3),
            Called::Binary(TritOp::Min, 3, 2, 4),
            Called::Binary(TritOp::Mul, 0, 2, 3),
            Called::Not(3, 5),
            Called::Binary(TritOp::Max, 4, 5, 3),
        ],
        steps: || {
            vec![
                step(TritOp::Add, (input(0), false), (input(1), false), Some(3)),
                step(TritOp::Min, (Source::Slot(3), false), (input(2), false), Some(1)),
                step(TritOp::Mul, (Source::Slot(0), true), (Source::Slot(2), false), Some(3)),
                step(TritOp::Max, (Source::Slot(1), false), (Source::Slot(3), false), None),
            ]
        },
    },
    Chain {
        name: "8 operations of a, b, c",
        inputs: 3,
        calls: &[
            Called::Binary(TritOp::Add, 0, 1, 3),
            Called::Binary(TritOp::Mul, 0, 1, 4),
            Called::Binary(TritOp::Add, 3, 2, 5),
            Called::Binary(TritOp::Mul, 3, 2, 6),
            Called::Binary(TritOp::Max, 4, 6, 3),
            Called::Binary(TritOp::Min, 5, 3, 4),
            Called::Binary(TritOp::Mul, 4, 2, 3),
            Called::Binary(TritOp::Add, 3, 0, 5),
        ],
        steps: || {
            let plain = |op, a, b, to| step(op, (Source::Slot(a), false), (Source::Slot(b), false), to);
            vec![
                step(TritOp::Add, (input(0), false), (input(1), false), Some(3)),
                plain(TritOp::Mul, 0, 1, Some(4)),
                step(TritOp::Add, (Source::Slot(3), false), (input(2), false), Some(5)),
                plain(TritOp::Mul, 3, 2, Some(6)),
                plain(TritOp::Max, 4, 6, Some(3)),
                plain(TritOp::Min, 5, 3, Some(4)),
                plain(TritOp::Mul, 4, 2, Some(3)),
                plain(TritOp::Add, 3, 0, None),
            ]
        },
    },
];

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("KiB")).collect();
    let sizes = if sizes.is_empty() { vec![8, 256, 128 << 10] } else { sizes };
    for kib in sizes {
        let bytes = kib << 10;
        let mut arrays = Arrays((0..7).map(|i| filled(bytes, i)).collect());
        let plain = read(&arrays, bytes);
        println!("\n{kib} KiB an array; a plain read of an array: {plain:.1} GB/s");
        for tier in TritTier::supported() {
            measure(tier, &mut arrays, bytes, plain);
        }
    }
}

/// Canonical bytes of random trits.
fn filled(bytes: usize, seed: u64) -> AlignedMemory {
    let mut memory = AlignedMemory::huge(1, bytes, "an array").expect("memory");
    let mut state = 0x2545_f491_4f6c_dd1d ^ seed << 7;
    for byte in memory.bytes_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = ((state >> 33) % 243) as u8;
    }
    memory
}

/// Seconds of each of `alternatives`: medians of rounds in turn, each repeated until a millisecond has passed.
fn times(bytes: usize, alternatives: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let repeats = ((4 << 20) / bytes).max(1);
    let mut times = vec![Vec::new(); alternatives.len()];
    for round in 0..=ROUNDS {
        for (run, times) in alternatives.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..repeats {
                run();
            }
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() / repeats as f64);
            }
        }
    }
    times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        })
        .collect()
}

/// GB/s of reading an array.
fn read(arrays: &Arrays, bytes: usize) -> f64 {
    let mut run = || {
        let mut sums = [0u64; 8];
        for chunk in arrays.0[0].bytes().as_chunks::<64>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *sum ^= u64::from_ne_bytes(*word);
            }
        }
        black_box(sums);
    };
    bytes as f64 / times(bytes, &mut [&mut run])[0] / 1e9
}

fn measure(tier: TritTier, arrays: &mut Arrays, bytes: usize, plain: f64) {
    let [a, b, c, out, ..] = &mut arrays.0[..] else { unreachable!("seven arrays") };
    let (a, b, c) = (a.bytes(), b.bytes(), c.bytes());
    let packed_rate = |seconds: f64| 5.0 * bytes as f64 / seconds / 1e9;
    let gb = |streams: usize, seconds: f64| (streams * bytes) as f64 / seconds / 1e9;
    let mut row = |name: &str, streams: usize, run: &mut dyn FnMut(&mut [u8])| {
        let seconds = times(bytes, &mut [&mut || run(black_box(out.bytes_mut()))])[0];
        println!(
            "{:14} packed {name:8} {:7.1} G trits/s {:7.1} GB/s, {:3.0}% of the read",
            tier.name(),
            packed_rate(seconds),
            gb(streams, seconds),
            100.0 * gb(streams, seconds) / plain
        );
    };
    for op in TritOp::ALL {
        row(op.name(), 3, &mut |out| binary(tier, op, black_box(a), black_box(b), out));
    }
    row("tnot", 2, &mut |out| negate(tier, black_box(a), out));
    row("fma", 4, &mut |out| multiply_add(tier, black_box(a), black_box(b), black_box(c), out));

    // The same number of bytes as int8 trits.
    let unpacked: Vec<AlignedMemory> = arrays.0[..3]
        .iter()
        .map(|packed| {
            let mut memory = AlignedMemory::huge(1, bytes, "an array").expect("memory");
            let trits = memory.signed_mut();
            unpack(tier, &packed.bytes()[..bytes.div_ceil(5)], trits);
            memory
        })
        .collect();
    let [a, b, c] = [0, 1, 2].map(|i| unpacked[i].signed());
    let out = &mut arrays.0[3];
    let mut row = |name: &str, streams: f64, run: &mut dyn FnMut(&mut [i8])| {
        let seconds = times(bytes, &mut [&mut || run(black_box(out.signed_mut()))])[0];
        println!(
            "{:14} int8   {name:8} {:7.1} G trits/s {:7.1} GB/s, {:3.0}% of the read",
            tier.name(),
            bytes as f64 / seconds / 1e9,
            streams * bytes as f64 / seconds / 1e9,
            100.0 * streams * bytes as f64 / seconds / 1e9 / plain
        );
    };
    for op in TritOp::ALL {
        row(op.name(), 3.0, &mut |out| binary_i8(tier, op, black_box(a), black_box(b), out).expect("trits"));
    }
    row("tnot", 2.0, &mut |out| negate_i8(tier, black_box(a), out).expect("trits"));
    row("fma", 4.0, &mut |out| {
        multiply_add_i8(tier, black_box(a), black_box(b), black_box(c), out).expect("trits")
    });
    let packed = vec![121; bytes.div_ceil(5)];
    row("unpack", 1.2, &mut |out| unpack(tier, black_box(&packed), out));
    let mut target = vec![0u8; bytes.div_ceil(5)];
    row("pack", 1.2, &mut |_| pack(tier, black_box(a), black_box(&mut target)).expect("trits"));

    for chain in &CHAINS {
        fused(tier, chain, arrays, &unpacked, bytes);
    }
}

fn fused(tier: TritTier, chain: &Chain, arrays: &mut Arrays, unpacked: &[AlignedMemory], bytes: usize) {
    let program = Program::new((chain.steps)()).expect("a program");
    let (inputs, results) = arrays.0.split_at_mut(3);
    let inputs: Vec<&[u8]> = inputs.iter().map(AlignedMemory::bytes).collect();
    let mut results: Vec<Vec<u8>> = results.iter().map(|m| m.bytes().to_vec()).collect();
    let mut out = vec![0; bytes];
    let mut separate = || {
        for call in chain.calls {
            match *call {
                Called::Binary(op, a, b, to) => {
                    let mut target = std::mem::take(&mut results[to - 3]);
                    let at = |i: usize| if i < 3 { inputs[i] } else { &results[i - 3][..] };
                    binary(tier, op, black_box(at(a)), black_box(at(b)), &mut target);
                    results[to - 3] = target;
                }
                Called::Not(a, to) => {
                    let mut target = std::mem::take(&mut results[to - 3]);
                    let at = |i: usize| if i < 3 { inputs[i] } else { &results[i - 3][..] };
                    negate(tier, black_box(at(a)), &mut target);
                    results[to - 3] = target;
                }
            }
        }
    };
    let mut together = || program.run(tier, black_box(&inputs[..chain.inputs]), black_box(&mut out));
    let seconds = times(bytes, &mut [&mut separate, &mut together]);
    let rate = |s: f64| (5 * bytes * chain.calls.len()) as f64 / s / 1e9;
    print!(
        "{:14} packed {:40} separate {:6.1}, fused {:6.1} G trit operations/s: {:.2}x",
        tier.name(),
        chain.name,
        rate(seconds[0]),
        rate(seconds[1]),
        seconds[0] / seconds[1]
    );

    let inputs: Vec<&[i8]> = unpacked.iter().map(AlignedMemory::signed).collect();
    let mut results: Vec<Vec<i8>> = (0..4).map(|_| vec![0; bytes]).collect();
    let mut out = vec![0; bytes];
    let mut separate = || {
        for call in chain.calls {
            match *call {
                Called::Binary(op, a, b, to) => {
                    let mut target = std::mem::take(&mut results[to - 3]);
                    let at = |i: usize| if i < 3 { inputs[i] } else { &results[i - 3][..] };
                    binary_i8(tier, op, black_box(at(a)), black_box(at(b)), &mut target).expect("trits");
                    results[to - 3] = target;
                }
                Called::Not(a, to) => {
                    let mut target = std::mem::take(&mut results[to - 3]);
                    let at = |i: usize| if i < 3 { inputs[i] } else { &results[i - 3][..] };
                    negate_i8(tier, black_box(at(a)), &mut target).expect("trits");
                    results[to - 3] = target;
                }
            }
        }
    };
    let mut together =
        || program.run_i8(tier, black_box(&inputs[..chain.inputs]), black_box(&mut out)).expect("trits");
    let seconds = times(bytes, &mut [&mut separate, &mut together]);
    println!(
        "; int8 {:6.1}, {:6.1}: {:.2}x",
        rate(seconds[0]) / 5.0,
        rate(seconds[1]) / 5.0,
        seconds[0] / seconds[1]
    );
}
