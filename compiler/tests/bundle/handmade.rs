//! Models that were made by hand and contradict themselves: an error, and no panic, from everything that takes a model.

use crate::synthetic;
use trit_format::plan::DType;
use tritc::compile::compile;
use tritc::load::{LoadOptions, load};
use tritc::model::{Matrix, Model};
use tritc::progress::Silent;
use tritc::{CompileError, reference};

#[test]
fn models_that_contradict_themselves_are_refused() {
    type Bend = fn(&mut Model);
    let bends: [(Bend, &str); 15] = [
        (|m| m.hyperparameters.hidden_dim = 0, "hidden_dim is 0"),
        (|m| m.hyperparameters.n_kv_heads = 0, "n_kv_heads is 0"),
        (|m| m.hyperparameters.n_kv_heads += 1, "heads of"),
        (|m| m.hyperparameters.head_dim = 1, "heads of 1"),
        (|m| m.hyperparameters.vocab_size += 1, "model.embed_tokens.weight is"),
        (|m| m.layers[1].attention_mut().unwrap().rope = 9, "RoPE 9"),
        (|m| m.ropes[0].inv_freq.clear(), "0 RoPE frequencies"),
        (|m| m.final_norm.1.clear(), "model.norm.weight has 0 weights"),
        (|m| m.layers[0].input_norm.1.push(1.0), "input_layernorm"),
        (|m| m.layers[0].attention_mut().unwrap().sub_norm.as_mut().unwrap().1.clear(), "attn_sub_norm"),
        (|m| m.layers[0].attention_mut().unwrap().q = m.layers[1].down.clone(), "down_proj"),
        (
            |m| m.layers[1].attention_mut().unwrap().k.norm = Some(("inner".to_owned(), vec![1.0])),
            "inner has 1 weights",
        ),
        (|m| m.head = Some(m.layers[0].attention().unwrap().q.matrix.clone()), "q_proj"),
        (
            |m| match &mut m.embedding {
                Matrix::Dense(dense) => dense.dtype = DType::I32,
                Matrix::Ternary(_) => unreachable!("the synthetic model has an embedding of floats"),
            },
            "expected floats",
        ),
        (
            |m| match &mut m.embedding {
                Matrix::Dense(dense) => dense.data = std::sync::Arc::new(vec![0u8; 3]),
                Matrix::Ternary(_) => unreachable!("the synthetic model has an embedding of floats"),
            },
            "has 3 bytes",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (bend, words) in bends {
        let mut model = synthetic::model();
        model.check().unwrap();
        bend(&mut model);
        let state = vec![0.0; 8];
        for error in [
            compile(&model, &folder.path().join("out.trit"), &[], &Silent).unwrap_err(),
            reference::logits(&model, &[1]).unwrap_err(),
            reference::forward(&model, &[1], |_, _| {}).unwrap_err(),
            reference::head(&model, &state).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(matches!(error, CompileError::Model(_)), "{text}");
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Packed, latent, and floats that are found to be ternary; blocks of GGUF files are in the tests of those.
#[test]
fn rows_that_a_matrix_does_not_have_are_an_error() {
    for fixture in ["llama-bitlinear", "bitnet-online", "llama-trilm"] {
        let path = crate::reference::repository().join("tests/fixtures").join(fixture);
        let model = load(&path, &LoadOptions::default()).unwrap();
        let Matrix::Ternary(matrix) = &model.layers[0].attention().unwrap().q.matrix else {
            panic!("{fixture}")
        };
        let mut row = vec![0; matrix.k];
        matrix.trits.read_row(matrix.rows - 1, &mut row).unwrap();
        for beyond in [matrix.rows, 4 * matrix.rows, usize::MAX] {
            assert!(matrix.trits.read_row(beyond, &mut row).is_err(), "{fixture}: {beyond}");
            let mut scales = vec![0.0; matrix.scales_per_row()];
            if !scales.is_empty() {
                assert!(matrix.factors(beyond, 0, &mut scales).is_err(), "{fixture}: {beyond}");
            }
        }
        if matrix.scales_per_row() > 1 {
            assert!(matrix.factors(0, 32, &mut vec![0.0; matrix.k]).is_err(), "{fixture}");
        }
    }
}
