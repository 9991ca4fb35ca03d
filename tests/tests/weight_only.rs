//! Models that were trained with float activations: do they compute what Hugging Face transformers computes, and what
//! does it cost to run them with int8 activations by groups?

use serde_json::Value;
use std::path::PathBuf;
use std::sync::LazyLock;
use trit_runtime::{KernelChoice, KvType};
use trit_tests::distance::{max_abs, nll, relative_l2, top};
use trit_tests::golden::Goldens;
use trit_tests::ways::{Way, all_logits, ways};
use trit_tests::workbench::{compile_with, fixture};

/// The largest difference of one logit with float activations. Measured: about 1e-5.
const FLOAT: f32 = 1e-3;
/// Logits this far apart keep their order under that.
const MARGIN: f32 = 2e-3;
/// Relative L2 of the logits with int8 activations. Measured over the worst prompt: 0.0162 for llama-trilm and 0.0157 for
/// qwen3-g128.
const INT8: f64 = 3e-2;
/// Relative change of the mean negative log-likelihood with int8 activations. Measured: below 3e-4.
const NLL: f64 = 5e-3;
/// Among our own ways to run: all of them have the same integers, and floats in the same order.
const OURS: f32 = 1e-5;

/// A checkpoint, compiled once for each type of activations.
struct Checkpoint {
    floats: PathBuf,
    int8: PathBuf,
    prompts: Vec<Prompt>,
}

/// One prompt of the goldens.
struct Prompt {
    ids: Vec<u32>,
    /// What transformers continues with, 64 tokens, and how far the best logit is above the second there.
    greedy: Vec<u32>,
    margins: Vec<f32>,
    /// `[ids, vocab]`.
    logits: Vec<f32>,
}

impl Checkpoint {
    fn new(name: &str) -> Checkpoint {
        let file = |end: &str| fixture(name).join(format!("golden.f32.{end}"));
        let goldens = Goldens::read(&file("safetensors"));
        let json: Value = serde_json::from_slice(&std::fs::read(file("json")).unwrap()).unwrap();
        let prompt = |(i, prompt): (usize, &Value)| Prompt {
            ids: serde_json::from_value(prompt["ids"].clone()).unwrap(),
            greedy: serde_json::from_value(prompt["greedy"].clone()).unwrap(),
            margins: goldens.floats(&format!("p{i}.greedy_margin")).to_vec(),
            logits: goldens.floats(&format!("p{i}.all_logits")).to_vec(),
        };
        let compile = |activations: &str| {
            let bundle = format!("weight-only-{name}-{activations}");
            compile_with(&fixture(name), &bundle, &["--activations", activations])
        };
        Checkpoint {
            floats: compile("f32"),
            int8: compile("auto"),
            prompts: json["prompts"].as_array().unwrap().iter().enumerate().map(prompt).collect(),
        }
    }
}

/// By teacher forcing: each step continues transformers' own tokens.
fn floats_match_transformers(checkpoint: &Checkpoint) {
    for way in ways() {
        let mut session = way.open(&checkpoint.floats);
        let vocab = session.model().manifest().hyperparameters.vocab_size as usize;
        for (index, prompt) in checkpoint.prompts.iter().enumerate() {
            let far = max_abs(&all_logits(&mut session, &prompt.ids), &prompt.logits);
            assert!(far <= FLOAT, "{way:?} p{index}: a logit differs by {far}");
            let mut logits = prompt.logits[prompt.logits.len() - vocab..].to_vec();
            for (step, (&id, &margin)) in prompt.greedy.iter().zip(&prompt.margins).enumerate() {
                let best = top(&logits).0;
                assert!(best == id || margin <= MARGIN, "{way:?} p{index} step {step}: {best} is not {id}");
                logits = session.decode(id).unwrap().to_vec();
            }
        }
    }
}

fn int8_is_near(checkpoint: &Checkpoint) {
    let best = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
    let mut sessions = [&checkpoint.int8, &checkpoint.floats].map(|bundle| best.open(bundle));
    let vocab = sessions[0].model().manifest().hyperparameters.vocab_size as usize;
    let (mut nlls, mut tokens) = ([0.0; 2], 0);
    for (index, prompt) in checkpoint.prompts.iter().enumerate() {
        let ids: Vec<u32> = prompt.ids.iter().chain(&prompt.greedy).copied().collect();
        let logits = sessions.each_mut().map(|session| all_logits(session, &ids));
        let noise = relative_l2(&logits[0][..prompt.logits.len()], &prompt.logits);
        assert!(noise <= INT8, "p{index}: relative L2 {noise}");
        for (logits, total) in logits.iter().zip(&mut nlls) {
            *total += logits.chunks(vocab).zip(&ids[1..]).map(|(l, &id)| nll(l, id)).sum::<f64>();
        }
        tokens += ids.len() - 1;
    }
    let [int8, floats] = nlls.map(|total| total / tokens as f64);
    println!("mean NLL of {tokens} tokens: {int8:.5} with int8 by groups, {floats:.5} with f32");
    assert!((int8 / floats - 1.0).abs() <= NLL, "mean NLL {int8} with int8, {floats} with f32");
}

fn all_ways_agree(checkpoint: &Checkpoint) {
    let prompt = checkpoint.prompts.iter().max_by_key(|p| p.ids.len()).unwrap();
    for bundle in [&checkpoint.int8, &checkpoint.floats] {
        let mut first: Option<Vec<f32>> = None;
        for way in ways() {
            let mut session = way.open(bundle);
            let mut logits = all_logits(&mut session, &prompt.ids);
            for &id in &prompt.greedy[..16] {
                logits.extend_from_slice(session.decode(id).unwrap());
            }
            let far = max_abs(&logits, first.get_or_insert_with(|| logits.clone()));
            assert!(far <= OURS, "{way:?}: a logit differs by {far}");
        }
    }
}

/// What bundles know of themselves holds, too.
fn selftests_pass(checkpoint: &Checkpoint) {
    for bundle in [&checkpoint.int8, &checkpoint.floats] {
        let way = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
        let report = way.open(bundle).model().selftest(Some(1), KvType::F16).unwrap();
        assert_eq!((report.failures, report.goldens.len()), (Vec::new(), 2));
    }
}

/// Two scales a matrix, one for each half of its rows; embedding and head of floats.
static TRILM: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::new("llama-trilm"));
/// A scale for each 128 columns, in embedding and head too; RMSNorms of single heads.
static BONSAI: LazyLock<Checkpoint> = LazyLock::new(|| Checkpoint::new("qwen3-g128"));

/// Every check of every checkpoint, as tests of their own.
macro_rules! checks {
    ($($module:ident $checkpoint:ident)*) => { $(
        mod $module {
            use super::$checkpoint;

            #[test]
            fn floats_match_transformers() {
                super::floats_match_transformers(&$checkpoint);
            }

            #[test]
            fn int8_is_near() {
                super::int8_is_near(&$checkpoint);
            }

            #[test]
            fn all_ways_agree() {
                super::all_ways_agree(&$checkpoint);
            }

            #[test]
            fn selftests_pass() {
                super::selftests_pass(&$checkpoint);
            }
        }
    )* };
}

checks! { llama_trilm TRILM qwen3_g128 BONSAI }
