//! What each option keeps, and that what is asked for decides as all logits do.

use super::*;

const SAMPLE: SamplerOptions = SamplerOptions {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repeat_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    seed: 7,
};

/// Every id that 2000 draws give.
fn drawn(options: SamplerOptions, logits: &[f32]) -> Vec<u32> {
    let mut sampler = Sampler::new(options);
    let mut ids: Vec<u32> = (0..2000).map(|_| sampler.sample(Logits::All(logits), &[])).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Logits whose probabilities at temperature 1 are these.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn splitmix64_gives_its_published_numbers() {
    let mut random = SplitMix64(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([random.next(), random.next(), random.next()], expected);
    assert!((0..1000).map(|_| random.unit()).all(|u| (0.0..1.0).contains(&u)));
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    for temperature in [0.0, -1.0, f32::NAN] {
        let mut sampler = Sampler::new(SamplerOptions { temperature, ..SAMPLE });
        assert_eq!(sampler.sample(Logits::All(&[1.0, 3.0, 3.0, 2.0]), &[]), 1);
    }
}

#[test]
fn top_k_keeps_k_and_the_lowest_ids_of_equals() {
    let options = SamplerOptions { top_k: 2, ..SAMPLE };
    assert_eq!(drawn(options, &[0.0, 1.0, 0.5, 0.9]), [1, 3]);
    assert_eq!(drawn(options, &[1.0, 1.0, 1.0, 1.0]), [0, 1]);
    assert_eq!(drawn(SamplerOptions { top_k: 1, ..SAMPLE }, &[0.0, 1.0, 0.5, 0.9]), [1]);
    assert_eq!(drawn(SamplerOptions { top_k: 9, ..SAMPLE }, &[0.0, 1.0]), [0, 1]);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    let logits = logits(&[0.1, 0.5, 0.15, 0.25]);
    for (top_p, expected) in
        [(0.0, &[1][..]), (0.45, &[1]), (0.6, &[1, 3]), (0.8, &[1, 2, 3]), (0.95, &[0, 1, 2, 3])]
    {
        assert_eq!(drawn(SamplerOptions { top_p, ..SAMPLE }, &logits), expected, "{top_p}");
    }
}

#[test]
fn top_p_sorts_as_far_as_it_must() {
    // 1000 equal logits: 0.9 of them, so that several rounds of sorting are needed, and the lowest ids stay.
    let mut sampler = Sampler::new(SamplerOptions { top_p: 0.9, ..SAMPLE });
    sampler.sample(Logits::All(&[1.0; 1000]), &[]);
    let mut ids: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..900).collect::<Vec<u32>>());
}

#[test]
fn min_p_is_relative_to_the_most_probable() {
    let logits = logits(&[0.1, 0.5, 0.15, 0.25]);
    for (min_p, expected) in [(0.25, &[1, 2, 3][..]), (0.4, &[1, 3]), (1.0, &[1]), (7.0, &[1])] {
        assert_eq!(drawn(SamplerOptions { min_p, ..SAMPLE }, &logits), expected, "{min_p}");
    }
}

#[test]
fn filters_run_in_order() {
    // Temperature first: 0.5 squares the probabilities, so that 0.5 of them is one token, not two. Then top-k
    // renormalizes: 0.4 of (0.4, 0.35) is 0.53, which reaches top_p 0.5 alone.
    let flat = logits(&[0.4, 0.35, 0.25]);
    assert_eq!(drawn(SamplerOptions { top_p: 0.5, ..SAMPLE }, &flat), [0, 1]);
    assert_eq!(drawn(SamplerOptions { top_p: 0.5, top_k: 2, ..SAMPLE }, &flat), [0]);
    assert_eq!(drawn(SamplerOptions { top_p: 0.46, temperature: 0.5, ..SAMPLE }, &flat), [0]);
}

