//! Files of `hunyuan-dense` in STQ1_0 blocks, as Hy-MT is published: written here from the fixture `hunyuan-sherry`, and bent.

use crate::text::with_tokenizer;
use crate::writer::{File, f32, read, ternary, text, u32};
use half::f16;
use std::path::{Path, PathBuf};
use tritc::load::{ActivationChoice, LoadOptions, load};
use tritc::model::{Found, Model, Scales, Ternary};
use tritc::reference;

const DOWN: &str = "blk.1.ffn_down.weight";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/fixtures/hunyuan-sherry")
}

fn checkpoint() -> Model {
    load(&fixture(), &LoadOptions::default()).unwrap()
}

/// What each of the 32 blocks' groups of four trits is, by the words of the format: which is zero, and the signs of the others
/// relative to the first of them.
fn stq1_0(trits: &[i8], scale: f32) -> Vec<u8> {
    let mut block = [0; 42];
    for group in 0..64 {
        let four = [0, 1, 2, 3].map(|lane| trits[64 * (group / 16) + group % 16 + 16 * lane]);
        let zero = four.iter().position(|&trit| trit == 0).expect("one of four is zero");
        let signs: Vec<i8> = four.into_iter().filter(|&trit| trit != 0).collect();
        assert_eq!(signs.len(), 3, "one of four is zero, and no other");
        let differs = |at: usize| u8::from(signs[at] != signs[0]);
        let slot = (zero as u8) << 2 | differs(2) << 1 | differs(1);
        block[group / 2] |= slot << (4 * (group % 2));
        block[32 + group / 8] |= u8::from(signs[0] < 0) << (group % 8);
    }
    block[40..].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    block.to_vec()
}

/// The scale of each run of 256 columns of a row.
fn scales(matrix: &Ternary, row: usize) -> Vec<f32> {
    let mut scales = vec![0.0; matrix.scales_per_row()];
    matrix.trits.read_scales(row, &mut scales).unwrap();
    scales
}

fn matrix(file: &mut File, name: &str, kind: u32, matrix: &Ternary) {
    let trits = read(matrix).unwrap();
    let mut bytes = Vec::new();
    for (row, trits) in trits.chunks(matrix.k).enumerate() {
        for (block, scale) in trits.chunks(256).zip(scales(matrix, row)) {
            bytes.extend(stq1_0(block, scale));
        }
    }
    file.tensor(name, &[matrix.k as u64, matrix.rows as u64], kind, bytes);
}

/// The fixture as llama.cpp's converter and Tencent's quantizer write it, with its matrices of type `kind`.
fn converted(kind: u32) -> File {
    let model = checkpoint();
    let dims = model.hyperparameters;
    let mut file = File::empty();
    file.key("general.architecture", text("hunyuan-dense"));
    file.sizes("hunyuan-dense", &dims);
    for (key, size) in [
        ("attention.key_length", dims.head_dim),
        ("attention.value_length", dims.head_dim),
        ("rope.dimension_count", dims.head_dim),
        ("rope.scaling.original_context_length", dims.context_length),
        ("vocab_size", dims.vocab_size),
    ] {
        file.key(&format!("hunyuan-dense.{key}"), u32(size));
    }
    file.key("hunyuan-dense.attention.layer_norm_rms_epsilon", f32(1e-5));
    // 1e4, stretched by an alpha of 1000 for heads of 64.
    file.key("hunyuan-dense.rope.freq_base", f32((1e4 * 1000f64.powf(64.0 / 62.0)) as f32));
    file.key("hunyuan-dense.rope.scaling.type", text("none"));
    file.key("hunyuan-dense.rope.scaling.factor", f32(1.0));
    file.table("token_embd.weight", &model.embedding);
    file.norm("output_norm.weight", &model.final_norm);
    for (index, layer) in model.layers.iter().enumerate() {
        let at = |part: &str| format!("blk.{index}.{part}.weight");
        let attention = layer.attention().unwrap();
        let heads = attention.head_norms.as_ref().unwrap();
        for (part, norm) in [
            ("attn_norm", &layer.input_norm),
            ("ffn_norm", &layer.ffn_norm),
            ("attn_q_norm", &heads.q),
            ("attn_k_norm", &heads.k),
        ] {
            file.norm(&at(part), norm);
        }
        for (part, projection) in [
            ("attn_q", &attention.q),
            ("attn_k", &attention.k),
            ("attn_v", &attention.v),
            ("attn_output", &attention.o),
            ("ffn_gate", &layer.gate),
            ("ffn_up", &layer.up),
            ("ffn_down", &layer.down),
        ] {
            matrix(&mut file, &at(part), kind, ternary(projection));
        }
    }
    file
}

fn bent(bend: impl FnOnce(&mut File)) -> File {
    let mut file = converted(43);
    bend(&mut file);
    file
}

