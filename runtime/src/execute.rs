//! The straight line of steps, run by every worker together.
//!
//! Between two barriers a worker writes only rows, tiles or heads of its own share, and reads only what was written
//! before the last barrier. That is the fact every `SAFETY` comment here refers to as *the step rule*; validation
//! guarantees the other half, that buffers of one step do not overlap.
#![allow(unsafe_code)]

use crate::arena::{Arena, Exchange};
use crate::attend::{Append, AppendNorms, Attend};
use crate::best::{Head, HeadScratch, Request};
use crate::dense::Dense;
use crate::kv::{KvCache, KvType};
use crate::load::Model;
use crate::pool::Worker;
use crate::profile::Profile;
use crate::rows::{Gate, Norm, Rows};
use crate::ternary::{OwnRows, ProductScratch, TernaryStep, in_arena};
use half::f16;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;
use trit_format::plan::{ActivationRule, BufferId, Epilogue, KvLayer, Quantized, Step, TensorId};
use trit_kernels::attention::AttendScratch;
use trit_kernels::norm::norm_quantize;
use trit_kernels::quantize::{QuantizedRow, quantize};
use trit_kernels::rope::RopeTable;

/// Most rows a worker quantizes before it looks for more.
const QUANTIZE_ROWS: usize = 8;
/// Most rows of which every worker quantizes all, each for itself, instead of waiting for others to do a share.
const OWN_ROWS: usize = 4;

/// One token in a batch.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub token: u32,
    pub position: usize,
    /// Index into [`Batch::sequences`].
    pub sequence: usize,
}

/// Rows that run together.
pub(crate) struct Batch<'a> {
    pub rows: &'a [Row],
    pub sequences: &'a [KvCache],
}

/// Consecutive rows at consecutive positions of one sequence.
pub(crate) struct Run<'a> {
    pub rows: Range<usize>,
    /// Position of the first row.
    pub position: usize,
    pub cache: &'a KvCache,
}

impl Batch<'_> {
    /// Cuts `rows` where a sequence ends.
    fn runs(&self, rows: Range<usize>) -> impl Iterator<Item = Run<'_>> {
        let mut start = rows.start;
        std::iter::from_fn(move || {
            let first = self.rows[start..rows.end].first()?;
            let follows = |r: &usize| {
                let (row, ahead) = (self.rows[*r], r - start);
                row.sequence == first.sequence && row.position == first.position + ahead
            };
            let end = (start..rows.end).find(|r| !follows(r)).unwrap_or(rows.end);
            let run =
                Run { rows: start..end, position: first.position, cache: &self.sequences[first.sequence] };
            start = end;
            Some(run)
        })
    }
}

/// The model with what a session adds to it.
pub(crate) struct Executor<'a> {
    pub model: &'a Model,
    pub arena: &'a Arena,
    pub ropes: &'a [(RopeKey, RopeTable)],
    /// What of the logits is asked for, if not all.
    pub best: Option<Request<'a>>,
    /// Room for what [`attend::exchange_len`] says.
    pub exchange: &'a Exchange,
    /// Set where nobody wants the result any more.
    pub stop: &'a AtomicBool,
    /// The first row whose keys or values the cache could not hold, of those there were.
    pub overflow: &'a AtomicUsize,
}

/// What determines a RoPE table.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct RopeKey {
    pub inv_freq: TensorId,
    pub scaling: f32,
}

impl RopeKey {
    /// The table a step needs, if it needs one.
    pub fn of(step: &Step) -> Option<RopeKey> {
        match *step {
            Step::RopeAppend { inv_freq, scaling, .. } => Some(RopeKey { inv_freq, scaling }),
            _ => None,
        }
    }
}

/// Memory of one worker, kept from step to step.
#[derive(Default)]
pub(crate) struct Scratch {
    products: ProductScratch,
    pub attend: AttendScratch,
    /// Keys and values of a head for the rows of a block.
    pub heads: Vec<f32>,
    normed: Vec<f32>,
    /// A row of a table.
    bytes: Vec<u8>,
    /// Quantized rows by the plan's buffers, where there are at most [`OWN_ROWS`].
    own: Vec<(Quantized, OwnRows)>,
    pub head: HeadScratch,
    /// Whether the last head found what was asked for, and computed nothing else.
    pub found: bool,
    /// Where time went, if anybody asked.
    pub profile: Option<Profile>,
}

impl Scratch {
    /// This worker's own rows for a quantized buffer.
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
    /// Runs `steps` for batch rows `rows`; false where it was stopped between two of them, for every worker alike.
    pub fn run(
        &self,
        steps: &[Step],
        batch: &Batch,
        rows: Range<usize>,
        worker: &Worker,
        scratch: &mut Scratch,
    ) -> bool {
        for (i, step) in steps.iter().enumerate() {
            let start = scratch.profile.is_some().then(Instant::now);
            self.step(step, batch, rows.clone(), worker, scratch);
            let done = scratch.profile.is_some().then(Instant::now);
            if !self.goes_on(step, steps.get(i + 1), rows.len()) && worker.wait_or_stop(self.stop) {
                return false;
            }
            if let (Some(profile), Some(start), Some(done)) = (&mut scratch.profile, start, done) {
                profile.add(step, done - start, done.elapsed());
            }
        }
        true
    }

    /// Whether workers may begin `next` while others are still at `step`: what the one leaves, each has for itself, and
    /// the other does not write what the one reads.
    fn goes_on(&self, step: &Step, next: Option<&Step>, rows: usize) -> bool {
        let (Step::Quantize { input, .. } | Step::NormQuantize { input, .. }) = *step else { return false };
        match next {
            Some(Step::Ternary { out, .. }) => rows <= OWN_ROWS && !self.arena.overlap(input, *out),
            _ => false,
        }
    }

