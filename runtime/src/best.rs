//! The largest logits, exactly, without computing the others: rows of the head that planes cannot rule out are
//! multiplied, the rest are never read. What the planes are and why this is exact: `trit_kernels::planes`.

use crate::load::Model;
use crate::pool::Worker;
use crate::sample::Candidate;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use trit_format::plan::{PlanesId, TensorId};
use trit_kernels::head;
use trit_kernels::planes::{self, Hidden, Planes, TopLower};

/// Head rows that are shared out together.
const UNIT: usize = 64;
/// Most of them scanned at a time: their results go through L2.
const MOST_UNITS: usize = 64;
/// Hidden states that share what a scan reads.
const TOGETHER: usize = 4;
/// Table rows read and multiplied at a time.
const EXACT_ROWS: usize = 8;

/// What is asked of a head.
pub(crate) struct Request<'a> {
    /// How many of the largest logits.
    pub count: usize,
    /// How far below the largest others count too.
    pub within: f32,
    /// Rows wanted whatever their logits, in order.
    pub also: &'a [u32],
    /// Read both planes at once.
    pub full: bool,
    /// Where workers show each other their bounds.
    pub bounds: &'a Bounds,
}

/// The largest lower bounds each worker saw, for each row of a group.
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

    /// The threshold for row `row` over all workers.
    fn threshold(&self, row: usize, request: &Request) -> f32 {
        let mut all = TopLower::new(request.count);
        for tops in &self.0 {
            all.merge(&tops.lock().unwrap_or_else(PoisonError::into_inner)[row]);
        }
        all.threshold() - request.within
    }
}

/// One worker's memory for heads, and what it found.
#[derive(Default)]
pub(crate) struct HeadScratch {
    hidden: Vec<Hidden>,
    tops: Vec<TopLower>,
    /// Rows scanned, in runs of [`UNIT`]s.
    ranges: Vec<Range<usize>>,
    /// By hidden state, for the rows of `ranges` one after the other.
    approx: [Vec<f32>; TOGETHER],
    bound: [Vec<f32>; TOGETHER],
    survivors: [Vec<u32>; TOGETHER],
    row: Vec<u8>,
    /// For each row asked about the logits of this worker's share that matter.
    pub found: Vec<Vec<Candidate>>,
    /// Rows of the table that the high plane left undecided.
    pub refined: usize,
}

/// A head and its planes.
pub(crate) struct Head<'a> {
    pub model: &'a Model,
    pub table: TensorId,
    pub planes: PlanesId,
}

