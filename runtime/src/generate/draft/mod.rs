//! Drafts of the next tokens, which one pass checks together. A rejected draft costs only time, because every token is chosen
//! from the same logits as without drafts; so drafts are made where they have saved time. The checking is that of
//! Leviathan et al. 2023.
//!
//! | module | drafts |
//! |---|---|
//! | `text` | what followed the same tokens before |
//! | `lengths` | as many as pay, by the block that the model has for it |

mod lengths;
mod text;

use crate::RuntimeError;
use lengths::Lengths;
use std::time::Duration;
use text::Repetitions;

/// Most tokens that are drafted. Together with the token before them they are as many rows as share a kernel's
/// registers.
pub(crate) const MOST: usize = 3;
/// Weight of the newest measurement in a running mean.
const NEW: f64 = 0.2;
/// After how many tokens drafts are tried again when they did not save time.
const AGAIN: usize = 32;

/// Drafts for one text, and what was measured of them.
pub(crate) struct Drafts {
    text: Repetitions,
    /// How many tokens the model's own block drafts, where there is one.
    block: Option<Lengths>,
    /// Whether it drafted the last ones.
    by_block: bool,
}

impl Drafts {
    /// For a model that has a block for drafts, or none.
    pub fn new(has_block: bool) -> Drafts {
        Drafts { text: Repetitions::new(), block: has_block.then(Lengths::new), by_block: false }
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
        self.by_block = false;
        let from_text = self.text.draft(history, most);
        let Some(block) = self.block.as_mut().filter(|_| from_text.is_empty()) else {
            return Ok(from_text.to_vec());
        };
        let guesses = guess(block.next(most))?;
        self.by_block = !guesses.is_empty();
        Ok(guesses)
    }

    /// Learns from a pass with the last drafts, of which `drafted` ran, that gave `tokens` tokens for this text. The time
    /// includes that of drafting. Where `answers` texts shared the pass, a token more for one of them is worth a part of a
    /// pass.
    pub fn learn(&mut self, drafted: usize, tokens: usize, answers: usize, time: Duration) {
        let more = tokens.saturating_sub(1);
        if let Some(block) = self.block.as_mut().filter(|_| self.by_block || drafted == 0) {
            block.learn(drafted, more, time);
        }
        match self.by_block && drafted > 0 {
            // Repetitions must be better than that.
            true => self.text.learn(0, 1.0, time.div_f64(1.0 + more as f64)),
            false => self.text.learn(drafted, 1.0 + more as f64 / answers as f64, time),
        }
    }
}

/// A running mean with one value more.
fn mean(mean: Option<f64>, new: f64) -> Option<f64> {
    Some(mean.map_or(new, |mean| mean + NEW * (new - mean)))
}
