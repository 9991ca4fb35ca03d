//! The model's rules for single tokens: which must not be chosen after a text, and which are to be chosen more or less
//! often.
//!
//! [`LogitRules`] describes each rule. Order and arithmetic are those of transformers' logits processors. A text and
//! some logits enter; the changed logits leave, without those that are suppressed. The text alone determines which
//! logits a rule can change ([`Rules::touched`]), so that a head that looks for the largest logits need not compute the
//! others.

use crate::engine::Candidate;
use std::collections::{HashMap, HashSet};
use trit_format::manifest::LogitRules;

/// The rules, and where the current answer begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    rules: LogitRules,
    /// Length of the text before the answer.
    begin: Option<usize>,
}

impl Rules {
    /// Takes the rules over, with biases in the order in which they are summed: first those of single tokens, then
    /// those of longer sequences, by length in the order in which lengths first occur.
    pub fn new(rules: &LogitRules) -> Rules {
        let mut rules = rules.clone();
        let mut lengths = vec![1];
        for (sequence, _) in &rules.sequence_bias {
            if !lengths.contains(&sequence.len()) {
                lengths.push(sequence.len());
            }
        }
        let rank = |len: usize| lengths.iter().position(|&l| l == len);
        rules.sequence_bias.sort_by_key(|(sequence, _)| rank(sequence.len()));
        Rules { rules, begin: None }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules == LogitRules::default()
    }

    /// Says that an answer begins after `position` tokens of text.
    pub fn begin(&mut self, position: usize) {
        self.begin = Some(position);
    }

    /// Adds to `ids` the tokens whose logits after `history` the rules change. A token may be added twice.
    pub fn touched(&self, history: &[u32], ids: &mut Vec<u32>) {
        ids.extend(self.biased(history).map(|(id, _)| id));
        ids.extend(self.suppressed(history));
    }

    /// Adds the biases that apply after `history`.
    pub fn bias(&self, history: &[u32], candidates: &mut [Candidate]) {
        let mut sums: HashMap<u32, f32> = HashMap::new();
        for (id, bias) in self.biased(history) {
            *sums.entry(id).or_default() += bias;
        }
        if sums.is_empty() {
            return;
        }
        for candidate in candidates {
            if let Some(bias) = sums.get(&candidate.id) {
                candidate.logit += bias;
            }
        }
    }

    /// Removes the candidates that must not be chosen after `history`.
    pub fn suppress(&self, history: &[u32], candidates: &mut Vec<Candidate>) {
        let suppressed: HashSet<u32> = self.suppressed(history).collect();
        if !suppressed.is_empty() {
            candidates.retain(|c| !suppressed.contains(&c.id));
        }
    }

    fn biased(&self, history: &[u32]) -> impl Iterator<Item = (u32, f32)> {
        let biases = self.rules.sequence_bias.iter();
        biases.filter_map(|(sequence, bias)| Some((completes(sequence, history)?, *bias)))
    }

    fn suppressed(&self, history: &[u32]) -> impl Iterator<Item = u32> {
        let LogitRules { no_repeat_ngram_size, bad_words, suppress, begin_suppress, .. } = &self.rules;
        let begins = self.begin == Some(history.len());
        let begin: &[u32] = if begins { begin_suppress } else { &[] };
        let repeated = repeated(*no_repeat_ngram_size as usize, history);
        let words = bad_words.iter().filter_map(|word| completes(word, history));
        repeated.chain(words).chain(suppress.iter().chain(begin).copied())
    }
}

/// The last token of `sequence`, if the others are the last of `history`.
fn completes(sequence: &[u32], history: &[u32]) -> Option<u32> {
    let (last, before) = sequence.split_last()?;
    history.ends_with(before).then_some(*last)
}

/// The tokens that would complete a repetition of `n` tokens of `history`.
fn repeated(n: usize, history: &[u32]) -> impl Iterator<Item = u32> {
    // The number of tokens before the last of `n`. Without the rule, or where the text is shorter, nothing is searched.
    let before = n.checked_sub(1).filter(|&before| before < history.len());
    let tail = before.map_or(&[][..], |before| &history[history.len() - before..]);
    let windows = before.map(|_| history.windows(n)).into_iter().flatten();
    windows.filter(move |window| window.starts_with(tail)).map(|window| window[window.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_repeat_is_found() {
        let found = |n, history: &[u32]| repeated(n, history).collect::<Vec<u32>>();
        let history = [1, 2, 3, 1, 2, 4, 1, 2];
        assert_eq!(found(3, &history), [3, 4]);
        assert_eq!(found(2, &history), [3, 4]);
        assert_eq!(found(1, &[7, 8, 7]), [7, 8, 7]);
        assert_eq!(found(4, &history), Vec::<u32>::new());
        for n in [0, 8, 9, 10, 1000] {
            assert_eq!(found(n, &history), Vec::<u32>::new(), "{n}");
        }
        assert_eq!(found(1, &[]), Vec::<u32>::new());
        assert_eq!(found(2, &[5, 5, 5]), [5, 5]);
    }

    #[test]
    fn sequences_are_completed_by_their_last_token() {
        assert_eq!(completes(&[4], &[]), Some(4));
        assert_eq!(completes(&[1, 2, 4], &[0, 1, 2]), Some(4));
        assert_eq!(completes(&[1, 2, 4], &[1, 2, 0]), None);
        assert_eq!(completes(&[1, 2, 4], &[2]), None);
        assert_eq!(completes(&[], &[2]), None);
    }

    /// f32 sums depend on their order: 1 + 2^25 - 2^25 is 0, 2^25 - 2^25 + 1 is 1.
    #[test]
    fn biases_are_summed_by_length() {
        let large = 33_554_432.0;
        let biases = [(vec![7, 5], large), (vec![6, 7, 5], 1.0), (vec![5], 0.0), (vec![7, 5], -large)];
        let rules = Rules::new(&LogitRules { sequence_bias: biases.into(), ..LogitRules::default() });
        let mut candidates = [Candidate { id: 5, logit: 0.5 }, Candidate { id: 6, logit: 0.5 }];
        rules.bias(&[6, 7], &mut candidates);
        assert_eq!(candidates.map(|c| c.logit), [1.5, 0.5]);
    }
}
