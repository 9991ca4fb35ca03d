//! Files of `qwen35`: layers with a gated DeltaNet beside layers with gated attention, and rotated weights.

use crate::writer::{File, Value, array, bool, f32, i32s, q2_0, text, texts, trits, u32};

/// Hidden 64, feed-forward 128; one head of 64 on one of keys; 2 heads of keys, 4 of values, of 32; four layers, of which the
/// last has attention.
pub fn hybrid() -> File {
    let mut file = File::empty();
    file.key("general.architecture", text("qwen35"));
    let sizes = [
        ("block_count", 4),
        ("context_length", 128),
        ("embedding_length", 64),
        ("feed_forward_length", 128),
        ("attention.head_count", 1),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 64),
        ("attention.value_length", 64),
        ("ssm.conv_kernel", 4),
        ("ssm.state_size", 32),
        ("ssm.group_count", 2),
        ("ssm.time_step_rank", 4),
        ("ssm.inner_size", 128),
        ("full_attention_interval", 4),
        ("rope.dimension_count", 16),
    ];
    for (key, size) in sizes {
        file.key(&format!("qwen35.{key}"), u32(size));
    }
    file.key("qwen35.attention.layer_norm_rms_epsilon", f32(1e-6));
    file.key("qwen35.rope.freq_base", f32(1e7));
    file.key("qwen35.rope.dimension_sections", i32s(&[4, 2, 2, 0]));
    let matrix = |file: &mut File, name: &str, rows: usize, k: usize| {
        let bytes = q2_0(&trits(name, rows * k), 0.75);
        file.tensor(name, &[k as u64, rows as u64], 42, bytes);
    };
    matrix(&mut file, "token_embd.weight", 16, 64);
    matrix(&mut file, "output.weight", 16, 64);
    file.floats("output_norm.weight", &[64]);
    for layer in 0..4 {
        let at = |part: &str| format!("blk.{layer}.{part}");
        for norm in ["attn_norm.weight", "post_attention_norm.weight"] {
            file.floats(&at(norm), &[64]);
        }
        let mut matrices = vec![("ffn_gate", 128, 64), ("ffn_up", 128, 64), ("ffn_down", 64, 128)];
        if layer == 3 {
            matrices.extend([
                ("attn_q", 128, 64),
                ("attn_k", 64, 64),
                ("attn_v", 64, 64),
                ("attn_output", 64, 64),
            ]);
            file.floats(&at("attn_q_norm.weight"), &[64]).floats(&at("attn_k_norm.weight"), &[64]);
        } else {
            matrices.extend([("attn_qkv", 256, 64), ("attn_gate", 128, 64), ("ssm_out", 64, 128)]);
            matrices.extend([("ssm_alpha", 4, 64), ("ssm_beta", 4, 64)]);
            file.floats(&at("ssm_conv1d.weight"), &[4, 256]).floats(&at("ssm_norm.weight"), &[32]);
            file.floats(&at("ssm_a"), &[4]).floats(&at("ssm_dt.bias"), &[4]);
        }
        for (part, rows, k) in matrices {
            matrix(&mut file, &at(&format!("{part}.weight")), rows, k);
        }
    }
    file
}

fn refused(bend: impl FnOnce(&mut File), words: &[&str]) {
    let mut file = hybrid();
    bend(&mut file);
    file.refused(words);
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let key = |key: &'static str, value: Value| {
        move |file: &mut File| {
            file.key(&format!("qwen35.{key}"), value);
        }
    };
    refused(key("nextn_predict_layers", u32(4)), &["[3]", "qwen35.block_count", "4 are draft blocks"]);
    refused(key("block_count", u32(1 << 31)), &["[3]", "qwen35.block_count", "no model"]);
    refused(key("ssm.group_count", u32(3)), &["[3]", "qwen35.ssm.time_step_rank is 4", "ssm.group_count 3"]);
    refused(key("ssm.group_count", u32(0)), &["[3]", "qwen35.ssm.time_step_rank"]);
    refused(key("ssm.inner_size", u32(126)), &["[3]", "qwen35.ssm.inner_size is 126"]);
    refused(key("rope.dimension_count", u32(66)), &["[3]", "qwen35.rope.dimension_count is 66"]);
    refused(key("rope.dimension_count", u32(15)), &["[3]", "qwen35.rope.dimension_count is 15"]);
    refused(key("rope.dimension_sections", i32s(&[4, 2])), &["[3]", "qwen35.rope.dimension_sections"]);
    refused(key("full_attention_interval", u32(0)), &["[3]", "qwen35.full_attention_interval is 0"]);
    refused(key("attention.value_length", u32(32)), &["[4]", "qwen35.attention.value_length is 32"]);
    refused(
        key("attention.recurrent_layers", array(7, 3, vec![1; 3])),
        &["[3]", "recurrent_layers is of 3 layers"],
    );
    refused(
        key("attention.recurrent_layers", i32s(&[1; 4])),
        &["[3]", "recurrent_layers", "expected a bool"],
    );
    refused(key("ssm.dt_scale", f32(2.0)), &["[4]", "qwen35.ssm.dt_scale is 2"]);
    refused(key("expert_count", u32(8)), &["[4]", "qwen35.expert_count", "mixtures of experts"]);
    for missing in ["ssm.conv_kernel", "ssm.state_size", "ssm.inner_size", "rope.dimension_count"] {
        let missing = format!("qwen35.{missing}");
        let mut file = hybrid();
        file.without_key(&missing).refused(&["[3]", &missing, "is missing"]);
    }
}

