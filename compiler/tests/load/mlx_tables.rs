//! Embeddings and heads that mlx-lm packed in more bits than trits have, beside ternary linears.

use crate::checkpoint::{Checkpoint, MATRICES, noise, read, says, scale};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value, json};
use trit_format::plan::DType;
use tritc::model::{Dense, Found, Matrix, Model};
use tritc::reference;

const ROWS: usize = 16;
const K: usize = 256;

/// How a table is packed.
#[derive(Clone, Copy, Debug)]
struct Packing {
    bits: usize,
    group: usize,
    scales: Dtype,
}

const USUAL: Packing = Packing { bits: 4, group: 64, scales: Dtype::BF16 };

/// A float in that type, and what it is there.
fn float(dtype: Dtype, x: f32) -> (Vec<u8>, f32) {
    match dtype {
        Dtype::F16 => (f16::from_f32(x).to_le_bytes().to_vec(), f16::from_f32(x).to_f32()),
        Dtype::BF16 => (bf16::from_f32(x).to_le_bytes().to_vec(), bf16::from_f32(x).to_f32()),
        _ => (x.to_le_bytes().to_vec(), x),
    }
}

/// Puts a table of random codes into the checkpoint, and gives its values.
fn put(checkpoint: &mut Checkpoint, module: &str, packing: Packing, seed: u64) -> Vec<f32> {
    let Packing { bits, group, scales: dtype } = packing;
    let random = noise(seed, ROWS * K);
    let codes: Vec<u32> = random.iter().map(|x| ((x + 1.0) / 2.0 * (1u32 << bits) as f32) as u32).collect();
    let (mut scales, mut biases, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (codes, random) in codes.chunks(group).zip(noise(seed + 1, ROWS * K / group)) {
        // As mlx-lm chooses them: one end of the range is the bias, and the scale may be negative.
        let (bytes, scale) = float(dtype, random * 0.3 / (1u32 << bits) as f32);
        scales.extend(bytes);
        let (bytes, bias) = float(dtype, -random * 0.16);
        biases.extend(bytes);
        values.extend(codes.iter().map(|&code| scale * code as f32 + bias));
    }
    // The bits of all codes, the first lowest.
    let mut bytes = vec![0u8; ROWS * K * bits / 8];
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] |= ((codes[bit / bits] >> (bit % bits) & 1) as u8) << (bit % 8);
    }
    let groups = vec![ROWS, K / group];
    let mut tensor = |part: &str, dtype, shape, bytes| {
        checkpoint.tensors.insert(format!("{module}.{part}"), (dtype, shape, bytes));
    };
    tensor("weight", Dtype::U32, vec![ROWS, K * bits / 32], bytes);
    tensor("scales", dtype, groups.clone(), scales);
    tensor("biases", dtype, groups, biases);
    values
}

/// BitNet with matrices as transformers packs them, of 256 columns.
fn bitnet() -> Checkpoint {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("hidden_size", json!(K)).set("head_dim", json!(4));
    let hidden: Vec<String> = checkpoint
        .tensors
        .keys()
        .filter(|name| name.contains("layernorm") || name.ends_with("model.norm.weight"))
        .cloned()
        .collect();
    for name in hidden {
        checkpoint.floats(&name, &[K], noise(3, K));
    }
    for layer in 0..2 {
        for (module, rows, k) in MATRICES {
            let [rows, k] = match module {
                "self_attn.o_proj" | "mlp.down_proj" => [K, k],
                _ => [rows, K],
            };
            let name = format!("model.layers.{layer}.{module}.weight");
            let trits = crate::checkpoint::trits(&name, rows * k);
            let packed = crate::checkpoint::pack(&trits, rows, k);
            checkpoint.tensors.insert(name, (Dtype::U8, vec![rows.div_ceil(4), k], packed));
        }
    }
    checkpoint
}

/// The same as mlx-lm converts it: the embedding in codes, and the keys of both in one object.
fn converted(packing: Packing) -> (Checkpoint, Vec<f32>) {
    let mut checkpoint = bitnet();
    let quantization = json!({
        "group_size": packing.group, "bits": packing.bits, "mode": "affine", "quant_method": "bitnet",
        "linear_class": "autobitlinear", "quantization_mode": "offline",
    });
    checkpoint.set("quantization", quantization.clone()).set("quantization_config", quantization);
    let values = put(&mut checkpoint, "model.embed_tokens", packing, 7);
    (checkpoint, values)
}

