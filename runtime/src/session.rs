//! One sequence on a model: its context, its KV cache, its threads.

use crate::arena::{Arena, Exchange};
use crate::attend::exchange_len;
use crate::best::{Bounds, Request};
use crate::execute::{Batch, Executor, RopeKey, Row, Scratch};
use crate::kv::{KvCache, KvType};
use crate::load::Model;
use crate::pool::Pool;
use crate::profile::Profile;
use crate::sample::{Candidate, Scores, Wants};
use crate::{RuntimeError, arena, pool};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trit_format::plan::Step;
use trit_kernels::planes::MAX_TOP;
use trit_kernels::rope::RopeTable;

mod finite;

/// How a session runs.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Longest sequence in tokens; by default what the model was made for.
    pub context: Option<usize>,
    /// Worker threads; by default as many as the system grants this process, and never more but with `crowd`.
    pub threads: Option<usize>,
    /// Start all of `threads`, even where they must share cores: slower, and of use only to test with.
    pub crowd: bool,
    /// Element type of the KV cache; see [`Session::widened`].
    pub kv: KvType,
    /// Rows of a prompt that run together.
    pub block: usize,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { context: None, threads: None, crowd: false, kv: KvType::F16, block: 512 }
    }
}

/// A sequence of tokens and everything needed to continue it.
pub struct Session {
    model: Arc<Model>,
    pool: Pool,
    arena: Arena,
    caches: Vec<KvCache>,
    exchange: Exchange,
    ropes: Ropes,
    scratch: Vec<Mutex<Scratch>>,
    context: usize,
    tokens: Vec<u32>,
    /// Ends the pass at hand where it is set.
    stop: Arc<AtomicBool>,
    profile: Option<Profile>,
    /// What of the logits the pass at hand is to find, if not all.
    request: Option<(usize, f32, Vec<u32>)>,
    /// What it found, by row, where it looked for the best alone.
    found: Option<Vec<Vec<Candidate>>>,
    bounds: Bounds,
    scan: Scan,
    /// Rows of the last pass whose scores can be asked for.
    scored: Range<usize>,
    /// In a pass, the first row that the cache could not hold; otherwise as large as can be.
    overflow: AtomicUsize,
    widened: Option<usize>,
}

