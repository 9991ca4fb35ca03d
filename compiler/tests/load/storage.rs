//! Storage forms of ternary matrices and of the tensors around them.

use crate::checkpoint::{Checkpoint, MATRICES, Q, bf16s, f32s, read, says, scale, ternary, trits};
use safetensors::Dtype;
use trit_format::plan::{Activation, DType, ScaleRule};

#[test]
fn packed_bitnet_is_read_and_multiplies() {
    let model = Checkpoint::bitnet().load().unwrap();
    assert_eq!(model.layers.len(), 2);
    for (index, layer) in model.layers.iter().enumerate() {
        for (projection, (module, rows, k)) in layer.projections().into_iter().zip(MATRICES) {
            let matrix = ternary(projection);
            assert_eq!(matrix.name, format!("model.layers.{index}.{module}.weight"));
            assert_eq!((matrix.rows, matrix.k), (rows, k));
            assert_eq!(scale(projection), (1.25, ScaleRule::Multiply));
            assert_eq!(read(projection).unwrap(), trits(&matrix.name, rows * k));
        }
        assert_eq!(layer.attention().unwrap().sub_norm.as_ref().unwrap().1.len(), 8);
        assert_eq!(layer.ffn_sub_norm.as_ref().unwrap().1.len(), 12);
    }
    assert_eq!(model.activation, Activation::Relu2);
    assert!(model.head.is_none());
    let embedding = model.embedding.dense().unwrap();
    assert_eq!((embedding.dtype, &embedding.shape[..]), (DType::Bf16, &[16, 8][..]));
    assert_eq!((*embedding.data).as_ref(), Checkpoint::bitnet().tensors["model.embed_tokens.weight"].2);
}

#[test]
fn packed_llama_divides_and_keeps_its_head() {
    let model = Checkpoint::llama().load().unwrap();
    assert_eq!(scale(&model.layers[1].down).1, ScaleRule::Divide);
    assert_eq!(model.activation, Activation::Silu);
    assert!(
        model.layers[0].attention().unwrap().sub_norm.is_none() && model.layers[0].ffn_sub_norm.is_none()
    );
    assert_eq!(model.head.unwrap().name(), "lm_head.weight");
}

/// The golden vector of the packed layout, `[8, 2]`, here as the first columns of a matrix.
#[test]
fn the_golden_packing_is_read() {
    let golden = [[-1, 0], [1, 1], [0, -1], [1, 0], [-1, 1], [0, 0], [1, -1], [-1, -1]];
    let packed = [[132, 33], [26, 22]];
    let mut checkpoint = Checkpoint::bitnet();
    let bytes: Vec<u8> = packed.iter().flat_map(|row| [row[0], row[1], 85, 85, 85, 85, 85, 85]).collect();
    checkpoint.tensors.insert(Q.to_owned(), (Dtype::U8, vec![2, 8], bytes));
    let rows = read(&checkpoint.load().unwrap().layers[0].attention().unwrap().q).unwrap();
    for (row, golden) in rows.chunks_exact(8).zip(golden) {
        assert_eq!((&row[..2], &row[2..]), (&golden[..], &[0; 6][..]));
    }
}

#[test]
fn rows_that_do_not_fill_the_quarters_are_read() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("intermediate_size", 10.into());
    for layer in 0..2 {
        for (module, rows, k) in [("gate_proj", 10, 8), ("up_proj", 10, 8), ("down_proj", 8, 10)] {
            let name = format!("model.layers.{layer}.mlp.{module}.weight");
            let packed = crate::checkpoint::pack(&trits(&name, rows * k), rows, k);
            checkpoint.tensors.insert(name, (Dtype::U8, vec![rows.div_ceil(4), k], packed));
        }
        checkpoint.floats(&format!("model.layers.{layer}.mlp.ffn_sub_norm.weight"), &[10], [1.0; 10]);
    }
    let model = checkpoint.load().unwrap();
    let gate = &model.layers[1].gate;
    assert_eq!(read(gate).unwrap(), trits(gate.matrix.name(), 80));
}

