//! Which kernels a bundle carries for a matrix.

use crate::block;
use crate::program::Program;
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile;

/// Most columns that are a group of a row rather than a whole one, as far as the choice of variants goes.
pub(crate) const MAX_GROUP: u32 = 256;

/// The kernels a bundle carries for matrices of `k` columns stored as `code`, fewest activation rows first. Those that
/// differ in unroll or prefetch alone are to be timed on the machine that runs them; the first of them is a good guess.
/// Empty where no emitter of the target reads the code.
pub fn default_specs(k: u32, code: Code, target: Target) -> Vec<KernelSpec> {
    let spec = |m, unroll, prefetch| KernelSpec { k, m, kind: KernelKind::Stream, code, unroll, prefetch };
    let mut specs: Vec<KernelSpec> =
        if k <= MAX_GROUP { group_specs(target) } else { matrix_specs(k, target) }
            .into_iter()
            .map(|(m, unroll, prefetch)| spec(m, unroll, prefetch))
            .filter(|spec| Program::new(spec, target).is_ok())
            .collect();
    if let Some(rows) = block::fewest_rows(k, target, code) {
        specs.push(KernelSpec { kind: KernelKind::Block, ..spec(rows, 1, 0) });
    }
    specs
}

/// Rows, unroll and prefetch of a kernel.
type Variant = (u32, u32, u32);

/// Variants for whole rows of a matrix.
fn matrix_specs(k: u32, target: Target) -> Vec<Variant> {
    let tile = tile::bytes(k as usize) as u32;
    match target {
        // Passes over a tile more than once; see `clif` for what is prefetched.
        Target::X86_64V2 => vec![(1, 2, tile), (4, 2, 0)],
        // A tile is read once, in order, which hardware prefetches; several rows are bound by arithmetic.
        Target::Aarch64 | Target::Aarch64Dotprod => vec![(1, 2, 0), (4, 2, 0)],
        // Computes for longer than it waits for memory, and was fastest where weights had settled in the L2 cache.
        Target::X86_64V3 => {
            vec![(1, 8, 32768), (1, 4, 8192), (1, 8, 65536), (2, 4, tile), (4, 4, tile)]
        }
        // Several rows take several passes over a tile, the next of which is prefetched.
        Target::X86_64V3Vnni => {
            vec![(1, 4, 12288), (1, 2, 8192), (1, 4, 16384), (2, 8, tile), (4, 4, tile)]
        }
        Target::X86_64V4Vnni | Target::X86_64V4Vbmi | Target::X86_64Amx => {
            vec![(1, 4, 16384), (1, 8, 12288), (1, 4, 32768), (2, 2, 16384), (4, 4, 16384)]
        }
        _ => Vec::new(),
    }
}

/// Variants for the groups of a row. The stream of weights goes on from group to group, and with it what is prefetched.
/// Three rows are those of an activation of 24 bits, where they share a pass. An unroll of 8 takes a group of 32 columns
/// in one iteration.
fn group_specs(target: Target) -> Vec<Variant> {
    match target {
        Target::X86_64V2 => vec![(1, 4, 0), (4, 4, 0)],
        Target::Aarch64 | Target::Aarch64Dotprod => vec![(1, 2, 0), (3, 2, 0), (4, 2, 0)],
        Target::X86_64V3 => vec![(1, 8, 32768), (1, 4, 8192), (2, 4, 8192), (4, 4, 8192)],
        Target::X86_64V3Vnni => vec![(1, 8, 12288), (1, 4, 12288), (2, 8, 8192), (4, 4, 8192)],
        Target::X86_64V4Vnni | Target::X86_64V4Vbmi | Target::X86_64Amx => {
            vec![(1, 8, 16384), (1, 4, 16384), (1, 8, 32768), (2, 8, 16384), (3, 4, 16384), (4, 4, 16384)]
        }
        _ => Vec::new(),
    }
}
