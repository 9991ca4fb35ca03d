//! One model in several containers: whatever the file, the same tensors leave under the same names. The sums in
//! `tensors.json` were computed in NumPy by another reader of all these files.

use super::Opened;
use crate::checkpoint::RawTensor;
use crate::checkpoint::overrides::{Overrides, Rotations};
use crate::error::Warnings;
use crate::files::locate::Files;
use crate::load::LoadOptions;
use crate::model::{Matrix, Scales};
use crate::weights::detect;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A tensor as numbers, and how its scales are grouped where it is ternary.
struct Decoded {
    values: Vec<f32>,
    scales: Option<Scales>,
}

struct Contents {
    config: serde_json::Map<String, Value>,
    tensors: BTreeMap<String, Decoded>,
    overrides: Overrides,
    warnings: Warnings,
}

fn opened(path: &Path) -> Contents {
    let mut warnings = Warnings::default();
    let options = LoadOptions { without_tokenizer: true, ..LoadOptions::default() };
    let files = Files::locate(path).unwrap();
    let Opened { model_files, checkpoint, overrides, .. } =
        Opened::open(&files, &options, &mut warnings).unwrap();
    let tensors = checkpoint.tensors().iter().map(|(name, tensor)| (name.clone(), decoded(name, tensor)));
    let tensors = tensors.collect();
    Contents { config: model_files.config().unwrap().1.clone(), tensors, overrides, warnings }
}

fn decoded(name: &str, tensor: &RawTensor) -> Decoded {
    let is_matrix = tensor.shape.len() == 2 && !name.ends_with("conv1d.weight");
    if !is_matrix {
        let mut values = Vec::new();
        assert!(tensor.tiled_heads.is_none());
        tensor.dtype.float().unwrap().each(tensor.bytes.as_ref(), |x| values.push(x));
        return Decoded { values, scales: None };
    }
    let shape = [tensor.shape[0], tensor.shape[1]];
    let mut values = vec![0.0; shape[0] * shape[1]];
    match detect::table(tensor.clone(), shape).unwrap().0 {
        Matrix::Dense(dense) => {
            for (row, out) in values.chunks_exact_mut(shape[1]).enumerate() {
                dense.read_row(row, out);
            }
            Decoded { values, scales: None }
        }
        Matrix::Ternary(ternary) => {
            let mut trits = vec![0; shape[1]];
            let mut factors = vec![0.0; shape[1] / 32];
            for (row, out) in values.chunks_exact_mut(shape[1]).enumerate() {
                ternary.trits.read_row(row, &mut trits).unwrap();
                ternary.factors(row, 32, &mut factors).unwrap();
                for (at, (out, trit)) in out.iter_mut().zip(&trits).enumerate() {
                    *out = f32::from(*trit) * factors[at / 32];
                }
            }
            Decoded { values, scales: Some(ternary.scales) }
        }
    }
}

/// Whether a norm is stored less one.
fn is_less_one(name: &str) -> bool {
    let ends = ["layernorm.weight", "q_norm.weight", "k_norm.weight", "model.norm.weight"];
    ends.iter().any(|end| name.ends_with(end))
}

/// The tensors as they count: norms with the one added, decay rates for their logarithms.
fn whole(contents: Contents) -> BTreeMap<String, Decoded> {
    let Overrides { norms_whole, decay_rates, .. } = contents.overrides;
    let mut tensors = contents.tensors;
    for (name, tensor) in &mut tensors {
        if is_less_one(name) && !norms_whole {
            tensor.values.iter_mut().for_each(|x| *x += 1.0);
        }
        if name.ends_with("A_log") && !decay_rates {
            tensor.values.iter_mut().for_each(|x| *x = -x.exp());
        }
    }
    tensors
}

