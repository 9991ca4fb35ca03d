//! The largest logits, exactly, without computing the others: rows of the head that planes cannot rule out are
//! multiplied, the rest are never read. What the planes are and why this is exact: `trit_kernels::planes`.
//!
//! A scan of the planes leaves a *shortlist* of table rows for each hidden state, the exact products of those are its
//! *candidates*. However many hidden states a pass has, the planes come from memory once.

use super::logits::Candidate;
use crate::load::Model;
use crate::pool::Worker;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use trit_format::plan::{PlanesId, TensorId};
use trit_kernels::head;
use trit_kernels::planes::{self, Hidden, Planes, TopLower};

/// Table rows that are shared out together.
const UNIT: usize = 64;
/// Most of these units that are scanned at a time for up to [`FEW`] hidden states: their results go through L2.
const MOST_UNITS: usize = 64;
/// Hidden states whose sums fit the registers together.
const FEW: usize = 4;
/// Table rows that are read and multiplied at a time.
const EXACT_ROWS: usize = 8;
/// Most hidden states that are screened together. Their bounds take 8 bytes a table row each.
pub(crate) const MOST_ROWS: usize = 32;

/// What is asked of the head for one hidden state.
pub(crate) struct Largest<'a> {
    /// How many of the largest logits.
    pub count: usize,
    /// How far below the largest others count too.
    pub within: f32,
    /// Table rows wanted whatever their logits, in order.
    pub forced: &'a [u32],
}

/// The largest lower bounds each worker saw, for each hidden state.
pub(crate) struct Bounds(Vec<Mutex<Vec<TopLower>>>);

impl Bounds {
    /// For that many workers.
    pub fn new(workers: usize) -> Bounds {
        Bounds((0..workers).map(|_| Mutex::default()).collect())
    }

    fn publish(&self, worker: &Worker, tops: &[TopLower]) {
        let mut mine = self.0[worker.index].lock().unwrap_or_else(PoisonError::into_inner);
        mine.clear();
        mine.extend_from_slice(tops);
    }

    /// The threshold for hidden state `index` over all workers.
    fn threshold(&self, index: usize, request: &Largest) -> f32 {
        let mut all = TopLower::new(request.count);
        for tops in &self.0 {
            all.merge(&tops.lock().unwrap_or_else(PoisonError::into_inner)[index]);
        }
        all.threshold() - request.within
    }
}

/// One worker's memory for screening, and what it found.
#[derive(Default)]
pub(crate) struct ScreeningScratch {
    hidden: Vec<Hidden>,
    tops: Vec<TopLower>,
    /// Table rows scanned, in runs of [`UNIT`]s.
    ranges: Vec<Range<usize>>,
    /// By hidden state.
    states: Vec<State>,
    row: Vec<u8>,
    /// For each hidden state asked about the logits of this worker's share that matter.
    pub candidates: Vec<Vec<Candidate>>,
    /// Table rows that the high plane left undecided.
    pub refined: usize,
}

/// What is known of one hidden state's logits.
#[derive(Default)]
struct State {
    /// For the rows of the scanned ranges one after the other, then for those of the shortlist.
    approx: Vec<f32>,
    bound: Vec<f32>,
    /// Rows of this worker's share that can be among the largest.
    shortlist: Vec<u32>,
}

/// A hidden state, `[hidden]`, under a number of the caller's, and what is asked of the head for it.
pub(crate) type Input<'a> = (usize, &'a [f32], &'a Largest<'a>);

/// A head and its planes.
pub(crate) struct Screening<'a> {
    pub model: &'a Model,
    pub table: TensorId,
    pub planes: PlanesId,
    /// Read both planes at once.
    pub full: bool,
    /// Where workers show each other their bounds.
    pub bounds: &'a Bounds,
}

