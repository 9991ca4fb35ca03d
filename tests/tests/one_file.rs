//! Other targets without the checkpoint, and programs of one file.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use trit_tests::workbench::{Ran, compile, fixture, program, repository, run, scratch, trit_run, tritc};

fn retarget(bundle: &Path, target: &str) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.trit");
    run(tritc(&["retarget", bundle.to_str().unwrap(), "--target", target, "-o", out.to_str().unwrap()])).ok();
    fs::read(out).unwrap()
}

/// Weights of every code, grouped and not, with planes and without, with a tokenizer and without.
#[test]
fn a_retargeted_bundle_is_the_one_that_is_compiled_for_these_targets() {
    let folder = tempfile::tempdir().unwrap();
    let models = [
        "examples/models/fables-12m",
        "tests/fixtures/qwen3-g128",
        "tests/fixtures/qwen35-hadamard-mlx",
        "tests/fixtures/gemma3-online-rmsnorm",
    ];
    for model in models {
        let compiled = |target: &str| {
            let out = folder.path().join(format!("{target}.trit"));
            let model = repository().join(model);
            let args = ["compile", model.to_str().unwrap(), "--target", target, "-o", out.to_str().unwrap()];
            run(tritc(&args)).ok();
            out
        };
        let targets = ["portable", "x86-64-v4-vbmi", "x86-64-v2,aarch64", "all"];
        let bundles = targets.map(compiled);
        for from in &bundles {
            for (target, to) in targets.iter().zip(&bundles) {
                assert!(retarget(from, target) == fs::read(to).unwrap(), "{model}: {from:?} to {target}");
            }
        }
    }
}

#[test]
fn retargeting_in_place_keeps_what_is_signed_and_refuses_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let bundle = compile(&fixture("llama-trilm"), "one-file-retarget");
    fs::copy(&bundle, at("m.trit")).unwrap();
    run(tritc(&["keygen", &at("key")])).ok();
    run(tritc(&["sign", &at("m.trit"), "--key", &at("key")])).ok();
    let in_place = ["retarget", &at("m.trit"), "--target", "x86-64-v3"];
    run(tritc(&in_place)).fails(2, &["is signed", "m.trit.sig", "-o"]);
    fs::remove_file(at("m.trit.sig")).unwrap();
    run(tritc(&in_place)).ok();
    assert!(fs::metadata(at("m.trit")).unwrap().len() < fs::metadata(&bundle).unwrap().len());
    // Its own targets again: nothing changes.
    let before = fs::read(at("m.trit")).unwrap();
    run(tritc(&["retarget", &at("m.trit")])).ok();
    assert!(fs::read(at("m.trit")).unwrap() == before);

    let mut damaged = before.clone();
    let last = damaged.len() - 1;
    damaged[last / 2] ^= 1;
    fs::write(at("m.trit"), &damaged).unwrap();
    run(tritc(&["retarget", &at("m.trit"), "--target", "all"])).fails(3, &["digest"]);
    assert!(fs::read(at("m.trit")).unwrap() == damaged);
    run(tritc(&["retarget", &at("m.trit"), "--target", "z80"])).fails(2, &["x86-64-v3"]);
    run(tritc(&["retarget", &at("m.trit"), "--stub", "x"])).fails(2, &["--emit exe"]);
}

/// A program of the shipped model, with this build's runtime in it, and how it is run.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Program {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("fables");
        let model = repository().join("examples/models/fables-12m");
        let args = ["compile", model.to_str().unwrap(), "--emit", "exe", "-o", out.to_str().unwrap()];
        run(tritc(&args)).ok();
        Program { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(self.at("fables"));
        // Nobody recorded the bundle as trusted here.
        command.args(args).env("TRIT_TRUST_DIR", self.at("nothing")).current_dir("/");
        run(command)
    }
}

const GREEDY: [&str; 6] = ["-p", "Once upon a time", "-n", "12", "--temp", "0"];

