//! What reaches a terminal: no control sequence of a file's, and an exit code that says what went wrong.

use crate::repository;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tritc(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tritc"));
    command.args(arguments).current_dir(folder).env("TRIT_TRUST_DIR", folder.join("trusted"));
    command
}

/// A copy of a small checkpoint, its configuration bent.
fn copied(folder: &Path, bend: impl FnOnce(&mut Value)) {
    let from = repository().join("tests/fixtures/bitnet-online");
    fs::create_dir_all(folder).unwrap();
    fs::copy(from.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    bend(&mut config);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Clears the screen, sets colours and the title, turns text around, ends the line.
const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\u{1b}]0;t\u{7}\u{7f}\u{202e}\u{2028}\r\nmodel       Other";

fn harmless(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let obeyed = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c);
        assert!(!text.contains(obeyed), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("model       Other")), "{text:?}");
        text
    })
}

#[test]
fn control_sequences_of_a_checkpoint_are_spelled_out() {
    let folder = tempfile::tempdir().unwrap();
    copied(&folder.path().join("licence"), |config| config["license"] = HOSTILE.into());
    copied(&folder.path().join("key"), |config| config[HOSTILE] = HOSTILE.into());
    copied(&folder.path().join("class"), |config| config["architectures"] = json!([HOSTILE]));
    copied(&folder.path().join("act"), |config| config["hidden_act"] = HOSTILE.into());
    let run = |arguments: &[&str]| tritc(folder.path(), arguments).output().unwrap();

    let [shown, _] = harmless(&run(&["inspect", "licence"]));
    assert!(
        shown.contains(r"license     a\u{1b}[2J\u{9b}31m") && shown.contains("compiles    yes"),
        "{shown}"
    );
    let output = run(&["inspect", "licence", "--json"]);
    let [line, _] = harmless(&output);
    // Data stay what they are.
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["license"], HOSTILE);
    harmless(&run(&["compile", "licence", "--target", "portable", "-v"]));
    let [shown, _] = harmless(&run(&["inspect", "licence.trit"]));
    assert!(shown.contains(r"license     a\u{1b}[2J"), "{shown}");
    let [line, _] = harmless(&run(&["inspect", "licence.trit", "--json", "--plan"]));
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["license"], HOSTILE);

    for (name, code) in [("key", 4), ("class", 4), ("act", 4)] {
        for command in ["compile", "inspect"] {
            let output = run(&[command, name]);
            let [_, said] = harmless(&output);
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(r"a\u{1b}[2J") && said.lines().count() == 1, "{said}");
        }
    }
    let [_, said] =
        harmless(&run(&["compile", "key", "--ignore-config-key", HOSTILE, "--target", "portable"]));
    assert!(said.contains("is ignored, as asked"), "{said}");
    let [_, said] = harmless(&run(&["inspect", "no\u{1b}[2Jsuch"]));
    assert!(said.contains(r"no\u{1b}[2Jsuch: no such file"), "{said}");
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text_are_shown_as_far_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"m\xff\x1bodel");
    copied(&folder.path().join(name), |_| {});
    for arguments in [&["inspect", "--json"][..], &["compile", "--json", "--target", "portable"]] {
        let output = tritc(folder.path(), arguments).arg(name).output().unwrap();
        let [line, said] = harmless(&output);
        assert!(output.status.success(), "{said}");
        serde_json::from_str::<Value>(&line).unwrap();
    }
}

/// No defect of the program: 3, not 1. And where nothing can be printed, nothing panics.
#[cfg(target_os = "linux")]
#[test]
fn full_outputs_end_as_other_full_disks_do() {
    let folder = tempfile::tempdir().unwrap();
    copied(&folder.path().join("model"), |_| {});
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for arguments in [&["inspect", "model"][..], &["compile", "model", "--target", "portable"]] {
        let output = tritc(folder.path(), arguments).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("standard output: No space left on device"), "{said}");
    }
    let verbose = ["compile", "model", "--target", "portable", "-v"];
    let output = tritc(folder.path(), &verbose).stderr(full()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(tritc(folder.path(), &["inspect", "none"]).stderr(full()).status().unwrap().code(), Some(3));
}

/// A full disk, and too little memory for the threads that are asked for.
#[cfg(target_os = "linux")]
#[test]
fn what_the_system_does_not_give_is_no_defect() {
    let folder = tempfile::tempdir().unwrap();
    copied(&folder.path().join("model"), |_| {});
    let limited = |limit: &str, arguments: &str| {
        let command = format!("ulimit {limit}; exec {} {arguments}", env!("CARGO_BIN_EXE_tritc"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(folder.path()).env("TRIT_TRUST_DIR", folder.path());
        let output = shell.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // 1000 threads of 2 MiB of stack each, in a quarter of that.
    let (code, said) = limited("-v 500000", "compile model --threads 1000 --target portable");
    assert_eq!(code, Some(3), "{said}");
    // Threads that have started take memory too, so that now and then it is memory that is refused first.
    let named = said.contains("--threads") || said.contains("no more memory");
    assert!(named && !said.contains("internal error"), "{said}");
    // Wherever memory ends; below some limit the program itself cannot be loaded.
    let ends: Vec<Option<i32>> = (20_000..=140_000)
        .step_by(8000)
        .chain([1 << 21])
        .map(|kib| {
            let (code, said) = limited(&format!("-v {kib}"), "compile model --threads 1 --target portable");
            assert!(matches!(code, Some(0 | 3 | 127)), "{kib}: {code:?} {said}");
            code
        })
        .collect();
    assert!(ends.contains(&Some(0)) && ends.contains(&Some(3)), "{ends:?}");
    // SIGXFSZ is ignored, so that writing fails as on a full disk.
    let (code, said) = limited("-f 100; trap '' XFSZ", "compile model --target portable");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("model.trit: File too large"), "{said}");
}

#[test]
fn a_name_of_the_hub_is_told_from_a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    let output = tritc(folder.path(), &["compile", "microsoft/bitnet-b1.58-2B-4T"]).output().unwrap();
    let [_, said] = harmless(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(said.contains("hf download microsoft/bitnet-b1.58-2B-4T"), "{said}");
}
