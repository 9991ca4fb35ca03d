//! A small checkpoint, written to a temporary folder and bent by each test.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use trit_format::plan::ScaleRule;
use tritc::CompileError;
use tritc::load::{LoadOptions, load};
use tritc::model::{Model, Projection, Scales, Ternary};

/// One tensor: type, shape, little-endian bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Files of a checkpoint before they are written.
#[derive(Clone)]
pub struct Checkpoint {
    pub config: Value,
    pub tensors: BTreeMap<String, Stored>,
    pub files: BTreeMap<String, Vec<u8>>,
}

pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

pub fn bf16s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect()
}

/// Pseudo-random numbers in -1..1, the same on every run.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Trits of a matrix, from its name.
pub fn trits(name: &str, n: usize) -> Vec<i8> {
    noise(name.bytes().map(u64::from).sum(), n).into_iter().map(|x| (x * 1.5).round() as i8).collect()
}

/// Packs `[rows, k]` as transformers' `pack_weights` does.
pub fn pack(trits: &[i8], rows: usize, k: usize) -> Vec<u8> {
    let packed_rows = rows.div_ceil(4);
    let mut bytes = vec![0; packed_rows * k];
    for (at, &trit) in trits.iter().enumerate() {
        let (row, col) = (at / k, at % k);
        bytes[row % packed_rows * k + col] |= ((trit + 1) as u8) << (2 * (row / packed_rows));
    }
    bytes
}

/// `[rows, k]` of every ternary matrix: hidden 8, ffn 12, 2 heads of 4, 1 KV head.
pub const MATRICES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 8, 8),
    ("self_attn.k_proj", 4, 8),
    ("self_attn.v_proj", 4, 8),
    ("self_attn.o_proj", 8, 8),
    ("mlp.gate_proj", 12, 8),
    ("mlp.up_proj", 12, 8),
    ("mlp.down_proj", 8, 12),
];

/// The first matrix, which most tests bend.
pub const Q: &str = "model.layers.0.self_attn.q_proj.weight";

