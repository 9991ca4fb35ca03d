//! Executes the plan: a straight line of steps, which every worker runs at the same time.
//!
//! Between two barriers a worker writes only the rows, tiles or heads of its own share, and reads only what was written
//! before the last barrier. The `SAFETY` comments call this fact *the step rule*. It suffices because validation
//! guarantees that the buffers of one step do not overlap.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::attend::{Append, AppendNorms, Attend, Attention, SplitKv};
use super::dense_linear::Dense;
use super::elementwise::{Gate, GateNorm, Norm, Rows};
use super::kv::{KvCache, KvType};
use super::pool::Worker;
use super::profile::Profile;
use super::quantizing::{Quantizing, shares_row};
use super::recur::{Convolve, Delta, RecurScratch};
use super::screening::{self, Bounds, Largest, Screening, ScreeningScratch};
use super::state::State;
use super::ternary::{OwnRows, ProductScratch, TernaryStep, in_arena};
use crate::load::Model;
use half::f16;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;
use trit_format::plan::{
    ActivationRule, BufferId, Epilogue, HeadNorms, InputNorm, KvLayer, Plan, PlanesId, Quantized, Step,
    TensorId,
};
use trit_kernels::norm;
use trit_kernels::quantize::QuantizedRow;
use trit_kernels::rope::RopeTable;

/// Most rows that a worker claims at a time for quantizing.
const QUANTIZE_ROWS: usize = 8;
/// Up to this many rows, every worker quantizes all of them for itself. That takes less time than sharing the rows out
/// and waiting for the others at a barrier.
const OWN_ROWS: usize = 4;

/// Rows that run together. They are tokens of any sequences; the rows of one sequence stand beside each other.
pub(crate) struct Pass<'a> {
    /// The token of each row.
    pub tokens: &'a [u32],
    /// The sequences' runs, which cover the rows in order.
    pub runs: &'a [Run<'a>],
    /// The rows whose logits are wanted. Those come first for which the largest logits suffice.
    pub wanted: &'a [Wanted<'a>],
}

/// The rows of one sequence, at consecutive positions.
pub(crate) struct Run<'a> {
    pub rows: Range<usize>,
    /// Position of the first row.
    pub position: usize,
    pub cache: &'a KvCache,
    /// The recurrent state, where the plan has one.
    pub state: Option<&'a State>,
    /// So many rows change the recurrent state. The rows after them are logged.
    pub kept: usize,
    /// Whether keys and values are appended to the cache. They are not where the rows ran before, and run again only for
    /// the recurrent state.
    pub appends: bool,
    /// The index within the run of the first row whose keys or values the cache's element type could not hold;
    /// `usize::MAX` while there is no such row.
    pub overflow: AtomicUsize,
    /// The hidden states that the rows come with, `[rows, hidden]`, in plans of drafts.
    pub hidden: &'a [f32],
}

/// A row whose logits are wanted.
pub(crate) struct Wanted<'a> {
    pub row: usize,
    /// The request, where the largest logits suffice; `None` where all are wanted.
    pub largest: Option<Largest<'a>>,
}

/// Everything that the workers of one pass share: the model, the engine's memory and tables, and the rows to run.
pub(crate) struct Executor<'a> {
    pub model: &'a Model,
    pub arena: &'a Arena,
    pub ropes: &'a [(RopeKey, RopeTable)],
    pub pass: Pass<'a>,
    /// Whether heads read both planes at once.
    pub full: bool,
    /// Where workers publish the bounds that they found by scanning the planes.
    pub bounds: &'a Bounds,
    pub split_kv: &'a SplitKv,
    /// Set by another thread when the result is no longer wanted.
    pub stop: &'a AtomicBool,
}

/// What determines a RoPE table.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct RopeKey {
    pub inv_freq: TensorId,
    pub scaling: f32,
}

impl RopeKey {
    /// The key of the table that a step needs, if it needs one.
    pub fn of(step: &Step) -> Option<RopeKey> {
        match *step {
            Step::RopeAppend { inv_freq, scaling, .. } | Step::RopeNormAppend { inv_freq, scaling, .. } => {
                Some(RopeKey { inv_freq, scaling })
            }
            _ => None,
        }
    }
}

