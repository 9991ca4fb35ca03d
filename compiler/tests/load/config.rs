//! `config.json`: defaults, both spellings of RoPE, and refusals by name.

use crate::checkpoint::{Checkpoint, refusal, says, scale};
use serde_json::json;
use std::path::Path;
use trit_format::plan::ScaleRule;
use tritc::CompileError;
use tritc::load::{LoadOptions, load};
use tritc::model::{Activations, Model};

#[test]
fn absent_keys_take_the_defaults_of_their_class() {
    let mut checkpoint = Checkpoint::bitnet();
    for key in ["rms_norm_eps", "rope_theta", "hidden_act", "max_position_embeddings"] {
        checkpoint.unset(key);
    }
    let model = checkpoint.load().unwrap();
    assert_eq!((model.rms_eps, model.hyperparameters.context_length), (1e-5, 2048));
    assert_eq!(model.ropes[0].inv_freq, [1.0, 1.0 / 500_000f32.sqrt()]);
    assert_eq!(model.activations, Activations::PerToken { floor: 1e-5 });
    assert_eq!(model.ropes[0].scaling, 1.0);

    let mut checkpoint = Checkpoint::llama();
    for key in ["rms_norm_eps", "rope_theta", "hidden_act"] {
        checkpoint.unset(key);
    }
    let model = checkpoint.load().unwrap();
    assert_eq!(model.rms_eps, 1e-6);
    assert_eq!(model.ropes[0].inv_freq, [1.0, 0.01]);
}

#[test]
fn absent_kv_heads_differ_from_null_and_between_classes() {
    // BitNet's default is 5, which does not divide 2; null means one for each query head.
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.unset("num_key_value_heads");
    says(&checkpoint.error(), &["[3]", "num_key_value_heads 5"]);
    checkpoint.set("num_key_value_heads", json!(null));
    says(&checkpoint.error(), &["k_proj.weight", "expected [2, 8]"]);
    let mut checkpoint = Checkpoint::llama();
    checkpoint.unset("num_key_value_heads");
    says(&checkpoint.error(), &["k_proj.weight", "expected [2, 8]"]);
}

#[test]
fn required_keys_are_named() {
    for key in [
        "architectures",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    ] {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.unset(key);
        says(&checkpoint.error(), &["[3]", "config.json", &format!("has no {key}")]);
    }
}

#[test]
fn malformed_values_are_named() {
    let cases = [
        ("hidden_size", json!("8"), "hidden_size"),
        ("hidden_size", json!(-8), "hidden_size"),
        ("hidden_size", json!(1u64 << 40), "hidden_size"),
        ("num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("num_key_value_heads", json!(0), "num_key_value_heads is 0"),
        ("num_attention_heads", json!(3), "not a multiple of num_attention_heads 3"),
        ("head_dim", json!(3), "head_dim 3 is odd"),
        ("rms_norm_eps", json!(0.0), "rms_norm_eps"),
        ("rope_theta", json!(-1.0), "rope_theta"),
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
    ];
    for (key, value, expected) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &["[3]", "config.json", expected]);
    }
}

