//! Speed of the block kernels on this machine:
//! `cargo run --release -p trit-codegen --features jit --example block_speed [SECONDS [TARGET [ROWS,... [TILES]]]]`.
//!
//! Prints 10^12 operations (two for a weight by an activation) a second of one thread: the best call within so many
//! seconds. With TILES a call handles so many of the matrix's tiles, as where several threads share it, and is over
//! before it is interrupted. Weights are decoded, and activations packed where a kernel does so, in every call.
//! `peak` is what the multiply-add instructions of the inner loop do on registers alone.

#[path = "../common/mod.rs"]
mod common;
mod peak;

use common::{best, runs_here};
use std::time::Duration;
use trit_codegen::JitCode;
use trit_format::dense243::Code;
use trit_format::kernel::{BLOCK_COLUMNS, KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile;

const SHAPES: [(usize, usize); 3] = [(2560, 2560), (2560, 13824), (6912, 2560)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let time = Duration::try_from_secs_f64(std::env::args().nth(1).map_or(Ok(0.1), |s| s.parse())?)?;
    let only = std::env::args().nth(2);
    let row_counts = std::env::args().nth(3).unwrap_or("5,16,64,128,512".to_owned());
    let row_counts = row_counts.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let tiles = std::env::args().nth(4).map(|s| s.parse::<usize>()).transpose()?;
    for target in Target::ALL.into_iter().filter(|&target| runs_here(target)) {
        if only.as_ref().is_some_and(|name| name != target.name()) {
            continue;
        }
        if let Some(peak) = peak::measure(target, time) {
            println!("{:14} peak {peak:6.3}", target.name());
        }
        for code in Code::ALL {
            for (k, n) in SHAPES {
                let spec =
                    KernelSpec { k: k as u32, m: 1, kind: KernelKind::Block, code, unroll: 1, prefetch: 0 };
                let Ok(kernel) = JitCode::new(&[(spec, target)]) else { continue };
                print!("{:14} {:6} [{n:5}, {k}]", target.name(), code.name());
                let in_tile = code.tile_rows();
                for &rows in &row_counts {
                    let tiles = tiles.unwrap_or(n / in_tile).min(n / in_tile);
                    let seconds = measure(&kernel, &spec, rows, tiles, time);
                    print!("  {rows} rows {:6.3}", (2 * rows * tiles * in_tile * k) as f64 / seconds / 1e12);
                }
                println!();
            }
        }
    }
    Ok(())
}

/// Seconds of the best call, of `rows` rows by `tiles` tiles. The results of a row follow those of the one before, as in the
/// runtime.
fn measure(code: &JitCode, spec: &KernelSpec, rows: usize, tiles: usize, time: Duration) -> f64 {
    let k = spec.k as usize;
    let mut weights = Pages::new(tiles * tile::bytes(k));
    weights.bytes().iter_mut().enumerate().for_each(|(i, b)| *b = spec.code.store((i % 243) as u8).unwrap());
    let stride = k.next_multiple_of(BLOCK_COLUMNS);
    let mut activations = Pages::new(rows * stride);
    activations.bytes().iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8);
    let sums = vec![0i32; rows];
    let mut out = Pages::new(4 * rows * tiles * spec.code.tile_rows());
    let mut scratch = Pages::new(spec.scratch_bytes(rows));
    let args = KernelArgs {
        weights: weights.bytes().as_ptr(),
        activations: activations.bytes().as_ptr().cast(),
        sums: sums.as_ptr(),
        out: out.bytes().as_mut_ptr().cast(),
        tiles: tiles as u64,
        activation_stride: stride as u64,
        sum_stride: 1,
        out_stride: (tiles * spec.code.tile_rows()) as u64,
        rows: rows as u64,
        scratch: scratch.bytes().as_mut_ptr(),
        activation_advance: 0,
        sum_advance: 0,
        ..KernelArgs::NOTHING
    };
    let kernel = code.kernels()[0];
    // SAFETY: the operands above have the sizes that `KernelArgs` asks for, and `runs_here` has checked the CPU.
    best(time, || unsafe { kernel(&raw const args) })
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
