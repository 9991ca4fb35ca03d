//! Models whose weights are signs times a scale for each 128 columns, as 1-bit Bonsai's are: from floats and from GGUF's
//! Q1_0 they are the same model, take one bit a weight, and give the same with every kernel.

use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use trit_format::dense243::Code;
use trit_runtime::KernelChoice;
use trit_tests::distance::max_abs;
use trit_tests::ways::{Way, all_logits, ways};
use trit_tests::workbench::{compile_with, run, scratch, trit_run, tritc};
use tritc::load::{ActivationChoice, LoadOptions, load};
use tritc::reference;

/// Qwen3, with a vocabulary that is no whole number of tiles of 128 rows.
const HIDDEN: usize = 256;
const FFN: usize = 384;
const VOCAB: usize = 300;
const HEADS: usize = 4;
const HEAD_DIM: usize = 64;
const LAYERS: usize = 2;
/// Columns that share a scale.
const GROUP: usize = 128;

/// Our forward passes against the compiler's, which shares no arithmetic with them.
const REFERENCE: f32 = 1e-3;
/// Among our own ways to run: all have the same integers, and floats in the same order.
const OURS: f32 = 1e-5;

/// A matrix of signs: one scale for each group of a row.
struct Signs {
    rows: usize,
    k: usize,
    signs: Vec<i8>,
    scales: Vec<f16>,
}