#[test]
fn sizes_no_kernel_sums_exactly_are_refused() {
    for key in ["hidden_size", "intermediate_size"] {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set(key, json!(40_000));
        says(&checkpoint.error(), &["[4]", key, "33000"]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("head_dim", json!(u32::MAX - 1));
    says(&checkpoint.error(), &["[4]", "num_attention_heads * head_dim"]);
    // A layer count from a hostile file ends at the first layer that is missing.
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("num_hidden_layers", json!(u32::MAX));
    says(&checkpoint.error(), &["[3]", "model.layers.2.", "missing"]);
}

#[test]
fn other_architectures_are_refused_with_what_is_supported() {
    let cases = [
        ("MistralForCausalLM", "is not supported; supported are"),
        ("FalconForCausalLM", "Falcon3 and Falcon-E are read"),
        ("Gemma3ForConditionalGeneration", "Gemma3ForCausalLM, is read"),
        ("Qwen3Model", "it has no head, as models for embeddings have none"),
        ("Gemma3TextModel", "only causal language models are read"),
        ("MiniCPM3ForCausalLM", "MLA"),
    ];
    for (architecture, why) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set("architectures", json!([architecture]));
        let supported = "BitNetForCausalLM, BitnetForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM, Qwen3_5ForCausalLM, \
                         Gemma3ForCausalLM, MiniCPMForCausalLM";
        says(&checkpoint.error(), &["[4]", architecture, why, supported]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("model_type", json!("llama"));
    says(&checkpoint.error(), &["[4]", "model_type", "llama"]);
    checkpoint.set("architectures", json!([]));
    says(&checkpoint.error(), &["[3]", "architectures"]);
}

#[test]
fn what_changes_the_arithmetic_is_refused_by_name() {
    let cases = [
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("is_encoder_decoder", json!(true)),
        ("sliding_window", json!(4096)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("partial_rotary_factor", json!(0.5)),
        ("hidden_act", json!("gelu")),
        ("logit_scale", json!(0.5)),
        ("prism.hadamard.group", json!(128)),
        ("prism.rotation", json!({ "kind": "hadamard" })),
        ("use_qk_norm", json!(false)),
    ];
    for (key, value) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &["[4]", "config.json", key]);
    }
}

#[test]
fn what_is_switched_off_or_harmless_is_accepted() {
    let mut checkpoint = Checkpoint::llama();
    checkpoint
        .set("attention_bias", json!(false))
        .set("mlp_bias", json!(false))
        .set("sliding_window", json!(null));
    checkpoint
        .set("layer_types", json!(["full_attention", "full_attention"]))
        .set("use_qk_norm", json!(null));
    checkpoint.set("pretraining_tp", json!(1)).set("auto_map", json!({ "AutoConfig": "x" }));
    checkpoint.set("partial_rotary_factor", json!(1)).set("rope_scaling", json!(null));
    checkpoint.quantization("modules_to_not_convert", json!(["lm_head", "model.embed_tokens"]));
    checkpoint.quantization("use_rms_norm", json!(false)).quantization("rms_norm_eps", json!(1e-6));
    checkpoint.load().unwrap();
    checkpoint.set("use_sliding_window", json!(false)).set("sliding_window", json!(4096));
    checkpoint.load().unwrap();
}

#[test]
fn quantization_settings_are_refused_by_name() {
    let cases = [
        ("quant_method", json!("gptq"), "gptq"),
        ("linear_class", json!("trilinear"), "trilinear"),
        ("quantization_mode", json!("sometimes"), "sometimes"),
        ("modules_to_not_convert", json!(["lm_head", "mlp.(up|gate)"]), "mlp.(up|gate)"),
        // Tied to an embedding that is not ternary.
        ("modules_to_not_convert", json!([]), "tie_word_embeddings"),
        ("group_size", json!(128), "it cannot be compiled"),
    ];
    for (key, value, why) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.quantization(key, value);
        says(&checkpoint.error(), &["[4]", &format!("quantization_config.{key}"), why]);
    }
}

#[test]
fn unknown_keys_can_be_ignored_by_name() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("prism.note", json!(1)).set("brand", json!("x"));
    says(
        &checkpoint.error(),
        &["unknown key brand = \"x\"", "--ignore-config-key brand", "also unknown: prism.note"],
    );
    checkpoint.quantization("made_by", json!("a quantizer"));
    let dir = checkpoint.write();
    let ignore = |keys: &[&str]| ignoring(dir.path(), keys);
    says(&refusal(ignore(&["brand", "prism.note"])), &["quantization_config.made_by"]);
    let model = ignore(&["brand", "prism.note", "quantization_config.made_by", "absent.key"]).unwrap();
    let warnings = crate::warned(&model.warnings);
    says(&warnings, &["brand (\"x\") is ignored", "made_by (\"a quantizer\") is ignored"]);
    says(&warnings, &["there is no absent.key"]);
}

fn ignoring(dir: &Path, keys: &[&str]) -> Result<Model, CompileError> {
    let ignore_config_keys = keys.iter().map(|k| k.to_string()).collect();
    load(dir, &LoadOptions { ignore_config_keys, ..Default::default() })
}

