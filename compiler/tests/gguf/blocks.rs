//! Blocks of each ternary type, spelled out, and what is wrong in them.

use crate::writer::{File, MATRICES, Q, q2_0, read, ternary, trits};
use half::f16;
use trit_format::plan::{DType, ScaleRule};
use tritc::model::{Dense, Found, Model, Scales, TensorReport};

/// The model with all matrices of `k` columns in blocks of another type.
fn with_blocks(file: &mut File, kind: u32, block: impl Fn(&[i8]) -> Vec<u8>) {
    for (part, rows, k) in MATRICES {
        let name = format!("blk.0.{part}.weight");
        let rows_of = trits(&name, rows * k);
        let bytes = rows_of.chunks(k).flat_map(&block).collect();
        file.tensor(&name, &[k as u64, rows as u64], kind, bytes);
    }
}

fn number(trits: impl DoubleEndedIterator<Item = i8>) -> u8 {
    let number = trits.fold(0u32, |number, trit| 3 * number + (trit + 1) as u32);
    (number * 256).div_ceil(243) as u8
}

/// A row of IQ1_BN: sixteen trits in three bytes of five, least significant first, and one of a shared byte.
fn iq1_bn(row: &[i8]) -> Vec<u8> {
    let mut bytes = f16::from_f32(0.75).to_le_bytes().to_vec();
    for block in row.chunks(64) {
        for sixteen in block.chunks(16) {
            bytes.extend(sixteen[..15].chunks(5).map(|five| number(five.iter().rev().copied())));
        }
        bytes.push(number([-1].into_iter().chain((0..4).rev().map(|i| block[16 * i + 15]))));
    }
    bytes
}

/// A row of IQ2_BN: byte i holds trits i, i + 16, i + 32 and i + 48.
fn iq2_bn(row: &[i8]) -> Vec<u8> {
    let mut bytes = 0.75f32.to_le_bytes().to_vec();
    for block in row.chunks(64) {
        bytes.extend(
            (0..16).map(|i| (0..4).fold(0, |byte, j| byte | ((block[i + 16 * j] + 1) as u8) << (2 * j))),
        );
    }
    bytes
}

/// What is reported of a tensor.
fn report<'a>(model: &'a Model, name: &str) -> &'a TensorReport {
    model.report.iter().find(|report| report.name == name).unwrap()
}

/// Signs of a matrix, from its name.
fn signs(name: &str, n: usize) -> Vec<i8> {
    trits(name, n).into_iter().map(|t| if t == 0 { 1 } else { t }).collect()
}

/// Q1_0 blocks of 128 signs: the scale, then bit i % 8 of byte i / 8, set for +1.
fn q1_0(signs: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in signs.chunks(128) {
        bytes.extend(f16::from_f32(scale).to_le_bytes());
        bytes.extend(
            block.chunks(8).map(|eight| (0..8).fold(0, |byte, i| byte | u8::from(eight[i] > 0) << i)),
        );
    }
    bytes
}