/// Memory of one worker, kept from step to step.
#[derive(Default)]
pub(crate) struct Scratch {
    products: ProductScratch,
    /// Keys and values of one head, for all rows of a run.
    pub heads: Vec<f32>,
    normed: Vec<f32>,
    /// The bytes of one row of an embedding table.
    bytes: Vec<u8>,
    /// For each quantized buffer of the plan this worker's own rows, which are used where a step has at most
    /// [`OWN_ROWS`].
    own: Vec<(Quantized, OwnRows)>,
    pub attention: Attention,
    recur: RecurScratch,
    pub screening: ScreeningScratch,
    /// Hidden states that were asked for, each with its index among those of the pass.
    pub hidden: Vec<(usize, Vec<f32>)>,
    /// For each wanted row of the last pass, whether its candidates are in `screening`. Otherwise its logits are in the
    /// arena.
    pub screened: Vec<bool>,
    /// Where time went, if a profile was asked for.
    pub profile: Option<Profile>,
}

impl Pass<'_> {
    /// The hidden state of that width which row `row` came with.
    fn hidden(&self, row: usize, width: usize) -> &[f32] {
        let run = self.runs.iter().find(|run| run.rows.contains(&row)).expect("runs cover the rows");
        &run.hidden[(row - run.rows.start) * width..][..width]
    }
}

impl Scratch {
    /// This worker's own rows for a quantized buffer, which are allocated at its first use.
    fn own(&mut self, arena: &Arena, out: Quantized) -> &mut OwnRows {
        let index = match self.own.iter().position(|(place, _)| *place == out) {
            Some(index) => index,
            None => {
                let (stride, scales, sums) =
                    (arena.stride::<i8>(out.values), arena.len(out.scale), arena.len(out.sum));
                let rows = OwnRows::new(OWN_ROWS, stride, scales, sums).expect("a few rows");
                self.own.push((out, rows));
                self.own.len() - 1
            }
        };
        &mut self.own[index].1
    }
}

