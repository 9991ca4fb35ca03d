//! What metadata says about the model, and which models are refused.

use crate::writer::{File, MATRICES, Q, Value, bool, f32, load_path, q2_0, read, ternary, text, trits, u32};
use half::f16;
use trit_format::plan::{Activation, ScaleRule};
use tritc::load::{ActivationChoice, LoadOptions, load};
use tritc::model::{Activations, Scales};

fn bent(bend: impl FnOnce(&mut File)) -> File {
    let mut file = File::bitnet();
    bend(&mut file);
    file
}

const PER_TOKEN: Activations = Activations::PerToken { floor: 1e-5 };

#[test]
fn bitnet_by_its_three_names() {
    for name in ["bitnet-b1.58", "bitnet-25", "bitnet"] {
        let model = File::model(name, true).load().unwrap();
        let activation = if name == "bitnet" { Activation::Silu } else { Activation::Relu2 };
        assert_eq!((model.activation, model.activations), (activation, PER_TOKEN), "{name}");
        assert_eq!(model.info.architecture, "BitNetForCausalLM");
        assert!(model.layers[0].attention().unwrap().sub_norm.is_some() && model.head.is_none());
        assert_eq!(model.rms_eps, 1e-5);
        assert_eq!(model.ropes[0].inv_freq.len(), 16);
        assert!(model.tokenizer.is_none());
    }
}

/// 2B-4T under the name that other models have: its sizes tell. Its tensors are not here, so it ends at the first.
#[test]
fn squared_relu_is_told_by_sizes() {
    let mut file = File::model("bitnet", true);
    file.key("bitnet.hidden_activation", text("relu2"));
    assert_eq!(file.load().unwrap().activation, Activation::Relu2);
    file.key("bitnet.hidden_activation", text("gelu"));
    file.refused(&["[4]", "bitnet.hidden_activation", "gelu"]);
    bent(|file| {
        file.key("bitnet-b1.58.hidden_activation", text("silu"));
    })
    .refused(&["[3]", "bitnet-b1.58.hidden_activation", "\"silu\"", "\"relu2\""]);
}

/// Rows of q and k stand interleaved in Llama files.
#[test]
fn llama_has_its_rows_in_another_order() {
    let mut file = File::model("llama", false);
    let original = trits(Q, 64 * 64);
    let row = |row: usize| &original[row * 64..][..64];
    // As the converter does: reshape(heads, 2, 16), swap the last two.
    let stored: Vec<i8> =
        (0..64).flat_map(|at| row(at / 32 * 32 + at % 32 / 2 + at % 2 * 16).to_vec()).collect();
    file.at(Q).bytes = q2_0(&stored, 0.75);
    let model = file.load().unwrap();
    assert_eq!(read(ternary(&model.layers[0].attention().unwrap().q)).unwrap(), original);
    // v stays as it is.
    assert_eq!(
        read(ternary(&model.layers[0].attention().unwrap().v)).unwrap(),
        trits("blk.0.attn_v.weight", 32 * 64)
    );
    assert_eq!((model.activation, model.activations), (Activation::Silu, Activations::Int8Groups));
    assert_eq!(model.info.architecture, "LlamaForCausalLM");
}

#[test]
fn models_named_bitnet_run_as_such() {
    let mut file = File::model("llama", false);
    file.key("general.name", text("Falcon3 7B Instruct 1.58bit"));
    let model = file.load().unwrap();
    assert_eq!(model.activations, PER_TOKEN);
    assert!(crate::warned(&model.warnings).contains("BitNet model by its name"), "{:?}", model.warnings);
    // A wish still counts.
    let (_dir, path) = file.write();
    let options = LoadOptions { activations: ActivationChoice::F32, ..Default::default() };
    assert_eq!(load(&path, &options).unwrap().activations, Activations::F32);
    // Not with scales that no BitNet model has.
    file.at(Q).bytes = [q2_0(&[1; 64], 0.5), q2_0(&[1; 63 * 64], 0.75)].concat();
    assert_eq!(file.load().unwrap().activations, Activations::Int8Groups);
}

#[test]
fn qwen3_normalizes_heads() {
    let mut file = File::model("qwen3", false);
    file.key("qwen3.attention.key_length", u32(32)).key("qwen3.attention.value_length", u32(32));
    for norm in ["attn_q_norm", "attn_k_norm"] {
        file.floats(&format!("blk.0.{norm}.weight"), &[32]);
    }
    let model = file.load().unwrap();
    assert!(model.layers[0].attention().unwrap().head_norms.is_some());
    assert_eq!(model.activations, Activations::Int8Groups);
    file.without_tensor("blk.0.attn_k_norm.weight");
    file.refused(&["[3]", "k_norm", "missing"]);
}

