//! The compiler's forward pass against transformers, on prompts without near-ties.

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use tritc::load::{ActivationChoice, LoadOptions, load};
use tritc::{CompileError, reference};

use crate::synthetic;

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Compares states after each layer and the logits of every token with those in `goldens`.
fn matches_transformers(checkpoint: &str, goldens: &str) {
    matches_with(&LoadOptions::default(), checkpoint, goldens);
}

fn matches_with(options: &LoadOptions, checkpoint: &str, goldens: &str) {
    let model = load(&repository().join(checkpoint), options).unwrap();
    let bytes = std::fs::read(repository().join(goldens)).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        let data = goldens.tensor(name).ok()?.data().to_vec();
        Some(data.as_chunks().0.to_vec())
    };
    let floats =
        |name: &str| -> Vec<f32> { words(name).unwrap().into_iter().map(f32::from_le_bytes).collect() };
    let hidden_dim = model.hyperparameters.hidden_dim as usize;
    let mut prompts = 0;
    while let Some(ids) = words(&format!("t{prompts}.ids")) {
        let ids: Vec<u32> = ids.into_iter().map(u32::from_le_bytes).collect();
        let (logits, hidden) = (floats(&format!("t{prompts}.logits")), floats(&format!("t{prompts}.hidden")));
        let close = |what: &str, found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "prompt {prompts} {what}: {a} {b}");
            }
        };
        // [layers + 1, n, hidden]: the embedding first, after the final norm last.
        let layer = ids.len() * hidden_dim;
        let states = reference::forward(&model, &ids, |l, h| {
            if l + 1 < model.layers.len() {
                close(&format!("layer {l}"), h, &hidden[(l + 1) * layer..][..layer]);
            }
        });
        let states = states.unwrap();
        close("final states", &states, &hidden[hidden.len() - layer..]);
        for (t, (state, expected)) in
            states.chunks(hidden_dim).zip(logits.chunks(logits.len() / ids.len())).enumerate()
        {
            close(&format!("logits of token {t}"), &reference::head(&model, state).unwrap(), expected);
        }
        prompts += 1;
    }
    assert!(prompts >= 4, "{prompts} prompts");
}

#[test]
fn packed_bitnet_that_was_trained() {
    matches_transformers("examples/models/fables-12m", "tests/fixtures/fables-12m.tight.safetensors");
}

#[test]
fn latent_bitnet() {
    matches_transformers(
        "tests/fixtures/bitnet-online",
        "tests/fixtures/bitnet-online/golden.tight.safetensors",
    );
}

#[test]
fn packed_bitnet_with_llama3_rope() {
    let fixture = "tests/fixtures/bitnet-llama3-rope";
    matches_transformers(fixture, &format!("{fixture}/golden.tight.safetensors"));
}

#[test]
fn packed_llama() {
    let fixture = "tests/fixtures/llama-bitlinear";
    matches_transformers(fixture, &format!("{fixture}/golden.tight.safetensors"));
}

/// A fixture whose folder holds its tight prompts.
fn fixture_matches(name: &str, options: &LoadOptions) {
    let fixture = format!("tests/fixtures/{name}");
    matches_with(options, &fixture, &format!("{fixture}/golden.tight.safetensors"));
}

/// Latent, with norms before o and down by other names.
#[test]
fn bitnet_in_the_layout_of_1bitllm() {
    fixture_matches("bitnet-1bitllm", &LoadOptions::default());
}

#[test]
fn latent_llama_with_norms_inside_linears() {
    fixture_matches("llama-autobit-online-rmsnorm", &LoadOptions::default());
}

/// Norms everywhere, windows shorter than the prompts, two RoPEs, a scaled embedding.
#[test]
fn latent_gemma3_with_norms_inside_linears() {
    fixture_matches("gemma3-online-rmsnorm", &LoadOptions::default());
}

/// Norms of heads; some linears are floats.
#[test]
fn packed_qwen3_with_yarn() {
    fixture_matches("qwen3-yarn-mixed", &LoadOptions::default());
}

/// LongRoPE's short factors.
#[test]
fn latent_llama_with_a_ternary_head() {
    fixture_matches("llama-longrope-head", &LoadOptions::default());
}

/// Against MiniCPM's formulas; its hidden states in the goldens are divided as bundles keep them.
#[test]
fn weight_only_minicpm() {
    let options = LoadOptions { activations: ActivationChoice::F32, ..LoadOptions::default() };
    fixture_matches("minicpm-g32", &options);
}

/// Heads that are normalized after RoPE, whose base is stretched; a scale for 256 columns.
#[test]
fn weight_only_hunyuan() {
    let options = LoadOptions { activations: ActivationChoice::F32, ..LoadOptions::default() };
    fixture_matches("hunyuan-sherry", &options);
}

/// A prompt of 150 tokens, beyond the original context: transformers takes the long factors for all of it.
#[test]
fn longropes_long_factors() {
    let fixture = repository().join("tests/fixtures/llama-longrope-head");
    let bytes = std::fs::read(fixture.join("golden.f32.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| goldens.tensor(name).unwrap().data().as_chunks().0.to_vec();
    let ids: Vec<u32> = words("long.ids").into_iter().map(u32::from_le_bytes).collect();
    let golden: Vec<f32> = words("long.last_logits").into_iter().map(f32::from_le_bytes).collect();
    let distance = |context| {
        let model = load(&fixture, &LoadOptions { context, ..LoadOptions::default() }).unwrap();
        let logits = reference::logits(&model, &ids).unwrap();
        let square = |x: f32| f64::from(x * x);
        let far: f64 = logits.iter().zip(&golden).map(|(a, b)| square(a - b)).sum();
        (far / golden.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
    };
    // No prompt of that length keeps away from every rounding boundary, so it is held to the noise of int8.
    assert!(distance(Some(150)) < 3e-2, "{}", distance(Some(150)));
    assert!(distance(Some(128)) > 0.1, "the short factors give {}", distance(Some(128)));
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let model = synthetic::model();
    for ids in [&[][..], &[1, synthetic::VOCAB as u32]] {
        assert!(matches!(reference::logits(&model, ids), Err(CompileError::TokenIds(_))));
    }
}
