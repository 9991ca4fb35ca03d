//! The ways in which a model can be run, all of which must give the same.

use std::path::Path;
use trit_format::target::Target;
use trit_runtime::generate::GenerateOptions;
use trit_runtime::{
    CpuTiers, KernelChoice, KernelSource, KvType, LoadOptions, Model, Session, SessionOptions, TrustPolicy,
    Tuning,
};

/// One way to run a model.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Where kernels come from.
    pub kernels: KernelChoice,
    /// The tier they are for, where it is not left open.
    pub cpu: Option<Target>,
    /// Workers.
    pub threads: usize,
    /// Rows of a prompt that run together; 1 is token by token.
    pub chunk: usize,
}

const CHUNK: usize = 512;

/// Embedded code of every tier that this CPU has and the bundle holds, code generated here, and portable kernels;
/// with 1 and 2 threads; prompts in one chunk and token by token.
///
/// # Panics
/// If this CPU runs no generated kernels.
pub fn ways() -> Vec<Way> {
    let tiers = CpuTiers::detect();
    let mut kernels: Vec<(KernelChoice, Option<Target>)> = trit_codegen::supported()
        .iter()
        .filter(|t| tiers.contains(**t))
        .map(|&t| (KernelChoice::Embedded, Some(t)))
        .collect();
    kernels.extend([(KernelChoice::Jit, None), (KernelChoice::Portable, None)]);
    let mut ways = Vec::new();
    for (kernels, cpu) in kernels {
        for (threads, chunk) in [(1, CHUNK), (2, CHUNK), (2, 1)] {
            ways.push(Way { kernels, cpu, threads, chunk });
        }
    }
    assert!(ways.len() > 6, "this CPU runs no generated kernels");
    ways
}

impl Way {
    /// A session on a bundle that was compiled for every target.
    ///
    /// # Panics
    /// If the bundle does not load, or not in this way.
    pub fn open(self, bundle: &Path) -> Session {
        // Tests compile their bundles a moment before.
        let options = LoadOptions {
            kernels: self.kernels,
            cpu: self.cpu,
            trust: TrustPolicy::everything(),
            tuning: Tuning::Off,
            ..LoadOptions::default()
        };
        let model = Model::load(bundle, &options).unwrap_or_else(|e| panic!("{self:?}: {e}"));
        let ran = match self.kernels {
            KernelChoice::Embedded => KernelSource::Embedded,
            KernelChoice::Jit => KernelSource::Jit,
            _ => KernelSource::Portable,
        };
        assert_eq!(model.kernels().source, ran);
        assert!(self.cpu.is_none() || model.kernels().target == self.cpu);
        let options = SessionOptions {
            context: None,
            threads: Some(self.threads),
            oversubscribe: true,
            kv: KvType::F32,
            chunk: self.chunk,
            ..SessionOptions::default()
        };
        Session::new(model, options).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }
}

/// The logits after each token, `[tokens, vocab]`.
///
/// # Panics
/// If the model does not take these ids.
pub fn all_logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    session.truncate(0);
    session
        .forward_all(ids, &mut |_, logits| all.extend_from_slice(logits))
        .unwrap_or_else(|e| panic!("{e}"));
    all
}

/// As many tokens as asked for, whatever they are.
pub fn endless(max_new: usize, draft: bool) -> GenerateOptions {
    GenerateOptions { max_new, stop_ids: Vec::new(), stop_texts: Vec::new(), ignore_eos: true, draft }
}
