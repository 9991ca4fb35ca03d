//! Sampling: logits enter, a token leaves.
//!
//! The order is that of transformers: biases, repetition penalty, suppressed tokens, temperature, top-k, top-p, min-p,
//! then the draw. OpenAI's penalties of tokens in the answer, which transformers does not have, follow the repetition
//! penalty. Equal logits are ordered by id, so that the result does not depend on how candidates were found.
//!
//! Where only some tokens are allowed, the others are removed before all of that, exactly as if their probabilities were
//! zero: top-k counts allowed tokens, and the sums that top-p needs are of their probabilities alone.

use super::rules::Rules;
use crate::RuntimeError;
use crate::engine::{Candidate, Logits, LogitsRequest, TokenSet};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use trit_format::manifest::{LogitRules, SamplingDefaults};

/// The start of a random sequence that nobody asked for: another one each time. It has 32 bits, so that every reader of JSON
/// keeps it exactly.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits. Where it is zero, negative or NaN, the most probable token is always chosen.
    pub temperature: f32,
    /// Keeps the `top_k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens until their probabilities add up to `top_p`; 1 or more keeps all.
    pub top_p: f32,
    /// Keeps the tokens that are at least `min_p` times as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits, and multiplies negative logits, of tokens in the history (Keskar et al. 2019); 1
    /// changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted from a token's logit for each time that the token stands in the answer so far; 0 changes nothing. Where
    /// the answer begins is said by [`Sampler::begin`].
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit where the token stands in the answer so far; 0 changes nothing.
    pub presence_penalty: f32,
    /// The start of the random sequence. The same seed and logits give the same tokens.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

/// The `top_k` that transformers uses where `generation_config.json` asks for sampling without saying it.
const DEFAULT_TOP_K: u32 = 50;

impl SamplerOptions {
    /// The model's own defaults, with transformers' values where they say nothing. Values that make no sense are
    /// ignored.
    pub fn from_defaults(defaults: &SamplingDefaults, seed: u64) -> SamplerOptions {
        let valid = |value: Option<f32>, valid: fn(f32) -> bool| value.filter(|&v| v.is_finite() && valid(v));
        let greedy = SamplerOptions {
            repeat_penalty: valid(defaults.repetition_penalty, |v| v > 0.0).unwrap_or(1.0),
            seed,
            ..SamplerOptions::default()
        };
        if !defaults.do_sample {
            return greedy;
        }
        SamplerOptions {
            temperature: valid(defaults.temperature, |v| v >= 0.0).unwrap_or(1.0),
            top_k: defaults.top_k.unwrap_or(DEFAULT_TOP_K) as usize,
            top_p: valid(defaults.top_p, |v| v > 0.0).unwrap_or(1.0),
            min_p: valid(defaults.min_p, |v| (0.0..=1.0).contains(&v)).unwrap_or(0.0),
            ..greedy
        }
    }
}

/// What somebody says of how tokens are chosen, each field as in [`SamplerOptions`]. What is `None` is as the model's
/// authors suggest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplerOverrides {
    /// Divides the logits; 0 takes the most probable token always.
    pub temperature: Option<f32>,
    /// Choose among this many of the most probable tokens; 0: among all.
    pub top_k: Option<usize>,
    /// Choose among the most probable tokens that together reach this probability.
    pub top_p: Option<f32>,
    /// Choose among tokens at least this many times as probable as the most probable.
    pub min_p: Option<f32>,
    /// Make tokens that occurred in the text less probable; 1: off.
    pub repeat_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time that the answer has it.
    pub frequency_penalty: Option<f32>,
    /// Subtracted from a token's logit where the answer has it.
    pub presence_penalty: Option<f32>,
}

