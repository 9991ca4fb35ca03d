//! Which kernels a bundle carries for a matrix.

use crate::block;
use crate::program::Program;
use crate::tier::{Ahead, Tier};
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
    let tier = Tier::of(target);
    let bytes = |prefetch| match prefetch {
        Ahead::Bytes(bytes) => bytes,
        Ahead::Tile => tile::bytes(k as usize) as u32,
    };
    let mut specs: Vec<KernelSpec> = if k <= MAX_GROUP { tier.group } else { tier.matrix }
        .iter()
        .map(|v| spec(v.m, v.unroll, bytes(v.prefetch)))
        .filter(|spec| Program::new(spec, target).is_ok())
        .collect();
    if let Some(rows) = block::fewest_rows(k, target, code) {
        specs.push(KernelSpec { kind: KernelKind::Block, ..spec(rows, 1, 0) });
    }
    if let Some(rows) = block::fewest_grouped_rows(k, target, code) {
        specs.push(KernelSpec { kind: KernelKind::Grouped, ..spec(rows, 1, 0) });
    }
    specs
}
