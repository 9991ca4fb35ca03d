//! One step of a batch: it runs passes until every row has run, and handles the rows that cannot run.

use super::batch::{Batch, Part};
use super::core::{Chunk, Core, Steps};
use super::sequence::Sequence;
use crate::RuntimeError;
use crate::load::Model;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

impl Core {
    /// See [`Engine::step`](super::Engine::step).
    pub fn step(
        &mut self,
        model: &Arc<Model>,
        most: usize,
        batch: &mut Batch,
    ) -> Result<Vec<Result<usize, RuntimeError>>, RuntimeError> {
        if batch.rows() > most {
            return Err(RuntimeError::Input(format!(
                "a batch of {} rows; a step of this engine takes up to {most}",
                batch.rows()
            )));
        }
        let starts: Vec<usize> = batch.parts.iter().map(|part| part.sequence.position()).collect();
        for part in &mut batch.parts {
            (part.done, part.error) = (0, None);
            part.sequence.forget_logits();
            part.error = part.prepare(model).err();
        }
        let never = AtomicBool::new(false);
        let stop = batch.stop.unwrap_or(&never);
        let result = self.passes(model, &mut batch.parts, stop);
        for (part, start) in batch.parts.iter_mut().zip(starts) {
            if result.is_err() || part.error.is_some() {
                part.sequence.truncate(start);
                part.sequence.forget_logits();
            }
        }
        result?;
        Ok(batch.parts.iter_mut().map(|part| part.error.take().map_or(Ok(part.done), Err)).collect())
    }

    /// Runs passes until no row is left to run.
    fn passes(
        &mut self,
        model: &Arc<Model>,
        parts: &mut [Part],
        stop: &AtomicBool,
    ) -> Result<(), RuntimeError> {
        loop {
            let mut open: Vec<&mut Part> = parts.iter_mut().filter(|part| part.is_open()).collect();
            if open.is_empty() {
                return Ok(());
            }
            for part in &mut open {
                self.catch_up(model, part.sequence, stop)?;
            }
            let chunks: Vec<Chunk> = open.iter().map(|part| part.chunk()).collect();
            let found = self.pass(model, &chunks, &Steps::All, stop);
            drop(chunks);
            let mut found = match found {
                Ok(found) => found,
                Err(error) => {
                    open.iter_mut().for_each(|part| part.sequence.lose_state());
                    return Err(error);
                }
            };
            let before: Vec<usize> = open.iter().map(|part| part.done).collect();
            for ((part, &ran), states) in open.iter_mut().zip(&found.ran).zip(&mut found.states) {
                part.append(ran);
                states.truncate(ran);
                part.sequence.follow(std::mem::take(states));
            }
            let mut unfinite = Vec::new();
            for (chunk, row, logits) in self.logits(model, &found) {
                let (part, row) = (&mut open[chunk], before[chunk] + row);
                // Rows that the cache could not hold have no logits yet. Nor do rows count that follow one whose logits
                // are no finite numbers.
                if row >= part.done || part.error.is_some() || unfinite.iter().any(|&(of, _)| of == chunk) {
                    continue;
                }
                if !logits.are_finite() {
                    unfinite.push((chunk, row));
                } else {
                    match &mut part.each {
                        Some(each) => each(row, logits),
                        None => part.sequence.keep_logits(logits),
                    }
                }
            }
            for (chunk, row) in unfinite {
                let part = &mut open[chunk];
                part.forget_from(row);
                if !part.is_drafted(row) {
                    part.error = Some(self.unfinite(model, part, row, stop)?);
                }
            }
            for part in open.iter_mut().filter(|part| part.is_open()) {
                part.error = part.sequence.widen().err();
            }
            for part in &mut open {
                self.let_follow(part.sequence, stop)?;
            }
        }
    }
}

impl Core {
    /// Runs the tokens again that a sequence's recurrent state has not seen. Its memory is the sequence's own afterwards.
    ///
    /// # Errors
    /// Those of a pass, and [`RuntimeError::System`] where memory is refused.
    fn catch_up(
        &mut self,
        model: &Model,
        sequence: &mut Sequence,
        stop: &AtomicBool,
    ) -> Result<(), RuntimeError> {
        if let Some(state) = &mut sequence.state {
            state.own()?;
        }
        while !sequence.unseen().is_empty() {
            let ids = sequence.unseen();
            let position = sequence.position() - ids.len();
            let ids = &ids[..ids.len().min(self.arena.capacity())];
            let rows = ids.len();
            let chunk = Chunk { appends: false, ..Chunk::of(sequence, position, ids) };
            let ran = self.pass(model, &[chunk], &Steps::All, stop);
            if let Some(state) = &mut sequence.state {
                match ran {
                    Ok(_) => state.ran(rows, 0),
                    Err(_) => state.lose(),
                }
            }
            ran?;
        }
        Ok(())
    }
}

impl Part<'_> {
    /// Checks the part, and reserves its positions in the cache.
    fn prepare(&mut self, model: &Arc<Model>) -> Result<(), RuntimeError> {
        if !Arc::ptr_eq(self.sequence.model(), model) {
            return Err(RuntimeError::Input("the sequence belongs to another model than the engine".into()));
        }
        self.sequence.check(self.ids)?;
        if self.requests.len() > self.ids.len() {
            return Err(RuntimeError::Input(format!(
                "logits of {} rows are asked for, of {} tokens",
                self.requests.len(),
                self.ids.len()
            )));
        }
        self.sequence.reserve(self.ids.len())
    }

    /// The rows that are left for the next pass.
    fn chunk(&self) -> Chunk<'_> {
        let requests =
            (self.done..self.ids.len()).filter_map(|row| Some((row - self.done, self.request(row)?)));
        Chunk {
            drafted: self.drafted.min(self.ids.len() - self.done - 1),
            requests: requests.collect(),
            followed: self.sequence.is_followed(),
            ..Chunk::of(self.sequence, self.sequence.position(), &self.ids[self.done..])
        }
    }

    /// Appends the next `ran` tokens of the part to its sequence: they have run.
    fn append(&mut self, ran: usize) {
        let chunk = self.chunk();
        let (count, kept) = (chunk.ids.len(), chunk.kept());
        self.sequence.append(&self.ids[self.done..self.done + ran], count, kept);
        self.done += ran;
    }

    /// Removes the part's tokens from row `row` on from its sequence: they count as not run.
    fn forget_from(&mut self, row: usize) {
        let position = self.sequence.position() - (self.done - row);
        self.sequence.truncate(position);
        self.done = row;
    }
}