impl Checkpoint {
    /// BitNet as Microsoft packs it: autobitlinear, offline, tied.
    pub fn bitnet() -> Checkpoint {
        let mut checkpoint = Checkpoint {
            config: json!({
                "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
                "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
                "torch_dtype": "bfloat16", "use_cache": true,
                "quantization_config": {
                    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
                },
            }),
            tensors: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        checkpoint.floats("model.embed_tokens.weight", &[16, 8], noise(1, 128));
        checkpoint.floats("model.norm.weight", &[8], noise(2, 8));
        for layer in 0..2 {
            let at = |name: &str| format!("model.layers.{layer}.{name}");
            for (module, rows, k) in MATRICES {
                let weight = at(&format!("{module}.weight"));
                let packed = pack(&trits(&weight, rows * k), rows, k);
                checkpoint.tensors.insert(weight.clone(), (Dtype::U8, vec![rows.div_ceil(4), k], packed));
                checkpoint.floats(&format!("{weight}_scale"), &[1], [1.25]);
            }
            let norms = [
                ("input_layernorm", 8),
                ("post_attention_layernorm", 8),
                ("self_attn.attn_sub_norm", 8),
                ("mlp.ffn_sub_norm", 12),
            ];
            for (name, len) in norms {
                checkpoint.floats(&at(&format!("{name}.weight")), &[len], noise(3, len));
            }
        }
        checkpoint
    }

    /// BitNet's latent weights: autobitlinear, online.
    pub fn online() -> Checkpoint {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.config["quantization_config"]["quantization_mode"] = json!("online");
        checkpoint.each_matrix(|checkpoint, weight, rows, k| {
            checkpoint.tensors.remove(&format!("{weight}_scale"));
            checkpoint.floats(weight, &[rows, k], noise(rows as u64 + 7, rows * k));
        });
        checkpoint
    }

    /// Llama with linear class bitlinear, untied.
    pub fn llama() -> Checkpoint {
        let mut checkpoint = Checkpoint::bitnet();
        checkpoint.set("architectures", json!(["LlamaForCausalLM"])).set("model_type", json!("llama"));
        checkpoint.set("hidden_act", json!("silu")).set("tie_word_embeddings", json!(false));
        checkpoint.set("quantization_config", json!({ "quant_method": "bitnet" }));
        checkpoint.tensors.retain(|name, _| !name.contains("sub_norm"));
        checkpoint.floats("lm_head.weight", &[16, 8], noise(9, 128));
        checkpoint
    }

    pub fn set(&mut self, key: &str, value: Value) -> &mut Checkpoint {
        self.config[key] = value;
        self
    }

    pub fn quantization(&mut self, key: &str, value: Value) -> &mut Checkpoint {
        self.config["quantization_config"][key] = value;
        self
    }

    pub fn unset(&mut self, key: &str) -> &mut Checkpoint {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    /// A bf16 tensor.
    pub fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl IntoIterator<Item = f32>,
    ) -> &mut Checkpoint {
        self.tensors.insert(name.to_owned(), (Dtype::BF16, shape.to_vec(), bf16s(values)));
        self
    }

    pub fn file(&mut self, name: &str, contents: impl Into<Vec<u8>>) -> &mut Checkpoint {
        self.files.insert(name.to_owned(), contents.into());
        self
    }

    pub fn each_matrix(&mut self, f: impl Fn(&mut Checkpoint, &str, usize, usize)) {
        for layer in 0..2 {
            for (module, rows, k) in MATRICES {
                f(self, &format!("model.layers.{layer}.{module}.weight"), rows, k);
            }
        }
    }

    /// Writes everything but the tensors.
    pub fn write_model_files(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        for (name, contents) in &self.files {
            fs::write(dir.path().join(name), contents).unwrap();
        }
        dir
    }

    /// Writes it as one file.
    pub fn write(&self) -> TempDir {
        let dir = self.write_model_files();
        write_tensors(&dir.path().join("model.safetensors"), self.tensors.iter());
        dir
    }

    /// Writes it as two shards and an index, which is returned to be bent and written by `write_index`.
    pub fn write_shards(&self) -> (TempDir, BTreeMap<String, String>) {
        let dir = self.write_model_files();
        let mut index = BTreeMap::new();
        for part in 0..2 {
            let file = format!("model-0000{}-of-00002.safetensors", part + 1);
            let tensors = self.tensors.iter().enumerate().filter(|(i, _)| i % 2 == part).map(|(_, t)| t);
            index.extend(tensors.clone().map(|(name, _)| (name.clone(), file.clone())));
            write_tensors(&dir.path().join(&file), tensors);
        }
        write_index(dir.path(), &index);
        (dir, index)
    }

    pub fn load(&self) -> Result<Model, CompileError> {
        load(self.write().path(), &LoadOptions::default())
    }

    /// The error that loading gives, as text.
    pub fn error(&self) -> String {
        refusal(self.load())
    }
}

pub fn write_index(dir: &Path, index: &BTreeMap<String, String>) {
    let index = json!({ "metadata": {}, "weight_map": index });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

pub fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Stored)>) {
    let views = tensors
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The ternary matrix of a projection.
pub fn ternary(projection: &Projection) -> &Ternary {
    projection.matrix.ternary().unwrap()
}

/// The scale of a matrix that has one, and its direction.
pub fn scale(projection: &Projection) -> (f32, ScaleRule) {
    match ternary(projection).scales {
        Scales::Tensor { scale, rule } => (scale, rule),
        other => panic!("{other:?}"),
    }
}

/// All trits of a projection.
pub fn read(projection: &Projection) -> Result<Vec<i8>, CompileError> {
    let matrix = ternary(projection);
    let mut all = vec![0; matrix.rows * matrix.k];
    for (row, out) in all.chunks_exact_mut(matrix.k).enumerate() {
        matrix.trits.read_row(row, out)?;
    }
    matrix.trits.release();
    Ok(all)
}

/// The message of an error, which must be there.
pub fn refusal(result: Result<Model, CompileError>) -> String {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(e) => format!("[{}] {}", crate::words::exit_code(&e), crate::words::message(&e)),
    }
}

/// Asserts that a message holds each of the parts.
#[track_caller]
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