/// Following such a hint would make another model.
#[test]
fn no_refusal_of_a_key_that_changes_the_arithmetic_suggests_to_ignore_it() {
    let keys = [
        ("quantization_config.offline_scales", json!(true)),
        ("quantization_config.group_size", json!(128)),
        ("rope_scaling.mscale_all", json!(1.0)),
        ("attn_logit_softcapping", json!(50.0)),
        ("logit_scale", json!(0.5)),
        ("use_qk_norm", json!(true)),
        ("num_experts", json!(8)),
        ("prism.hadamard.group", json!(128)),
        ("embedding_multiplier", json!(12)),
        ("attention_window", json!(4096)),
        ("lm_head_bias", json!(true)),
    ];
    for (key, value) in keys {
        let mut checkpoint = Checkpoint::bitnet();
        // Beside one that may well be ignored.
        checkpoint.set("brand", json!("x"));
        match key.split_once('.') {
            Some(("prism", _)) | None => drop(checkpoint.set(key, value)),
            Some((object, key)) => {
                if object == "rope_scaling" {
                    checkpoint.set(object, json!({ "rope_type": "default" }));
                }
                checkpoint.config[object][key] = value;
            }
        }
        let error = checkpoint.error();
        says(&error, &["[4]", "config.json", key, "changes the arithmetic"]);
        assert!(!error.contains("--ignore-config-key"), "{error}");
    }
}

/// What is read decides what the model computes, and what is known to do so in other programs does too.
#[test]
fn keys_that_change_the_arithmetic_are_not_ignored_even_when_asked() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint
        .set("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }))
        .set("logit_scale", json!(0.5));
    checkpoint.set("use_qk_norm", json!(false));
    let dir = checkpoint.write();
    let not_ignored = |dir: &Path, key: &str| {
        let error = refusal(ignoring(dir, &[key]));
        says(&error, &["[2]", &format!("--ignore-config-key {key}"), "decides what the model computes"]);
    };
    for key in ["rope_scaling", "rope_scaling.type", "rope_theta", "hidden_act"] {
        not_ignored(dir.path(), key);
    }
    checkpoint.unset("rope_scaling");
    let dir = checkpoint.write();
    not_ignored(dir.path(), "quantization_config.linear_class");
    says(&refusal(ignoring(dir.path(), &["logit_scale", "use_qk_norm"])), &["[2]", "logit_scale"]);
    checkpoint.unset("logit_scale");
    // Switched off, it says nothing.
    assert!(ignoring(checkpoint.write().path(), &["use_qk_norm"]).is_ok());
}

/// `offline_quantization` and `online_quantization` are what the first BitNet b1.58 2B-4T said, two weeks long.
#[test]
fn the_first_revisions_keys_are_understood() {
    let first = |mut checkpoint: Checkpoint, keys: serde_json::Value| {
        let mut config = json!({ "quant_method": "bitnet" });
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        checkpoint.set("quantization_config", config);
        checkpoint
    };
    let offline = first(Checkpoint::bitnet(), json!({ "offline_quantization": true })).load().unwrap();
    let later = Checkpoint::bitnet().load().unwrap();
    assert_eq!(scale(&offline.layers[1].down), (1.25, ScaleRule::Multiply));
    for model in [&offline, &later] {
        assert_eq!(model.activations, Activations::PerToken { floor: 1e-5 });
    }
    let logits = |model: &Model| {
        let states = tritc::reference::forward(model, &[1, 5, 9], |_, _| {}).unwrap();
        tritc::reference::head(model, &states[16..]).unwrap()
    };
    assert_eq!(logits(&offline), logits(&later));
    let both = json!({ "offline_quantization": true, "linear_class": "autobitlinear", "quantization_mode": "offline" });
    assert_eq!(logits(&first(Checkpoint::bitnet(), both).load().unwrap()), logits(&later));
    let online = json!({ "offline_quantization": false, "online_quantization": true });
    let online = first(Checkpoint::online(), online).load().unwrap();
    assert_eq!(logits(&online), logits(&Checkpoint::online().load().unwrap()));
    assert_eq!(scale(&online.layers[0].attention().unwrap().q).1, ScaleRule::Divide);

    let cases = [
        (
            json!({ "offline_quantization": true, "linear_class": "bitlinear" }),
            "[3]",
            "linear_class is \"bitlinear\"",
        ),
        (json!({ "offline_quantization": true, "quantization_mode": "online" }), "[3]", "\"offline\""),
        (json!({ "offline_quantization": true, "online_quantization": true }), "[3]", "exclude each other"),
        (json!({ "offline_quantization": false }), "[4]", "by linear_class and quantization_mode"),
        (json!({ "offline_quantization": "yes" }), "[3]", "offline_quantization"),
    ];
    for (keys, code, why) in cases {
        let error = first(Checkpoint::bitnet(), keys).error();
        says(&error, &[code, "quantization_config.offline_quantization", why]);
        assert!(!error.contains("--ignore-config-key"), "{error}");
    }
    let dir = first(Checkpoint::bitnet(), json!({ "offline_quantization": true })).write();
    says(&refusal(ignoring(dir.path(), &["quantization_config.offline_quantization"])), &["[2]"]);
}

