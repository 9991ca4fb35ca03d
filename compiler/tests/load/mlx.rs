//! Checkpoints that mlx-lm wrote: codes of 2 bits or 1 with a scale and a bias for each group of columns.

use crate::checkpoint::{Checkpoint, Stored, refusal, says};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tritc::load::{LoadOptions, load};
use tritc::model::{Attention, Matrix, Mixer, Model, Ternary};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// How the test packs.
#[derive(Clone, Copy)]
struct Packing {
    group: usize,
    scales: Dtype,
    /// Turns scales, biases and codes the other way round.
    negative: bool,
}

const USUAL: Packing = Packing { group: 128, scales: Dtype::F16, negative: false };
const Q: &str = "model.layers.0.self_attn.q_proj";

/// Packs ternary floats `[rows, k]`: codes, scales and biases.
fn packed(values: &[f32], k: usize, packing: Packing) -> [Vec<u8>; 3] {
    let (mut words, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for group in values.chunks(packing.group) {
        let mut scale = group.iter().fold(0f32, |most, x| most.max(x.abs()));
        if packing.negative {
            scale = -scale;
        }
        let float = |x: f32| match packing.scales {
            Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
            _ => x.to_le_bytes().to_vec(),
        };
        scales.extend(float(scale));
        biases.extend(float(-scale));
        for word in group.chunks(16) {
            // Groups of zeros have a scale of zero, and any codes then.
            let code = |x: f32| if scale == 0.0 { 2 } else { (x / scale + 1.0).round() as u32 };
            words.extend(
                word.iter().enumerate().fold(0u32, |w, (i, &x)| w | code(x) << (2 * i)).to_le_bytes(),
            );
        }
    }
    assert_eq!(words.len() * 4, values.len() / k * k);
    [words, scales, biases]
}

/// The fixture `qwen3-g128`, whose matrices are all ternary, as mlx-lm packs it.
fn pack(packing: Packing, prefix: &str) -> Checkpoint {
    let dir = fixture("qwen3-g128");
    let mut config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    let quantization = json!({"group_size": packing.group, "bits": 2, "mode": "affine"});
    config["quantization"] = quantization.clone();
    config["quantization_config"] = quantization;
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let (name, shape) = (format!("{prefix}{name}"), view.shape().to_vec());
        let [rows, k] = shape[..] else {
            tensors.insert(name, (view.dtype(), shape, view.data().to_vec()));
            continue;
        };
        let values: Vec<f32> = view
            .data()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&b| if view.dtype() == Dtype::F16 { f16::from_le_bytes(b).to_f32() } else { panic!() })
            .collect();
        let [words, scales, biases] = packed(&values, k, packing);
        let module = name.strip_suffix(".weight").unwrap().to_owned();
        let groups = vec![rows, k / packing.group];
        tensors.insert(format!("{module}.scales"), (packing.scales, groups.clone(), scales));
        tensors.insert(format!("{module}.biases"), (packing.scales, groups, biases));
        tensors.insert(name, (Dtype::U32, vec![rows, k / 16], words));
    }
    Checkpoint { config, tensors, files: BTreeMap::new() }
}

/// The same in groups of 128, for other tests.
pub fn packed_fixture() -> Checkpoint {
    pack(USUAL, "")
}

/// Trits times scales of all matrices, by name.
fn weights(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let tables = [Some(&model.embedding), model.head.as_ref()].into_iter().flatten();
    let matrices = tables.chain(model.layers.iter().flat_map(|l| l.projections()).map(|p| &p.matrix));
    matrices
        .map(|matrix: &Matrix| {
            let Ternary { name, rows, k, .. } = matrix.ternary().unwrap();
            let (mut trits, mut factors, mut all) = (vec![0; *k], vec![0.0; k / 32], Vec::new());
            for row in 0..*rows {
                let ternary = matrix.ternary().unwrap();
                ternary.trits.read_row(row, &mut trits).unwrap();
                ternary.factors(row, 32, &mut factors).unwrap();
                all.extend(trits.iter().enumerate().map(|(at, &t)| f32::from(t) * factors[at / 32]));
            }
            (name.trim_start_matches("language_model.").to_owned(), all)
        })
        .collect()
}

