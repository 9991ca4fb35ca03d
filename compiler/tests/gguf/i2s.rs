//! I2_S: three layouts that no field tells apart. Trained models in each of them, and models that say nothing.

use crate::writer::{File, MATRICES, Q, f32, read, text, trits, u32};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};
use trit_format::plan::{DType, ScaleRule};
use tritc::load::{I2sLayout, LoadOptions, load, survey};
use tritc::model::{Matrix, Model, Scales};
use tritc::reference;

/// The model that is shipped, and the larger one where it is there.
fn trained() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shared = match std::env::var_os("TRIT_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => repository.parent().unwrap().join("shared"),
    };
    let large = shared.join("models/fables-30m");
    if !large.exists() {
        use std::io::Write;
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ = writeln!(std::io::stderr(), "NOT RUN: I2_S of fables-30m (there is no {})", large.display());
    }
    [repository.join("examples/models/fables-12m"), large].into_iter().filter(|path| path.exists()).collect()
}

/// The codes of a matrix and its scale, as programs write them: an implementation of its own, weight by weight.
fn i2s(trits: &[i8], k: usize, scale: f32, layout: I2sLayout) -> Vec<u8> {
    let mut bytes = vec![0u8; trits.len() / 4];
    for (at, trit) in trits.iter().enumerate() {
        let (byte, bits) = match layout {
            I2sLayout::X86 => (at / 128 * 32 + at % 32, at % 128 / 32),
            I2sLayout::Arm => (at / 64 * 16 + at % 16, at % 64 / 16),
            I2sLayout::FourRows => (at / k / 4 * k + at % k, at / k % 4),
        };
        bytes[byte] |= ((trit + 1) as u8) << (6 - 2 * bits);
    }
    bytes.extend(scale.to_le_bytes());
    bytes.resize(trits.len() / 4 + 32, 0);
    bytes
}