#[test]
fn signs_of_q1_0() {
    const DOWN: &str = "blk.0.ffn_down.weight";
    let signs = signs(DOWN, 64 * 128);
    let mut file = File::model("llama", false);
    let bytes: Vec<u8> = signs.chunks(128).zip(1..).flat_map(|(row, n)| q1_0(row, n as f32 / 64.0)).collect();
    file.tensor(DOWN, &[128, 64], 41, bytes.clone());
    let model = file.load().unwrap();
    let down = ternary(&model.layers[0].down);
    assert_eq!(read(down).unwrap(), signs);
    assert_eq!(down.scales, Scales::Rows { columns: 0, dtype: DType::F16 });
    assert!(down.is_signs() && down.trits.is_signs());
    assert!(!ternary(&model.layers[0].up).is_signs());
    assert_eq!(report(&model, DOWN).stored, "Q1_0");

    // A row without a scale of its own is a row of zeros, which signs cannot say unless the scale says it.
    file.at(DOWN).bytes[18 * 5..][..2].fill(0);
    let model = file.load().unwrap();
    let down = ternary(&model.layers[0].down);
    assert_eq!(read(down).unwrap()[5 * 128..6 * 128], [0; 128]);
    assert!(down.is_signs() && !down.trits.is_signs());
    // With one scale for the whole matrix nothing else than a trit says it.
    let one_scale = [q1_0(&signs[..63 * 128], 0.5), q1_0(&signs[63 * 128..], 0.0)].concat();
    file.tensor(DOWN, &[128, 64], 41, one_scale);
    let model = file.load().unwrap();
    assert!(!ternary(&model.layers[0].down).is_signs());

    file.at(DOWN).bytes =
        [&bytes[..18 * 7], &f16::from_f32(-0.5).to_le_bytes(), &bytes[18 * 7 + 2..]].concat();
    file.refused(&["[3]", DOWN, "scale -0.5 at row 7, column 0", "finite"]);
    // Rows that are no whole blocks.
    let mut file = File::model("llama", false);
    file.at(Q).kind = 41;
    file.refused(&["[3]", Q, "no multiple of Q1_0's 128 weights"]);
}

#[test]
fn trits_and_scales_of_rows() {
    type Encode = fn(&[i8]) -> Vec<u8>;
    for (kind, encode) in [(134, iq1_bn as Encode), (135, iq2_bn)] {
        let mut file = File::bitnet();
        with_blocks(&mut file, kind, encode);
        let model = file.load().unwrap();
        let down = ternary(&model.layers[0].down);
        assert_eq!(read(down).unwrap(), trits("blk.0.ffn_down.weight", 64 * 128), "{kind}");
        assert_eq!(down.scales, Scales::Tensor { scale: 0.75, rule: ScaleRule::Multiply });
    }
}

/// The type of the number 42 that PrismML wrote first: 128 weights to a block, told by the tensors' sizes.
#[test]
fn q2_0_of_both_sizes() {
    let model = File::bitnet().load().unwrap();
    assert_eq!(read(ternary(&model.layers[0].attention().unwrap().q)).unwrap(), trits(Q, 64 * 64));

    let prism = |file: &mut File, name: &str, rows: usize| {
        let codes = trits(name, rows * 128);
        let bytes = codes.chunks(128).flat_map(|block| {
            let halves = q2_0(block, 0.75);
            [&halves[..18], &halves[20..]].concat()
        });
        file.tensor(name, &[128, rows as u64], 42, bytes.collect());
    };
    let mut file = File::model("llama", false);
    for (key, size) in
        [("embedding_length", 128), ("attention.head_count", 4), ("attention.head_count_kv", 2)]
    {
        file.key(&format!("llama.{key}"), crate::writer::u32(size));
    }
    for norm in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        file.floats(&format!("{norm}.weight"), &[128]);
    }
    file.floats("token_embd.weight", &[128, 16]);
    for (part, rows) in [
        ("attn_q", 128),
        ("attn_k", 64),
        ("attn_v", 64),
        ("attn_output", 128),
        ("ffn_gate", 128),
        ("ffn_up", 128),
    ] {
        prism(&mut file, &format!("blk.0.{part}.weight"), rows);
    }
    prism(&mut file, "blk.0.ffn_down.weight", 128);
    let model = file.load().unwrap();
    assert_eq!(
        read(ternary(&model.layers[0].attention().unwrap().v)).unwrap(),
        trits("blk.0.attn_v.weight", 64 * 128)
    );
    assert_eq!(report(&model, Q).stored, "Q2_0 (128 weights)");

    // Both in one file are of no program.
    let bytes = q2_0(&trits("x", 128 * 128), 0.75);
    file.tensor("blk.0.ffn_down.weight", &[128, 128], 42, bytes);
    file.refused(&["[3]", "blk.0.ffn_down.weight", "18 for every 64 weights (Q2_0)", "34 for every 128"]);
}

