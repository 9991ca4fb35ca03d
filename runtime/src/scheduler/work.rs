//! The scheduler's thread: one step of the engine after the other.

use super::Shared;
use super::board::{Slot, Statistics};
use super::fair::{Fair, GENERATED};
use super::job::{Ahead, Job, Outcome};
use super::pace::Pace;
use super::prefixes::Overlap;
use super::request::RequestError;
use super::{Desk, State};
use crate::engine::{Batch, LogitsRequest, Sequence};
use crate::generate::draft::Drafts;
use crate::generate::{Finish, OPENING};
use crate::{Engine, RuntimeError};
use std::cell::LazyCell;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use trit_text::conversation::shared_prefix;

/// Fewest tokens that two texts must have in common for a snapshot of the recurrent state where they part.
const WORTH_A_SNAPSHOT: usize = 32;
/// Fewest tokens for which a request waits until they have run for another one.
const WORTH_WAITING: usize = 64;

/// How long a step waits for guides at most, over all requests. Most need a tenth of that, and a step that leaves an answer
/// out costs it more time.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long it waits where no request can go on without its guide. In between, the thread looks for new requests and
/// cancelled ones.
const LONG_PATIENCE: Duration = Duration::from_millis(20);

/// A request with a sequence, which has run a part of its text.
struct Running {
    job: Job,
    sequence: Sequence,
    /// Positions of the text, in order, at which a snapshot of the recurrent state is to be kept.
    cuts: Vec<usize>,
    /// Whether its guide is not ready to say what may come next.
    waits: bool,
}

impl Running {
    /// How many tokens of the text have not run.
    fn left(&self) -> usize {
        self.job.history().len() - self.sequence.position()
    }

    /// Whether only the last token of an answer is left to run.
    fn answers(&self) -> bool {
        self.left() == 1 && self.job.generated() > 0
    }

    /// Whether it can take part in a step: the last token of its text runs only when its guide is ready.
    fn goes_on(&self) -> bool {
        !self.waits || self.left() > 1
    }

    /// How many tokens may run before the next snapshot.
    fn until_cut(&self) -> usize {
        let position = self.sequence.position();
        self.cuts.iter().find(|&&cut| cut > position).map_or(usize::MAX, |cut| cut - position)
    }
}

/// What a request does in a step.
struct Part {
    /// Its index among those that run.
    index: usize,
    ids: Vec<u32>,
    /// Whether it is an answer that goes on; otherwise it is a piece of a prompt.
    answers: bool,
    /// How many of the last ids are drafted.
    drafted: usize,
    requests: Vec<LogitsRequest>,
}

pub(super) struct Work {
    shared: Arc<Shared>,
    running: Vec<Running>,
    pace: Pace,
    fair: Fair,
    statistics: Statistics,
}

impl Work {
    pub fn new(shared: Arc<Shared>) -> Work {
        let statistics = shared.board().statistics.clone();
        Work { shared, running: Vec::new(), pace: Pace::default(), fair: Fair::default(), statistics }
    }

    /// Runs until the scheduler is dropped.
    pub fn run(mut self) {
        while self.wait() {
            self.leave();
            self.admit();
            self.look_ahead();
            if !self.running.is_empty() {
                self.step();
            }
            self.publish();
        }
    }