/// Weights of -1, 0 and 1 in floats, and a scale tensor beside each, as the first converter wrote them.
#[test]
fn scale_tensors() {
    let mut file = File::model("bitnet", true);
    for (part, rows, k) in MATRICES {
        let name = format!("blk.0.{part}.weight");
        let bytes =
            trits(&name, rows * k).iter().flat_map(|&t| f16::from_f32(t.into()).to_le_bytes()).collect();
        file.tensor(&name, &[k as u64, rows as u64], 1, bytes);
        file.tensor(&format!("blk.0.{part}.scale"), &[1], 0, 1.25f32.to_le_bytes().to_vec());
    }
    let scales = Scales::Tensor { scale: 1.25, rule: ScaleRule::Multiply };
    let model = file.load().unwrap();
    assert_eq!(ternary(&model.layers[0].attention().unwrap().q).scales, scales);
    assert_eq!(read(ternary(&model.layers[0].attention().unwrap().q)).unwrap(), trits(Q, 64 * 64));
    assert_eq!(model.activations, PER_TOKEN);
    // Blocks have a scale of their own, and both count.
    file.tensor(Q, &[64, 64], 42, q2_0(&trits(Q, 64 * 64), 0.5));
    assert_eq!(
        ternary(&file.load().unwrap().layers[0].attention().unwrap().q).scales,
        Scales::Tensor { scale: 0.625, rule: ScaleRule::Multiply }
    );
    file.at(Q).bytes = [q2_0(&[1; 64], 0.25), q2_0(&[1; 63 * 64], 0.5)].concat();
    file.refused(&["[3]", Q, "different scales and a scale tensor"]);
    file.tensor("blk.0.attn_q.scale", &[1], 0, f32::NAN.to_le_bytes().to_vec());
    file.refused(&["[3]", "blk.0.attn_q.scale", "NaN"]);
}

