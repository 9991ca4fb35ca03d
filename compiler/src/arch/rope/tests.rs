//! Tables against transformers 5.24's `ROPE_INIT_FUNCTIONS` (torch 2.15, CPU): the bits of every frequency.

use super::*;
use serde_json::Value;
use std::path::Path;

/// Heads of 32, a context of 32768 and a base of 1e6 where nothing else is said.
fn rope(config: Value) -> Result<RopeConfig, CompileError> {
    let Value::Object(map) = config else { panic!("not an object") };
    let context = map.get("context").and_then(Value::as_u64).unwrap_or(32_768) as u32;
    let alpha = map.contains_key("of_hunyuan");
    let mut keys = Keys::new(Path::new("config.json"), map);
    keys.take::<u32>("context")?;
    keys.take::<bool>("of_hunyuan")?;
    let rope = RopeConfig::take(&mut keys, RopeInputs { theta: 1e6, head_dim: 32, context, alpha })?;
    keys.refuse_rest(&[])?;
    Ok(rope)
}

/// torch's power may miss the nearest f32 by one unit, ours does not.
#[track_caller]
fn has_bits(rope: &RopeConfig, context: u32, expected: [u32; 16], scaling: f32) {
    let table = rope.table(context);
    for (i, (found, expected)) in table.inv_freq.iter().zip(expected).enumerate() {
        assert!(found.to_bits().abs_diff(expected) <= 1, "{i}: {found} is not {}", f32::from_bits(expected));
    }
    assert_eq!((table.inv_freq.len(), table.scaling), (16, scaling));
}

const YARN: [u32; 16] = [
    0x3f800000, 0x3ed7e89b, 0x3e361887, 0x3d99940d, 0x3d0186e3, 0x3c39b628, 0x3b80fcd4, 0x3aaaf38e,
    0x39d1b718, 0x38dd1725, 0x383a7753, 0x379d43a4, 0x3704a2b2, 0x365fba4f, 0x35bcb0c1, 0x351f23e4,
];

#[test]
fn yarn() {
    let scaling = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192 });
    has_bits(&rope(json!({ "rope_scaling": scaling })).unwrap(), 32_768, YARN, 1.138_629_4);
    // Without a factor, that of the context lengths; the original one may stand outside.
    let implied = json!({ "rope_scaling": { "type": "yarn" }, "original_max_position_embeddings": 8192 });
    has_bits(&rope(implied).unwrap(), 32_768, YARN, 1.138_629_4);

    let scaling = json!({
        "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0,
        "mscale_all_dim": 0.8, "beta_fast": 16, "beta_slow": 2, "truncate": false, "rope_theta": 10000.0
    });
    let expected = [
        0x3f800000, 0x3f0ff59a, 0x3ea1e89b, 0x3e361887, 0x3dcccccd, 0x3d6655c2, 0x3d0186e3, 0x3c7755b7,
        0x3bbdbaeb, 0x3ae3d4f1, 0x3901f93c, 0x383a7753, 0x37d1b717, 0x376bdcf0, 0x3704a2b3, 0x36952c42,
    ];
    let model = rope(json!({ "rope_parameters": scaling, "context": 163_840 })).unwrap();
    has_bits(&model, 163_840, expected, 1.056_966_3);

    let scaling = json!({
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16384, "attention_factor": 1.25
    });
    let expected = [
        0x3f800000, 0x3ed7e89b, 0x3e361887, 0x3d99940d, 0x3d0186e3, 0x3c5a7bf2, 0x3ba5d75a, 0x3af8a815,
        0x3a378034, 0x3984a77c, 0x38ba7753, 0x381d43a4, 0x3784a2b2, 0x36dfba4f, 0x363cb0c1, 0x359f23e4,
    ];
    has_bits(&rope(json!({ "rope_scaling": scaling })).unwrap(), 32_768, expected, 1.25);
}

#[test]
fn yarn_whose_factor_is_not_that_of_its_contexts_is_a_warning() {
    let of = |context: u32| {
        let scaling = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192 });
        rope(json!({ "rope_scaling": scaling, "context": context })).unwrap()
    };
    assert!(of(16_384).warning().unwrap().contains("factor is 4"));
    // The lengths agree, or say nothing.
    assert_eq!([of(32_768).warning(), of(8192).warning()], [None, None]);
    // The context may be set up to what the factor gives.
    assert_eq!([of(8192).longest(), of(65_536).longest()], [32_768, 65_536]);
}

