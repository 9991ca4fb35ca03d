//! A small model of every step and every kind of packed matrix, written by hand, against plain floats; and the same
//! bits however it is run.

mod bundle;
mod plain;
mod shapes;
mod states;

use bundle::{Small, Variant};
use std::sync::Arc;
use trit_runtime::format::plan::DType;
use trit_runtime::{
    KernelChoice, KvType, LoadOptions, Logits, LogitsRequest, Model, Session, SessionOptions, Tuning,
};

/// Past a chunk of attention.
const TOKENS: usize = 290;

const VARIANTS: [Variant; 5] = [
    Variant { columns: 32, fixed: true, scale_columns: 0, scale: DType::F32, ternary_ends: true },
    Variant { columns: 32, fixed: true, scale_columns: 64, scale: DType::F16, ternary_ends: false },
    Variant { columns: 128, fixed: true, scale_columns: 128, scale: DType::Bf16, ternary_ends: true },
    Variant { columns: 64, fixed: false, scale_columns: 64, scale: DType::F16, ternary_ends: true },
    Variant { columns: 256, fixed: false, scale_columns: 0, scale: DType::F32, ternary_ends: false },
];

fn load(small: &Small, name: &str, kernels: KernelChoice) -> Arc<Model> {
    let path = std::env::temp_dir().join(format!("trit-grouped-{}-{name}.trit", std::process::id()));
    std::fs::write(&path, small.file()).unwrap();
    let options = LoadOptions { kernels, tuning: Tuning::Off, ..LoadOptions::default() };
    let model = Model::load(&path, &options).unwrap();
    // On Windows a mapped file cannot be removed.
    let _ = std::fs::remove_file(&path);
    model
}

fn tokens(vocab: u32) -> Vec<u32> {
    (0..TOKENS as u32).map(|i| i * i * 7 % vocab).collect()
}

/// The logits after every token, `[tokens, vocab]`.
fn logits(model: &Arc<Model>, ids: &[u32], block: usize, threads: usize) -> Vec<f32> {
    let options = SessionOptions {
        chunk: block,
        threads: Some(threads),
        oversubscribe: true,
        kv: KvType::F32,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), options).unwrap();
    let mut all = Vec::new();
    session.forward_all(ids, &mut |_, logits| all.extend_from_slice(logits)).unwrap();
    all
}

fn distance(ours: &[f32], expected: &[f64]) -> f64 {
    let difference: f64 = ours.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (difference / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

#[test]
fn every_step_is_what_plain_floats_give() {
    for (i, variant) in VARIANTS.into_iter().enumerate() {
        let small = Small::new(variant);
        let ids = tokens(small.vocab());
        let expected = plain::logits(&small, &ids);
        let model = load(&small, &format!("plain{i}"), KernelChoice::Portable);
        let ours = logits(&model, &ids, 64, 2);
        let distance = distance(&ours, &expected);
        // Integers of 24 bits are as good as f32; int8 flips where sums differ in their last bits.
        let allowed = if variant.fixed { 1e-5 } else { 2e-2 };
        assert!(distance < allowed, "{variant:?}: {distance:e}");
    }
}

#[test]
fn the_same_bits_however_it_is_run() {
    for (i, variant) in VARIANTS.into_iter().enumerate() {
        let small = Small::new(variant);
        let ids = tokens(small.vocab());
        let portable = load(&small, &format!("portable{i}"), KernelChoice::Portable);
        let best = load(&small, &format!("best{i}"), KernelChoice::Auto);
        let expected = logits(&portable, &ids, 512, 1);
        for (block, threads) in [(512, 3), (100, 2), (7, 2), (3, 1), (1, 3), (1, 1)] {
            for model in [&portable, &best] {
                let ours = logits(model, &ids, block, threads);
                let same = ours.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{variant:?} in blocks of {block}, {threads} threads, {}", model.kernels());
            }
        }
    }
}

#[test]
fn selftests_cover_groups() {
    for (i, variant) in VARIANTS.into_iter().enumerate() {
        let small = Small::new(variant);
        for kernels in [KernelChoice::Portable, KernelChoice::Auto] {
            let report =
                load(&small, &format!("selftest{i}"), kernels).selftest(Some(1), KvType::F16).unwrap();
            assert_eq!(report.failures, Vec::<String>::new());
            assert_eq!((report.matrices, report.goldens.len()), (small.manifest.packed_matrices.len(), 2));
        }
    }
}

/// A ternary head has no planes: who asks for the best gets all.
#[test]
fn the_best_of_a_ternary_head_are_among_all() {
    let small = Small::new(VARIANTS[0]);
    let model = load(&small, "best", KernelChoice::Auto);
    let mut session = Session::new(model, SessionOptions::default()).unwrap();
    session.advance(&[1, 2, 3], &[LogitsRequest::largest(), LogitsRequest::largest()]).unwrap();
    assert!(
        matches!(session.logits(1), Some(Logits::All(logits) ) if logits.len() == small.vocab() as usize)
    );
}