/// Beyond what a bundle can be for, the model is still read.
#[test]
fn contexts_beyond_any_bundles_are_cut() {
    for (key, longest) in [(1u32 << 24, false), ((1 << 24) + 1, true), (u32::MAX, true)] {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set("max_position_embeddings", json!(key));
        let model = checkpoint.load().unwrap();
        assert_eq!(model.hyperparameters.context_length, 1 << 24);
        let warnings = crate::warned(&model.warnings);
        assert_eq!(warnings.contains(&format!("max_position_embeddings is {key}")), longest, "{warnings}");
        let dir = checkpoint.write();
        let context = Some((1 << 24) + 1);
        let error = refusal(load(dir.path(), &LoadOptions { context, ..Default::default() }));
        says(&error, &["[2]", "--context 16777217"]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("max_position_embeddings", json!(1u64 << 40));
    says(&checkpoint.error(), &["[3]", "max_position_embeddings", "1099511627776"]);
}

#[test]
fn rope_is_read_in_both_spellings() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    });
    let mut old = Checkpoint::bitnet();
    old.set("head_dim", json!(4)).set("rope_theta", json!(500000.0)).set("rope_scaling", llama3.clone());
    let mut new = Checkpoint::bitnet();
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(500000.0);
    new.unset("rope_theta").set("rope_parameters", parameters.clone());
    let expected = old.load().unwrap().ropes[0].inv_freq.clone();
    assert_eq!(new.load().unwrap().ropes[0].inv_freq, expected);
    // 2 pi is below 64 / 4: kept. 2 pi * sqrt(500000) is beyond 64: divided by 8.
    assert_eq!(expected, [1.0, 1.0 / 500_000f32.sqrt() / 8.0]);

    let mut typed = Checkpoint::bitnet();
    typed.set("rope_scaling", json!({ "type": "linear", "factor": 4.0 }));
    assert_eq!(typed.load().unwrap().ropes[0].inv_freq, [0.25, 0.0025]);
    let mut plain = Checkpoint::bitnet();
    plain.set("rope_parameters", json!({ "rope_type": "default", "rope_theta": 10000.0 }));
    assert_eq!(plain.load().unwrap().ropes[0].inv_freq, [1.0, 0.01]);
    // Both spellings, saying the same.
    let mut both = old.clone();
    both.set("rope_parameters", parameters);
    assert_eq!(both.load().unwrap().ropes[0].inv_freq, expected);
    // As in transformers 5, the original context defaults to the context.
    let mut silent = old.clone();
    silent.config["rope_scaling"].as_object_mut().unwrap().remove("original_max_position_embeddings");
    assert_eq!(silent.load().unwrap().ropes[0].inv_freq, expected);
}

#[test]
fn rope_that_is_unknown_or_contradictory_is_refused_by_name() {
    let cases = [
        (json!({ "type": "dynamic", "factor": 4.0 }), "[4]", "\"dynamic\""),
        (json!({ "type": "linear", "factor": 4.0, "mscale": 1.0 }), "[4]", "rope_scaling.mscale"),
        (json!({ "full_attention": { "rope_type": "default" } }), "[4]", "rope_scaling.full_attention"),
        (json!({ "rope_type": "default", "factor": 4.0 }), "[4]", "rope_scaling.factor"),
        (json!({ "type": "linear", "rope_type": "llama3", "factor": 4.0 }), "[3]", "rope_scaling.type"),
        (json!({ "type": "linear" }), "[3]", "has no rope_scaling.factor"),
        (json!({ "type": "linear", "factor": 0.0 }), "[3]", "rope_scaling.factor is 0"),
        (json!({ "rope_theta": 5.0 }), "[3]", "rope_theta is 10000"),
        (
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0 }),
            "[3]",
            "high_freq_factor",
        ),
    ];
    for (scaling, code, why) in cases {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set("rope_scaling", scaling);
        says(&checkpoint.error(), &[code, "config.json", why]);
    }
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("rope_scaling", json!({ "type": "linear", "factor": 4.0 }));
    checkpoint.set("rope_parameters", json!({ "rope_type": "linear", "factor": 2.0 }));
    says(&checkpoint.error(), &["[3]", "contradict"]);
}