fn long_rope(more: Value) -> Value {
    let factors = |step: f64| (0..16).map(|i| 1.0 + step * f64::from(i)).collect::<Vec<f64>>();
    let mut scaling = json!({
        "rope_type": "longrope", "short_factor": factors(0.0625), "long_factor": factors(0.5),
        "original_max_position_embeddings": 4096, "rope_theta": 10000.0
    });
    scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "rope_scaling": scaling })
}

#[test]
fn longrope() {
    let short = [
        0x3f800000, 0x3f077dbe, 0x3e8feb35, 0x3e195806, 0x3da3d70a, 0x3d2f7e4b, 0x3cbc671b, 0x3c4aae39,
        0x3bda740e, 0x3b6bdcf0, 0x3aff117f, 0x3a8a1f80, 0x3a15cbec, 0x39a2aa07, 0x3930d8ee, 0x38c07b2c,
    ];
    let long = [
        0x3f800000, 0x3ebff222, 0x3e21e89b, 0x3d91ad39, 0x3d088889, 0x3c839eb8, 0x3c0186e3, 0x3b817d88,
        0x3b03126f, 0x3a86035a, 0x3a0a297b, 0x398f6f7b, 0x3915cbec, 0x389d3df6, 0x3825cb60, 0x37af7f5d,
    ];
    let model = rope(long_rope(json!({}))).unwrap();
    has_bits(&model, 4096, short, 1.118_034);
    has_bits(&model, 4097, long, 1.118_034);
    assert_eq!((model.change(), model.longest()), (Some(4096), 32_768));
    has_bits(&rope(long_rope(json!({ "factor": 2.0 }))).unwrap(), 1, short, 1.040_833);
    has_bits(&rope(long_rope(json!({ "attention_factor": 3.0 }))).unwrap(), 1, short, 3.0);
    let whole = rope(long_rope(json!({ "original_max_position_embeddings": 32_768 }))).unwrap();
    has_bits(&whole, 32_768, short, 1.0);
    assert_eq!(whole.change(), None);
}

#[test]
fn linear() {
    let expected = [
        0x3e000000, 0x3d8ff59a, 0x3d21e89b, 0x3cb61887, 0x3c4ccccd, 0x3be655c2, 0x3b8186e3, 0x3b11ad39,
        0x3aa3d70a, 0x3a38449c, 0x39cf3e38, 0x39691528, 0x3903126f, 0x38936a16, 0x3825cb60, 0x37ba7753,
    ];
    let config = json!({ "rope_theta": 10000.0, "rope_scaling": { "rope_type": "linear", "factor": 8 } });
    has_bits(&rope(config).unwrap(), 32_768, expected, 1.0);
}

/// Against `HunYuanDenseV1RotaryEmbedding`.
#[test]
fn alpha_stretches_the_base_for_texts_of_every_length() {
    let expected = [
        0x3f800000, 0x3eb5aa1a, 0x3e00e9fa, 0x3d36f62c, 0x3c81d59f, 0x3bb8449c, 0x3b02c2f3, 0x3a399570,
        0x3983b1f8, 0x38bae8ac, 0x3804a2b2, 0x373c3e53, 0x36859525, 0x35bd966b, 0x35068953, 0x343ef0f8,
    ];
    let of = |more: Value| {
        let mut scaling = json!({
            "type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
            "mscale_all_dim": 1.0
        });
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rope(json!({ "rope_theta": 10000.0, "rope_scaling": scaling, "of_hunyuan": true }))
    };
    let found = of(json!({})).unwrap();
    has_bits(&found, 32_768, expected, 1.0);
    assert_eq!((found.longest(), found.change(), found.warning()), (32_768, None, None));
    // The base that converters to GGUF write.
    let head = RopeInputs { theta: 1e4, head_dim: 128, context: 1, alpha: true };
    let whole = RopeConfig { theta: 1e4, scaling: Scaling::Alpha { alpha: 1000.0 }, inputs: head };
    let plain = RopeConfig { theta: 11_158_840.0, scaling: Scaling::Default, inputs: head };
    assert_eq!(whole.table(1), plain.table(1));
    for (more, expected) in [
        (json!({ "alpha": null }), "\"dynamic\" without rope_scaling.alpha is not supported"),
        (json!({ "alpha": 0 }), "rope_scaling.alpha is 0"),
        (json!({ "factor": 4.0 }), "rope_scaling.factor is 4.0"),
        (json!({ "mrope_section": [1, 2] }), "rope_scaling.mrope_section"),
    ] {
        let message = of(more).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} is not in: {message}");
    }
}