impl Screening<'_> {
    /// Whether the planes can bound the logits of `input`, `[hidden]`; where they cannot, only the whole product tells.
    /// `index` says which hidden state of the next [`Screening::find`] it becomes.
    pub fn prepare(&self, index: usize, input: &[f32], scratch: &mut ScreeningScratch) -> bool {
        while scratch.hidden.len() <= index {
            scratch.hidden.push(Hidden::new(self.model.planes(self.planes).layout()));
        }
        scratch.hidden[index].prepare(input)
    }

    /// Finds for each of `inputs`, prepared in this order and at most [`MOST_ROWS`], what its request asks for, and leaves
    /// it in the candidates under its number.
    ///
    /// Every worker of the region calls this with the same arguments, and passes a barrier before the next time.
    pub fn find(&self, inputs: &[Input], worker: &Worker, scratch: &mut ScreeningScratch) {
        if inputs.is_empty() {
            return;
        }
        let numbers = inputs.iter().map(|input| input.0 + 1).max().unwrap_or(0);
        scratch.states.resize_with(inputs.len().max(scratch.states.len()), State::default);
        scratch.candidates.resize_with(numbers.max(scratch.candidates.len()), Vec::new);
        self.shortlist(inputs, worker, scratch);
        for (index, input) in inputs.iter().enumerate() {
            self.rescore(index, input, worker, scratch);
        }
    }

    /// Leaves in each state's shortlist the rows of this worker's share that can matter.
    fn shortlist(&self, inputs: &[Input], worker: &Worker, scratch: &mut ScreeningScratch) {
        let planes = self.model.planes(self.planes);
        let ScreeningScratch { hidden, tops, ranges, states, refined, .. } = scratch;
        let hidden: Vec<&Hidden> = hidden[..inputs.len()].iter().collect();
        let states = &mut states[..inputs.len()];
        tops.resize_with(inputs.len(), || TopLower::new(1));
        ranges.clear();
        for ((state, top), (.., request)) in states.iter_mut().zip(&mut *tops).zip(inputs) {
            top.reset(request.count);
            state.approx.clear();
            state.bound.clear();
            state.shortlist.clear();
        }
        self.scan(&planes, &hidden, inputs, worker, (&mut *tops, &mut *ranges, &mut *states));
        self.bounds.publish(worker, tops);
        worker.wait();
        for (index, (state, (.., request))) in states.iter_mut().zip(inputs).enumerate() {
            let threshold = self.bounds.threshold(index, request);
            let mut at = 0;
            for range in ranges.iter() {
                let part = at..at + range.len();
                at = part.end;
                let (approx, bound) = (&state.approx[part.clone()], &state.bound[part]);
                planes::extend_shortlist(threshold, approx, bound, range.start as u32, &mut state.shortlist);
            }
        }
        if self.full {
            return;
        }
        for ((state, top), (hidden, (.., request))) in
            states.iter_mut().zip(&mut *tops).zip(hidden.iter().zip(inputs))
        {
            let State { approx, bound, shortlist } = state;
            *refined += shortlist.len();
            approx.resize(shortlist.len(), 0.0);
            bound.resize(shortlist.len(), 0.0);
            planes::tighten_bounds(&planes, shortlist, hidden, approx, bound);
            top.reset(request.count);
            top.take(approx, bound);
        }
        // Everyone has read the bounds of the high plane.
        worker.wait();
        self.bounds.publish(worker, tops);
        worker.wait();
        for (index, (state, (.., request))) in states.iter_mut().zip(inputs).enumerate() {
            let threshold = self.bounds.threshold(index, request);
            planes::narrow_shortlist(threshold, &state.approx, &state.bound, &mut state.shortlist);
        }
    }

    /// Bounds every row of this worker's share.
    fn scan(
        &self,
        planes: &Planes,
        hidden: &[&Hidden],
        inputs: &[Input],
        worker: &Worker,
        (tops, ranges, states): (&mut [TopLower], &mut Vec<Range<usize>>, &mut [State]),
    ) {
        let rows = planes.layout().rows();
        let most = (MOST_UNITS * FEW / inputs.len().max(FEW)).max(1);
        for units in worker.claim(rows.div_ceil(UNIT), most) {
            let range = units.start * UNIT..(units.end * UNIT).min(rows);
            let at = states[0].approx.len();
            let (mut approx, mut bound) = (Vec::new(), Vec::new());
            for state in states.iter_mut() {
                state.approx.resize(at + range.len(), 0.0);
                state.bound.resize(at + range.len(), 0.0);
                approx.push(&mut state.approx[at..]);
                bound.push(&mut state.bound[at..]);
            }
            match self.full {
                true => planes::scan_full(planes, range.clone(), hidden, &mut approx, &mut bound),
                false => planes::scan_high(planes, range.clone(), hidden, &mut approx, &mut bound),
            }
            for (((.., request), top), (approx, bound)) in
                inputs.iter().zip(&mut *tops).zip(approx.iter_mut().zip(&bound))
            {
                // Rows that are wanted anyway say nothing about how large others must be.
                for id in within(request.forced, &range) {
                    approx[*id as usize - range.start] = f32::NEG_INFINITY;
                }
                top.take(approx, bound);
            }
            ranges.push(range);
        }
    }

    /// The exact logits of a shortlist, and of this worker's share of the rows wanted anyway.
    fn rescore(
        &self,
        index: usize,
        &(number, input, request): &Input,
        worker: &Worker,
        scratch: &mut ScreeningScratch,
    ) {
        let ScreeningScratch { states, row, candidates, .. } = scratch;
        let tensor = self.model.tensor(self.table);
        let bytes = tensor.shape[1] as usize * tensor.dtype.size();
        row.resize(EXACT_ROWS * bytes, 0);
        let forced = &request.forced[worker.share(request.forced.len())];
        candidates[number].clear();
        for ids in states[index].shortlist.chunks(EXACT_ROWS).chain(forced.chunks(EXACT_ROWS)) {
            for (id, to) in ids.iter().zip(row.chunks_exact_mut(bytes)) {
                self.model.read_row(self.table, *id as usize, to);
            }
            let mut logits = [0.0; EXACT_ROWS];
            let logits = &mut logits[..ids.len()];
            head::dot_rows(row, tensor.dtype, input.len(), 0..ids.len(), input, logits);
            let found = ids.iter().zip(logits).map(|(&id, logit)| Candidate { id, logit: *logit });
            candidates[number].extend(found);
        }
    }
}

