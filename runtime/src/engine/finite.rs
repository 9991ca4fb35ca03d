//! Numbers that do not fit: keys and values beyond the cache's elements, and logits that are no numbers.
//!
//! **A cache of f16 that overflows** goes on in f32. Rows before the first one that f16 cannot hold have run and stand; the
//! cache is converted, exactly, and that row and all that follow run with f32. So what a token's logits are depends on the
//! tokens before it alone, not on threads, on what else runs in a step or on how a prompt was cut: up to that position they are
//! those of an f16 cache, from there on those of a cache whose earlier positions had been rounded to f16. A sequence does not
//! go back.
//!
//! **Logits that are no numbers** are an error. Only then is the sequence run again, layer by layer, to find out where.

use super::arena;
use super::batch::Part;
use super::core::{Chunk, Core, Steps};
use super::logits::all_finite;
use super::sequence::{Sequence, SequenceOptions};
use crate::RuntimeError;
use crate::error::Place;
use crate::load::Model;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trit_format::plan::Step;

impl Core {
    /// Why the logits after row `row` of a part, which is not appended any more, are no numbers. The search runs on a sequence of
    /// its own, so that this one keeps what it holds.
    ///
    /// # Errors
    /// Those of a pass.
    pub(super) fn unfinite(
        &mut self,
        model: &Arc<Model>,
        part: &Part,
        row: usize,
        stop: &AtomicBool,
    ) -> Result<RuntimeError, RuntimeError> {
        let tokens = [part.sequence.tokens(), &part.ids[row..=row]].concat();
        let options =
            SequenceOptions { context: Some(part.sequence.context_length()), kv: part.sequence.kv() };
        let mut search = Sequence::new(model.clone(), options)?;
        let found = self.first_place(model, &mut search, &tokens, stop)?;
        let (place, position) = found.unwrap_or((Place::Head, tokens.len() - 1));
        Ok(RuntimeError::NotFinite { place, position, token: tokens[position] })
    }

    /// The first part of the forward pass that gives what is no number, and for which of `tokens`.
    fn first_place(
        &mut self,
        model: &Model,
        sequence: &mut Sequence,
        tokens: &[u32],
        stop: &AtomicBool,
    ) -> Result<Option<(Place, usize)>, RuntimeError> {
        // Layers adjoin, begin after the embedding and end with the body.
        let plan = &model.manifest().plan;
        let first = plan.layers.first().map_or(plan.body.len(), |layer| layer.start as usize);
        let layers = plan.layers.iter().map(|l| l.start as usize..l.end as usize).enumerate();
        let places: Vec<(Place, Range<usize>)> = std::iter::once((Place::Embedding, 0..first))
            .chain(layers.map(|(layer, steps)| (Place::Layer(layer), steps)))
            .collect();
        for chunk in tokens.chunks(self.arena.capacity()) {
            let before = sequence.position();
            sequence.cache.reserve(before + chunk.len(), before)?;
            for (place, steps) in &places {
                self.steps(model, sequence, chunk, &plan.body[steps.clone()], stop)?;
                let bad = |row: &usize| !all_finite(arena::read(&self.arena, plan.residual, *row));
                if let Some(row) = (0..chunk.len()).find(bad) {
                    return Ok(Some((*place, before + row)));
                }
            }
            sequence.tokens.extend_from_slice(chunk);
        }
        Ok(None)
    }

    /// Runs some steps of the body for tokens after those of a sequence, which must have room for them and does not change but in
    /// its cache. Gives how many rows the cache could hold.
    fn steps(
        &mut self,
        model: &Model,
        sequence: &Sequence,
        ids: &[u32],
        steps: &[Step],
        stop: &AtomicBool,
    ) -> Result<usize, RuntimeError> {
        let (position, cache) = (sequence.position(), &sequence.cache);
        let chunk = Chunk { ids, position, cache, requests: Vec::new() };
        Ok(self.pass(model, &[chunk], &Steps::Body(steps), stop)?.ran[0])
    }

    /// See [`Engine::run_layer`](super::Engine::run_layer); `sequence` is empty.
    pub(super) fn run_layer(
        &mut self,
        mut sequence: Sequence,
        layer: usize,
        hidden: &[f32],
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>, RuntimeError> {
        let never = AtomicBool::new(false);
        let stop = stop.unwrap_or(&never);
        let model = sequence.model().clone();
        let plan = &model.manifest().plan;
        let width = model.manifest().hyperparameters.hidden_dim as usize;
        let Some(steps) = plan.layers.get(layer) else {
            return Err(RuntimeError::Input(format!(
                "there is no layer {layer}; there are {}",
                plan.layers.len()
            )));
        };
        let steps = &plan.body[steps.start as usize..steps.end as usize];
        let (tokens, context) = (hidden.len() / width, sequence.context_length());
        if tokens == 0 || tokens > context || hidden.len() != tokens * width {
            return Err(RuntimeError::Input(format!(
                "{} values are no hidden states of width {width} for 1 to {context} tokens",
                hidden.len(),
            )));
        }
        let mut out = Vec::with_capacity(hidden.len());
        for chunk in hidden.chunks(self.arena.capacity() * width) {
            // The layer does not look at the tokens.
            let ids = vec![0; chunk.len() / width];
            let position = sequence.position();
            sequence.cache.reserve(position + ids.len(), position)?;
            arena::fill(&mut self.arena, plan.residual, chunk, width);
            if self.steps(&model, &sequence, &ids, steps, stop)? < ids.len() {
                sequence.widen()?;
                arena::fill(&mut self.arena, plan.residual, chunk, width);
                self.steps(&model, &sequence, &ids, steps, stop)?;
            }
            sequence.tokens.extend(&ids);
            (0..ids.len()).for_each(|r| out.extend_from_slice(arena::read(&self.arena, plan.residual, r)));
        }
        Ok(out)
    }
}
