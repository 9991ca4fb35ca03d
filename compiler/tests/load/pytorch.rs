//! Checkpoints of PyTorch: what `torch.save` writes is read, and nothing of it is run. `tests/fixtures/pytorch/make.py` made
//! the files.

use crate::checkpoint::{refusal, says};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tritc::load::{LoadOptions, load};
use tritc::model::Model;
use tritc::reference;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A model's folder with these files, and the configuration of `bitnet-llama3-rope`.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json"] {
        fs::copy(fixture("bitnet-llama3-rope").join(name), dir.path().join(name)).unwrap();
    }
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// A file of `tests/fixtures/pytorch`.
fn saved(name: &str) -> Vec<u8> {
    fs::read(fixture("pytorch").join(name)).unwrap()
}

fn error(path: &Path) -> String {
    refusal(load(path, &LoadOptions::default()))
}

/// What loading says of a `pytorch_model.bin` with these bytes.
fn error_of(bytes: Vec<u8>) -> String {
    error(folder(&[("pytorch_model.bin", bytes)]).path())
}

fn same(model: &Model, expected: &Model) {
    let ids = [1, 7, 300, 42, 511];
    assert!(reference::logits(model, &ids).unwrap() == reference::logits(expected, &ids).unwrap());
    for (a, b) in model.report.iter().zip(&expected.report) {
        assert_eq!((&a.name, &a.shape, &a.stored), (&b.name, &b.shape, &b.stored));
    }
}

const SHARDS: [&str; 3] =
    ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];

fn shards() -> Vec<(&'static str, Vec<u8>)> {
    SHARDS.map(|name| (name, saved(&format!("shards/{name}")))).into()
}

/// Packed weights, scales and tables are the same from all three; a tied head is the embedding's own bytes in the first,
/// and tensors are parts of one storage in the last.
#[test]
fn one_file_and_shards_hold_the_model_of_the_safetensors_file() {
    let options = LoadOptions::default();
    let expected = load(&fixture("bitnet-llama3-rope"), &options).unwrap();
    let whole = folder(&[("pytorch_model.bin", saved("model/pytorch_model.bin"))]);
    let model = load(whole.path(), &options).unwrap();
    same(&model, &expected);
    assert!(model.head.is_none());
    let files: Vec<&str> = model.info.sources.iter().map(|source| source.file.as_str()).collect();
    assert_eq!(files, ["config.json", "generation_config.json", "pytorch_model.bin"]);
    same(&load(&whole.path().join("pytorch_model.bin"), &options).unwrap(), &expected);

    let parts = folder(&shards());
    same(&load(parts.path(), &options).unwrap(), &expected);
    same(&load(&parts.path().join(SHARDS[0]), &options).unwrap(), &expected);
}

/// As transformers chooses.
#[test]
fn safetensors_come_first_and_a_gguf_file_is_named() {
    let mut files = vec![("pytorch_model.bin", b"no checkpoint".to_vec())];
    files.push(("model.safetensors", fs::read(fixture("bitnet-llama3-rope/model.safetensors")).unwrap()));
    assert!(load(folder(&files).path(), &LoadOptions::default()).is_ok());
    let files = [("pytorch_model.bin", saved("model/pytorch_model.bin")), ("other.gguf", b"GGUF".to_vec())];
    let model = load(folder(&files).path(), &LoadOptions::default()).unwrap();
    says(&crate::warned(&model.warnings), &["pytorch_model.bin is taken; to compile other.gguf"]);
}

#[test]
fn shards_that_are_missing_are_named() {
    let dir = folder(&shards()[..2]);
    says(&error(dir.path()), &["[3]", SHARDS[2], "is not there"]);
    let dir = folder(&shards()[1..]);
    says(&error(dir.path()), &["[3]", SHARDS[1], "download pytorch_model.bin.index.json too"]);
    says(&error(&dir.path().join(SHARDS[1])), &["[3]", "one of 2 shards", "pytorch_model.bin.index.json"]);
}

/// What `torch.save` also writes is refused by the name of what it would need, and how to go on.
#[test]
fn what_is_no_dict_of_tensors_is_refused_by_name() {
    for (name, words) in [
        ("legacy.bin", &["bare pickle", "before version 1.6"][..]),
        ("transposed.bin", &["tensor a", "strides [1, 3]", "[3, 2]"]),
        ("nested.bin", &["a dict under \"model\""]),
        ("number.bin", &["a number under \"step\""]),
        ("module.bin", &["torch.nn.modules.linear.Linear", "nothing of it was run"]),
        ("sparse.bin", &["torch._utils._rebuild_sparse_tensor"]),
        ("complex.bin", &["torch.ComplexFloatStorage"]),
    ] {
        let error = error_of(saved(name));
        says(&error, words);
        says(&error, &["[4]", "pytorch_model.bin", "safe_serialization=True", "a source that you trust"]);
    }
    says(&error_of(b"PK".to_vec()), &["[3]", "not a whole zip archive"]);
    says(&error_of(b"anything".to_vec()), &["[4]", "not a zip archive"]);
    says(&error_of(b"version https://git-lfs".to_vec()), &["[3]", "git lfs pull"]);
}

