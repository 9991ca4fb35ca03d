//! The text forms of programs and code, against files in `snapshots`. `TRIT_BLESS=1` writes the files anew.

use std::path::Path;
use trit_codegen::{CodegenError, MAX_M, default_specs, disassemble_bytes, emit, program_text, supported};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec, MAX_K};
use trit_format::target::Target;

fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("TRIT_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} differs; bless with TRIT_BLESS=1 if this is meant. Now:\n{text}");
}

#[test]
fn programs_and_code() {
    for &target in supported() {
        for spec in default_specs(12, Code::SignedFix, target) {
            let name = format!("{target}_m{}", spec.m);
            assert_snapshot(&format!("{name}.program"), &program_text(&spec, target).unwrap());
            let code = disassemble_bytes(&emit(&spec, target).unwrap(), target);
            assert!(
                !code.contains(".byte") || target.arch() == trit_format::target::Arch::X86_64,
                "{name}:\n{code}"
            );
            assert_snapshot(&format!("{name}.disasm"), &code);
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let good =
        KernelSpec { k: 12, m: 1, kind: KernelKind::Stream, code: Code::SignedFix, unroll: 2, prefetch: 0 };
    for target in [Target::X86_64V4Vnni, Target::X86_64V4Vbmi, Target::X86_64Amx] {
        let error = emit(&good, target).unwrap_err();
        assert!(matches!(error, CodegenError::Unsupported { .. }));
        let text = error.to_string();
        assert!(
            text.contains(target.name()) && text.contains("x86-64-v2, x86-64-v3, x86-64-v3-vnni, aarch64"),
            "{text}"
        );
        assert!(default_specs(12, Code::SignedFix, target).is_empty());
    }
    let spread = KernelSpec { code: Code::Spread, ..good };
    assert!(matches!(emit(&spread, Target::Aarch64), Err(CodegenError::Code { .. })));
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