impl Signs {
    fn new(name: &str, rows: usize, k: usize) -> Signs {
        let mut state = name.bytes().fold(7u64, |s, b| s.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let signs = (0..rows * k).map(|_| (next() & 1) as i8 * 2 - 1).collect();
        let scale = |n: u64| f16::from_f32(0.02 + (n % 1000) as f32 / 20_000.0);
        Signs { rows, k, signs, scales: (0..rows * k / GROUP).map(|_| scale(next())).collect() }
    }

    /// F16, each weight times its scale.
    fn floats(&self) -> Vec<u8> {
        let weights = self.signs.chunks(GROUP).zip(&self.scales);
        weights
            .flat_map(|(signs, scale)| signs.iter().map(|&s| if s > 0 { *scale } else { -*scale }))
            .flat_map(f16::to_le_bytes)
            .collect()
    }

    /// Q1_0.
    fn blocks(&self) -> Vec<u8> {
        let blocks = self.signs.chunks(GROUP).zip(&self.scales);
        blocks
            .flat_map(|(signs, scale)| {
                let byte = |eight: &[i8]| (0..8).fold(0u8, |byte, i| byte | u8::from(eight[i] > 0) << i);
                scale.to_le_bytes().into_iter().chain(signs.chunks(8).map(byte)).collect::<Vec<u8>>()
            })
            .collect()
    }
}

/// The names of a tensor in a checkpoint and in GGUF.
fn names(module: &str, gguf: &str, layer: Option<usize>) -> (String, String) {
    match layer {
        Some(layer) => {
            (format!("model.layers.{layer}.{module}.weight"), format!("blk.{layer}.{gguf}.weight"))
        }
        None => (format!("{module}.weight"), format!("{gguf}.weight")),
    }
}

fn matrices() -> Vec<((String, String), Signs)> {
    let q = HEADS * HEAD_DIM;
    let mut all = vec![
        (names("model.embed_tokens", "token_embd", None), VOCAB, HIDDEN),
        (names("lm_head", "output", None), VOCAB, HIDDEN),
    ];
    for layer in 0..LAYERS {
        for (module, gguf, rows, k) in [
            ("self_attn.q_proj", "attn_q", q, HIDDEN),
            ("self_attn.k_proj", "attn_k", HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", "attn_v", HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", "attn_output", HIDDEN, q),
            ("mlp.gate_proj", "ffn_gate", FFN, HIDDEN),
            ("mlp.up_proj", "ffn_up", FFN, HIDDEN),
            ("mlp.down_proj", "ffn_down", HIDDEN, FFN),
        ] {
            all.push((names(module, gguf, Some(layer)), rows, k));
        }
    }
    all.into_iter().map(|(names, rows, k)| (names.clone(), Signs::new(&names.0, rows, k))).collect()
}

/// Norms, `[len]`, about 1.
fn norms() -> Vec<((String, String), usize)> {
    let mut all = vec![(names("model.norm", "output_norm", None), HIDDEN)];
    for layer in 0..LAYERS {
        for (module, gguf, len) in [
            ("input_layernorm", "attn_norm", HIDDEN),
            ("post_attention_layernorm", "ffn_norm", HIDDEN),
            ("self_attn.q_norm", "attn_q_norm", HEAD_DIM),
            ("self_attn.k_norm", "attn_k_norm", HEAD_DIM),
        ] {
            all.push((names(module, gguf, Some(layer)), len));
        }
    }
    all
}

fn norm(len: usize) -> Vec<u8> {
    (0..len).flat_map(|i| (0.75 + (i * 7 % 16) as f32 / 32.0).to_le_bytes()).collect()
}

/// Writes the checkpoint with floats, and gives its folder.
fn write_floats() -> PathBuf {
    let folder = scratch().join("one-bit-floats");
    std::fs::create_dir_all(&folder).unwrap();
    let config = serde_json::json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "float16",
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": HEAD_DIM, "hidden_act": "silu",
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
        "rope_theta": 1_000_000.0, "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for ((name, _), matrix) in matrices() {
        tensors.insert(name, (Dtype::F16, vec![matrix.rows, matrix.k], matrix.floats()));
    }
    for ((name, _), len) in norms() {
        tensors.insert(name, (Dtype::F32, vec![len], norm(len)));
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    folder
}

/// Writes the same model as GGUF.
fn write_gguf() -> PathBuf {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let key = |name: &str, kind: u32, value: &[u8]| [&string(name), &kind.to_le_bytes()[..], value].concat();
    let mut keys = vec![key("general.architecture", 8, &string("qwen3"))];
    for (name, value) in [
        ("block_count", LAYERS),
        ("context_length", 256),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FFN),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", 1),
        ("attention.key_length", HEAD_DIM),
        ("attention.value_length", HEAD_DIM),
        ("vocab_size", VOCAB),
    ] {
        keys.push(key(&format!("qwen3.{name}"), 4, &(value as u32).to_le_bytes()));
    }
    for (name, value) in [("attention.layer_norm_rms_epsilon", 1e-6f32), ("rope.freq_base", 1e6)] {
        keys.push(key(&format!("qwen3.{name}"), 6, &value.to_le_bytes()));
    }
    // Name, dimensions with the fastest first, type, bytes.
    let signs = matrices().into_iter().map(|((_, name), m)| (name, vec![m.k, m.rows], 41u32, m.blocks()));
    let norms = norms().into_iter().map(|((_, name), len)| (name, vec![len], 0, norm(len)));
    let tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)> = signs.chain(norms).collect();
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    file.extend(keys.concat());
    let mut data = Vec::new();
    for (name, dimensions, kind, bytes) in tensors {
        file.extend(string(&name));
        file.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|&size| file.extend((size as u64).to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    let path = scratch().join("one-bit.gguf");
    std::fs::write(&path, file).unwrap();
    path
}

/// Both are written once: tests run at the same time.
static FLOATS: LazyLock<PathBuf> = LazyLock::new(write_floats);
static GGUF: LazyLock<PathBuf> = LazyLock::new(write_gguf);

/// More than a block kernel's least rows, and no multiple of what kernels take at once.
fn prompt() -> Vec<u32> {
    (0..37).map(|i| (i * 71 + 5) % VOCAB as u32).collect()
}

/// The compiler's own forward pass, the logits after the last token.
fn expected(checkpoint: &Path, activations: ActivationChoice) -> Vec<f32> {
    let options = LoadOptions { activations, ..LoadOptions::default() };
    let model = load(checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
    reference::logits(&model, &prompt()).unwrap()
}

#[test]
fn every_kernel_gives_the_same_and_the_reference() {
    let checkpoint = &*FLOATS;
    for (name, activations) in [("f32", ActivationChoice::F32), ("auto", ActivationChoice::Auto)] {
        let bundle = compile_with(checkpoint, &format!("one-bit-{name}"), &["--activations", name]);
        let expected = expected(checkpoint, activations);
        let mut first: Option<Vec<f32>> = None;
        for way in ways() {
            let mut session = way.open(&bundle);
            let logits = all_logits(&mut session, &prompt());
            let far = max_abs(&logits[logits.len() - VOCAB..], &expected);
            assert!(far <= REFERENCE, "{name} {way:?}: a logit differs by {far} from the reference");
            let far = max_abs(&logits, first.get_or_insert_with(|| logits.clone()));
            assert!(far <= OURS, "{name} {way:?}: a logit differs by {far}");
        }
    }
}

#[test]
fn floats_and_q1_0_are_the_same_model() {
    let from_floats = compile_with(&FLOATS, "one-bit-same-floats", &["--activations", "f32"]);
    let from_blocks = compile_with(&GGUF, "one-bit-same-blocks", &["--activations", "f32"]);
    let way = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
    let [a, b] = [&from_floats, &from_blocks].map(|bundle| {
        let mut session = way.open(bundle);
        let manifest = session.model().manifest();
        for matrix in &manifest.packed_matrices {
            assert_eq!(matrix.code, Code::Binary, "{}", matrix.name);
            assert_eq!(matrix.tiles(), matrix.rows().div_ceil(128), "{}", matrix.name);
            // 128 rows take 16 bytes a column, and two bytes of scales for 128 columns.
            assert_eq!(matrix.tile_bytes(), u64::from(matrix.k) * 16 + u64::from(matrix.k) / 128 * 256);
        }
        all_logits(&mut session, &prompt())
    });
    assert_eq!(a, b);
}

#[test]
fn what_the_bundle_knows_of_itself_holds() {
    let bundle = compile_with(&GGUF, "one-bit-selftest", &[]);
    let bundle = bundle.to_str().unwrap();
    for more in [&[][..], &["--kernels", "jit"], &["--kernels", "portable"]] {
        run(trit_run(&[&["selftest", bundle], more].concat())).ok();
    }
    run(tritc(&["verify", bundle, "--rebuild"])).ok();
    assert!(run(tritc(&["inspect", bundle, "--json"])).ok().contains("\"binary\""));
}
