//! Where families differ: names of tensors, norms, factors, windows; linears that stay floats, heads that do not.

use crate::checkpoint::{Checkpoint, MATRICES, Q, Stored, noise, pack, read, says, scale, trits};
use safetensors::Dtype;
use serde_json::json;
use trit_format::plan::{Activation, DType, ScaleRule};
use tritc::model::{Activations, Found, Matrix};

const NORMS: [(&str, usize); 4] = [
    ("input_layernorm", 8),
    ("post_attention_layernorm", 8),
    ("pre_feedforward_layernorm", 8),
    ("post_feedforward_layernorm", 8),
];

impl Checkpoint {
    /// 1bitLLM: latent weights that nothing declares, BitNet's norms by other names.
    fn one_bit_llm() -> Checkpoint {
        let mut checkpoint = Checkpoint::online();
        checkpoint.unset("quantization_config").set("weight_bits", json!(1)).set("input_bits", json!(8));
        checkpoint.set("architectures", json!(["BitnetForCausalLM"])).set("model_type", json!("llama"));
        checkpoint.set("hidden_act", json!("silu"));
        for layer in 0..2 {
            for (theirs, name) in
                [("inner_attn_ln", "self_attn.attn_sub_norm"), ("ffn_layernorm", "mlp.ffn_sub_norm")]
            {
                let norm = format!("model.layers.{layer}.{name}.weight");
                let tensor = checkpoint.tensors.remove(&norm).unwrap();
                let module = name.split('.').next().unwrap();
                checkpoint.tensors.insert(format!("model.layers.{layer}.{module}.{theirs}.weight"), tensor);
            }
        }
        checkpoint
    }

    /// Qwen 3, latent: norms of heads.
    fn qwen3() -> Checkpoint {
        let mut checkpoint = Checkpoint::online();
        checkpoint.set("architectures", json!(["Qwen3ForCausalLM"])).set("model_type", json!("qwen3"));
        checkpoint.set("hidden_act", json!("silu")).set("head_dim", json!(4));
        checkpoint.tensors.retain(|name, _| !name.contains("sub_norm"));
        for layer in 0..2 {
            for (name, seed) in [("q_norm", 20), ("k_norm", 21)] {
                checkpoint.floats(
                    &format!("model.layers.{layer}.self_attn.{name}.weight"),
                    &[4],
                    noise(seed, 4),
                );
            }
        }
        checkpoint
    }

    /// Hunyuan, latent: norms of heads by other names.
    fn hunyuan() -> Checkpoint {
        let mut checkpoint = Checkpoint::qwen3();
        checkpoint.set("architectures", json!(["HunYuanDenseV1ForCausalLM"]));
        checkpoint.set("model_type", json!("hunyuan_v1_dense")).set("rope_theta", json!(10_000));
        checkpoint.set("rope_scaling", json!({ "type": "dynamic", "alpha": 16.0, "factor": 1 }));
        let renamed = |(name, tensor): (String, Stored)| {
            let name = name.replace("q_norm", "query_layernorm").replace("k_norm", "key_layernorm");
            (name, tensor)
        };
        checkpoint.tensors = checkpoint.tensors.into_iter().map(renamed).collect();
        checkpoint
    }

    /// Gemma 3, latent: norms on both sides, stored less one.
    fn gemma3() -> Checkpoint {
        let mut checkpoint = Checkpoint::qwen3();
        checkpoint.set("architectures", json!(["Gemma3ForCausalLM"])).set("model_type", json!("gemma3_text"));
        checkpoint.unset("hidden_act").unset("tie_word_embeddings").unset("rope_theta");
        checkpoint.set("sliding_window", json!(8)).set("sliding_window_pattern", json!(2));
        checkpoint.set("query_pre_attn_scalar", json!(16)).set("cache_implementation", json!("hybrid"));
        for layer in 0..2 {
            for (name, len) in NORMS {
                let values = vec![0.25; len];
                checkpoint.floats(&format!("model.layers.{layer}.{name}.weight"), &[len], values);
            }
        }
        checkpoint
    }

