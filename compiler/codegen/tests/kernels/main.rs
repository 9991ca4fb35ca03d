//! Every kernel this machine can run gives the integers of a scalar reference, reads and writes nothing else, and is
//! written in the instructions its tier is named for.

mod case;
mod guarded;
mod random;

use case::{Activations, Case, Run, Weights};
use guarded::Against;
use std::collections::BTreeMap;
use trit_codegen::{JitCode, Program, default_specs, disassemble_bytes, emit, supported};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec, MAX_K, MAX_M};
use trit_format::target::Target;
use trit_format::tile;

/// Columns: multiples and non-multiples of a quad and of any unroll, and those of real models.
const COLUMNS: [u32; 13] = [1, 3, 4, 5, 63, 64, 65, 384, 872, 1408, 2560, 6912, MAX_K];
/// Columns up to which activations of -128 are exact too: `2 * 128 * k * 256 <= 2^31`. [`MAX_K`] is for -127 and up.
const MAX_K_OF_MIN: u32 = 32_768;

/// Whether this CPU runs stream kernels for the target. Those of the AMX tier have no AMX instructions.
fn runs_here(target: Target) -> bool {
    if target == Target::X86_64Amx { Target::X86_64V4Vbmi } else { target }.on_this_cpu()
}

/// Targets of this CPU. Says, once, which others go untested.
fn testable() -> Vec<Target> {
    static SAID: std::sync::Once = std::sync::Once::new();
    let (here, elsewhere): (Vec<Target>, Vec<Target>) = supported().iter().partition(|&&t| runs_here(t));
    SAID.call_once(|| {
        eprintln!("run here: {here:?}");
        for target in elsewhere {
            eprintln!("NOT RUN here: {target} (this CPU lacks one of {:?})", target.features());
        }
    });
    here
}

/// Runs `test` on every kernel that a target of this CPU has for one of `specs`.
fn each_kernel(specs: &[KernelSpec], mut test: impl FnMut(Run, &KernelSpec, Target)) {
    let targets = testable();
    for &target in &targets {
        let pairs: Vec<_> =
            specs.iter().filter(|s| Program::new(s, target).is_ok()).map(|&spec| (spec, target)).collect();
        let code = JitCode::new(&pairs).unwrap();
        for (i, (spec, _)) in pairs.iter().enumerate() {
            // SAFETY: `Case` gives operands as `KernelArgs` asks, and `testable` has checked the CPU's features.
            test(&|args| unsafe { code.kernels()[i](args) }, spec, target);
        }
        eprintln!("{target}: {} kernels", code.len());
        assert!(!pairs.is_empty(), "{target} has none of these kernels");
    }
    let known = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    assert!(!known || !targets.is_empty(), "no tier runs on this machine");
}

fn stream(k: u32, m: u32, code: Code, unroll: u32, prefetch: u32) -> KernelSpec {
    KernelSpec { k, m, kind: KernelKind::Stream, code, unroll, prefetch }
}

/// One specification for each code.
fn spec(k: u32, m: u32, unroll: u32, prefetch: u32) -> impl Iterator<Item = KernelSpec> {
    Code::ALL.into_iter().map(move |code| stream(k, m, code, unroll, prefetch))
}

#[test]
fn default_kernels_are_exact_for_every_size() {
    let mut specs: Vec<KernelSpec> = Vec::new();
    for k in COLUMNS {
        for code in Code::ALL {
            specs.extend(supported().iter().flat_map(|&target| default_specs(k, code, target)));
        }
    }
    specs.retain(|spec| spec.kind == KernelKind::Stream);
    specs.sort();
    specs.dedup();
    each_kernel(&specs, |kernel, spec, target| {
        for n in [1, 80, 81, 161, 720, 2560] {
            // Nine and 32 tiles for few columns.
            if (n > 161 && spec.k > 1408) || (n > 720 && spec.k > 65) {
                continue;
            }
            Case::new(spec, n, Activations::Random, n as u64).check(kernel, spec, target, &n);
        }
    });
}

#[test]
fn many_tiles() {
    let specs: Vec<KernelSpec> =
        [12, 63].into_iter().flat_map(|k| spec(k, 1, 2, 0).chain(spec(k, 4, 4, 64))).collect();
    each_kernel(&specs, |kernel, spec, target| {
        for n in [5, 640, 1024] {
            Case::new(spec, n, Activations::Random, n as u64).check(kernel, spec, target, &n);
        }
    });
}