#[test]
fn the_penalty_counts_a_token_once_and_knows_signs() {
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, repeat_penalty: 2.0, ..SAMPLE });
    let logits = Logits::All(&[4.0, -3.0, 3.0, 0.0]);
    assert_eq!(sampler.sample(logits, &[0, 1, 0, 0, 99]), 2);
    assert_eq!(sampler.sample(logits, &[0, 2]), 0);
    let logits: Vec<f32> = sampler.candidates.iter().map(|c| c.logit).collect();
    assert_eq!(logits, [2.0, -3.0, 1.5, 0.0]);
    // -3 becomes -6, below -5.
    assert_eq!(sampler.sample(Logits::All(&[-3.0, -5.0]), &[0]), 1);
}

#[test]
fn a_seed_repeats_and_draws_follow_the_probabilities() {
    let logits = logits(&[0.2, 0.5, 0.3]);
    let run = |seed| {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..SAMPLE });
        (0..32).map(|_| sampler.sample(Logits::All(&logits), &[])).collect::<Vec<u32>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    // The draw is the inverse of the cumulated probabilities in order of id.
    let mut random = SplitMix64(7);
    let expected: Vec<u32> = (0..32)
        .map(|_| match random.unit() {
            u if u < 0.2 => 0,
            u if u < 0.7 => 1,
            _ => 2,
        })
        .collect();
    assert_eq!(run(7), expected);
}

#[test]
fn logits_that_are_no_numbers_are_never_chosen() {
    let bad = [f32::NAN, f32::INFINITY, 1.0, f32::NEG_INFINITY, 0.5];
    assert_eq!(argmax(&bad), 2);
    let all = SamplerOptions { top_p: 0.99, min_p: 0.01, top_k: 4, ..SAMPLE };
    assert_eq!(drawn(all, &bad), [2, 4]);
    for options in [SAMPLE, SamplerOptions::default(), all] {
        assert_eq!(Sampler::new(options).sample(Logits::All(&[f32::NAN; 3]), &[1]), 0);
    }
    assert_eq!(
        drawn(SamplerOptions { temperature: f32::MIN_POSITIVE, ..SAMPLE }, &[f32::MIN, f32::MAX]),
        [1]
    );
    assert_eq!(drawn(SamplerOptions { temperature: f32::INFINITY, ..SAMPLE }, &[-9.0, 9.0]), [0, 1]);
}

/// Whatever is left out that is not wanted, the choice is the same.
#[test]
fn the_wanted_scores_decide() {
    let mut random = SplitMix64(3);
    let options = [
        SamplerOptions::default(),
        SamplerOptions { repeat_penalty: 1.3, ..SamplerOptions::default() },
        SamplerOptions { top_k: 5, top_p: 0.8, ..SAMPLE },
        SamplerOptions { top_k: 40, min_p: 0.1, repeat_penalty: 1.2, temperature: 0.7, ..SAMPLE },
        SamplerOptions { min_p: 0.2, temperature: 1.3, ..SAMPLE },
    ];
    for round in 0..200 {
        // Multiples of 1/8, so that there are ties.
        let logits: Vec<f32> = (0..300).map(|_| (random.next() % 64) as f32 / 8.0 - 2.0).collect();
        let history: Vec<u32> = (0..20).map(|_| (random.next() % 300) as u32).collect();
        for options in options {
            let options = SamplerOptions { seed: round, ..options };
            let mut sampler = Sampler::new(options);
            let LogitsRequest::Largest { count, within, .. } = sampler.request() else {
                panic!("{options:?}")
            };
            let seen: HashSet<u32> =
                if sampler.penalizes() { history.iter().copied().collect() } else { HashSet::new() };
            let mut order: Vec<Candidate> =
                (0..300).map(|id| Candidate { id, logit: logits[id as usize] }).collect();
            order.sort_by(by_probability);
            let unseen: Vec<&Candidate> = order.iter().filter(|c| !seen.contains(&c.id)).collect();
            let least = unseen[count - 1].logit.min(unseen[0].logit - within);
            let mut some: Vec<Candidate> =
                order.iter().copied().filter(|c| c.logit >= least || seen.contains(&c.id)).collect();
            some.sort_by_key(|c| c.id);
            assert!(some.len() < 250);
            let all = Sampler::new(options).sample(Logits::All(&logits), &history);
            assert_eq!(sampler.sample(Logits::Candidates(&some), &history), all, "{options:?}");
        }
    }
    for options in
        [SAMPLE, SamplerOptions { top_p: 0.9, min_p: 0.1, ..SAMPLE }, SamplerOptions { top_k: 257, ..SAMPLE }]
    {
        assert_eq!(Sampler::new(options).request(), LogitsRequest::All);
    }
}