/// F16 weights that were multiplied with their scale, as llama.cpp's converter writes BitNet.
#[test]
fn ternary_floats() {
    let mut file = File::bitnet();
    for (part, rows, k) in MATRICES {
        let name = format!("blk.0.{part}.weight");
        let values = trits(&name, rows * k).into_iter().map(|t| f16::from_f32(0.0123 * f32::from(t)));
        file.tensor(&name, &[k as u64, rows as u64], 1, values.flat_map(f16::to_le_bytes).collect());
    }
    let model = file.load().unwrap();
    let scale = f16::from_f32(0.0123).to_f32();
    assert_eq!(ternary(&model.layers[0].down).scales, Scales::Tensor { scale, rule: ScaleRule::Multiply });
    assert_eq!(model.activations, PER_TOKEN);
    // Latent weights are not.
    file.at(Q).bytes[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
    assert!(file.error().starts_with("[3]"));
}

#[test]
fn rope_is_scaled() {
    let plain = File::bitnet().load().unwrap();
    // Llama 3's factors.
    let mut file = File::bitnet();
    let factors: Vec<f32> = (0..16).map(|i| if i < 8 { 1.0 } else { 8.0 }).collect();
    file.tensor("rope_freqs.weight", &[16], 0, factors.iter().flat_map(|x| x.to_le_bytes()).collect());
    let model = file.load().unwrap();
    for (i, (plain, found)) in plain.ropes[0].inv_freq.iter().zip(&model.ropes[0].inv_freq).enumerate() {
        assert_eq!(*found, plain / factors[i]);
    }
    file.tensor("rope_freqs.weight", &[8], 0, 1f32.to_le_bytes().repeat(8));
    file.refused(&["[3]", "rope_freqs.weight", "8 elements", "16 frequencies"]);
    file.tensor("rope_freqs.weight", &[16], 0, vec![0; 64]);
    file.refused(&["[3]", "rope_freqs.weight", "none below 1"]);

    let scaled = |kind: &str, factor: f32| {
        let mut file = File::bitnet();
        file.key("bitnet-b1.58.rope.scaling.type", text(kind));
        file.key("bitnet-b1.58.rope.scaling.factor", crate::writer::f32(factor));
        file
    };
    assert_eq!(scaled("linear", 1.0).load().unwrap().ropes, plain.ropes);
    let linear = scaled("linear", 4.0).load().unwrap();
    assert_eq!(linear.ropes[0].inv_freq[0], plain.ropes[0].inv_freq[0] / 4.0);
    let mut yarn = scaled("yarn", 4.0);
    yarn.key("bitnet-b1.58.rope.scaling.original_context_length", u32(32));
    assert!(yarn.load().unwrap().ropes[0].scaling > 1.0);
    yarn.key("bitnet-b1.58.rope.scaling.attn_factor", f32(2.0));
    yarn.refused(&["[4]", "rope.scaling.attn_factor", "is 2"]);
    scaled("longrope", 4.0).refused(&["[4]", "rope.scaling.type", "longrope", "yarn"]);
}

#[test]
fn architectures() {
    File::empty().refused(&["[3]", "general.architecture is missing"]);
    bent(|file| {
        file.key("general.architecture", text("gemma3"));
    })
    .refused(&["[4]", "gemma3", "bitnet-25"]);
    for (name, why) in [
        ("hunyuan-moe", "mixtures of experts"),
        ("maple", "mixtures of experts"),
        ("qwen3moe", "mixtures of experts"),
    ] {
        bent(|file| {
            file.key("general.architecture", text(name));
        })
        .refused(&["[4]", name, why]);
    }
    bent(|file| {
        file.key("general.architecture", u32(1));
    })
    .refused(&["[3]", "general.architecture is 1", "a string"]);
}

#[test]
fn sizes() {
    let key = |key: &str, value: Value| {
        bent(|file| {
            file.key(&format!("bitnet-b1.58.{key}"), value);
        })
    };
    bent(|file| {
        file.without_key("bitnet-b1.58.block_count");
    })
    .refused(&["[3]", "block_count is missing"]);
    key("block_count", text("1")).refused(&["[3]", "block_count is \"1\"", "an integer"]);
    key("block_count", u32(u32::MAX)).refused(&["[3]", "model.layers.1.", "missing"]);
    key("block_count", u32(0)).refused(&["[3]", "num_hidden_layers is 0"]);
    key("attention.head_count", u32(0)).refused(&["[3]", "attention.head_count is 0"]);
    key("attention.head_count", crate::writer::i32s(&[2]))
        .refused(&["[3]", "attention.head_count is an array"]);
    key("attention.head_count", u32(3)).refused(&["[3]", "attention.head_count is 3", "does not divide"]);
    key("rope.dimension_count", u32(16)).refused(&["[4]", "rope.dimension_count is 16", "32"]);
    key("vocab_size", u32(17)).refused(&["[3]", "vocab_size is 17", "16 rows"]);
    key("pooling_type", u32(2)).refused(&["[4]", "pooling_type is 2", "only 1", "and 3"]);
    assert!(key("pooling_type", u32(0)).load().is_ok());
    key("expert_count", u32(8)).refused(&["[4]", "expert_count is 8", "experts"]);
    key("attention.causal", bool(false)).refused(&["[4]", "attention.causal", "causal"]);
    key("attention.layer_norm_rms_epsilon", f32(f32::NAN)).refused(&["[3]", "epsilon is NaN", "finite"]);
    assert!(key("expert_count", u32(0)).load().is_ok());
}

/// What is not known may change the arithmetic.
#[test]
fn unknown_keys_and_tensors() {
    let hadamard = "prism.hadamard.block_size";
    let file = bent(|file| {
        file.key(hadamard, u32(1024)).key("bitnet-b1.58.logit_scale", f32(2.0));
    });
    file.refused(&["[4]", "bitnet-b1.58.logit_scale", "also unknown: prism.hadamard.block_size"]);
    assert!(!file.error().contains("--ignore-config-key"), "{}", file.error());
    let ignoring = |file: &File, keys: &[&str]| {
        let (_dir, path) = file.write();
        let ignore_config_keys = keys.iter().map(|key| key.to_string()).collect();
        load(&path, &LoadOptions { ignore_config_keys, ..Default::default() })
    };
    for keys in [&["bitnet-b1.58.logit_scale"][..], &[hadamard], &["bitnet-b1.58.rope.freq_base"]] {
        let error = ignoring(&file, keys).err().unwrap();
        assert!(crate::words::exit_code(&error) == 2 && error.to_string().contains(keys[0]), "{error}");
    }
    let note = bent(|file| {
        file.key("bitnet-b1.58.comment", text("x"));
    });
    note.refused(&["[4]", "--ignore-config-key bitnet-b1.58.comment"]);
    let model = ignoring(&note, &["bitnet-b1.58.comment", "nothing"]).unwrap();
    for warning in ["comment (\"x\") is ignored", "no nothing to ignore"] {
        assert!(crate::warned(&model.warnings).contains(warning), "{warning}: {:?}", model.warnings);
    }
    bent(|file| {
        file.key("bitnet-b1.58.context_length", Value(10, (1u64 << 40).to_le_bytes().to_vec()));
    })
    .refused(&["[3]", "bitnet-b1.58.context_length", "1099511627776"]);
    // What converters say about themselves changes nothing.
    let known = bent(|file| {
        file.key("quantize.imatrix.file", text("x")).key("general.tags", text("x"));
    });
    assert!(known.load().is_ok());

    bent(|file| {
        file.floats("blk.0.attn_q.bias", &[64]);
    })
    .refused(&["[3]", "blk.0.attn_q.bias", "biases"]);
    bent(|file| {
        file.floats("blk.0.extra.weight", &[64]);
    })
    .refused(&["[3]", "blk.0.extra.weight", "not understood"]);
    bent(|file| {
        file.without_tensor("token_embd.weight");
    })
    .refused(&["[3]", "token_embd.weight", "missing"]);
    bent(|file| {
        file.without_tensor(Q);
    })
    .refused(&["[3]", "self_attn.q_proj.weight", "missing"]);
}

#[test]
fn a_head_of_its_own() {
    let mut file = File::model("llama", false);
    assert!(file.load().unwrap().head.is_none());
    file.floats("output.weight", &[64, 16]);
    assert_eq!(file.load().unwrap().head.unwrap().shape(), [16, 64]);
    // Bonsai has ternary ones; BitNet models have none.
    file.tensor("output.weight", &[64, 16], 42, q2_0(&trits("output", 16 * 64), 0.5));
    let model = file.load().unwrap();
    assert!(model.head.unwrap().ternary().is_some());
    let mut file = File::bitnet();
    file.tensor("output.weight", &[64, 16], 42, q2_0(&trits("output", 16 * 64), 0.5));
    file.refused(&["[3]", "output.weight", "nor a head of floats"]);
}

#[test]
fn licence_name_and_digest() {
    let mut file = File::bitnet();
    file.key("general.license", text("mit"));
    let (_dir, path) = file.write();
    let model = load_path(&path).unwrap();
    assert_eq!((model.info.name.as_str(), model.info.license.as_deref()), ("model", Some("mit")));
    assert_eq!(model.info.sources.len(), 1);
    assert_eq!(
        (model.info.sources[0].file.as_str(), model.info.sources[0].len),
        ("model.gguf", file.bytes().len() as u64)
    );
}

/// MiniCPM's factors and LongRoPE's divisors.
#[test]
fn minicpm_has_factors() {
    let mut file = File::model("minicpm", false);
    file.refused(&["[3]", "minicpm.embedding_scale is missing"]);
    file.key("minicpm.embedding_scale", f32(12.0)).key("minicpm.residual_scale", f32(1.4));
    file.key("minicpm.logit_scale", f32(0.25));
    let model = file.load().unwrap();
    assert_eq!(model.info.architecture, "MiniCPMForCausalLM");
    // One layer, and hidden 64: the stream is kept divided by 1.4, and the head's input is times 4.
    assert_eq!(model.embedding_scale, (12.0f64 / 1.4) as f32);
    assert_eq!(model.final_norm.1[0], 0.5 * 4.0);
    let divisors = |factor: f32| factor.to_le_bytes().repeat(16);
    file.tensor("rope_factors_long.weight", &[16], 0, divisors(4.0));
    file.refused(&["[3]", "rope_factors_long.weight", "alone"]);
    file.tensor("rope_factors_short.weight", &[16], 0, divisors(2.0));
    file.key("minicpm.rope.scaling.type", text("longrope"));
    // Texts of the bundle's context are short ones.
    assert_eq!(file.load().unwrap().ropes[0].inv_freq[0], 0.5);
    file.key("minicpm.rope.scaling.type", text("yarn"));
    file.refused(&["[3]", "rope.scaling.type is \"yarn\"", "LongRoPE"]);
    file.key("minicpm.rope.scaling.type", text("longrope"));
    file.tensor("rope_factors_long.weight", &[16], 0, divisors(0.0));
    file.refused(&["[3]", "rope_factors_long.weight", "above zero"]);
    file.key("minicpm.residual_scale", f32(-1.0));
    file.refused(&["[3]", "rope_factors_long.weight"]);
}
