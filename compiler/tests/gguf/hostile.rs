//! Files that are no GGUF files, though they say so: one test for each refusal.

use crate::writer::{File, Q, Value, array, bool, string, text, u32};

fn bent(bend: impl FnOnce(&mut File)) -> File {
    let mut file = File::bitnet();
    bend(&mut file);
    file
}

#[test]
fn another_format() {
    bent(|file| file.magic = *b"GGML").refused(&["[3]", "not a GGUF file"]);
    bent(|file| file.version = 1).refused(&["[4]", "version 1", "convert the model again"]);
    bent(|file| file.version = 4).refused(&["[4]", "version 4", "reads 2 and 3"]);
    bent(|file| file.version = 3u32.swap_bytes()).refused(&["[4]", "big-endian", "gguf_convert_endian.py"]);
    assert!(bent(|file| file.version = 2).load().is_ok());
    let (_dir, path) = File::bitnet().write();
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = crate::writer::load_path(&path).err().unwrap().to_string();
    assert!(error.contains("git lfs pull"), "{error}");
}

#[test]
fn counts() {
    bent(|file| file.counts[0] = Some(1 << 20)).refused(&["[3]", "1048576 tensors", "damaged"]);
    bent(|file| file.counts[1] = Some(u64::MAX)).refused(&["[3]", "metadata keys", "damaged"]);
}

#[test]
fn keys() {
    let key = |name: &[u8], value| {
        bent(|file| {
            file.keys.push((name.to_vec(), value));
        })
    };
    key(&[b'k'; 2000], bool(true)).refused(&["[3]", "name of 2000 bytes", "no more than 1024"]);
    key(b"k\xff", bool(true)).refused(&["[3]", "metadata key 10", "not UTF-8"]);
    key(b"general.architecture", text("x")).refused(&[
        "[3]",
        "general.architecture stands there twice",
        "bitnet-b1.58",
    ]);
    key(b"k", Value(13, vec![])).refused(&["[3]", "metadata key k", "unknown type 13"]);
    key(b"k", Value(7, vec![2])).refused(&["[3]", "metadata key k", "bool of value 2"]);
    key(b"k", Value(8, string(b"\xff"))).refused(&["[3]", "metadata key k", "not UTF-8"]);
    key(b"k", Value(8, vec![0xff; 8])).refused(&["[3]", "metadata key k", "truncated or damaged"]);
    key(b"k", array(12, u64::MAX, vec![])).refused(&[
        "[3]",
        "metadata key k",
        "array of 18446744073709551615",
    ]);
    key(b"k", array(12, 1 << 40, vec![])).refused(&["[3]", "metadata key k", "truncated or damaged"]);
    key(b"k", array(8, u64::MAX, vec![])).refused(&["[3]", "metadata key k"]);
    key(b"k", array(99, 1, vec![])).refused(&["[3]", "metadata key k", "unknown type 99"]);
}

#[test]
fn nested_arrays() {
    let nested = |depth: usize| {
        let mut inner = array(0, 1, vec![7]);
        for _ in 0..depth {
            inner = array(9, 1, inner.1);
        }
        bent(|file| {
            file.key("general.nested", inner);
        })
    };
    assert!(nested(3).load().is_ok());
    nested(5).refused(&["[3]", "general.nested", "nests arrays more than 4 deep"]);
    // Each level claims the longest array there is.
    let endless = [9u32.to_le_bytes().to_vec(), u64::MAX.to_le_bytes().to_vec()].concat().repeat(1000);
    bent(|file| {
        file.key("general.nested", Value(9, endless));
    })
    .refused(&["[3]", "general.nested", "nests arrays"]);
}

#[test]
fn alignment() {
    for alignment in [0, 3, 1 << 30] {
        bent(|file| {
            file.key("general.alignment", u32(alignment));
        })
        .refused(&["[3]", "general.alignment", "power of two"]);
    }
    bent(|file| {
        file.key("general.alignment", text("32"));
    })
    .refused(&["[3]", "general.alignment", "\"32\""]);
    let aligned = bent(|file| {
        file.key("general.alignment", u32(256));
        file.alignment = 256;
    });
    assert!(aligned.load().is_ok());
}

#[test]
fn shapes() {
    let shape = |dimensions: &[u64]| bent(|file| file.at(Q).dimensions = dimensions.to_vec());
    shape(&[]).refused(&["[3]", Q, "0 dimensions"]);
    shape(&[1; 5]).refused(&["[3]", Q, "5 dimensions"]);
    shape(&[64, 0]).refused(&["[3]", Q, "dimension of size 0"]);
    shape(&[1 << 62, 1 << 62]).refused(&["[3]", Q, "more than any file holds"]);
    shape(&[1 << 40, 1]).refused(&["[3]", Q]);
    shape(&[63, 64]).refused(&["[3]", Q]);
    shape(&[64, 64, 2]).refused(&["[3]", Q]);
    // As many bytes, another matrix.
    shape(&[128, 32]).refused(&["[3]", Q, "expected [64, 64]"]);
}

#[test]
fn types() {
    let kind = |kind| bent(|file| file.at(Q).kind = kind);
    kind(29).refused(&["[4]", Q, "IQ1_M (29)", "neither ternary", "TQ2_0"]);
    kind(38).refused(&["[4]", Q, "TL1 (38)", "lookup tables", "-q i2_s", "safetensors"]);
    kind(39).refused(&["[4]", Q, "TL2 (39)", "lookup tables", "-q i2_s", "safetensors"]);
    kind(36).refused(&["[4]", "I2_S", "--i2s-layout"]);
    kind(43).refused(&["[3]", Q, "no multiple of STQ1_0's 256 weights"]);
    kind(335).refused(&["[4]", Q, "IQ2_BN_R4", "IQ2_BN"]);
    kind(77).refused(&["[4]", Q, "unknown type 77"]);
    // Known, and of another size.
    kind(34).refused(&["[3]", Q, "no multiple of TQ1_0's 256 weights"]);
    kind(0).refused(&["[3]", Q]);
}

#[test]
fn places() {
    let offset = |offset: u64| bent(|file| file.at(Q).offset = Some(offset));
    offset(7).refused(&["[3]", Q, "offset 7", "alignment 32"]);
    offset(u64::MAX - 31).refused(&["[3]", Q]);
    offset(1 << 40).refused(&["[3]", Q]);
    let norm = "output_norm.weight";
    bent(|file| file.at(norm).offset = Some(0)).refused(&[
        "[3]",
        norm,
        "starts inside token_embd.weight",
        "damaged",
    ]);
    bent(|file| {
        let twin = file.at(Q).clone();
        file.tensors.push(twin);
    })
    .refused(&["[3]", Q, "stands there twice"]);
}

/// Wherever a file ends, it is refused, and says something else than that all is well.
#[test]
fn truncated_anywhere() {
    let file = File::bitnet();
    let (_dir, path) = file.write();
    let bytes = file.bytes();
    let header = 1600.min(bytes.len());
    for len in (0..header).chain((header..bytes.len() - 32).step_by(997)) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let error = crate::writer::load_path(&path).err().unwrap_or_else(|| panic!("{len} bytes are read"));
        assert_eq!(crate::words::exit_code(&error), 3, "{len}: {error}");
    }
}
