//! What `tritc inspect` says about checkpoints.

use crate::checkpoint::{Checkpoint, says};
use crate::words;
use serde_json::json;
use std::fs;
use std::path::Path;
use tritc::inspect::survey as show;
use tritc::load::{LoadOptions, Survey, survey};

fn look(path: &Path) -> Survey {
    let before: Vec<_> =
        fs::read_dir(path).map(|d| d.map(|e| e.unwrap().file_name()).collect()).unwrap_or_default();
    let found = survey(path, &LoadOptions::default());
    let after: Vec<_> =
        fs::read_dir(path).map(|d| d.map(|e| e.unwrap().file_name()).collect()).unwrap_or_default();
    assert_eq!(before, after, "files were made or removed");
    found
}

#[test]
fn a_checkpoint_that_compiles_is_described() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("license", json!("mit"));
    checkpoint.set("rope_scaling", json!({ "type": "linear", "factor": 4.0 }));
    let dir = checkpoint.write();
    let found = look(dir.path());
    assert!(found.refusal.is_none());
    let text = show::describe(&found, words::warning);
    let expected = [
        "model.safetensors, ",
        "model       BitNetForCausalLM\n",
        "license     mit\n",
        "layers      2, hidden 8, feed-forward 12\n",
        "heads       2 on 1 key/value heads of 4\n",
        "vocabulary  16 tokens\n",
        "context     64 tokens\n",
        "rope        linear, factor 4, theta 10000\n",
        "weights     ternary, the scale multiplies (autobitlinear, offline); not quantized: lm_head\n",
        "activations int8, one scale a token\n",
        "tensor model.embed_tokens.weight BF16 16x8: floats, kept",
        "tensor model.layers.*.mlp.down_proj.weight U8 2x12: ternary, one scale (2 times)",
        "no tokenizer (takes and gives token ids only), no chat template, bos 1, stops at [2]",
        "warning     there is no tokenizer.json",
        "compiles    yes",
    ];
    says(&text, &expected);

    let object = show::json(&found);
    assert_eq!(object["architecture"], "BitNetForCausalLM");
    assert_eq!(object["hyperparameters"]["hidden_dim"], 8);
    assert_eq!(object["configuration"]["rope"], "linear, factor 4, theta 10000");
    assert_eq!(object["files"][0]["file"], "model.safetensors");
    let tensors = object["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 15);
    let down = tensors.iter().find(|t| t["name"] == "model.layers.1.mlp.down_proj.weight").unwrap();
    assert_eq!((&down["stored"], &down["scale"]), (&json!("U8"), &json!("multiplies")));
}

#[test]
fn the_direction_of_scales_is_named() {
    let found = look(Checkpoint::llama().write().path());
    says(&show::describe(&found, words::warning), &["the scale divides (bitlinear)"]);
    assert_eq!(show::json(&found)["tensors"][2]["scale"], "divides");
    let found = look(Checkpoint::online().write().path());
    says(
        &show::describe(&found, words::warning),
        &["latent, made ternary by their absmean", "latent weights, rounded to trits"],
    );
}

/// What is known up to there is said, and the reason is that of `tritc compile`.
#[test]
fn a_checkpoint_that_is_refused_is_described_as_far_as_it_is_understood() {
    let mut unknown = Checkpoint::bitnet();
    unknown.set("prism.hadamard.group", json!(128));
    let found = look(unknown.write().path());
    assert_eq!((found.architecture, found.matrices.len()), (None, 0));
    let refusal = found.refusal.as_ref().unwrap();
    assert_eq!(words::exit_code(refusal), 4);
    says(&words::message(refusal), &["prism.hadamard.group"]);

    let mut missing = Checkpoint::bitnet();
    missing.tensors.remove("model.norm.weight");
    let found = look(missing.write().path());
    let text = show::describe(&found, words::warning);
    says(&text, &["model       BitNetForCausalLM", "rope        default", "bos 1"]);
    assert!(!text.contains("compiles"));
    assert_eq!(words::exit_code(&found.refusal.unwrap()), 3);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.trit"), "x").unwrap();
    let found = look(dir.path());
    says(&words::message(&found.refusal.unwrap()), &["model.trit", "is a bundle", "trit-run"]);
}

#[test]
fn the_options_of_compile_apply() {
    let mut checkpoint = Checkpoint::bitnet();
    checkpoint.set("brand", json!("x"));
    let dir = checkpoint.write();
    let options = LoadOptions {
        ignore_config_keys: vec!["brand".to_owned()],
        context: Some(32),
        ..LoadOptions::default()
    };
    let found = survey(dir.path(), &options);
    assert!(found.refusal.is_none());
    says(&show::describe(&found, words::warning), &["context     32 tokens", "brand (\"x\") is ignored"]);
}