impl Session {
    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] and [`RuntimeError::Context`] where an option is out of range, [`RuntimeError::System`] where threads are refused.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session, RuntimeError> {
        let manifest = model.manifest();
        let longest = manifest.hyperparameters.context_length as usize;
        let context = options.context.unwrap_or(longest);
        if context == 0 || context > longest {
            return Err(RuntimeError::Context { asked: context, longest });
        }
        if options.block == 0 {
            return Err(RuntimeError::Input("a block needs at least 1 row".into()));
        }
        let granted = pool::granted();
        let threads = match options.threads {
            None => granted,
            Some(threads) if options.crowd => threads,
            Some(threads) => threads.min(granted),
        };
        let plan = &manifest.plan;
        Ok(Session {
            pool: Pool::new(threads)?,
            arena: Arena::new(plan, options.block.min(context))?,
            caches: vec![KvCache::new(&plan.kv, options.kv, context)],
            exchange: Exchange::default(),
            scratch: (0..threads).map(|_| Mutex::new(Scratch::default())).collect(),
            ropes: Ropes::default(),
            context,
            tokens: Vec::new(),
            stop: Arc::default(),
            profile: None,
            request: None,
            found: None,
            bounds: Bounds::new(threads),
            scan: Scan::default(),
            scored: 0..0,
            overflow: AtomicUsize::new(usize::MAX),
            widened: None,
            model,
        })
    }

    /// Lets another thread end what the session does: while `stop` is set, passes end between two steps, the sequence is
    /// again as it was before the call, and the call gives [`RuntimeError::Interrupted`]. Whoever sets it resets it.
    pub fn interrupt_by(&mut self, stop: Arc<AtomicBool>) {
        self.stop = stop;
    }

    /// Begins to measure where time goes, or begins anew.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// What was measured since [`Session::start_profile`].
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Ends that, and gives what was measured.
    pub fn stop_profile(&mut self) -> Option<Profile> {
        self.profile.take()
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens in the sequence so far.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens themselves.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Most tokens the sequence can have.
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Rows of a prompt that run together at most.
    pub fn block(&self) -> usize {
        self.arena.capacity()
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.pool.count()
    }

    /// Forgets all but the first `position` tokens.
    ///
    /// # Panics
    /// If the sequence is shorter than that.
    pub fn truncate(&mut self, position: usize) {
        assert!(position <= self.position(), "cannot truncate {} tokens to {position}", self.position());
        self.tokens.truncate(position);
    }

    /// Appends a prompt and gives the logits after its last token, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for no tokens or one outside the vocabulary, [`RuntimeError::ContextFull`],
    /// [`RuntimeError::NotFinite`] where a logit is no number, [`RuntimeError::System`] where memory is refused,
    /// [`RuntimeError::Interrupted`]. The sequence is unchanged then.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], RuntimeError> {
        self.advance(ids, 1, Wants::All, &[])?;
        Ok(self.logits(self.scored.start))
    }

    /// Appends tokens and computes of the logits after each of the last `rows` of them what `wants` says, and those of
    /// the tokens `also`: see [`Session::scores`].
    ///
    /// # Errors
    /// As [`Session::prefill`].
    ///
    /// # Panics
    /// If `rows` is 0 or more than tokens or a block has.
    pub fn advance(
        &mut self,
        ids: &[u32],
        rows: usize,
        wants: Wants,
        also: &[u32],
    ) -> Result<(), RuntimeError> {
        let block = self.block();
        assert!(rows >= 1 && rows <= ids.len().clamp(1, block), "{rows} rows of {} tokens", ids.len());
        self.all_or_nothing(ids, |session| {
            // The last block has at least the rows that are asked for.
            let last = ((ids.len() - 1) % block + 1).max(rows);
            let (before, mut last) = ids.split_at(ids.len() - last);
            for mut chunk in before.chunks(block) {
                while !chunk.is_empty() {
                    let ran = session.pass(chunk, 0..0, wants, &[])?;
                    chunk = &chunk[ran..];
                    if !chunk.is_empty() {
                        session.widen()?;
                    }
                }
            }
            loop {
                let start = session.position();
                let unscored = last.len() - rows;
                let ran = session.pass(last, unscored..last.len(), wants, also)?;
                if ran == last.len() {
                    break;
                }
                // All rows that are asked for come out of one pass.
                let stands = ran.min(unscored);
                session.truncate(start + stands);
                session.widen()?;
                last = &last[stands..];
            }
            match session.first_unfinite() {
                None => Ok(()),
                Some(row) => Err(session.unfinite(session.position() - rows + row + 1)),
            }
        })
    }

    /// Appends the token `last` and those `guessed` to follow it, and computes what `wants` says, as [`Session::advance`] does,
    /// after as many as the cache can hold and give numbers. Gives how many, at least 1: others may be wrong guesses, of which
    /// nothing is to remain.
    ///
    /// # Errors
    /// As [`Session::prefill`], by `last` alone.
    pub(crate) fn advance_guessing(
        &mut self,
        last: u32,
        guessed: &[u32],
        wants: Wants,
        also: &[u32],
    ) -> Result<usize, RuntimeError> {
        let ids = [&[last], guessed].concat();
        self.all_or_nothing(&ids, |session| {
            let start = session.position();
            let mut ran = session.pass(&ids, 0..ids.len(), wants, also)?;
            if ran == 0 {
                session.widen()?;
                ran = session.pass(&ids, 0..ids.len(), wants, also)?;
            }
            match session.first_unfinite() {
                None => Ok(ran),
                Some(0) => Err(session.unfinite(start + 1)),
                Some(row) => {
                    session.truncate(start + row);
                    session.scored.end = row;
                    Ok(row)
                }
            }
        })
    }

    /// Checks `ids`, makes room for them and does what appends them; where that fails, the sequence is as it was.
    fn all_or_nothing<T>(
        &mut self,
        ids: &[u32],
        append: impl FnOnce(&mut Session) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        self.check(ids)?;
        let start = self.position();
        self.reach(start + ids.len())?;
        let result = append(self);
        if result.is_err() {
            self.tokens.truncate(start);
            self.scored = 0..0;
        }
        result
    }

    /// What [`Session::advance`] was asked for, after the `row`th of its rows.
    ///
    /// # Panics
    /// If it was not asked for that row.
    pub fn scores(&self, row: usize) -> Scores<'_> {
        assert!(row < self.scored.len(), "row {row} of {}", self.scored.len());
        match &self.found {
            Some(found) => Scores::Some(&found[row]),
            None => Scores::All(self.logits(self.scored.start + row)),
        }
    }

    /// Appends one token and gives the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], RuntimeError> {
        self.prefill(&[id])
    }

    /// Appends tokens and hands the logits after each to `each`, with its index in `ids`. Where it is interrupted, some
    /// have been handed out already.
    ///
    /// # Errors
    /// As [`Session::prefill`]; logits before the first that are no numbers have been handed over then.
    pub fn forward_all(
        &mut self,
        ids: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.all_or_nothing(ids, |session| {
            let mut done = 0;
            while done < ids.len() {
                let chunk = &ids[done..ids.len().min(done + session.block())];
                let start = session.position();
                let ran = session.pass(chunk, 0..chunk.len(), Wants::All, &[])?;
                let unfinite = session.first_unfinite();
                for row in 0..unfinite.unwrap_or(ran) {
                    each(done + row, session.logits(row));
                }
                if let Some(row) = unfinite {
                    return Err(session.unfinite(start + row + 1));
                }
                done += ran;
                if ran < chunk.len() {
                    session.widen()?;
                }
            }
            Ok(())
        })
    }

    /// Runs one layer alone on hidden states `[tokens, hidden_dim]` at positions `0..tokens`, and gives the hidden
    /// states after it. For looking into a model; the sequence is emptied.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] where there is no such layer or `hidden` has another shape,
    /// [`RuntimeError::Interrupted`].
    pub fn run_layer(&mut self, layer: usize, hidden: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        let model = self.model.clone();
        let plan = &model.manifest().plan;
        let width = model.manifest().hyperparameters.hidden_dim as usize;
        let Some(steps) = plan.layers.get(layer) else {
            return Err(RuntimeError::Input(format!(
                "there is no layer {layer}; there are {}",
                plan.layers.len()
            )));
        };
        let tokens = hidden.len() / width;
        if tokens == 0 || tokens > self.context || hidden.len() != tokens * width {
            return Err(RuntimeError::Input(format!(
                "{} values are no hidden states of width {width} for 1 to {} tokens",
                hidden.len(),
                self.context
            )));
        }
        self.tokens.clear();
        self.reach(tokens)?;
        let mut out = Vec::with_capacity(hidden.len());
        for chunk in hidden.chunks(self.arena.capacity() * width) {
            let rows = chunk.len() / width;
            let before = self.position();
            let run = |session: &mut Session| {
                arena::fill(&mut session.arena, plan.residual, chunk, width);
                session
                    .run(&vec![0; rows], &[(&plan.body[steps.start as usize..steps.end as usize], 0..rows)])
            };
            let ran = run(self)?;
            if ran < rows {
                self.widen()?;
                self.truncate(before);
                run(self)?;
            }
            for r in 0..rows {
                out.extend_from_slice(arena::read(&self.arena, plan.residual, r));
            }
        }
        self.tokens.clear();
        Ok(out)
    }

    /// Makes room for a sequence of `positions` tokens.
    fn reach(&mut self, positions: usize) -> Result<(), RuntimeError> {
        let kept = self.tokens.len();
        self.ropes.reach(&self.model, positions, self.context);
        self.exchange.reach(exchange_len(&self.model.manifest().plan, self.arena.capacity(), positions))?;
        self.caches.iter_mut().try_for_each(|cache| cache.reach(positions, kept))
    }

    fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
        let vocab = self.model.manifest().hyperparameters.vocab_size;
        if ids.is_empty() {
            return Err(RuntimeError::Input("there are no tokens to run; give a prompt".into()));
        }
        if let Some(id) = ids.iter().find(|&&id| id >= vocab) {
            return Err(RuntimeError::Input(format!("token id {id} is outside the vocabulary of {vocab}")));
        }
        let tokens = self.position() + ids.len();
        if tokens > self.context {
            let longest = self.model.manifest().hyperparameters.context_length as usize;
            return Err(RuntimeError::ContextFull { tokens, context: self.context, longest });
        }
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        arena::read(&self.arena, self.model.manifest().plan.logits, row)
    }

    /// Runs a block of tokens, and the head for its rows `scored`. Gives how many rows the cache could hold; the others were not
    /// appended, and have no scores.
    fn pass(
        &mut self,
        ids: &[u32],
        scored: Range<usize>,
        wants: Wants,
        also: &[u32],
    ) -> Result<usize, RuntimeError> {
        let model = self.model.clone();
        let plan = &model.manifest().plan;
        self.scored = scored.clone();
        self.request = match wants {
            Wants::Best { count: count @ 1..=MAX_TOP, within } if !scored.is_empty() => {
                let vocab = model.manifest().hyperparameters.vocab_size;
                let mut also: Vec<u32> = also.iter().copied().filter(|&id| id < vocab).collect();
                also.sort_unstable();
                also.dedup();
                Some((count, within, also))
            }
            _ => None,
        };
        let ran = match scored.is_empty() {
            true => self.run(ids, &[(&plan.body[..], 0..ids.len())])?,
            false => self.run(ids, &[(&plan.body[..], 0..ids.len()), (&plan.head[..], scored)])?,
        };
        self.gather();
        self.scored.end = self.scored.end.min(ran.max(self.scored.start));
        Ok(ran)
    }

    /// Runs step lists for rows at the next positions, in one parallel region, and appends those before the first one that
    /// the cache could not hold. Gives how many. Where the bundle's file was changed, nothing that was computed counts, and
    /// the sequence stays as it was.
    fn run(&mut self, ids: &[u32], lists: &[(&[Step], Range<usize>)]) -> Result<usize, RuntimeError> {
        let row = |(i, &token)| Row { token, position: self.tokens.len() + i, sequence: 0 };
        let rows: Vec<Row> = ids.iter().enumerate().map(row).collect();
        let batch = Batch { rows: &rows, sequences: &self.caches };
        let best = self.request.as_ref().map(|(count, within, also)| Request {
            count: *count,
            within: *within,
            also,
            full: self.scan.full() || *count > Scan::FEW,
            bounds: &self.bounds,
        });
        let executor = Executor {
            model: &self.model,
            arena: &self.arena,
            ropes: &self.ropes.tables,
            best,
            exchange: &self.exchange,
            stop: &self.stop,
            overflow: &self.overflow,
        };
        let stopped = AtomicBool::new(false);
        // Worker 0 keeps the profile.
        self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner).profile = self.profile.take();
        self.pool.run(|worker| {
            let mut scratch = self.scratch[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
            let mut lists = lists.iter();
            if !lists.all(|(steps, rows)| executor.run(steps, &batch, rows.clone(), worker, &mut scratch)) {
                stopped.store(true, Ordering::Relaxed);
            }
        });
        self.profile = self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner).profile.take();
        let ran = std::mem::replace(self.overflow.get_mut(), usize::MAX);
        if stopped.into_inner() {
            return Err(RuntimeError::Interrupted);
        }
        if let Some(profile) = &mut self.profile {
            profile.regions += 1;
            profile.tokens += ids.len();
        }
        self.model.intact()?;
        let ran = ran.min(ids.len());
        self.tokens.extend_from_slice(&ids[..ran]);
        Ok(ran)
    }

    /// Brings together what the workers found in the last pass.
    fn gather(&mut self) {
        let workers: Vec<&mut Scratch> =
            self.scratch.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner)).collect();
        let Some((count, ..)) = self.request.take().filter(|_| workers[0].found) else {
            self.found = None;
            return;
        };
        let full = self.scan.full() || count > Scan::FEW;
        let mut found = self.found.take().unwrap_or_default();
        found.resize_with(self.scored.len(), Vec::new);
        for (row, found) in found.iter_mut().enumerate() {
            found.clear();
            workers.iter().for_each(|w| found.extend_from_slice(&w.head.found[row]));
            found.sort_unstable_by_key(|c| c.id);
            found.dedup_by_key(|c| c.id);
        }
        let refined = workers.iter().map(|w| w.head.refined).sum();
        if let Some(profile) = &mut self.profile {
            profile.heads += found.len();
            profile.refined += refined;
            profile.survivors += found.iter().map(Vec::len).sum::<usize>();
            profile.full_scans += if full { found.len() } else { 0 };
        }
        if !full || self.scan.full() {
            let vocab = self.model.manifest().hyperparameters.vocab_size as usize;
            self.scan.learn(refined, found.len() * vocab);
        }
        self.found = Some(found);
    }
}

