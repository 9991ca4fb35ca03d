//! The largest logits among allowed tokens: exactly those of all logits, whatever is allowed, and samplers choose the
//! same from them. The measurement: `cargo test --release --workspace --test masks -- --ignored --nocapture`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{Batch, Engine, KernelChoice, Logits, LogitsRequest, SequenceOptions, TokenSet};
use trit_tests::engines::{Random, engine, load};
use trit_tests::large;
use trit_tests::workbench::{compile, fixture, repository};

/// Sets of tokens of a vocabulary: none, few, some, half, all but one, all, and one that ends early.
fn masks(vocab: usize, random: &mut Random) -> Vec<TokenSet> {
    let all = 0..vocab as u32;
    let mut masks: Vec<TokenSet> = [0, 1, 2, 17, vocab / 64, vocab / 64 + 1, vocab / 20]
        .into_iter()
        .map(|n| random.ids(n, vocab).into_iter().collect())
        .collect();
    masks.push(all.clone().filter(|_| random.below(2) == 0).collect());
    let missing = random.below(vocab) as u32;
    masks.push(all.clone().filter(|&id| id != missing).collect());
    masks.push(all.collect());
    masks.push((0..vocab as u32 / 3).collect());
    // Bits beyond the vocabulary do not matter.
    masks.push(TokenSet::from_words(vec![u32::MAX; vocab.div_ceil(32) + 3]));
    masks
}

