//! Compilations during which others write to the checkpoint.

use crate::reference::repository;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tritc::ErrorKind;
use tritc::compile::compile;
use tritc::load::{LoadOptions, load};
use tritc::progress::Silent;

fn parts(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}

/// A checkpoint in `folder` that is larger than a page or two.
fn checkpoint(folder: &Path) -> PathBuf {
    let from = repository().join("tests/fixtures/bitnet-online");
    for name in ["model.safetensors", "config.json"] {
        fs::copy(from.join(name), folder.join(name)).unwrap();
    }
    folder.join("model.safetensors")
}

#[test]
fn a_checkpoint_that_changes_meanwhile_makes_no_bundle() {
    type Change = fn(&Path);
    let changes: [(Change, &str, &str); 5] = [
        (|path| touch(path, 1), "model.safetensors", "was written to"),
        (
            |path| File::options().append(true).open(path).unwrap().set_len(1 << 21).unwrap(),
            "model.safetensors",
            "had 1746080 bytes and has 2097152",
        ),
        (
            |path| {
                let copy = path.with_extension("copy");
                fs::copy(path, &copy).unwrap();
                let modified = fs::metadata(path).unwrap().modified().unwrap();
                File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
                fs::rename(copy, path).unwrap();
            },
            "model.safetensors",
            "is another file",
        ),
        (|path| fs::remove_file(path).unwrap(), "model.safetensors", "was removed"),
        (|path| touch(&path.with_file_name("config.json"), 1), "config.json", "was written to"),
    ];
    for (change, file, what) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = checkpoint(folder.path());
        let model = load(folder.path(), &LoadOptions::default()).unwrap();
        change(&path);
        let error = compile(&model, &folder.path().join("out.trit"), &[], &Silent).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(message.contains(file) && message.contains(what), "{what:?} is not in {message}");
        assert!(!folder.path().join("out.trit").exists() && parts(folder.path()).is_empty());
    }
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path());
    let model = load(folder.path(), &LoadOptions::default()).unwrap();
    compile(&model, &folder.path().join("out.trit"), &[], &Silent).unwrap();
}

fn touch(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
}
