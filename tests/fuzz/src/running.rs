//! Loading a bundle and running some tokens of it, by portable kernels on one thread, whatever it says.

use std::path::Path;
use std::sync::Arc;
use trit_format::manifest::Manifest;
use trit_format::plan::StateShape;
use trit_runtime::source::MemorySource;
use trit_runtime::{
    Engine, EngineOptions, KernelChoice, KvType, LoadOptions, Model, SequenceOptions, Session, StateType,
    TrustPolicy, Tuning,
};

/// Tokens that a sequence has room for.
pub const CONTEXT: usize = 24;
/// Most tokens that run together.
pub const ROWS: usize = 4;
/// Most memory that a model may ask for, in bytes; larger ones are honest, and take a fuzzer's time.
pub const MOST: u64 = 64 << 20;
/// Most multiplications of a token.
const MOST_WORK: u64 = 8 << 20;

/// Opens a bundle of which nothing is trusted.
pub fn open(bytes: Vec<u8>) -> Option<Arc<Model>> {
    let options = LoadOptions {
        kernels: KernelChoice::Portable,
        trust: TrustPolicy::nothing(),
        tuning: Tuning::Off,
        ..LoadOptions::default()
    };
    Model::from_source(Box::new(MemorySource::new(bytes)), Path::new("fuzzed.trit"), &options).ok()
}

/// Whether a model that was validated runs in little memory and time: its arena, its caches, its states, and its products.
pub fn is_small(manifest: &Manifest) -> bool {
    let plan = &manifest.plan;
    let product = |numbers: &[u32]| numbers.iter().fold(1u64, |n, &by| n.saturating_mul(by.into()));
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
    // The smallest page has more positions than the context.
    let cache = sum(&mut plan.kv.iter().map(|kv| product(&[kv.n_kv_heads, kv.head_dim, 2 * 4 * 256])));
    let shape = |id: trit_format::plan::TensorId| manifest.tensors.get(id.0 as usize).map(|t| &t.shape[..]);
    let states = sum(&mut plan.states(shape).map(|state| match state {
        StateShape::Inputs { rows, channels } => product(&[rows, channels, 4]),
        StateShape::Matrices(heads) => product(&[heads.values, heads.key_dim, heads.value_dim, 4]),
    }));
    let rows = (ROWS as u64).saturating_mul(plan.row_bytes);
    let memory = sum(&mut [rows, cache, states.saturating_mul(4)].into_iter());
    let work = sum(&mut manifest.packed_matrices.iter().map(|p| p.rows().saturating_mul(p.k.into())));
    let steps = (plan.body.len() + plan.head.len()) as u64;
    memory <= MOST && work.saturating_add(memory / 4).saturating_mul(steps) <= 16 * MOST_WORK
}

/// How a model runs.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// The cache's type, counted round.
    pub kv: u8,
    /// Whether matrices of states are of 16 bits.
    pub narrow: bool,
}

/// Runs tokens, one by one and together, and every layer alone. The logits must be the same bits either way.
pub fn run(model: &Arc<Model>, tokens: &[u32], choices: Choices) {
    let manifest = model.manifest();
    if !is_small(manifest) || tokens.is_empty() {
        return;
    }
    let longest = manifest.hyperparameters.context_length as usize;
    let engine = EngineOptions { threads: Some(1), rows: ROWS, ..EngineOptions::default() };
    let Ok(engine) = Engine::new(model.clone(), engine).map(Arc::new) else { return };
    let options = SequenceOptions {
        context: Some(CONTEXT.min(longest)),
        kv: [KvType::F16, KvType::F32, KvType::Int8][usize::from(choices.kv) % 3],
        state: if choices.narrow { StateType::F16 } else { StateType::F32 },
        ..SequenceOptions::default()
    };
    let Ok(mut together) = Session::on(engine.clone(), options) else { return };
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let whole = together.prefill(tokens).map(bits);
    let Ok(mut alone) = Session::on(engine, options) else { return };
    let mut last = None;
    for &token in tokens {
        match alone.decode(token) {
            Ok(logits) => last = Some(bits(logits)),
            // Logits that nobody asked for together, or a token that cannot be.
            Err(_) => {
                last = None;
                break;
            }
        }
    }
    if let (Ok(whole), Some(last)) = (&whole, &last) {
        assert!(whole == last, "logits depend on how tokens are grouped");
    }
    let mut forked = alone.fork(alone.position() / 2);
    let _ = forked.decode(tokens[0]);
    alone.truncate(1);
    let _ = alone.decode(tokens[0]);
    let hidden = vec![0.5; manifest.hyperparameters.hidden_dim as usize * 2];
    for layer in 0..manifest.plan.layers.len() {
        let _ = together.run_layer(layer, &hidden);
    }
    let _ = model.tokenizer();
    together.truncate(0);
    together.let_block_follow();
    for part in [tokens, &tokens[..1]] {
        let _ = together.prefill(part).map(<[f32]>::len);
        let _ = together.draft(tokens[0], 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembled;
    use trit_format::container::SectionKind;

    /// The targets would find nothing if what they begin with were refused.
    #[test]
    fn the_small_bundles_run() {
        for index in 0..6 {
            let manifest = assembled::manifest(index);
            let mut sections = assembled::sections(&manifest, 7);
            let draft = assembled::draft(index).map(|plan| trit_format::draft::encode(&plan).unwrap());
            sections.extend(draft.map(|bytes| (SectionKind::Draft, bytes)));
            let file = assembled::file(&manifest, sections).unwrap();
            let model = open(file).unwrap();
            assert!(is_small(model.manifest()));
            let engine = EngineOptions { threads: Some(1), ..EngineOptions::default() };
            let engine = Arc::new(Engine::new(model.clone(), engine).unwrap());
            let mut session = Session::on(engine, SequenceOptions::default()).unwrap();
            assert!(session.prefill(&[1, 2, 3]).unwrap().iter().any(|&logit| logit != 0.0), "{index}");
            assert!(model.tokenizer().unwrap().is_some());
            session.let_block_follow();
            session.prefill(&[4, 5]).unwrap();
            assert_eq!(session.draft(6, 3).unwrap().len(), if index == 5 { 3 } else { 0 });
            run(&model, &[1, 2, 3, 4, 5, 6], Choices { kv: index, narrow: index % 2 == 0 });
        }
    }
}