    /// MiniCPM, latent.
    fn minicpm() -> Checkpoint {
        let mut checkpoint = Checkpoint::online();
        checkpoint.set("architectures", json!(["MiniCPMForCausalLM"])).set("model_type", json!("minicpm"));
        checkpoint.set("hidden_act", json!("silu")).set("mup_denominator", json!(2));
        checkpoint.set("scale_emb", json!(12)).set("scale_depth", json!(1.5)).set("dim_model_base", json!(2));
        checkpoint.tensors.retain(|name, _| !name.contains("sub_norm"));
        checkpoint
    }
}

#[test]
fn the_layout_of_1bitllm_is_bitnets_by_other_names() {
    let model = Checkpoint::one_bit_llm().load().unwrap();
    let online = Checkpoint::online().load().unwrap();
    assert_eq!((model.info.architecture.as_str(), model.activation), ("BitnetForCausalLM", Activation::Silu));
    assert_eq!(model.activations, Activations::PerToken { floor: 1e-5 });
    for (layer, expected) in model.layers.iter().zip(&online.layers) {
        let weights = |norm: &Option<(String, Vec<f32>)>| norm.clone().unwrap().1;
        assert_eq!(
            weights(&layer.attention().unwrap().sub_norm),
            weights(&expected.attention().unwrap().sub_norm)
        );
        assert_eq!(weights(&layer.ffn_sub_norm), weights(&expected.ffn_sub_norm));
        for (ours, theirs) in layer.projections().into_iter().zip(expected.projections()) {
            assert_eq!((read(ours).unwrap(), scale(ours)), (read(theirs).unwrap(), scale(theirs)));
        }
    }
    for (key, value) in [("weight_bits", json!(2)), ("input_bits", json!(4))] {
        let mut checkpoint = Checkpoint::one_bit_llm();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &["[4]", key]);
    }
    // Said aloud it may be, but not otherwise.
    let mut declared = Checkpoint::one_bit_llm();
    declared.set("quantization_config", json!({ "quant_method": "bitnet" }));
    says(&declared.error(), &["[4]", "quantization_config of BitnetForCausalLM", "online"]);
    declared.quantization("linear_class", json!("autobitlinear"));
    declared.quantization("quantization_mode", json!("online")).load().unwrap();
}

#[test]
fn qwen3_normalizes_heads() {
    let mut checkpoint = Checkpoint::qwen3();
    checkpoint.set("sliding_window", json!(4096)).set("max_window_layers", json!(28));
    let model = checkpoint.load().unwrap();
    let norms = model.layers[1].attention().unwrap().head_norms.as_ref().unwrap();
    assert_eq!(
        [&norms.q.0, &norms.k.0],
        ["model.layers.1.self_attn.q_norm.weight", "model.layers.1.self_attn.k_norm.weight"]
    );
    assert_eq!([norms.q.1.len(), norms.k.1.len()], [4, 4]);
    assert!(
        model.layers[0].attention().unwrap().sub_norm.is_none()
            && model.layers[0].attention().unwrap().window.is_none()
    );

    checkpoint.set("use_sliding_window", json!(true));
    says(&checkpoint.error(), &["[4]", "sliding_window is 4096", "Qwen3ForCausalLM"]);
    let mut checkpoint = Checkpoint::qwen3();
    checkpoint.tensors.remove("model.layers.1.self_attn.k_norm.weight");
    says(&checkpoint.error(), &["[3]", "self_attn.k_norm.weight", "missing"]);
    // Its heads are 128 wide unless something else is said.
    let mut checkpoint = Checkpoint::qwen3();
    checkpoint.unset("head_dim");
    says(&checkpoint.error(), &["[3]", "q_proj.weight", "expected [256, 8]"]);
}