fn values(table: &Dense) -> Vec<f32> {
    let mut values = vec![0.0; ROWS * K];
    values.chunks_exact_mut(K).enumerate().for_each(|(row, out)| table.read_row(row, out));
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn embedding(model: &Model) -> &Dense {
    let Matrix::Dense(table) = &model.embedding else { panic!("a table that is not ternary") };
    table
}

#[test]
fn tables_of_bitnet_are_what_their_codes_stand_for() {
    for codes in [3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            for scales in [Dtype::F16, Dtype::BF16, Dtype::F32] {
                let packing = Packing { bits: codes, group, scales };
                let (checkpoint, expected) = converted(packing);
                let model = checkpoint.load().unwrap_or_else(|e| panic!("{packing:?}: {e}"));
                let table = embedding(&model);
                assert_eq!(bits(&values(table)), bits(&expected), "{packing:?}");
                // With scales of f32 the product of a code of 8 bits is rounded, and not the same after a shift.
                let kept = DType::I8Blocks { columns: 32, offsets: true };
                let wide = codes == 8 && scales == Dtype::F32;
                assert_eq!(table.dtype, if wide { DType::F32 } else { kept }, "{packing:?}");
                let report = &model.report[0];
                assert_eq!(report.stored, format!("MLX {codes}-bit"));
                assert_eq!(report.found, if wide { Found::Floats } else { Found::Coded(kept) });
                assert!(model.head.is_none());

                // All else is as without mlx-lm, and so are the logits with a table of those values.
                let mut plain = bitnet();
                let table = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
                plain.tensors.insert("model.embed_tokens.weight".into(), (Dtype::F32, vec![ROWS, K], table));
                let plain = plain.load().unwrap();
                assert_eq!(model.activations, plain.activations);
                for (layer, other) in model.layers.iter().zip(&plain.layers) {
                    for (a, b) in layer.projections().into_iter().zip(other.projections()) {
                        assert_eq!((read(a).unwrap(), scale(a)), (read(b).unwrap(), scale(b)));
                    }
                }
                let logits = |model: &Model| bits(&reference::logits(model, &[3, 1, 4, 1, 5]).unwrap());
                assert_eq!(logits(&model), logits(&plain), "{packing:?}");
            }
        }
    }
}

/// A table beside matrices that mlx-lm packed in 2 bits, each with a packing of its own, and a head of other codes.
#[test]
fn tables_beside_packs_of_two_bits() {
    let mut checkpoint = crate::mlx::packed_fixture();
    checkpoint.unset("quantization_config");
    checkpoint.set("vocab_size", json!(ROWS));
    let module = |bits: u64, group: u64| json!({"bits": bits, "group_size": group});
    checkpoint.config["quantization"]["model.embed_tokens"] = module(6, 64);
    checkpoint.config["quantization"]["lm_head"] = module(8, 32);
    let table =
        put(&mut checkpoint, "model.embed_tokens", Packing { bits: 6, group: 64, scales: Dtype::F16 }, 11);
    let head = put(&mut checkpoint, "lm_head", Packing { bits: 8, group: 32, scales: Dtype::F16 }, 12);
    let model = checkpoint.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(bits(&values(embedding(&model))), bits(&table));
    let Some(Matrix::Dense(own)) = &model.head else { panic!("a head that is not ternary") };
    assert_eq!(
        (bits(&values(own)), own.dtype),
        (bits(&head), DType::I8Blocks { columns: 32, offsets: true })
    );
    assert!(model.layers[0].down.matrix.ternary().is_some());

    // A tied head that is there again is no other; one that differs in a bias is.
    checkpoint.set("tie_word_embeddings", json!(true));
    checkpoint.config["quantization"]["lm_head"] = module(6, 64);
    put(&mut checkpoint, "lm_head", Packing { bits: 6, group: 64, scales: Dtype::F16 }, 11);
    assert!(checkpoint.load().unwrap().head.is_none());
    checkpoint.tensors.get_mut("lm_head.biases").unwrap().2[5] ^= 1;
    assert!(checkpoint.load().unwrap().head.is_some());
}