/// Checks what was found for a request against all logits, bit for bit.
fn check(found: Logits, request: &LogitsRequest, all: &[f32], what: &str) {
    let LogitsRequest::Largest { count, within, allowed: Some(allowed), forced } = request else {
        panic!("{request:?}")
    };
    let candidates = match found {
        Logits::All(found) => {
            assert!(found.iter().zip(all).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
            return;
        }
        Logits::Candidates(candidates) => candidates,
        Logits::Hidden(_) => panic!("{what}: a hidden state"),
    };
    let forced = |id: u32| forced.contains(&id);
    let mut largest: Vec<f32> = (0..all.len() as u32)
        .filter(|&id| allowed.contains(id) && !forced(id))
        .map(|id| all[id as usize])
        .collect();
    largest.sort_by(|a, b| b.total_cmp(a));
    let least = match largest.get(count - 1) {
        Some(last) => last.min(largest[0] - within),
        None => f32::NEG_INFINITY,
    };
    for candidate in candidates {
        let logit = all[candidate.id as usize];
        assert_eq!(candidate.logit.to_bits(), logit.to_bits(), "{what}");
        assert!(allowed.contains(candidate.id) || forced(candidate.id), "{what}: {}", candidate.id);
    }
    let has = |id: u32| candidates.binary_search_by_key(&id, |candidate| candidate.id).is_ok();
    for id in 0..all.len() as u32 {
        let wanted = forced(id) || (allowed.contains(id) && all[id as usize] >= least);
        assert!(!wanted || has(id), "{what}: {id} is missing");
    }
}

/// All logits after some prompt, and the same prompt with many requests in one batch.
fn compare(engine: &Engine, rounds: usize) {
    let vocab = engine.model().manifest().hyperparameters.vocab_size as usize;
    let mut random = Random(rounds as u64);
    let mut computed = [0, 0];
    for round in 0..rounds {
        let mut base = engine.sequence(SequenceOptions::default()).unwrap();
        let ids = random.ids(1 + round % 3, vocab);
        engine.advance(&mut base, &ids, &[LogitsRequest::All], None).unwrap();
        let Some(Logits::All(all)) = base.logits(0) else { panic!("all were asked for") };
        let all = all.to_vec();
        let masks = masks(vocab, &mut random);
        let requests: Vec<[LogitsRequest; 1]> = masks
            .into_iter()
            .map(|allowed| {
                let count = [1, 2, 40, 256][random.below(4)];
                let within = [0.0, 1.5, f32::INFINITY][random.below(3)];
                let n = random.below(5);
                let mut forced = random.ids(n, vocab);
                if random.below(3) == 0 {
                    // Nearly all that is allowed.
                    forced.extend(allowed.iter().take_while(|&id| (id as usize) < vocab).skip(2));
                }
                [LogitsRequest::Largest { count, within, allowed: Some(Arc::new(allowed)), forced }]
            })
            .collect();
        let mut forks: Vec<_> = requests.iter().map(|_| base.fork(base.position() - 1)).collect();
        let last = &ids[ids.len() - 1..];
        let mut batch = Batch::new();
        for (fork, request) in forks.iter_mut().zip(&requests) {
            batch.push(fork, last, request);
        }
        engine.step(&mut batch).unwrap().into_iter().for_each(|ran| assert_eq!(ran.unwrap(), 1));
        for (index, (fork, [request])) in forks.iter().zip(&requests).enumerate() {
            let found = fork.logits(0).unwrap();
            computed[usize::from(matches!(found, Logits::All(_)))] += 1;
            check(found, request, &all, &format!("round {round}, mask {index}"));
        }
        // Alone, each gives the same.
        let (mut fork, request) = (base.fork(base.position() - 1), &requests[round % requests.len()]);
        engine.advance(&mut fork, last, request, None).unwrap();
        check(fork.logits(0).unwrap(), &request[0], &all, "alone");
    }
    assert!(computed[0] > computed[1], "{computed:?}: nothing was left out");
}

fn shipped(name: &str) -> std::path::PathBuf {
    compile(&repository().join("examples/models/fables-12m"), name)
}

fn engine_of(bundle: &Path, threads: usize) -> Engine {
    engine(&load(bundle, KernelChoice::Auto), threads, 64)
}

#[test]
fn a_small_head_finds_the_largest_that_are_allowed() {
    compare(&engine_of(&shipped("masks-small"), 2), 60);
}

#[test]
fn a_head_with_planes_finds_the_largest_that_are_allowed() {
    let bundle = large::bundle("masks-large");
    for threads in [1, 3] {
        compare(&engine_of(&bundle, threads), 12);
    }
}

/// A head that can only compute all logits does so, unless it is asked for some rows of a float table.
#[test]
fn every_head_answers() {
    for name in ["llama-trilm", "bitnet-1bitllm", "gemma3-online-rmsnorm", "qwen35-hadamard/model.pq2_0.gguf"]
    {
        let engine = engine_of(&compile(&fixture(name), &format!("masks-{}", name.replace('/', "-"))), 2);
        let vocab = engine.model().manifest().hyperparameters.vocab_size as usize;
        let mut random = Random(3);
        let mut base = engine.sequence(SequenceOptions::default()).unwrap();
        engine.advance(&mut base, &[3, 4], &[LogitsRequest::All], None).unwrap();
        let Some(Logits::All(all)) = base.logits(0) else { panic!("all were asked for") };
        for allowed in masks(vocab, &mut random) {
            let allowed = Some(Arc::new(allowed));
            let request = LogitsRequest::Largest { count: 3, within: 0.0, allowed, forced: vec![1] };
            let mut fork = base.fork(1);
            engine.advance(&mut fork, &[4], std::slice::from_ref(&request), None).unwrap();
            check(fork.logits(0).unwrap(), &request, all, name);
        }
    }
}

/// What a sampler asks for under a mask suffices for what it would choose from all logits of which the others are removed.
#[test]
fn samplers_choose_the_same() {
    let engine = engine_of(&shipped("masks-samplers"), 2);
    let mut random = Random(11);
    let greedy = SamplerOptions::default();
    let draw = SamplerOptions { temperature: 0.9, ..greedy };
    let options = [
        greedy,
        SamplerOptions { repeat_penalty: 1.3, ..greedy },
        SamplerOptions { top_k: 40, top_p: 0.9, repeat_penalty: 1.1, ..draw },
        SamplerOptions { min_p: 0.05, ..draw },
        SamplerOptions { top_p: 0.9, ..draw },
        draw,
    ];
    let mut base = engine.sequence(SequenceOptions::default()).unwrap();
    let ids = random.ids(9, 4096);
    engine.advance(&mut base, &ids, &[LogitsRequest::All], None).unwrap();
    let Some(Logits::All(all)) = base.logits(0) else { panic!("all were asked for") };
    for seed in 0..20 {
        for allowed in masks(4096, &mut random) {
            for options in options {
                let mut sampler = Sampler::new(SamplerOptions { seed, ..options });
                let allowed = Arc::new(allowed.clone());
                let asked = [sampler.asks(&ids, &[], 4096).among(&allowed)];
                let mut fork = base.fork(8);
                engine.advance(&mut fork, &ids[8..], &asked, None).unwrap();
                // Exactly as if the others had a probability of zero.
                let masked: Vec<f32> = (0u32..)
                    .zip(all)
                    .map(|(id, &logit)| match allowed.contains(id) {
                        true => logit,
                        false => f32::NEG_INFINITY,
                    })
                    .collect();
                let expected = sampler.clone().choose(Logits::All(&masked), &ids);
                let chosen = sampler.choose_among(fork.logits(0).unwrap(), &ids, Some(&*allowed));
                assert_eq!(chosen, expected, "{options:?} of {}", allowed.len());
            }
        }
    }
}

/// Nanoseconds for which this thread has run.
fn ran() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Tokens of random ids under masks of many sizes, on one thread, whose own time counts. TRIT_MASKS_BUNDLE names another bundle.
#[test]
#[ignore = "a measurement"]
fn what_masks_cost() {
    let bundle = match std::env::var_os("TRIT_MASKS_BUNDLE") {
        Some(bundle) => bundle.into(),
        None => large::bundle("masks-cost"),
    };
    let engine = engine_of(&bundle, 1);
    let vocab = engine.model().manifest().hyperparameters.vocab_size as usize;
    let mut random = Random(1);
    let largest = |count, allowed| LogitsRequest::Largest { count, within: 0.0, allowed, forced: vec![] };
    let mut base = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut base, &[3, 4], &[], None).unwrap();
    let mut cases: Vec<(String, Vec<LogitsRequest>)> = vec![("no head".into(), vec![])];
    for count in [1, 40] {
        cases.push((format!("{count} of all"), vec![largest(count, None)]));
        for share in [8192, 1024, 256, 128, 65, 32, 16, 8, 4, 2] {
            let set: TokenSet = random.ids(vocab / share, vocab).into_iter().collect();
            cases.push((format!("{count} of {}", set.len()), vec![largest(count, Some(Arc::new(set)))]));
        }
    }
    cases.push(("all logits".into(), vec![LogitsRequest::All]));
    let mut best = vec![(Duration::MAX, u64::MAX); cases.len()];
    for _ in 0..12 {
        for ((_, requests), best) in cases.iter().zip(&mut best) {
            let mut fork = base.fork(1);
            engine.advance(&mut fork, &[4], requests, None).unwrap();
            fork.truncate(1);
            let (start, before) = (Instant::now(), ran());
            engine.advance(&mut fork, &[4], requests, None).unwrap();
            *best = (best.0.min(start.elapsed()), best.1.min(ran() - before));
        }
    }
    for ((name, _), (wall, cpu)) in cases.iter().zip(&best) {
        let head = cpu.saturating_sub(best[0].1) as f64 / 1e6;
        println!("{name:>14}: {:8.2} ms, the head {head:8.2} ms", wall.as_secs_f64() * 1e3);
    }
}
