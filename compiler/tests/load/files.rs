//! Which files make a checkpoint, and what is wrong with them.

use crate::checkpoint::{Checkpoint, Q, read, refusal, says, scale, trits, write_index, write_tensors};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use tritc::load::{LoadOptions, load};
use tritc::model::Model;

fn load_path(path: impl AsRef<Path>) -> Result<Model, tritc::CompileError> {
    load(path.as_ref(), &LoadOptions::default())
}

const INDEX: &str = "model.safetensors.index.json";
const SHARD_1: &str = "model-00001-of-00002.safetensors";
const SHARD_2: &str = "model-00002-of-00002.safetensors";

#[test]
fn file_index_and_directory_all_lead_to_the_checkpoint() {
    let single = Checkpoint::bitnet().write();
    let (shards, _) = Checkpoint::bitnet().write_shards();
    let paths = [
        single.path().to_owned(),
        single.path().join("model.safetensors"),
        shards.path().to_owned(),
        shards.path().join(INDEX),
    ];
    for path in paths {
        let model = load_path(&path).unwrap();
        for layer in &model.layers {
            assert_eq!(read(&layer.up).unwrap(), trits(layer.up.matrix.name(), 96), "{}", path.display());
        }
    }
}

/// Some publishers name the shards after the whole file.
#[test]
fn shards_are_found_by_the_names_in_the_index() {
    let (dir, mut index) = Checkpoint::bitnet().write_shards();
    for (old, number) in [(SHARD_1, 1), (SHARD_2, 2)] {
        let new = format!("model.safetensors-0000{number}-of-00002.safetensors");
        fs::rename(dir.path().join(old), dir.path().join(&new)).unwrap();
        index.values_mut().filter(|shard| *shard == old).for_each(|shard| shard.clone_from(&new));
    }
    write_index(dir.path(), &index);
    let model = load_path(dir.path()).unwrap();
    assert_eq!(read(&model.layers[1].up).unwrap(), trits(model.layers[1].up.matrix.name(), 96));
    let shard = dir.path().join("model.safetensors-00001-of-00002.safetensors");
    says(&refusal(load_path(&shard)), &["[3]", "one of 2 shards", INDEX]);
}

/// mlx-lm writes an index beside the one file.
#[test]
fn an_index_of_the_single_file_is_not_worth_a_note() {
    let checkpoint = Checkpoint::bitnet();
    let dir = checkpoint.write();
    let of = |file: &str| checkpoint.tensors.keys().map(|name| (name.clone(), file.to_owned())).collect();
    let noted = || crate::warned(&load_path(dir.path()).unwrap().warnings).contains("beside it");
    write_index(dir.path(), &of("model.safetensors"));
    assert!(!noted());
    write_index(dir.path(), &of(SHARD_1));
    assert!(noted());
}

#[test]
fn the_single_file_wins_over_an_index() {
    let (dir, _) = Checkpoint::bitnet().write_shards();
    let mut other = Checkpoint::bitnet();
    other.floats(&format!("{Q}_scale"), &[1], [3.0]);
    write_tensors(&dir.path().join("model.safetensors"), other.tensors.iter());
    assert_eq!(scale(&load_path(dir.path()).unwrap().layers[0].attention().unwrap().q).0, 3.0);
    assert_eq!(scale(&load_path(dir.path().join(INDEX)).unwrap().layers[0].attention().unwrap().q).0, 1.25);
}

#[test]
fn names_sources_and_licence_are_recorded() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.file("README.md", "---\nlicense: mit\n---\n# A model\n");
    let (dir, _) = checkpoint.write_shards();
    let snapshot = dir.path().join("models--org--some-model/snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "README.md", INDEX, SHARD_1, SHARD_2] {
        fs::rename(dir.path().join(file), snapshot.join(file)).unwrap();
    }
    let model = load_path(&snapshot).unwrap();
    assert_eq!(
        (model.info.name.as_str(), model.info.architecture.as_str()),
        ("some-model", "BitNetForCausalLM")
    );
    assert_eq!(model.info.license.as_deref(), Some("mit"));
    let names: Vec<&str> = model.info.sources.iter().map(|s| s.file.as_str()).collect();
    assert_eq!(names, ["config.json", INDEX, SHARD_1, SHARD_2]);
    for source in &model.info.sources {
        let bytes = fs::read(snapshot.join(&source.file)).unwrap();
        assert_eq!(source.len, bytes.len() as u64);
        assert_eq!(source.sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
    }
    let named = LoadOptions { name: Some("mine".to_owned()), ..Default::default() };
    assert_eq!(load(&snapshot, &named).unwrap().info.name, "mine");

    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.file("LICENSE", "\n  MIT License\n\nCopyright\n");
    let dir = checkpoint.write();
    let inner = dir.path().join("my-model");
    fs::create_dir(&inner).unwrap();
    for file in ["config.json", "LICENSE", "model.safetensors"] {
        fs::rename(dir.path().join(file), inner.join(file)).unwrap();
    }
    let model = load_path(inner.join("model.safetensors")).unwrap();
    assert_eq!((model.info.name.as_str(), model.info.license.as_deref()), ("my-model", Some("MIT License")));
}