#[test]
fn hunyuan_normalizes_heads_after_rope() {
    let mut checkpoint = Checkpoint::hunyuan();
    // As published: these say nothing where there is one expert, and layers keep keys and values of their own.
    for (key, value) in [
        ("use_qk_norm", json!(true)),
        ("use_cla", json!(false)),
        ("cla_share_factor", json!(2)),
        ("norm_type", json!("hf_rms")),
        ("num_experts", json!(1)),
        ("moe_topk", json!(1)),
        ("org_vocab_size", json!(16)),
        ("eod_token_id", json!(2)),
    ] {
        checkpoint.set(key, value);
    }
    let model = checkpoint.load().unwrap();
    let norms = model.layers[1].attention().unwrap().head_norms.as_ref().unwrap();
    assert_eq!(
        [&norms.q.0, &norms.k.0],
        ["model.layers.1.self_attn.query_layernorm.weight", "model.layers.1.self_attn.key_layernorm.weight"]
    );
    assert!(norms.after_rope && model.head.is_none());
    assert!(
        !Checkpoint::qwen3().load().unwrap().layers[1]
            .attention()
            .unwrap()
            .head_norms
            .as_ref()
            .unwrap()
            .after_rope
    );
    // Heads are of 4: 1e4 * 16^2, whose root is 1600.
    assert_eq!(model.ropes[0].inv_freq, [1.0, 1.0 / 1600.0]);
    // Tencent's own code has another name for the size of heads.
    checkpoint.unset("head_dim").set("attention_head_dim", json!(4)).load().unwrap();
    checkpoint.set("head_dim", json!(8));
    says(&checkpoint.error(), &["[3]", "head_dim is 8", "attention_head_dim is 4"]);

    let mut checkpoint = Checkpoint::hunyuan();
    checkpoint.unset("rms_norm_eps");
    assert_eq!(checkpoint.load().unwrap().rms_eps, 1e-5);
    checkpoint.tensors.remove("model.layers.1.self_attn.key_layernorm.weight");
    says(&checkpoint.error(), &["[3]", "self_attn.key_layernorm.weight", "missing"]);
}

#[test]
fn hunyuans_other_models_are_refused() {
    for (key, value, why) in [
        ("use_qk_norm", json!(false), "use_qk_norm is false"),
        ("use_cla", json!(true), "use_cla is true"),
        ("use_mla", json!(true), "use_mla is true"),
        ("use_mixed_mlp_moe", json!(true), "use_mixed_mlp_moe is true"),
        ("num_experts", json!(16), "num_experts is 16"),
        ("position_embedding_xdrope", json!(true), "position_embedding_xdrope is true"),
        ("norm_type", json!("layer"), "norm_type \"layer\""),
        ("attention_bias", json!(true), "attention_bias is true"),
        ("mlp_bias", json!(true), "mlp_bias is true"),
        ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }), "rope_scaling.alpha"),
        ("rope_scaling", json!({ "type": "xdrope", "alpha": 1000.0 }), "\"xdrope\" is not supported"),
        ("architectures", json!(["HunYuanMoEV1ForCausalLM"]), "mixture of experts"),
    ] {
        let mut checkpoint = Checkpoint::hunyuan();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &["[4]", "config.json", why]);
    }
    // In other families alpha means nothing.
    let mut checkpoint = Checkpoint::qwen3();
    checkpoint.set("rope_scaling", json!({ "type": "dynamic", "alpha": 16.0, "factor": 1 }));
    says(&checkpoint.error(), &["[4]", "\"dynamic\" is not supported"]);
}

#[test]
fn gemma3_has_norms_on_both_sides_windows_and_two_ropes() {
    let model = Checkpoint::gemma3().load().unwrap();
    let layer = &model.layers[0];
    for norm in [&layer.input_norm, &layer.ffn_norm] {
        assert_eq!(norm.1, [1.25; 8], "{}", norm.0);
    }
    let names = [&layer.mixer_post_norm, &layer.ffn_post_norm].map(|norm| &norm.as_ref().unwrap().0);
    assert_eq!(
        names,
        [
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.post_feedforward_layernorm.weight"
        ]
    );
    assert_eq!(layer.ffn_norm.0, "model.layers.0.pre_feedforward_layernorm.weight");
    let half = |seed| noise(seed, 4).into_iter().map(|x| half::bf16::from_f32(x).to_f32() + 1.0);
    assert_eq!(layer.attention().unwrap().head_norms.as_ref().unwrap().q.1, half(20).collect::<Vec<f32>>());
    assert_eq!(
        [layer.attention().unwrap().window, model.layers[1].attention().unwrap().window],
        [Some(8), None]
    );
    assert_eq!([layer.attention().unwrap().rope, model.layers[1].attention().unwrap().rope], [1, 0]);
    assert_eq!(model.ropes[0].inv_freq, [1.0, 1e-3]);
    assert_eq!(model.ropes[1].inv_freq, [1.0, 1e-2]);
    assert_eq!((model.activation, model.attention_scale), (Activation::GeluTanh, 0.25));
    // sqrt(8) as bf16 has it, because the table is one of bf16.
    assert_eq!(model.embedding_scale, 2.828_125);
    assert!(model.head.is_none());

    let mut wide = Checkpoint::gemma3();
    let table: Vec<u8> = noise(1, 128).into_iter().flat_map(f32::to_le_bytes).collect();
    wide.tensors.insert("model.embed_tokens.weight".to_owned(), (Dtype::F32, vec![16, 8], table));
    assert_eq!(wide.load().unwrap().embedding_scale, 8f32.sqrt());
}