#[test]
fn scales_that_differ() {
    let two_scales = |file: &mut File| {
        let bytes = [q2_0(&trits(Q, 63 * 64), 0.75), q2_0(&[1; 64], 0.5)].concat();
        file.at(Q).bytes = bytes;
    };
    let mut file = File::model("llama", false);
    two_scales(&mut file);
    let model = file.load().unwrap();
    let q = ternary(&model.layers[0].attention().unwrap().q);
    assert_eq!(q.scales, Scales::Rows { columns: 0, dtype: DType::F16 });
    assert_eq!(report(&model, Q).found, Found::PerRow);
    let mut scale = [0.0];
    q.trits.read_scales(63, &mut scale).unwrap();
    assert_eq!(scale, [0.5]);

    // BitNet has one scale for a matrix.
    let mut file = File::bitnet();
    two_scales(&mut file);
    file.refused(&["[3]", Q, "not ternary with one scale", "convert the model again"]);

    // Blocks of zeros fit every scale, and programs write zero for it.
    let mut file = File::bitnet();
    file.at(Q).bytes = [q2_0(&trits(Q, 63 * 64), 0.75), q2_0(&[0; 64], 0.0)].concat();
    let model = file.load().unwrap();
    assert_eq!(
        ternary(&model.layers[0].attention().unwrap().q).scales,
        Scales::Tensor { scale: 0.75, rule: ScaleRule::Multiply }
    );

    // So does a matrix of nothing else.
    file.at(Q).bytes = q2_0(&[0; 64 * 64], 0.0);
    let model = file.load().unwrap();
    assert_eq!(
        ternary(&model.layers[0].attention().unwrap().q).scales,
        Scales::Tensor { scale: 1.0, rule: ScaleRule::Multiply }
    );
}

