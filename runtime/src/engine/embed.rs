//! Embeddings: one vector of a whole text, from the hidden states of its tokens.

use super::{Batch, Engine, Logits, LogitsRequest, Sequence};
use crate::RuntimeError;
use std::sync::atomic::AtomicBool;

/// How the hidden states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's hidden state.
    Last,
    /// The mean of all tokens' hidden states.
    Mean,
}

impl Engine {
    /// Appends a text to a sequence, in steps of as many tokens as `rows` says before each, and returns its embedding: the hidden states of
    /// `ids` after the model's last norm, pooled, with a Euclidean norm of 1; `[hidden_dim]`. A vector of zeros stays one.
    /// The result does not depend on `rows`, nor on what else runs. Other users' steps take their turns between two of
    /// these steps, which should be short where others wait. While `stop` is set, the call ends.
    ///
    /// # Errors
    /// Those of [`Engine::advance`]. The sequence has not changed then.
    pub fn embed(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        pooling: Pooling,
        mut rows: impl FnMut() -> usize,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>, RuntimeError> {
        sequence.check(ids)?;
        let start = sequence.position();
        let requests = vec![LogitsRequest::Hidden; self.rows().min(ids.len())];
        let mut sum = vec![0.0f64; self.model().manifest().hyperparameters.hidden_dim as usize];
        let mut left = ids;
        while !left.is_empty() {
            let (chunk, after) = left.split_at(rows().clamp(1, self.rows()).min(left.len()));
            left = after;
            let asked = match pooling {
                Pooling::Mean => chunk.len(),
                Pooling::Last => usize::from(left.is_empty()),
            };
            // Rows come in order, so that the sum has one order.
            let mut add = |_: usize, logits: Logits| {
                if let Logits::Hidden(values) = logits {
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
                }
            };
            let mut batch = Batch { stop, ..Batch::new() };
            batch.push(sequence, chunk, &requests[..asked]);
            batch.parts[0].each = Some(&mut add);
            let result = self.step(&mut batch);
            drop(batch);
            if let Err(error) = result.and_then(|mut parts| parts.remove(0)) {
                sequence.truncate(start);
                return Err(error);
            }
        }
        // The mean and the sum differ by a factor, which the norm takes out again.
        let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        Ok(sum.iter().map(|value| (value * factor) as f32).collect())
    }
}