/// Those of `ids`, which are in order, that are in `range`.
fn within<'a>(ids: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let at = |row: usize| ids.partition_point(|&id| (id as usize) < row);
    &ids[at(range.start)..at(range.end)]
}

/// Whether heads read both planes at once. The high plane alone is half the bytes, but where it leaves many rows
/// undecided, reading those from the low plane costs more than all of it in sequence.
#[derive(Default)]
pub(crate) struct PlaneChoice {
    /// Passes until the high plane is tried alone again; 0 where it is.
    pause: usize,
    /// The next pause.
    next: usize,
    /// Running mean of the share of rows the high plane left undecided.
    undecided: f64,
}

impl PlaneChoice {
    /// Most logits that the high plane is asked for: it leaves half the rows undecided where 40 are.
    const FEW: usize = 4;
    /// Share of undecided rows from which on both planes at once are faster: those rows are read again, both planes of
    /// them, scattered, which takes twice as long a byte.
    const MOST_UNDECIDED: f64 = 1.0 / 6.0;
    /// Weight of the newest pass in the mean: texts are unsure in places.
    const NEW: f64 = 0.25;
    /// The first and the longest pause, in passes.
    const PAUSES: (usize, usize) = (8, 256);

    fn paused(&self) -> bool {
        self.pause > 0
    }

    /// Whether to read both planes for requests of which the largest wants `count` logits.
    pub fn full(&self, count: usize) -> bool {
        self.paused() || count > PlaneChoice::FEW
    }

    /// Learns that the high plane left `undecided` of `rows`, in a pass for as many logits as `full` was asked about.
    pub fn learn(&mut self, count: usize, undecided: usize, rows: usize) {
        if self.paused() {
            self.pause -= 1;
            return;
        }
        if count > PlaneChoice::FEW {
            return;
        }
        self.undecided += PlaneChoice::NEW * (undecided as f64 / rows as f64 - self.undecided);
        if self.undecided > PlaneChoice::MOST_UNDECIDED {
            self.pause = self.next.clamp(PlaneChoice::PAUSES.0, PlaneChoice::PAUSES.1);
            self.next = 2 * self.pause;
            // The first pass after the pause decides.
            self.undecided = 0.0;
        } else if self.undecided < 0.5 * PlaneChoice::MOST_UNDECIDED {
            self.next = 0;
        }
    }
}
