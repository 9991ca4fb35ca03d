//! Every kernel for groups of columns that this machine can run gives the floats of a scalar reference, bit for bit, and reads
//! and writes nothing else.

mod case;
#[path = "../kernels/guarded.rs"]
mod guarded;
#[path = "../../examples/common/here.rs"]
mod here;
#[path = "../kernels/random.rs"]
mod random;

use case::{Run, Sizes, check};
use guarded::Against;
use here::runs_here;
use trit_codegen::{CodegenError, JitCode, default_specs, emit};
use trit_format::dense243::Code;
use trit_format::kernel::{GROUP_COLUMNS, KernelKind, KernelSpec};
use trit_format::target::Target;

const TARGETS: [Target; 5] =
    [Target::X86_64V3, Target::X86_64V3Vnni, Target::X86_64V4Vnni, Target::X86_64V4Vbmi, Target::X86_64Amx];

fn spec(k: u32, code: Code) -> KernelSpec {
    KernelSpec { k, m: 8, kind: KernelKind::Grouped, code, unroll: 1, prefetch: 0 }
}

/// Calls the test with every kernel for groups of so many columns that runs here, and says which tiers do not.
fn each_kernel(columns: u32, mut test: impl FnMut(Run, &KernelSpec, Target)) {
    static SAID: std::sync::Once = std::sync::Once::new();
    let (here, elsewhere): (Vec<Target>, Vec<Target>) = TARGETS.iter().partition(|&&t| runs_here(t));
    SAID.call_once(|| eprintln!("grouped kernels run for {here:?}, NOT RUN here: {elsewhere:?}"));
    for target in here {
        for code in Code::ALL {
            let vbmi = target.features().contains(&"avx512vbmi");
            let kernel = JitCode::new(&[(spec(columns, code), target)]);
            assert_eq!(kernel.is_ok(), code != Code::Spread || vbmi, "{target} {code:?}");
            if let Ok(kernel) = kernel {
                // SAFETY: `check` gives operands as `KernelArgs` asks, and `runs_here` has checked the CPU's features.
                test(&|args| unsafe { kernel.kernels()[0](args) }, &spec(columns, code), target);
            }
        }
    }
}

#[test]
fn every_size_is_the_reference_bit_for_bit() {
    for columns in GROUP_COLUMNS {
        each_kernel(columns, |kernel, spec, target| {
            for rows in [1, 2, 3, 4, 5, 6, 7, 16, 17, 31, 32, 33, 48, 64, 65] {
                for (tiles, groups) in [(1, 1), (2, 3), (3, 2)] {
                    let odd = (rows + tiles) % 2 == 1;
                    let (against, gap) = if odd { (Against::End, 0) } else { (Against::Start, 3) };
                    let sizes = Sizes { columns: columns as usize, groups, tiles, rows, gap };
                    check(kernel, spec, target, sizes, against);
                }
            }
        });
    }
}

/// Every target with kernels for blocks on x86-64 carries one for groups, aarch64's none, and only for columns that a group has.
#[test]
fn bundles_carry_them_for_groups_alone() {
    for target in Target::ALL {
        for (k, expected) in [(128, TARGETS.contains(&target)), (96, false), (2560, false)] {
            let specs = default_specs(k, Code::SignedFix, target);
            let grouped: Vec<_> = specs.iter().filter(|spec| spec.kind == KernelKind::Grouped).collect();
            assert_eq!(grouped.len(), usize::from(expected), "{target}, {k} columns");
            assert!(grouped.iter().all(|spec| emit(spec, target).is_ok()));
        }
    }
    let refused = emit(&spec(96, Code::SignedFix), Target::X86_64V3);
    assert!(matches!(refused, Err(CodegenError::Kind { .. })), "{refused:?}");
}
