//! The threads and the memory of an engine, and one pass: rows of several sequences go through the plan's steps
//! together.

use super::arena::{self, Arena};
use super::asked::Asked;
use super::attend::SplitKv;
use super::execute::{Executor, Pass, Run, Scratch, head_rows};
use super::kv::KvCache;
use super::logits::{Candidate, Logits, LogitsRequest};
use super::pool::Pool;
use super::profile::Profile;
use super::ropes::Ropes;
use super::screening::{Bounds, PlaneChoice};
use super::sequence::Sequence;
use super::state::{MOST_TRIED, State};
use crate::RuntimeError;
use crate::load::Model;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trit_format::plan::Step;

/// What an engine has once, whatever the number of its sequences.
pub(super) struct Core {
    pool: Arc<Pool>,
    pub arena: Arena,
    ropes: Ropes,
    split_kv: SplitKv,
    scratch: Vec<Mutex<Scratch>>,
    bounds: Bounds,
    choice: PlaneChoice,
    pub profile: Option<Profile>,
    /// The same for the block that drafts tokens, on the same threads.
    pub draft: Option<Box<Core>>,
}

/// The rows of one sequence in a pass.
pub(super) struct Chunk<'a> {
    pub ids: &'a [u32],
    /// Position of the first of them. The cache has reserved this position and those of the other ids.
    pub position: usize,
    pub cache: &'a KvCache,
    /// The recurrent state, where the plan has one; its memory is its own. It has seen the tokens before `position`.
    pub state: Option<&'a State>,
    /// How many of the last ids may be taken back.
    pub drafted: usize,
    /// See [`Run::appends`].
    pub appends: bool,
    /// Which rows of `ids` are asked for logits, and what is asked of them.
    pub requests: Vec<(usize, &'a LogitsRequest)>,
    /// The hidden states that the rows come with, `[rows, hidden]`, in plans of drafts.
    pub hidden: &'a [f32],
    /// Whether the hidden states after all rows are wanted, for the block that drafts tokens.
    pub followed: bool,
}

impl<'a> Chunk<'a> {
    /// Rows of a sequence at `position`, which append to its cache and of which nothing is asked.
    pub fn of(sequence: &'a Sequence, position: usize, ids: &'a [u32]) -> Chunk<'a> {
        Chunk {
            ids,
            position,
            cache: &sequence.cache,
            state: sequence.state.as_ref(),
            drafted: 0,
            appends: true,
            requests: Vec::new(),
            hidden: &[],
            followed: false,
        }
    }

    /// How many rows change the recurrent state. The others are drafts, whose changes are logged, as far as there is room.
    pub fn kept(&self) -> usize {
        self.ids.len() - self.drafted.min(MOST_TRIED)
    }
}

/// Which steps run.
pub(super) enum Steps<'a> {
    /// The whole body, and the head for the rows whose logits are wanted.
    All,
    /// Some steps of the body.
    Body(&'a [Step]),
}

/// What a pass found.
pub(super) struct Found {
    /// For each chunk, how many of its rows the cache could hold. The rows after those count as not run.
    pub ran: Vec<usize>,
    /// For each chunk that is followed the hidden states after its rows.
    pub states: Vec<Vec<Vec<f32>>>,
    /// For each request its chunk, its row among the chunk's ids, and where its logits are.
    logits: Vec<(usize, usize, Place)>,
}

enum Place {
    Arena(usize),
    Candidates(Vec<Candidate>),
    Hidden(Vec<f32>),
}

impl Core {
    /// Starts the threads, and allocates memory for `rows` rows.
    pub fn new(model: &Model, threads: usize, rows: usize) -> Result<Core, RuntimeError> {
        Core::on(Arc::new(Pool::new(threads)?), model, threads, rows)
    }

    fn on(pool: Arc<Pool>, model: &Model, threads: usize, rows: usize) -> Result<Core, RuntimeError> {
        let draft = model.draft().map(|draft| Core::on(pool.clone(), draft, threads, rows).map(Box::new));
        Ok(Core {
            pool,
            arena: Arena::new(&model.manifest().plan, rows)?,
            ropes: Ropes::default(),
            split_kv: SplitKv::default(),
            scratch: (0..threads).map(|_| Mutex::new(Scratch::default())).collect(),
            bounds: Bounds::new(threads),
            choice: PlaneChoice::default(),
            profile: None,
            draft: draft.transpose()?,
        })
    }