/// LongRoPE changes its factors with the length of the text; a bundle has one choice, made by its context.
#[test]
fn the_context_chooses_longropes_factors() {
    let scaling = json!({
        "rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0],
        "original_max_position_embeddings": 16, "attention_factor": 1.5
    });
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("rope_scaling", scaling);
    let dir = checkpoint.write();
    let with = |context| load(dir.path(), &LoadOptions { context, ..Default::default() });
    let found = |context| {
        let model = with(context).unwrap();
        let warnings = crate::warned(&model.warnings);
        (model.hyperparameters.context_length, model.ropes[0].clone(), warnings)
    };
    let (context, short, warnings) = found(None);
    assert_eq!((context, short.inv_freq.as_slice(), short.scaling), (16, &[1.0, 0.005][..], 1.5));
    says(&warnings, &["a context of 16 tokens", "--context N with N above 16, up to 64"]);
    assert_eq!(found(Some(16)).1, short);
    assert!(!found(Some(16)).2.contains("LongRoPE"));
    let (context, long, warnings) = found(Some(17));
    assert_eq!((context, long.inv_freq.as_slice(), long.scaling), (17, &[0.25, 0.00125][..], 1.5));
    says(&warnings, &["texts of up to 16 tokens get LongRoPE's long factors too"]);
    says(&refusal(with(Some(65))), &["[2]", "--context 65", "up to 64 tokens"]);
    says(&refusal(with(Some(0))), &["[2]", "--context 0"]);
}

#[test]
fn the_context_can_be_set() {
    let dir = Checkpoint::bitnet().write();
    let with = |context| load(dir.path(), &LoadOptions { context: Some(context), ..Default::default() });
    assert_eq!(with(10).unwrap().hyperparameters.context_length, 10);
    says(&refusal(with(65)), &["[2]", "--context 65", "up to 64 tokens"]);
}

/// Keys that published configurations have beside what transformers reads.
#[test]
fn published_configurations_are_read() {
    let mut falcon3 = Checkpoint::llama();
    falcon3.set("activation", json!("swiglu")).set("is_bitnet_config", json!(true));
    falcon3.set("parallel_attn", json!(false)).set("rope_theta", json!(1_000_042)).set("head_dim", json!(4));
    falcon3.quantization("modules_to_not_convert", json!(["lm_head"])).load().unwrap();
    let mut hf1bit = Checkpoint::llama();
    hf1bit.set("rope_interleaved", json!(false)).set("is_bitnet_config", json!(true));
    hf1bit.quantization("modules_to_not_convert", json!(null)).load().unwrap();
    let mut trilm = Checkpoint::llama();
    trilm.set("dims_per_head", json!(4)).set("layer_norm_eps", json!(1e-5)).set("rotary_pct", json!(1.0));
    trilm.set("rotary_emb_base", json!(10000)).set("use_parallel_residual", json!(false));
    trilm.set("pretraining_model_parallel", json!(1)).load().unwrap();
    let contradictions = [
        ("activation", json!("geglu")),
        ("parallel_attn", json!(true)),
        ("rope_interleaved", json!(true)),
        ("dims_per_head", json!(8)),
        ("layer_norm_eps", json!(1e-6)),
        ("rotary_pct", json!(0.25)),
        ("rotary_emb_base", json!(500_000)),
    ];
    for (key, value) in contradictions {
        let mut checkpoint = trilm.clone();
        checkpoint.set(key, value);
        says(&checkpoint.error(), &["[4]", "config.json", key]);
    }
}
