//! The block that drafts tokens: does it guess what the compiler's own forward pass of it guesses, whatever the text went
//! through before, and do the tokens of a text not depend on it?

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex};
use trit_runtime::generate::{GenerateOptions, Generation, generate};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::scheduler::{Event, Request, Scheduler, SchedulerOptions, Ticket};
use trit_runtime::{KernelChoice, LogitsRequest, Model as LoadedModel, Session, SessionOptions};
use trit_tests::distance::top;
use trit_tests::engines::{Random, engine, load};
use trit_tests::ways::{Way, ways};
use trit_tests::workbench::{compile_with, fixture, run, scratch, tritc};
use tritc::load::LoadOptions;
use tritc::model::Model;
use tritc::reference;

const VOCAB: usize = 80;
const HIDDEN: usize = 128;
/// Guesses whose logits are this much ahead of others are the same in any order of sums.
const MARGIN: f32 = 2e-3;

/// Tensors of halves, by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The block's tensors with numbers that look random: matrices of floats, but one that is ternary with a scale for each row.
fn block(random: &mut Random) -> Tensors {
    let mut tensors = Tensors::new();
    let mut number = || random.below(2001) as f32 / 1000.0 - 1.0;
    for (name, shape) in [
        ("fc", &[HIDDEN, 2 * HIDDEN][..]),
        ("pre_fc_norm_embedding", &[HIDDEN]),
        ("pre_fc_norm_hidden", &[HIDDEN]),
        ("norm", &[HIDDEN]),
        ("layers.0.input_layernorm", &[HIDDEN]),
        ("layers.0.self_attn.q_proj", &[256, HIDDEN]),
        ("layers.0.self_attn.k_proj", &[64, HIDDEN]),
        ("layers.0.self_attn.v_proj", &[64, HIDDEN]),
        ("layers.0.self_attn.o_proj", &[HIDDEN, HIDDEN]),
        ("layers.0.self_attn.q_norm", &[64]),
        ("layers.0.self_attn.k_norm", &[64]),
        ("layers.0.post_attention_layernorm", &[HIDDEN]),
        ("layers.0.mlp.gate_proj", &[HIDDEN, HIDDEN]),
        ("layers.0.mlp.up_proj", &[HIDDEN, HIDDEN]),
        ("layers.0.mlp.down_proj", &[HIDDEN, HIDDEN]),
    ] {
        let values = (0..shape.iter().product()).map(|_| number()).map(|x: f32| match name {
            "layers.0.mlp.up_proj" => 0.125 * x.signum() * f32::from(x.abs() > 0.3),
            _ => 0.25 * x,
        });
        tensors.insert(format!("mtp.{name}.weight"), (shape.to_vec(), values.collect()));
    }
    tensors
}

/// A folder with the fixture's checkpoint, `change`d, and these tensors beside.
fn checkpoint(more: &Tensors, change: impl Fn(&str, &mut Vec<f32>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("qwen35-g128/model.safetensors")).unwrap();
    let mut tensors = Tensors::new();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let halves = tensor.data().chunks(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32());
        let mut values = halves.collect();
        change(&name, &mut values);
        tensors.insert(name, (tensor.shape().to_vec(), values));
    }
    tensors.extend(more.clone());
    let halves = |values: &[f32]| values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> =
        tensors.into_iter().map(|(name, (shape, values))| (name, shape, halves(&values))).collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F16, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(fixture("qwen35-g128/config.json"), folder.path().join("config.json")).unwrap();
    folder
}

/// The model with a block of random numbers, with float activations: the folder, the bundle, the checkpoint as it was read.
static RANDOM: LazyLock<(tempfile::TempDir, PathBuf, Model)> = LazyLock::new(|| {
    let folder = checkpoint(&block(&mut Random(5)), |_, _| ());
    let bundle = compile_with(folder.path(), "draft-block", &["--activations", "f32"]);
    let options = LoadOptions { activations: tritc::load::ActivationChoice::F32, ..LoadOptions::default() };
    let model = tritc::load::load(folder.path(), &options).unwrap();
    (folder, bundle, model)
});

