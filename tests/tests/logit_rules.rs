//! What a model's authors say of single tokens holds, with the tokens that all logits and plain rules give.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use trit_format::manifest::LogitRules;
use trit_runtime::generate::generate;
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{
    KvType, LoadOptions, Logits, LogitsRequest, Model, RuntimeError, Session, SessionOptions, Tuning,
};
use trit_tests::ways::endless;
use trit_tests::workbench::{compile, repository, run, scratch, trit_run, tritc};

/// Repeats itself, so that tokens are drafted and some are right.
const PROMPT: [u32; 24] = [
    4093, 46, 1218, 605, 12, 300, 46, 1218, 605, 12, 301, 46, 1218, 605, 12, 300, 46, 1218, 605, 12, 301, 46,
    1218, 605,
];
const TOKENS: usize = 100;

fn session(model: &Arc<Model>, threads: usize) -> Session {
    let options = SessionOptions {
        context: Some(512),
        threads: Some(threads),
        oversubscribe: true,
        kv: KvType::F16,
        chunk: 64,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), options).unwrap()
}

/// Logits after the rules, read off their definitions; infinitely small where suppressed.
fn ruled(logits: &[f32], text: &[u32], begins: bool, penalty: f32, rules: &LogitRules) -> Vec<f32> {
    let mut scores = logits.to_vec();
    let completes = |word: &[u32]| text.ends_with(&word[..word.len() - 1]);
    let mut sums = vec![0.0; scores.len()];
    for (word, bias) in rules.sequence_bias.iter().filter(|(word, _)| completes(word)) {
        sums[word[word.len() - 1] as usize] += bias;
    }
    scores.iter_mut().zip(sums).for_each(|(score, sum)| *score += sum);
    for id in text.iter().collect::<HashSet<_>>() {
        let score = &mut scores[*id as usize];
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
    let n = rules.no_repeat_ngram_size as usize;
    let mut suppress = |id: u32| scores[id as usize] = f32::NEG_INFINITY;
    if n > 0 && text.len() >= n {
        let tail = &text[text.len() + 1 - n..];
        text.windows(n).filter(|w| w[..n - 1] == *tail).for_each(|w| suppress(w[n - 1]));
    }
    rules.bad_words.iter().filter(|word| completes(word)).for_each(|word| suppress(word[word.len() - 1]));
    rules.suppress.iter().for_each(|id| suppress(*id));
    rules.begin_suppress.iter().filter(|_| begins).for_each(|id| suppress(*id));
    scores
}

/// The tokens chosen from all logits by the rules' definitions, one pass a token. Whether an id is drawn depends on the seed
/// and the scores alone, so a sampler without rules draws from the ruled scores.
fn plainly(session: &mut Session, options: SamplerOptions, rules: &LogitRules) -> Vec<u32> {
    session.truncate(0);
    let penalty = options.repeat_penalty;
    let mut sampler = Sampler::new(SamplerOptions { repeat_penalty: 1.0, ..options });
    let mut text = PROMPT.to_vec();
    let mut logits = session.prefill(&PROMPT).unwrap().to_vec();
    for index in 0..TOKENS {
        let scores = ruled(&logits, &text, index == 0, penalty, rules);
        let id = sampler.sample(Logits::All(&scores), &text);
        text.push(id);
        logits.copy_from_slice(session.decode(id).unwrap());
    }
    text.split_off(PROMPT.len())
}

#[test]
fn rules_give_the_tokens_that_all_logits_give() {
    let bundle = compile(&repository().join("examples/models/fables-12m"), "logit-rules");
    let model = Model::load(&bundle, &LoadOptions { tuning: Tuning::Off, ..LoadOptions::default() }).unwrap();
    let mut plain = session(&model, 1);
    let greedy = SamplerOptions::default();
    let draw = SamplerOptions { temperature: 0.9, seed: 5, ..greedy };
    let options = [
        greedy,
        SamplerOptions { repeat_penalty: 1.2, ..greedy },
        SamplerOptions { top_k: 40, top_p: 0.95, repeat_penalty: 1.1, ..draw },
        SamplerOptions { min_p: 0.05, ..draw },
    ];
    // What the model says without rules is what they are about.
    let said = plainly(&mut plain, greedy, &LogitRules::default());
    let none = LogitRules::default();
    let often: Vec<u32> = said.iter().copied().take(6).collect();
    let pairs: Vec<Vec<u32>> = said.windows(2).map(<[u32]>::to_vec).step_by(3).collect();
    let all = LogitRules {
        sequence_bias: vec![
            (vec![often[1]], -2.0),
            (pairs[2].clone(), 3.0),
            (vec![17], 4.5),
            (vec![900], 60.0),
        ],
        no_repeat_ngram_size: 3,
        bad_words: pairs.clone(),
        suppress: vec![900, often[2]],
        begin_suppress: often.clone(),
    };
    let rules = [
        LogitRules { suppress: often.clone(), ..none.clone() },
        LogitRules { begin_suppress: vec![said[0]], ..none.clone() },
        LogitRules { no_repeat_ngram_size: 2, ..none.clone() },
        LogitRules { no_repeat_ngram_size: 1, ..none.clone() },
        LogitRules { bad_words: pairs.clone(), ..none.clone() },
        LogitRules { sequence_bias: vec![(vec![17], 30.0), (vec![17, 17], -40.0)], ..none.clone() },
        // So many that all logits are computed.
        LogitRules { suppress: (0..600).collect(), ..none.clone() },
        all,
    ];
    let mut partly = 0;
    for rules in &rules {
        for options in options {
            let expected = plainly(&mut plain, options, rules);
            assert_ne!(expected, plainly(&mut plain, options, &none), "{rules:?} changes nothing");
            for (threads, speculate) in [(1, false), (2, true)] {
                let mut session = session(&model, threads);
                let mut sampler = Sampler::with_rules(options, rules);
                partly += usize::from(sampler.asks(&PROMPT, &[], 4096) != LogitsRequest::All);
                let request = endless(TOKENS, speculate);
                let each = &mut |_| ControlFlow::Continue(());
                let generation = generate(&mut session, &PROMPT, &mut sampler, &request, each).unwrap();
                assert_eq!(generation.ids, expected, "{options:?} {rules:?} {threads} {speculate}");
            }
        }
    }
    assert!(partly > 20, "{partly} ask for a part of the logits");
    let rules = LogitRules { suppress: (0..4096).collect(), ..none };
    let mut sampler = Sampler::with_rules(greedy, &rules);
    let request = endless(3, true);
    let each = &mut |_| ControlFlow::Continue(());
    let error = generate(&mut session(&model, 1), &PROMPT, &mut sampler, &request, each).unwrap_err();
    assert!(matches!(error, RuntimeError::Suppressed { tokens: 24 }), "{error}");
}

/// From generation_config.json to what is printed.
#[test]
fn a_checkpoint_s_rules_are_kept() {
    let from = repository().join("examples/models/fables-12m");
    let to = scratch().join("checkpoint-logit-rules");
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
    }
    let generated = |bundle: &PathBuf| -> Vec<u32> {
        let args = ["-p", "Once upon a time", "-n", "12", "--temp", "0", "--ignore-eos", "--json"];
        let json = run(trit_run(&[&[bundle.to_str().unwrap()], &args[..]].concat())).json();
        serde_json::from_value(json["ids"].clone()).unwrap()
    };
    let before = generated(&compile(&to, "logit-rules-before"));
    let config = serde_json::json!({ "suppress_tokens": [before[0], -1], "num_beams": 4, "max_length": 20 });
    std::fs::write(to.join("generation_config.json"), config.to_string()).unwrap();
    let after = generated(&compile(&to, "logit-rules-after"));
    assert!(!after.contains(&before[0]), "{before:?} {after:?}");
    let out = scratch().join("logit-rules-warned.trit");
    for args in [&["inspect"][..], &["compile", "-o", out.to_str().unwrap()]] {
        let mut command = tritc(args);
        command.arg(&to);
        let ran = run(command);
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, Some(0), "{said}");
        for words in ["not applied: max_length 20, num_beams 4", "suppress_tokens: 1 of its entries"] {
            assert!(said.contains(words), "{said}");
        }
    }
}