/// Compares with the sums of the other reader.
fn expect_sums(name: &str, tensors: &BTreeMap<String, Decoded>) {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixture(name).join("tensors.json")).unwrap()).unwrap();
    let golden = golden["tensors"].as_object().unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (tensor, expected) in golden {
        let values = &tensors[tensor].values;
        let weighted = |of: &dyn Fn(f64) -> f64, factor: &dyn Fn(usize) -> f64| -> f64 {
            values.iter().enumerate().map(|(i, &x)| of(x.into()) * factor(i)).sum()
        };
        let sum = weighted(&|x| x, &|i| ((7919 * i) % 101) as f64 - 50.0);
        let magnitudes = weighted(&f64::abs, &|i| ((104_729 * i) % 97) as f64);
        let number = |key: &str| expected[key].as_f64().unwrap();
        // Norms and decay rates were computed in f32 there too; all else is exact.
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * number("magnitudes").max(1.0);
        assert_eq!(values.len() as u64, expected["len"].as_u64().unwrap(), "{tensor}");
        assert!(
            near(sum, number("sum")) && near(magnitudes, number("magnitudes")),
            "{tensor}: {sum} {magnitudes}"
        );
    }
}

#[test]
fn qwen35_in_safetensors_and_in_gguf_is_one_model() {
    let safetensors = opened(&fixture("qwen35-g128").join("model.safetensors"));
    let gguf = opened(&fixture("qwen35-g128").join("model.q2_0.gguf"));
    assert!(gguf.overrides.norms_whole && gguf.overrides.decay_rates && gguf.overrides.rotations.is_none());
    assert!(!safetensors.overrides.norms_whole && !safetensors.overrides.decay_rates);
    assert!(gguf.warnings.is_empty(), "{:?}", gguf.warnings);
    for key in [
        "architectures",
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "layer_types",
        "linear_conv_kernel_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "tie_word_embeddings",
        "max_position_embeddings",
        "hidden_act",
    ] {
        assert_eq!(gguf.config.get(key), safetensors.config.get(key), "{key}");
    }
    let rope = |contents: &Contents, key: &str| contents.config["rope_parameters"][key].clone();
    for key in ["rope_type", "partial_rotary_factor", "mrope_section", "mrope_interleaved"] {
        assert_eq!(rope(&gguf, key), rope(&safetensors, key), "{key}");
    }
    assert_eq!(rope(&gguf, "rope_theta").as_f64(), rope(&safetensors, "rope_theta").as_f64());
    let (safetensors, gguf) = (whole(safetensors), whole(gguf));
    expect_sums("qwen35-g128", &safetensors);
    expect_sums("qwen35-g128", &gguf);
    for (name, tensor) in &safetensors {
        assert_eq!(gguf[name].scales, tensor.scales, "{name}");
        if tensor.scales.is_some() {
            assert_eq!(gguf[name].values, tensor.values, "{name}");
        }
    }
    assert!(safetensors.values().filter(|tensor| tensor.scales.is_some()).count() == 32);
}

#[test]
fn rotated_qwen35_in_gguf_and_in_mlx_is_one_model() {
    let gguf = opened(&fixture("qwen35-hadamard").join("model.pq2_0.gguf"));
    let mlx = opened(&fixture("qwen35-hadamard-mlx"));
    assert!(mlx.overrides.norms_whole && !mlx.overrides.decay_rates);
    let rotations: &Rotations = gguf.overrides.rotations.as_ref().unwrap();
    assert_eq!(Some(rotations), mlx.overrides.rotations.as_ref());
    assert_eq!(rotations.block, 128);
    assert_eq!(rotations.signs.keys().copied().collect::<Vec<_>>(), [256, 384, 512]);
    assert!(
        rotations.names.contains("model.embed_tokens.weight") && rotations.names.contains("lm_head.weight")
    );
    assert!(rotations.names.contains("model.layers.0.linear_attn.out_proj.weight"));
    assert!(!rotations.names.iter().any(|name| name.contains("in_proj_a") || name.contains("in_proj_b")));
    for key in
        ["architectures", "model_type", "layer_types", "head_dim", "linear_num_value_heads", "vocab_size"]
    {
        assert_eq!(gguf.config.get(key), mlx.config.get(key), "{key}");
    }
    assert!(!mlx.config.contains_key("modules") && !mlx.config.contains_key("text_config"));
    let (gguf, mlx) = (whole(gguf), whole(mlx));
    expect_sums("qwen35-hadamard", &gguf);
    expect_sums("qwen35-hadamard", &mlx);
    for (name, tensor) in &gguf {
        assert_eq!(mlx[name].scales, tensor.scales, "{name}");
        if tensor.scales.is_some() {
            assert_eq!(mlx[name].values, tensor.values, "{name}");
        }
    }
}