/// Both numbers of the type give the trits, scales and logits of the checkpoint, bit for bit.
#[test]
fn is_the_same_model_as_its_checkpoint() {
    let floats = LoadOptions { activations: ActivationChoice::F32, ..LoadOptions::default() };
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % 192).collect();
    for options in [LoadOptions::default(), floats] {
        let checkpoint = load(&fixture(), &options).unwrap();
        let expected = reference::logits(&checkpoint, &ids).unwrap();
        for kind in [42, 43] {
            let model = converted(kind).load_with(&options).unwrap();
            assert_eq!(model.info.architecture, "HunYuanDenseV1ForCausalLM");
            assert_eq!(
                (model.hyperparameters, &model.ropes),
                (checkpoint.hyperparameters, &checkpoint.ropes)
            );
            assert_eq!((model.rms_eps, model.head.is_none()), (1e-5, true));
            for (layer, other) in model.layers.iter().zip(&checkpoint.layers) {
                assert!(layer.attention().unwrap().head_norms.as_ref().unwrap().after_rope);
                for (found, expected) in layer.projections().into_iter().zip(other.projections()) {
                    let (found, expected) = (ternary(found), ternary(expected));
                    assert_eq!(read(found).unwrap(), read(expected).unwrap(), "{}", expected.name);
                    for row in 0..expected.rows {
                        assert_eq!(scales(found, row), scales(expected, row), "{} {row}", expected.name);
                    }
                }
            }
            assert_eq!(reference::logits(&model, &ids).unwrap(), expected, "{kind}");
            let report = |name: &str| model.report.iter().find(|report| report.name == name).unwrap();
            assert_eq!(
                (report(DOWN).stored.as_str(), report(DOWN).found),
                ("STQ1_0", Found::PerColumns(256))
            );
            assert_eq!(report("blk.1.ffn_up.weight").found, Found::PerRow);
        }
    }
}

/// Blocks may share one scale; a block whose scale is zero is one of zeros.
#[test]
fn scales_of_blocks() {
    let model = bent(|file| {
        file.at(DOWN).bytes.chunks_mut(42).for_each(|block| block[40..].copy_from_slice(&[0, 0x38]));
    });
    let model = model.load().unwrap();
    assert!(matches!(ternary(&model.layers[1].down).scales, Scales::Tensor { scale: 0.5, .. }));
    let file = bent(|file| file.at(DOWN).bytes[40..42].fill(0));
    let model = file.load().unwrap();
    assert!(read(ternary(&model.layers[1].down)).unwrap()[..256].iter().all(|&trit| trit == 0));
    bent(|file| file.at(DOWN).bytes[40..42].copy_from_slice(&[0, 0x7c])).refused(&[
        "[3]",
        DOWN,
        "scale inf",
        "row 0, column 0",
    ]);
    bent(|file| file.at(DOWN).bytes[42 + 41] |= 0x80).refused(&["[3]", DOWN, "row 0, column 256"]);
}

#[test]
fn the_three_types_of_number_42_are_told_apart() {
    // In one file they are of no program.
    let mut file = converted(42);
    let trits = vec![0; 256 * 512];
    file.at(DOWN).bytes = crate::writer::q2_0(&trits, 0.5);
    file.refused(&["[3]", DOWN, "type 42", "18 for every 64", "34 for every 128", "42 for every 256"]);
    // So few bytes between tensors that a block of each fits.
    let mut file = converted(42);
    file.tensors.retain(|tensor| tensor.kind != 42);
    file.tensor(DOWN, &[256, 1], 42, vec![0; 42]);
    file.alignment = 128;
    file.key("general.alignment", u32(128));
    file.floats("blk.1.zzz.weight", &[1]);
    file.refused(&["[3]", DOWN, "Q2_0 or STQ1_0", "fit both"]);
}

#[test]
fn what_makes_it_another_model_is_refused() {
    for norm in ["attn_q_norm", "attn_k_norm"] {
        let name = format!("blk.1.{norm}.weight");
        let own = if norm == "attn_q_norm" { "query_layernorm" } else { "key_layernorm" };
        bent(|file| {
            file.without_tensor(&name);
        })
        .refused(&["[3]", own, "missing"]);
    }
    bent(|file| {
        file.floats("blk.0.attn_q.bias", &[256]);
    })
    .refused(&["[3]", "blk.0.attn_q.bias", "biases are not yet supported"]);
    bent(|file| {
        file.key("hunyuan-dense.expert_count", u32(16));
    })
    .refused(&["[4]", "hunyuan-dense.expert_count", "mixtures of experts"]);
    for other in ["hunyuan-moe", "hunyuan_vl"] {
        bent(|file| {
            file.key("general.architecture", text(other));
        })
        .refused(&["[4]", other, "hunyuan-dense"]);
    }
}

/// llama.cpp stretches the base itself where a file says so.
#[test]
fn alpha_may_stand_in_the_file() {
    let file = bent(|file| {
        file.key("hunyuan-dense.rope.freq_base", f32(1e4));
        file.key("hunyuan-dense.rope.scaling.alpha", f32(1000.0));
    });
    assert_eq!(file.load().unwrap().ropes, checkpoint().ropes);
    bent(|file| {
        file.key("hunyuan-dense.rope.scaling.alpha", f32(2.0));
        file.key("hunyuan-dense.rope.scaling.type", text("linear"));
        file.key("hunyuan-dense.rope.scaling.factor", f32(2.0));
    })
    .refused(&["[4]", "rope.scaling.alpha is 2", "another scaling"]);
    bent(|file| {
        file.key("hunyuan-dense.rope.scaling.alpha", f32(-2.0));
    })
    .refused(&["[3]", "alpha is -2"]);
}

#[test]
fn texts_are_split_by_its_patterns() {
    let mut file = with_tokenizer(converted(43));
    file.key("tokenizer.ggml.pre", text("hunyuan-dense"));
    file.key("general.sampling.temp", f32(0.75));
    let model = file.load().unwrap();
    assert_eq!((model.text.bos, &model.text.stop[..]), (Some(7), &[8, 9][..]));
    assert_eq!(model.text.sampling.temperature, Some(0.75));
    assert!(model.text.chat_template.is_some());
    let tokenizer = tokenizers::Tokenizer::from_bytes(model.tokenizer.as_ref().unwrap()).unwrap();
    // Nothing says that texts begin with a token, so they do not.
    assert_eq!(tokenizer.encode("abc ab", true).unwrap().get_ids(), [6, 3, 4]);
}
