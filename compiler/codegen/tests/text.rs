//! The text forms of programs and code, against files in `snapshots`. `TRIT_BLESS=1` writes the files anew.

use std::path::Path;
use trit_codegen::{
    CodegenError, Program, best_code, default_specs, disassemble_bytes, emit, program_text, supported,
};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec, MAX_K, MAX_M};
use trit_format::target::{Arch, Target};

fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("TRIT_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} differs; bless with TRIT_BLESS=1 if this is meant. Now:\n{text}");
}

fn spec(k: u32, m: u32, code: Code) -> KernelSpec {
    KernelSpec { k, m, kind: KernelKind::Stream, code, unroll: 2, prefetch: 0 }
}

#[test]
fn programs_and_code() {
    // An iteration and a remainder.
    let specs: Vec<KernelSpec> =
        Code::ALL.into_iter().flat_map(|code| [1, 4].map(|m| spec(12, m, code))).collect();
    for &target in supported() {
        for spec in specs.iter().filter(|spec| Program::new(spec, target).is_ok()) {
            // AMX and i8mm serve blocks.
            let streams_of = match target {
                Target::X86_64Amx => Some(Target::X86_64V4Vbmi),
                Target::Aarch64I8mm => Some(Target::Aarch64Dotprod),
                _ => None,
            };
            if let Some(lower) = streams_of {
                assert_eq!(emit(spec, target).unwrap(), emit(spec, lower).unwrap());
                continue;
            }
            let spec = match target.arch() {
                Arch::X86_64 => KernelSpec { prefetch: 4096, ..*spec },
                Arch::Aarch64 => *spec,
            };
            let name = match spec.code {
                Code::SignedFix => format!("{target}_m{}", spec.m),
                code => format!("{target}_{}_m{}", code.name(), spec.m),
            };
            assert_snapshot(&format!("{name}.program"), &program_text(&spec, target).unwrap());
            let code = disassemble_bytes(&emit(&spec, target).unwrap(), target);
            assert!(!code.contains(".byte") || target.arch() == Arch::X86_64, "{name}:\n{code}");
            assert_snapshot(&format!("{name}.disasm"), &code);
        }
    }
}

#[test]
fn every_target_has_kernels_for_the_code_that_is_best_for_it() {
    for target in Target::ALL {
        let specs = default_specs(2560, best_code(&[target]), target);
        let rows = |m| specs.iter().filter(|s| s.m == m && s.kind == KernelKind::Stream).count();
        assert!(rows(1) >= 1 && rows(4) >= 1, "{target}: {specs:?}");
        specs.iter().for_each(|spec| assert!(emit(spec, target).is_ok(), "{spec} for {target}"));
    }
}

#[test]
fn the_best_code_is_one_that_every_target_reads() {
    use Target::{Aarch64, X86_64Amx, X86_64V3, X86_64V4Vbmi, X86_64V4Vnni};
    for (targets, code) in [
        (&[][..], Code::SignedFix),
        (&[X86_64V4Vbmi], Code::Spread),
        (&[X86_64V4Vbmi, X86_64Amx], Code::Spread),
        (&[X86_64V4Vnni, X86_64V4Vbmi], Code::SignedFix),
        (&[X86_64V3, X86_64Amx, Aarch64], Code::SignedFix),
    ] {
        assert_eq!(best_code(targets), code, "{targets:?}");
        assert!(targets.iter().all(|&target| !default_specs(64, code, target).is_empty()));
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let good = spec(12, 1, Code::SignedFix);
    let block = KernelSpec { kind: KernelKind::Block, ..good };
    assert!(matches!(Program::new(&block, Target::X86_64V4Vbmi), Err(CodegenError::Kind { .. })));
    let spread = KernelSpec { code: Code::Spread, ..good };
    for target in [Target::Aarch64, Target::X86_64V2, Target::X86_64V3Vnni, Target::X86_64V4Vnni] {
        let error = emit(&spread, target).unwrap_err();
        assert!(matches!(error, CodegenError::Code { .. }));
        assert!(error.to_string().contains("Spread") && error.to_string().contains(target.name()), "{error}");
        assert!(default_specs(12, Code::Spread, target).is_empty());
    }
    // Further than an address reaches.
    let far = KernelSpec { prefetch: u32::MAX, ..good };
    assert!(matches!(emit(&far, Target::X86_64V4Vbmi), Err(CodegenError::Backend { .. })));
    for (spec, name) in [
        (KernelSpec { k: 0, ..good }, "k"),
        (KernelSpec { k: MAX_K + 1, ..good }, "k"),
        (KernelSpec { m: 0, ..good }, "m"),
        (KernelSpec { m: MAX_M + 1, ..good }, "m"),
        (KernelSpec { unroll: 0, ..good }, "unroll"),
        (KernelSpec { unroll: u32::MAX, ..good }, "unroll"),
    ] {
        for &target in supported() {
            let error = emit(&spec, target).unwrap_err();
            assert!(matches!(error, CodegenError::Range { field, .. } if field == name), "{spec}: {error}");
        }
    }
}

#[test]
fn bytes_that_are_no_code_are_listed() {
    for target in [Target::X86_64V3, Target::Aarch64] {
        for length in [0, 1, 3, 5, 64] {
            let text = disassemble_bytes(&vec![0xff; length], target);
            assert_eq!(text.is_empty(), length == 0);
        }
    }
}