#[test]
fn scales_that_are_none() {
    for (scale, says) in [(f32::NAN, "NaN"), (-0.5, "-0.5"), (f32::INFINITY, "inf")] {
        let mut file = File::model("llama", false);
        file.at(Q).bytes[18 * 5..][..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        file.refused(&["[3]", Q, &format!("scale {says} at row 5, column 0"), "finite"]);
    }
    // Ones whose scale is zero are zeros.
    let mut file = File::bitnet();
    file.at(Q).bytes = [q2_0(&[1; 64], 0.0), q2_0(&[1; 63 * 64], 0.5)].concat();
    let model = file.load().unwrap();
    let q = ternary(&model.layers[0].attention().unwrap().q);
    assert_eq!(q.scales, Scales::Tensor { scale: 0.5, rule: ScaleRule::Multiply });
    assert_eq!(read(q).unwrap(), [vec![0; 64], vec![1; 63 * 64]].concat());
}

/// Scales are stored for 64 columns, whether or not they differ there.
#[test]
fn scales_are_as_coarse_as_they_can_be() {
    let down = |scales: [f32; 4]| {
        let mut file = File::model("llama", false);
        let mut rows = vec![0u8; 0];
        for row in 0..64 {
            for half in 0..2 {
                rows.extend(q2_0(&[1; 64], scales[2 * (row % 2) + half]));
            }
        }
        file.at("blk.0.ffn_down.weight").bytes = rows;
        file.load().unwrap().layers[0].down.clone()
    };
    let rows = |columns| Scales::Rows { columns, dtype: DType::F16 };
    let per_row = down([0.5, 0.5, 0.25, 0.25]);
    assert_eq!(ternary(&per_row).scales, rows(0));
    let mut scale = [0.0];
    ternary(&per_row).trits.read_scales(1, &mut scale).unwrap();
    assert_eq!(scale, [0.25]);
    let halves = down([0.5, 0.25, 0.5, 0.5]);
    assert_eq!(ternary(&halves).scales, rows(64));
    let mut scales = [0.0; 2];
    ternary(&halves).trits.read_scales(0, &mut scales).unwrap();
    assert_eq!(scales, [0.5, 0.25]);
}

#[test]
fn codes_that_are_none() {
    let mut file = File::bitnet();
    file.at(Q).bytes[18 * 3 + 2 + 7] = 0b01_11_01_01;
    let error = file
        .load()
        .and_then(|model| read(ternary(&model.layers[0].attention().unwrap().q)))
        .unwrap_err()
        .to_string();
    for word in [Q, "row 3, in columns 0 to 63", "0x75, byte 9 of a Q2_0 block", "no trits"] {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }

    // 243 numbers of five digits leave 13 bytes over, 81 of four many more.
    for (at, byte) in [(3, 20), (12, 255)] {
        let mut file = File::bitnet();
        with_blocks(&mut file, 134, iq1_bn);
        file.at(Q).bytes[15 * 2 + 2 + at] = byte;
        let error = file
            .load()
            .and_then(|model| read(ternary(&model.layers[0].attention().unwrap().q)))
            .unwrap_err()
            .to_string();
        for word in [Q, "row 2", &format!("byte {at} of a IQ1_BN block")] {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}

/// Only embeddings, heads and norms may be stored so.
#[test]
fn linears_of_integers_are_refused() {
    let mut file = File::model("llama", false);
    file.tensor(Q, &[64, 64], 8, [vec![0, 60], vec![1; 32]].concat().repeat(128));
    file.refused(&["[4]", Q, "Q8_0, which is not ternary", "embeddings, heads and norms"]);
}

/// An embedding of Q8_0 becomes codes for the same numbers.
#[test]
fn embeddings_of_integers_are_kept_as_codes() {
    let mut file = File::bitnet();
    let block = |first: u8| {
        [f16::from_f32(0.5).to_le_bytes().to_vec(), (0..32).map(|i| first.wrapping_add(i)).collect()].concat()
    };
    file.tensor("token_embd.weight", &[64, 16], 8, (0..32).flat_map(|b| block(b * 7)).collect());
    let model = file.load().unwrap();
    let embedding = model.embedding.dense().unwrap();
    let dtype = DType::I8Blocks { columns: 32, offsets: false };
    assert_eq!((embedding.dtype, embedding.shape.as_slice()), (dtype, [16, 64].as_slice()));
    for (at, value) in values(embedding).iter().enumerate() {
        let stored = ((at / 32 * 7) as u8).wrapping_add((at % 32) as u8) as i8;
        assert_eq!(*value, 0.5 * f32::from(stored), "{at}");
    }
    // A bitnet file declares its weights. Where a file does not, tables are looked at, and this one is not ternary.
    let mut file = File::model("llama", false);
    file.tensor("token_embd.weight", &[64, 16], 8, (0..32).flat_map(|b| block(b * 7)).collect());
    let model = file.load().unwrap();
    assert_eq!(model.embedding.dense().unwrap().dtype, dtype);
    let embedding = model.report.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
    assert_eq!((embedding.stored.as_str(), embedding.found), ("Q8_0", Found::Coded(dtype)));
}

/// A table of integers whose numbers are ternary is a ternary matrix, as a table of floats is.
#[test]
fn ternary_tables_of_integers_are_found() {
    let mut file = File::model("llama", false);
    let block = |scale: f32| {
        let codes = (0..32).map(|i| [3u8, 0, 253][i % 3]);
        f16::from_f32(scale).to_le_bytes().into_iter().chain(codes).collect::<Vec<u8>>()
    };
    let scales = (0..32).map(|b| if b % 2 == 0 { 0.5 } else { 0.25 });
    file.tensor("token_embd.weight", &[64, 16], 8, scales.flat_map(block).collect());
    let model = file.load().unwrap();
    let embedding = model.embedding.ternary().unwrap();
    assert_eq!(embedding.scales, Scales::Rows { columns: 32, dtype: DType::F16 });
    let mut scales = [0.0; 2];
    embedding.trits.read_scales(3, &mut scales).unwrap();
    assert_eq!(scales, [1.5, 0.75]);
    assert_eq!(read(embedding).unwrap()[..4], [1, 0, -1, 1]);
}

/// An infinite scale is found where it stands.
#[test]
fn integers_that_are_no_numbers_are_refused() {
    for architecture in ["bitnet-b1.58", "llama"] {
        let mut file = File::model(architecture, architecture != "llama");
        let block = |b: usize| {
            let scale = if b == 27 { f16::INFINITY } else { f16::from_f32(0.5) };
            [scale.to_le_bytes().to_vec(), (0..32).map(|i| i + 1).collect()].concat()
        };
        file.tensor("token_embd.weight", &[64, 16], 8, (0..32).flat_map(block).collect());
        file.refused(&["token_embd.weight", "holds inf at row 13, column 32", "not a finite number"]);
    }
}

/// The numbers of a table.
fn values(table: &Dense) -> Vec<f32> {
    let (rows, k) = (table.shape[0], table.shape[1]);
    let mut values = vec![0.0; rows * k];
    values.chunks_exact_mut(k).enumerate().for_each(|(row, out)| table.read_row(row, out));
    values
}

/// Embeddings of every type of integers, against what the `gguf` package reads (0.19) in the same blocks of random bytes.
#[test]
fn every_type_of_integers_is_read_as_llama_cpp_reads_it() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("integer_blocks.json")).unwrap();
    let hex = |text: &serde_json::Value| -> Vec<u8> {
        let digits = text.as_str().unwrap().as_bytes().as_chunks::<2>().0;
        digits.iter().map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    let golden = golden.as_array().unwrap();
    assert_eq!(golden.len(), 13);
    for case in golden {
        let name = case["type"].as_str().unwrap();
        let expected: Vec<f32> =
            hex(&case["f32"]).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        // As many rows as there are tokens; blocks of 256 are more than a row of the usual width.
        let mut file = File::bitnet();
        let width = if expected.len().is_multiple_of(256) { 256 } else { 64 };
        if width == 256 {
            file = wide();
        }
        let rows = expected.len() / width;
        let bytes = hex(&case["bytes"]).repeat(16 / rows);
        file.tensor("token_embd.weight", &[width as u64, 16], case["id"].as_u64().unwrap() as u32, bytes);
        let model = file.load().unwrap_or_else(|e| panic!("{name}: {e}"));
        let embedding = model.embedding.dense().unwrap();
        assert!(matches!(embedding.dtype, DType::I8Blocks { .. }), "{name} became {}", embedding.dtype);
        let values = values(embedding);
        let bits = |x: &f32| x.to_bits();
        for (at, value) in values.iter().enumerate() {
            assert_eq!(bits(value), bits(&expected[at % expected.len()]), "{name}: weight {at}");
        }
    }
}

/// A model whose rows hold blocks of 256 weights.
fn wide() -> File {
    let mut file = File::bitnet();
    file.key("bitnet-b1.58.embedding_length", crate::writer::u32(256));
    file.key("bitnet-b1.58.attention.head_count", crate::writer::u32(8));
    file.key("bitnet-b1.58.attention.head_count_kv", crate::writer::u32(4));
    for norm in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm", "blk.0.attn_sub_norm"] {
        file.floats(&format!("{norm}.weight"), &[256]);
    }
    for (part, rows, k) in [
        ("attn_q", 256, 256),
        ("attn_k", 128, 256),
        ("attn_v", 128, 256),
        ("attn_output", 256, 256),
        ("ffn_gate", 128, 256),
        ("ffn_up", 128, 256),
        ("ffn_down", 256, 128),
    ] {
        let name = format!("blk.0.{part}.weight");
        let bytes = q2_0(&trits(&name, rows * k), 0.75);
        file.tensor(&name, &[k as u64, rows as u64], 42, bytes);
    }
    file
}
