//! Perplexity: how well a model predicts a text.
//!
//! The tokens of a text enter, cut into windows that are scored independently, and the sum of their negative
//! log-likelihoods leaves. The first token of a window is given, all others are predicted.

use crate::{RuntimeError, Session};

/// How well a text was predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum of negative log-likelihoods, in nats.
    pub nll_sum: f64,
    /// Tokens that were predicted.
    pub tokens: u64,
}

impl Score {
    /// `exp(nll_sum / tokens)`. It is infinite where a text is too improbable for f64, and NaN where nothing was
    /// predicted.
    pub fn perplexity(&self) -> f64 {
        (self.nll_sum / self.tokens as f64).exp()
    }
}

/// Scores `ids` in windows of `window` tokens, each from an empty sequence. `each` is told how many tokens are done. The
/// session's sequence is replaced by that of the last window.
///
/// # Errors
/// [`RuntimeError::Input`] for a window of fewer than two tokens or of more than the context takes, for a token outside
/// the vocabulary, and for fewer than two tokens; and as [`Session::forward_all`].
pub fn score(
    session: &mut Session,
    ids: &[u32],
    window: usize,
    each: &mut dyn FnMut(usize),
) -> Result<Score, RuntimeError> {
    let context = session.context_length();
    if window < 2 || window > context {
        let problem =
            format!("a window of {window} tokens is not possible; the context takes 2 to {context}");
        return Err(RuntimeError::Input(problem));
    }
    let vocab = session.model().manifest().hyperparameters.vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
        return Err(RuntimeError::Input(format!("token id {id} is outside the vocabulary of {vocab}")));
    }
    if ids.len() < 2 {
        let problem = "the text has fewer than two tokens; there is nothing to predict";
        return Err(RuntimeError::Input(problem.into()));
    }
    let (mut score, mut done) = (Score::default(), 0);
    for window in ids.chunks(window) {
        score.nll_sum += score_window(session, window)?;
        score.tokens += window.len() as u64 - 1;
        done += window.len();
        each(done);
    }
    Ok(score)
}

/// Sum of the negative log-likelihoods of all tokens of a window but the first.
fn score_window(session: &mut Session, window: &[u32]) -> Result<f64, RuntimeError> {
    let [given @ .., _] = window else { return Ok(0.0) };
    if given.is_empty() {
        return Ok(0.0);
    }
    session.truncate(0);
    let mut sum = 0.0;
    session.forward_all(given, &mut |i, logits| sum += nll(logits, window[i + 1]))?;
    Ok(sum)
}

/// `-ln softmax(logits)[id]`, in f64: sums over a large vocabulary lose digits in f32.
fn nll(logits: &[f32], id: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    sum.ln() + max - f64::from(logits[id as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nll_of_known_probabilities() {
        let logits = [0.5f32, 0.25, 0.25].map(|p| p.ln() + 100.0);
        assert!((nll(&logits, 0) - 2f64.ln()).abs() < 1e-5);
        assert!((nll(&logits, 2) - 4f64.ln()).abs() < 1e-5);
        assert_eq!(nll(&[0.0; 8], 3), 8f64.ln());
        assert!(nll(&[f32::NAN, 1.0], 1).is_nan());
    }

    #[test]
    fn perplexity_is_that_of_the_mean() {
        assert_eq!(Score { nll_sum: 8f64.ln() * 3.0, tokens: 3 }.perplexity().round(), 8.0);
        assert!(Score::default().perplexity().is_nan());
    }
}
