//! Speed of the stream kernels on this machine, one thread: `cargo bench -p trit-codegen --features jit --bench kernels`.
//!
//! Each kernel of [`default_specs`], for the target's code of trits and for signs, multiplies a `[640, 2560]` matrix that
//! stays in the L2 cache (`l2`), and a sequence of `[2560, 2560]` matrices that add up to hundreds of megabytes in huge
//! pages (`memory`); of signs, matrices of as many bytes. Bytes are those of the weights, elements the products of a weight
//! and an activation. `memory/read` reads the same bytes and adds them up.
//! The columns are also cut into groups (`l2_k128`, `memory_k128`), each of which has sums of its own.
//!
//! Times are those of the median call, so that a machine with other work gives the figures of an idle one, nearly.
#![allow(unsafe_code, missing_docs, reason = "calls generated code; criterion's macros document nothing")]

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use trit_codegen::{JitCode, KernelFn, best_code, default_specs, supported};
use trit_format::dense243::{Code, VALUES};
use trit_format::kernel::{KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{self, MAX_ROWS, ROWS};

const K: usize = 2560;
/// Columns that share sums.
const COLUMNS: [usize; 3] = [K, 128, 32];
const L2_TILES: usize = 640 / ROWS;
const MEMORY_TILES: usize = 2560 / ROWS;
const MEMORY_BYTES: usize = 400 << 20;
const HUGE_PAGE: usize = 2 << 20;

fn bench(c: &mut Criterion) {
    let memory = Memory::new(MEMORY_BYTES);
    let places = [("l2", L2_TILES, L2_TILES * tile::bytes(K)), ("memory", MEMORY_TILES, MEMORY_BYTES)];
    for ((place, tiles, bytes), k) in places.into_iter().flat_map(|place| COLUMNS.map(|k| (place, k))) {
        let call = tiles * tile::bytes(K);
        let calls = bytes / call;
        let name = if k == K { place.to_owned() } else { format!("{place}_k{k}") };
        let mut group = c.benchmark_group(name);
        configure(&mut group);
        group.throughput(Throughput::Bytes((calls * call) as u64));
        group.bench_function("read", |b| {
            b.iter_custom(|passes| {
                median(passes, &memory, calls, call, |weights| {
                    black_box(sum(weights));
                })
            });
        });
        // The AMX tier's stream kernels are those of the tier before.
        let here = |target: &&Target| target.on_this_cpu() && **target != Target::X86_64Amx;
        for &target in supported().iter().filter(here) {
            let specs =
                [best_code(&[target]), Code::Binary].map(|code| default_specs(k as u32, code, target));
            for spec in specs.into_iter().flatten().filter(|spec| spec.kind == KernelKind::Stream) {
                let code =
                    JitCode::new(&[(spec, target)]).expect("its target emits its default specifications");
                let mut product = Product::new(&spec, tiles);
                let products = (calls * call * spec.code.digits() * spec.m as usize) as u64;
                let bytes = (calls * call) as u64;
                group.throughput(Throughput::ElementsAndBytes { elements: products, bytes });
                group.bench_function(BenchmarkId::new(target.name(), spec), |b| {
                    b.iter_custom(|passes| {
                        median(passes, &memory, calls, call, |weights| {
                            product.run(code.kernels()[0], weights)
                        })
                    });
                });
            }
        }
    }
}

/// What so many passes over the first `calls` times `bytes` of memory take, if all calls take as long as the median.
fn median(passes: u64, memory: &Memory, calls: usize, bytes: usize, mut run: impl FnMut(&[u8])) -> Duration {
    let mut times = Vec::new();
    for _ in 0..passes {
        for weights in memory.bytes()[..calls * bytes].chunks_exact(bytes) {
            let start = Instant::now();
            run(weights);
            times.push(start.elapsed());
        }
    }
    let (middle, count) = (times.len() / 2, times.len() as f64);
    times.select_nth_unstable(middle).1.mul_f64(count)
}

fn configure(group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
}

/// Operands of calls for so many tiles of a matrix.
struct Product {
    tiles: usize,
    /// Columns that share sums.
    columns: usize,
    activations: Vec<i8>,
    sums: Vec<i32>,
    out: Vec<i32>,
}

impl Product {
    fn new(spec: &KernelSpec, tiles: usize) -> Product {
        let m = spec.m as usize;
        let activations: Vec<i8> = (0..m * K).map(|i| (i * 37 % 255) as i8).collect();
        let columns = spec.k as usize;
        let sums = activations.chunks(columns).map(|part| part.iter().map(|&a| i32::from(a)).sum()).collect();
        Product { tiles, columns, activations, sums, out: vec![0; m * tiles * (K / columns) * MAX_ROWS] }
    }

    /// One call for as many weights as the tiles have, or one for the groups of each.
    fn run(&mut self, kernel: KernelFn, weights: &[u8]) {
        assert_eq!(weights.len(), self.tiles * tile::bytes(K));
        let groups = K / self.columns;
        let (calls, tiles) = if groups > 1 { (self.tiles, groups) } else { (1, self.tiles) };
        for weights in weights.chunks_exact(weights.len() / calls) {
            let args = KernelArgs {
                weights: weights.as_ptr(),
                activations: self.activations.as_ptr(),
                sums: self.sums.as_ptr(),
                out: self.out.as_mut_ptr(),
                tiles: tiles as u64,
                activation_stride: K as u64,
                sum_stride: groups as u64,
                out_stride: (tiles * MAX_ROWS) as u64,
                rows: 0,
                scratch: std::ptr::null_mut(),
                activation_advance: if groups > 1 { self.columns as u64 } else { 0 },
                sum_advance: u64::from(groups > 1),
                ..KernelArgs::NOTHING
            };
            // SAFETY: the operands have the sizes that `KernelArgs` asks for, columns being a multiple of 4; `Memory`
            // begins with a page, so that weights start at a multiple of 64 bytes; `runs_here` has checked the CPU.
            unsafe { kernel(&raw const args) };
        }
        black_box(&mut self.out);
    }
}

/// Weight bytes that all kernels read, in huge pages where the system gives any.
struct Memory {
    all: Vec<u8>,
    first: usize,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Memory {
        let mut all: Vec<u8> = Vec::with_capacity(len + HUGE_PAGE);
        let first = all.as_ptr().align_offset(HUGE_PAGE);
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies in the allocation, whose content is of no matter yet; the call is advice.
        unsafe {
            libc::madvise(all.as_mut_ptr().add(first).cast(), len, libc::MADV_HUGEPAGE);
        }
        // Bytes of every code give the same speed.
        all.extend((0..first + len).map(|i: usize| {
            Code::SignedFix.store((i.wrapping_mul(2_654_435_761) >> 7) as u8 % VALUES as u8).unwrap()
        }));
        Memory { all, first, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.all[self.first..][..self.len]
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("chunks of eight")));
    words.fold(0, u64::wrapping_add)
}

criterion_group!(benches, bench);
criterion_main!(benches);
