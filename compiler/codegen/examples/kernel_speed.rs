//! Speed of the generated kernels on this machine, one thread, over a matrix that stays in the L2 cache unless it is
//! made large: `cargo run --release -p trit-codegen --features jit --example kernel_speed [K [ROWS [SECONDS
//! [TARGET]]]]`.
//!
//! Prints GB/s of weight bytes and billions of weights by activations a second for each kernel: the best call within
//! so many seconds.

use std::time::Instant;
use trit_codegen::{BLOCK_M, CodegenError, JitCode, supported};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelArgs, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::{self, ROWS, padded_k};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let only = std::env::args().nth(4);
    let mut args = std::env::args().skip(1).take(3).map(|arg| arg.parse::<f64>());
    let k = args.next().transpose()?.unwrap_or(2560.0) as usize;
    let tiles = (args.next().transpose()?.unwrap_or(1280.0) as usize).div_ceil(ROWS);
    let seconds = args.next().transpose()?.unwrap_or(0.2);
    println!("K = {k}, {} rows, {} KiB", tiles * ROWS, tiles * tile::bytes(k) / 1024);
    let wanted = |target: Target| only.as_ref().is_none_or(|name| name == target.name());
    for &target in supported().iter().filter(|&&target| runs_here(target) && wanted(target)) {
        for m in [1, 2, BLOCK_M] {
            for unroll in [1, 2, 4] {
                for prefetch in [0, 64] {
                    let spec = KernelSpec {
                        k: k as u32,
                        m,
                        kind: KernelKind::Stream,
                        code: Code::SignedFix,
                        unroll,
                        prefetch,
                    };
                    measure(&spec, target, tiles, seconds)?;
                }
            }
        }
    }
    Ok(())
}

fn measure(spec: &KernelSpec, target: Target, tiles: usize, seconds: f64) -> Result<(), CodegenError> {
    let (k, m) = (spec.k as usize, spec.m as usize);
    let code = JitCode::new(&[(*spec, target)])?;
    // Vectors of 64-byte units, since tiles are aligned so.
    let weights = vec![Aligned([Code::SignedFix.store(121); 64]); tiles * tile::bytes(k) / 64];
    let activations = vec![3i8; m * padded_k(k)];
    let sums = vec![3 * k as i32; m];
    let mut out = vec![0i32; m * tiles * ROWS];
    let args = KernelArgs {
        weights: weights.as_ptr().cast(),
        activations: activations.as_ptr(),
        sums: sums.as_ptr(),
        out: out.as_mut_ptr(),
        tiles: tiles as u64,
        activation_stride: padded_k(k) as u64,
        sum_stride: 1,
        out_stride: (tiles * ROWS) as u64,
        rows: 0,
        scratch: std::ptr::null_mut(),
    };
    let kernel = code.kernel(0);
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let call = Instant::now();
        // SAFETY: the operands above have the sizes that `KernelArgs` asks for, and `runs_here` has checked the CPU.
        unsafe { kernel(&raw const args) };
        best = best.min(call.elapsed().as_secs_f64());
    }
    let bytes = (tiles * tile::bytes(k)) as f64;
    let products = (tiles * ROWS * k * m) as f64;
    println!(
        "{:16} {spec:50} {:7.2} GB/s {:7.1} G/s",
        target.name(),
        bytes / best / 1e9,
        products / best / 1e9
    );
    Ok(())
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Aligned(#[allow(dead_code, reason = "only read by kernels")] [u8; 64]);

fn runs_here(target: Target) -> bool {
    #[cfg(target_arch = "x86_64")]
    return match target {
        Target::X86_64V2 => is_x86_feature_detected!("sse4.1"),
        Target::X86_64V3 => is_x86_feature_detected!("avx2"),
        Target::X86_64V3Vnni => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
        _ => false,
    };
    #[cfg(target_arch = "aarch64")]
    return match target {
        Target::Aarch64 => true,
        Target::Aarch64Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
        _ => false,
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return target.features().is_empty();
}