/// What the reference guesses after `ids` and `next`, up to `most` tokens, as long as it is sure.
fn expected(model: &Model, ids: &[u32], next: u32, most: usize) -> Vec<u32> {
    let mut states = reference::forward(model, ids, |_, _| ()).unwrap();
    let mut tokens = [&ids[1..], &[next]].concat();
    let mut guesses = Vec::new();
    while guesses.len() < most {
        let out = reference::draft(model, &tokens, &states).unwrap();
        let last = &out[out.len() - HIDDEN..];
        let logits = reference::head(model, last).unwrap();
        let (best, margin) = top(&logits);
        if margin <= MARGIN {
            break;
        }
        guesses.push(best);
        tokens.push(best);
        states.extend_from_slice(last);
    }
    guesses
}

fn guesses_are_those_of_the_reference(session: &mut Session, next: u32, what: &str) -> usize {
    static KNOWN: Mutex<BTreeMap<Vec<u32>, Vec<u32>>> = Mutex::new(BTreeMap::new());
    let text = [session.tokens(), &[next]].concat();
    let expected = {
        let mut known = KNOWN.lock().unwrap();
        let tokens = session.tokens();
        known.entry(text).or_insert_with(|| expected(&RANDOM.2, tokens, next, 3)).clone()
    };
    let found = session.draft(next, 3).unwrap();
    assert_eq!(found.len(), 3, "{what}");
    assert_eq!(found[..expected.len()], expected, "{what}");
    expected.len()
}

#[test]
fn guesses_are_those_of_the_compilers_own_pass() {
    let mut compared = 0;
    for way in ways() {
        let mut session = way.open(&RANDOM.1);
        let mut random = Random(11);
        session.let_block_follow();
        // A prompt, which in one chunk is longer than what waits for a guess; a short one; tokens one by one.
        let first = if way.chunk == 1 { 40 } else { 100 };
        for (count, what) in [(first, "a prompt"), (3, "a few tokens"), (1, "one"), (25, "many")] {
            session.advance(&random.ids(count, VOCAB), &[LogitsRequest::All]).unwrap();
            let next = random.ids(1, VOCAB)[0];
            compared += guesses_are_those_of_the_reference(&mut session, next, &format!("{way:?} {what}"));
            // Another token may come than the one that was asked about.
            let next = random.ids(1, VOCAB)[0];
            compared +=
                guesses_are_those_of_the_reference(&mut session, next, &format!("{way:?} {what} again"));
        }
    }
    assert!(compared > 100, "the reference was sure of {compared} guesses");
}

/// Where nobody asks for guesses, hidden states of tokens that came one by one are dropped; the block goes on from those
/// that are left.
#[test]
fn a_text_that_nobody_guesses_at_takes_no_memory_for_it() {
    let way = Way { kernels: KernelChoice::Jit, cpu: None, threads: 1, chunk: 1 };
    let mut session = way.open(&RANDOM.1);
    session.let_block_follow();
    let mut random = Random(8);
    session.advance(&random.ids(200, VOCAB), &[]).unwrap();
    let guesses = session.draft(3, 3).unwrap();
    assert_eq!((guesses.len(), session.draft(3, 3).unwrap()), (3, guesses));
}

/// Forks go on as the whole text would. Where a text is taken back, the state before its end is gone: the block guesses
/// again once tokens ran after it.
#[test]
fn forks_and_texts_that_are_taken_back_go_on() {
    let way = Way { kernels: KernelChoice::Jit, cpu: None, threads: 2, chunk: 16 };
    let mut session = way.open(&RANDOM.1);
    session.let_block_follow();
    let mut random = Random(3);
    session.advance(&random.ids(30, VOCAB), &[]).unwrap();
    let mut fork = session.fork(30);
    guesses_are_those_of_the_reference(&mut fork, 7, "a fork");
    fork.advance(&random.ids(2, VOCAB), &[]).unwrap();
    guesses_are_those_of_the_reference(&mut fork, 9, "a fork that went on");
    guesses_are_those_of_the_reference(&mut session, 7, "the sequence after its fork");
    session.truncate(12);
    assert!(session.draft(5, 3).unwrap().is_empty());
    session.advance(&random.ids(1, VOCAB), &[]).unwrap();
    assert_eq!(session.draft(5, 3).unwrap().len(), 3);
    // Of a text that begins anew nothing is missing.
    session.truncate(0);
    session.advance(&random.ids(20, VOCAB), &[]).unwrap();
    guesses_are_those_of_the_reference(&mut session, 1, "a text that began anew");
    // Nobody follows a sequence that was not asked to be followed.
    let mut other = way.open(&RANDOM.1);
    other.advance(&random.ids(5, VOCAB), &[]).unwrap();
    assert!(other.draft(5, 3).unwrap().is_empty());
}

