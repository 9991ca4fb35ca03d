//! Every block kernel this machine can run gives the integers of a scalar reference, reads and writes nothing else,
//! and multiplies by the instructions its tier is named for.

mod case;
#[path = "../kernels/guarded.rs"]
mod guarded;
#[path = "../../examples/common/here.rs"]
mod here;
#[path = "../kernels/random.rs"]
mod random;

use case::{Case, Run};
use guarded::Against;
use here::runs_here;
use trit_codegen::{JitCode, disassemble};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec, MAX_K};
use trit_format::target::Target;

const TARGETS: [Target; 8] = [
    Target::X86_64V3,
    Target::X86_64V3Vnni,
    Target::X86_64V4Vnni,
    Target::X86_64V4Vbmi,
    Target::X86_64Amx,
    Target::Aarch64,
    Target::Aarch64Dotprod,
    Target::Aarch64I8mm,
];

fn spec(k: usize, code: Code) -> KernelSpec {
    KernelSpec { k: k as u32, m: 1, kind: KernelKind::Block, code, unroll: 1, prefetch: 0 }
}

/// Calls the test with every kernel for `k` columns that runs here, and says which tiers do not.
fn each_kernel(k: usize, mut test: impl FnMut(Run, &KernelSpec, Target)) {
    static SAID: std::sync::Once = std::sync::Once::new();
    let (here, elsewhere): (Vec<Target>, Vec<Target>) = TARGETS.iter().partition(|&&t| runs_here(t));
    SAID.call_once(|| eprintln!("block kernels run for {here:?}, NOT RUN here: {elsewhere:?}"));
    for target in here {
        for code in Code::ALL {
            let vbmi = target.features().contains(&"avx512vbmi");
            let kernel = JitCode::new(&[(spec(k, code), target)]);
            assert_eq!(kernel.is_ok(), code != Code::Spread || vbmi, "{target} {code:?}");
            if let Ok(kernel) = kernel {
                // SAFETY: `Case` gives operands as `KernelArgs` asks, and `runs_here` has checked the CPU's features.
                test(&|args| unsafe { kernel.kernels()[0](args) }, &spec(k, code), target);
            }
        }
    }
}

/// Emulation of vectors is slow, and kernels for aarch64 have no case of their own beyond a few groups of rows.
const EMULATED: bool = cfg!(target_arch = "aarch64");

#[test]
fn every_size_is_exact() {
    // Some are whole chunks of a kernel for aarch64, or a quad more.
    let columns: &[usize] = if EMULATED {
        &[1, 3, 4, 5, 16, 20, 24, 28, 63, 64, 65, 100, 128, 384, 388, 768, 772, 1300, 2560]
    } else {
        &[1, 3, 4, 5, 32, 63, 64, 65, 100, 128, 256, 384, 1300, 1344, 1408, 2560, 6912]
    };
    // AMX kernels decode otherwise from 129 rows on.
    let rows: Vec<usize> = if EMULATED {
        (1..=10).chain([13, 16, 19, 20]).collect()
    } else {
        vec![1, 2, 3, 4, 5, 6, 7, 16, 17, 31, 32, 33, 64, 100, 128, 129, 160, 177]
    };
    for &k in columns {
        let case = Case::random(k, rows[rows.len() - 1], 5);
        each_kernel(k, |kernel, spec, target| {
            for &rows in rows.iter().filter(|&&rows| !EMULATED || k < 700 || rows < 10) {
                for tiles in if EMULATED { &[1, 3][..] } else { &[1, 2, 3, 5] } {
                    let (against, gap) =
                        if (rows + tiles) % 2 == 0 { (Against::End, 0) } else { (Against::Start, 3) };
                    case.check(kernel, spec, target, (rows, *tiles), against, gap);
                }
            }
        });
    }
}

#[test]
fn the_most_columns() {
    let rows = if EMULATED { 9 } else { 33 };
    let tiles = if EMULATED { 1 } else { 3 };
    let case = Case::random(MAX_K as usize, rows, tiles);
    each_kernel(case.k, |kernel, spec, target| {
        for against in [Against::End, Against::Start] {
            case.check(kernel, spec, target, (rows, tiles), against, 1);
        }
    });
}

