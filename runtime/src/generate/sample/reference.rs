//! Rules for single tokens against what transformers computes, and with a part of the logits against all of them.

use super::*;
use serde::Deserialize;
use std::path::Path;

/// See `tests/fixtures/logit-rules/make.py`.
#[derive(Deserialize)]
struct Case {
    text: Vec<u32>,
    begins: bool,
    repetition_penalty: f32,
    rules: LogitRules,
    logits: Vec<f32>,
    /// None for a token that is suppressed.
    scores: Vec<Option<f32>>,
}

fn cases() -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/logit-rules/cases.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn scores_are_those_of_transformers() {
    let mut suppressed = 0;
    for (index, case) in cases().into_iter().enumerate() {
        let repeat_penalty = case.repetition_penalty;
        let options = SamplerOptions { repeat_penalty, ..SamplerOptions::default() };
        let mut sampler = Sampler::with_rules(options, &case.rules);
        if case.begins {
            sampler.begin(case.text.len());
        }
        let chosen = sampler.choose(Logits::All(&case.logits), &case.text);
        let mut found = vec![None; case.scores.len()];
        if repeat_penalty != 1.0 || !sampler.rules.is_empty() {
            sampler.candidates.iter().for_each(|c| found[c.id as usize] = Some(c.logit));
            assert_eq!(found, case.scores, "case {index}");
        }
        let best = |best: Option<usize>, id: usize| match (best, case.scores[id]) {
            (Some(b), Some(score)) if case.scores[b] < Some(score) => Some(id),
            (None, Some(_)) => Some(id),
            _ => best,
        };
        assert_eq!(chosen.map(|id| id as usize), (0..case.scores.len()).fold(None, best), "case {index}");
        suppressed += case.scores.iter().filter(|score| score.is_none()).count();
    }
    assert!(suppressed > 100, "{suppressed}");
}

#[test]
fn where_all_is_suppressed_nothing_is_chosen() {
    let rules = LogitRules { suppress: vec![0, 2], no_repeat_ngram_size: 1, ..LogitRules::default() };
    for options in [SamplerOptions::default(), SamplerOptions { temperature: 1.0, ..Default::default() }] {
        let mut sampler = Sampler::with_rules(options, &rules);
        assert_eq!(sampler.choose(Logits::All(&[1.0, 0.5, 2.0]), &[]), Some(1));
        assert_eq!(sampler.choose(Logits::All(&[1.0, 0.5, 2.0]), &[1]), None);
        assert_eq!(sampler.choose(Logits::All(&[f32::NAN; 3]), &[]), None);
    }
}

fn random_rules(random: &mut SplitMix64, vocab: u64) -> LogitRules {
    let mut word = |most: u64| -> Vec<u32> {
        let len = 1 + random.next() % most;
        // Few tokens, so that sequences occur.
        (0..len).map(|_| (random.next() % [6, vocab][(random.next() % 4 / 3) as usize]) as u32).collect()
    };
    LogitRules {
        sequence_bias: (0..6).map(|i| (word(3), [-3.0, 0.5, 2.0, 9.0, -0.125, 4.5][i])).collect(),
        no_repeat_ngram_size: word(1)[0] % 4,
        bad_words: (0..4).map(|_| word(3)).collect(),
        suppress: word(4),
        begin_suppress: word(4),
    }
}

