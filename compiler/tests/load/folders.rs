//! Folders as people have them: caches, links, several models side by side, files that editors touched.

use crate::checkpoint::{Checkpoint, Q, refusal, says, scale, write_tensors};
use safetensors::Dtype;
use serde_json::json;
use std::fs;
use std::path::Path;
use tritc::load::{LoadOptions, load, survey};

/// What both `compile` and `inspect` say, which must be the same.
fn refused(path: &Path) -> String {
    let options = LoadOptions::default();
    let error = refusal(load(path, &options));
    let seen = survey(path, &options).refusal.expect("the survey refuses it too");
    assert_eq!(error, format!("[{}] {}", crate::words::exit_code(&seen), crate::words::message(&seen)));
    error
}

fn warnings(path: &Path) -> String {
    let options = LoadOptions::default();
    let warnings = load(path, &options).unwrap().warnings;
    assert_eq!(warnings, survey(path, &options).warnings);
    crate::warned(&warnings)
}

#[test]
fn byte_order_marks_are_skipped() {
    let mut checkpoint = Checkpoint::bitnet();
    let tokenizer =
        json!({ "added_tokens": [], "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] } })
            .to_string();
    checkpoint.file("generation_config.json", "\u{feff}{\"top_k\": 7}");
    checkpoint.file("tokenizer.json", format!("\u{feff}{tokenizer}"));
    let (dir, _) = checkpoint.write_shards();
    for name in ["config.json", "model.safetensors.index.json"] {
        let path = dir.path().join(name);
        fs::write(&path, format!("\u{feff}{}", fs::read_to_string(&path).unwrap())).unwrap();
    }
    let model = load(dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!(model.text.sampling.top_k, Some(7));
    // Bundles hold it without, as their readers expect it.
    assert_eq!(model.tokenizer.as_deref(), Some(tokenizer.as_bytes()));

    let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec();
    for (bytes, words) in [(utf16, "UTF-16"), (pointer, "git lfs pull"), (Vec::new(), "is empty")] {
        fs::write(dir.path().join("config.json"), bytes).unwrap();
        says(&refused(dir.path()), &["[3]", "config.json", words]);
    }
}

#[cfg(unix)]
#[test]
fn links_to_nothing_are_named_with_what_they_lead_to() {
    use std::os::unix::fs::symlink;
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.file("tokenizer.json", json!({ "model": { "vocab": { "a": 0 } } }).to_string());
    for name in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"] {
        let dir = checkpoint.write();
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        symlink("../../blobs/0123", &path).unwrap();
        says(
            &refused(dir.path()),
            &["[3]", name, "is a link to ../../blobs/0123, which is not there", "cp -rL"],
        );
    }
    let (dir, _) = checkpoint.write_shards();
    let shard = dir.path().join("model-00002-of-00002.safetensors");
    fs::remove_file(&shard).unwrap();
    symlink("gone", &shard).unwrap();
    says(&refused(dir.path()), &["[3]", "00002-of-00002", "is a link to gone"]);
    says(&refused(&dir.path().join("config.json")), &["[4]"]);
    // Links that lead somewhere are followed.
    let linked = tempfile::tempdir().unwrap();
    let real = Checkpoint::bitnet().write();
    for name in ["model.safetensors", "config.json"] {
        symlink(real.path().join(name), linked.path().join(name)).unwrap();
    }
    assert!(load(linked.path(), &LoadOptions::default()).is_ok());
    // A licence is missed by nobody.
    symlink("gone", linked.path().join("README.md")).unwrap();
    assert!(load(linked.path(), &LoadOptions::default()).is_ok());
    fs::create_dir(linked.path().join("tokenizer.json")).unwrap();
    says(&refused(linked.path()), &["[3]", "tokenizer.json", "is not a file"]);
}

#[test]
fn a_models_folder_in_a_hugging_face_cache_stands_for_its_snapshot() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--org--some-model");
    let snapshots = repository.join("snapshots");
    let add = |revision: &str, scale: f32| {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.floats(&format!("{Q}_scale"), &[1], [scale]);
        let made = checkpoint.write();
        fs::create_dir_all(snapshots.join(revision)).unwrap();
        for name in ["model.safetensors", "config.json"] {
            fs::copy(made.path().join(name), snapshots.join(revision).join(name)).unwrap();
        }
    };
    fs::create_dir_all(&snapshots).unwrap();
    says(&refused(&repository), &["[3]", "holds no snapshot"]);
    add("aaaa", 1.5);
    let model = load(&repository, &LoadOptions::default()).unwrap();
    assert_eq!(
        (model.info.name.as_str(), scale(&model.layers[0].attention().unwrap().q).0),
        ("some-model", 1.5)
    );
    add("bbbb", 2.5);
    says(&refused(&repository), &["[3]", "2 snapshots", "snapshots/aaaa or snapshots/bbbb"]);
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "bbbb\n").unwrap();
    assert_eq!(
        scale(&load(&repository, &LoadOptions::default()).unwrap().layers[0].attention().unwrap().q).0,
        2.5
    );
    // What the file says is no way out of the folder.
    fs::write(repository.join("refs/main"), "../../..").unwrap();
    says(&refused(&repository), &["[3]", "refs/main names none of them"]);
    says(&refused(cache.path()), &["[3]", "Hugging Face cache", "models--org--some-model"]);
    says(&refused(&snapshots), &["[3]", "there is a model in its folder aaaa"]);
}