impl Head<'_> {
    /// Finds what `request` asks for, for each of `inputs`, `[hidden]` each. False where an input is such that only the
    /// whole product tells; the same on every worker, and nothing was found then.
    ///
    /// Every worker of the region calls this with the same arguments.
    pub fn find(
        &self,
        inputs: &[&[f32]],
        request: &Request,
        worker: &Worker,
        scratch: &mut HeadScratch,
    ) -> bool {
        let planes = self.model.planes(self.planes);
        let layout = planes.layout();
        while scratch.hidden.len() < inputs.len() {
            scratch.hidden.push(Hidden::new(layout));
        }
        let ready = inputs.iter().zip(&mut scratch.hidden).all(|(input, hidden)| hidden.prepare(input));
        if !ready {
            return false;
        }
        scratch.found.iter_mut().for_each(Vec::clear);
        scratch.found.resize_with(inputs.len().max(scratch.found.len()), Vec::new);
        scratch.refined = 0;
        for first in (0..inputs.len()).step_by(TOGETHER) {
            // Bounds and runs of work are used again; after the last the step's own barrier follows.
            if first > 0 {
                worker.wait();
            }
            let rows = first..(first + TOGETHER).min(inputs.len());
            self.scan(&planes, rows.clone(), request, worker, scratch);
            for m in 0..rows.len() {
                self.multiply(inputs[first + m], first + m, m, worker, request, scratch);
            }
        }
        true
    }

    /// Leaves in `survivors` the rows of this worker's share that can matter to hidden states `inputs`.
    fn scan(
        &self,
        planes: &Planes,
        inputs: Range<usize>,
        request: &Request,
        worker: &Worker,
        scratch: &mut HeadScratch,
    ) {
        let HeadScratch { hidden, tops, ranges, approx, bound, survivors, refined, .. } = scratch;
        let count = inputs.len();
        let hidden: Vec<&Hidden> = hidden[inputs].iter().collect();
        tops.resize_with(TOGETHER, || TopLower::new(1));
        tops.iter_mut().for_each(|top| top.reset(request.count));
        ranges.clear();
        for m in 0..count {
            approx[m].clear();
            bound[m].clear();
            survivors[m].clear();
        }
        let rows = planes.layout().rows();
        for units in worker.claim(rows.div_ceil(UNIT), MOST_UNITS) {
            let range = units.start * UNIT..(units.end * UNIT).min(rows);
            let at = approx[0].len();
            for m in 0..count {
                approx[m].resize(at + range.len(), 0.0);
                bound[m].resize(at + range.len(), 0.0);
            }
            let mut a: Vec<&mut [f32]> = approx[..count].iter_mut().map(|v| &mut v[at..]).collect();
            let mut b: Vec<&mut [f32]> = bound[..count].iter_mut().map(|v| &mut v[at..]).collect();
            match request.full {
                true => planes::scan_full(planes, range.clone(), &hidden, &mut a, &mut b),
                false => planes::scan_high(planes, range.clone(), &hidden, &mut a, &mut b),
            }
            // Rows that are wanted anyway say nothing about how large others must be.
            for id in within(request.also, &range) {
                a.iter_mut().for_each(|a| a[*id as usize - range.start] = f32::NEG_INFINITY);
            }
            for m in 0..count {
                tops[m].take(a[m], b[m]);
            }
            ranges.push(range);
        }
        request.bounds.publish(worker, &tops[..count]);
        worker.wait();
        for m in 0..count {
            let threshold = request.bounds.threshold(m, request);
            let mut at = 0;
            for range in ranges.iter() {
                let part = at..at + range.len();
                at = part.end;
                let (approx, bound) = (&approx[m][part.clone()], &bound[m][part]);
                planes::survivors(threshold, approx, bound, range.start as u32, &mut survivors[m]);
            }
        }
        if request.full {
            return;
        }
        for m in 0..count {
            let ids = &mut survivors[m];
            *refined += ids.len();
            approx[m].resize(ids.len(), 0.0);
            bound[m].resize(ids.len(), 0.0);
            planes::refine(planes, ids, hidden[m], &mut approx[m], &mut bound[m]);
            tops[m].reset(request.count);
            tops[m].take(&approx[m], &bound[m]);
        }
        // Everyone has read the bounds of the high plane.
        worker.wait();
        request.bounds.publish(worker, &tops[..count]);
        worker.wait();
        for m in 0..count {
            let threshold = request.bounds.threshold(m, request);
            planes::keep_survivors(threshold, &approx[m], &bound[m], &mut survivors[m]);
        }
    }

    /// The exact logits of survivors `m`, and of this worker's share of the rows wanted anyway, for row `row`.
    fn multiply(
        &self,
        input: &[f32],
        row: usize,
        m: usize,
        worker: &Worker,
        request: &Request,
        scratch: &mut HeadScratch,
    ) {
        let tensor = self.model.tensor(self.table);
        let bytes = tensor.shape[1] as usize * tensor.dtype.size();
        scratch.row.resize(EXACT_ROWS * bytes, 0);
        let also = &request.also[worker.share(request.also.len())];
        for ids in scratch.survivors[m].chunks(EXACT_ROWS).chain(also.chunks(EXACT_ROWS)) {
            for (id, to) in ids.iter().zip(scratch.row.chunks_exact_mut(bytes)) {
                self.model.read_row(self.table, *id as usize, to);
            }
            let mut logits = [0.0; EXACT_ROWS];
            let logits = &mut logits[..ids.len()];
            head::dot_rows(&scratch.row, tensor.dtype, input.len(), 0..ids.len(), input, logits);
            let found = ids.iter().zip(logits).map(|(&id, logit)| Candidate { id, logit: *logit });
            scratch.found[row].extend(found);
        }
    }
}

/// Those of `ids`, which are in order, that are in `range`.
fn within<'a>(ids: &'a [u32], range: &Range<usize>) -> &'a [u32] {
    let at = |row: usize| ids.partition_point(|&id| (id as usize) < row);
    &ids[at(range.start)..at(range.end)]
}