/// The tiles of a call are the groups of one tile of a product: each has its own activations and sums.
#[test]
fn groups_have_their_own_activations_and_sums() {
    let mut specs: Vec<KernelSpec> = Vec::new();
    for k in [32, 64, 128, 256] {
        for code in Code::ALL {
            specs.extend(supported().iter().flat_map(|&target| default_specs(k, code, target)));
        }
        // Rows in one group and in several, a remainder of rows, of quads, and none of either.
        specs.extend(
            [1, 2, 3, 4, 5, 8, 11].into_iter().flat_map(|m| spec(k, m, 8, 4096).chain(spec(k, m, 3, 0))),
        );
    }
    specs.retain(|spec| spec.kind == KernelKind::Stream);
    specs.sort();
    specs.dedup();
    each_kernel(&specs, |kernel, spec, target| {
        let k = spec.k as usize;
        for (groups, advance) in [(1, k), (2, k), (20, k), (7, k + 4)] {
            for activations in [Activations::Random, Activations::Saturating(-128, Weights::Random)] {
                let n = groups * spec.code.tile_rows();
                let case = Case::advancing(spec, n, advance, activations, groups as u64);
                case.check(kernel, spec, target, &(groups, advance, activations));
            }
        }
    });
}

#[test]
fn saturating_activations() {
    let specs: Vec<KernelSpec> = [5, 64, 128, 256, 872, 2560, MAX_K_OF_MIN, MAX_K]
        .into_iter()
        .flat_map(|k| spec(k, 1, 4, 0).chain(spec(k, 3, 1, 0)))
        .collect();
    each_kernel(&specs, |kernel, spec, target| {
        for value in [127, -127, -128] {
            if value == -128 && spec.k > MAX_K_OF_MIN {
                continue;
            }
            for weights in
                [Weights::All(1), Weights::All(-1), Weights::All(0), Weights::Alternating, Weights::Random]
            {
                if weights == Weights::All(0) && !spec.code.has_zero() {
                    continue;
                }
                let activations = Activations::Saturating(value, weights);
                Case::new(spec, 81, activations, 1).check(kernel, spec, target, &activations);
            }
        }
    });
}

/// Every stored byte against every activation, alone: no feature and no sign is special.
#[test]
fn every_byte_by_every_activation() {
    let specs: Vec<KernelSpec> = spec(1, 1, 1, 0).chain(spec(4, 1, 1, 0)).collect();
    each_kernel(&specs, |kernel, spec, target| {
        let k = spec.k as usize;
        let mut case = Case::new(spec, 16 * spec.code.tile_rows(), Activations::Random, 1);
        for (at, byte) in case.weights.iter_mut().enumerate() {
            let canonical = (at / k.next_multiple_of(4)) % spec.code.values();
            *byte = spec.code.store(if at % 4 < k { canonical as u8 } else { 121 }).unwrap();
        }
        let decoded: Vec<i8> = case
            .weights
            .chunks_exact(tile::bytes(k))
            .flat_map(|tile| tile::decode(tile, k, spec.code).unwrap())
            .collect();
        for a in i8::MIN..=i8::MAX {
            case.activations[..k].fill(a);
            case.sums[0] = k as i32 * i32::from(a);
            case.expected =
                decoded.chunks(k).map(|r| r.iter().map(|&t| i32::from(t) * i32::from(a)).sum()).collect();
            assert_eq!(case.run(kernel, Against::End, 0), case.expected, "{spec} {target} {a}");
        }
    });
}

#[test]
fn any_number_of_rows_unroll_and_prefetch() {
    let mut specs: Vec<KernelSpec> = (1..=9).chain([MAX_M]).flat_map(|m| spec(67, m, 2, 0)).collect();
    specs.extend([1, 2, 3, 5, 8, 16].into_iter().flat_map(|unroll| spec(132, 1, unroll, 0)));
    for m in [1, 2, 3, 4, 5, 8] {
        specs.extend([1, 2, 3, 4, 8, 16].into_iter().flat_map(|unroll| spec(263, m, unroll, 4096)));
    }
    // Prefetches of no memory at all.
    specs.extend([1, 4].into_iter().flat_map(|m| spec(67, m, 2, i32::MAX as u32 - 65_536)));
    each_kernel(&specs, |kernel, spec, target| {
        for n in [80, 161] {
            Case::new(spec, n, Activations::Random, 7).check(kernel, spec, target, &n);
        }
    });
}

/// Bytes of the target's vectors.
fn vector(target: Target) -> u32 {
    Program::new(&stream(4, 1, Code::SignedFix, 1, 0), target).unwrap().vector()
}

/// Instructions of a kernel, and how many of them have each mnemonic.
fn mnemonics(spec: &KernelSpec, target: Target) -> (String, BTreeMap<String, usize>) {
    let text = disassemble_bytes(&emit(spec, target).unwrap(), target);
    let mut counts = BTreeMap::new();
    for name in text.lines().filter_map(|line| line.split_whitespace().nth(2)) {
        *counts.entry(name.to_owned()).or_insert(0) += 1;
    }
    (text, counts)
}