    /// Runs `steps` for the rows of all chunks, in one parallel region of all workers.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`], [`RuntimeError::Changed`] and [`RuntimeError::System`]. What was computed is then
    /// not to be used.
    pub fn pass(
        &mut self,
        model: &Model,
        chunks: &[Chunk],
        steps: &Steps,
        stop: &AtomicBool,
    ) -> Result<Found, RuntimeError> {
        let plan = &model.manifest().plan;
        let ends = chunks.iter().map(|chunk| (chunk.ids.len(), chunk.position + chunk.ids.len()));
        self.ropes.reserve(model, ends.clone().map(|(_, end)| end).max().unwrap_or(0));
        self.split_kv.reserve(plan, ends)?;
        let tokens: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.ids).copied().collect();
        let mut first = 0;
        let mut runs = Vec::new();
        for chunk in chunks {
            let &Chunk { ids, position, cache, state, appends, hidden, .. } = chunk;
            let (rows, overflow) = (first..first + ids.len(), AtomicUsize::new(usize::MAX));
            first = rows.end;
            let kept = chunk.kept();
            runs.push(Run { rows, position, cache, state, kept, appends, overflow, hidden });
        }
        let asked = Asked::new(model, chunks, &runs);
        let (wanted, mut hidden) = (asked.wanted(), asked.hidden());
        let count = asked.count();
        let followed = chunks.iter().zip(&runs).filter(|(chunk, _)| chunk.followed);
        hidden.extend(followed.flat_map(|(_, run)| run.rows.clone()));
        let executor = Executor {
            model,
            arena: &self.arena,
            ropes: self.ropes.tables(),
            pass: Pass { tokens: &tokens, runs: &runs, wanted: &wanted },
            full: self.choice.full(count),
            bounds: &self.bounds,
            split_kv: &self.split_kv,
            stop,
        };
        let stopped = AtomicBool::new(false);
        // Worker 0 keeps the profile during the pass.
        self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner).profile = self.profile.take();
        self.pool.run(|worker| {
            let mut scratch = self.scratch[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
            let rows = 0..tokens.len();
            scratch.hidden.clear();
            let ran = match steps {
                Steps::Body(steps) => executor.run(steps, rows, worker, &mut scratch),
                Steps::All => {
                    executor.run(&plan.body, rows, worker, &mut scratch) && {
                        executor.hidden(plan, &hidden, worker, &mut scratch);
                        wanted.is_empty()
                            || executor.run_head(&plan.head, plan.residual, worker, &mut scratch)
                    }
                }
            };
            if !ran {
                stopped.store(true, Ordering::Relaxed);
            }
        });
        self.profile = self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner).profile.take();
        if stopped.into_inner() {
            return Err(RuntimeError::Interrupted);
        }
        if let Some(profile) = &mut self.profile {
            profile.regions += 1;
            profile.tokens += tokens.len();
        }
        model.intact()?;
        let ran = runs.iter().map(|run| run.overflow.load(Ordering::Relaxed).min(run.rows.len())).collect();
        let first = head_rows(&wanted).start;
        drop(wanted);
        let states = self.take_states(asked.of_body().len(), chunks);
        Ok(Found { ran, states, logits: self.gather(model, &asked, first) })
    }

    /// Takes the hidden states of chunks that are followed. They come after `requested` others.
    fn take_states(&mut self, requested: usize, chunks: &[Chunk]) -> Vec<Vec<Vec<f32>>> {
        let mut found: Vec<(usize, Vec<f32>)> = Vec::new();
        for scratch in &mut self.scratch {
            let scratch = scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
            found.extend(scratch.hidden.extract_if(.., |(index, _)| *index >= requested));
        }
        found.sort_unstable_by_key(|(index, _)| *index);
        let mut found = found.into_iter().map(|(_, state)| state);
        let rows = chunks.iter().map(|chunk| if chunk.followed { chunk.ids.len() } else { 0 });
        rows.map(|rows| found.by_ref().take(rows).collect()).collect()
    }

    /// Collects the logits that the workers found. Those that are in the arena begin at row `first`. The choice of planes
    /// learns how many rows were left undecided.
    fn gather(&mut self, model: &Model, asked: &Asked, first: usize) -> Vec<(usize, usize, Place)> {
        let mut workers: Vec<&mut Scratch> =
            self.scratch.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner)).collect();
        let (mut heads, mut rescored) = (0, 0);
        let mut logits = Vec::new();
        for (index, request) in asked.of_head().iter().enumerate() {
            let place = if workers[0].screened[index] {
                let mut found: Vec<Candidate> =
                    workers.iter().flat_map(|w| &w.screening.candidates[index]).copied().collect();
                found.sort_unstable_by_key(|c| c.id);
                found.dedup_by_key(|c| c.id);
                if request.reads_planes() {
                    heads += 1;
                    rescored += found.len();
                }
                Place::Candidates(found)
            } else {
                Place::Arena(first + index)
            };
            logits.push((request.chunk, request.row, place));
        }
        for (index, values) in workers.iter_mut().flat_map(|worker| worker.hidden.drain(..)) {
            let request = &asked.of_body()[index];
            logits.push((request.chunk, request.row, Place::Hidden(values)));
        }
        logits.sort_by_key(|&(chunk, row, _)| (chunk, row));
        if heads > 0 {
            let (undecided, count) = (workers.iter().map(|w| w.screening.undecided).sum(), asked.count());
            if let Some(profile) = &mut self.profile {
                profile.heads += heads;
                profile.undecided += undecided;
                profile.rescored += rescored;
                profile.full_scans += if self.choice.full(count) { heads } else { 0 };
            }
            let vocab = model.manifest().hyperparameters.vocab_size as usize;
            self.choice.learn(count, undecided, heads * vocab);
        }
        logits
    }

    /// The logits that a pass found, each with its chunk and row, in the order of chunks and rows.
    pub fn logits<'a>(
        &'a self,
        model: &'a Model,
        found: &'a Found,
    ) -> impl Iterator<Item = (usize, usize, Logits<'a>)> {
        found.logits.iter().map(|(chunk, row, place)| {
            let logits = match place {
                Place::Arena(row) => {
                    Logits::All(arena::read(&self.arena, model.manifest().plan.logits, *row))
                }
                Place::Candidates(candidates) => Logits::Candidates(candidates),
                Place::Hidden(values) => Logits::Hidden(values),
            };
            (*chunk, *row, logits)
        })
    }
}
