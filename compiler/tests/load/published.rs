//! Configurations as they are published, shrunk: every key of them is understood, or the refusal says what is not read.

use crate::checkpoint::{Checkpoint, bf16s, noise, pack, refusal, says, scale, trits};
use half::f16;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use trit_format::plan::ScaleRule;
use tritc::load::{LoadOptions, load};
use tritc::model::{Activations, Scales};

fn config(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// How linears are stored.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    Packed,
    Latent,
    TernaryFloats,
    /// By mlx-lm, in groups of 128; the tables too.
    Mlx,
}

/// A checkpoint with tensors for that configuration.
fn checkpoint(name: &str, stored: Stored) -> Checkpoint {
    let config = config(name);
    let size = |key: &str| config[key].as_u64().map(|n| n as usize);
    let [hidden, ffn, heads, vocab] =
        ["hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"]
            .map(|key| size(key).unwrap());
    let head_dim = size("head_dim").unwrap_or(hidden / heads);
    let [q, kv] = [heads, size("num_key_value_heads").unwrap()].map(|n| n * head_dim);
    let mut checkpoint =
        Checkpoint { config: config.clone(), tensors: BTreeMap::new(), files: BTreeMap::new() };
    match stored {
        Stored::Mlx => mlx(&mut checkpoint, "model.embed_tokens.weight", vocab, hidden),
        _ => {
            checkpoint.floats("model.embed_tokens.weight", &[vocab, hidden], noise(1, vocab * hidden));
        }
    }
    checkpoint.floats("model.norm.weight", &[hidden], noise(2, hidden));
    if config["tie_word_embeddings"] == false {
        checkpoint.floats("lm_head.weight", &[vocab, hidden], noise(3, vocab * hidden));
    }
    for layer in 0..size("num_hidden_layers").unwrap() {
        let mut norms = vec![("input_layernorm", hidden), ("post_attention_layernorm", hidden)];
        norms.extend(match config["architectures"][0].as_str().unwrap() {
            "BitNetForCausalLM" => vec![("self_attn.attn_sub_norm", q), ("mlp.ffn_sub_norm", ffn)],
            "BitnetForCausalLM" => vec![("self_attn.inner_attn_ln", q), ("mlp.ffn_layernorm", ffn)],
            "Qwen3ForCausalLM" => vec![("self_attn.q_norm", head_dim), ("self_attn.k_norm", head_dim)],
            "HunYuanDenseV1ForCausalLM" => {
                vec![("self_attn.query_layernorm", head_dim), ("self_attn.key_layernorm", head_dim)]
            }
            _ => Vec::new(),
        });
        for (norm, len) in norms {
            checkpoint.floats(&format!("model.layers.{layer}.{norm}.weight"), &[len], noise(4, len));
        }
        let matrices = [
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ];
        for (module, rows, k) in matrices {
            let name = format!("model.layers.{layer}.{module}.weight");
            let trits = trits(&name, rows * k);
            if stored == Stored::Packed {
                let packed = (Dtype::U8, vec![rows.div_ceil(4), k], pack(&trits, rows, k));
                checkpoint.tensors.insert(name.clone(), packed);
                checkpoint.floats(&format!("{name}_scale"), &[1], [1.25]);
                continue;
            }
            if stored == Stored::Mlx {
                mlx(&mut checkpoint, &name, rows, k);
                continue;
            }
            let values = match stored {
                Stored::Latent => noise(5, rows * k),
                _ => trits.into_iter().map(|t| 0.5 * f32::from(t)).collect(),
            };
            checkpoint.tensors.insert(name, (Dtype::BF16, vec![rows, k], bf16s(values)));
        }
    }
    checkpoint
}

/// A matrix of zeros and ones in codes of two bits, with the scale 0.5 everywhere.
fn mlx(checkpoint: &mut Checkpoint, name: &str, rows: usize, k: usize) {
    let module = name.strip_suffix(".weight").unwrap();
    let groups = vec![rows, k / 128];
    for (part, value) in [("scales", 0.5), ("biases", -0.5)] {
        let bytes = f16::from_f32(value).to_le_bytes().repeat(rows * k / 128);
        checkpoint.tensors.insert(format!("{module}.{part}"), (Dtype::F16, groups.clone(), bytes));
    }
    let words = 0b10_01_u32.to_le_bytes().map(|byte| byte | 0x50).repeat(rows * k / 16);
    checkpoint.tensors.insert(name.to_owned(), (Dtype::U32, vec![rows, k / 16], words));
}

#[test]
fn every_key_of_the_models_that_are_read_is_understood() {
    let per_token = Activations::PerToken { floor: 1e-5 };
    let cases = [
        ("ms-bitnet-2b4t", Stored::Packed, ScaleRule::Multiply, per_token),
        // As first published, with `offline_quantization: true`.
        ("ms-bitnet-2b4t-april-revision", Stored::Packed, ScaleRule::Multiply, per_token),
        ("hf1bitllm-llama3-8b", Stored::Packed, ScaleRule::Divide, per_token),
        ("falcon3-7b-instruct-1.58bit", Stored::Packed, ScaleRule::Divide, per_token),
        ("falcon-e-1b-quantized-by-transformers5", Stored::Packed, ScaleRule::Divide, per_token),
        ("1bitllm-3b", Stored::Latent, ScaleRule::Divide, per_token),
        ("ternary-bonsai-8b-unpacked", Stored::TernaryFloats, ScaleRule::Multiply, Activations::Int8Groups),
        ("hy-mt1.5-1.8b-1.25bit", Stored::TernaryFloats, ScaleRule::Multiply, Activations::Int8Groups),
        ("ternary-bonsai-1.7b-mlx-2bit", Stored::Mlx, ScaleRule::Multiply, Activations::Int8Groups),
    ];
    for (name, stored, rule, activations) in cases {
        let model = match checkpoint(name, stored).load() {
            Ok(model) => model,
            Err(e) => panic!("{name}: {e}"),
        };
        assert_eq!(scale(&model.layers[0].down).1, rule, "{name}");
        assert!(matches!(
            model.layers[0].attention().unwrap().q.matrix.ternary().unwrap().scales,
            Scales::Tensor { .. }
        ));
        assert_eq!(model.activations, activations, "{name}");
        let warnings = crate::warned(&model.warnings);
        assert!(!warnings.contains("config.json:"), "{name}: {warnings}");
    }
}

#[test]
fn models_that_are_not_read_are_refused_by_what_they_are() {
    let mut checkpoint = Checkpoint {
        config: config("bitnet-embedding-0.6b"),
        tensors: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    checkpoint.floats("some.weight", &[1], [1.0]);
    let error = checkpoint.error();
    says(&error, &["[4]", "config.json", "Qwen3Model", "no head"]);
    assert!(!error.contains("--ignore-config-key"), "{error}");
    let bitcpm = Checkpoint {
        config: config("bitcpm-cann-3b"),
        tensors: BTreeMap::new(),
        files: BTreeMap::from([("pytorch_model.bin".to_owned(), vec![0x80, 2])]),
    };
    let dir = bitcpm.write_model_files();
    let error = refusal(load(dir.path(), &LoadOptions::default()));
    says(&error, &["[4]", "pytorch_model.bin", "pickle", "save_pretrained"]);
}