/// The model of the checkpoint at `path` as a GGUF file.
fn converted(path: &Path, model: &Model, layout: I2sLayout) -> File {
    let sizes = &model.hyperparameters;
    let mut file = File::empty();
    let name = "bitnet-b1.58";
    file.key("general.architecture", text(name));
    file.sizes(name, sizes);
    file.key(&format!("{name}.attention.layer_norm_rms_epsilon"), f32(model.rms_eps));
    let config = std::fs::read(path.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    file.key(&format!("{name}.rope.freq_base"), f32(config["rope_theta"].as_f64().unwrap() as f32));
    let Matrix::Dense(embedding) = &model.embedding else { panic!("a table of floats") };
    assert_eq!(embedding.dtype, DType::Bf16);
    let dimensions = [sizes.hidden_dim.into(), sizes.vocab_size.into()];
    file.tensor("token_embd.weight", &dimensions, 30, (*embedding.data).as_ref().to_vec());
    let bytes = std::fs::read(path.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut norm = |name: &str, stored: &str| {
        let tensor = tensors.tensor(&format!("model.{stored}.weight")).unwrap();
        assert_eq!(tensor.dtype(), Dtype::BF16);
        let widened = tensor.data().as_chunks::<2>().0.iter().flat_map(|&[low, high]| [0, 0, low, high]);
        file.tensor(name, &[tensor.shape()[0] as u64], 0, widened.collect());
    };
    norm("output_norm.weight", "norm");
    for index in 0..model.layers.len() {
        for (part, module) in [
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("attn_sub_norm", "self_attn.attn_sub_norm"),
            ("ffn_sub_norm", "mlp.ffn_sub_norm"),
        ] {
            norm(&format!("blk.{index}.{part}.weight"), &format!("layers.{index}.{module}"));
        }
    }
    for (index, layer) in model.layers.iter().enumerate() {
        for (projection, (part, ..)) in layer.projections().into_iter().zip(MATRICES) {
            let matrix = projection.matrix.ternary().unwrap();
            let Scales::Tensor { scale, rule: ScaleRule::Multiply } = matrix.scales else { panic!() };
            let bytes = i2s(&read(matrix).unwrap(), matrix.k, scale, layout);
            let dimensions = [matrix.k as u64, matrix.rows as u64];
            file.tensor(&format!("blk.{index}.{part}.weight"), &dimensions, 36, bytes);
        }
    }
    file
}

/// Each layout of each trained model is told, and gives the model that its checkpoint gives: trits, scales, logits.
#[test]
fn trained_models_tell_their_layout() {
    let paths = trained();
    assert!(!paths.is_empty());
    for path in paths {
        let model = load(&path, &LoadOptions::default()).unwrap();
        let ids: Vec<u32> = (0..12).map(|i| (i * 397 + 11) % model.hyperparameters.vocab_size).collect();
        let expected = reference::logits(&model, &ids).unwrap();
        for layout in I2sLayout::ALL {
            let file = converted(&path, &model, layout);
            let (_dir, gguf) = file.write();
            let survey = survey(&gguf, &LoadOptions::default());
            assert!(survey.refusal.is_none(), "{:?}", survey.refusal);
            let (_, said) = survey.facts.iter().find(|(name, _)| *name == "I2_S layout").unwrap();
            assert!(said.starts_with(&format!("{layout}, as its weights say")), "{said}");
            // As much as the module that decides says of its margin.
            let mut evidence = said
                .split(['(', ',', ')', ' '])
                .filter_map(|word| word.parse::<f64>().ok())
                .collect::<Vec<_>>();
            evidence.resize(3, 0.0);
            assert!(evidence[0] >= 0.45 && evidence[1] <= 0.036, "{}: {said}", path.display());

            let found = file.load().unwrap();
            assert_eq!(found.activations, model.activations);
            for (a, b) in found.layers.iter().zip(&model.layers) {
                for (a, b) in a.projections().into_iter().zip(b.projections()) {
                    let (a, b) = (a.matrix.ternary().unwrap(), b.matrix.ternary().unwrap());
                    assert!(
                        a.scales == b.scales && read(a).unwrap() == read(b).unwrap(),
                        "{layout}: {}",
                        b.name
                    );
                }
            }
            assert_eq!(
                (&found.ropes, found.rms_eps, found.activation),
                (&model.ropes, model.rms_eps, model.activation)
            );
            let logits = reference::logits(&found, &ids).unwrap();
            assert!(logits == expected, "{layout}: other logits");
        }
    }
}

/// A small model of random trits, all of whose matrices are I2_S.
fn random(layout: I2sLayout) -> File {
    let mut file = File::bitnet();
    for (part, rows, k) in MATRICES {
        let name = format!("blk.0.{part}.weight");
        let bytes = i2s(&trits(&name, rows * k), k, 0.75, layout);
        file.tensor(&name, &[k as u64, rows as u64], 36, bytes);
    }
    file
}

#[test]
fn random_weights_are_undecided_and_the_layout_can_be_said() {
    for layout in I2sLayout::ALL {
        let file = random(layout);
        file.refused(&["[4]", "I2_S", "do not tell", "correlations", "--i2s-layout: x86"]);
        let options = LoadOptions { i2s_layout: Some(layout), ..LoadOptions::default() };
        let model = file.load_with(&options).unwrap();
        for (projection, (part, rows, k)) in model.layers[0].projections().into_iter().zip(MATRICES) {
            let matrix = projection.matrix.ternary().unwrap();
            assert_eq!(read(matrix).unwrap(), trits(&format!("blk.0.{part}.weight"), rows * k), "{layout}");
            assert_eq!(matrix.scales, Scales::Tensor { scale: 0.75, rule: ScaleRule::Multiply });
        }
    }
}

/// A fourth layout, four successive weights to a byte, in which another program writes the same type.
#[test]
fn other_layouts_are_undecided() {
    for path in trained() {
        let model = load(&path, &LoadOptions::default()).unwrap();
        let mut file = converted(&path, &model, I2sLayout::X86);
        for (index, layer) in model.layers.iter().enumerate() {
            for (projection, (part, ..)) in layer.projections().into_iter().zip(MATRICES) {
                let trits = read(projection.matrix.ternary().unwrap()).unwrap();
                let four = |four: &[i8]| four.iter().fold(0u8, |byte, trit| byte << 2 | (trit + 1) as u8);
                let bytes = &mut file.at(&format!("blk.{index}.{part}.weight")).bytes;
                bytes.iter_mut().zip(trits.chunks(4)).for_each(|(byte, trits)| *byte = four(trits));
            }
        }
        file.refused(&["[4]", "I2_S", "do not tell"]);
    }
}

/// Undecided however large it is.
#[test]
fn large_random_matrices_are_undecided() {
    let mut file = File::bitnet();
    for (key, size) in [("embedding_length", 512), ("feed_forward_length", 2048)] {
        file.key(&format!("bitnet-b1.58.{key}"), u32(size));
    }
    file.key("bitnet-b1.58.rope.dimension_count", u32(256));
    file.floats("token_embd.weight", &[512, 16]);
    let shapes = [(512, 512), (256, 512), (256, 512), (512, 512), (2048, 512), (2048, 512), (512, 2048)];
    for ((part, ..), (rows, k)) in MATRICES.into_iter().zip(shapes) {
        let name = format!("blk.0.{part}.weight");
        let bytes = i2s(&trits(&name, rows * k), k, 0.5, I2sLayout::X86);
        file.tensor(&name, &[k as u64, rows as u64], 36, bytes);
    }
    file.refused(&["[4]", "I2_S", "do not tell"]);
}

#[test]
fn damaged_and_misfit_tensors_are_refused() {
    let chosen = |file: &File, layout| {
        let error = file.load_with(&LoadOptions { i2s_layout: Some(layout), ..LoadOptions::default() });
        match error {
            Ok(model) => Ok(model),
            Err(e) => Err(format!("[{}] {}", crate::words::exit_code(&e), crate::words::message(&e))),
        }
    };
    let refused = |file: &File, layout, words: &[&str]| {
        let error = chosen(file, layout).err().unwrap();
        words.iter().for_each(|word| assert!(error.contains(word), "{word:?} is not in: {error}"));
    };
    let x86 = random(I2sLayout::X86);
    refused(&File::bitnet(), I2sLayout::Arm, &["[2]", "--i2s-layout arm: ", "no weights of type I2_S"]);
    for scale in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
        let mut file = x86.clone();
        file.at(Q).bytes[1024..1028].copy_from_slice(&scale.to_le_bytes());
        refused(&file, I2sLayout::X86, &["[3]", Q, "the scale"]);
    }
    // Code 3 is found where rows are read.
    let mut file = x86.clone();
    file.at(Q).bytes[33] = 0b0100_1101;
    let model = chosen(&file, I2sLayout::X86).unwrap();
    let error = read(model.layers[0].projections()[0].matrix.ternary().unwrap()).unwrap_err().to_string();
    assert!(error.contains("illegal code 3 at row 3, column 1"), "{error}");
    // Six rows are no groups of four, and 6 * 64 weights are no blocks of 128.
    let mut file = x86.clone();
    file.tensor("blk.0.attn_k.weight", &[64, 6], 36, vec![0x55; 6 * 16 + 32]);
    refused(&file, I2sLayout::FourRows, &["[2]", "--i2s-layout 1x4", "blk.0.attn_k.weight", "[6, 64]"]);
    let mut file = x86.clone();
    file.tensor("blk.0.attn_k.weight", &[64, 5], 36, vec![0x55; 5 * 16 + 32]);
    refused(&file, I2sLayout::X86, &["[2]", "--i2s-layout x86", "[5, 64]"]);
    file.tensor("blk.0.attn_k.weight", &[3, 3], 36, vec![0x55; 64]);
    refused(&file, I2sLayout::X86, &["[3]", "blk.0.attn_k.weight", "four weights to a byte"]);
    let mut file = x86;
    let last = file.tensors.last_mut().unwrap();
    last.bytes.truncate(last.bytes.len() - 32);
    refused(&file, I2sLayout::X86, &["[3]", "ends at", "truncated"]);
}