#[test]
fn a_program_does_what_the_runtime_does_with_its_bundle() {
    let program = Program::new();
    let bundle = scratch().join("one-file.trit");
    let model = repository().join("examples/models/fables-12m");
    run(tritc(&["compile", model.to_str().unwrap(), "-o", bundle.to_str().unwrap()])).ok();
    let bundle_name = bundle.to_str().unwrap();

    let expected = run(trit_run(&[&[bundle_name], &GREEDY[..]].concat())).ok();
    let ran = program.run(&[&GREEDY[..], &["--verbose"]].concat());
    assert!(ran.err.contains("kernels: embedded"), "{}", ran.err);
    assert_eq!(ran.ok(), expected);
    assert_eq!(program.run(&["Once upon a time", "-n", "12", "--temp", "0"]).ok(), expected);
    assert!(program.run(&["selftest"]).ok().contains("ok"));
    assert_eq!(
        program.run(&["tokenize", "hello"]).ok(),
        run(trit_run(&["tokenize", bundle_name, "hello"])).ok()
    );
    assert!(program.run(&["--help"]).ok().contains("Usage: fables [OPTIONS] [TEXT]"));
    assert!(program.run(&["--version"]).ok().starts_with("fables "));
    program.run(&["--no-such-option"]).fails(2, &["--no-such-option"]);
    assert!(program.run(&["man", "bench"]).ok().contains(".TH"));

    // Other commands take it as a bundle.
    let name = program.name("fables");
    assert_eq!(run(trit_run(&[&[name.as_str()], &GREEDY[..]].concat())).ok(), expected);
    let seen = run(tritc(&["inspect", &name, "--json"])).json();
    assert_eq!(seen["name"], "fables-12m");
    run(tritc(&["verify", &name, "--rebuild"])).ok();
    assert!(!run(tritc(&["disasm", &name])).ok().is_empty());

    // Out again, signed in between.
    run(tritc(&["keygen", &program.name("key")])).ok();
    run(tritc(&["sign", &name, "--key", &program.name("key")])).ok();
    let public = program.name("key.pub");
    assert_eq!(program.run(&[&GREEDY[..], &["--key", &public]].concat()).ok(), expected);
    run(tritc(&["extract", &name])).ok();
    assert!(fs::read(program.at("fables.trit")).unwrap() == fs::read(&bundle).unwrap());
    run(tritc(&["verify", &program.name("fables.trit"), "--key", &public])).ok();
    run(tritc(&["extract", &program.name("fables.trit")])).fails(3, &["is a bundle already"]);
    // And in again.
    run(tritc(&["retarget", &program.name("fables.trit"), "--emit", "exe", "-o", &program.name("again")]))
        .ok();
    let mut again = Command::new(program.at("again"));
    again.args(GREEDY);
    assert_eq!(run(again).ok(), expected);
}

#[test]
fn damaged_programs_say_so_and_run_nothing() {
    let program = Program::new();
    let whole = fs::read(program.at("fables")).unwrap();
    let write = |bytes: &[u8]| {
        fs::write(program.at("new"), bytes).unwrap();
        fs::set_permissions(program.at("new"), Permissions::from_mode(0o755)).unwrap();
        fs::rename(program.at("new"), program.at("fables")).unwrap();
    };
    let place =
        |at: usize| u64::from_le_bytes(whole[whole.len() - 64 + at..][..8].try_into().unwrap()) as usize;
    let (bundle, len) = (place(16), place(24));
    assert!(bundle.is_multiple_of(64 << 10) && bundle + len + 64 == whole.len());
    // The section table, the weights, the trailer's version, places and digest.
    for at in [bundle + 70, bundle + (64 << 10) + 5, whole.len() - 55, whole.len() - 40, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        write(&changed);
        let ran = program.run(&GREEDY);
        ran.fails(3, &["fables"]);
        assert!(ran.out.is_empty(), "{at}");
        run(tritc(&["verify", &program.name("fables")])).fails(3, &["fables"]);
    }
    // Cut off, it is the runtime without a bundle.
    write(&whole[..whole.len() - 10]);
    program.run(&[]).fails(2, &["BUNDLE"]);
}

#[test]
fn only_a_runtime_that_fits_begins_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let bundle = compile(&fixture("llama-trilm"), "one-file-stub");
    let emit = |target: &str, stub: &str| {
        let bundle = bundle.to_str().unwrap();
        run(tritc(&[
            "retarget",
            bundle,
            "--target",
            target,
            "--emit",
            "exe",
            "--stub",
            stub,
            "-o",
            &at("out"),
        ]))
    };
    let own = if cfg!(target_arch = "x86_64") { ["x86-64-v2", "aarch64"] } else { ["aarch64", "x86-64-v2"] };
    emit(own[0], "/bin/sh").fails(3, &["is not trit-run", "--stub"]);
    let tritc_itself = program("tritc").get_program().to_str().unwrap().to_owned();
    emit(own[0], &tritc_itself).fails(3, &["is not trit-run"]);
    let runtime = program("trit-run").get_program().to_str().unwrap().to_owned();
    emit(own[1], &runtime).fails(3, &["is an executable for"]);
    emit("all", &runtime).fails(2, &["x86-64-v3", "aarch64", "--target"]);
    fs::write(at("text"), "#!/bin/sh\n").unwrap();
    emit(own[0], &at("text")).fails(3, &["no executable for Linux"]);
    emit(own[0], &at("gone")).fails(3, &["gone"]);
    assert!(!Path::new(&at("out")).exists());
    emit(own[0], &runtime).ok();
    // A program is no runtime, and nothing but a program is replaced by one.
    let program = at("out");
    emit(own[0], &program).fails(3, &["has a bundle already"]);
    fs::write(&program, "years of work").unwrap();
    emit(own[0], &runtime).fails(2, &["out", "-o"]);
    assert_eq!(fs::read(&program).unwrap(), b"years of work");
}