/// A model whose layers add nothing, so that each token decides the next one, with a block that guesses so too, or the
/// opposite.
fn sure(right: bool) -> PathBuf {
    let mut tensors = block(&mut Random(1));
    for (name, (shape, values)) in &mut tensors {
        let sign = if right { 1.0 } else { -1.0 };
        let value = |i: usize| match name.as_str() {
            // The embedding goes on, the state does not.
            "mtp.fc.weight" => sign * f32::from(u8::from(i / shape[1] == i % shape[1])),
            _ => 0.0,
        };
        values.iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
    }
    let ends = ["o_proj.weight", "out_proj.weight", "down_proj.weight", "model.norm.weight"];
    let folder = checkpoint(&tensors, |name, values| {
        if ends.iter().any(|end| name.ends_with(end)) {
            values.fill(0.0);
        }
    });
    compile_with(folder.path(), if right { "draft-right" } else { "draft-wrong" }, &[])
}

fn generated(bundle: &Path, draft: bool, temperature: f32, seed: u64) -> Generation {
    text(&load(bundle, KernelChoice::Auto), draft, temperature, seed, 200)
}

fn text(model: &Arc<LoadedModel>, draft: bool, temperature: f32, seed: u64, max_new: usize) -> Generation {
    let options = SessionOptions { threads: Some(2), oversubscribe: true, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options).unwrap();
    let options = SamplerOptions { temperature, seed, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(options);
    let options = GenerateOptions { max_new, draft, ignore_eos: true, ..GenerateOptions::of(model) };
    let prompt = Random(seed).ids(20, VOCAB);
    generate(&mut session, &prompt, &mut sampler, &options, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_text_does_not_depend_on_the_block() {
    let (right, wrong) = (sure(true), sure(false));
    for bundle in [&RANDOM.1, &right, &wrong] {
        for (temperature, seed) in [(0.0, 1), (0.0, 2), (0.7, 3), (1.5, 4)] {
            let with = generated(bundle, true, temperature, seed);
            let without = generated(bundle, false, temperature, seed);
            assert_eq!(with.ids, without.ids, "{} {temperature}", bundle.display());
            assert_eq!((without.drafted, with.ids.len()), (0, 200));
            assert!(with.drafted > 0);
        }
    }
    let (of_right, of_wrong) = (generated(&right, true, 0.0, 9), generated(&wrong, true, 0.0, 9));
    assert_eq!(of_right.accepted, of_right.drafted);
    assert!(of_wrong.accepted < of_wrong.drafted);
}

/// Requests of a scheduler, one after the other and several at once: each gets its own text, and the block guesses for one
/// at a time.
#[test]
fn requests_get_their_own_texts_with_drafts() {
    let model = load(&sure(true), KernelChoice::Auto);
    let scheduler = Scheduler::new(engine(&model, 2, 64), SchedulerOptions::default()).unwrap();
    let submit = |seed: u64| {
        let (sender, events) = channel();
        let ids = Random(seed).ids(20, VOCAB);
        let options = SamplerOptions { temperature: 0.7, seed, ..SamplerOptions::default() };
        let sampler = Sampler::new(options);
        let request =
            Request { sampler, max_new: 120, ignore_eos: true, ..Request::new(&model, ids.clone()) };
        let receive = move |event| {
            let _ = sender.send(event);
            ControlFlow::Continue(())
        };
        (seed, events, scheduler.submit(request, receive).unwrap())
    };
    let mut drafted = 0;
    let mut end = |(seed, events, _ticket): (u64, Receiver<Event>, Ticket)| {
        let mut ids = Vec::new();
        for event in events {
            match event {
                Event::Token(chosen) => ids.push(chosen.id),
                Event::Ended(how) => drafted += how.unwrap().drafted.0,
                Event::Began { .. } => {}
            }
        }
        let alone = text(&model, false, 0.7, seed, 120);
        assert_eq!(ids, alone.ids, "seed {seed}");
    };
    for seed in [21, 22] {
        end(submit(seed));
    }
    let together: Vec<_> = (30..34).map(submit).collect();
    together.into_iter().for_each(&mut end);
    assert!(drafted > 0);
}

#[test]
fn a_block_can_be_left_out_and_is_where_it_is_not_understood() {
    let (folder, bundle, _) = &*RANDOM;
    let shown = run(tritc(&["inspect", "--json", bundle.to_str().unwrap()])).json();
    assert!(shown["draft"]["steps"].as_u64().unwrap() > 10, "{shown}");
    let plan = run(tritc(&["inspect", "--plan", bundle.to_str().unwrap()])).ok();
    assert!(plan.contains("\ndraft\n") && plan.contains("join       h hidden -> joined"), "{plan}");
    let without = compile_with(folder.path(), "draft-none", &["--no-draft"]);
    assert!(!load(&without, KernelChoice::Auto).has_draft_block());
    assert!(load(bundle, KernelChoice::Auto).has_draft_block());
    assert!(std::fs::metadata(&without).unwrap().len() < std::fs::metadata(bundle).unwrap().len());
    assert!(run(tritc(&["inspect", "--json", without.to_str().unwrap()])).json()["draft"].is_null());
    // One that lacks a tensor, and one with a tensor too many.
    let mut tensors = block(&mut Random(5));
    let (fc, _) = tensors.remove_entry("mtp.fc.weight").unwrap();
    let mut more = block(&mut Random(5));
    more.insert("mtp.layers.1.input_layernorm.weight".to_owned(), (vec![HIDDEN], vec![0.0; HIDDEN]));
    for (tensors, words) in
        [(tensors, format!("lacks {fc}")), (more, "has mtp.layers.1.input_layernorm.weight".into())]
    {
        let folder = checkpoint(&tensors, |_, _| ());
        let output = scratch().join("draft-odd.trit");
        let mut command = tritc(&["compile", "-o"]);
        command.arg(&output).arg(folder.path());
        let ran = run(command);
        assert!(ran.err.contains(&words), "{}", ran.err);
        ran.ok();
        assert!(!load(&output, KernelChoice::Auto).has_draft_block());
    }
    // Of one that is whole, a wrong shape is an error.
    let mut tensors = block(&mut Random(5));
    tensors.insert("mtp.fc.weight".to_owned(), (vec![HIDDEN, HIDDEN], vec![0.5; HIDDEN * HIDDEN]));
    let folder = checkpoint(&tensors, |_, _| ());
    run(tritc(&["compile", folder.path().to_str().unwrap()])).fails(3, &["mtp.fc.weight"]);
}

/// A bundle for other targets has the block too, and the bytes of one that was compiled for them.
#[test]
fn a_bundle_for_other_targets_keeps_the_block() {
    let (folder, bundle, _) = &*RANDOM;
    let compile = |from: &Path, name: &str, command: &str| {
        let output = scratch().join(name);
        let mut tritc = tritc(&[command, "--target", "portable", "-o"]);
        tritc.arg(&output).arg(from);
        if command == "compile" {
            tritc.args(["--activations", "f32"]);
        }
        run(tritc).ok();
        std::fs::read(output).unwrap()
    };
    let retargeted = compile(bundle, "draft-retargeted.trit", "retarget");
    assert!(retargeted == compile(folder.path(), "draft-compiled.trit", "compile"));
}