#[test]
fn defaults_come_from_the_model_unless_they_make_no_sense() {
    let mut defaults = SamplingDefaults { temperature: Some(0.7), top_p: Some(0.9), ..Default::default() };
    assert_eq!(SamplerOptions::from_defaults(&defaults, 3), SamplerOptions { seed: 3, ..Default::default() });
    defaults.do_sample = true;
    let expected = SamplerOptions { temperature: 0.7, top_k: 50, top_p: 0.9, seed: 3, ..Default::default() };
    assert_eq!(SamplerOptions::from_defaults(&defaults, 3), expected);
    let senseless = SamplingDefaults {
        do_sample: true,
        temperature: Some(f32::NAN),
        top_k: Some(0),
        top_p: Some(-1.0),
        min_p: Some(f32::INFINITY),
        repetition_penalty: Some(0.0),
        rules: LogitRules::default(),
    };
    assert_eq!(SamplerOptions::from_defaults(&senseless, 7), SAMPLE);
}

#[test]
fn the_model_suggests_and_the_user_decides() {
    let suggested = SamplingDefaults {
        do_sample: true,
        temperature: Some(0.7),
        top_p: Some(0.9),
        ..SamplingDefaults::default()
    };
    let nothing = SamplerOverrides::default();
    let options = nothing.over(&suggested, 3);
    assert_eq!((options.temperature, options.top_p, options.seed), (0.7, 0.9, 3));
    let cold = SamplerOverrides { temperature: Some(0.0), ..nothing };
    assert_eq!(cold.over(&suggested, 3).temperature, 0.0);
    let greedy = SamplingDefaults::default();
    assert_eq!(nothing.over(&greedy, 3).temperature, 0.0);
    let few = SamplerOverrides { top_k: Some(3), ..nothing };
    assert_eq!(few.over(&greedy, 3).temperature, 1.0);
}

#[test]
fn biases_join_the_models_rules() {
    let rules = LogitRules { suppress: vec![9], ..LogitRules::default() };
    let joined = with_biases(&rules, &[(3, 1.5), (4, f32::NEG_INFINITY)]);
    assert_eq!((joined.suppress, joined.sequence_bias), (vec![9, 4], vec![(vec![3], 1.5)]));
}

#[test]
fn values_that_cannot_be_meant_are_named() {
    let good = SamplerOverrides { temperature: Some(0.0), top_p: Some(1.0), ..SamplerOverrides::default() };
    good.check().unwrap();
    let none = SamplerOverrides::default();
    for (wrong, name) in [
        (
            SamplerOverrides { temperature: Some(-1.0), ..none },
            "temperature is -1; expected a number 0 or more",
        ),
        (SamplerOverrides { temperature: Some(f32::INFINITY), ..none }, "temperature is inf"),
        (SamplerOverrides { top_p: Some(1.5), ..none }, "top_p is 1.5; expected a number from 0 to 1"),
        (SamplerOverrides { min_p: Some(f32::NAN), ..none }, "min_p is NaN"),
        (
            SamplerOverrides { repeat_penalty: Some(0.0), ..none },
            "repeat_penalty is 0; expected a number above 0",
        ),
        (SamplerOverrides { frequency_penalty: Some(3.0), ..none }, "frequency_penalty is 3"),
        (SamplerOverrides { presence_penalty: Some(-3.0), ..none }, "presence_penalty is -3"),
    ] {
        let error = wrong.check().unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}
