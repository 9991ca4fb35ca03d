//! Kept texts in files, so that requests of another process that begin alike find them.

use super::Scheduler;
use crate::{RuntimeError, SavedSequences};
use std::path::Path;
use std::time::{Duration, Instant};
use trit_text::output::Unfinished;

/// How long saving waits for requests to leave.
const LEAVE: Duration = Duration::from_secs(5);
/// How long it sleeps between two looks.
const LOOK: Duration = Duration::from_millis(5);

impl Scheduler {
    /// Keeps the texts of a file for requests that begin alike, as far as there is memory for them: those first that were
    /// used last. Returns how many they are.
    ///
    /// # Errors
    /// As [`SavedSequences::restore_on`].
    pub fn restore(&self, saved: &SavedSequences) -> Result<usize, RuntimeError> {
        let shared = &self.shared;
        let options = shared.sequence_options();
        let empty = shared.sequence()?;
        let states = (1 + options.snapshots) * shared.engine.model().state_bytes();
        let mut texts = Vec::new();
        // The last in a file was used last.
        for index in (0..saved.len()).rev() {
            let position = saved.tokens(index).len().min(shared.context);
            let fits = |more: usize| shared.engine.sequence_bytes().saturating_add(more) <= shared.kv_memory;
            if !fits(empty.missing(position).saturating_add(states)) {
                break;
            }
            let text = saved.restore_on(&shared.engine, index, position, options)?;
            // A cache that had to become one of f32 is larger than was thought.
            if !fits(0) {
                break;
            }
            texts.push(text);
        }
        let mut prefixes = shared.prefixes();
        texts.iter().rev().for_each(|text| prefixes.keep(text));
        let kept = prefixes.len();
        drop(prefixes);
        shared.board().statistics.kept_texts = kept;
        Ok(texts.len())
    }

    /// Writes the texts that are kept to a file, those last that were used last, and returns how many they are. Those that
    /// were not used for the longest time are left out where the file would be larger than the memory for KV caches: texts
    /// that share memory do not share bytes of a file. Where no text is kept, no file is written. Requests that still run
    /// are left out.
    ///
    /// # Errors
    /// As [`saved::save`](crate::saved::save).
    pub fn save(&self, path: &Path, unfinished: &Unfinished) -> Result<usize, RuntimeError> {
        // A request tells its end shortly before its text is kept.
        let start = Instant::now();
        while self.shared.desk().running > 0 && start.elapsed() < LEAVE {
            std::thread::sleep(LOOK);
        }
        let texts = self.shared.prefixes().texts(self.shared.kv_memory);
        if !texts.is_empty() {
            crate::saved::save(path, &texts.iter().collect::<Vec<_>>(), unfinished)?;
        }
        Ok(texts.len())
    }
}
