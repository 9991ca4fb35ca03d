//! Screening finds the largest logits exactly, without computing the others. The planes give bounds for every logit.
//! Only those rows of the head's table that the bounds cannot rule out are read and multiplied. `trit_kernels::planes`
//! says what the planes are and proves that the result is exact.
//!
//! A scan of the planes leaves a *shortlist* of table rows for each hidden state. Rescoring multiplies these rows
//! exactly, which gives the *candidates*. The planes come from memory once, however many hidden states a pass has.

use super::logits::Candidate;
use super::pool::Worker;
use super::token_set::TokenSet;
use crate::load::Model;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use trit_format::plan::{PlanesId, TensorId};
use trit_kernels::head;
use trit_kernels::planes::{self, Hidden, Planes, TopLower};

/// Table rows that make one unit of work.
const UNIT: usize = 64;
/// Most of these units that are scanned at a time for up to [`FEW`] hidden states, so that their results stay in L2.
const MOST_UNITS: usize = 64;
/// How many hidden states' sums fit into the registers together.
const FEW: usize = 4;
/// Table rows that rescoring reads and multiplies at a time.
const EXACT_ROWS: usize = 8;
/// Most hidden states that are screened together. Their bounds take 8 bytes a table row each.
pub(crate) const MOST_ROWS: usize = 32;

/// What is asked of the head for one hidden state.
pub(crate) struct Largest<'a> {
    /// How many of the largest logits.
    pub count: usize,
    /// Logits that are less than this below the largest are wanted too.
    pub within: f32,
    /// The table rows among which they are looked for; `None` stands for all.
    pub allowed: Option<&'a TokenSet>,
    /// Table rows whose logits are wanted however small they are, in order.
    pub forced: &'a [u32],
    /// Whether the forced rows are all that is wanted, so that no planes are read.
    pub only: bool,
}

impl Largest<'_> {
    /// Whether a table row counts among those of which the largest are wanted.
    fn counts(&self, row: u32) -> bool {
        self.allowed.is_none_or(|allowed| allowed.contains(row)) && self.forced.binary_search(&row).is_err()
    }
}

/// For each worker, the largest lower bounds that it found for each hidden state.
pub(crate) struct Bounds(Vec<Mutex<Vec<TopLower>>>);

impl Bounds {
    /// Empty bounds for `workers` workers.
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
    /// What is known of each hidden state's logits.
    states: Vec<State>,
    row: Vec<u8>,
    /// For each hidden state the candidates among this worker's share of the table rows.
    pub candidates: Vec<Vec<Candidate>>,
    /// How many table rows the high plane left undecided, over all hidden states.
    pub undecided: usize,
}

/// What is known of one hidden state's logits.
#[derive(Default)]
struct State {
    /// Approximate logits: first of the rows of all scanned ranges in order, then of the rows of the shortlist.
    approx: Vec<f32>,
    bound: Vec<f32>,
    /// Rows of this worker's share whose logits can be among the largest.
    shortlist: Vec<u32>,
}

/// A hidden state: the caller's number for it, its values `[hidden]`, and what is asked of the head for it.
pub(crate) type Input<'a> = (usize, &'a [f32], &'a Largest<'a>);

/// A head and its planes.
pub(crate) struct Screening<'a> {
    pub model: &'a Model,
    pub table: TensorId,
    pub planes: PlanesId,
    /// Whether both planes are read at once.
    pub full: bool,
    /// Where workers publish their bounds.
    pub bounds: &'a Bounds,
}

impl Screening<'_> {
    /// Prepares `input`, `[hidden]`, as hidden state `index` of the next [`Screening::find`]. Returns whether the
    /// planes can bound its logits; where they cannot, the whole product must be computed.
    pub fn prepare(&self, index: usize, input: &[f32], scratch: &mut ScreeningScratch) -> bool {
        while scratch.hidden.len() <= index {
            scratch.hidden.push(Hidden::new(self.model.planes(self.planes).layout()));
        }
        scratch.hidden[index].prepare(input)
    }

    /// Finds what the request of each of `inputs` asks for, and leaves it in the candidates under the input's number.
    /// The inputs were prepared in this order, and are at most [`MOST_ROWS`].
    ///
    /// Every worker of the region calls this with the same arguments, and passes a barrier before the next call.
    pub fn find(&self, inputs: &[Input], worker: &Worker, scratch: &mut ScreeningScratch) {
        if inputs.is_empty() {
            return;
        }
        let numbers = inputs.iter().map(|input| input.0 + 1).max().unwrap_or(0);
        scratch.states.resize_with(inputs.len().max(scratch.states.len()), State::default);
        scratch.candidates.resize_with(numbers.max(scratch.candidates.len()), Vec::new);
        self.shortlist(inputs, worker, scratch);
        for (index, input) in inputs.iter().enumerate() {
            let shortlist = std::mem::take(&mut scratch.states[index].shortlist);
            rescore(self.model, self.table, &shortlist, input, worker, scratch);
            scratch.states[index].shortlist = shortlist;
        }
    }

    /// Leaves in each state's shortlist the rows of this worker's share whose logits can be among those that are
    /// wanted.
    fn shortlist(&self, inputs: &[Input], worker: &Worker, scratch: &mut ScreeningScratch) {
        let planes = self.model.planes(self.planes);
        let ScreeningScratch { hidden, tops, ranges, states, undecided, .. } = scratch;
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
            // Rows that do not count are bounded by minus infinity, which is below any threshold but this one.
            if threshold.is_nan() || threshold == f32::NEG_INFINITY {
                state.shortlist.retain(|&row| request.counts(row));
            }
        }
        if self.full {
            return;
        }
        for ((state, top), (hidden, (.., request))) in
            states.iter_mut().zip(&mut *tops).zip(hidden.iter().zip(inputs))
        {
            let State { approx, bound, shortlist } = state;
            *undecided += shortlist.len();
            approx.resize(shortlist.len(), 0.0);
            bound.resize(shortlist.len(), 0.0);
            planes::tighten_bounds(&planes, shortlist, hidden, approx, bound);
            top.reset(request.count);
            top.take(approx, bound);
        }
        // After this barrier every worker has read the bounds of the high plane, and they can be replaced.
        worker.wait();
        self.bounds.publish(worker, tops);
        worker.wait();
        for (index, (state, (.., request))) in states.iter_mut().zip(inputs).enumerate() {
            let threshold = self.bounds.threshold(index, request);
            planes::narrow_shortlist(threshold, &state.approx, &state.bound, &mut state.shortlist);
        }
    }

    /// Scans this worker's share of the table rows, and bounds the logit of each row for each hidden state.
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
                inputs.iter().zip(&mut *tops).zip(approx.iter_mut().zip(&mut bound))
            {
                // Rows that are not allowed are not wanted, and forced rows are wanted anyway. Neither may raise the
                // threshold that the other rows are compared with.
                if let Some(allowed) = request.allowed {
                    planes::exclude_others(allowed.words(), range.start, approx, bound);
                }
                for id in within(request.forced, &range) {
                    let at = *id as usize - range.start;
                    (approx[at], bound[at]) = (f32::NEG_INFINITY, 0.0);
                }
                top.take(approx, bound);
            }
            ranges.push(range);
        }
    }
}

