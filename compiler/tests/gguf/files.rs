//! Which file is meant, and files in parts.

use crate::writer::{File, Value, load_path, read, ternary, trits, u32};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn u16(value: u16) -> Value {
    Value(2, value.to_le_bytes().to_vec())
}

const PARTS: [&str; 2] = ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"];

/// The model in two parts: all metadata and half of the tensors, and the other half.
fn in_parts() -> (TempDir, [File; 2]) {
    let whole = File::bitnet();
    let (mut first, mut second) = (whole.clone(), File::empty());
    let (a, b) = whole.tensors.split_at(whole.tensors.len() / 2);
    (first.tensors, second.tensors) = (a.to_vec(), b.to_vec());
    for (number, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.key("split.no", u16(number as u16)).key("split.count", u16(2));
        part.key("split.tensors.count", u32(whole.tensors.len() as u32));
    }
    let dir = tempfile::tempdir().unwrap();
    let parts = [first, second];
    write(dir.path(), &parts);
    (dir, parts)
}

fn write(dir: &Path, parts: &[File; 2]) {
    for (name, part) in PARTS.iter().zip(parts) {
        fs::write(dir.join(name), part.bytes()).unwrap();
    }
}

fn refused(path: &Path, words: &[&str]) {
    let error = load_path(path).err().unwrap_or_else(|| panic!("it is read"));
    let error = format!("[{}] {}", crate::words::exit_code(&error), crate::words::message(&error));
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn a_model_in_parts() {
    let (dir, _) = in_parts();
    for path in [dir.path().join(PARTS[0]), dir.path().to_owned()] {
        let model = load_path(&path).unwrap();
        assert_eq!(read(ternary(&model.layers[0].down)).unwrap(), trits("blk.0.ffn_down.weight", 64 * 128));
        assert_eq!(model.info.name, "x");
        let sources: Vec<&str> = model.info.sources.iter().map(|source| source.file.as_str()).collect();
        assert_eq!(sources, PARTS);
    }
}

#[test]
fn parts_that_do_not_fit() {
    let (dir, parts) = in_parts();
    let [first, second] = PARTS.map(|name| dir.path().join(name));
    refused(&second, &["[3]", "part 2 of 2", "give x-00001-of-00002.gguf"]);
    fs::rename(&first, dir.path().join("other.gguf")).unwrap();
    refused(&dir.path().join("other.gguf"), &["[3]", "one of 2 parts", "NAME-00001-of-00002.gguf"]);

    let (dir, _) = in_parts();
    fs::remove_file(dir.path().join(PARTS[1])).unwrap();
    refused(&dir.path().join(PARTS[0]), &["[3]", PARTS[1], "download it too"]);

    let bent = |bend: &dyn Fn(&mut [File; 2]), words: &[&str]| {
        let (dir, mut parts) = in_parts();
        bend(&mut parts);
        write(dir.path(), &parts);
        refused(&dir.path().join(PARTS[0]), words);
    };
    bent(
        &|parts| {
            parts[1].key("split.no", u16(0));
        },
        &["[3]", PARTS[1], "part 2 of 2", "another model"],
    );
    bent(
        &|parts| {
            parts[0].key("split.no", u16(2));
        },
        &["[3]", "split.count is 2", "split.no"],
    );
    bent(
        &|parts| {
            parts[0].key("split.tensors.count", u32(99));
        },
        &["[3]", "split.tensors.count is 99"],
    );
    let twin = parts[0].tensors[0].clone();
    bent(
        &|parts| parts[1].tensors.push(twin.clone()),
        &["[3]", PARTS[1], &twin.name, "stands there twice", PARTS[0]],
    );
}

#[test]
fn the_only_one_in_a_folder() {
    let (dir, path) = File::bitnet().write();
    assert_eq!(load_path(dir.path()).unwrap().info.name, "model");
    fs::copy(&path, dir.path().join("other.gguf")).unwrap();
    refused(dir.path(), &["[3]", "2 GGUF files", "model.gguf and other.gguf", "name the one"]);
    // Where there are safetensors files, GGUF files beside them are not guessed at.
    fs::write(dir.path().join("weights.safetensors"), "").unwrap();
    refused(dir.path(), &["[3]", "weights.safetensors"]);
    assert!(load_path(&path).is_ok());
    refused(&dir.path().join("missing.gguf"), &["[3]"]);
}