    /// Quantizes rows, normalized first where there is a `norm`.
    fn quantize(
        &self,
        (input, out): (BufferId, Quantized),
        norm: Option<(TensorId, f32)>,
        rule: ActivationRule,
        rows: Range<usize>,
        worker: &Worker,
        scratch: &mut Scratch,
    ) {
        let arena = self.arena;
        let mut normed = std::mem::take(&mut scratch.normed);
        let mut row = |r: usize, out: QuantizedRow| {
            // SAFETY: the step rule; the input is not written in this step.
            let input: &[f32] = unsafe { arena.row(input, r) };
            match norm {
                Some((weight, eps)) => {
                    norm_quantize(input, self.model.vector(weight), eps, rule, &mut normed, out)
                }
                None => quantize(input, rule, out),
            }
        };
        if rows.len() <= OWN_ROWS {
            let own = scratch.own(arena, out);
            for r in rows.clone() {
                row(r, own.row_mut(r - rows.start));
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
                    row(r, out);
                }
            }
        }
        scratch.normed = normed;
    }

    fn step(&self, step: &Step, batch: &Batch, rows: Range<usize>, worker: &Worker, scratch: &mut Scratch) {
        let arena = self.arena;
        let share = worker.share(rows.len());
        let mine = rows.start + share.start..rows.start + share.end;
        let mine = Rows { model: self.model, arena, rows: mine };
        let token = |r: usize| batch.rows[r].token as usize;
        match *step {
            Step::Embed { table, scale, out } => mine.embed(table, scale, out, token, &mut scratch.bytes),
            Step::EmbedTernary { product, out } => mine.embed_ternary(product, out, token),
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
                self.quantize((input, out), Some((weight, eps)), rule, rows, worker, scratch);
            }
            Step::Quantize { input, rule, out } => {
                self.quantize((input, out), None, rule, rows, worker, scratch);
            }
            Step::Ternary { product, input, epilogue, out, at } => {
                let index = product.0 as usize;
                let own = scratch.own.iter().find(|(place, _)| *place == input).map(|(_, rows)| rows);
                let activations = match own.filter(|_| rows.len() <= OWN_ROWS) {
                    Some(own) => own.first(rows.len()),
                    // SAFETY: the step rule; the input is not written in this step.
                    None => unsafe { in_arena(arena, input, rows.clone()) },
                };
                let step = TernaryStep {
                    product: &self.model.manifest().products[index],
                    weights: self.model.weights(index),
                    kernels: &self.model.bound().products[index],
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
                let norms = norms.map(|norms| AppendNorms {
                    q: self.model.vector(norms.q),
                    k: self.model.vector(norms.k),
                    eps: norms.eps,
                });
                let rope = &self
                    .ropes
                    .iter()
                    .find(|(key, _)| RopeKey::of(step) == Some(*key))
                    .expect("built for every step")
                    .1;
                let heads = self.kv(layer as usize).n_kv_heads as usize;
                for (i, run) in batch.runs(rows).enumerate() {
                    if i > 0 {
                        worker.wait();
                    }
                    for head in worker.claim(heads, 1).flatten() {
                        let cache = run.cache.layer(layer as usize);
                        let shape = self.kv(layer as usize);
                        let overflow = self.overflow;
                        let append = Append { run: &run, qkv, norms, rope, cache, head, shape, overflow };
                        match cache.kv() {
                            KvType::F16 => append.run::<f16>(arena, scratch),
                            KvType::F32 => append.run::<f32>(arena, scratch),
                            KvType::Int8 => append.run::<i8>(arena, scratch),
                        }
                    }
                }
            }
            Step::Attend { qkv, layer, scale, window, out } => {
                for (i, run) in batch.runs(rows).enumerate() {
                    if i > 0 {
                        worker.wait();
                    }
                    let cache = run.cache.layer(layer as usize);
                    let shape = self.kv(layer as usize);
                    let window = window.map_or(usize::MAX, |window| window as usize);
                    let exchange = self.exchange;
                    let attend = Attend { run: &run, qkv, cache, shape, scale, window, out, exchange };
                    match cache.kv() {
                        KvType::F16 => attend.run::<f16>(arena, worker, scratch),
                        KvType::F32 => attend.run::<f32>(arena, worker, scratch),
                        KvType::Int8 => attend.run::<i8>(arena, worker, scratch),
                    }
                }
            }
            Step::Head { input, table, planes, out } => {
                let found = match (&self.best, planes) {
                    (Some(request), Some(planes)) => {
                        let head = Head { model: self.model, table, planes };
                        // SAFETY: the step rule; the input is not written in this step.
                        let inputs: Vec<&[f32]> =
                            rows.clone().map(|r| unsafe { arena.row(input, r) }).collect();
                        head.find(&inputs, request, worker, &mut scratch.head)
                    }
                    _ => false,
                };
                scratch.found = found;
                if !found {
                    let dense = Dense { model: self.model, arena, table, input, out, at: 0, add: false };
                    // SAFETY: the step rule; `run` shares out the rows of the table.
                    unsafe { dense.run(rows, worker) };
                }
            }
            // Validation refuses steps this runtime does not know.
            ref other => unreachable!("{other:?}"),
        }
    }

    fn kv(&self, layer: usize) -> KvLayer {
        self.model.manifest().plan.kv[layer]
    }
}
