//! Guesses of the next tokens from the sequence itself: what followed the last time.
//!
//! Texts repeat themselves: names, quotations, code. Checking a few guesses in one pass reads the weights once, so that a
//! right guess is almost free. A wrong one changes nothing but time: every token is chosen from the same logits as
//! without guesses (prompt lookup decoding, Saxena 2023; Leviathan et al. 2023 for the checking).

use std::collections::HashMap;
use std::time::Duration;

/// Most tokens guessed: with the one before, they are rows that share a kernel's registers.
pub(crate) const MOST: usize = 3;
/// Tokens that must match. Fewer match by chance.
const MATCH: usize = 3;
/// Weight of the newest measurement in a running mean.
const NEW: f64 = 0.2;
/// Tokens after which guesses that did not pay are tried again.
const AGAIN: usize = 32;

/// Where runs of [`MATCH`] tokens last ended, and whether guessing has paid.
pub(crate) struct Drafts {
    ends: HashMap<[u32; MATCH], usize>,
    indexed: usize,
    /// Tokens gained by a pass with guesses, itself included.
    gain: f64,
    /// Mean seconds of a pass without and with guesses.
    plain: Option<f64>,
    guessed: Option<f64>,
    /// Tokens since the last guess.
    since: usize,
}

impl Drafts {
    /// Nothing seen yet; the first guesses are made on trust.
    pub fn new() -> Drafts {
        Drafts { ends: HashMap::new(), indexed: 0, gain: 2.0, plain: None, guessed: None, since: 0 }
    }

    /// What followed the last tokens of `history` before, at most `most` tokens; often nothing.
    pub fn guess<'h>(&mut self, history: &'h [u32], most: usize) -> &'h [u32] {
        while self.indexed + MATCH < history.len() {
            let run = [0, 1, 2].map(|i| history[self.indexed + i]);
            self.ends.insert(run, self.indexed + MATCH);
            self.indexed += 1;
        }
        self.since += 1;
        let Some(tail) = history.last_chunk::<MATCH>() else { return &[] };
        let Some(&end) = self.ends.get(tail) else { return &[] };
        let cost = match (self.plain, self.guessed) {
            (Some(plain), Some(guessed)) => guessed / plain,
            // One of each kind first.
            (None, Some(_)) => f64::INFINITY,
            (_, None) => 0.0,
        };
        if self.gain <= cost && self.since < AGAIN {
            return &[];
        }
        self.since = 0;
        &history[end..history.len().min(end + most.min(MOST))]
    }

    /// Learns from a pass that took `time` and gave `tokens` tokens, where `guesses` were made.
    pub fn learn(&mut self, guesses: usize, tokens: usize, time: Duration) {
        let mean = |mean: Option<f64>, new: f64| Some(mean.map_or(new, |mean| mean + NEW * (new - mean)));
        if guesses == 0 {
            self.plain = mean(self.plain, time.as_secs_f64());
        } else {
            self.guessed = mean(self.guessed, time.as_secs_f64());
            self.gain += NEW * (tokens as f64 - self.gain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_last_time_is_guessed() {
        let mut drafts = Drafts::new();
        let mut history = vec![1, 2, 3, 4, 5, 6, 7, 1, 2, 3];
        assert_eq!(drafts.guess(&history, 9), [4, 5, 6]);
        assert_eq!(drafts.guess(&history, 1), [4]);
        history.extend([9, 8, 1, 2, 3]);
        assert_eq!(drafts.guess(&history, 9), [9, 8, 1]);
        history.push(4);
        assert_eq!(drafts.guess(&history, 9), [5, 6, 7]);
        history.push(0);
        assert!(drafts.guess(&history, 9).is_empty());
        assert!(Drafts::new().guess(&[1, 2], 3).is_empty());
        // A run that is just ending has not been followed by anything.
        assert_eq!(Drafts::new().guess(&[5, 5, 5, 5], 3), [5]);
    }

    #[test]
    fn guesses_that_do_not_pay_are_made_rarely() {
        let history = [1, 2, 3, 4, 1, 2, 3];
        let mut drafts = Drafts::new();
        let mut made = 0;
        for _ in 0..320 {
            let guesses = drafts.guess(&history, 3).len();
            made += usize::from(guesses > 0);
            drafts.learn(guesses, 1, Duration::from_millis(if guesses > 0 { 13 } else { 10 }));
        }
        assert!((10..20).contains(&made), "{made}");
        // Nor where passes are so slow that right guesses do not pay.
        let mut drafts = Drafts::new();
        let made = (0..320).filter(|_| {
            let guesses = drafts.guess(&history, 3).len();
            drafts.learn(guesses, 1 + guesses, Duration::from_millis(if guesses > 0 { 45 } else { 10 }));
            guesses > 0
        });
        assert!(made.count() < 40);
    }
}
