//! Drafts of the next tokens, which one pass checks together. A rejected draft costs only time, because every token is chosen
//! from the same logits as without drafts; so drafts are made where they have saved time. The checking is that of
//! Leviathan et al. 2023.
//!
//! | module | does |
//! |---|---|
//! | `text` | finds what followed the same tokens before |
//! | `lengths` | decides how many drafts pay |

mod lengths;
mod text;

use crate::RuntimeError;
use lengths::Lengths;
use std::time::Duration;
use text::Repetitions;

/// Most tokens that are drafted. Together with the token before them they are as many rows as share a kernel's
/// registers.
pub(crate) const MOST: usize = 3;
/// How often drafts are right at first. Where the text has already gone on like an earlier part of it, it mostly does so
/// further.
const FRESH: f64 = 0.4;
const GOES_ON: f64 = 0.9;
const BLOCK: f64 = 0.7;

/// Drafts for one text, and what was measured of them.
pub(crate) struct Drafts {
    text: Repetitions,
    /// Drafts from the text where it has just come to known tokens, and where it goes on with them.
    fresh: Lengths,
    goes_on: Lengths,
    /// Drafts by the block that the model has for it.
    block: Option<Lengths>,
    last: Source,
}

/// Where drafts are from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Nowhere,
    Fresh,
    GoesOn,
    Block,
}

impl Drafts {
    /// For a model that has a block for drafts, or none.
    pub fn new(has_block: bool) -> Drafts {
        Drafts {
            text: Repetitions::new(),
            fresh: Lengths::new(FRESH),
            goes_on: Lengths::new(GOES_ON),
            block: has_block.then(|| Lengths::new(BLOCK)),
            last: Source::Nowhere,
        }
    }

    /// At most `most` tokens that may come after `history`: what followed its last tokens before, or what `guess` gives,
    /// which asks the block for so many. They are often none.
    ///
    /// # Errors
    /// Those of `guess`.
    pub fn draft(
        &mut self,
        history: &[u32],
        most: usize,
        guess: impl FnOnce(usize) -> Result<Vec<u32>, RuntimeError>,
    ) -> Result<Vec<u32>, RuntimeError> {
        self.last = Source::Nowhere;
        let known = self.text.find(history, most.min(MOST));
        let from_text = match known.tokens.len() {
            0 => None,
            room if known.goes_on => Some((Source::GoesOn, self.goes_on.next(room))),
            room => Some((Source::Fresh, self.fresh.next(room))),
        };
        let from_text = from_text.filter(|(_, choice)| choice.count > 0);
        let from_block = self.block.as_mut().map(|block| block.next(most)).filter(|choice| choice.count > 0);
        match (from_text, from_block) {
            (Some((source, text)), block) if block.is_none_or(|block| text.speed >= block.speed) => {
                self.last = source;
                Ok(known.tokens[..text.count].to_vec())
            }
            (_, Some(block)) => {
                let guesses = guess(block.count)?;
                if !guesses.is_empty() {
                    self.last = Source::Block;
                }
                Ok(guesses)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Learns from a pass with the last drafts, of which `drafted` ran, that gave `tokens` tokens for this text. The time
    /// includes that of drafting. Where `answers` texts shared the pass, a token more for one of them is worth a part of a
    /// pass.
    pub fn learn(&mut self, drafted: usize, tokens: usize, answers: usize, time: Duration) {
        let right = tokens.saturating_sub(1);
        let source = if drafted == 0 { Source::Nowhere } else { self.last };
        // A pass takes as long wherever its drafts are from, but for the time in which the block makes them.
        let of_text = matches!(source, Source::Nowhere | Source::Fresh | Source::GoesOn);
        for (lengths, own) in [(&mut self.fresh, Source::Fresh), (&mut self.goes_on, Source::GoesOn)] {
            if of_text {
                lengths.learn_time(drafted, answers, time);
            }
            if source == own {
                lengths.learn_right(drafted, right);
            }
        }
        if let Some(block) = &mut self.block
            && matches!(source, Source::Nowhere | Source::Block)
        {
            block.learn_time(drafted, answers, time);
            block.learn_right(drafted, right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens are drafted for a text of 3000 whose token at a position is `token`, where a pass takes `time` for
    /// its number of drafts; and by what part drafts shorten the time.
    fn run(token: impl Fn(usize) -> u32, time: impl Fn(usize) -> u64) -> (usize, f64) {
        let mut drafts = Drafts::new(false);
        let (mut history, mut drafted, mut spent): (Vec<u32>, usize, u64) =
            ((0..50).map(&token).collect(), 0, 0);
        while history.len() < 3000 {
            let made = drafts.draft(&history, MOST, |_| unreachable!("there is no block")).unwrap();
            let right =
                made.iter().enumerate().take_while(|&(i, &id)| token(history.len() + i) == id).count();
            drafted += made.len();
            spent += time(made.len());
            (0..=right).for_each(|_| history.push(token(history.len())));
            drafts.learn(made.len(), right + 1, 1, Duration::from_micros(time(made.len())));
        }
        let without = time(0) * (history.len() - 50) as u64;
        (drafted, 1.0 - spent as f64 / without as f64)
    }

    #[test]
    fn texts_that_repeat_gain_and_others_lose_next_to_nothing() {
        let cheap = |n: usize| 1000 + 60 * n as u64;
        let dear = |n: usize| 1000 + 700 * n as u64;
        let repeats = |at: usize| (at % 40) as u32;
        assert!(run(repeats, cheap).1 > 0.6);
        assert!(run(repeats, dear).1 > 0.1);
        // Phrases of three tokens come again, each time with another token after them.
        let misleads = |at: usize| if at % 4 == 3 { at as u32 } else { (at % 4) as u32 + 100_000 };
        assert!(run(misleads, cheap).1 > -0.01, "{:?}", run(misleads, cheap));
        assert!(run(misleads, dear).1 > -0.02, "{:?}", run(misleads, dear));
        // Nothing comes again.
        assert_eq!(run(|at| at as u32, cheap), (0, 0.0));
    }

    #[test]
    fn a_block_is_asked_where_the_text_has_nothing_better() {
        let mut drafts = Drafts::new(true);
        let history: Vec<u32> = (0..100).collect();
        let mut asked = 0;
        for _ in 0..200 {
            let made = drafts
                .draft(&history, MOST, |count| {
                    asked += count;
                    Ok(vec![7; count])
                })
                .unwrap();
            let time = 1000 + 200 * made.len() as u64;
            drafts.learn(made.len(), made.len() + 1, 1, Duration::from_micros(time));
        }
        assert!(asked > 550, "{asked}");
        // A text that goes on as before costs no guesses.
        let repeats: Vec<u32> = (0..100).map(|at| at % 20).collect();
        let mut guessed = 0;
        for len in 60..90 {
            let made = drafts
                .draft(&repeats[..len], MOST, |count| {
                    guessed += 1;
                    Ok(vec![7; count])
                })
                .unwrap();
            drafts.learn(made.len(), made.len() + 1, 1, Duration::from_micros(1000 + 50 * made.len() as u64));
        }
        assert!(guessed < 10, "{guessed}");
    }
}
