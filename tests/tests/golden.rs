//! Do compiled models compute what Hugging Face transformers computes?
//!
//! Activations are rounded to int8, which makes a network discontinuous: two correct implementations agree to about
//! 1e-5 until a last-bit difference moves one value across a rounding boundary, and from there to a relative L2 of
//! about 1e-2. So there are prompts chosen to keep away from the boundaries (`tight`), held to 1e-3; other prompts are
//! held to that noise. Among themselves our kernels, thread counts and chunk sizes have no such excuse.

use std::path::PathBuf;
use std::sync::LazyLock;
use trit_runtime::{KernelChoice, Session};
use trit_tests::distance::{max_abs, nll, relative_l2, top};
use trit_tests::golden::Goldens;
use trit_tests::ways::{Way, all_logits, ways};
use trit_tests::workbench::{compile, fixture, repository, shared};

/// Tight prompts: the largest difference of one logit. Implementations were seen to differ by 2e-4.
const TIGHT: f32 = 1e-3;
/// Other prompts: relative L2 of the logits.
const NOISE: f64 = 3e-2;
/// Logits this far apart keep their order under that noise.
const MARGIN: f32 = 0.6;
/// Among our own ways to run.
const OURS: f32 = 1e-4;
/// Relative difference of the mean negative log-likelihood.
const NLL: f64 = 1e-3;

/// A checkpoint, compiled once.
struct Checkpoint {
    bundle: PathBuf,
    tight: Goldens,
    prompts: Option<Goldens>,
}

impl Checkpoint {
    fn new(name: &str, folder: PathBuf, tight: PathBuf, prompts: Option<PathBuf>) -> Checkpoint {
        let prompts = prompts.map(|p| Goldens::read(&p));
        Checkpoint {
            bundle: compile(&folder, &format!("golden-{name}")),
            tight: Goldens::read(&tight),
            prompts,
        }
    }

    fn of_fixture(name: &str) -> Checkpoint {
        let file = |file: &str| fixture(name).join(file);
        let prompts = Some(file("golden.f32.safetensors"));
        Checkpoint::new(name, fixture(name), file("golden.tight.safetensors"), prompts)
    }

    fn of_trained(name: &str, folder: PathBuf) -> Checkpoint {
        let prompts =
            shared(&format!("goldens/{name}.f32.safetensors"), &format!("{name} on prompts from books"));
        Checkpoint::new(name, folder, fixture(&format!("{name}.tight.safetensors")), prompts)
    }

    fn session(&self, way: Way) -> Session {
        way.open(&self.bundle)
    }
}

fn tight_prompts_match_to_1e_3(checkpoint: &Checkpoint) {
    for way in ways() {
        let mut session = checkpoint.session(way);
        for prompt in checkpoint.tight.prompts("t") {
            let ids = checkpoint.tight.ids(&format!("{prompt}.ids"));
            let far =
                max_abs(&all_logits(&mut session, ids), checkpoint.tight.floats(&format!("{prompt}.logits")));
            assert!(far <= TIGHT, "{way:?} {prompt}: a logit differs by {far}");
        }
    }
}

/// Feeds transformers' own hidden states to each layer, so that a deviation is found in the layer it arises in. The
/// last entry is after the final norm, which is no layer.
fn layers_match(checkpoint: &Checkpoint) {
    let prompts = checkpoint.prompts.iter().map(|g| (g, "p1".to_owned(), false));
    let tight = checkpoint.tight.prompts("t").map(|p| (&checkpoint.tight, p, true));
    let cases: Vec<_> = tight.chain(prompts).collect();
    for way in ways() {
        let mut session = checkpoint.session(way);
        for (goldens, prompt, tight) in &cases {
            let name = format!("{prompt}.hidden");
            let &[entries, tokens, width] = goldens.shape(&name) else {
                panic!("{name} has three dimensions")
            };
            let hidden: Vec<&[f32]> = goldens.floats(&name).chunks(tokens * width).collect();
            assert_eq!(entries, session.model().manifest().plan.layers.len() + 1);
            for layer in 0..entries - 2 {
                let ours = session.run_layer(layer, hidden[layer]).unwrap();
                let (far, noise) = (max_abs(&ours, hidden[layer + 1]), relative_l2(&ours, hidden[layer + 1]));
                let near = if *tight { far <= TIGHT } else { noise <= NOISE };
                assert!(near, "{way:?} {prompt} layer {layer}: max {far}, relative L2 {noise}");
            }
        }
    }
}