/// An archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let (len, at) = ((data.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
        let name_len = (name.len() as u16).to_le_bytes();
        bytes.extend([0x50, 0x4b, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([&len[..], &len, &name_len, &[0, 0], name.as_bytes(), data].concat());
        list.extend([0x50, 0x4b, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        list.extend([&len[..], &len, &name_len, &[0; 12], &at, name.as_bytes()].concat());
    }
    let (count, start) = ((entries.len() as u16).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    let list_len = (list.len() as u32).to_le_bytes();
    bytes.extend(&list);
    bytes.extend([&[0x50, 0x4b, 5, 6, 0, 0, 0, 0][..], &count, &count, &list_len, &start, &[0, 0]].concat());
    bytes
}

/// A file with that pickle and a storage of 64 zeros.
fn pickled(pickle: &[u8]) -> Vec<u8> {
    archive(&[("x/data.pkl", pickle), ("x/data/0", &[0; 64])])
}

/// The instructions that make a tensor of that offset, shape and strides from a storage of `len` floats.
fn tensor(len: u8, offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let two = |two: [u8; 2]| [b'K', two[0], b'K', two[1], 0x86];
    let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
    bytes.extend(b"X\x01\0\0\x000X\x03\0\0\0cpuK");
    bytes.extend([len, b't', b'Q', b'K', offset]);
    bytes.extend(two(shape));
    bytes.extend(two(strides));
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    bytes
}

/// A dict with one tensor.
fn dict(tensor: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x01\0\0\0a", tensor, b"s."].concat()
}

#[test]
fn nothing_of_a_pickle_is_run() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ccollections\ndefaultdict\n.", "collections.defaultdict"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor "),
    ] {
        says(&error_of(pickled(pickle)), &["[4]", &format!("needs {name}"), "safe_serialization=True"]);
    }
    // Instructions that make objects of classes in other ways.
    for op in *b"io\x81\x82\x92P0S" {
        let error = error_of(pickled(&[0x80, 2, b'}', op, b'.']));
        says(&error, &["[4]", &format!("instruction {op:#04x}"), "not run"]);
    }
    says(&error_of(pickled(b"\x80\x02]K\x01a.")), &["[4]", "a list, not a dict of tensors"]);
    says(&error_of(pickled(b"\x80\x02}K\x01K\x02s.")), &["[4]", "a number, expected a text"]);
    says(&error_of(pickled(b"\x80\x02}X\x01\0\0\0aNs.")), &["[4]", "None under \"a\""]);
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let error = |tensor: &[u8]| error_of(pickled(&dict(tensor)));
    // The tensor is there, and the model lacks all others.
    says(&error(&tensor(16, 0, [4, 4], [4, 1])), &["[3]", "model.embed_tokens.weight", "missing"]);
    says(&error(&tensor(16, 4, [3, 4], [4, 1])), &["model.embed_tokens.weight"]);
    // A dimension of one may have any stride, and an empty tensor any at all.
    says(&error(&tensor(16, 0, [1, 16], [77, 1])), &["model.embed_tokens.weight"]);
    says(&error(&tensor(16, 16, [0, 16], [77, 3])), &["model.embed_tokens.weight"]);
    for outside in
        [tensor(16, 1, [4, 4], [4, 1]), tensor(15, 0, [1, 1], [1, 1]), tensor(200, 0, [2, 2], [2, 1])]
    {
        says(&error(&outside), &["[3]", "tensor a", "not all in the archive's data/0"]);
    }
    says(&error(&tensor(16, 0, [4, 4], [1, 4])), &["[4]", "tensor a", "strides [1, 4]"]);
    let twice = [&b"\x80\x02}(X\x01\0\0\0aq\0"[..], &tensor(16, 0, [1, 1], [1, 1]), b"h\0Nu."].concat();
    says(&error_of(pickled(&twice)), &["[4]", "more than once"]);
}

/// Nests, counts and lengths that would exhaust memory or the stack of a program that believed them.
#[test]
fn hostile_pickles_end_in_a_message() {
    let repeated =
        |op: &[u8], n: usize| pickled(&[b"\x80\x02)".to_vec(), op.repeat(n), b".".to_vec()].concat());
    for bytes in [
        repeated(b"\x85", 1_000_000),
        repeated(b"(", 1_000_000),
        repeated(b"q\0h\0", 2_000_000),
        repeated(b"N", 3_000_000),
        repeated(b"q\0h\0h\0h\0\x87", 200_000),
        pickled(b"\x80\x02X\xff\xff\xff\xffa."),
        pickled(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa."),
        pickled(b"\x80\x02\x8a\xffa."),
        pickled(b"\x80\x02}q\0h\0h\0s."),
        pickled(b"\x80\x02)t."),
        pickled(b"\x80\x02(u."),
        pickled(b"\x80\x02("),
        pickled(b"\x80\x02}("),
        pickled(b"."),
        pickled(b""),
        archive(&[]),
        archive(&[("x/data/0", &[0; 8])]),
        archive(&[("x/data.pkl", b"}."), ("x/constants.pkl", b"")]),
        archive(&[("x/data.pkl", b"}."), ("x/byteorder", b"big")]),
        archive(&[("x/data.pkl", b"}."), ("x/data.pkl", b"}.")]),
    ] {
        let error = error_of(bytes);
        assert!(error.starts_with("[3]") || error.starts_with("[4]"), "{error}");
    }
}

/// Bytes of a real file changed and cut off: a model, or a message, and never more.
#[test]
fn damaged_files_end_in_a_message() {
    let whole = saved("number.bin");
    let dir = folder(&[]);
    let path = dir.path().join("pytorch_model.bin");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = error(&path);
        assert!(error.starts_with("[3]") || error.starts_with("[4]"), "{error}");
    };
    for len in 0..whole.len() {
        read(&whole[..len]);
    }
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            read(&bytes);
        }
    }
}
