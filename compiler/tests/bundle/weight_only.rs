//! Models that were trained with float activations, from checkpoints of plain floats, against transformers.

use crate::reference::repository;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;
use tritc::load::{ActivationChoice, LoadOptions, load};
use tritc::model::{Activations, Found, Model};
use tritc::reference;

/// With float activations only rounding differs from transformers.
const FLOAT: f32 = 1e-4;
/// Logits this far apart keep their order under that.
const MARGIN: f32 = 1e-3;

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

fn model(name: &str, activations: ActivationChoice) -> Model {
    load(&fixture(name), &LoadOptions { activations, ..LoadOptions::default() }).unwrap()
}

/// One prompt of the goldens.
struct Prompt {
    ids: Vec<u32>,
    greedy: Vec<u32>,
    /// `[ids, vocab]`.
    logits: Vec<f32>,
    /// `[64]`, between the greatest and the second logit where each greedy token was chosen.
    margins: Vec<f32>,
}

fn prompts(name: &str) -> Vec<Prompt> {
    let json = std::fs::read(fixture(name).join("golden.f32.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let bytes = std::fs::read(fixture(name).join("golden.f32.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| -> Vec<f32> {
        let words = goldens.tensor(&name).unwrap().data().as_chunks().0.to_vec();
        words.into_iter().map(f32::from_le_bytes).collect()
    };
    let prompt = |(i, p): (usize, &Value)| Prompt {
        ids: serde_json::from_value(p["ids"].clone()).unwrap(),
        greedy: serde_json::from_value(p["greedy"].clone()).unwrap(),
        logits: floats(format!("p{i}.all_logits")),
        margins: floats(format!("p{i}.greedy_margin")),
    };
    json["prompts"].as_array().unwrap().iter().enumerate().map(prompt).collect()
}

/// Logits after each of `ids`.
fn all_logits(model: &Model, ids: &[u32]) -> Vec<Vec<f32>> {
    let states = reference::forward(model, ids, |_, _| ()).unwrap();
    let states = states.chunks(model.hyperparameters.hidden_dim as usize);
    states.map(|state| reference::head(model, state).unwrap()).collect()
}

fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// With float activations every logit and every greedy token is transformers' own.
fn matches_transformers(name: &str) {
    let model = model(name, ActivationChoice::F32);
    assert_eq!(model.activations, Activations::F32);
    for Prompt { ids, greedy, logits, margins } in prompts(name) {
        let given: Vec<u32> = ids.iter().chain(&greedy[..63]).copied().collect();
        let found = all_logits(&model, &given);
        let far = found.iter().flatten().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= FLOAT, "{name}: a logit differs by {far}");
        assert_eq!(found.len() - 63, logits.len() / model.hyperparameters.vocab_size as usize);
        for (step, (&id, &margin)) in greedy.iter().zip(&margins).enumerate() {
            let best = largest(&found[ids.len() - 1 + step]);
            assert!(best == id || margin < MARGIN, "{name} step {step}: {best} is not {id}");
        }
    }
}

/// What int8 activations by groups cost against float ones: relative L2 of the logits of the prompts, and the
/// negative log-likelihood of each token of them and of their greedy continuations.
fn cost_of_int8(name: &str) -> (f64, f64, f64) {
    let models = [ActivationChoice::Auto, ActivationChoice::F32].map(|choice| model(name, choice));
    assert_eq!(models[0].activations, Activations::Int8Groups);
    let (mut error, mut square, mut nlls, mut count) = (0.0, 0.0, [0.0; 2], 0);
    for Prompt { ids, greedy, logits, .. } in prompts(name) {
        let given: Vec<u32> = ids.iter().chain(&greedy).copied().collect();
        for (model, total) in models.iter().zip(&mut nlls) {
            let found = all_logits(model, &given[..given.len() - 1]);
            *total += found.iter().zip(&given[1..]).map(|(logits, &id)| nll(logits, id)).sum::<f64>();
            if model.activations == Activations::Int8Groups {
                let pairs = found.iter().flatten().zip(&logits);
                error += pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                square += logits.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>();
            }
        }
        count += given.len() - 1;
    }
    let [int8, floats] = nlls.map(|total| total / count as f64);
    let distance = (error / square).sqrt();
    println!("{name}: relative L2 {distance:.5}, NLL {int8:.5} with int8 by groups, {floats:.5} with f32");
    (distance, int8, floats)
}

fn nll(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[id as usize] - max)
}

/// Two scales a matrix, one for each half of its rows; embedding and head are no ternary tables.
#[test]
fn trilm_is_found_and_matches_transformers() {
    let name = "llama-trilm";
    let model = model(name, ActivationChoice::Auto);
    for tensor in &model.report {
        let linear = tensor.name.contains("proj");
        assert_eq!(tensor.found, if linear { Found::PerRow } else { Found::Floats }, "{}", tensor.name);
        assert_eq!(tensor.scales, linear.then_some(2));
        assert_eq!(tensor.stored, "F16");
    }
    assert_eq!(model.report.len(), 2 + 2 * 7);
    matches_transformers(name);
}

#[test]
fn int8_by_groups_costs_trilm_little() {
    let (distance, int8, floats) = cost_of_int8("llama-trilm");
    assert!(distance <= 2e-2, "relative L2 {distance}");
    assert!((int8 / floats - 1.0).abs() <= 1e-2, "NLL {int8} against {floats}");
}

/// A scale for each 128 columns, in embedding and head too; norms of single heads.
#[test]
fn bonsai_is_found_and_matches_transformers() {
    let name = "qwen3-g128";
    let model = model(name, ActivationChoice::Auto);
    for tensor in &model.report {
        assert_eq!(tensor.found, Found::PerColumns(128), "{}", tensor.name);
        assert!(tensor.scales > Some(200) && tensor.zeros > Some(0.3));
    }
    assert_eq!(model.report.len(), 2 + 2 * 7);
    matches_transformers(name);
}

#[test]
fn int8_by_groups_costs_bonsai_little() {
    let (distance, int8, floats) = cost_of_int8("qwen3-g128");
    assert!(distance <= 3e-2, "relative L2 {distance}");
    assert!((int8 / floats - 1.0).abs() <= 1e-2, "NLL {int8} against {floats}");
}
