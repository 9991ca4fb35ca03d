//! Bundles of the committed checkpoints, by their digests: a change of the compiler that changes a byte shows here.
//!
//! A bundle depends on its checkpoint, the targets, and the compiler's version alone, not on the machine, the threads or
//! the folder. Where a change of bytes is meant, `TRIT_BLESS=1` writes the list anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use trit_format::container::Digest;
use trit_tests::workbench::{repository, run, tritc};

/// Digests and names, a line each.
fn list() -> PathBuf {
    repository().join("tests/snapshots/bundles.blake3")
}

/// Every checkpoint of the repository, by the name of its folder.
fn checkpoints() -> BTreeMap<String, PathBuf> {
    let folders = ["tests/fixtures", "examples/models"].map(|folder| repository().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("config.json").exists());
    paths.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path)).collect()
}

fn compiled(checkpoint: &Path, out: &Path, more: &[&str]) -> Digest {
    let mut command = tritc(&["compile", "--target", "all"]);
    command.args(more).arg("-o").arg(out).arg(checkpoint);
    run(command).ok();
    Digest::of(&fs::read(out).unwrap())
}

#[test]
fn bundles_are_the_bytes_that_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut found = String::new();
    let checkpoints = checkpoints();
    assert!(checkpoints.len() >= 13, "the checkpoints are where they are looked for");
    for (name, path) in &checkpoints {
        found += &format!("{} {name}\n", compiled(path, &folder.path().join("out.trit"), &[]));
    }
    // The same weights with activations of 24 bits.
    let trilm = &checkpoints["llama-trilm"];
    let f32s = compiled(trilm, &folder.path().join("out.trit"), &["--activations", "f32"]);
    found += &format!("{f32s} llama-trilm --activations f32\n");
    if std::env::var_os("TRIT_BLESS").is_some() {
        fs::write(list(), &found).unwrap();
    }
    let expected = fs::read_to_string(list()).unwrap();
    let changed: Vec<&str> =
        found.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
    assert!(
        changed.is_empty(),
        "other bytes than before, or no digest yet: {changed:#?}; TRIT_BLESS=1 if that is meant"
    );
    assert_eq!(found, expected);
}
