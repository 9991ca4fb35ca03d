//! Files of `qwen35`: layers with a gated DeltaNet beside layers with gated attention, and rotated weights.

use crate::writer::{File, Value, array, bool, f32, i32s, q2_0, read, text, texts, trits, u32};
use half::f16;
use tritc::model::{DeltaNet, Matrix, Mixer, Model, Projection, Scales};

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

/// Where the heads 0 to 3 of the usual order are stored: two for each of two heads of keys.
const STORED: [usize; 4] = [0, 2, 1, 3];

fn delta_net(model: &Model, layer: usize) -> &DeltaNet {
    match &model.layers[layer].mixer {
        Mixer::DeltaNet(delta_net) => delta_net,
        Mixer::Attention(_) => panic!("layer {layer} has attention"),
    }
}

fn trits_of(projection: &Projection) -> Vec<i8> {
    read(projection.matrix.ternary().unwrap()).unwrap()
}

/// Rows of heads in the usual order, after the rows `before` them.
fn rows_in_order(stored: &[i8], k: usize, before: usize, head_dim: usize) -> Vec<i8> {
    let heads = STORED.iter().map(|at| &stored[(before + at * head_dim) * k..][..head_dim * k]);
    [&stored[..before * k]].into_iter().chain(heads).flatten().copied().collect()
}

/// Columns of heads in the usual order.
fn columns_in_order<T: Copy>(stored: &[T], k: usize) -> Vec<T> {
    let heads =
        |row: &[T]| STORED.iter().flat_map(|at| row[at * k / 4..][..k / 4].to_vec()).collect::<Vec<T>>();
    stored.chunks(k).flat_map(heads).collect()
}

#[test]
fn heads_are_put_in_the_usual_order() {
    let mut file = hybrid();
    let floats = |n: usize| (0..n).map(|i| 1.0 + i as f32).collect::<Vec<f32>>();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    file.tensor("blk.1.ssm_a", &[4], 0, bytes(&floats(4)));
    file.tensor("blk.1.ssm_conv1d.weight", &[4, 256], 0, bytes(&floats(1024)));
    // Gates of floats.
    let gate: Vec<f32> = floats(256);
    file.tensor("blk.1.ssm_beta.weight", &[64, 4], 0, bytes(&gate));
    let q8_0: Vec<u8> = gate
        .chunks(32)
        .flat_map(|block| {
            [f16::from_f32(2.0).to_le_bytes().to_vec(), block.iter().map(|x| (*x as u8) / 2).collect()]
                .concat()
        })
        .collect();
    file.tensor("blk.1.ssm_alpha.weight", &[64, 4], 8, q8_0);
    let model = file.load().unwrap();
    assert_eq!(model.layers.len(), 4);
    assert!(matches!(model.layers[3].mixer, Mixer::Attention(_)));
    let (first, second) = (delta_net(&model, 0), delta_net(&model, 1));
    let stored = |part: &str, n: usize| trits(&format!("blk.0.{part}.weight"), n);
    assert_eq!(trits_of(&first.qkv), rows_in_order(&stored("attn_qkv", 256 * 64), 64, 128, 32));
    assert_eq!(trits_of(&first.z), rows_in_order(&stored("attn_gate", 128 * 64), 64, 0, 32));
    assert_eq!(trits_of(&first.a), rows_in_order(&stored("ssm_alpha", 4 * 64), 64, 0, 1));
    assert_eq!(trits_of(&first.b), rows_in_order(&stored("ssm_beta", 4 * 64), 64, 0, 1));
    assert_eq!(trits_of(&first.o), columns_in_order(&stored("ssm_out", 64 * 128), 128));
    assert_eq!(second.rates.1, [1.0, 3.0, 2.0, 4.0]);
    // `[taps, channels]`; 128 channels of queries and keys stand before those of values.
    let tap = &second.convolution.1[256..512];
    let expected = |channel: usize| match channel {
        0..128 => channel,
        _ => 128 + STORED[(channel - 128) / 32] * 32 + channel % 32,
    };
    assert!((0..256).all(|channel| tap[channel] == 2.0 + 4.0 * expected(channel) as f32));
    let rows = |projection: &Projection| match &projection.matrix {
        Matrix::Dense(dense) => {
            let mut values = vec![0.0; 4 * 64];
            values.chunks_exact_mut(64).enumerate().for_each(|(row, out)| dense.read_row(row, out));
            values
        }
        Matrix::Ternary(_) => Vec::new(),
    };
    let in_order: Vec<f32> = STORED.iter().flat_map(|at| gate[at * 64..][..64].to_vec()).collect();
    assert_eq!(rows(&second.b), in_order);
    let halved: Vec<f32> = in_order.iter().map(|x| 2.0 * f32::from((*x as u8 / 2) as i8)).collect();
    assert_eq!(rows(&second.a), halved);
}

