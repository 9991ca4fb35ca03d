//! Hybrids of Gated DeltaNet and attention: do they compute what Hugging Face transformers computes, and is a sequence
//! whose recurrent state was taken back, forked or kept the same as one from scratch?

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use trit_runtime::generate::{GenerateOptions, Generator};
use trit_runtime::sample::{Sampler, SamplerOptions, argmax};
use trit_runtime::{
    Batch, Engine, KernelChoice, KvType, Logits, LogitsRequest, RuntimeError, Sequence, SequenceOptions,
    Session, SessionOptions, StateType,
};
use trit_tests::distance::{max_abs, nll, relative_l2, top};
use trit_tests::engines::{Random, engine, load};
use trit_tests::golden::Goldens;
use trit_tests::ways::{Way, all_logits, ways};
use trit_tests::workbench::{compile_with, fixture};

/// The largest difference of one logit with float activations. Measured: 3e-5 for qwen35-g128, 9e-5 for qwen35-hadamard.
const FLOAT: f32 = 1e-3;
/// Logits this far apart keep their order under that.
const MARGIN: f32 = 2e-3;
/// Relative L2 of the logits with int8 activations. Measured: 0.045 for qwen35-g128.
const INT8: f64 = 6e-2;
/// Relative change of the mean negative log-likelihood with int8 activations. Measured: 9e-4 for qwen35-g128.
const NLL: f64 = 5e-3;

/// A file or folder that is compiled, and the goldens that belong to it.
struct Checkpoint {
    floats: PathBuf,
    int8: PathBuf,
    goldens: Goldens,
}

impl Checkpoint {
    fn new(name: &str, goldens: &str) -> Checkpoint {
        let path = fixture(name);
        let compile = |activations: &str| {
            let bundle = format!("hybrid-{}-{activations}", name.replace(['/', '.'], "-"));
            compile_with(&path, &bundle, &["--activations", activations])
        };
        Checkpoint {
            floats: compile("f32"),
            int8: compile("auto"),
            goldens: Goldens::read(&fixture(goldens).join("golden.f32.safetensors")),
        }
    }
}

/// Prompts in one chunk and token by token; then, by teacher forcing, each step continues transformers' own tokens.
fn floats_match_transformers(checkpoint: &Checkpoint) {
    let goldens = &checkpoint.goldens;
    for way in ways() {
        let mut session = way.open(&checkpoint.floats);
        for prompt in goldens.prompts("p") {
            let ids = goldens.ids(&format!("{prompt}.ids"));
            session.truncate(0);
            let mut logits = session.prefill(ids).unwrap().to_vec();
            let far = max_abs(&logits, goldens.floats(&format!("{prompt}.last_logits")));
            assert!(far <= FLOAT, "{way:?} {prompt}: a logit differs by {far}");
            let greedy = goldens.ids(&format!("{prompt}.greedy"));
            let margins = goldens.floats(&format!("{prompt}.greedy_margin"));
            assert_eq!(greedy.len(), 64);
            for (step, (&id, &margin)) in greedy.iter().zip(margins).enumerate() {
                let best = top(&logits).0;
                assert!(best == id || margin <= MARGIN, "{way:?} {prompt} step {step}: {best} is not {id}");
                logits = session.decode(id).unwrap().to_vec();
            }
            if goldens.has(&format!("{prompt}.all_logits")) {
                let all = goldens.floats(&format!("{prompt}.all_logits"));
                let far = max_abs(&all_logits(&mut session, ids), all);
                assert!(far <= FLOAT, "{way:?} {prompt}: a logit differs by {far}");
            }
        }
    }
}

fn layers_match_transformers(checkpoint: &Checkpoint) {
    let goldens = &checkpoint.goldens;
    let &[entries, tokens, width] = goldens.shape("p2.hidden") else { panic!("three dimensions") };
    let hidden: Vec<&[f32]> = goldens.floats("p2.hidden").chunks(tokens * width).collect();
    for way in ways() {
        let mut session = way.open(&checkpoint.floats);
        for layer in 0..entries - 2 {
            let far = max_abs(&session.run_layer(layer, hidden[layer]).unwrap(), hidden[layer + 1]);
            assert!(far <= FLOAT, "{way:?} layer {layer}: differs by {far}");
        }
    }
}