fn prompts_match_within_the_noise_of_int8(checkpoint: &Checkpoint) {
    let Some(goldens) = &checkpoint.prompts else { return };
    for way in ways() {
        let mut session = checkpoint.session(way);
        for prompt in goldens.prompts("p") {
            let ids = goldens.ids(&format!("{prompt}.ids"));
            session.truncate(0);
            let logits = session.prefill(ids).unwrap();
            let golden = goldens.floats(&format!("{prompt}.last_logits"));
            let noise = relative_l2(logits, golden);
            assert!(noise <= NOISE, "{way:?} {prompt}: relative L2 {noise}");
            let ((best, _), (golden_best, margin)) = (top(logits), top(golden));
            assert!(best == golden_best || margin <= MARGIN, "{way:?} {prompt}: {best} is not {golden_best}");
            if goldens.has(&format!("{prompt}.all_logits")) {
                let noise = relative_l2(
                    &all_logits(&mut session, ids),
                    goldens.floats(&format!("{prompt}.all_logits")),
                );
                assert!(noise <= NOISE, "{way:?} {prompt}: relative L2 {noise} over all tokens");
            }
        }
    }
}

/// By teacher forcing: each step continues transformers' own tokens, so one legitimate difference does not hide the
/// rest. The greatest logits are compared too, because few margins of untrained models are wide.
fn greedy_tokens_match(checkpoint: &Checkpoint) {
    let Some(goldens) = &checkpoint.prompts else { return };
    for way in ways().into_iter().filter(|w| w.chunk > 1) {
        let mut session = checkpoint.session(way);
        for prompt in goldens.prompts("p") {
            if !goldens.has(&format!("{prompt}.greedy")) {
                continue;
            }
            let greedy = goldens.ids(&format!("{prompt}.greedy"));
            let margins = goldens.floats(&format!("{prompt}.greedy_margin"));
            assert_eq!(greedy.len(), 64);
            session.truncate(0);
            let mut logits = session.prefill(goldens.ids(&format!("{prompt}.ids"))).unwrap();
            let mut golden_logits = Vec::new();
            for (step, (&id, &margin)) in greedy.iter().zip(margins).enumerate() {
                let (best, _) = top(logits);
                assert!(best == id || margin <= MARGIN, "{way:?} {prompt} step {step}: {best} is not {id}");
                golden_logits.push(logits[id as usize]);
                logits = session.decode(id).unwrap();
            }
            let noise = relative_l2(&golden_logits, goldens.floats(&format!("{prompt}.greedy_logit")));
            assert!(noise <= NOISE, "{way:?} {prompt}: relative L2 {noise} of the greatest logits");
        }
    }
}

/// Every way gives the same tokens and logits, also on prompts where rounding makes us differ from transformers.
fn all_ways_agree(checkpoint: &Checkpoint) {
    let vocab = checkpoint.tight.shape("t0.logits")[1] as u32;
    // Ids spread over the vocabulary; the block kernels take 4 rows, 37 leaves a remainder.
    let prompt: Vec<u32> = (0..37).map(|i| (i * 2_654_435_761u64 % u64::from(vocab)) as u32).collect();
    let mut first: Option<(Vec<f32>, Vec<u32>)> = None;
    for way in ways() {
        let mut session = checkpoint.session(way);
        let mut logits = all_logits(&mut session, &prompt);
        let mut ids = vec![top(&logits[logits.len() - vocab as usize..]).0];
        while ids.len() < 64 {
            let next = session.decode(ids[ids.len() - 1]).unwrap();
            logits.extend_from_slice(next);
            ids.push(top(next).0);
        }
        let (first_logits, first_ids) = first.get_or_insert_with(|| (logits.clone(), ids.clone()));
        assert_eq!(&ids, first_ids, "{way:?}: greedy tokens");
        let far = max_abs(&logits, first_logits);
        assert!(far <= OURS, "{way:?}: a logit differs by {far}");
    }
}