#[test]
fn what_else_could_be_meant_is_said() {
    let dir = Checkpoint::bitnet().write();
    assert_eq!(warnings(dir.path()).lines().count(), 1);
    fs::write(dir.path().join("other.gguf"), "GGUF").unwrap();
    says(
        &warnings(dir.path()),
        &["model.safetensors is taken; to compile other.gguf beside it, name that file"],
    );
    let (dir, _) = Checkpoint::bitnet().write_shards();
    fs::write(dir.path().join("other.gguf"), "GGUF").unwrap();
    says(&warnings(dir.path()), &["model.safetensors.index.json is taken", "other.gguf"]);
    write_tensors(&dir.path().join("model.safetensors"), Checkpoint::bitnet().tensors.iter());
    says(&warnings(dir.path()), &["model.safetensors is taken", "model.safetensors.index.json"]);

    let dir = Checkpoint::bitnet().write();
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("weights.safetensors")).unwrap();
    fs::write(dir.path().join("other.gguf"), "GGUF").unwrap();
    says(
        &refused(dir.path()),
        &["[3]", "to compile weights.safetensors, name the file itself, or other.gguf"],
    );
    fs::rename(dir.path().join("weights.safetensors"), dir.path().join("adapter_model.safetensors")).unwrap();
    says(&refused(dir.path()), &["[3]", "LoRA adapter"]);
}