impl SamplerOverrides {
    /// Checks that each value can be meant.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] with the value's name and what it may be.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let fail = |name: &str, value: f32, expected: &str| {
            Err(RuntimeError::Input(format!("{name} is {value}; expected a number {expected}")))
        };
        let not = |value: Option<f32>, fits: fn(f32) -> bool| value.filter(|&v| !(v.is_finite() && fits(v)));
        if let Some(value) = not(self.temperature, |v| v >= 0.0) {
            return fail("temperature", value, "0 or more; 0 takes the most probable token always");
        }
        for (name, value, off) in [("top_p", self.top_p, 1), ("min_p", self.min_p, 0)] {
            if let Some(value) = not(value, |v| (0.0..=1.0).contains(&v)) {
                return fail(name, value, &format!("from 0 to 1; {off}: choose among all"));
            }
        }
        if let Some(value) = not(self.repeat_penalty, |v| v > 0.0) {
            return fail("repeat_penalty", value, "above 0; 1: off");
        }
        for (name, value) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            if let Some(value) = not(value, |v| (-2.0..=2.0).contains(&v)) {
                return fail(name, value, "from -2 to 2; 0: off");
            }
        }
        Ok(())
    }

    /// What was said, filled up from a model's defaults.
    pub fn over(&self, defaults: &SamplingDefaults, seed: u64) -> SamplerOptions {
        let mut defaults = defaults.clone();
        // Who limits the candidates wants to choose among them, even where the authors suggest the most probable.
        defaults.do_sample |= self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let base = SamplerOptions::from_defaults(&defaults, seed);
        SamplerOptions {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            seed,
        }
    }
}

/// A model's rules for single tokens, and what somebody adds to them: biases of tokens, which are never chosen where theirs is
/// minus infinity.
pub fn with_biases(rules: &LogitRules, biases: &[(u32, f32)]) -> LogitRules {
    let mut rules = rules.clone();
    for &(id, bias) in biases {
        match bias == f32::NEG_INFINITY {
            true => rules.suppress.push(id),
            false => rules.sequence_bias.push((vec![id], bias)),
        }
    }
    rules
}

/// Most of the largest logits that are asked for; for more, every logit is computed.
const MOST_LARGEST: usize = 256;
/// Every logit is computed where more than one in this many is forced, because rows that are read one by one take
/// several times as long as rows that are read in sequence.
const MOST_FORCED: usize = 16;

