//! What may change speed changes no token: looking for the largest logits alone, drafting tokens, threads, chunks of a
//! prompt, kernels, and how a sequence was reached.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use trit_format::dense243::Code;
use trit_format::target::Target;
use trit_runtime::generate::{Generation, generate};
use trit_runtime::sample::{Sampler, SamplerOptions, argmax};
use trit_runtime::{
    CodeLimit, CpuTiers, KernelChoice, KernelNote, KvType, LoadOptions, Logits, LogitsRequest, Model,
    NoKernels, RuntimeError, Session, SessionOptions, TrustPolicy, Tuning, WeightMemory,
};
use trit_tests::ways::endless;
use trit_tests::workbench::{compile, fixture, repository, run as run_command, scratch, trit_run, tritc};

/// Repeats itself, so that tokens are drafted and some are right.
const PROMPT: [u32; 24] = [
    4093, 46, 1218, 605, 12, 300, 46, 1218, 605, 12, 301, 46, 1218, 605, 12, 300, 46, 1218, 605, 12, 301, 46,
    1218, 605,
];
const TOKENS: usize = 150;

fn load(name: &str, options: &LoadOptions) -> Arc<Model> {
    let bundle = compile(&repository().join("examples/models/fables-12m"), name);
    Model::load(
        &bundle,
        &LoadOptions { tuning: Tuning::Off, trust: TrustPolicy::everything(), ..options.clone() },
    )
    .unwrap()
}

fn session(model: &Arc<Model>, threads: usize, kv: KvType, chunk: usize) -> Session {
    let options = SessionOptions {
        context: Some(512),
        threads: Some(threads),
        oversubscribe: true,
        kv,
        chunk,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), options).unwrap()
}