#[test]
fn heads_of_other_sizes_are_refused() {
    let shape = |name: &'static str, dimensions: &'static [u64]| {
        move |file: &mut File| {
            file.floats(name, dimensions);
        }
    };
    refused(shape("blk.0.ssm_a", &[5]), &["[3]", "ssm_a", "[5]", "expected 4 rows"]);
    refused(shape("blk.0.ssm_conv1d.weight", &[4, 250]), &["[3]", "ssm_conv1d", "expected 256 rows"]);
    refused(shape("blk.0.ssm_out.weight", &[96, 64]), &["[3]", "ssm_out", "expected 128 columns"]);
    refused(shape("blk.0.ssm_out.weight", &[128, 64, 1]), &["[3]", "ssm_out", "expected 128 columns"]);
    refused(
        |file| {
            for (key, size) in
                [("group_count", u32::MAX), ("time_step_rank", u32::MAX), ("inner_size", u32::MAX)]
            {
                file.key(&format!("qwen35.ssm.{key}"), u32(size));
            }
        },
        &["model.gguf"],
    );
    // Two tensors that are the same part of a layer.
    refused(
        shape("blk.0.ffn_norm.weight", &[64]),
        &["[3]", "post_attention_norm", "ffn_norm", "unclear which"],
    );
}

/// The same file with all that may be rotated in blocks of 32.
fn rotated() -> File {
    let mut file = hybrid();
    let folded = |name: &str| {
        let floats = ["norm", "ssm_a", "ssm_dt", "ssm_beta", "conv1d", "token_embd"];
        !floats.iter().any(|part| name.contains(part))
    };
    let names: Vec<String> =
        file.tensors.iter().map(|t| t.name.clone()).filter(|name| folded(name)).collect();
    let signs: Vec<i32> = (0..192).map(|i| if i % 3 == 0 { -1 } else { 1 }).collect();
    let keys = [
        ("version", u32(1)),
        ("block_size", u32(32)),
        ("transform", text("normalized-sylvester-walsh-hadamard")),
        ("axis", text("input-last-dimension")),
        ("sign_mode", text("explicit")),
        ("sign_widths", i32s(&[64, 128])),
        ("sign_values", i32s(&signs)),
        ("weight_names", texts(names.iter().map(String::as_str))),
        ("inverse_weight_names", texts(["token_embd.weight"])),
        ("gdn_v_grouped", bool(true)),
    ];
    for (key, value) in keys {
        file.key(&format!("prism.hadamard.{key}"), value);
    }
    file
}

#[test]
fn rotations_that_are_not_understood_are_refused() {
    let refused = |key: &str, value: Option<Value>, words: &[&str]| {
        let (mut file, key) = (rotated(), format!("prism.hadamard.{key}"));
        match value {
            Some(value) => file.key(&key, value),
            None => file.without_key(&key),
        };
        file.refused(&[&[key.as_str()], words].concat());
    };
    refused("version", Some(u32(2)), &["[4]", "is 2", "only version 1"]);
    refused("version", None, &["[3]", "is missing"]);
    refused("tied_output", Some(bool(true)), &["[4]", "not known"]);
    refused("scale", Some(f32(0.5)), &["[4]", "not known"]);
    refused("block_size", Some(u32(48)), &["[3]", "is 48", "power of two"]);
    refused("block_size", Some(u32(1)), &["[3]", "is 1,"]);
    refused("transform", Some(text("dct")), &["[4]", "\"dct\""]);
    refused("axis", Some(text("output")), &["[4]", "\"output\""]);
    refused("sign_mode", Some(text("seeded")), &["[4]", "\"seeded\""]);
    refused("sign_mode", None, &["[3]", "is missing"]);
    refused("sign_widths", Some(i32s(&[64])), &["[3]"]);
    refused("sign_widths", Some(i32s(&[64, 64, 64])), &["[3]", "lists 64 twice"]);
    refused("sign_widths", Some(i32s(&[64, 96, 32])), &["[3]", "does not list 128"]);
    refused("sign_values", Some(i32s(&[1; 64])), &["[3]", "64 signs, fewer"]);
    refused("sign_values", Some(i32s(&[1; 200])), &["[3]", "200 signs, 8 more"]);
    refused("sign_values", Some(i32s(&[2; 192])), &["[3]", "holds 2 at 0"]);
    refused("weight_names", None, &["[3]", "is missing"]);
    refused(
        "weight_names",
        Some(texts(["output.weight", "output.weight"])),
        &["[3]", "\"output.weight\" twice"],
    );
    refused("weight_names", Some(texts(["blk.9.ffn_up.weight"])), &["[3]", "does not have"]);
    refused(
        "weight_names",
        Some(texts(["blk.0.ssm_beta.weight"])),
        &["[4]", "ssm_beta", "not known to be rotated"],
    );
    refused(
        "weight_names",
        Some(texts(["token_embd.weight"])),
        &["[4]", "token_embd", "not known to be rotated"],
    );
    refused("inverse_weight_names", Some(texts(["output.weight"])), &["[4]", "output.weight"]);
    refused("gdn_v_grouped", Some(bool(false)), &["[4]", "ssm_out", "Convert the model again"]);
    refused("gdn_v_grouped", None, &["[4]", "ssm_out"]);
    let mut file = rotated();
    file.key("prism.hadamard.block_size", u32(128));
    file.refused(&["[3]", "blocks of 128 columns"]);
    let mut file = rotated();
    file.key("prism.hadamard.sign_mode", text("identity"));
    file.refused(&["[3]", "\"identity\""]);
    let mut file = rotated();
    file.without_tensor("output.weight").key("prism.hadamard.weight_names", texts(["blk.0.ffn_up.weight"]));
    file.refused(&["[4]", "inverse_weight_names", "head too"]);
    // Rotated weights of other architectures.
    let mut file = File::model("llama", false);
    file.key("prism.hadamard.version", u32(1));
    file.refused(&["[4]", "prism.hadamard.version", "not known"]);
}