#[test]
fn gemma3s_settings_are_checked() {
    let mut listed = Checkpoint::gemma3();
    listed.set("layer_types", json!(["full_attention", "sliding_attention"]));
    let model = listed.load().unwrap();
    assert_eq!(
        [model.layers[0].attention().unwrap().window, model.layers[1].attention().unwrap().window],
        [None, Some(8)]
    );
    let cases = [
        ("layer_types", json!(["full_attention"]), "[3]", "lists 1 layers"),
        ("layer_types", json!(["full_attention", "chunked_attention"]), "[4]", "chunked_attention"),
        ("attn_logit_softcapping", json!(50.0), "[4]", "attn_logit_softcapping is 50.0"),
        ("final_logit_softcapping", json!(30.0), "[4]", "final_logit_softcapping is 30.0"),
        ("use_bidirectional_attention", json!(true), "[4]", "use_bidirectional_attention"),
        ("query_pre_attn_scalar", json!(0), "[3]", "query_pre_attn_scalar is 0"),
        ("sliding_window", json!(null), "[3]", "sliding_window must be above zero"),
        ("sliding_window_pattern", json!(0), "[3]", "sliding_window_pattern is 0"),
        ("hidden_activation", json!("gelu"), "[4]", "hidden_activation \"gelu\""),
    ];
    for (key, value, code, why) in cases {
        let mut checkpoint = Checkpoint::gemma3();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &[code, "config.json", why]);
    }
}

/// The stream is kept divided by what each layer's results are multiplied with, `c = 1.5 / sqrt(2)`.
#[test]
fn minicpms_factors_are_folded() {
    let model = Checkpoint::minicpm().load().unwrap();
    let c = 1.5 / 2f64.sqrt();
    assert_eq!(model.embedding_scale, (12.0 / c) as f32);
    assert_eq!(model.rms_eps, (f64::from(1e-5f32) / (c * c)) as f32);
    let plain = Checkpoint::online().load().unwrap();
    let quarter: Vec<f32> = plain.final_norm.1.iter().map(|w| w * 0.25).collect();
    assert_eq!(model.final_norm.1, quarter);
    for key in ["scale_emb", "scale_depth", "dim_model_base"] {
        let mut checkpoint = Checkpoint::minicpm();
        checkpoint.set(key, json!(0));
        says(&checkpoint.error(), &["[3]", &format!("{key} is 0")]);
        checkpoint.unset(key);
        says(&checkpoint.error(), &["[3]", &format!("has no {key}")]);
    }
    let mut checkpoint = Checkpoint::minicpm();
    checkpoint.set("sparse_config", json!({ "topk": 64 }));
    says(&checkpoint.error(), &["[4]", "sparse_config"]);
    // 32 in all published configurations, whatever their number of layers, and not read.
    checkpoint.unset("sparse_config").set("mup_denominator", json!(32)).load().unwrap();
    // Its own code takes LongRoPE's long factors for every text where the context is beyond the original one.
    let mut checkpoint = Checkpoint::minicpm();
    let scaling = json!({
        "type": "longrope", "short_factor": [1, 1], "long_factor": [2, 2], "original_max_position_embeddings": 32
    });
    checkpoint.set("rope_scaling", scaling);
    let model = checkpoint.load().unwrap();
    assert_eq!((model.hyperparameters.context_length, model.ropes[0].inv_freq[0]), (64, 0.5));
}

