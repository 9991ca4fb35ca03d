//! The kernels of the wider tiers of x86-64, instruction by instruction: they give the integers of a scalar reference and
//! touch nothing else whatever CPU this runs on. Operands are small, as an interpreter is slow.

#[path = "../block/case.rs"]
mod block;
#[path = "../grouped/case.rs"]
mod grouped;
#[path = "../kernels/guarded.rs"]
mod guarded;
mod machine;
#[path = "../kernels/random.rs"]
mod random;
#[path = "../kernels/case.rs"]
mod stream;

use guarded::Against;
use machine::Code;
use stream::{Activations, Weights};
use trit_codegen::{default_specs, emit};
use trit_format::dense243::Code as WeightCode;
use trit_format::kernel::{GROUP_COLUMNS, KernelKind, KernelSpec};
use trit_format::target::Target;

/// Tiers whose emitters are this crate's own.
const TARGETS: [Target; 5] =
    [Target::X86_64V3, Target::X86_64V3Vnni, Target::X86_64V4Vnni, Target::X86_64V4Vbmi, Target::X86_64Amx];

/// Runs `test` on every kernel of the kind that a bundle would carry, and on those that `more` gives.
fn each_kernel(
    k: u32,
    kind: KernelKind,
    more: impl Fn(WeightCode, Target) -> Vec<KernelSpec>,
    mut test: impl FnMut(stream::Run, &KernelSpec, Target),
) {
    for (target, code) in TARGETS.into_iter().flat_map(|t| WeightCode::ALL.map(|code| (t, code))) {
        let specs = default_specs(k, code, target).into_iter().filter(|spec| spec.kind == kind);
        for spec in specs.chain(more(code, target)) {
            // Codes that the target does not read.
            let Ok(bytes) = emit(&spec, target) else { continue };
            let code = Code::new(&bytes);
            // SAFETY: cases give operands as `KernelArgs` asks.
            test(&|args| unsafe { code.run(args) }, &spec, target);
        }
    }
}

fn none(_: WeightCode, _: Target) -> Vec<KernelSpec> {
    Vec::new()
}

#[test]
fn streams() {
    for k in [3, 36, 300] {
        each_kernel(k, KernelKind::Stream, none, |kernel, spec, target| {
            let saturating = [Weights::Alternating, Weights::All(-1), Weights::Random]
                .map(|weights| Activations::Saturating(-128, weights));
            for activations in [Activations::Random].into_iter().chain(saturating) {
                stream::Case::new(spec, 161, activations, 1).check(kernel, spec, target, &activations);
            }
        });
    }
}

#[test]
fn streams_of_groups() {
    for k in [32, 64, 128, 256] {
        // Several groups of rows, with and without some that are left.
        let more = |code, _| {
            let kind = KernelKind::Stream;
            [5, 8, 11].map(|m| KernelSpec { k, m, kind, code, unroll: 3, prefetch: 64 }).to_vec()
        };
        each_kernel(k, KernelKind::Stream, more, |kernel, spec, target| {
            for groups in [1, 3] {
                let n = groups * spec.code.tile_rows();
                let case = stream::Case::advancing(spec, n, k as usize, Activations::Random, 2);
                case.check(kernel, spec, target, &groups);
            }
        });
    }
}

#[test]
fn blocks() {
    for k in [1, 4, 32, 65, 128, 600] {
        // Smaller kernels of each number of rows, and both ways of AMX.
        let rows: &[usize] = if k > 65 { &[3, 17, 130] } else { &[1, 2, 3, 4, 5, 6, 7, 16, 31, 33, 64, 129] };
        let case = block::Case::random(k, *rows.last().unwrap(), 3);
        each_kernel(k as u32, KernelKind::Block, none, |kernel, spec, target| {
            for (i, &rows) in rows.iter().enumerate() {
                let (against, gap) = if i % 2 == 0 { (Against::End, 0) } else { (Against::Start, 3) };
                for tiles in [1, 3] {
                    case.check(kernel, spec, target, (rows, tiles), against, gap);
                }
            }
        });
    }
}

#[test]
fn groups() {
    for columns in GROUP_COLUMNS {
        each_kernel(columns, KernelKind::Grouped, none, |kernel, spec, target| {
            // One and two registers of AMX's rows, whole ones and what is left; several tiles, one more than pairs.
            for (rows, tiles, groups) in [(1, 1, 2), (6, 3, 1), (17, 2, 3), (33, 3, 2), (64, 2, 2)] {
                let odd = rows % 2 == 1;
                let (against, gap) = if odd { (Against::End, 0) } else { (Against::Start, 3) };
                let sizes = grouped::Sizes { columns: columns as usize, groups, tiles, rows, gap };
                grouped::check(kernel, spec, target, sizes, against);
            }
        });
    }
}