/// Whether heads read both planes at once. The high plane alone is half the bytes, but where it leaves many rows
/// undecided, reading those from the low plane costs more than all of it in sequence.
#[derive(Default)]
struct Scan {
    /// Passes until the high plane is tried alone again; 0 where it is.
    pause: usize,
    /// The next pause.
    next: usize,
    /// Running mean of the share of rows the high plane left undecided.
    undecided: f64,
}

impl Scan {
    /// Most logits that the high plane is asked for: it leaves half the rows undecided where 40 are.
    const FEW: usize = 4;
    /// Share of undecided rows from which on both planes at once are faster: those rows are read again, both planes of
    /// them, scattered, which takes twice as long a byte.
    const MOST_UNDECIDED: f64 = 1.0 / 6.0;
    /// Weight of the newest pass in the mean: texts are unsure in places.
    const NEW: f64 = 0.25;
    /// The first and the longest pause, in passes.
    const PAUSES: (usize, usize) = (8, 256);

    fn full(&self) -> bool {
        self.pause > 0
    }

    /// Learns that the high plane left `undecided` of `rows`.
    fn learn(&mut self, undecided: usize, rows: usize) {
        if self.full() {
            self.pause -= 1;
            return;
        }
        self.undecided += Scan::NEW * (undecided as f64 / rows as f64 - self.undecided);
        if self.undecided > Scan::MOST_UNDECIDED {
            self.pause = self.next.clamp(Scan::PAUSES.0, Scan::PAUSES.1);
            self.next = 2 * self.pause;
            // The first pass after the pause decides.
            self.undecided = 0.0;
        } else if self.undecided < 0.5 * Scan::MOST_UNDECIDED {
            self.next = 0;
        }
    }
}

/// The rotations of every RoPE step, for as many positions as have been needed.
#[derive(Default)]
struct Ropes {
    tables: Vec<(RopeKey, RopeTable)>,
    positions: usize,
}

impl Ropes {
    /// Makes the tables reach `needed` positions; they double, so that this is rare, up to `most`.
    fn reach(&mut self, model: &Model, needed: usize, most: usize) {
        if needed <= self.positions {
            return;
        }
        self.positions = needed.next_power_of_two().max(256).min(most);
        self.tables.clear();
        for step in &model.manifest().plan.body {
            if let Some(key) = RopeKey::of(step)
                && !self.tables.iter().any(|(k, _)| *k == key)
            {
                let table = RopeTable::new(model.vector(key.inv_freq), key.scaling, self.positions);
                self.tables.push((key, table));
            }
        }
    }
}