    /// Waits for something to do; false when there will be nothing any more.
    fn wait(&self) -> bool {
        let mut desk = self.shared.desk();
        while desk.state != State::Stopping && self.running.is_empty() && desk.waiting.is_empty() {
            desk = self.shared.wake.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        desk.state != State::Stopping
    }

    /// Ends what was cancelled.
    fn leave(&mut self) {
        let mut gone = Vec::new();
        {
            let mut desk = self.shared.desk();
            if std::mem::take(&mut desk.cancelled) {
                gone.extend(desk.waiting.extract_if(.., |job| job.is_cancelled()));
            }
        }
        for mut job in gone {
            job.end(Finish::Interrupted);
            self.statistics.cancelled += 1;
        }
        while let Some(index) = self.running.iter().position(|running| running.job.is_cancelled()) {
            self.statistics.cancelled += 1;
            self.running[index].job.end(Finish::Interrupted);
            self.close(index);
        }
    }

    /// Takes an ended request from its slot, and keeps its text for others.
    fn close(&mut self, index: usize) {
        let running = self.running.swap_remove(index);
        let (drafted, accepted) = running.job.drafted();
        self.statistics.drafted_tokens += drafted as u64;
        self.statistics.accepted_tokens += accepted as u64;
        self.shared.prefixes().keep(&running.sequence);
        self.shared.desk().running = self.running.len();
        if let Some(began) = running.job.began() {
            self.shared.board().took(began.elapsed());
        }
    }

    /// Asks guides what may come next, and ends the answers that have come to their end.
    fn look_ahead(&mut self) {
        let start = Instant::now();
        let mut over = Vec::new();
        for patience in [PATIENCE, LONG_PATIENCE] {
            let mut waiting = 0;
            for (index, running) in self.running.iter_mut().enumerate() {
                running.waits = false;
                match running.job.look_ahead(start + patience) {
                    Ok(Ahead::Ready) => {}
                    Ok(Ahead::Waits) => {
                        running.waits = true;
                        waiting += 1;
                    }
                    Ok(Ahead::Over) => over.push((index, None)),
                    Err(error) => over.push((index, Some(error))),
                }
            }
            if !over.is_empty() || waiting == 0 || self.running.iter().any(Running::goes_on) {
                break;
            }
        }
        for (index, error) in over.into_iter().rev() {
            match error {
                None => {
                    self.statistics.finished += 1;
                    self.running[index].job.end(Finish::Stop);
                }
                Some(error) => {
                    self.statistics.failed += 1;
                    self.running[index].job.fail(error);
                }
            }
            self.close(index);
        }
    }

    /// Gives slots to those who wait, as far as there are slots and memory.
    fn admit(&mut self) {
        let mut later = Vec::new();
        while self.running.len() < self.shared.options.slots {
            let Some(job) = self.next() else { break };
            if self.will_share(&job) {
                later.push(job);
                continue;
            }
            if let Some(job) = self.start(job) {
                later.push(job);
                break;
            }
            self.shared.desk().running = self.running.len();
        }
        if !later.is_empty() {
            self.shared.desk().waiting.splice(0..0, later);
        }
    }

    /// Whether a prompt that runs now begins with the same tokens, so that waiting for it is better than running them as
    /// well. This is so for several answers to one prompt, and for requests with one system message that come together.
    fn will_share(&mut self, job: &Job) -> bool {
        let ids = job.history();
        // Looked for only where some prompt begins alike, because every request that waits asks before each step.
        let known =
            LazyCell::new(|| self.shared.prefixes().find(ids).map_or(0, |(_, overlap)| overlap.usable));
        let recurrent = self.shared.engine.model().state_bytes() > 0;
        for Running { job: other, sequence, cuts, .. } in &mut self.running {
            let (common, position) = (shared_prefix(other.history(), ids), sequence.position());
            if position < common && common >= WORTH_WAITING && common >= *known + WORTH_WAITING {
                // A recurrent state can be shared only at a snapshot.
                if recurrent && !cuts.contains(&common) {
                    cuts.push(common);
                    cuts.sort_unstable();
                }
                return true;
            }
        }
        false
    }

    /// The request that gets the next slot: one that was preempted, or one of the user for whom least was done.
    fn next(&mut self) -> Option<Job> {
        let mut desk = self.shared.desk();
        let Desk { waiting, .. } = &mut *desk;
        let active: Vec<u64> = self.running.iter().map(|running| running.job.user).collect();
        for job in waiting.iter() {
            if !active.contains(&job.user) {
                self.fair.arrive(job.user, active.iter().copied());
            }
        }
        let turn = |job: &Job| (job.began().is_none(), self.fair.served(job.user));
        let best = (0..waiting.len()).min_by(|&a, &b| {
            let ((a_new, a), (b_new, b)) = (turn(&waiting[a]), turn(&waiting[b]));
            a_new.cmp(&b_new).then(a.total_cmp(&b))
        });
        best.map(|index| waiting.remove(index))
    }

    /// Gives a request a slot. It comes back where there is no memory for its text now.
    fn start(&mut self, job: Job) -> Option<Job> {
        let ids = job.history();
        let ours = self.running.iter().map(|running| Overlap::of(&running.sequence, ids)).enumerate();
        let ours = ours.max_by_key(|(_, overlap)| (overlap.usable, overlap.common));
        let (sequence, overlap, common) = {
            // Locked until the text is taken, so that indices stay right.
            let mut prefixes = self.shared.prefixes();
            let kept = prefixes.find(ids);
            let [of_kept, of_ours] = [kept, ours].map(|found| found.unwrap_or_default().1);
            let overlap = if of_ours.usable > of_kept.usable { of_ours } else { of_kept };
            let sequence = match (kept, ours) {
                _ if overlap.usable == 0 => self.shared.sequence(),
                (_, Some((index, ours))) if ours == overlap => {
                    Ok(self.running[index].sequence.fork(overlap.usable))
                }
                (Some((index, _)), _) => Ok(prefixes.take(index, overlap.usable)),
                _ => self.shared.sequence(),
            };
            (sequence, overlap, of_ours.common.max(of_kept.common))
        };
        let sequence = match sequence {
            Ok(sequence) => sequence,
            Err(error) => {
                self.fail(job, error.into());
                return None;
            }
        };
        let mut running = Running { cuts: Vec::new(), job, sequence, waits: false };
        // Others need memory for the rest of their prompts, and this one for its own and a token after it.
        let all = self.running.iter().chain([&running]);
        let needed: usize = all.map(|running| running.sequence.missing(running.left())).sum();
        if !self.make_room(needed) && !self.running.is_empty() {
            self.shared.prefixes().keep(&running.sequence);
            return Some(running.job);
        }
        let end = running.job.history().len();
        if self.shared.engine.model().state_bytes() > 0 {
            let position = running.sequence.position();
            let branch = (common >= position + WORTH_A_SNAPSHOT).then_some(common);
            let opening = end.checked_sub(OPENING).filter(|&cut| cut > OPENING.max(position));
            running.cuts.extend(branch.into_iter().chain(opening));
            running.cuts.sort_unstable();
        }
        if running.job.began().is_none() {
            self.statistics.cached_tokens += overlap.usable as u64;
        }
        let has_block = self.shared.engine.model().has_draft_block();
        running.job.begin(overlap.usable, self.shared.options.draft.then(|| Drafts::new(has_block)));
        if running.job.drafts() {
            running.sequence.let_block_follow();
        }
        self.running.push(running);
        None
    }

    fn fail(&mut self, mut job: Job, error: RequestError) {
        self.statistics.failed += 1;
        job.fail(error);
    }

    /// Frees memory of texts that are kept until `needed` more bytes fit; whether they do.
    fn make_room(&mut self, needed: usize) -> bool {
        while self.shared.engine.sequence_bytes().saturating_add(needed) > self.shared.kv_memory {
            if !self.shared.prefixes().evict() {
                return false;
            }
            self.statistics.evicted_texts += 1;
        }
        true
    }

    /// Says what each request does in the next step. Requests are preempted until that fits into the memory.
    fn plan(&mut self) -> Vec<Part> {
        loop {
            let parts = self.parts();
            let missing = parts.iter().map(|part| self.running[part.index].sequence.missing(part.ids.len()));
            let needed = missing.sum();
            if self.make_room(needed) || self.running.len() == 1 {
                return parts;
            }
            // The youngest request waits. The oldest never does, so that one always comes to an end.
            let youngest = (0..self.running.len()).max_by_key(|&index| self.running[index].job.number);
            let Running { job, .. } = self.running.swap_remove(youngest.unwrap_or(0));
            self.statistics.preempted += 1;
            let mut desk = self.shared.desk();
            desk.waiting.insert(0, job);
            desk.running = self.running.len();
        }
    }

    fn parts(&mut self) -> Vec<Part> {
        let most = self.shared.engine.rows();
        let vocab = self.shared.engine.model().manifest().hyperparameters.vocab_size as usize;
        let (answers, mut prompts): (Vec<usize>, Vec<usize>) = (0..self.running.len())
            .filter(|&i| self.running[i].goes_on())
            .partition(|&i| self.running[i].answers());
        let mut room = most - answers.len();
        let mut parts = Vec::new();
        for &index in &answers {
            let Running { job, sequence, .. } = &mut self.running[index];
            let last = job.history()[job.history().len() - 1];
            // Drafts take rows that prompts need more.
            let left = sequence.context_length().saturating_sub(sequence.position() + 1);
            // The block that drafts tokens does so for one answer at a time: others would wait for it.
            let guess = |count: usize| match answers.len() {
                1 => self.shared.engine.draft(sequence, last, count, &AtomicBool::new(false)),
                _ => Ok(Vec::new()),
            };
            let drafted = match prompts.is_empty() {
                // What is wrong with the bundle's file shows in the step too.
                true => job.draft(room.min(left), guess).unwrap_or_default(),
                false => Vec::new(),
            };
            room -= drafted.len();
            let requests = vec![job.asks(&drafted, vocab); 1 + drafted.len()];
            let ids = [&[last], &drafted[..]].concat();
            parts.push(Part { index, ids, answers: true, drafted: drafted.len(), requests });
        }
        let mut budget = self.pace.prompt_rows(most - room, most);
        let turn = |index: &usize| {
            let job = &self.running[*index].job;
            (self.fair.served(job.user), job.number)
        };
        prompts.sort_by(|a, b| {
            let ((a, a_number), (b, b_number)) = (turn(a), turn(b));
            a.total_cmp(&b).then(a_number.cmp(&b_number))
        });
        for index in prompts {
            let running = &self.running[index];
            let ready = running.left() - usize::from(running.waits);
            let count = ready.min(budget).min(running.until_cut());
            if count == 0 {
                continue;
            }
            budget -= count;
            let position = running.sequence.position();
            let ids = running.job.history()[position..position + count].to_vec();
            let ends = count == running.left();
            let requests = if ends { vec![running.job.asks(&[], vocab)] } else { Vec::new() };
            parts.push(Part { index, ids, answers: false, drafted: 0, requests });
        }
        parts
    }

    /// Runs a step, and what follows from its logits.
    fn step(&mut self) {
        let began = Instant::now();
        let mut parts = self.plan();
        if parts.is_empty() {
            return;
        }
        parts.sort_by_key(|part| part.index);
        let start = Instant::now();
        let results = run(&self.shared.engine, &mut self.running, &parts);
        let time = start.elapsed();
        let rows = |answers: bool| {
            parts.iter().filter(|part| part.answers == answers).map(|part| part.ids.len()).sum::<usize>()
        };
        let (answer_rows, prompt_rows) = (rows(true), rows(false));
        let answers = parts.iter().filter(|part| part.answers).count();
        self.statistics.steps += 1;
        self.statistics.busy += time;
        let results = match results {
            Ok(results) => results,
            Err(error) => return self.recover(error),
        };
        self.pace.learn(answer_rows, prompt_rows, time);
        let mut over = Vec::new();
        for (part, result) in parts.iter().zip(results) {
            let Running { job, sequence, cuts, .. } = &mut self.running[part.index];
            let before = job.generated();
            let outcome = result.map_err(RequestError::from).and_then(|ran| {
                if cuts.contains(&sequence.position()) {
                    sequence.keep();
                }
                let drafted = &part.ids[part.ids.len() - part.drafted..];
                let asked = if part.answers { ran } else { part.requests.len() };
                match asked {
                    0 => Ok(Outcome::Continues),
                    rows => job.choose(sequence, drafted, rows),
                }
            });
            let generated = job.generated() - before;
            if part.answers && prompt_rows == 0 {
                job.learn(part.drafted, generated, answers, began.elapsed());
            }
            self.statistics.generated_tokens += generated as u64;
            let prompt = if part.answers { 0 } else { part.ids.len() };
            self.statistics.prompt_tokens += prompt as u64;
            self.fair.serve(job.user, prompt as f64 + GENERATED * generated as f64);
            match outcome {
                Ok(Outcome::Continues) => {}
                Ok(Outcome::Ended) => {
                    self.statistics.finished += 1;
                    over.push(part.index);
                }
                Err(error) => {
                    self.statistics.failed += 1;
                    job.fail(error);
                    over.push(part.index);
                }
            }
        }
        // From the last to the first, so that indices stay right.
        over.into_iter().rev().for_each(|index| self.close(index));
    }

    /// No request ran. Where memory was refused, there may be enough without the texts that are kept, or with fewer
    /// requests at a time; otherwise none of them can go on.
    fn recover(&mut self, error: RuntimeError) {
        let memory = matches!(error, RuntimeError::SequenceMemory { .. } | RuntimeError::System(_));
        if memory && self.shared.prefixes().evict() {
            while self.shared.prefixes().evict() {}
            return;
        }
        let words = error.to_string();
        let mut error = Some(error);
        for running in self.running.drain(..) {
            self.statistics.failed += 1;
            let mut job = running.job;
            job.fail(error.take().unwrap_or_else(|| RuntimeError::System(words.clone())).into());
        }
        self.shared.desk().running = 0;
    }

    /// Shows the outside how things are.
    fn publish(&mut self) {
        let running = &self.running;
        self.fair.tidy(|user| running.iter().any(|running| running.job.user == user));
        self.statistics.kept_texts = self.shared.prefixes().len();
        let slot = |running: &Running| Slot {
            request: running.job.number,
            prompt: running.job.prompt(),
            position: running.sequence.position(),
            generated: running.job.generated(),
            arrived: running.job.arrived,
        };
        let mut board = self.shared.board();
        board.statistics = self.statistics.clone();
        board.slots = running.iter().map(slot).collect();
        board.slots.sort_by_key(|slot| slot.request);
    }
}

impl Drop for Work {
    /// Nobody runs requests any more, be it that the scheduler was dropped or that its thread panicked. Those that wait
    /// end with the same word as those that ran.
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.state = State::Stopping;
        let waiting = std::mem::take(&mut desk.waiting);
        drop(desk);
        drop(waiting);
    }
}

/// Runs the parts, which are in the order of the requests, in one step.
fn run(
    engine: &Engine,
    running: &mut [Running],
    parts: &[Part],
) -> Result<Vec<Result<usize, RuntimeError>>, RuntimeError> {
    let mut batch = Batch::new();
    let mut next = parts.iter().peekable();
    for (index, Running { sequence, .. }) in running.iter_mut().enumerate() {
        if let Some(part) = next.next_if(|part| part.index == index) {
            batch.push_drafted(sequence, &part.ids, part.drafted, &part.requests);
        }
    }
    engine.step(&mut batch)
}
