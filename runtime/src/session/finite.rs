//! Numbers that do not fit: keys and values beyond the cache's elements, and logits that are no numbers.
//!
//! **A cache of f16 that overflows** goes on in f32. Rows before the first one that f16 cannot hold have run and stand; the
//! cache is converted, exactly, and that row and all that follow run with f32. So what a token's logits are depends on the
//! tokens before it alone, not on threads or on how a prompt was cut: up to that position they are those of an f16 cache,
//! from there on those of a cache whose earlier positions had been rounded to f16. A session does not go back.
//!
//! **Logits that are no numbers** are an error. Only then is the sequence run again, layer by layer, to find out where.

use super::Session;
use crate::error::Place;
use crate::kv::KvType;
use crate::sample::Scores;
use crate::{RuntimeError, arena};
use std::ops::Range;
use trit_format::plan::{Plan, Step};

impl Session {
    /// Element type of the KV cache: the one that was asked for, or f32 after [`Session::widened`].
    pub fn kv(&self) -> KvType {
        self.caches[0].kv()
    }

    /// The position from which on the KV cache is one of f32, because f16 cannot hold the keys or values there.
    pub fn widened(&self) -> Option<usize> {
        self.widened
    }

    /// Goes on with an f32 cache from the next position on.
    pub(super) fn widen(&mut self) -> Result<(), RuntimeError> {
        let position = self.position();
        self.caches.iter_mut().try_for_each(|cache| cache.widen(position))?;
        self.widened.get_or_insert(position);
        Ok(())
    }

    /// The first row of those scored whose logits are no numbers.
    pub(super) fn first_unfinite(&self) -> Option<usize> {
        (0..self.scored.len()).find(|&row| match self.scores(row) {
            Scores::All(logits) => !all_finite(logits),
            Scores::Some(some) => !some.iter().all(|c| c.logit.is_finite()),
        })
    }

    /// Why the logits after the first `len` tokens of the sequence are no numbers; others are forgotten.
    pub(super) fn unfinite(&mut self, len: usize) -> RuntimeError {
        let model = self.model.clone();
        let plan = &model.manifest().plan;
        self.tokens.truncate(len);
        let tokens = std::mem::take(&mut self.tokens);
        let error = match self.first_place(plan, &tokens) {
            Ok(found) => {
                let (place, row) = found.unwrap_or((Place::Head, len - 1));
                RuntimeError::NotFinite { place, position: row, token: tokens[row] }
            }
            // Interrupted, or the bundle was changed, which explains it.
            Err(error) => error,
        };
        self.tokens = tokens;
        error
    }

    /// The first part of the forward pass that gives what is no number, and for which of `tokens`.
    fn first_place(&mut self, plan: &Plan, tokens: &[u32]) -> Result<Option<(Place, usize)>, RuntimeError> {
        // Layers adjoin, begin after the embedding and end with the body.
        let first = plan.layers.first().map_or(plan.body.len(), |layer| layer.start as usize);
        let layers = plan.layers.iter().map(|l| l.start as usize..l.end as usize).enumerate();
        let places: Vec<(Place, Range<usize>)> = std::iter::once((Place::Embedding, 0..first))
            .chain(layers.map(|(layer, steps)| (Place::Layer(layer), steps)))
            .collect();
        self.request = None;
        for chunk in tokens.chunks(self.block()) {
            let before = self.position();
            for (place, steps) in &places {
                self.tokens.truncate(before);
                let steps: &[Step] = &plan.body[steps.clone()];
                self.run(chunk, &[(steps, 0..chunk.len())])?;
                let bad = |row: &usize| !all_finite(arena::read(&self.arena, plan.residual, *row));
                if let Some(row) = (0..chunk.len()).find(bad) {
                    return Ok(Some((*place, before + row)));
                }
            }
        }
        Ok(None)
    }
}

/// Without a branch, so that a vocabulary takes some microseconds.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !values.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT))
}
