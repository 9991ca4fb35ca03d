//! Models and engines as tests of sequences need them, and numbers that look random.

use std::path::Path;
use std::sync::Arc;
use trit_runtime::{Engine, EngineOptions, KernelChoice, LoadOptions, Model, TrustPolicy, Tuning};

/// The model of a bundle that the tests compiled.
///
/// # Panics
/// If it does not load.
pub fn load(bundle: &Path, kernels: KernelChoice) -> Arc<Model> {
    let trust = TrustPolicy::everything();
    let options = LoadOptions { kernels, tuning: Tuning::Off, trust, ..LoadOptions::default() };
    Model::load(bundle, &options).unwrap_or_else(|e| panic!("{e}"))
}

/// An engine with that many workers, however many cores there are.
///
/// # Panics
/// If it does not start.
pub fn engine(model: &Arc<Model>, threads: usize, rows: usize) -> Engine {
    let options = EngineOptions { threads: Some(threads), oversubscribe: true, rows };
    Engine::new(model.clone(), options).unwrap_or_else(|e| panic!("{e}"))
}

/// Numbers that look random, the same each time.
pub struct Random(pub u64);

impl Random {
    /// A number in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// Token ids of a vocabulary.
    pub fn ids(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(vocab) as u32).collect()
    }
}