#[test]
fn senseless_settings_are_refused_by_name() {
    let yarn = |more: Value| {
        let mut scaling = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192 });
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "rope_scaling": scaling })
    };
    let cases = [
        (yarn(json!({ "factor": 0 })), "rope_scaling.factor is 0"),
        (yarn(json!({ "attention_factor": -1 })), "rope_scaling.attention_factor is -1"),
        (yarn(json!({ "beta_fast": 1, "beta_slow": 2 })), "rope_scaling.beta_fast"),
        (yarn(json!({ "mscale": -100, "mscale_all_dim": 1 })), "attention_factor"),
        (yarn(json!({ "original_max_position_embeddings": 1 })), "original_max_position_embeddings"),
        (yarn(json!({ "rope_theta": 1 })), "rope_theta is 1; YaRN"),
        (yarn(json!({ "short_factor": [1] })), "rope_scaling.short_factor"),
        (
            long_rope(json!({ "short_factor": [1, 2] })),
            "rope_scaling.short_factor holds 2 numbers, expected 16",
        ),
        (long_rope(json!({ "long_factor": vec![0; 16] })), "rope_scaling.long_factor holds 0"),
        (long_rope(json!({ "long_factor": null })), "has no rope_scaling.long_factor"),
        (long_rope(json!({ "mscale": 1 })), "rope_scaling.mscale"),
    ];
    for (config, expected) in cases {
        let message = rope(config).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} is not in: {message}");
    }
    for kind in ["dynamic", "proportional", "su", "mrope"] {
        let error = rope(json!({ "rope_scaling": { "type": kind, "factor": 2.0 } })).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("rope_scaling.rope_type {kind:?} is not supported")));
    }
}

/// Gemma 3: both spellings of a RoPE for each type of layer.
#[test]
fn ropes_by_layer_type() {
    let of = |config: Value| {
        let Value::Object(map) = config else { panic!("not an object") };
        let mut keys = Keys::new(Path::new("config.json"), map);
        let inputs = RopeInputs { theta: 1e6, head_dim: 4, context: 1024, alpha: false };
        let ropes = RopeConfig::take_by_layer_type(&mut keys, inputs, 1e4)?;
        keys.refuse_rest(&[])?;
        Ok::<_, CompileError>([ropes.0, ropes.1].map(|rope| rope.table(1024).inv_freq))
    };
    assert_eq!(of(json!({})).unwrap(), [[1.0, 1e-3], [1.0, 1e-2]]);
    let old = json!({
        "rope_theta": 16.0, "rope_local_base_freq": 4.0, "rope_scaling": { "rope_type": "linear", "factor": 8.0 }
    });
    assert_eq!(of(old).unwrap(), [[0.125, 0.03125], [1.0, 0.5]]);
    let full = json!({ "rope_type": "linear", "factor": 8.0, "rope_theta": 16.0 });
    let new = json!({ "full_attention": full, "sliding_attention": { "rope_theta": 4.0 } });
    assert_eq!(of(json!({ "rope_parameters": new })).unwrap(), [[0.125, 0.03125], [1.0, 0.5]]);
    let refused = [
        (json!({ "rope_parameters": { "rope_theta": 16.0 } }), "rope_parameters.rope_theta"),
        (
            json!({ "rope_parameters": { "full_attention": { "truncate": false } } }),
            "full_attention.truncate",
        ),
        (
            json!({ "rope_scaling": { "type": "linear", "factor": 2 }, "rope_parameters": { "full_attention": {} } }),
            "contradict",
        ),
        (
            json!({ "rope_local_base_freq": 1, "rope_parameters": { "sliding_attention": { "rope_theta": 4 } } }),
            "rope_theta is 1 in one place and 4 in another",
        ),
    ];
    for (config, expected) in refused {
        let message = of(config).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected:?} is not in: {message}");
    }
}