/// `g = 1 / max(mean|W|, 1e-5)`, `t = clamp(round_half_even(W * g), -1, 1)`, and `g` divides, in every float type.
#[test]
fn latent_weights_are_quantized_by_their_absmean() {
    let values: Vec<f32> = (0..64).map(|i| [0.25, -1.75, 0.0, 2.0, -0.5, 0.5, -3.0, 0.0][i % 8]).collect();
    // mean|W| is 1, so halves round to even: to zero.
    let expected: Vec<i8> = (0..64).map(|i| [0, -1, 0, 1, 0, 0, -1, 0][i % 8]).collect();
    let f16s = values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
    let forms = [
        (Dtype::F32, f32s(values.iter().copied())),
        (Dtype::F16, f16s),
        (Dtype::BF16, bf16s(values.iter().copied())),
    ];
    for (dtype, bytes) in forms {
        let mut checkpoint = Checkpoint::online();
        checkpoint.tensors.insert(Q.to_owned(), (dtype, vec![8, 8], bytes));
        let q = checkpoint.load().unwrap().layers[0].attention().unwrap().q.clone();
        assert_eq!(scale(&q), (1.0, ScaleRule::Divide), "{dtype:?}");
        assert_eq!(read(&q).unwrap(), expected, "{dtype:?}");
    }
    let mut checkpoint = Checkpoint::online();
    checkpoint.floats(Q, &[8, 8], [0.0; 64]);
    let q = checkpoint.load().unwrap().layers[0].attention().unwrap().q.clone();
    assert_eq!(scale(&q).0, 1.0 / 1e-5);
    assert_eq!(read(&q).unwrap(), [0; 64]);
}

#[test]
fn offline_floats_are_accepted_only_where_they_are_trits() {
    let mut checkpoint = Checkpoint::bitnet();
    let mut values: Vec<f32> = trits(Q, 64).into_iter().map(f32::from).collect();
    checkpoint.floats(Q, &[8, 8], values.iter().copied());
    let q = checkpoint.load().unwrap().layers[0].attention().unwrap().q.clone();
    assert_eq!(scale(&q), (1.25, ScaleRule::Multiply));
    assert_eq!(read(&q).unwrap(), trits(Q, 64));

    values[42] = 0.5;
    checkpoint.floats(Q, &[8, 8], values);
    says(&checkpoint.error(), &["[3]", Q, "0.5 at row 5, column 2", "online"]);
    checkpoint.floats(Q, &[8, 8], [f32::NAN; 64]);
    says(&checkpoint.error(), &["[3]", Q, "NaN at row 0, column 0"]);
}

#[test]
fn scales_may_have_any_float_type_and_either_shape() {
    let name = format!("{Q}_scale");
    let forms = [
        (Dtype::F32, f32s([1.5])),
        (Dtype::F16, half::f16::from_f32(1.5).to_le_bytes().to_vec()),
        (Dtype::BF16, bf16s([1.5])),
        (Dtype::F64, 1.5f64.to_le_bytes().to_vec()),
    ];
    for (dtype, bytes) in forms {
        for shape in [vec![], vec![1]] {
            let mut checkpoint = Checkpoint::bitnet();
            checkpoint.tensors.insert(name.clone(), (dtype, shape, bytes.clone()));
            assert_eq!(
                scale(&checkpoint.load().unwrap().layers[0].attention().unwrap().q).0,
                1.5,
                "{dtype:?}"
            );
        }
    }
}

#[test]
fn scales_that_are_no_scales_are_refused() {
    let name = format!("{Q}_scale");
    for (value, shown) in [(f32::NAN, "NaN"), (0.0, "0"), (-2.0, "-2"), (f32::INFINITY, "inf")] {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.floats(&name, &[1], [value]);
        says(&checkpoint.error(), &["[3]", &name, &format!("is {shown};"), "finite and above zero"]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.floats(&name, &[8], [1.0; 8]);
    says(&checkpoint.error(), &["[3]", &name, "[8]", "one scale per matrix"]);
    checkpoint.tensors.insert(name.clone(), (Dtype::I32, vec![1], vec![1, 0, 0, 0]));
    says(&checkpoint.error(), &["[4]", &name, "I32", "float"]);
    checkpoint.tensors.remove(&name);
    says(&checkpoint.error(), &["[3]", &name, "has no"]);
}

#[test]
fn the_illegal_code_is_refused_with_its_place() {
    let mut checkpoint = Checkpoint::bitnet();
    // Row 7 is bits 6 and 7 of packed row 1.
    checkpoint.tensors.get_mut(Q).unwrap().2[8 + 3] |= 0xc0;
    let model = checkpoint.load().unwrap();
    let error = read(&model.layers[0].attention().unwrap().q).unwrap_err();
    assert_eq!(crate::words::exit_code(&error), 3);
    says(&error.to_string(), &["model.safetensors", Q, "illegal code 3 at row 7, column 3", "packed row 1"]);
}

#[test]
fn latent_weights_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut checkpoint = Checkpoint::online();
        let mut values = vec![0.5; 64];
        values[13] = value;
        checkpoint.floats(Q, &[8, 8], values);
        says(&checkpoint.error(), &["[3]", Q, "row 1, column 5", "finite"]);
    }
}