#[test]
fn paths_that_hold_no_checkpoint_say_what_they_hold() {
    let dir = Checkpoint::bitnet().write_model_files();
    let error = |path: &Path| refusal(load_path(path));
    says(&error(&dir.path().join("absent")), &["[3]", "absent"]);
    says(&error(dir.path()), &["[3]", "neither model.safetensors nor model.safetensors.index.json"]);
    says(&error(&dir.path().join("config.json")), &["[4]", "config.json", "not a checkpoint"]);
    write_tensors(&dir.path().join(SHARD_2), Checkpoint::bitnet().tensors.iter());
    says(&error(dir.path()), &["[3]", SHARD_2, "download model.safetensors.index.json"]);
    says(&error(&dir.path().join(SHARD_2)), &["[3]", SHARD_2, "one of 2 shards"]);
    for (code, file, why) in
        [("[3]", "model.trit", "is a bundle"), ("[4]", "pytorch_model.bin", "safe_serialization=True")]
    {
        let dir = Checkpoint::bitnet().write_model_files();
        let path = dir.path().join(file);
        fs::write(&path, "x").unwrap();
        says(&error(dir.path()), &[code, file, why]);
        says(&error(&path), &[code, file, why]);
    }
}

#[test]
fn a_checkpoint_needs_its_config() {
    let dir = Checkpoint::bitnet().write();
    fs::write(dir.path().join("config.json"), "{ \"hidden_size\": ").unwrap();
    says(&refusal(load_path(dir.path())), &["[3]", "config.json", "not a JSON object"]);
    fs::write(dir.path().join("config.json"), "[1]").unwrap();
    says(&refusal(load_path(dir.path())), &["[3]", "config.json", "not a JSON object"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    says(&refusal(load_path(dir.path())), &["[3]", "config.json", "missing"]);
}

#[test]
fn damaged_files_are_named() {
    let damage = |file: &str, bend: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let (dir, _) = Checkpoint::bitnet().write_shards();
        let path = dir.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, bend(bytes)).unwrap();
        refusal(load_path(dir.path()))
    };
    let truncated = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    says(&damage(SHARD_2, &truncated), &["[3]", SHARD_2, "truncated"]);
    says(&damage(SHARD_1, &|bytes| bytes[..5].to_vec()), &["[3]", SHARD_1, "truncated"]);
    says(&damage(SHARD_1, &|_| Vec::new()), &["[3]", SHARD_1, "empty"]);
    says(&damage(SHARD_1, &|_| b"version https://git-lfs.github.com/spec/v1\noid x".to_vec()), &["LFS"]);
    let huge_header = |mut bytes: Vec<u8>| {
        bytes[..8].fill(0xff);
        bytes
    };
    says(&damage(SHARD_1, &huge_header), &["[3]", SHARD_1, "safetensors"]);
    says(&damage(INDEX, &|_| b"{}".to_vec()), &["[3]", INDEX, "weight_map"]);
    says(&damage(INDEX, &|_| b"{\"weight_map\":{}}".to_vec()), &["[3]", INDEX, "no shard"]);
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    let bend = |f: &dyn Fn(&mut std::collections::BTreeMap<String, String>)| {
        let (dir, mut index) = Checkpoint::bitnet().write_shards();
        f(&mut index);
        write_index(dir.path(), &index);
        refusal(load_path(dir.path()))
    };
    let absent = bend(&|index| drop(index.insert(Q.to_owned(), "absent.safetensors".to_owned())));
    says(&absent, &["[3]", INDEX, "absent.safetensors", "not there"]);
    let unknown = bend(&|index| drop(index.insert("model.extra".to_owned(), SHARD_1.to_owned())));
    says(&unknown, &["[3]", SHARD_1, "model.extra", "not in the shard"]);
    let elsewhere = bend(&|index| {
        let shard = index.get_mut(Q).unwrap();
        *shard = if shard == SHARD_1 { SHARD_2 } else { SHARD_1 }.to_owned();
    });
    says(&elsewhere, &["[3]", Q, "named by the index"]);
    for name in ["../x.safetensors", "/etc/passwd", "a/b.safetensors", ".."] {
        let escape = bend(&|index| drop(index.insert(Q.to_owned(), name.to_owned())));
        says(&escape, &["[3]", INDEX, name, "plain file name"]);
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let checkpoint = Checkpoint::bitnet();
    let (dir, _) = checkpoint.write_shards();
    write_tensors(&dir.path().join(SHARD_2), checkpoint.tensors.iter());
    says(&refusal(load_path(dir.path())), &["[3]", SHARD_1, "is also in model-00002-of-00002.safetensors"]);
}