#[test]
fn an_offset_that_a_shift_would_round_makes_floats() {
    let (mut checkpoint, mut expected) = converted(Packing { bits: 8, group: 32, scales: Dtype::BF16 });
    // 2^-40 beside 128 times 1.
    checkpoint.tensors.get_mut("model.embed_tokens.scales").unwrap().2[..2]
        .copy_from_slice(&bf16::from_f32(1.0).to_le_bytes());
    let bias = 2f32.powi(-40);
    checkpoint.tensors.get_mut("model.embed_tokens.biases").unwrap().2[..2]
        .copy_from_slice(&bf16::from_f32(bias).to_le_bytes());
    let codes = checkpoint.tensors["model.embed_tokens.weight"].2[..32].to_vec();
    expected.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(code) + bias);
    expected[0] = bias;
    checkpoint.tensors.get_mut("model.embed_tokens.weight").unwrap().2[0] = 0;
    let model = checkpoint.load().unwrap();
    assert_eq!(embedding(&model).dtype, DType::F32);
    assert_eq!(bits(&values(embedding(&model))), bits(&expected));
}

#[test]
fn keys_of_both_may_stand_apart() {
    let apart = |first: Value, second: Value| {
        let (mut checkpoint, _) = converted(USUAL);
        checkpoint.set("quantization", first).set("quantization_config", second);
        checkpoint
    };
    let packing = json!({"group_size": 64, "bits": 4});
    let bitnet =
        json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"});
    let (whole, _) = converted(USUAL);
    let expected = whole.load().unwrap().activations;
    for (first, second) in [(packing.clone(), bitnet.clone()), (bitnet.clone(), packing.clone())] {
        assert_eq!(apart(first, second).load().unwrap().activations, expected);
    }
    let other = json!({"group_size": 64, "bits": 4, "quant_method": "awq"});
    let both = whole.config["quantization"].clone();
    says(
        &apart(both, other.clone()).error(),
        &["[3]", "quantization.quant_method and quantization_config.quant_method differ"],
    );
    says(&apart(other.clone(), other).error(), &["[4]", "\"awq\" is not supported"]);
}

#[test]
fn what_is_no_such_table_is_refused_by_name() {
    const TABLE: &str = "model.embed_tokens.weight";
    let refused = |bend: &dyn Fn(&mut Checkpoint), words: &[&str]| {
        let (mut checkpoint, _) = converted(USUAL);
        checkpoint.unset("quantization_config");
        bend(&mut checkpoint);
        says(&checkpoint.error(), words);
    };
    let config = |key: &'static str, value: Value| {
        move |checkpoint: &mut Checkpoint| checkpoint.config["quantization"][key] = value.clone()
    };
    refused(&config("bits", json!(7)), &["[4]", TABLE, "7 bits"]);
    refused(&config("bits", json!(260)), &["[4]", TABLE, "260 bits"]);
    refused(&config("bits", json!(8)), &["[3]", "model.embed_tokens.scales", "has shape"]);
    refused(&config("bits", json!(3)), &["[3]", TABLE, "has shape", "groups of 64 codes of 3 bits"]);
    refused(&config("group_size", json!(16)), &["[4]", TABLE, "groups of 16"]);
    refused(&config("group_size", json!(32)), &["[3]", "scales", "has shape"]);
    refused(&|c| drop(c.tensors.remove("model.embed_tokens.biases")), &["[3]", "no weight and biases"]);
    // A linear may not be of such codes, nor any other module.
    for module in ["model.layers.0.mlp.up_proj", "model.norm"] {
        refused(
            &|checkpoint| {
                put(checkpoint, module, USUAL, 3);
            },
            &["[4]", module, "is packed in 4 bits", "embeddings and heads"],
        );
    }
    let (mut checkpoint, _) = converted(USUAL);
    // Row 2, its third group.
    let nan = bf16::NAN.to_le_bytes();
    checkpoint.tensors.get_mut("model.embed_tokens.scales").unwrap().2[2 * (2 * 4 + 2)..][..2]
        .copy_from_slice(&nan);
    says(&checkpoint.error(), &["[3]", TABLE, "holds NaN at row 2, column 128"]);
}