/// Sums of one sign only, the largest there are: nothing saturates on the way, or wraps around. 256 products of -1 and -128
/// are the first that i16 does not hold, those of 2048 columns in a kernel that widens them too late.
#[test]
fn saturating_operands() {
    let most = if EMULATED { 2560 } else { MAX_K as usize };
    for k in [65, 2048, most] {
        for (trit, activation) in [(1, 127), (1, -128), (-1, 127), (-1, -128), (0, -128)] {
            let case = Case::new(k, 7, 1, |_| trit, |_| activation);
            each_kernel(k, |kernel, spec, target| {
                case.check(kernel, spec, target, (7, 1), Against::End, 0);
            });
        }
    }
}

/// Every stored byte: 243 columns hold each in every lane.
#[test]
fn every_byte() {
    let digit = |i: usize| {
        let (row, col) = (i / 243, i % 243);
        ((col + row % 16) % 243 / 3usize.pow((row / 16) as u32) % 3) as i8 - 1
    };
    let case = Case::new(243, 243, 1, digit, |i| if i / 243 == i % 243 { 1 } else { 0 });
    each_kernel(243, |kernel, spec, target| {
        case.check(kernel, spec, target, (243, 1), Against::End, 0);
    });
}

/// Every byte of signs: 256 columns hold each in every lane.
#[test]
fn every_byte_of_signs() {
    let sign = |i: usize| {
        let (row, col) = (i / 256, i % 256);
        ((((col + row % 16) % 256) >> (row / 16) & 1) as i8) * 2 - 1
    };
    let case = Case::new(256, 256, 1, sign, |i| if i / 256 == i % 256 { 1 } else { 0 });
    each_kernel(256, |kernel, spec, target| {
        case.check(kernel, spec, target, (256, 1), Against::End, 0);
    });
}

#[test]
fn each_tier_multiplies_by_its_own_instructions() {
    for (target, has, lacks) in [
        (
            Target::X86_64V3,
            &["vpmaddubsw ymm", "vpmaddwd ymm", "vzeroupper"][..],
            &["zmm", "vpdpbusd", "tdpbssd"][..],
        ),
        (Target::X86_64V3Vnni, &["vpdpbusd ymm", "vzeroupper"], &["zmm", "tdpbssd", "vpmaddubsw"]),
        (Target::X86_64V4Vnni, &["vpdpbusd zmm", "vzeroupper"], &["vpermb", "tdpbssd"]),
        (Target::X86_64V4Vbmi, &["vpdpbusd zmm", "vzeroupper"], &["tdpbssd"]),
        (
            Target::X86_64Amx,
            &["ldtilecfg", "tileloadd", "tdpbssd", "tilestored", "tilerelease", "vzeroupper"],
            &["vpdpbusd"],
        ),
        (Target::Aarch64, &["smlal v", "smlal2 v", "saddlp v"], &["sdot", "smmla"]),
        (Target::Aarch64Dotprod, &[".4b[0]", ".4b[3]", "sdot v"], &["smmla", "smlal"]),
        (Target::Aarch64I8mm, &["smmla v"], &["sdot", "smlal"]),
    ] {
        for code in [Code::SignedFix, Code::Binary] {
            let text = disassemble(&spec(2560, code), target).unwrap();
            has.iter().for_each(|m| assert!(text.contains(m), "{target} lacks {m}:\n{text}"));
            lacks.iter().for_each(|m| assert!(!text.contains(m), "{target} has {m}:\n{text}"));
        }
    }
    let spread = disassemble(&spec(2560, Code::Spread), Target::X86_64V4Vbmi).unwrap();
    assert!(spread.contains("vpermb zmm") && !spread.contains("vpcmpgtb"), "{spread}");
}

/// Code is emitted on any machine: all of it is instructions and, behind them, constants.
#[test]
fn kernels_for_aarch64_are_emitted_everywhere() {
    for target in [Target::Aarch64, Target::Aarch64Dotprod, Target::Aarch64I8mm] {
        for code in [Code::SignedFix, Code::Binary] {
            let few = if EMULATED { 1..=5 } else { 1..=260 };
            for k in few.chain([767, 768, 769, 1536, 1540, 2560, 6912, MAX_K]) {
                let spec = spec(k as usize, code);
                let text = disassemble(&spec, target).unwrap();
                let instructions: Vec<&str> = text.lines().take_while(|l| !l.contains(".byte")).collect();
                let constants = if code == Code::Binary { 8 } else { 11 };
                assert!(
                    text.lines().count() - instructions.len() <= constants + 3,
                    "{spec} for {target}:\n{text}"
                );
                assert!(instructions.iter().any(|l| l.ends_with(" ret")), "{spec} for {target}:\n{text}");
            }
        }
    }
}