#[cfg(unix)]
#[test]
fn names_with_control_characters_are_spelled_out() {
    let dir = tempfile::tempdir().unwrap();
    let made = Checkpoint::bitnet().write();
    let folder = dir.path().join("a\u{1b}[31mb\n");
    fs::create_dir(&folder).unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::copy(made.path().join(name), folder.join(name)).unwrap();
    }
    let model = load(&folder, &LoadOptions::default()).unwrap();
    assert_eq!(model.info.name, r"a\u{1b}[31mb\u{a}");
    fs::rename(folder.join("model.safetensors"), folder.join("x\u{7}.safetensors")).unwrap();
    let model = load(&folder.join("x\u{7}.safetensors"), &LoadOptions::default()).unwrap();
    assert_eq!(model.info.sources[1].file, r"x\u{7}.safetensors");
    for name in ["", "a\u{1b}b", &"x".repeat(5000)] {
        let options = LoadOptions { name: Some(name.to_owned()), ..Default::default() };
        says(&refusal(load(made.path(), &options)), &["[2]", "--name"]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.floats("model.\u{1b}[2J.weight", &[1], [1.0]);
    says(&checkpoint.error(), &["[3]", "tensor model."]);
}

/// What readers of bundles bound is refused before anything is written.
#[test]
fn what_no_bundle_can_hold_is_refused_at_once() {
    // A template is left out instead: everything else works without it.
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.file("chat_template.jinja", "x".repeat((64 << 20) + 1));
    let (dir, options) = (checkpoint.write(), LoadOptions::default());
    let model = load(dir.path(), &options).unwrap();
    assert_eq!(model.text.chat_template, None);
    for warnings in [&model.warnings, &survey(dir.path(), &options).warnings] {
        says(&crate::warned(warnings), &["chat_template.jinja", "67108865 bytes", "NO chat template"]);
    }

    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("head_dim", json!(1026)).set("num_attention_heads", json!(2));
    checkpoint.each_matrix(|checkpoint, weight, rows, k| {
        let [mut rows, mut k] = [rows, k];
        match weight.rsplit('.').nth(1).unwrap() {
            "q_proj" => rows = 2 * 1026,
            "k_proj" | "v_proj" => rows = 1026,
            "o_proj" => k = 2 * 1026,
            _ => {}
        }
        let packed = vec![0x55; rows.div_ceil(4) * k];
        checkpoint.tensors.insert(weight.to_owned(), (Dtype::U8, vec![rows.div_ceil(4), k], packed));
    });
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.self_attn.attn_sub_norm.weight");
        checkpoint.floats(&name, &[2 * 1026], vec![1.0; 2 * 1026]);
    }
    says(&refused(checkpoint.write().path()), &["[4]", "head_dim is 1026"]);
}

/// Types that are known to the format and to no model that is read, in weights, scales, norms and tables.
#[test]
fn types_that_are_not_read_are_unsupported() {
    let table = "model.embed_tokens.weight";
    let cases = [
        (Q, vec![8, 8], Dtype::F8_E4M3, 64),
        (Q, vec![8, 8], Dtype::F64, 512),
        (&format!("{Q}_scale"), vec![1], Dtype::I32, 4),
        ("model.norm.weight", vec![8], Dtype::F64, 64),
        (table, vec![16, 8], Dtype::U8, 128),
        (table, vec![16, 8], Dtype::I64, 1024),
    ];
    for (name, shape, dtype, bytes) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.tensors.insert(name.to_owned(), (dtype, shape, vec![0; bytes]));
        says(&refused(checkpoint.write().path()), &["[4]", name, &format!("is {dtype}"), "not supported"]);
    }
    let dir = Checkpoint::bitnet().write();
    let path = dir.path().join("model.safetensors");
    let header = br#"{"a":{"dtype":"F3_E1M1","shape":[1],"data_offsets":[0,1]}}"#;
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header, &[0]].concat()).unwrap();
    says(&refused(dir.path()), &["[4]", "model.safetensors", "type that is not known", "F3_E1M1"]);
}

/// Numbers that are none, or whose reciprocal is none, are damage.
#[test]
fn numbers_that_are_none_are_invalid() {
    for scale in [f32::NAN, f32::INFINITY, 0.0, -1.0, 1e-39] {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.floats(&format!("{Q}_scale"), &[1], [scale]);
        says(&refused(checkpoint.write().path()), &["[3]", "q_proj.weight_scale"]);
    }
    for name in ["model.embed_tokens.weight", "model.norm.weight"] {
        let mut checkpoint = Checkpoint::bitnet();
        let (_, shape, _) = checkpoint.tensors[name].clone();
        let mut values = vec![1.0; shape.iter().product()];
        values[5] = f32::NAN;
        checkpoint.floats(name, &shape, values);
        says(&refused(checkpoint.write().path()), &["[3]", name, "NaN"]);
    }
}
