//! Two kinds of numbers that do not fit: keys and values that the cache's element type cannot hold, and logits that are
//! no finite numbers.
//!
//! **A cache of f16 that overflows** continues as a cache of f32. The rows before the first one that f16 cannot hold
//! have run, and stay. The cache is converted, which is exact, and that row and all later ones run with f32. A token's
//! logits therefore depend only on the tokens before it, and not on the number of threads, on what else runs in the
//! step, or on how a prompt was cut into chunks. Up to that position they are the logits of an f16 cache; from there on
//! they are those of an f32 cache whose earlier positions had been rounded to f16. A sequence never returns to f16.
//!
//! **Logits that are no finite numbers** are an error. The sequence is then run again, layer by layer, to find the
//! layer where such numbers first appear.

use super::arena;
use super::batch::Part;
use super::core::{Chunk, Core, Steps};
use super::logits::all_finite;
use super::sequence::Sequence;
use crate::RuntimeError;
use crate::error::Place;
use crate::load::Model;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trit_format::plan::Step;

impl Core {
    /// Finds out why the logits after row `row` of a part are no finite numbers. The part's sequence ends before that
    /// row. The search runs on a sequence of its own, so that the part's sequence keeps what it holds.
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
        let mut search = Sequence::new(model.clone(), part.sequence.options())?;
        let found = self.first_place(model, &mut search, &tokens, stop)?;
        let (place, position) = found.unwrap_or((Place::Head, tokens.len() - 1));
        Ok(RuntimeError::NotFinite { place, position, token: tokens[position] })
    }

    /// The first part of the forward pass that gives a number that is not finite, and the index of the token in
    /// `tokens` for which it does.
    fn first_place(
        &mut self,
        model: &Model,
        sequence: &mut Sequence,
        tokens: &[u32],
        stop: &AtomicBool,
    ) -> Result<Option<(Place, usize)>, RuntimeError> {
        // The layers follow each other without gaps, from the end of the embedding to the end of the body.
        let plan = &model.manifest().plan;
        let first = plan.layers.first().map_or(plan.body.len(), |layer| layer.start as usize);
        let layers = plan.layers.iter().map(|l| l.start as usize..l.end as usize).enumerate();
        let places: Vec<(Place, Range<usize>)> = std::iter::once((Place::Embedding, 0..first))
            .chain(layers.map(|(layer, steps)| (Place::Layer(layer), steps)))
            .collect();
        for chunk in tokens.chunks(self.arena.capacity()) {
            let before = sequence.position();
            sequence.reserve(chunk.len())?;
            for (place, steps) in &places {
                self.steps(model, sequence, chunk, &plan.body[steps.clone()], stop)?;
                let bad = |row: &usize| !all_finite(arena::read(&self.arena, plan.residual, *row));
                if let Some(row) = (0..chunk.len()).find(bad) {
                    return Ok(Some((*place, before + row)));
                }
            }
            sequence.append(chunk, chunk.len(), chunk.len());
        }
        Ok(None)
    }

    /// Runs some steps of the body for `ids`, at the positions after those of `sequence`. The cache must have reserved
    /// these positions; only the cache changes. Returns how many rows the cache could hold.
    fn steps(
        &mut self,
        model: &Model,
        sequence: &Sequence,
        ids: &[u32],
        steps: &[Step],
        stop: &AtomicBool,
    ) -> Result<usize, RuntimeError> {
        let chunk = Chunk::of(sequence, sequence.position(), ids);
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
            // Where the cache must be widened, the rows run a second time from this state.
            sequence.keep();
            sequence.reserve(ids.len())?;
            arena::fill(&mut self.arena, plan.residual, chunk, width);
            if self.steps(&model, &sequence, &ids, steps, stop)? < ids.len() {
                sequence.widen()?;
                sequence.lose_state();
                sequence.reserve(ids.len())?;
                arena::fill(&mut self.arena, plan.residual, chunk, width);
                self.steps(&model, &sequence, &ids, steps, stop)?;
            }
            sequence.append(&ids, ids.len(), ids.len());
            (0..ids.len()).for_each(|r| out.extend_from_slice(arena::read(&self.arena, plan.residual, r)));
        }
        Ok(out)
    }
}
