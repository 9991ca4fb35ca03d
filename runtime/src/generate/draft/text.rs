//! Repetitions of the next tokens, taken from the sequence itself: what followed the same tokens the last time.
//!
//! Texts repeat themselves: names, quotations, code. One pass checks a few drafted tokens and reads the weights once
//! for all of them, so that an accepted draft costs almost nothing. The method is prompt lookup decoding (Saxena 2023).

use super::{AGAIN, MOST, NEW, mean};
use std::collections::HashMap;
use std::time::Duration;

/// How many of the last tokens must have occurred before. Fewer would often match by chance.
const MATCH: usize = 3;

/// Where each run of [`MATCH`] tokens last ended, and whether drafting has saved time.
pub(super) struct Repetitions {
    ends: HashMap<[u32; MATCH], usize>,
    indexed: usize,
    /// Running mean of the tokens that a pass with drafts gives, at least 1.
    gain: f64,
    /// Running means of the seconds of a pass without drafts and with drafts.
    plain: Option<f64>,
    drafted: Option<f64>,
    /// Tokens since the last draft.
    since: usize,
}

impl Repetitions {
    /// Nothing has been measured yet, so the first drafts are made in the hope that they help.
    pub fn new() -> Repetitions {
        Repetitions { ends: HashMap::new(), indexed: 0, gain: 2.0, plain: None, drafted: None, since: 0 }
    }

    /// What followed the last tokens of `history` when they occurred before, at most `most` tokens. It is often empty.
    pub fn draft<'h>(&mut self, history: &'h [u32], most: usize) -> &'h [u32] {
        while self.indexed + MATCH < history.len() {
            let run = [0, 1, 2].map(|i| history[self.indexed + i]);
            self.ends.insert(run, self.indexed + MATCH);
            self.indexed += 1;
        }
        self.since += 1;
        let Some(tail) = history.last_chunk::<MATCH>() else { return &[] };
        let Some(&end) = self.ends.get(tail) else { return &[] };
        let cost = match (self.plain, self.drafted) {
            (Some(plain), Some(drafted)) => drafted / plain,
            // One pass of each kind must be measured first.
            (None, Some(_)) => f64::INFINITY,
            (_, None) => 0.0,
        };
        if self.gain <= cost && self.since < AGAIN {
            return &[];
        }
        self.since = 0;
        &history[end..history.len().min(end + most.min(MOST))]
    }

    /// Learns from a pass with `drafted` drafted tokens, which took `time` and gave `tokens` tokens.
    pub fn learn(&mut self, drafted: usize, tokens: f64, time: Duration) {
        if drafted == 0 {
            self.plain = mean(self.plain, time.as_secs_f64());
        } else {
            self.drafted = mean(self.drafted, time.as_secs_f64());
            self.gain += NEW * (tokens - self.gain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_last_time_is_drafted() {
        let mut drafts = Repetitions::new();
        let mut history = vec![1, 2, 3, 4, 5, 6, 7, 1, 2, 3];
        assert_eq!(drafts.draft(&history, 9), [4, 5, 6]);
        assert_eq!(drafts.draft(&history, 1), [4]);
        history.extend([9, 8, 1, 2, 3]);
        assert_eq!(drafts.draft(&history, 9), [9, 8, 1]);
        history.push(4);
        assert_eq!(drafts.draft(&history, 9), [5, 6, 7]);
        history.push(0);
        assert!(drafts.draft(&history, 9).is_empty());
        assert!(Repetitions::new().draft(&[1, 2], 3).is_empty());
        // A run that is just ending has not been followed by anything.
        assert_eq!(Repetitions::new().draft(&[5, 5, 5, 5], 3), [5]);
    }

    #[test]
    fn drafts_that_do_not_pay_are_made_rarely() {
        let history = [1, 2, 3, 4, 1, 2, 3];
        let mut drafts = Repetitions::new();
        let mut made = 0;
        for _ in 0..320 {
            let drafted = drafts.draft(&history, 3).len();
            made += usize::from(drafted > 0);
            drafts.learn(drafted, 1.0, Duration::from_millis(if drafted > 0 { 13 } else { 10 }));
        }
        assert!((10..20).contains(&made), "{made}");
        // Nor where passes are so slow that right drafts do not pay.
        let mut drafts = Repetitions::new();
        let made = (0..320).filter(|_| {
            let drafted = drafts.draft(&history, 3).len();
            drafts.learn(
                drafted,
                (1 + drafted) as f64,
                Duration::from_millis(if drafted > 0 { 45 } else { 10 }),
            );
            drafted > 0
        });
        assert!(made.count() < 40);
    }
}