impl Executor<'_> {
    /// Runs `steps` for rows `rows`. Returns false where the pass was stopped between two steps; every worker returns
    /// the same.
    pub fn run(&self, steps: &[Step], rows: Range<usize>, worker: &Worker, scratch: &mut Scratch) -> bool {
        for (i, step) in steps.iter().enumerate() {
            let start = scratch.profile.is_some().then(Instant::now);
            self.step(step, rows.clone(), worker, scratch);
            let done = scratch.profile.is_some().then(Instant::now);
            if !self.goes_on(step, steps.get(i + 1), rows.len(), worker) && worker.wait_or_stop(self.stop) {
                return false;
            }
            if let (Some(profile), Some(start), Some(done)) = (&mut scratch.profile, start, done) {
                profile.add(step, done - start, done.elapsed());
            }
        }
        true
    }

    /// Normalizes the hidden states of this worker's share of `rows`, after all steps of the body, as the head does at its
    /// start. They are copied, because the head may use their memory.
    pub fn hidden(&self, plan: &Plan, rows: &[usize], worker: &Worker, scratch: &mut Scratch) {
        if rows.is_empty() {
            return;
        }
        let norm = plan.head.iter().find_map(|step| norm_of(step, plan.residual));
        for index in worker.share(rows.len()) {
            // SAFETY: all workers have passed the barrier after the body, and nobody writes before the next one.
            let row: &[f32] = unsafe { self.arena.row(plan.residual, rows[index]) };
            let mut out = row.to_vec();
            if let Some(InputNorm { weight, eps }) = norm {
                norm::rms_norm_in_place(&mut out, self.model.vector(weight), eps);
            }
            scratch.hidden.push((index, out));
        }
        worker.wait();
    }

    /// Runs the head for the wanted rows, after all steps of the body; `input` is the only buffer of the body that the
    /// head reads. Returns false as [`Executor::run`] does. Afterwards the logits of the wanted rows are in rows
    /// [`head_rows`] of the arena, or among the candidates.
    pub fn run_head(&self, steps: &[Step], input: BufferId, worker: &Worker, scratch: &mut Scratch) -> bool {
        let wanted = self.pass.wanted;
        // A head without a `Step::Head` (a ternary one) computes all logits.
        scratch.screened.clear();
        scratch.screened.resize(wanted.len(), false);
        scratch.screening.undecided = 0;
        if first_head_row(wanted).is_none() {
            if worker.index == 0 {
                // SAFETY: all workers have passed the barrier after the body, and wait at the next one for this worker:
                // nobody else touches the buffer.
                let rows: Vec<Vec<f32>> = unsafe {
                    wanted.iter().map(|wanted| self.arena.row::<f32>(input, wanted.row).to_vec()).collect()
                };
                for (to, row) in rows.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { self.arena.row_mut::<f32>(input, to, 0, row.len()) }.copy_from_slice(row);
                }
            }
            worker.wait();
        }
        self.run(steps, head_rows(wanted), worker, scratch)
    }

    /// Computes the logits of the wanted rows, whose hidden states stand in rows `rows` of `input`.
    fn head(
        &self,
        (input, table, planes, out): (BufferId, TensorId, Option<PlanesId>, BufferId),
        rows: Range<usize>,
        worker: &Worker,
        scratch: &mut Scratch,
    ) {
        let wanted = self.pass.wanted;
        let few = wanted.iter().take_while(|wanted| wanted.largest.is_some()).count();
        for (index, wanted) in wanted[..few].iter().enumerate() {
            let Some(largest) = wanted.largest.as_ref().filter(|largest| largest.only) else { continue };
            // SAFETY: the step rule; the input is not written in this step.
            let row: &[f32] = unsafe { self.arena.row(input, rows.start + index) };
            screening::read_rows(self.model, table, (index, row, largest), worker, &mut scratch.screening);
            scratch.screened[index] = true;
        }
        if let Some(planes) = planes {
            let (model, full, bounds) = (self.model, self.full, self.bounds);
            let screening = Screening { model, table, planes, full, bounds };
            for first in (0..few).step_by(screening::MOST_ROWS) {
                // The next group of rows uses the same bounds and work queues, so a barrier separates the groups. After
                // the last group the step's own barrier follows.
                if first > 0 {
                    worker.wait();
                }
                let mut inputs = Vec::new();
                for (index, wanted) in wanted[..few].iter().enumerate().skip(first).take(screening::MOST_ROWS)
                {
                    // SAFETY: the step rule; the input is not written in this step.
                    let row: &[f32] = unsafe { self.arena.row(input, rows.start + index) };
                    if let Some(largest) = &wanted.largest
                        && !largest.only
                        && screening.prepare(inputs.len(), row, &mut scratch.screening)
                    {
                        inputs.push((index, row, largest));
                    }
                }
                screening.find(&inputs, worker, &mut scratch.screening);
                inputs.iter().for_each(|&(index, ..)| scratch.screened[index] = true);
            }
        }
        // `screened` is the same on every worker. Rows that the planes cannot bound, and rows whose logits are all
        // wanted, are multiplied with the whole table.
        let mut first = 0;
        while let Some(skipped) = scratch.screened[first..].iter().position(|screened| !screened) {
            let start = first + skipped;
            let len = scratch.screened[start..].iter().take_while(|screened| !**screened).count();
            if start > 0 {
                worker.wait();
            }
            let dense = Dense { model: self.model, arena: self.arena, table, input, out, at: 0, add: false };
            // SAFETY: the step rule; `run` shares out the rows of the table.
            unsafe { dense.run(rows.start + start..rows.start + start + len, worker) };
            first = start + len;
        }
    }

    /// Whether a worker may begin `next` while others are still at `step`. It may where each worker keeps the results
    /// of `step` for itself, and `next` does not write what `step` reads.
    fn goes_on(&self, step: &Step, next: Option<&Step>, rows: usize, worker: &Worker) -> bool {
        let (Step::Quantize { input, rule, .. }
        | Step::NormQuantize { input, rule, .. }
        | Step::RotateQuantize { input, rule, .. }) = *step
        else {
            return false;
        };
        match next {
            Some(Step::Ternary { out, .. }) => {
                self.keeps_own(rule, self.arena.len(input), rows, worker) && !self.arena.overlap(input, *out)
            }
            _ => false,
        }
    }

    /// Whether each worker quantizes all rows for itself.
    fn keeps_own(&self, rule: ActivationRule, len: usize, rows: usize, worker: &Worker) -> bool {
        rows <= OWN_ROWS && !shares_row(rule, len, worker.count)
    }

    /// Quantizes rows.
    fn quantize(&self, quantizing: Quantizing, rows: Range<usize>, worker: &Worker, scratch: &mut Scratch) {
        let Quantizing { input, rule, out, .. } = quantizing;
        let (arena, model) = (self.arena, self.model);
        let mut normed = std::mem::take(&mut scratch.normed);
        // SAFETY: the step rule; the input is not written in this step.
        let row_of = |r: usize| -> &[f32] { unsafe { arena.row(input, r) } };
        if self.keeps_own(rule, arena.len(input), rows.len(), worker) {
            let own = scratch.own(arena, out);
            for r in rows.clone() {
                quantizing.row(model, row_of(r), &mut normed, own.row_mut(r - rows.start));
            }
        } else if rows.len() <= OWN_ROWS {
            let part = quantizing.part();
            let parts = arena.len(input).div_ceil(part);
            for unit in worker.claim(rows.len() * parts, 1).flatten() {
                let (r, at) = (rows.start + unit / parts, unit % parts * part);
                // SAFETY: the step rule; parts of rows are shared out.
                unsafe { quantizing.shared_part(model, arena, r, at, &mut normed) };
            }
        } else {
            for range in worker.claim(rows.len(), QUANTIZE_ROWS) {
                for r in rows.start + range.start..rows.start + range.end {
                    // SAFETY: the step rule; rows are shared out.
                    let out = unsafe {
                        QuantizedRow {
                            values: arena.row_mut(out.values, r, 0, arena.stride::<i8>(out.values)),
                            scales: arena.row_mut(out.scale, r, 0, arena.len(out.scale)),
                            sums: arena.row_mut(out.sum, r, 0, arena.len(out.sum)),
                        }
                    };
                    quantizing.row(model, row_of(r), &mut normed, out);
                }
            }
        }
        scratch.normed = normed;
    }

    fn step(&self, step: &Step, rows: Range<usize>, worker: &Worker, scratch: &mut Scratch) {
        let arena = self.arena;
        let share = worker.share(rows.len());
        let mine = rows.start + share.start..rows.start + share.end;
        let mine = Rows { model: self.model, arena, rows: mine };
        let token = |r: usize| self.pass.tokens[r] as usize;
        match *step {
            Step::Embed { table, scale, out } => mine.embed(table, scale, out, token, &mut scratch.bytes),
            Step::EmbedTernary { matrix, out } => mine.embed_ternary(matrix, out, token),
            Step::RmsNorm { input, weight, eps, out } => mine.norm(Norm { input, weight, eps, out }),
            Step::RmsNormAdd { input, weight, eps, out } => mine.norm_add(Norm { input, weight, eps, out }),
            Step::Gate { gate, up, activation, out } => {
                let gate = Gate { gate, up, activation, out };
                let parts = gate.parts(arena);
                for unit in worker.share(rows.len() * parts) {
                    // SAFETY: the step rule; parts of rows are shared out.
                    unsafe { gate.part(arena, rows.start + unit / parts, unit % parts) };
                }
            }
            Step::Linear { table, input, epilogue, out, at } => {
                let add = epilogue == Epilogue::Add;
                let (model, at) = (self.model, at as usize);
                let dense = Dense { model, arena, table, input, out, at, add };
                // SAFETY: the step rule; `run` shares out the rows of the table.
                unsafe { dense.run(rows, worker) };
            }
            Step::NormQuantize { input, weight, eps, rule, out } => {
                let norm = Some(InputNorm { weight, eps });
                let quantizing = Quantizing { input, norm, rotation: None, rule, out };
                self.quantize(quantizing, rows, worker, scratch);
            }
            Step::Quantize { input, rule, out } => {
                let quantizing = Quantizing { input, norm: None, rotation: None, rule, out };
                self.quantize(quantizing, rows, worker, scratch);
            }
            Step::RotateQuantize { input, norm, rotation, rule, out } => {
                let quantizing = Quantizing { input, norm, rotation: Some(rotation), rule, out };
                self.quantize(quantizing, rows, worker, scratch);
            }
            Step::Unrotate { rotation, out } => mine.unrotate(rotation, out),
            Step::JoinHidden { input, input_norm, hidden_norm, eps, out } => {
                let norms = [input_norm, hidden_norm].map(|id| self.model.vector(id));
                mine.join_hidden(input, norms, eps, out, |r| self.pass.hidden(r, norms[1].len()));
            }
            Step::Convolve { input, weight, activation, state, out } => {
                let taps = self.model.tensor(weight).shape[0] as usize;
                let (runs, weight) = (self.pass.runs, self.model.vector(weight));
                Convolve { runs, arena, input, weight, taps, activation, state, out }.run(worker);
            }
            Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out } => {
                let (rates, bias) = (self.model.vector(rates), self.model.vector(bias));
                let (runs, at) = (self.pass.runs, at as usize);
                let delta = Delta { runs, arena, qkv, gates, at, rates, bias, heads, state, out };
                delta.run(worker, &mut scratch.recur);
            }
            Step::GateNorm { input, weight, eps, gate, at, activation, out } => {
                let weight = self.model.vector(weight);
                let gate = GateNorm { input, weight, eps, gate, at: at as usize, activation, out };
                let parts = gate.parts(arena);
                for unit in worker.share(rows.len() * parts) {
                    // SAFETY: the step rule; parts of rows are shared out.
                    unsafe { gate.part(arena, rows.start + unit / parts, unit % parts) };
                }
            }
            Step::Ternary { matrix, input, epilogue, out, at } => {
                let index = matrix.0 as usize;
                let own = scratch.own.iter().find(|(place, _)| *place == input).map(|(_, rows)| rows);
                // Rows that are shared out are never among a worker's own: see `Executor::keeps_own`.
                let activations = match own.filter(|_| rows.len() <= OWN_ROWS) {
                    Some(own) => own.first(rows.len()),
                    // SAFETY: the step rule; the input is not written in this step.
                    None => unsafe { in_arena(arena, input, rows.clone()) },
                };
                let step = TernaryStep {
                    packed: &self.model.manifest().packed_matrices[index],
                    weights: self.model.weights(index),
                    kernels: &self.model.bound().by_matrix[index],
                    arena,
                    input: activations,
                    epilogue,
                    out,
                    at: at as usize,
                };
                // SAFETY: the step rule; `run` shares out the tiles.
                unsafe { step.run(worker, rows, &mut scratch.products) };
            }
            Step::RopeAppend { qkv, norms, layer, .. } => {
                self.append(step, (qkv, layer), norms.map(|norms| (norms, false)), worker, scratch);
            }
            Step::RopeNormAppend { qkv, norms, layer, .. } => {
                self.append(step, (qkv, layer), Some((norms, true)), worker, scratch);
            }
            Step::Attend { qkv, layer, scale, window, out } => {
                let (layer, shape) = (layer as usize, self.kv(layer as usize));
                let window = window.map_or(usize::MAX, |window| window as usize);
                let (runs, split_kv) = (self.pass.runs, self.split_kv);
                let attend = Attend { runs, arena, qkv, layer, shape, scale, window, out, split_kv };
                attend.run(worker, &mut scratch.attention);
            }
            Step::Head { input, table, planes, out } => {
                self.head((input, table, planes, out), rows, worker, scratch);
            }
            // Validation refuses steps this runtime does not know.
            ref other => unreachable!("{other:?}"),
        }
    }

    /// Rotates and appends, with norms of heads before the rotation or, where that is said, after it.
    fn append(
        &self,
        step: &Step,
        (qkv, layer): (BufferId, u32),
        norms: Option<(HeadNorms, bool)>,
        worker: &Worker,
        scratch: &mut Scratch,
    ) {
        let norms = norms.map(|(norms, after_rope)| AppendNorms {
            q: self.model.vector(norms.q),
            k: self.model.vector(norms.k),
            eps: norms.eps,
            after_rope,
        });
        let rope = self.ropes.iter().find(|(key, _)| RopeKey::of(step) == Some(*key));
        let rope = &rope.expect("built for every step").1;
        let (layer, shape) = (layer as usize, self.kv(layer as usize));
        let heads = shape.n_kv_heads as usize;
        for unit in worker.claim(self.pass.runs.len() * heads, 1).flatten() {
            let (run, head) = (&self.pass.runs[unit / heads], unit % heads);
            let append = Append { run, qkv, norms, rope, layer, head, shape };
            match run.cache.kv() {
                KvType::F16 => append.run::<f16>(self.arena, &mut scratch.heads),
                KvType::F32 => append.run::<f32>(self.arena, &mut scratch.heads),
                KvType::Int8 => append.run::<i8>(self.arena, &mut scratch.heads),
            }
        }
    }

    fn kv(&self, layer: usize) -> KvLayer {
        self.model.manifest().plan.kv[layer]
    }
}

/// The RMSNorm that a step applies to a row of `input` at its start.
fn norm_of(step: &Step, input: BufferId) -> Option<InputNorm> {
    match *step {
        Step::RmsNorm { input: of, weight, eps, .. } | Step::NormQuantize { input: of, weight, eps, .. }
            if of == input =>
        {
            Some(InputNorm { weight, eps })
        }
        Step::RotateQuantize { input: of, norm, .. } if of == input => norm,
        _ => None,
    }
}

/// The first wanted row, where the wanted rows are consecutive and in order, so that the head can read them where they
/// stand. `None` where they must be moved together first.
fn first_head_row(wanted: &[Wanted]) -> Option<usize> {
    let first = wanted.first()?.row;
    wanted.iter().enumerate().all(|(i, wanted)| wanted.row == first + i).then_some(first)
}

/// The rows of the arena in which the head reads the wanted rows, and leaves their logits.
pub(crate) fn head_rows(wanted: &[Wanted]) -> Range<usize> {
    let first = first_head_row(wanted).unwrap_or(0);
    first..first + wanted.len()
}