/// Chooses tokens. It holds the options and the state of the random sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: SplitMix64,
    rules: Rules,
    /// Length of the text before the answer.
    begin: usize,
    candidates: Vec<Candidate>,
    seen: HashSet<u32>,
    /// How often each token stands in the answer.
    counts: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    pub fn new(options: SamplerOptions) -> Sampler {
        Sampler::with_rules(options, &LogitRules::default())
    }

    /// As [`Sampler::new`], for a sampler that follows the model's rules for single tokens.
    /// [`crate::generate::generate`] tells it where an answer begins.
    pub fn with_rules(options: SamplerOptions, rules: &LogitRules) -> Sampler {
        Sampler {
            options,
            random: SplitMix64(options.seed),
            rules: Rules::new(rules),
            begin: 0,
            candidates: Vec::new(),
            seen: HashSet::new(),
            counts: HashMap::new(),
        }
    }

    /// Says that an answer begins after `position` tokens of text. Some rules forbid tokens only as the first of an
    /// answer, and some penalties count the tokens of the answer alone.
    pub fn begin(&mut self, position: usize) {
        self.begin = position;
        self.rules.begin(position);
    }

    /// How it chooses.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// The logits that [`Sampler::sample`] needs, without those of single tokens that rules or the penalty change: see
    /// [`Sampler::asks`].
    pub fn request(&self) -> LogitsRequest {
        let SamplerOptions { temperature, top_k, top_p, min_p, .. } = self.options;
        let largest =
            |count, within| LogitsRequest::Largest { count, within, allowed: None, forced: Vec::new() };
        if self.is_greedy() {
            return LogitsRequest::largest();
        }
        match top_k {
            1..=MOST_LARGEST => largest(top_k, 0.0),
            // Without top-k, top-p needs the sum over all probabilities, and so this works for min-p alone.
            0 if min_p > 0.0 && top_p >= 1.0 => {
                // `within` from exp(-within / temperature) = min_p, and a little more against rounding.
                largest(1, temperature * (1e-3 - 1.001 * min_p.min(1.0).ln()))
            }
            _ => LogitsRequest::All,
        }
    }

    /// The logits that [`Sampler::sample`] needs after `history`, and after each of the tokens `drafted` that may
    /// follow it. To [`Sampler::request`] it adds, as forced, the tokens whose logits rules or the penalty change. The
    /// vocabulary has `vocab` tokens.
    pub fn asks(&self, history: &[u32], drafted: &[u32], vocab: usize) -> LogitsRequest {
        let mut request = self.request();
        let LogitsRequest::Largest { forced, .. } = &mut request else { return request };
        if !self.penalizes() && !self.penalizes_answer() && self.rules.is_empty() {
            return request;
        }
        let text = [history, drafted].concat();
        if !self.rules.is_empty() {
            (history.len()..=text.len()).for_each(|len| self.rules.touched(&text[..len], forced));
        }
        if self.penalizes() {
            forced.extend(text);
        } else if self.penalizes_answer() {
            forced.extend(&text[self.begin.min(text.len())..]);
        }
        forced.sort_unstable();
        forced.dedup();
        match forced.len() > vocab / MOST_FORCED {
            true => LogitsRequest::All,
            false => request,
        }
    }

    /// Whether the repetition penalty changes logits of tokens in the history.
    pub fn penalizes(&self) -> bool {
        self.options.repeat_penalty != 1.0
    }

    fn penalizes_answer(&self) -> bool {
        self.options.frequency_penalty != 0.0 || self.options.presence_penalty != 0.0
    }

    fn is_greedy(&self) -> bool {
        self.options.temperature.is_nan() || self.options.temperature <= 0.0
    }

    /// Chooses the next token; `history` is the sequence so far. Tokens whose logits are not finite are never chosen.
    /// Where there is nothing to choose, the result is 0.
    pub fn sample(&mut self, logits: Logits, history: &[u32]) -> u32 {
        self.choose(logits, history).unwrap_or(0)
    }

    /// As [`Sampler::sample`]; `None` where no logit is finite or every token is suppressed.
    pub fn choose(&mut self, logits: Logits, history: &[u32]) -> Option<u32> {
        self.choose_among(logits, history, None)
    }

    /// As [`Sampler::choose`]; tokens that are not in `allowed` are never chosen. `None` in its place allows all tokens.
    pub fn choose_among(
        &mut self,
        logits: Logits,
        history: &[u32],
        allowed: Option<&TokenSet>,
    ) -> Option<u32> {
        self.candidates.clear();
        let counts = |c: &Candidate| c.logit.is_finite() && allowed.is_none_or(|set| set.contains(c.id));
        match logits {
            Logits::All(logits)
                if allowed.is_none()
                    && self.is_greedy()
                    && !self.penalizes()
                    && !self.penalizes_answer()
                    && self.rules.is_empty() =>
            {
                return logits.iter().any(|l| l.is_finite()).then(|| argmax(logits));
            }
            Logits::All(logits) => {
                let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit });
                self.candidates.extend(all.filter(counts));
            }
            Logits::Candidates(some) => self.candidates.extend(some.iter().copied().filter(counts)),
            Logits::Hidden(_) => {}
        }
        if !self.rules.is_empty() {
            self.rules.bias(history, &mut self.candidates);
        }
        self.penalize(history);
        self.penalize_answer(history);
        if !self.rules.is_empty() {
            self.rules.suppress(history, &mut self.candidates);
        }
        if self.is_greedy() || self.candidates.is_empty() {
            return self.candidates.iter().copied().min_by(by_probability).map(|c| c.id);
        }
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p();
        Some(self.draw())
    }

    fn penalize(&mut self, history: &[u32]) {
        if !self.penalizes() {
            return;
        }
        let penalty = self.options.repeat_penalty;
        self.seen.clear();
        self.seen.extend(history);
        for Candidate { id, logit } in &mut self.candidates {
            if self.seen.contains(id) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// OpenAI's penalties: `frequency_penalty` for each time that a token stands in the answer, `presence_penalty` once.
    fn penalize_answer(&mut self, history: &[u32]) {
        if !self.penalizes_answer() {
            return;
        }
        let SamplerOptions { frequency_penalty, presence_penalty, .. } = self.options;
        self.counts.clear();
        for &id in &history[self.begin.min(history.len())..] {
            *self.counts.entry(id).or_default() += 1;
        }
        for Candidate { id, logit } in &mut self.candidates {
            if let Some(&count) = self.counts.get(id) {
                *logit -= count as f32 * frequency_penalty + presence_penalty;
            }
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k, by_probability);
            self.candidates.truncate(k);
            // The sums below must not depend on the order in which candidates were found, so they are taken in the
            // order of ids.
            self.candidates.sort_unstable_by_key(|c| c.id);
        }
    }

    /// Keeps a candidate while the probabilities of those before it are below `top_p`.
    fn keep_top_p(&mut self) {
        let top_p = f64::from(self.options.top_p);
        if top_p >= 1.0 || top_p.is_nan() {
            return;
        }
        let max = self.max();
        let total: f64 = self.candidates.iter().map(|c| self.weight(c, max)).sum();
        // Sorts only as many candidates as are needed, usually a few of a large vocabulary.
        let (mut sorted, mut sum) = (0, 0.0);
        loop {
            let end = (sorted.max(32) * 4).min(self.candidates.len());
            if end < self.candidates.len() {
                self.candidates[sorted..].select_nth_unstable_by(end - sorted, by_probability);
            }
            self.candidates[sorted..end].sort_unstable_by(by_probability);
            for at in sorted..end {
                sum += self.weight(&self.candidates[at], max);
                if sum >= top_p * total {
                    return self.candidates.truncate(at + 1);
                }
            }
            if end == self.candidates.len() {
                return;
            }
            sorted = end;
        }
    }

    fn keep_min_p(&mut self) {
        let min_p = f64::from(self.options.min_p);
        if min_p > 0.0 {
            let (max, temperature) = (self.max(), f64::from(self.options.temperature));
            // The most probable token stays even where min_p is above 1.
            self.candidates.retain(|c| c.logit == max || weight(c, max, temperature) >= min_p);
        }
    }

    fn draw(&mut self) -> u32 {
        // Candidates are drawn in the order of ids, so that the draw does not depend on how they were selected.
        self.candidates.sort_unstable_by_key(|c| c.id);
        let max = self.max();
        let total: f64 = self.candidates.iter().map(|c| self.weight(c, max)).sum();
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            left -= self.weight(candidate, max);
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding of the sum can leave a rest above all candidates. It belongs to the last candidate that can be
        // drawn.
        self.candidates.iter().rfind(|c| self.weight(c, max) > 0.0).map_or(0, |c| c.id)
    }

    fn max(&self) -> f32 {
        self.candidates.iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.logit))
    }

    fn weight(&self, candidate: &Candidate, max: f32) -> f64 {
        weight(candidate, max, f64::from(self.options.temperature))
    }
}

/// The candidate's probability divided by that of the most probable token, in 0..=1.
fn weight(candidate: &Candidate, max: f32, temperature: f64) -> f64 {
    ((f64::from(candidate.logit) - f64::from(max)) / temperature).exp()
}

fn by_probability(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The id of the greatest finite logit, the lowest of equals; 0 where none is finite.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 && logit.is_finite() {
            best = (id, logit);
        }
    }
    best.0 as u32
}

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, the same numbers everywhere.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`, 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (0.5f64).powi(53)
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests;
