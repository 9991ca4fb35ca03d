//! One step of a batch: it runs passes until every row has run, and handles the rows that cannot run.

use super::batch::{Batch, Part};
use super::core::{Chunk, Core, Steps};
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
            let chunks: Vec<Chunk> = open.iter().map(|part| part.chunk()).collect();
            let found = self.pass(model, &chunks, &Steps::All, stop)?;
            drop(chunks);
            let before: Vec<usize> = open.iter().map(|part| part.done).collect();
            for (part, &ran) in open.iter_mut().zip(&found.ran) {
                part.append(ran);
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
        }
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
        let start = self.sequence.position();
        self.sequence.cache.reserve(start + self.ids.len(), start)
    }

    /// The rows that are left for the next pass.
    fn chunk(&self) -> Chunk<'_> {
        let requests =
            (self.done..self.ids.len()).filter_map(|row| Some((row - self.done, self.request(row)?)));
        Chunk {
            ids: &self.ids[self.done..],
            position: self.sequence.position(),
            cache: &self.sequence.cache,
            requests: requests.collect(),
        }
    }

    /// Appends the next `ran` tokens of the part to its sequence: they have run.
    fn append(&mut self, ran: usize) {
        self.sequence.tokens.extend_from_slice(&self.ids[self.done..self.done + ran]);
        self.done += ran;
    }

    /// Removes the part's tokens from row `row` on from its sequence: they count as not run.
    fn forget_from(&mut self, row: usize) {
        let position = self.sequence.position() - (self.done - row);
        self.sequence.truncate(position);
        self.done = row;
    }
}
