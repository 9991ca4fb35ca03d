//! Threads and memory of an engine, and one pass of rows through them.

use super::attend::SplitKv;
use super::execute::{Executor, Pass, Run, Scratch, Wanted, head_row};
use super::kv::KvCache;
use super::logits::{Candidate, Logits, LogitsRequest};
use super::ropes::Ropes;
use super::screening::{Bounds, Largest, PlaneChoice};
use crate::RuntimeError;
use crate::arena::{self, Arena};
use crate::load::Model;
use crate::pool::Pool;
use crate::profile::Profile;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use trit_format::plan::Step;
use trit_kernels::planes::MAX_TOP;

/// What an engine has once.
pub(super) struct Core {
    pool: Pool,
    pub arena: Arena,
    ropes: Ropes,
    split_kv: SplitKv,
    scratch: Vec<Mutex<Scratch>>,
    bounds: Bounds,
    choice: PlaneChoice,
    pub profile: Option<Profile>,
}

/// What one sequence has in a pass.
pub(super) struct Chunk<'a> {
    pub ids: &'a [u32],
    /// Position of the first of them, reserved in the cache as those after it are.
    pub position: usize,
    pub cache: &'a KvCache,
    /// Rows of `ids` with what is asked of their logits.
    pub requests: Vec<(usize, &'a LogitsRequest)>,
}

/// Which steps run.
pub(super) enum Steps<'a> {
    /// All, the head where logits are wanted.
    All,
    /// Some of the body.
    Body(&'a [Step]),
}

/// What a pass found.
pub(super) struct Found {
    /// By chunk, how many of its rows the cache could hold; the others have not run.
    pub ran: Vec<usize>,
    /// By request: chunk, row of its ids, and where its logits are.
    logits: Vec<(usize, usize, Place)>,
}

enum Place {
    Arena(usize),
    Candidates(Vec<Candidate>),
}

impl Core {
    /// Threads, and memory for `rows` rows.
    pub fn new(model: &Model, threads: usize, rows: usize) -> Result<Core, RuntimeError> {
        Ok(Core {
            pool: Pool::new(threads)?,
            arena: Arena::new(&model.manifest().plan, rows)?,
            ropes: Ropes::default(),
            split_kv: SplitKv::default(),
            scratch: (0..threads).map(|_| Mutex::new(Scratch::default())).collect(),
            bounds: Bounds::new(threads),
            choice: PlaneChoice::default(),
            profile: None,
        })
    }

    /// Runs steps for the rows of all chunks in one parallel region.
    ///
    /// # Errors
    /// [`RuntimeError::Interrupted`], [`RuntimeError::Changed`], [`RuntimeError::System`]: nothing that was computed counts.
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
        for &Chunk { ids, position, cache, .. } in chunks {
            let (rows, overflow) = (first..first + ids.len(), AtomicUsize::new(usize::MAX));
            first = rows.end;
            runs.push(Run { rows, position, cache, overflow });
        }
        let asked = Asked::new(model, chunks, &runs);
        let wanted = asked.wanted();
        let count = asked.requests.iter().map(|request| request.count).max().unwrap_or(0);
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
        // Worker 0 keeps the profile.
        self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner).profile = self.profile.take();
        self.pool.run(|worker| {
            let mut scratch = self.scratch[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
            let rows = 0..tokens.len();
            let ran = match steps {
                Steps::Body(steps) => executor.run(steps, rows, worker, &mut scratch),
                Steps::All => {
                    executor.run(&plan.body, rows, worker, &mut scratch)
                        && (wanted.is_empty()
                            || executor.run_head(&plan.head, plan.residual, worker, &mut scratch))
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
        let places: Vec<usize> = (0..wanted.len()).map(|index| head_row(&wanted, index)).collect();
        let rows = asked.requests.iter().map(|request| (request.chunk, request.row)).collect();
        Ok(Found { ran, logits: self.gather(model, count, rows, &places) })
    }

    /// Brings together what the workers found.
    fn gather(
        &mut self,
        model: &Model,
        count: usize,
        rows: Vec<(usize, usize)>,
        places: &[usize],
    ) -> Vec<(usize, usize, Place)> {
        let workers: Vec<&mut Scratch> =
            self.scratch.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner)).collect();
        let (mut heads, mut survivors) = (0, 0);
        let mut place = |index: usize| {
            if !workers[0].screened[index] {
                return Place::Arena(places[index]);
            }
            let mut found: Vec<Candidate> =
                workers.iter().flat_map(|w| &w.screening.candidates[index]).copied().collect();
            found.sort_unstable_by_key(|c| c.id);
            found.dedup_by_key(|c| c.id);
            heads += 1;
            survivors += found.len();
            Place::Candidates(found)
        };
        let mut logits: Vec<(usize, usize, Place)> =
            rows.into_iter().enumerate().map(|(index, (chunk, row))| (chunk, row, place(index))).collect();
        logits.sort_by_key(|&(chunk, row, _)| (chunk, row));
        if heads > 0 {
            let refined = workers.iter().map(|w| w.screening.refined).sum();
            if let Some(profile) = &mut self.profile {
                profile.heads += heads;
                profile.refined += refined;
                profile.survivors += survivors;
                profile.full_scans += if self.choice.full(count) { heads } else { 0 };
            }
            let vocab = model.manifest().hyperparameters.vocab_size as usize;
            self.choice.learn(count, refined, heads * vocab);
        }
        logits
    }

    /// The logits that a pass found, with their chunk and row, in order.
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
            };
            (*chunk, *row, logits)
        })
    }
}

/// What a pass is asked for, those requests first that the largest logits answer.
struct Asked {
    requests: Vec<Request>,
}

struct Request {
    chunk: usize,
    row: usize,
    /// Its row in the pass.
    at: usize,
    /// How many of the largest logits; 0: all.
    count: usize,
    within: f32,
    forced: Vec<u32>,
}

impl Asked {
    fn new(model: &Model, chunks: &[Chunk], runs: &[Run]) -> Asked {
        let vocab = model.manifest().hyperparameters.vocab_size;
        let request = |(chunk, row, request): (usize, usize, &LogitsRequest)| {
            let at = runs[chunk].rows.start + row;
            match request {
                LogitsRequest::Largest { count: count @ 1..=MAX_TOP, within, forced } => {
                    let mut forced: Vec<u32> = forced.iter().copied().filter(|&id| id < vocab).collect();
                    forced.sort_unstable();
                    forced.dedup();
                    Request { chunk, row, at, count: *count, within: *within, forced }
                }
                _ => Request { chunk, row, at, count: 0, within: 0.0, forced: Vec::new() },
            }
        };
        let all = chunks.iter().enumerate();
        let all = all.flat_map(|(i, chunk)| chunk.requests.iter().map(move |&(row, asked)| (i, row, asked)));
        let mut requests: Vec<Request> = all.map(request).collect();
        requests.sort_by_key(|request| request.count == 0);
        Asked { requests }
    }

    fn wanted(&self) -> Vec<Wanted<'_>> {
        let wanted = self.requests.iter().map(|request| Wanted {
            row: request.at,
            largest: (request.count > 0).then(|| Largest {
                count: request.count,
                within: request.within,
                forced: &request.forced,
            }),
        });
        wanted.collect()
    }
}