#[test]
fn linears_that_are_not_converted_stay_floats() {
    let mut checkpoint = Checkpoint::bitnet();
    let kept = json!(["lm_head", "model.layers.1.mlp", "v_proj"]);
    checkpoint.quantization("modules_to_not_convert", kept);
    // Declared so, they must be floats.
    says(&checkpoint.error(), &["[4]", "layers.0.self_attn.v_proj.weight", "U8", "expected BF16"]);
    let names: Vec<String> =
        MATRICES.iter().flat_map(|(name, ..)| [0, 1].map(|l| format!("{l}.{name}"))).collect();
    let is_kept = |name: &str| name.ends_with("v_proj") || name.starts_with("1.mlp");
    for name in names.iter().filter(|name| is_kept(name)) {
        let (_, rows, k) = MATRICES.into_iter().find(|(module, ..)| name.ends_with(module)).unwrap();
        let weight = format!("model.layers.{name}.weight");
        checkpoint.floats(&weight, &[rows, k], noise(5, rows * k));
        checkpoint.tensors.remove(&format!("{weight}_scale"));
    }
    let model = checkpoint.load().unwrap();
    for layer in &model.layers {
        for projection in layer.projections() {
            let name = projection.matrix.name().strip_prefix("model.layers.").unwrap();
            match &projection.matrix {
                Matrix::Dense(dense) => {
                    assert_eq!((dense.dtype, is_kept(&name.replace(".weight", ""))), (DType::Bf16, true))
                }
                Matrix::Ternary(_) => assert!(!is_kept(&name.replace(".weight", "")), "{name}"),
            }
        }
    }
    let found = |name: &str| model.report.iter().find(|r| r.name == name).unwrap().found;
    assert_eq!(found("model.layers.1.mlp.up_proj.weight"), Found::Floats);
    assert_eq!(found(Q), Found::PerTensor);
    // A scale beside one of them says that something is wrong.
    checkpoint.floats("model.layers.0.self_attn.v_proj.weight_scale", &[1], [1.0]);
    says(&checkpoint.error(), &["[3]", "v_proj.weight_scale", "modules_to_not_convert"]);
}

#[test]
fn a_head_that_is_converted_is_ternary() {
    let mut checkpoint = Checkpoint::llama();
    checkpoint.quantization("modules_to_not_convert", json!([]));
    says(&checkpoint.error(), &["[3]", "lm_head.weight", "BF16"]);
    let packed = pack(&trits("lm_head", 128), 16, 8);
    for name in ["lm_head", "model.lm_head"] {
        let mut checkpoint = checkpoint.clone();
        checkpoint.tensors.remove("lm_head.weight");
        checkpoint.tensors.insert(format!("{name}.weight"), (Dtype::U8, vec![4, 8], packed.clone()));
        checkpoint.floats(&format!("{name}.weight_scale"), &[1], [3.0]);
        let model = checkpoint.load().unwrap();
        let head = tritc::model::Projection { norm: None, matrix: model.head.unwrap() };
        assert_eq!((read(&head).unwrap(), scale(&head)), (trits("lm_head", 128), (3.0, ScaleRule::Divide)));
        checkpoint.quantization("use_rms_norm", json!(true));
        says(&checkpoint.error(), &["[4]", "leaves out \"lm_head\"", "use_rms_norm"]);
    }
}

#[test]
fn norms_inside_linears_are_read_by_either_name() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.quantization("use_rms_norm", json!(true)).quantization("rms_norm_eps", json!(1e-3));
    says(&checkpoint.error(), &["[3]", "q_proj.rms_norm.weight", "missing"]);
    for name in ["rms_norm", "norm"] {
        let mut checkpoint = checkpoint.clone();
        checkpoint.each_matrix(|checkpoint, weight, _, k| {
            let norm = weight.replace(".weight", &format!(".{name}.weight"));
            checkpoint.floats(&norm, &[k], vec![0.5; k]);
        });
        let model = checkpoint.load().unwrap();
        assert_eq!((model.rms_eps, model.linear_rms_eps), (1e-5, 1e-3));
        let down = &model.layers[1].down;
        assert_eq!(down.norm.as_ref().unwrap().1, [0.5; 12]);
        let (norm, len) = (format!("model.layers.1.mlp.up_proj.{name}.weight"), 8);
        checkpoint.floats(&norm, &[len + 1], vec![0.5; len + 1]);
        says(&checkpoint.error(), &["[3]", &norm, "expected [8]"]);
        checkpoint.quantization("use_rms_norm", json!(false));
        says(&checkpoint.error(), &["[3]", &format!(".{name}.weight"), "use_rms_norm"]);
    }
}
