//! A bundle appears whole or not at all, and is the same wherever it is made.

use crate::synthetic::{self, Numbers};
use std::fs;
use std::path::Path;
use trit_format::target::Target;
use tritc::CompileError;
use tritc::bundle::check_output;
use tritc::compile::compile;
use tritc::progress::Silent;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let made = [1, 2, 7].map(|threads| {
        let out = folder.path().join(format!("{threads}.trit"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compile(&synthetic::model(), &out, &[Target::X86_64V3], &Silent)).unwrap();
        fs::read(out).unwrap()
    });
    assert!(made[0] == made[1] && made[0] == made[2]);
    assert_eq!(names(folder.path()), ["1.trit", "2.trit", "7.trit"]);
}

#[test]
fn damage_found_while_packing_leaves_the_old_bundle_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.trit");
    compile(&synthetic::model(), &out, &[], &Silent).unwrap();
    let before = fs::read(&out).unwrap();
    let mut model = synthetic::model();
    let numbers = &mut Numbers::default();
    model.layers[1].down =
        synthetic::projection(numbers, "broken", synthetic::HIDDEN, synthetic::FFN, Some(17));
    let error = compile(&model, &out, &[], &Silent).unwrap_err();
    assert_eq!(error.to_string(), "synthetic: row 17 is broken");
    assert_eq!(fs::read(&out).unwrap(), before);
    assert_eq!(names(folder.path()), ["out.trit"]);
}

#[cfg(unix)]
#[test]
fn a_bundle_is_as_readable_as_any_other_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (out, other) = (folder.path().join("out.trit"), folder.path().join("other"));
    compile(&synthetic::model(), &out, &[], &Silent).unwrap();
    fs::write(&other, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&other));
}

#[test]
fn outputs_that_make_no_sense_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not to be lost").unwrap();
    for (out, words) in [
        (folder.path().join("no/out.trit"), "there is no folder"),
        (folder.path().to_owned(), "is a folder"),
        (text.clone(), "is no .trit bundle"),
    ] {
        let error = check_output(&out).unwrap_err();
        assert!(matches!(error, CompileError::Output(_)));
        let message = error.to_string();
        assert!(message.contains(words) && message.contains(&out.display().to_string()), "{message}");
    }
    check_output(&folder.path().join("new.trit")).unwrap();
    assert_eq!(fs::read(text).unwrap(), b"not to be lost");
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("gone/out.trit");
    let error = compile(&synthetic::model(), &out, &[], &Silent).unwrap_err();
    assert!(matches!(&error, CompileError::Io { path, .. } if *path == out), "{error}");
}