fn run(session: &mut Session, options: SamplerOptions, speculate: bool) -> Generation {
    session.truncate(0);
    let request = endless(TOKENS, speculate);
    let mut sampler = Sampler::new(options);
    generate(session, &PROMPT, &mut sampler, &request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn samplers() -> [SamplerOptions; 4] {
    let greedy = SamplerOptions::default();
    let draw = SamplerOptions { temperature: 0.9, seed: 5, ..greedy };
    [
        greedy,
        SamplerOptions { repeat_penalty: 1.2, ..greedy },
        SamplerOptions { top_k: 40, top_p: 0.95, repeat_penalty: 1.1, ..draw },
        SamplerOptions { min_p: 0.05, ..draw },
    ]
}

/// The tokens chosen from all logits, one pass a token.
fn plainly(session: &mut Session, options: SamplerOptions) -> Vec<u32> {
    session.truncate(0);
    let mut sampler = Sampler::new(options);
    let mut history = PROMPT.to_vec();
    let mut logits = session.prefill(&PROMPT).unwrap().to_vec();
    for _ in 0..TOKENS {
        let id = sampler.sample(Logits::All(&logits), &history);
        history.push(id);
        logits.copy_from_slice(session.decode(id).unwrap());
    }
    history.split_off(PROMPT.len())
}

#[test]
fn drafts_and_the_best_logits_alone_choose_the_same_tokens() {
    let model = load("same-tokens", &LoadOptions::default());
    let mut drafted = (0, 0);
    for kv in [KvType::F16, KvType::Int8] {
        let mut plain = session(&model, 1, kv, 1);
        for options in samplers() {
            let expected = plainly(&mut plain, options);
            for (threads, chunk) in [(1, 64), (2, 64), (3, 7)] {
                let mut session = session(&model, threads, kv, chunk);
                for speculate in [false, true] {
                    let generation = run(&mut session, options, speculate);
                    assert_eq!(generation.ids, expected, "{kv:?} {options:?} {threads} {chunk} {speculate}");
                    assert_eq!(session.position(), PROMPT.len() + TOKENS - 1);
                    assert_eq!(session.tokens()[PROMPT.len()..], expected[..TOKENS - 1]);
                    assert!(speculate || generation.drafted == 0);
                    drafted = (drafted.0 + generation.drafted, drafted.1 + generation.accepted);
                }
            }
        }
    }
    eprintln!("{} tokens drafted, {} right", drafted.0, drafted.1);
    assert!(drafted.1 > 0 && drafted.1 < drafted.0, "right and wrong drafts are both tried: {drafted:?}");
}

/// Candidates have the logits they have among all, bit for bit, and include the best.
#[test]
fn the_largest_logits_are_those_of_the_whole_product() {
    let model = load("same-tokens-best", &LoadOptions::default());
    assert!(!model.manifest().planes.is_empty(), "the head has planes");
    let (mut all, mut best) = (session(&model, 2, KvType::F16, 64), session(&model, 2, KvType::F16, 64));
    let also = [7, 3, 4000, 7];
    let mut fewest = usize::MAX;
    for (i, &id) in PROMPT.iter().cycle().take(120).enumerate() {
        let logits = all.decode(id).unwrap().to_vec();
        let count = [1, 2, 40, 256][i % 4];
        let request =
            LogitsRequest::Largest { count, within: [0.0, 1.5][i % 2], allowed: None, forced: also.to_vec() };
        best.advance(&[id], &[request]).unwrap();
        let Some(Logits::Candidates(some)) = best.logits(0) else { panic!("all logits were computed") };
        assert!(some.is_sorted_by(|a, b| a.id < b.id));
        for candidate in some {
            assert_eq!(candidate.logit.to_bits(), logits[candidate.id as usize].to_bits());
        }
        assert!(also.iter().all(|id| some.iter().any(|c| c.id == *id)));
        let mut order: Vec<f32> = logits.clone();
        order.sort_by(|a, b| b.total_cmp(a));
        let least = order[count - 1].min(order[0] - [0.0, 1.5][i % 2]);
        let wanted = |id: usize| logits[id] >= least;
        assert!(
            (0..logits.len()).filter(|&id| wanted(id)).all(|id| some.iter().any(|c| c.id as usize == id))
        );
        assert_eq!(argmax(&logits), {
            let best = some.iter().max_by(|a, b| a.logit.total_cmp(&b.logit).then(b.id.cmp(&a.id)));
            best.unwrap().id
        });
        fewest = fewest.min(some.len());
    }
    assert!(
        fewest < model.manifest().hyperparameters.vocab_size as usize / 10,
        "{fewest} rows survive at least"
    );
}

#[test]
fn every_kernel_and_memory_gives_the_same_tokens() {
    let mut expected: Option<Vec<u32>> = None;
    let tiers: Vec<_> = CpuTiers::detect().iter().collect();
    let named: Vec<&str> = tiers.iter().map(|t| t.name()).collect();
    // Not `eprintln!`, which the test runner keeps to itself while a test passes.
    let _ = writeln!(std::io::stderr(), "tiers exercised with whole models: {}", named.join(", "));
    let mut ways: Vec<LoadOptions> =
        vec![LoadOptions { kernels: KernelChoice::Portable, ..LoadOptions::default() }];
    for cpu in tiers {
        for kernels in [KernelChoice::Embedded, KernelChoice::Jit] {
            ways.push(LoadOptions { kernels, cpu: Some(cpu), ..LoadOptions::default() });
        }
    }
    ways.push(LoadOptions { memory: WeightMemory::Mapped, ..LoadOptions::default() });
    for options in ways {
        let model = load("same-tokens-ways", &options);
        let ids = run(&mut session(&model, 2, KvType::F16, 64), SamplerOptions::default(), true).ids;
        assert_eq!(*expected.get_or_insert_with(|| ids.clone()), ids, "{}", model.kernels());
    }
}

/// Weights stored for AVX-512 VBMI run everywhere: kernels are generated for every other tier once they are stored anew.
#[test]
fn weights_stored_for_one_kind_of_cpu_give_the_same_tokens_on_others() {
    for (checkpoint, name) in [
        (repository().join("examples/models/fables-12m"), "same-tokens-spread"),
        // With scales between the codes.
        (fixture("qwen3-g128"), "same-tokens-spread-groups"),
    ] {
        let compiled = |targets: &str| {
            let output = scratch().join(format!("{name}-{targets}.trit"));
            let mut command = tritc(&["compile", "--target", targets, "-o"]);
            command.arg(&output).arg(&checkpoint);
            run_command(command).ok();
            output
        };
        let (common, spread) = (compiled("x86-64-v3"), compiled("x86-64-v4-vbmi"));
        let ids = |bundle: &Path, options: &LoadOptions| {
            let options =
                LoadOptions { tuning: Tuning::Off, trust: TrustPolicy::everything(), ..options.clone() };
            let model = Model::load(bundle, &options).unwrap();
            assert_eq!(model.selftest(Some(2), KvType::default()).unwrap().failures, [""; 0]);
            let prompt = [1, 2, 3, 46, 12, 300];
            let options =
                SessionOptions { threads: Some(2), oversubscribe: true, ..SessionOptions::default() };
            let mut session = Session::new(model.clone(), options).unwrap();
            let request = endless(40, true);
            let mut sampler = Sampler::new(SamplerOptions::default());
            let go_on = &mut |_| ControlFlow::Continue(());
            (
                generate(&mut session, &prompt, &mut sampler, &request, go_on).unwrap().ids,
                model.kernels().clone(),
            )
        };
        let portable = LoadOptions { kernels: KernelChoice::Portable, ..LoadOptions::default() };
        let (expected, _) = ids(&common, &portable);
        assert_eq!(ids(&spread, &portable).0, expected);
        for cpu in CpuTiers::detect().iter() {
            for kernels in [KernelChoice::Auto, KernelChoice::Jit] {
                let (found, report) =
                    ids(&spread, &LoadOptions { kernels, cpu: Some(cpu), ..LoadOptions::default() });
                assert_eq!(found, expected, "{report}");
                assert_eq!(report.target, Some(cpu));
                let reads = trit_codegen::default_specs(64, Code::Spread, cpu).is_empty();
                let anew = report.notes.iter().any(|note| matches!(note, KernelNote::StoredAnew));
                assert_eq!(anew, reads, "{report}");
            }
        }
        // What stays in the file stays as it is: portable kernels, or a refusal that says why.
        let mapped = LoadOptions { memory: WeightMemory::Mapped, ..LoadOptions::default() };
        assert_eq!(ids(&spread, &mapped).0, expected);
        if CpuTiers::detect().contains(Target::X86_64V3) {
            let options = LoadOptions { cpu: Some(Target::X86_64V3), ..mapped };
            let error = Model::load(&spread, &options).err().unwrap();
            let RuntimeError::Kernels { problem: NoKernels::NoneFor { wanted, limit }, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!((*wanted, *limit), (Target::X86_64V3, Some(CodeLimit::StoredInFile)));
            // What a user can do about it is for the command to say.
            let refused = run_command(trit_run(&[
                spread.to_str().unwrap(),
                "--ids",
                "1",
                "--mmap",
                "--cpu",
                Target::X86_64V3.name(),
            ]));
            refused.fails(4, &["--mmap", "--target all", "AVX-512 VBMI"]);
        }
    }
}

#[test]
fn a_long_context_is_attended_the_same_by_any_number_of_threads() {
    let model = load("same-tokens-long", &LoadOptions::default());
    let prompt: Vec<u32> = PROMPT.iter().copied().cycle().take(700).collect();
    let mut expected: Option<Vec<u32>> = None;
    for (threads, chunk) in [(1, 512), (2, 512), (5, 100), (4, 1)] {
        let options = SessionOptions {
            context: None,
            threads: Some(threads),
            oversubscribe: true,
            kv: KvType::F16,
            chunk,
            ..SessionOptions::default()
        };
        let mut session = Session::new(model.clone(), options).unwrap();
        let mut bits: Vec<u32> = session.prefill(&prompt).unwrap().iter().map(|l| l.to_bits()).collect();
        bits.extend(session.decode(9).unwrap().iter().map(|l| l.to_bits()));
        assert_eq!(
            *expected.get_or_insert_with(|| bits.clone()),
            bits,
            "{threads} threads, chunks of {chunk}"
        );
    }
}