/// Computes the logits of an input's forced rows, of which every worker takes its share, and leaves them in the
/// candidates under the input's number.
pub(crate) fn read_rows(
    model: &Model,
    table: TensorId,
    input: Input,
    worker: &Worker,
    scratch: &mut ScreeningScratch,
) {
    scratch.candidates.resize_with((input.0 + 1).max(scratch.candidates.len()), Vec::new);
    rescore(model, table, &[], &input, worker, scratch);
}

/// Computes the exact logits of the rows of a shortlist, and of this worker's share of the forced rows.
fn rescore(
    model: &Model,
    table: TensorId,
    shortlist: &[u32],
    &(number, input, request): &Input,
    worker: &Worker,
    scratch: &mut ScreeningScratch,
) {
    let ScreeningScratch { row, candidates, .. } = scratch;
    let tensor = model.tensor(table);
    let bytes = model.row_bytes(table);
    row.resize(EXACT_ROWS * bytes, 0);
    let forced = &request.forced[worker.share(request.forced.len())];
    candidates[number].clear();
    for ids in shortlist.chunks(EXACT_ROWS).chain(forced.chunks(EXACT_ROWS)) {
        for (id, to) in ids.iter().zip(row.chunks_exact_mut(bytes)) {
            model.read_row(table, *id as usize, to);
        }
        let mut logits = [0.0; EXACT_ROWS];
        let logits = &mut logits[..ids.len()];
        head::dot_rows(row, tensor.dtype, input.len(), 0..ids.len(), input, logits);
        let found = ids.iter().zip(logits).map(|(&id, logit)| Candidate { id, logit: *logit });
        candidates[number].extend(found);
    }
}

/// The part of `ids`, which are in order, that lies in `range`.
fn within<'a>(ids: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let at = |row: usize| ids.partition_point(|&id| (id as usize) < row);
    &ids[at(range.start)..at(range.end)]
}

/// Chooses whether heads read both planes at once. The high plane alone has half the bytes. But where it leaves many
/// rows undecided, reading those rows from the low plane costs more than reading the whole low plane in sequence.
#[derive(Default)]
pub(crate) struct PlaneChoice {
    /// How many passes still read both planes before the high plane is tried alone again; 0 while it is read alone.
    pause: usize,
    /// How long the next pause will be, in passes.
    next: usize,
    /// Running mean of the share of rows that the high plane left undecided.
    undecided: f64,
}

impl PlaneChoice {
    /// Most logits for which the high plane is read alone. Where 40 logits are wanted, it leaves half the rows
    /// undecided.
    const FEW: usize = 4;
    /// Share of undecided rows above which reading both planes at once is faster. The undecided rows are read again
    /// from both planes, at scattered places, which takes twice as long for each byte.
    const MOST_UNDECIDED: f64 = 1.0 / 6.0;
    /// Weight of the newest pass in the mean. It is small because some places of a text leave more rows undecided than
    /// others.
    const NEW: f64 = 0.25;
    /// The first and the longest pause, in passes.
    const PAUSES: (usize, usize) = (8, 256);

    fn paused(&self) -> bool {
        self.pause > 0
    }

    /// Whether to read both planes at once, where the largest request of a pass wants `count` logits.
    pub fn full(&self, count: usize) -> bool {
        self.paused() || count > PlaneChoice::FEW
    }

    /// Learns that the high plane left `undecided` of `rows` rows undecided, in a pass whose largest request wanted
    /// `count` logits.
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
            // The mean begins anew, so that the first pass after the pause decides.
            self.undecided = 0.0;
        } else if self.undecided < 0.5 * PlaneChoice::MOST_UNDECIDED {
            self.next = 0;
        }
    }
}