#[test]
fn packs_hold_what_the_floats_do() {
    let floats = load(&fixture("qwen3-g128"), &LoadOptions::default()).unwrap();
    let expected = weights(&floats);
    let cases = [
        (USUAL, ""),
        (Packing { group: 64, ..USUAL }, ""),
        (Packing { group: 32, ..USUAL }, ""),
        (Packing { scales: Dtype::F32, ..USUAL }, ""),
        (Packing { negative: true, ..USUAL }, ""),
        (USUAL, "language_model."),
    ];
    for (packing, prefix) in cases {
        let mut checkpoint = pack(packing, prefix);
        if !prefix.is_empty() {
            checkpoint.floats("vision_tower.patch_embed.proj.weight", &[2], [1.0, 2.0]);
        }
        let model = checkpoint.load().unwrap_or_else(|e| panic!("{e}"));
        assert!(weights(&model) == expected, "groups of {}", packing.group);
        // Scales are found as coarse as in floats, so that bundles are the same.
        let scales = |model: &Model| model.layers[1].down.matrix.ternary().unwrap().scales;
        assert_eq!(scales(&model), scales(&floats));
        assert_eq!(model.final_norm.1, floats.final_norm.1);
        let warnings = crate::warned(&model.warnings);
        assert!(!warnings.contains("config.json:"), "{warnings}");
    }
}

/// A matrix of signs in codes of 1 bit, in a model whose other matrices have 2.
fn with_signs(negative: bool) -> (Checkpoint, Vec<f32>) {
    let (rows, k, groups) = (256, 256, 2);
    let mut checkpoint = pack(USUAL, "");
    checkpoint.unset("quantization_config");
    checkpoint.config["quantization"][Q] = json!({"bits": 1, "group_size": 128});
    let word = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) ^ (i as u32) << 7;
    let scale =
        |group: usize| f16::from_f32((1 + group % 37) as f32 / 64.0 * if negative { -1.0 } else { 1.0 });
    let half = |group: usize| f16::from_f32(scale(group).to_f32() / -2.0);
    let bytes =
        |float: &dyn Fn(usize) -> f16| (0..rows * groups).flat_map(|g| float(g).to_le_bytes()).collect();
    let words = (0..rows * k / 32).flat_map(|i| word(i).to_le_bytes()).collect();
    let mut put = |part: &str, dtype, columns, bytes| {
        checkpoint.tensors.insert(format!("{Q}.{part}"), (dtype, vec![rows, columns], bytes));
    };
    put("weight", Dtype::U32, k / 32, words);
    put("scales", Dtype::F16, groups, bytes(&scale));
    put("biases", Dtype::F16, groups, bytes(&half));
    let weight = |i: usize| {
        let code = (word(i / 32) >> (i % 32) & 1) as f32;
        scale(i / 128).to_f32() * code + half(i / 128).to_f32()
    };
    (checkpoint, (0..rows * k).map(weight).collect())
}

#[test]
fn codes_of_one_bit_are_signs() {
    for negative in [false, true] {
        let (checkpoint, expected) = with_signs(negative);
        let model = checkpoint.load().unwrap_or_else(|e| panic!("{e}"));
        assert!(weights(&model)[&format!("{Q}.weight")] == expected);
        let q = model.layers[0].attention().unwrap().q.matrix.ternary().unwrap();
        assert!(q.is_signs() && q.trits.is_signs());
        assert!(!model.layers[0].down.matrix.ternary().unwrap().is_signs());
    }
    let (mut checkpoint, _) = with_signs(false);
    bend(&mut checkpoint, &format!("{Q}.biases"), 2 * (2 * 2 + 1), &f16::from_f32(-1.5).to_le_bytes());
    says(
        &checkpoint.error(),
        &["[3]", Q, "bias -1.5 at row 2, columns 128 to 255", "half the negative scale"],
    );
    // A scale of zero makes zeros of its group, which signs may be anything for.
    let (mut checkpoint, mut expected) = with_signs(false);
    for part in ["scales", "biases"] {
        bend(&mut checkpoint, &format!("{Q}.{part}"), 2 * 5, &[0; 2]);
    }
    expected[5 * 128..6 * 128].fill(0.0);
    let model = checkpoint.load().unwrap();
    assert!(weights(&model)[&format!("{Q}.weight")] == expected);
    let q = model.layers[0].attention().unwrap().q.matrix.ternary().unwrap();
    assert!(q.is_signs() && !q.trits.is_signs());
}

#[test]
fn packs_in_shards_are_found_by_their_index() {
    let (dir, _) = pack(USUAL, "").write_shards();
    let model = load(dir.path(), &LoadOptions::default()).unwrap();
    let floats = load(&fixture("qwen3-g128"), &LoadOptions::default()).unwrap();
    assert!(weights(&model) == weights(&floats));
}