/// Windows of the 8k-token slice, scored independently: all of it by embedded code of the best tier; the other ways
/// score the start of the first window, where each must give the same.
fn perplexity_matches(checkpoint: &Checkpoint, name: &str) {
    let (Some(goldens), Some(slice)) =
        (&checkpoint.prompts, shared("goldens/val-8k.json", &format!("{name}'s perplexity")))
    else {
        return;
    };
    let slice: serde_json::Value = serde_json::from_slice(&std::fs::read(slice).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(slice["ids"].clone()).unwrap();
    let window = slice["window"].as_u64().unwrap() as usize;
    let score = |session: &mut Session, ids: &[u32]| {
        let mut scores = Vec::new();
        session.truncate(0);
        let given = &ids[..ids.len() - 1];
        session.forward_all(given, &mut |i, logits| scores.push(nll(logits, ids[i + 1]) as f32)).unwrap();
        scores
    };
    let golden = goldens.floats("nll.per_token");
    let mean = |nll: &[f32]| nll.iter().map(|&v| f64::from(v)).sum::<f64>() / nll.len() as f64;

    let best = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
    let mut session = checkpoint.session(best);
    let ours: Vec<f32> = ids.chunks(window).flat_map(|w| score(&mut session, w)).collect();
    assert_eq!(ours.len(), golden.len());
    let (ours_mean, golden_mean) = (mean(&ours), mean(golden));
    let off = (ours_mean / golden_mean - 1.0).abs();
    assert!(off <= NLL, "{name}: mean NLL {ours_mean}, transformers {golden_mean}");

    for way in ways() {
        // A shorter window has the same first tokens.
        let tokens = 200;
        let scores = score(&mut checkpoint.session(way), &ids[..tokens]);
        let far = max_abs(&scores, &ours[..tokens - 1]);
        assert!(far <= OURS, "{name} {way:?}: a token's NLL differs by {far}");
    }
}

fn fables_12m() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| {
        Checkpoint::of_trained("fables-12m", repository().join("examples/models/fables-12m"))
    });
    Some(&CHECKPOINT)
}

fn fables_30m() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Option<Checkpoint>> = LazyLock::new(|| {
        let folder = shared("models/fables-30m", "everything about fables-30m")?;
        Some(Checkpoint::of_trained("fables-30m", folder))
    });
    CHECKPOINT.as_ref()
}

/// Packed, the scale multiplies; RoPE scaling.
fn bitnet_llama3_rope() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("bitnet-llama3-rope"));
    Some(&CHECKPOINT)
}

/// Latent weights.
fn bitnet_online() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("bitnet-online"));
    Some(&CHECKPOINT)
}

/// Packed, the scale divides; SwiGLU, no sub-norms, a head of its own.
fn llama_bitlinear() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("llama-bitlinear"));
    Some(&CHECKPOINT)
}

/// Latent weights that nothing declares, 1bitLLM's names for BitNet's norms.
fn bitnet_1bitllm() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("bitnet-1bitllm"));
    Some(&CHECKPOINT)
}

/// An RMSNorm inside each linear.
fn llama_autobit_online_rmsnorm() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> =
        LazyLock::new(|| Checkpoint::of_fixture("llama-autobit-online-rmsnorm"));
    Some(&CHECKPOINT)
}

/// Norms on both sides and inside linears, windows shorter than the prompts, two RoPEs, a scaled embedding.
fn gemma3_online_rmsnorm() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> =
        LazyLock::new(|| Checkpoint::of_fixture("gemma3-online-rmsnorm"));
    Some(&CHECKPOINT)
}

/// Norms of heads, YaRN, linears that are not quantized beside packed ones.
fn qwen3_yarn_mixed() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("qwen3-yarn-mixed"));
    Some(&CHECKPOINT)
}

/// LongRoPE's short factors, a ternary head.
fn llama_longrope_head() -> Option<&'static Checkpoint> {
    static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::of_fixture("llama-longrope-head"));
    Some(&CHECKPOINT)
}

/// Every check of every checkpoint, as tests of their own; a checkpoint that is not there has said so.
macro_rules! checks {
    ($($checkpoint:ident)*) => { $(
        mod $checkpoint {
            use super::$checkpoint as checkpoint;

            #[test]
            fn tight_prompts_match_to_1e_3() {
                checkpoint().into_iter().for_each(super::tight_prompts_match_to_1e_3);
            }

            #[test]
            fn layers_match() {
                checkpoint().into_iter().for_each(super::layers_match);
            }

            #[test]
            fn prompts_match_within_the_noise_of_int8() {
                checkpoint().into_iter().for_each(super::prompts_match_within_the_noise_of_int8);
            }

            #[test]
            fn greedy_tokens_match() {
                checkpoint().into_iter().for_each(super::greedy_tokens_match);
            }

            #[test]
            fn all_ways_agree() {
                checkpoint().into_iter().for_each(super::all_ways_agree);
            }
        }
    )* };
}

checks! {
    fables_12m fables_30m bitnet_llama3_rope bitnet_online llama_bitlinear bitnet_1bitllm llama_autobit_online_rmsnorm
    gemma3_online_rmsnorm qwen3_yarn_mixed llama_longrope_head
}

#[test]
fn perplexity_of_fables_12m_matches() {
    fables_12m().into_iter().for_each(|c| perplexity_matches(c, "fables-12m"));
}

#[test]
fn perplexity_of_fables_30m_matches() {
    fables_30m().into_iter().for_each(|c| perplexity_matches(c, "fables-30m"));
}
