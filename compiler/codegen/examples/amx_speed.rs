//! The AMX kernels against each other: `amx_speed [ROUNDS]`, on a machine with AMX.
//!
//! Prints 10^12 operations (two for a weight by an activation) a second of one thread, by the best and by the median call,
//! in turn within one run. `m1` is the kernel whose rows come in groups of 32; `m64` that of groups of 64, with most steps
//! of 64 columns in a block of k (`u`, where 1 is 8) and bytes that weights are prefetched ahead (`p`).

use std::time::Instant;
use trit_codegen::JitCode;
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{self, ROWS};

/// Columns, tiles of the matrix, tiles of a call, bytes between activation rows.
const SHAPES: [(usize, usize, usize, usize); 6] = [
    (2560, 32, 2, 2560),
    (2560, 32, 32, 2560),
    (6912, 32, 2, 6912),
    (4096, 32, 2, 4096),
    (4096, 32, 2, 4096 + 64),
    // Groups of 128 columns, one of them in a call.
    (128, 640, 1, 2560),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(15), |s| s.parse())?;
    let target = Target::X86_64Amx;
    if !target.on_this_cpu() || !tile_registers() {
        return Err("this machine has no AMX".into());
    }
    for code in [Code::Spread, Code::SignedFix] {
        for (k, n, call, stride) in SHAPES {
            let spec = |m, unroll, prefetch| KernelSpec {
                k: k as u32,
                m,
                kind: KernelKind::Block,
                code,
                unroll,
                prefetch,
            };
            let ahead = 2 * tile::bytes(k) as u32;
            let mut specs = vec![spec(1, 1, 0), spec(64, 1, 0), spec(64, 1, ahead)];
            if k > 512 {
                specs.extend([5, 6, 7, 10, 12].map(|unroll| spec(64, unroll, ahead)));
            }
            let kernels = JitCode::new(&specs.iter().map(|&spec| (spec, target)).collect::<Vec<_>>())?;
            for rows in [64, 128, 192, 256, 512] {
                let mut product = Product::new(code, k, n, rows, stride);
                let mut seconds = vec![Vec::new(); specs.len()];
                for _ in 0..rounds {
                    for (i, spec) in specs.iter().enumerate() {
                        seconds[i].push(product.run(&kernels, i, spec, call));
                    }
                }
                println!("{} k {k} stride {stride} tiles {call} rows {rows}", code.name());
                for (spec, seconds) in specs.iter().zip(&mut seconds) {
                    seconds.sort_by(f64::total_cmp);
                    let tops = |s: f64| (2 * rows * n * ROWS * k) as f64 / s / 1e12;
                    let weights = (n * tile::bytes(k)) as f64 / seconds[rounds / 2] / 1e9;
                    println!(
                        "  m{:<2} u{:<2} p{:<6} best {:6.3} median {:6.3} TOPS, weights {weights:.3} GB/s",
                        spec.m,
                        spec.unroll,
                        spec.prefetch,
                        tops(seconds[0]),
                        tops(seconds[rounds / 2])
                    );
                }
            }
        }
    }
    Ok(())
}

struct Product {
    k: usize,
    n: usize,
    rows: usize,
    stride: usize,
    weights: Pages,
    activations: Pages,
    sums: Vec<i32>,
    out: Pages,
    scratch: Pages,
}

impl Product {
    fn new(code: Code, k: usize, n: usize, rows: usize, stride: usize) -> Product {
        let mut weights = Pages::new(n * tile::bytes(k));
        weights.bytes().iter_mut().enumerate().for_each(|(i, b)| *b = code.store((i * 7 % 243) as u8));
        let mut activations = Pages::new(rows * stride.max(k.next_multiple_of(BLOCK_COLUMNS)));
        activations.bytes().iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8);
        let spec = KernelSpec { k: k as u32, m: 1, kind: KernelKind::Block, code, unroll: 1, prefetch: 0 };
        let scratch = Pages::new(spec.scratch_bytes(rows));
        // A call's results, as a worker keeps them.
        let out = Pages::new(4 * rows * n.min(32) * ROWS);
        Product { k, n, rows, stride, weights, activations, sums: vec![0; rows], out, scratch }
    }

    /// Seconds of one pass over the matrix.
    fn run(&mut self, kernels: &JitCode, i: usize, spec: &KernelSpec, call: usize) -> f64 {
        assert_eq!(spec.k as usize, self.k);
        let start = Instant::now();
        for first in (0..self.n).step_by(call) {
            let args = KernelArgs {
                weights: self.weights.bytes()[first * tile::bytes(self.k)..].as_ptr(),
                activations: self.activations.bytes().as_ptr().cast(),
                sums: self.sums.as_ptr(),
                out: self.out.bytes().as_mut_ptr().cast(),
                tiles: call as u64,
                activation_stride: self.stride as u64,
                sum_stride: 1,
                out_stride: (call * ROWS) as u64,
                rows: self.rows as u64,
                scratch: self.scratch.bytes().as_mut_ptr(),
                activation_advance: 0,
                sum_advance: 0,
            };
            // SAFETY: the operands have the sizes that `KernelArgs` asks for, and `main` has checked the CPU.
            unsafe { kernels.kernel(i)(&raw const args) };
        }
        start.elapsed().as_secs_f64()
    }
}

/// Memory in huge pages where the system has them, as a runtime's would be.
struct Pages(*mut u8, usize);

impl Pages {
    fn new(len: usize) -> Pages {
        let len = len.next_multiple_of(2 << 20);
        // SAFETY: a fresh anonymous mapping; the advice has no effect on its content.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED, "no memory");
            libc::madvise(at, len, libc::MADV_HUGEPAGE);
            Pages(at.cast(), len)
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping of `new`, readable and writable, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing points into any more.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}

/// Whether the system lets this process use tile data, state component 18.
fn tile_registers() -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asks for a feature; nothing in memory is touched.
    return unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1023, 18) } == 0;
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