/// Writes two bytes at `at` of a tensor.
fn bend(checkpoint: &mut Checkpoint, name: &str, at: usize, bytes: &[u8]) {
    checkpoint.tensors.get_mut(name).unwrap().2[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn what_is_not_ternary_is_refused_by_its_place() {
    // Row 1, column 37 of rows of 256: byte 64 + 9, bits 2 and 3.
    let mut checkpoint = pack(USUAL, "");
    let byte = checkpoint.tensors[&format!("{Q}.weight")].2[64 + 9];
    bend(&mut checkpoint, &format!("{Q}.weight"), 64 + 9, &[byte | 0b1100]);
    let model = checkpoint.load().unwrap();
    let q = model.layers[0].attention().unwrap().q.matrix.ternary().unwrap();
    let mut row = vec![0; 256];
    q.trits.read_row(0, &mut row).unwrap();
    let error = q.trits.read_row(1, &mut row).unwrap_err().to_string();
    says(&error, &["model.safetensors", Q, "code 3 at row 1, column 37", "not ternary"]);

    // The second group of row 2.
    let mut checkpoint = pack(USUAL, "");
    bend(&mut checkpoint, &format!("{Q}.biases"), 2 * (2 * 2 + 1), &f16::from_f32(-1.5).to_le_bytes());
    says(&checkpoint.error(), &["[3]", Q, "bias -1.5 at row 2, columns 128 to 255", "not ternary"]);
    for scale in [f16::NAN, f16::INFINITY] {
        let mut checkpoint = pack(USUAL, "");
        bend(&mut checkpoint, &format!("{Q}.scales"), 0, &scale.to_le_bytes());
        bend(&mut checkpoint, &format!("{Q}.biases"), 0, &(-scale).to_le_bytes());
        says(&checkpoint.error(), &["[3]", Q, "at row 0, columns 0 to 127"]);
    }
}

#[test]
fn other_packings_are_refused_by_name() {
    let refused = |bend: &dyn Fn(&mut Checkpoint), words: &[&str]| {
        let mut checkpoint = pack(USUAL, "");
        checkpoint.unset("quantization_config");
        bend(&mut checkpoint);
        says(&checkpoint.error(), words);
    };
    let config = |key: &'static str, value: Value| {
        move |checkpoint: &mut Checkpoint| checkpoint.config["quantization"][key] = value.clone()
    };
    refused(&config("bits", json!(7)), &["[4]", ".weight", "7 bits", "GGUF"]);
    refused(&config("mode", json!("mxfp4")), &["[4]", "quantization.mode", "mxfp4", "affine"]);
    refused(&config("group_size", json!(96)), &["[4]", "groups of 96"]);
    refused(&config("group_size", json!("x")), &["[3]", "quantization.group_size", "\"x\""]);
    refused(&config("group_size", json!(64)), &["[3]", "has shape", "groups of 64"]);
    refused(&config(Q, json!(false)), &["[3]", Q, "is false, but the module is packed"]);
    refused(&config(Q, json!({"bits": 4, "group_size": 64})), &["[4]", Q, "4 bits"]);
    refused(&config(Q, json!({"bits": 2, "zero": 1})), &["[4]", "q_proj.zero", "not known"]);
    refused(&config("zero_point", json!(3)), &["[4]", "quantization.zero_point", "not known"]);
    let without = |name: &'static str| {
        move |checkpoint: &mut Checkpoint| {
            checkpoint.tensors.remove(&format!("{Q}.{name}"));
        }
    };
    refused(&without("biases"), &["[3]", Q, "no weight and biases beside it"]);
    refused(&without("weight"), &["[3]", Q, "no weight and biases beside it"]);
    refused(&without("scales"), &[Q]);
    refused(
        &|checkpoint| {
            let weight = checkpoint.tensors.get_mut(&format!("{Q}.weight")).unwrap();
            weight.0 = Dtype::F32;
        },
        &["[4]", Q, "is F32, but packed weights are U32"],
    );
    refused(
        &|checkpoint| checkpoint.tensors.retain(|name, _| !name.ends_with(".scales")),
        &["[3]", "config.json", "2 bits in groups of 128", "no tensor has scales"],
    );
    refused(
        &|checkpoint| {
            checkpoint.set("quantization_config", json!({"bits": 2, "group_size": 64}));
        },
        &["[3]", "quantization and quantization_config differ"],
    );
    // The second key alone counts too, unless another quantizer has it.
    let mut checkpoint = pack(USUAL, "");
    checkpoint.unset("quantization").load().unwrap();
    checkpoint.quantization("quant_method", json!("awq"));
    says(&checkpoint.error(), &["[4]", "awq"]);
    // A module may say the same again.
    let mut checkpoint = pack(USUAL, "");
    checkpoint.unset("quantization_config");
    checkpoint.config["quantization"][Q] = json!({"bits": 2, "group_size": 128});
    checkpoint.config["quantization"]["model.norm"] = json!(false);
    checkpoint.load().unwrap();
}