fn int8_is_near(checkpoint: &Checkpoint) {
    let best = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
    let goldens = &checkpoint.goldens;
    let mut sessions = [&checkpoint.int8, &checkpoint.floats].map(|bundle| best.open(bundle));
    let vocab = sessions[0].model().manifest().hyperparameters.vocab_size as usize;
    let (mut nlls, mut tokens, mut worst) = ([0.0; 2], 0, 0.0f64);
    for prompt in goldens.prompts("p") {
        let (ids, greedy) = (goldens.ids(&format!("{prompt}.ids")), goldens.ids(&format!("{prompt}.greedy")));
        let all = [ids, greedy].concat();
        let logits = sessions.each_mut().map(|session| all_logits(session, &all));
        let last = (ids.len() - 1) * vocab..ids.len() * vocab;
        worst = worst.max(relative_l2(&logits[0][last], goldens.floats(&format!("{prompt}.last_logits"))));
        for (logits, total) in logits.iter().zip(&mut nlls) {
            *total += logits.chunks(vocab).zip(&all[1..]).map(|(l, &id)| nll(l, id)).sum::<f64>();
        }
        tokens += all.len() - 1;
    }
    let [int8, floats] = nlls.map(|total| total / tokens as f64);
    println!("int8: relative L2 {worst:.4}; mean NLL of {tokens} tokens {int8:.5}, with f32 {floats:.5}");
    assert!(worst <= INT8, "relative L2 {worst}");
    assert!((int8 / floats - 1.0).abs() <= NLL, "mean NLL {int8} with int8, {floats} with f32");
}

/// Every way gives the same bits, whatever the chunks of the prompt.
fn all_ways_agree(checkpoint: &Checkpoint) {
    let goldens = &checkpoint.goldens;
    let (ids, greedy) = (goldens.ids("p4.ids"), goldens.ids("p4.greedy"));
    for bundle in [&checkpoint.int8, &checkpoint.floats] {
        let mut first: Option<Vec<f32>> = None;
        let cut = ways().into_iter().map(|way| Way { chunk: way.chunk.min(50), ..way });
        for way in ways().into_iter().chain(cut) {
            let mut session = way.open(bundle);
            let mut logits = all_logits(&mut session, ids);
            for &id in &greedy[..16] {
                logits.extend_from_slice(session.decode(id).unwrap());
            }
            let first = first.get_or_insert_with(|| logits.clone());
            assert!(logits == *first, "{way:?}: differs by {}", max_abs(&logits, first));
        }
    }
}

fn selftests_pass(checkpoint: &Checkpoint) {
    for bundle in [&checkpoint.int8, &checkpoint.floats] {
        let way = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
        let report = way.open(bundle).model().selftest(Some(1), KvType::F16).unwrap();
        assert_eq!((report.failures, report.goldens.len()), (Vec::new(), 2));
    }
}

/// Flat text model in safetensors, three value heads on a key head, ternary gates.
static G128: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint::new("qwen35-g128/model.safetensors", "qwen35-g128"));
/// The same as GGUF: value heads in another order, norms and rates as they multiply.
static GGUF: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint::new("qwen35-g128/model.q2_0.gguf", "qwen35-g128"));
/// Rotated weights in GGUF's PQ2_0, gates of floats.
static ROTATED: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint::new("qwen35-hadamard/model.pq2_0.gguf", "qwen35-hadamard"));
/// The same as a pack of mlx-lm.
static MLX: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint::new("qwen35-hadamard-mlx", "qwen35-hadamard"));

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
            fn layers_match_transformers() {
                super::layers_match_transformers(&$checkpoint);
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

checks! { g128 G128 gguf GGUF rotated ROTATED mlx MLX }

/// Whatever the container, a model has the same trits and scales. Converters round the norms' sums and the decay rates
/// themselves, so that logits differ in the last bits; int8 activations would make more of that, where a last bit moves a
/// value to the next integer. Measured: 1.3e-5.
#[test]
fn containers_do_not_matter() {
    for (one, other) in [(&G128, &GGUF), (&ROTATED, &MLX)] {
        let mut random = Random(1);
        let ids = random.ids(70, VOCAB);
        let best = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 64 };
        let [a, b] = [one, other].map(|checkpoint| all_logits(&mut best.open(&checkpoint.floats), &ids));
        let far = max_abs(&a, &b);
        println!("logits of two containers differ by {far:e}");
        assert!(far <= 1e-4, "differs by {far}");
    }
}

/// Tokens of the hybrid fixtures' smallest vocabulary.
const VOCAB: usize = 80;

fn bits(logits: Logits) -> Vec<u32> {
    match logits {
        Logits::All(logits) => logits.iter().map(|x| x.to_bits()).collect(),
        _ => panic!("all were asked for"),
    }
}

/// The logits after a text, from scratch.
fn from_scratch(engine: &Engine, ids: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut sequence, ids, &[LogitsRequest::All], None).unwrap();
    bits(sequence.logits(0).unwrap())
}