#[test]
fn norms_and_tables_that_are_not_finite_are_refused() {
    for (name, shape) in [("model.norm.weight", &[8][..]), ("model.embed_tokens.weight", &[16, 8])] {
        let mut checkpoint = Checkpoint::bitnet();
        let mut values = vec![1.0; shape.iter().product()];
        values[7] = f32::NAN;
        checkpoint.floats(name, shape, values);
        says(&checkpoint.error(), &["[3]", name, "NaN"]);
    }
}

#[test]
fn storage_that_contradicts_its_declaration_is_refused() {
    let mut latent_declared_packed = Checkpoint::online();
    latent_declared_packed.quantization("linear_class", "bitlinear".into());
    says(&latent_declared_packed.error(), &["[3]", Q, "BF16", "bitlinear", "online"]);

    let mut packed_declared_latent = Checkpoint::bitnet();
    packed_declared_latent.quantization("quantization_mode", "online".into());
    says(&packed_declared_latent.error(), &["[3]", Q, "packed U8", "offline"]);

    let mut latent_with_scale = Checkpoint::online();
    latent_with_scale.floats(&format!("{Q}_scale"), &[1], [1.0]);
    says(&latent_with_scale.error(), &["[3]", &format!("{Q}_scale"), "beside latent weights"]);
}

#[test]
fn wrong_types_and_shapes_are_refused_by_name() {
    let wrong = |name: &str, dtype, shape: &[usize], len: usize| {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.tensors.insert(name.to_owned(), (dtype, shape.to_vec(), vec![0; len]));
        checkpoint.error()
    };
    says(&wrong(Q, Dtype::I8, &[2, 8], 16), &["[4]", Q, "I8", "U8"]);
    says(&wrong(Q, Dtype::U8, &[8, 8], 64), &["[3]", Q, "[8, 8]", "expected [2, 8]", "8 rows of 8"]);
    says(&wrong(Q, Dtype::BF16, &[8, 4], 64), &["[3]", Q, "[8, 4]", "expected [8, 8]"]);
    let norm = "model.layers.1.input_layernorm.weight";
    says(&wrong(norm, Dtype::BF16, &[9], 18), &["[3]", norm, "[9]", "expected [8]", "hidden_size"]);
    says(&wrong(norm, Dtype::I32, &[8], 32), &["[4]", norm, "I32", "expected BF16"]);
    let table = "model.embed_tokens.weight";
    says(&wrong(table, Dtype::BF16, &[15, 8], 240), &["[3]", table, "expected [16, 8]", "vocab_size"]);
}

#[test]
fn missing_tensors_are_named() {
    for name in
        [Q, "model.norm.weight", "model.embed_tokens.weight", "model.layers.1.mlp.ffn_sub_norm.weight"]
    {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.tensors.remove(name);
        says(&checkpoint.error(), &["[3]", "model.safetensors", name, "missing"]);
    }
}

#[test]
fn tensors_nobody_asked_for_are_refused_unless_harmless() {
    let refused = [
        ("model.layers.0.self_attn.q_proj.bias", "biases"),
        ("model.layers.0.mlp.down_proj.rms_norm.weight", "use_rms_norm and rms_norm_eps"),
        ("model.layers.0.self_attn.q_norm.weight", "no part of BitNetForCausalLM"),
        ("model.layers.2.input_layernorm.weight", "no part of BitNetForCausalLM"),
    ];
    for (name, why) in refused {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.floats(name, &[8], [1.0; 8]);
        says(&checkpoint.error(), &["[3]", name, why]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.floats("model.layers.0.self_attn.rotary_emb.inv_freq", &[2], [1.0; 2]);
    checkpoint.load().unwrap();
}

#[test]
fn the_head_is_tied_as_transformers_ties_it() {
    let mut equal = Checkpoint::bitnet();
    let embedding = equal.tensors["model.embed_tokens.weight"].clone();
    equal.tensors.insert("lm_head.weight".to_owned(), embedding);
    let model = equal.load().unwrap();
    assert!(model.head.is_none());

    let mut differs = equal.clone();
    differs.tensors.get_mut("lm_head.weight").unwrap().2[0] ^= 1;
    let model = differs.load().unwrap();
    assert_eq!(model.head.unwrap().name(), "lm_head.weight");
    assert!(crate::warned(&model.warnings).contains("not tied"));

    let mut missing = Checkpoint::llama();
    missing.tensors.remove("lm_head.weight");
    says(&missing.error(), &["[3]", "lm_head.weight", "tie_word_embeddings"]);
    let mut untied_by_default = Checkpoint::bitnet();
    untied_by_default.unset("tie_word_embeddings");
    says(&untied_by_default.error(), &["[3]", "lm_head.weight", "tie_word_embeddings"]);
}