/// Every cut of the file is an error, and no bent number makes a panic.
#[test]
fn damage_is_an_error() {
    let dir = pack(USUAL, "").write();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for cut in [1, 9, 200, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(load(dir.path(), &LoadOptions::default()).is_err(), "{cut}");
    }
    // Bytes of the header and of the configuration.
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let config = fs::read(dir.path().join("config.json")).unwrap();
    for round in 0..400usize {
        let (mut bytes, mut text) = (whole.clone(), config.clone());
        match round % 2 {
            0 => bytes[round * 7919 % header] ^= 1 << (round % 7),
            _ => text[round * 7919 % config.len()] ^= 1 << (round % 7),
        }
        fs::write(&path, &bytes).unwrap();
        fs::write(dir.path().join("config.json"), &text).unwrap();
        match load(dir.path(), &LoadOptions::default()) {
            Ok(model) => drop(weights(&model)),
            Err(error) => assert!(matches!(crate::words::exit_code(&error), 3 | 4), "{error}"),
        }
    }
    for group in [0u64, 1, u64::MAX, 1 << 63] {
        let mut checkpoint = pack(USUAL, "");
        checkpoint.unset("quantization_config");
        checkpoint.config["quantization"]["group_size"] = json!(group);
        says(&checkpoint.error(), &["groups of"]);
    }
    for shape in [vec![256 * 16], vec![256, 16, 1], vec![128, 32], vec![1024, 4]] {
        let mut checkpoint = pack(USUAL, "");
        checkpoint.tensors.get_mut(&format!("{Q}.weight")).unwrap().1 = shape;
        says(&checkpoint.error(), &["[3]", Q, "shape"]);
    }
}

/// A hybrid as mlx-lm converts and packs it: a model with an image tower around it, norms with the one added, taps of the
/// convolution in the middle.
#[test]
fn a_pack_of_a_hybrid_is_the_model_in_it() {
    let path = fixture("qwen35-g128");
    let text: Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
    tensors.insert("vision_tower.blocks.0.norm1.weight".to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let values: Vec<f32> =
            view.data().as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
        let (shape, name) = (view.shape().to_vec(), format!("language_model.{name}"));
        if let &[rows, k] = shape.as_slice() {
            let [words, scales, biases] = packed(&values, k, USUAL);
            let module = name.strip_suffix(".weight").unwrap().to_owned();
            tensors.insert(format!("{module}.scales"), (Dtype::F16, vec![rows, k / 128], scales));
            tensors.insert(format!("{module}.biases"), (Dtype::F16, vec![rows, k / 128], biases));
            tensors.insert(name, (Dtype::U32, vec![rows, k / 16], words));
            continue;
        }
        let is_whole = name.ends_with("layernorm.weight")
            || name.ends_with("_norm.weight")
            || name.ends_with("model.norm.weight");
        let added = if is_whole { 1.0 } else { 0.0 };
        let shape = if let [channels, 1, taps] = shape[..] { vec![channels, taps, 1] } else { shape };
        let bytes = values.iter().flat_map(|x| (x + added).to_le_bytes()).collect();
        tensors.insert(name, (Dtype::F32, shape, bytes));
    }
    let config = json!({
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": text,
        "vision_config": {"depth": 27}, "image_token_id": 79, "vision_start_token_id": 78, "tie_word_embeddings": false,
        "quantization": {"bits": 2, "group_size": 128}, "quantization_config": {"bits": 2, "group_size": 128},
    });
    let model = Checkpoint { config, tensors, files: BTreeMap::new() }.load().unwrap();
    let original = load(&path.join("model.safetensors"), &LoadOptions::default()).unwrap();
    assert!(weights(&model) == weights(&original));
    assert_eq!(model.info.architecture, original.info.architecture);
    assert_eq!(model.hyperparameters, original.hyperparameters);
    assert_eq!(model.final_norm.1, original.final_norm.1);
    assert_eq!(model.text.stop, original.text.stop);
    for (ours, theirs) in model.layers.iter().zip(&original.layers) {
        assert_eq!(ours.input_norm.1, theirs.input_norm.1);
        match (&ours.mixer, &theirs.mixer) {
            (Mixer::DeltaNet(ours), Mixer::DeltaNet(theirs)) => {
                assert_eq!(ours.convolution.1, theirs.convolution.1);
                assert_eq!(
                    (&ours.rates.1, &ours.bias.1, &ours.norm.1),
                    (&theirs.rates.1, &theirs.bias.1, &theirs.norm.1)
                );
            }
            (Mixer::Attention(ours), Mixer::Attention(theirs)) => {
                let norms = |attention: &Attention| {
                    attention.head_norms.as_ref().map(|n| (n.q.1.clone(), n.k.1.clone()))
                };
                assert_eq!(norms(ours), norms(theirs));
            }
            _ => panic!("layers of other kinds"),
        }
    }
}