/// Appending, drafts that are taken back or not, truncation, snapshots and forks, in random order: after each, the
/// next logits are those of the same text from scratch.
#[test]
fn a_state_that_was_taken_back_is_the_one_of_the_text_from_scratch() {
    let model = load(&G128.int8, KernelChoice::Auto);
    let engine = engine(&model, 2, 48);
    for seed in 0..6 {
        let mut random = Random(seed);
        let snapshots = seed as usize % 3;
        let options = SequenceOptions { snapshots, ..SequenceOptions::default() };
        let mut sequences = vec![engine.sequence(options).unwrap()];
        for turn in 0..60 {
            let index = random.below(sequences.len());
            let position = sequences[index].position();
            match random.below(6) {
                0 if position > 0 => sequences[index].truncate(random.below(position + 1)),
                1 => sequences[index].keep(),
                2 if position > 0 && sequences.len() < 4 => {
                    let fork = sequences[index].fork(random.below(position + 1));
                    sequences.push(fork);
                }
                3 if position > 0 => {
                    let ids = random.ids(4, VOCAB);
                    let mut batch = Batch::new();
                    batch.push_drafted(&mut sequences[index], &ids, 3, &[]);
                    assert_eq!(engine.step(&mut batch).unwrap().remove(0).unwrap(), 4);
                    sequences[index].truncate(position + 1 + random.below(4));
                }
                _ => {
                    let len = [1, 3, 20, 70][random.below(4)];
                    let ids = random.ids(len, VOCAB);
                    engine.advance(&mut sequences[index], &ids, &[], None).unwrap();
                }
            }
            let sequence = &mut sequences[index];
            if random.below(3) == 0 && sequence.position() > 0 {
                let next = random.ids(1, VOCAB);
                let text = [sequence.tokens(), &next].concat();
                engine.advance(sequence, &next, &[LogitsRequest::All], None).unwrap();
                let ours = bits(sequence.logits(0).unwrap());
                assert!(ours == from_scratch(&engine, &text), "seed {seed} turn {turn}");
                assert!(sequence.state_bytes() <= (snapshots + 1) * model.state_bytes());
            }
        }
    }
}

