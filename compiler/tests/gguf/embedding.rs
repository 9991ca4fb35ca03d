//! Models that turn texts into vectors, with an RMSNorm inside each linear, as Microsoft's bitnet-embedding: written here from the
//! fixture `llama-autobit-online-rmsnorm`.

use crate::warned;
use crate::writer::{File, f32, read, ternary, text, u32};
use std::path::{Path, PathBuf};
use trit_format::plan::ScaleRule;
use tritc::load::{LoadOptions, load};
use tritc::model::{Projection, Scales};
use tritc::reference;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("tests/fixtures/llama-autobit-online-rmsnorm")
}

/// The weights as floats; rows of `heads` heads interleaved, as llama.cpp's converter leaves them.
fn linear(file: &mut File, name: &str, projection: &Projection, heads: Option<usize>) {
    let matrix = ternary(projection);
    let Scales::Tensor { scale, rule: ScaleRule::Divide } = matrix.scales else {
        panic!("that of latent weights")
    };
    let scale = 1.0 / scale;
    let trits = read(matrix).unwrap();
    let head_dim = heads.map_or(1, |heads| matrix.rows / heads);
    let row = |at: usize| match head_dim {
        1 => at,
        _ => at / head_dim * head_dim + at % head_dim % 2 * (head_dim / 2) + at % head_dim / 2,
    };
    let rows = (0..matrix.rows).flat_map(|at| &trits[row(at) * matrix.k..][..matrix.k]);
    let bytes = rows.flat_map(|&trit| (f32::from(trit) * scale).to_le_bytes()).collect();
    file.tensor(&format!("{name}.weight"), &[matrix.k as u64, matrix.rows as u64], 0, bytes);
    file.norm(&format!("{name}_norm_in.weight"), projection.norm.as_ref().unwrap());
}

fn converted() -> File {
    let model = load(&fixture(), &LoadOptions::default()).unwrap();
    let sizes = model.hyperparameters;
    let mut file = File::empty();
    file.key("general.architecture", text("llama"));
    file.sizes("llama", &sizes).key("llama.pooling_type", u32(3));
    file.key("llama.attention.layer_norm_rms_epsilon", f32(1e-6));
    file.table("token_embd.weight", &model.embedding);
    file.table("output.weight", model.head.as_ref().unwrap());
    file.norm("output_norm.weight", &model.final_norm);
    let [n_heads, n_kv_heads] = [sizes.n_heads, sizes.n_kv_heads].map(|n| Some(n as usize));
    for (index, layer) in model.layers.iter().enumerate() {
        let at = |part: &str| format!("blk.{index}.{part}");
        let attention = layer.attention().unwrap();
        file.norm(&at("attn_norm.weight"), &layer.input_norm);
        file.norm(&at("ffn_norm.weight"), &layer.ffn_norm);
        for (part, projection, heads) in [
            ("attn_q", &attention.q, n_heads),
            ("attn_k", &attention.k, n_kv_heads),
            ("attn_v", &attention.v, None),
            ("attn_output", &attention.o, None),
            ("ffn_gate", &layer.gate, None),
            ("ffn_up", &layer.up, None),
            ("ffn_down", &layer.down, None),
        ] {
            linear(&mut file, &at(part), projection, heads);
        }
    }
    file
}

fn bent(bend: impl FnOnce(&mut File)) -> File {
    let mut file = converted();
    bend(&mut file);
    file
}

/// Trits, norms and activations are those of the checkpoint, and so are the logits, as far as scales are.
#[test]
fn is_the_same_model_as_its_checkpoint() {
    let checkpoint = load(&fixture(), &LoadOptions::default()).unwrap();
    let model = converted().load().unwrap();
    assert_eq!(
        (model.activations, model.linear_rms_eps),
        (checkpoint.activations, checkpoint.linear_rms_eps)
    );
    for (layer, other) in model.layers.iter().zip(&checkpoint.layers) {
        for (found, expected) in layer.projections().into_iter().zip(other.projections()) {
            assert_eq!(read(ternary(found)).unwrap(), read(ternary(expected)).unwrap());
            assert_eq!(found.norm.as_ref().unwrap().1, expected.norm.as_ref().unwrap().1);
        }
    }
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % 512).collect();
    let [found, expected] = [&model, &checkpoint].map(|model| reference::logits(model, &ids).unwrap());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let apart =
        norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    // A scale that multiplies is the inverse of one that divides, rounded.
    assert!(apart < 1e-3, "{apart}");
}

#[test]
fn how_vectors_are_made_is_said() {
    let said = |kind: u32| {
        warned(
            &bent(|file| {
                file.key("llama.pooling_type", u32(kind));
            })
            .load()
            .unwrap()
            .warnings,
        )
    };
    assert!(
        said(3).contains("turns texts into vectors") && said(3).contains("the last token"),
        "{}",
        said(3)
    );
    assert!(said(1).contains("the mean of all") && said(1).contains("bitnet-embedding"), "{}", said(1));
    assert!(!said(0).contains("vectors"), "{}", said(0));
}

/// A norm that is missing is named; one more than there are linears is not left out.
#[test]
fn norms_inside_are_all_there() {
    bent(|file| {
        file.without_tensor("blk.1.ffn_up_norm_in.weight");
    })
    .refused(&["[3]", "model.layers.1.mlp.up_proj.rms_norm.weight", "missing"]);
    bent(|file| {
        file.tensor("blk.1.attn_gate_norm_in.weight", &[128], 0, vec![0; 512]);
    })
    .refused(&["blk.1.attn_gate_norm_in.weight", "not understood"]);
}