/// A pack of the rotated hybrid, bent.
#[test]
fn rotated_packs_are_refused_where_they_are_not_understood() {
    let read = |name: &str| fs::read(fixture("qwen35-hadamard-mlx").join(name)).unwrap();
    let bytes = read("model.safetensors");
    let config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    let views = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: BTreeMap<String, Stored> = views
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    let refused = |bend: &dyn Fn(&mut Checkpoint), words: &[&str]| {
        let mut checkpoint =
            Checkpoint { config: config.clone(), tensors: tensors.clone(), files: BTreeMap::new() };
        bend(&mut checkpoint);
        let options = LoadOptions { without_tokenizer: true, ..LoadOptions::default() };
        says(&refusal(load(checkpoint.write().path(), &options)), words);
    };
    const DOWN: &str = "language_model.model.layers.1.mlp.down_proj";
    refused(
        &|c| {
            c.set("schema_version", json!(3));
        },
        &["[4]", "schema_version is 3"],
    );
    refused(
        &|c| {
            c.unset("gdn_activation_layout");
        },
        &["[4]", "gdn_activation_layout is null"],
    );
    refused(
        &|c| {
            c.set("modules", json!("all"));
        },
        &["[3]", "modules: "],
    );
    let module = |at: usize, key: &'static str, value: Value| {
        move |c: &mut Checkpoint| c.config["modules"][at][key] = value.clone()
    };
    refused(&module(0, "embedding", json!(false)), &["[4]", "\"model.embed_tokens\"", "embedding is false"]);
    refused(&module(1, "embedding", json!(true)), &["[4]", "\"lm_head\"", "embedding is true"]);
    refused(&module(2, "block", json!(96)), &["[3]", "block is 96", "power of two"]);
    refused(&module(2, "block", json!(64)), &["[4]", "blocks of 128", "of 64"]);
    refused(&module(2, "seed", json!(1)), &["[3]", "modules: ", "seed"]);
    refused(&module(2, "dtype", json!("int8")), &["[4]", "dtype is \"int8\""]);
    refused(&module(2, "path", json!("lm_head")), &["[3]", "\"lm_head\" twice"]);
    refused(
        &module(2, "path", json!("model.layers.0.linear_attn.in_proj_a")),
        &["[4]", "in_proj_a", "not known"],
    );
    refused(
        &module(2, "path", json!("model.layers.9.mlp.up_proj")),
        &["[3]", "no packed tensor", "layers.9"],
    );
    refused(
        &|c| drop(c.config["modules"].as_array_mut().unwrap().remove(4)),
        &["[3]", "not listed in modules"],
    );
    refused(&|c| drop(c.tensors.remove(&format!("{DOWN}.signs"))), &["[3]", "no tensor", "down_proj.signs"]);
    let sign = |at: usize, value: f32| {
        move |c: &mut Checkpoint| bend(c, &format!("{DOWN}.signs"), 4 * at, &value.to_le_bytes())
    };
    refused(&sign(3, 0.5), &["[3]", "down_proj.signs", "holds 0.5 at 3", "1 or -1"]);
    let stored = &tensors[&format!("{DOWN}.signs")].2;
    let first = f32::from_le_bytes(stored[..4].try_into().unwrap());
    refused(&sign(0, -first), &["[4]", "down_proj.signs", "differs from", "same width 512"]);
    refused(
        &|c| c.tensors.get_mut(&format!("{DOWN}.signs")).unwrap().0 = Dtype::I32,
        &["[4]", "down_proj.signs", "I32", "expected F32"],
    );
}