/// The model with values too large for a cache of f16, as a bundle.
fn with_large_values() -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("qwen35-g128/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let grow =
        |half: &[u8]| f16::from_f32(f16::from_le_bytes([half[0], half[1]]).to_f32() * 65536.0).to_le_bytes();
    let name = "model.layers.1.self_attn.v_proj.weight";
    let large: Vec<u8> = tensors.tensor(name).unwrap().data().chunks(2).flat_map(grow).collect();
    let views = tensors.tensors().into_iter().map(|(other, tensor)| match other == name {
        true => (other, TensorView::new(tensor.dtype(), tensor.shape().to_vec(), &large).unwrap()),
        false => (other, tensor),
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(fixture("qwen35-g128/config.json"), folder.path().join("config.json")).unwrap();
    compile_with(folder.path(), "hybrid-large-values", &[])
}

/// Where the cache must be widened in the middle of a pass, the rows that count have changed the state once.
#[test]
fn a_cache_that_is_widened_leaves_the_state_right() {
    let model = load(&with_large_values(), KernelChoice::Auto);
    let ids = Random(2).ids(60, VOCAB);
    let run = |threads: usize, cut: usize| {
        let engine = engine(&model, threads, 64);
        let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
        for part in ids.chunks(cut) {
            engine.advance(&mut sequence, part, &[LogitsRequest::All], None).unwrap();
        }
        (bits(sequence.logits(0).unwrap()), sequence.widened())
    };
    let (expected, widened) = run(1, 1);
    assert!(widened.is_some());
    for (threads, cut) in [(2, 60), (1, 60), (3, 7)] {
        let (ours, at) = run(threads, cut);
        assert!(ours == expected && at == widened, "{threads} {cut} {at:?} {widened:?}");
    }
}

/// Sequences in one batch, with drafts, give the bits that each gives alone.
#[test]
fn sequences_together_are_sequences_alone() {
    let model = load(&G128.int8, KernelChoice::Auto);
    for (threads, rows) in [(1, 64), (3, 200)] {
        let engine = engine(&model, threads, rows);
        let mut random = Random(7);
        let mut sequences: Vec<Sequence> =
            (0..5).map(|_| engine.sequence(SequenceOptions::default()).unwrap()).collect();
        for _ in 0..12 {
            let parts: Vec<(Vec<u32>, usize)> = (0..sequences.len())
                .map(|_| match random.below(3) {
                    0 => (random.ids(1, VOCAB), 0),
                    1 => (random.ids(3, VOCAB), 2),
                    _ => (random.ids(9, VOCAB), 0),
                })
                .collect();
            let texts: Vec<Vec<u32>> =
                sequences.iter().zip(&parts).map(|(s, (ids, _))| [s.tokens(), ids].concat()).collect();
            let mut batch = Batch::new();
            for (sequence, (ids, drafted)) in sequences.iter_mut().zip(&parts) {
                batch.push_drafted(sequence, ids, *drafted, &[LogitsRequest::All]);
            }
            engine.step(&mut batch).unwrap().into_iter().for_each(|ran| assert!(ran.is_ok()));
            for ((sequence, text), (ids, drafted)) in sequences.iter_mut().zip(&texts).zip(&parts) {
                assert!(bits(sequence.logits(0).unwrap()) == from_scratch(&engine, text));
                if *drafted > 0 {
                    sequence.truncate(text.len() - random.below(ids.len().min(*drafted + 1)));
                }
            }
        }
    }
}

/// A state of f16 takes half the memory, and logits stay near those of f32, however the text is cut.
#[test]
fn a_state_of_f16_is_near() {
    let model = load(&G128.floats, KernelChoice::Auto);
    let engine = engine(&model, 2, 64);
    let ids = Random(11).ids(400, VOCAB);
    let run = |state: StateType, cut: usize| {
        let options = SequenceOptions { state, kv: KvType::F32, ..SequenceOptions::default() };
        let mut sequence = engine.sequence(options).unwrap();
        for part in ids.chunks(cut) {
            engine.advance(&mut sequence, part, &[LogitsRequest::All], None).unwrap();
        }
        let Some(Logits::All(logits)) = sequence.logits(0) else { panic!("all were asked for") };
        (logits.to_vec(), sequence.state_bytes())
    };
    let (exact, bytes) = run(StateType::F32, 400);
    let (near, half) = run(StateType::F16, 400);
    let error = relative_l2(&near, &exact);
    println!(
        "a state of f16: relative L2 {error:.1e} after {} tokens; {half} bytes instead of {bytes}",
        ids.len()
    );
    assert!(error > 0.0 && error < 1e-2, "relative L2 {error}");
    assert!(half < bytes * 2 / 3);
    assert!(run(StateType::F16, 7).0 == near);
}

/// A step that was interrupted leaves the text as it was, and the state is found again.
#[test]
fn an_interrupted_step_changes_nothing() {
    let model = load(&G128.int8, KernelChoice::Auto);
    let engine = engine(&model, 2, 64);
    let mut random = Random(3);
    let (before, after) = (random.ids(30, VOCAB), random.ids(20, VOCAB));
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut sequence, &before, &[], None).unwrap();
    let stop = AtomicBool::new(true);
    for _ in 0..3 {
        let ended = engine.advance(&mut sequence, &after, &[LogitsRequest::All], Some(&stop));
        assert!(matches!(ended, Err(RuntimeError::Interrupted)));
        assert_eq!(sequence.tokens(), before);
    }
    stop.store(false, Ordering::Relaxed);
    engine.advance(&mut sequence, &after, &[LogitsRequest::All], Some(&stop)).unwrap();
    let text = [before, after].concat();
    assert!(bits(sequence.logits(0).unwrap()) == from_scratch(&engine, &text));
}

/// Generated tokens do not depend on drafts, nor on how much of the prompt was known.
#[test]
fn generations_are_the_same_with_drafts_and_with_known_prefixes() {
    let model = load(&G128.int8, KernelChoice::Auto);
    let mut random = Random(5);
    let prompt = random.ids(60, VOCAB);
    let run = |generator: &mut Generator, prompt: &[u32], draft: bool| -> (Vec<u32>, usize) {
        let options = GenerateOptions { max_new: 80, ignore_eos: true, draft, ..GenerateOptions::of(&model) };
        generator.begin(prompt, options).unwrap();
        let ids = generator.by_ref().filter_map(|piece| piece.unwrap().id).collect();
        let generation = generator.generation().unwrap();
        (ids, generation.prompt)
    };
    let fresh = || {
        let session = Session::new(model.clone(), SessionOptions::default()).unwrap();
        Generator::of_ids(session, Sampler::new(SamplerOptions::default()))
    };
    let (expected, ran) = run(&mut fresh(), &prompt, false);
    assert_eq!(ran, 60);
    let mut generator = fresh();
    assert_eq!(run(&mut generator, &prompt, true).0, expected);
    // The next turn repeats the prompt but for its end.
    let next = [&prompt[..55], &random.ids(30, VOCAB)].concat();
    let (expected, _) = run(&mut fresh(), &next, false);
    let (ids, ran) = run(&mut generator, &next, true);
    assert_eq!((ids, ran), (expected, 30));
    // All logits of a greedy run are those of the tokens from scratch.
    let engine = engine(&model, 1, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut sequence, &prompt, &[LogitsRequest::All], None).unwrap();
    let Some(Logits::All(logits)) = sequence.logits(0) else { panic!("all were asked for") };
    assert_eq!(argmax(logits), run(&mut fresh(), &prompt, true).0[0]);
}