/// The largest logits, and those that are asked for by name, choose as all logits do.
#[test]
fn what_is_asked_for_decides() {
    const VOCAB: usize = 600;
    let mut random = SplitMix64(3);
    let draw = SamplerOptions { temperature: 0.8, ..SamplerOptions::default() };
    let options = [
        SamplerOptions::default(),
        SamplerOptions { repeat_penalty: 1.4, ..SamplerOptions::default() },
        SamplerOptions { repeat_penalty: 0.7, ..SamplerOptions::default() },
        SamplerOptions { top_k: 3, top_p: 0.9, ..draw },
        SamplerOptions { top_k: 9, min_p: 0.1, repeat_penalty: 1.2, ..draw },
        SamplerOptions { min_p: 0.2, ..draw },
    ];
    let mut partly = 0;
    for round in 0..400 {
        let rules = random_rules(&mut random, VOCAB as u64);
        // Multiples of 1/8, so that there are ties; large ones mostly where rules are.
        let mut logits: Vec<f32> = (0..VOCAB).map(|_| (random.next() % 64) as f32 / 8.0 - 2.0).collect();
        (0..6).for_each(|id| logits[id] += 4.0);
        let history: Vec<u32> = (0..random.next() % 12).map(|_| (random.next() % 6) as u32).collect();
        let drafted: Vec<u32> = (0..random.next() % 4).map(|_| (random.next() % 6) as u32).collect();
        for options in options {
            let options = SamplerOptions { seed: round, ..options };
            let mut sampler = Sampler::with_rules(options, &rules);
            sampler.begin(history.len());
            let LogitsRequest::Largest { count, within, forced, .. } =
                sampler.asks(&history, &drafted, VOCAB)
            else {
                continue;
            };
            partly += 1;
            assert!(forced.is_sorted() && forced.len() <= VOCAB / MOST_FORCED);
            let mut others: Vec<f32> =
                (0..VOCAB as u32).filter(|id| !forced.contains(id)).map(|id| logits[id as usize]).collect();
            others.sort_by(|a, b| b.total_cmp(a));
            let least = others[count - 1].min(others[0] - within);
            let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit });
            let some: Vec<Candidate> = all.filter(|c| c.logit >= least || forced.contains(&c.id)).collect();
            // The same for the text and for what may follow it.
            let text = [&history[..], &drafted].concat();
            for len in history.len()..=text.len() {
                let mut with_all = sampler.clone();
                let expected = with_all.choose(Logits::All(&logits), &text[..len]);
                let chosen = sampler.clone().choose(Logits::Candidates(&some), &text[..len]);
                assert_eq!(chosen, expected, "round {round}, {options:?}, {rules:?}, {:?}", &text[..len]);
            }
        }
    }
    assert!(partly > 1000, "{partly}");
}

/// Where many tokens are forced, all logits are computed.
#[test]
fn many_forced_tokens_ask_for_all() {
    let rules = LogitRules { suppress: (0..100).collect(), ..LogitRules::default() };
    let sampler = Sampler::with_rules(SamplerOptions::default(), &rules);
    assert_eq!(sampler.asks(&[1], &[], 1000), LogitsRequest::All);
    let asked = sampler.asks(&[1], &[], 1600);
    assert!(matches!(asked, LogitsRequest::Largest { forced, .. } if forced.len() == 100));
    let sampler = Sampler::new(SamplerOptions::default());
    assert_eq!(sampler.asks(&[1], &[2], 10), LogitsRequest::largest());
}

/// OpenAI's documentation: `mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence`, where `c[j]` is how
/// often token `j` was sampled.
#[test]
fn penalties_of_the_answer_count_what_was_generated() {
    let options = SamplerOptions { frequency_penalty: 0.5, presence_penalty: 0.25, ..Default::default() };
    let mut sampler = Sampler::new(options);
    sampler.begin(2);
    // Token 3 stands in the prompt alone, token 0 twice in the answer, token 1 once.
    let chosen = sampler.choose(Logits::All(&[2.0, 1.5, 1.0, 1.0]), &[3, 3, 0, 1, 0]);
    let found: Vec<f32> = sampler.candidates.iter().map(|c| c.logit).collect();
    assert_eq!((chosen, found), (Some(2), vec![0.75, 0.75, 1.0, 1.0]));
    // A negative penalty makes tokens of the answer more probable; only their logits are asked for besides the largest.
    let mut sampler = Sampler::new(SamplerOptions { presence_penalty: -2.0, ..Default::default() });
    sampler.begin(1);
    let asked = sampler.asks(&[9, 4], &[5], 1000);
    assert_eq!(asked, LogitsRequest::Largest { count: 1, within: 0.0, allowed: None, forced: vec![4, 5] });
    assert_eq!(sampler.choose(Logits::All(&[1.0, 0.0, 0.0, 0.0, -0.5]), &[9, 4]), Some(4));
    // A text that is shorter than where the answer begins has no answer yet.
    sampler.begin(7);
    assert_eq!(sampler.choose(Logits::All(&[1.0, 0.0]), &[1, 1]), Some(0));
}