/// A byte of `n` digits.
fn digits(trits: impl Iterator<Item = i8>) -> u8 {
    let mut trits = trits.fuse();
    let number = (0..5).fold(0u32, |number, _| 3 * number + trits.next().map_or(0, |t| (t + 1) as u32));
    (number * 256).div_ceil(243) as u8
}

/// A block of 128 weights in PTQ1_0: runs of 16, 8 and 2 bytes with five, five and four digits.
fn ptq1_0(block: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (start, run, count) in [(0, 16, 5), (80, 8, 5), (120, 2, 4)] {
        bytes.extend((0..run).map(|at| digits((0..count).map(|n| block[start + n * run + at]))));
    }
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes
}

/// Every type in which a product may be stored gives the same weights; scales move with the heads.
#[test]
fn columns_of_heads_move_with_their_scales() {
    let name = "blk.0.ssm_out.weight";
    let stored = trits(name, 64 * 128);
    let expected = columns_in_order(&stored, 128);
    let codes = |block: &[i8], scale: f32| {
        let bytes = block.chunks(4).map(|four| {
            four.iter().enumerate().fold(0, |byte, (i, trit)| byte | ((trit + 1) as u8) << (2 * i))
        });
        f16::from_f32(scale).to_le_bytes().into_iter().chain(bytes).collect::<Vec<u8>>()
    };
    let scale = |index: usize| 0.25 * (1 + index % 7) as f32;
    let blocks = |size: usize, block: &dyn Fn(&[i8], f32) -> Vec<u8>| -> Vec<u8> {
        stored.chunks(size).enumerate().flat_map(|(index, trits)| block(trits, scale(index))).collect()
    };
    let floats: Vec<f32> = stored.iter().enumerate().map(|(i, &t)| f32::from(t) * scale(i / 64)).collect();
    let forms: [(u32, usize, Vec<u8>); 6] = [
        (42, 64, blocks(64, &codes)),
        (142, 128, blocks(128, &codes)),
        (143, 128, blocks(128, &ptq1_0)),
        (0, 64, floats.iter().flat_map(|x| x.to_le_bytes()).collect()),
        (1, 64, floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        (30, 64, floats.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()),
    ];
    for (kind, block, bytes) in forms {
        let mut file = hybrid();
        file.tensor(name, &[128, 64], kind, bytes);
        let model = file.load().unwrap_or_else(|e| panic!("{kind}: {e}"));
        let o = delta_net(&model, 0).o.matrix.ternary().unwrap();
        assert_eq!(read(o).unwrap(), expected, "{kind}");
        // A block of 64 columns holds two heads that do not stand together in the usual order.
        let columns = if block == 64 { 32 } else { 0 };
        assert!(
            matches!(o.scales, Scales::Rows { columns: found, .. } if found == columns),
            "{kind}: {:?}",
            o.scales
        );
        let mut factors = [0.0; 4];
        o.factors(5, 32, &mut factors).unwrap();
        let of_head = |head: usize| scale((5 * 128 + head * 32) / block);
        assert_eq!(factors, STORED.map(of_head), "{kind}");
    }
}

/// Early files of PrismML have blocks of 128 weights under the number of those of 64.
#[test]
fn the_early_blocks_of_128_weights_are_told_by_their_size() {
    let mut file = hybrid();
    let names: Vec<String> = file.tensors.iter().filter(|t| t.kind == 42).map(|t| t.name.clone()).collect();
    for name in names {
        let rows = file.at(&name).dimensions[1] as usize;
        // All rows are made of whole blocks.
        let k = file.at(&name).dimensions[0].max(128);
        if file.at(&name).dimensions[0] < 128 {
            continue;
        }
        let bytes: Vec<u8> = trits(&name, rows * k as usize)
            .chunks(128)
            .flat_map(|block| {
                let whole = q2_0(block, 0.75);
                // The second scale is left out.
                [&whole[..18], &whole[20..]].concat()
            })
            .collect();
        file.tensor(&name, &[k, rows as u64], 42, bytes);
    }
    // A file has one of the two forms. Rows of 64 are no whole number of the larger blocks, so they are floats here.
    let small: Vec<String> = file
        .tensors
        .iter()
        .filter(|t| t.kind == 42 && t.dimensions[0] < 128)
        .map(|t| t.name.clone())
        .collect();
    for name in small {
        let dimensions = file.at(&name).dimensions.clone();
        let n = (dimensions[0] * dimensions[1]) as usize;
        let bytes = trits(&name, n).iter().flat_map(|t| (0.75 * f32::from(*t)).to_le_bytes()).collect();
        file.tensor(&name, &dimensions, 0, bytes);
    }
    let model = file.load().unwrap();
    let expected = columns_in_order(&trits("blk.0.ssm_out.weight", 64 * 128), 128);
    assert_eq!(trits_of(&delta_net(&model, 0).o), expected);
}

/// [`hybrid`] with a draft block after its layers: projections of Q8_0 with codes that count up, of which `ffn_up` is
/// ternary.
fn drafting() -> File {
    let mut file = hybrid();
    file.key("qwen35.block_count", u32(5)).key("qwen35.nextn_predict_layers", u32(1));
    file.key("qwen35.attention.recurrent_layers", array(7, 5, vec![1, 1, 1, 0, 0]));
    for norm in ["attn_norm", "post_attention_norm", "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"] {
        file.floats(&format!("blk.4.{norm}.weight"), &[64]);
    }
    file.floats("blk.4.attn_q_norm.weight", &[64]).floats("blk.4.attn_k_norm.weight", &[64]);
    for (part, rows, k) in [
        ("nextn.eh_proj", 64, 128),
        ("attn_q", 128, 64),
        ("attn_k", 64, 64),
        ("attn_v", 64, 64),
        ("attn_output", 64, 64),
        ("ffn_gate", 128, 64),
        ("ffn_down", 64, 128),
    ] {
        let codes = (0..rows * k).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
        let half = f16::from_f32(0.5).to_le_bytes();
        let blocks = codes.chunks(32).flat_map(|block| [&half[..], block].concat()).collect();
        file.tensor(&format!("blk.4.{part}.weight"), &[k as u64, rows as u64], 8, blocks);
    }
    let name = "blk.4.ffn_up.weight";
    file.tensor(name, &[64, 128], 42, q2_0(&trits(name, 128 * 64), 0.75));
    file
}

#[test]
fn a_draft_block_is_read() {
    let model = drafting().load().unwrap();
    assert_eq!(model.layers.len(), 4);
    let draft = model.draft.as_deref().unwrap();
    let warnings = crate::warned(&model.warnings);
    assert!(!warnings.contains("draft"), "{warnings}");
    assert_eq!(trits_of(&draft.layer.up), trits("blk.4.ffn_up.weight", 128 * 64));
    // Norms are stored whole in these files.
    assert_eq!(draft.embedding_norm.1, model.final_norm.1);
    let row = |projection: &Projection, row: usize| {
        let Matrix::Dense(dense) = &projection.matrix else { panic!("{}", projection.matrix.name()) };
        let mut values = vec![0.0; projection.matrix.shape()[1]];
        dense.read_row(row, &mut values);
        values
    };
    let code = |i: usize| 0.5 * f32::from((i % 251) as u8 as i8);
    assert_eq!(row(&draft.join, 3), (3 * 128..4 * 128).map(code).collect::<Vec<f32>>());
    // The head's queries come first, then its output gate.
    let Mixer::Attention(attention) = &draft.layer.mixer else { panic!() };
    let gate = attention.output_gate.as_ref().unwrap();
    assert_eq!(row(&attention.q, 5), (5 * 64..6 * 64).map(code).collect::<Vec<f32>>());
    assert_eq!(row(gate, 5), (69 * 64..70 * 64).map(code).collect::<Vec<f32>>());
    // The user can do without.
    let options = tritc::load::LoadOptions { without_draft: true, ..Default::default() };
    assert!(drafting().load_with(&options).unwrap().draft.is_none());
}

#[test]
fn a_draft_block_that_is_not_understood_is_left_out() {
    let left_out = |bend: &dyn Fn(&mut File), words: &str| {
        let mut file = drafting();
        bend(&mut file);
        let model = file.load().unwrap();
        assert!(model.layers.len() == 4 && model.draft.is_none());
        let warnings = crate::warned(&model.warnings);
        assert!(warnings.contains(words), "{warnings}");
    };
    left_out(
        &|file| {
            file.without_tensor("blk.4.nextn.hnorm.weight");
        },
        "the block that drafts tokens (14 tensors) is left out: it lacks mtp.pre_fc_norm_hidden.weight",
    );
    left_out(
        &|file| {
            file.floats("blk.4.nextn.embed_tokens.weight", &[64, 16]);
        },
        "it has mtp.layers.0.nextn.embed_tokens.weight, which is not known",
    );
    // A second one.
    left_out(
        &|file| {
            file.key("qwen35.block_count", u32(6)).key("qwen35.nextn_predict_layers", u32(2));
            file.floats("blk.5.attn_norm.weight", &[64]);
        },
        "it has mtp.layers.1.input_layernorm.weight, which is not known",
    );
    let mut file = drafting();
    // The kinds of layers are those of the list.
    file.key("qwen35.full_attention_interval", u32(2));
    assert!(matches!(file.load().unwrap().layers[3].mixer, Mixer::Attention(_)));
    file.key("qwen35.attention.recurrent_layers", array(7, 5, vec![1, 0, 1, 0, 0]));
    file.refused(&["[3]", "model.layers.1.self_attn.q_proj.weight", "is missing"]);
}

/// Heads of half a unit: a matrix with one scale is read, for scales by columns could not be moved.
#[test]
fn small_heads_need_one_scale() {
    let mut file = hybrid();
    file.key("qwen35.ssm.inner_size", u32(64)).key("qwen35.rope.dimension_count", u32(16));
    for layer in 0..3 {
        let at = |part: &str| format!("blk.{layer}.{part}");
        for (part, rows, k) in [("attn_qkv", 192, 64), ("attn_gate", 64, 64), ("ssm_out", 64, 64)] {
            let name = at(&format!("{part}.weight"));
            file.tensor(&name, &[k as u64, rows as u64], 42, q2_0(&trits(&name, rows * k), 0.75));
        }
        file.floats(&at("ssm_conv1d.weight"), &[4, 192]).floats(&at("ssm_norm.weight"), &[16]);
    }
    let name = "blk.0.ssm_out.weight";
    let model = file.load().unwrap();
    assert_eq!(trits_of(&delta_net(&model, 0).o), columns_in_order(&trits(name, 64 * 64), 64));
    let floats = trits(name, 64 * 64).into_iter().enumerate();
    let scaled = floats.map(|(i, t)| f32::from(t) * if i % 64 < 32 { 0.5 } else { 0.75 });
    file.tensor(name, &[64, 64], 0, scaled.flat_map(|x| x.to_le_bytes()).collect());
    file.refused(&["[4]", name, "value heads of 16 columns", "safetensors"]);
}

#[test]
fn rotated_weights_are_known_by_their_names() {
    let model = rotated().load().unwrap();
    let first = delta_net(&model, 0);
    let rotation = first.o.matrix.ternary().unwrap().rotation.as_ref().unwrap();
    assert_eq!((rotation.block, rotation.signs.as_ref().map(Vec::len)), (32, Some(128)));
    assert_eq!(rotation.signs.as_ref().unwrap()[..3], [1.0, 1.0, -1.0]);
    // A folded output product has its columns in the usual order.
    assert_eq!(trits_of(&first.o), trits("blk.0.ssm_out.weight", 64 * 128));
    let stored = trits("blk.0.attn_gate.weight", 128 * 64);
    assert_eq!(trits_of(&first.z), rows_in_order(&stored, 64, 0, 32));
    for gate in [&first.a, &first.b] {
        assert!(gate.matrix.ternary().unwrap().rotation.is_none());
    }
    assert!(model.embedding.ternary().unwrap().rotation.is_some());
    // Those of a draft block may be listed, and the block is left out then.
    let mut file = rotated();
    file.key("qwen35.block_count", u32(5)).key("qwen35.nextn_predict_layers", u32(1));
    file.floats("blk.4.ffn_up.weight", &[64, 64]);
    file.key("prism.hadamard.weight_names", texts(["output.weight", "blk.4.ffn_up.weight"]));
    let model = file.load().unwrap();
    assert!(crate::warned(&model.warnings).contains("(1 tensors) is left out: it is rotated"));
    assert!(model.head.as_ref().unwrap().ternary().unwrap().rotation.is_some());
    assert!(delta_net(&model, 0).o.matrix.ternary().unwrap().rotation.is_none());
    let mut file = rotated();
    file.key("prism.hadamard.sign_mode", text("identity"));
    file.without_key("prism.hadamard.sign_widths").without_key("prism.hadamard.sign_values");
    let model = file.load().unwrap();
    let rotation = delta_net(&model, 0).o.matrix.ternary().unwrap().rotation.as_ref().unwrap();
    assert_eq!((rotation.block, &rotation.signs), (32, &None));
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
pub fn rotated() -> File {
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