#[test]
fn kernels_use_the_instructions_of_their_tier() {
    use Code::{Binary, SignedFix, Spread};
    // The wrong operand order still gives the right integers, ten times slower.
    for m in [1, 2, 3, 4, 5] {
        for (target, code, dot, unwanted) in [
            (Target::X86_64V2, SignedFix, "pmaddubsw", "vp"),
            (Target::X86_64V3, SignedFix, "vpmaddubsw", "zmm"),
            (Target::X86_64V3Vnni, SignedFix, "vpdpbusd", "zmm"),
            (Target::X86_64V4Vnni, SignedFix, "vpdpbusd", "ymm"),
            (Target::X86_64V4Vbmi, SignedFix, "vpdpbusd", "vpermb"),
            (Target::X86_64V4Vbmi, Spread, "vpdpbusd", "ymm"),
            (Target::X86_64Amx, Spread, "vpdpbusd", "ymm"),
            (Target::Aarch64, SignedFix, "smull2", "sdot"),
            (Target::Aarch64Dotprod, SignedFix, "sdot", "smull"),
            (Target::Aarch64I8mm, SignedFix, "sdot", "smmla"),
            (Target::X86_64V2, Binary, "pmaddubsw", "vp"),
            (Target::X86_64V3, Binary, "vpmaddubsw", "zmm"),
            (Target::X86_64V3Vnni, Binary, "vpdpbusd", "zmm"),
            (Target::X86_64V4Vnni, Binary, "vpdpbusd", "ymm"),
            (Target::X86_64V4Vbmi, Binary, "vpdpbusd", "ymm"),
            (Target::X86_64Amx, Binary, "vpdpbusd", "ymm"),
            (Target::Aarch64, Binary, "smull2", "sdot"),
            (Target::Aarch64Dotprod, Binary, "sdot", "smull"),
            (Target::Aarch64I8mm, Binary, "sdot", "smmla"),
        ] {
            let spec = stream(2560, m, code, 2, 0);
            let (text, counts) = mnemonics(&spec, target);
            assert!(!text.contains(unwanted), "{spec} for {target} has {unwanted}:\n{text}");
            // One for each feature, part and row, twice for the unrolled quads. Groups of rows come one after another;
            // the wide emitter writes a tile's passes out, of which several parts make fewer.
            let program = Program::new(&spec, target).unwrap().to_string();
            let mut passes = 1;
            let mut dots = 0;
            for line in program.lines() {
                if let Some((_, step)) = line.split_once("for lane in 0..16 step ") {
                    passes = if vector(target) > 16 { 16 / step.parse::<usize>().unwrap() } else { 1 };
                }
                dots += passes * usize::from(line.contains("dot4"));
            }
            assert_eq!(counts.get(dot), Some(&(2 * dots)), "{spec} for {target}:\n{text}");
            if vector(target) > 16 {
                assert_eq!(counts.get("vzeroupper"), Some(&1), "{text}");
                let spills = text.lines().any(|line| line.contains(" v") && line.contains("[rsp"));
                assert!(!spills, "{spec} for {target} spills:\n{text}");
            }
            assert!(!counts.contains_key("prefetcht0"));
            if code == Spread {
                assert_eq!(counts.get("vpermb"), Some(&(8 * m.div_ceil(4) as usize)), "{text}");
            }
        }
    }
}

#[test]
fn every_line_is_prefetched_at_its_distance() {
    for (target, m, unroll) in
        [(Target::X86_64V4Vbmi, 1, 8), (Target::X86_64V3, 1, 4), (Target::X86_64V4Vnni, 4, 4)]
    {
        let (text, counts) = mnemonics(&stream(64 * unroll + 12, m, Code::SignedFix, unroll, 8192), target);
        // Those of an iteration, and of the remainder of three quads.
        assert_eq!(counts.get("prefetcht0"), Some(&(unroll as usize + 3)), "{text}");
        for quad in 0..unroll {
            assert!(text.contains(&format!("prefetcht0 [rax+{:X}h]", 8192 + 64 * quad)), "{text}");
        }
    }
}

#[test]
fn the_same_specification_gives_the_same_bytes() {
    for &target in supported() {
        for code in Code::ALL {
            for spec in default_specs(1408, code, target) {
                assert_eq!(emit(&spec, target).unwrap(), emit(&spec, target).unwrap(), "{spec} for {target}");
            }
        }
    }
}

#[test]
fn constants_stand_on_whole_lines_behind_the_code() {
    for (target, code) in [
        (Target::X86_64V3, Code::SignedFix),
        (Target::X86_64V3, Code::Binary),
        (Target::X86_64V4Vbmi, Code::Spread),
    ] {
        for unroll in 1..=8 {
            let bytes = emit(&stream(260, 1, code, unroll, 0), target).unwrap();
            let text = disassemble_bytes(&bytes, target);
            let data = text.lines().find(|line| line.contains(".byte")).unwrap();
            let first = usize::from_str_radix(data.split_whitespace().next().unwrap(), 16).unwrap();
            // The first line listed as data may be the gap.
            let constants = first.next_multiple_of(64);
            assert!(bytes[first..constants].iter().all(|&byte| byte == 0), "{text}");
            assert!((bytes.len() - constants).is_multiple_of(32) && bytes[constants] != 0x90, "{text}");
        }
    }
}
