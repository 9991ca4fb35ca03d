//! The steps that write and read the KV cache: appending keys and values, and attention.
//!
//! A unit of work is one head of one run (the rows of one sequence). Workers claim units over all runs at once, so that
//! sequences of unequal length still give one balanced share of work between two barriers.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::execute::Run;
use super::kv::{KvType, POSITIONS};
use super::pool::Worker;
use crate::RuntimeError;
use half::f16;
use std::ops::Range;
use std::sync::atomic::Ordering;
use trit_format::plan::{BufferId, KvLayer, Plan};
use trit_gemm::AlignedMemory;
use trit_kernels::attention::{
    AttendScratch, CHUNK, KvElement, Queries, attend_rows, combine, partial, value_width,
};
use trit_kernels::norm::rms_norm_in_place;
use trit_kernels::rope::RopeTable;

/// Most rows of a run whose attention is split along the context. Runs with more rows have enough work for all workers
/// without that.
const SPLIT_ROWS: usize = 8;
/// Rows of a long run that make one unit: many enough that widening a chunk of the cache to f32 costs little, few
/// enough that the work is balanced.
const ROWS: usize = 128;
/// Most bytes for the results of parts of contexts. Runs for which there is no room are not split; a pass then has many
/// runs, which are work enough for all.
const MOST_SPLIT: usize = 64 << 20;

/// The weights of the RMSNorms of single heads, `[head_dim]` each.
#[derive(Clone, Copy)]
pub(crate) struct AppendNorms<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub eps: f32,
    /// Whether they come after the rotation.
    pub after_rope: bool,
}

impl AppendNorms<'_> {
    /// Normalizes heads of q, and one of k.
    fn apply(&self, q: &mut [f32], k: &mut [f32]) {
        q.chunks_exact_mut(k.len()).for_each(|head| rms_norm_in_place(head, self.q, self.eps));
        rms_norm_in_place(k, self.k, self.eps);
    }
}

/// Rotates the queries and keys of one KV head of one run, and appends its keys and values.
pub(crate) struct Append<'a> {
    pub run: &'a Run<'a>,
    pub qkv: BufferId,
    pub norms: Option<AppendNorms<'a>>,
    pub rope: &'a RopeTable,
    pub layer: usize,
    /// The KV head. The query heads that share it are rotated too.
    pub head: usize,
    pub shape: KvLayer,
}

impl Append<'_> {
    /// Rotates queries and keys, normalizes them before or after that where there are norms, leaves the queries in place,
    /// and appends the keys and the values. `T` is the cache's element type. `heads` is scratch memory.
    pub fn run<T: KvElement>(&self, arena: &Arena, heads: &mut Vec<f32>) {
        let KvLayer { n_heads, n_kv_heads, head_dim } = self.shape;
        let (dim, group) = (head_dim as usize, (n_heads / n_kv_heads) as usize);
        let q = self.head * group * dim;
        let k = (n_heads as usize + self.head) * dim;
        let v = k + n_kv_heads as usize * dim;
        let rows = self.run.rows.len();
        heads.resize(2 * rows * dim, 0.0);
        let (keys, values) = heads.split_at_mut(rows * dim);
        for (i, r) in self.run.rows.clone().enumerate() {
            let position = self.run.position + i;
            // SAFETY: the step rule; these heads are this worker's.
            let (q, k, v) = unsafe {
                (
                    arena.row_mut::<f32>(self.qkv, r, q, q + group * dim),
                    arena.row_mut::<f32>(self.qkv, r, k, k + dim),
                    arena.row_mut::<f32>(self.qkv, r, v, v + dim),
                )
            };
            if let Some(norms) = self.norms.filter(|norms| !norms.after_rope) {
                norms.apply(q, k);
            }
            if self.rope.width() == dim {
                self.rope.rotate(q, position);
                self.rope.rotate(k, position);
            } else {
                let rotated = self.rope.width();
                q.chunks_exact_mut(dim).for_each(|head| self.rope.rotate(&mut head[..rotated], position));
                self.rope.rotate(&mut k[..rotated], position);
            }
            if let Some(norms) = self.norms.filter(|norms| norms.after_rope) {
                norms.apply(q, k);
            }
            keys[i * dim..][..dim].copy_from_slice(k);
            values[i * dim..][..dim].copy_from_slice(v);
        }
        if !self.run.appends {
            return;
        }
        if !(T::holds(keys) && T::holds(values)) {
            let row = |i: &usize| [&keys[i * dim..][..dim], &values[i * dim..][..dim]];
            let first = (0..rows).find(|i| row(i).iter().any(|row| !T::holds(row))).unwrap_or(0);
            self.run.overflow.fetch_min(first, Ordering::Relaxed);
        }
        let mut done = 0;
        while done < rows {
            let (page, at) = ((self.run.position + done) / POSITIONS, (self.run.position + done) % POSITIONS);
            let count = (POSITIONS - at).min(rows - done);
            // SAFETY: the step rule; this head of the cache is this worker's. The engine reserved the positions of the
            // run, and holds the sequence. The caller chose `T`.
            let mut stored = unsafe { self.run.cache.head_mut::<T>(page, self.layer, self.head) };
            stored.append(at, count, &keys[done * dim..], &values[done * dim..], dim);
            done += count;
        }
    }
}

/// What a worker needs for attention, kept from step to step.
#[derive(Default)]
pub(crate) struct Attention {
    scratch: AttendScratch,
    shares: Vec<Share>,
}

/// How one run's attention is shared out.
#[derive(Clone)]
struct Share {
    run: usize,
    /// The number of its first unit, counted over all runs.
    first: usize,
    /// Where attention is split along the context: the chunks of the context, and the element of the workspace where
    /// their partial results begin. A unit is then one head of one chunk. `None` where a unit is one head of up to
    /// [`ROWS`] rows.
    split: Option<(Range<usize>, usize)>,
}

/// Attention of all runs.
pub(crate) struct Attend<'a> {
    pub runs: &'a [Run<'a>],
    pub arena: &'a Arena,
    pub qkv: BufferId,
    pub layer: usize,
    pub shape: KvLayer,
    pub scale: f32,
    pub window: usize,
    pub out: BufferId,
    pub split_kv: &'a SplitKv,
}

impl<'a> Attend<'a> {
    /// Elements of the query heads that share one KV head.
    fn width(&self) -> usize {
        (self.shape.n_heads / self.shape.n_kv_heads * self.shape.head_dim) as usize
    }

    /// The queries of KV head `head` for rows `rows` of a run.
    fn queries(&self, run: &Run, head: usize, rows: Range<usize>) -> Queries<'a> {
        let first = run.rows.start;
        // SAFETY: the step rule; queries are not written in this step.
        let q = unsafe {
            self.arena.span::<f32>(self.qkv, first + rows.start..first + rows.end, head * self.width())
        };
        Queries {
            q,
            stride: self.arena.stride::<f32>(self.qkv),
            rows: rows.len(),
            group: (self.shape.n_heads / self.shape.n_kv_heads) as usize,
            head_dim: self.shape.head_dim as usize,
            visible: run.position + rows.start + 1,
            window: self.window,
            scale: self.scale,
        }
    }

    /// Lists each run's share of the units, and returns the number of all units. The result is the same on every
    /// worker.
    fn share(&self, workers: usize, shares: &mut Vec<Share>) -> usize {
        let heads = self.shape.n_kv_heads as usize;
        let (mut units, mut elements) = (0, 0);
        shares.clear();
        for (index, run) in self.runs.iter().enumerate() {
            let rows = run.rows.len();
            let queries = self.queries(run, 0, 0..rows);
            let chunks = queries.chunks();
            let len = heads * chunks.len() * queries.partial_len();
            let splits = rows <= SPLIT_ROWS && chunks.len() > 1 && workers > 1;
            let share = Share { run: index, first: units, split: None };
            if splits && elements + len <= self.split_kv.len() {
                units += heads * chunks.len();
                shares.push(Share { split: Some((chunks, elements)), ..share });
                elements += len;
            } else {
                units += heads * rows.div_ceil(ROWS);
                shares.push(share);
            }
        }
        units
    }

    /// Computes attention. Every worker of the region calls this. The results are the same bits however the work is
    /// cut.
    pub fn run(&self, worker: &Worker, Attention { scratch, shares }: &mut Attention) {
        let units = self.share(worker.count, shares);
        for unit in worker.claim(units, 1).flatten() {
            let share = &shares[shares.partition_point(|share| share.first <= unit) - 1];
            match self.runs[share.run].cache.kv() {
                KvType::F16 => self.unit::<f16>(share, unit - share.first, scratch),
                KvType::F32 => self.unit::<f32>(share, unit - share.first, scratch),
                KvType::Int8 => self.unit::<i8>(share, unit - share.first, scratch),
            }
        }
        let heads = self.shape.n_kv_heads as usize;
        let split = |share: &&Share| share.split.is_some();
        let rows: usize = shares.iter().filter(split).map(|share| self.runs[share.run].rows.len()).sum();
        if rows == 0 {
            return;
        }
        worker.wait();
        for unit in worker.claim(heads * rows, 1).flatten() {
            let (head, mut row) = (unit % heads, unit / heads);
            for share in shares.iter().filter(split) {
                match self.runs[share.run].rows.len() {
                    rows if row >= rows => row -= rows,
                    _ => {
                        self.combine(share, head, row);
                        break;
                    }
                }
            }
        }
    }

    /// Unit `unit` of a run's share. `T` is the element type of the run's cache.
    fn unit<T: KvElement>(&self, share: &Share, unit: usize, scratch: &mut AttendScratch) {
        let (run, heads, rows) =
            (&self.runs[share.run], self.shape.n_kv_heads as usize, self.runs[share.run].rows.len());
        let Some((chunks, first)) = &share.split else {
            // The last rows see the most positions. They go first, so that the units at the end are small and workers
            // finish together.
            let (part, head) = (rows.div_ceil(ROWS) - 1 - unit / heads, unit % heads);
            return self.rows::<T>(run, head, part * ROWS..((part + 1) * ROWS).min(rows), scratch);
        };
        let (head, chunk) = (unit / chunks.len(), chunks.start + unit % chunks.len());
        let queries = self.queries(run, head, 0..rows);
        let (at, len) = (first + unit * queries.partial_len(), queries.partial_len());
        // SAFETY: the step rule; the cache is not written in this step, and this part of the workspace is this
        // worker's. The caller chose `T`.
        let (stored, out) =
            unsafe { (run.cache.head::<T>(chunk, self.layer, head), self.split_kv.get_mut(at..at + len)) };
        partial(&queries, &stored, chunk, scratch, out);
    }

    /// Computes one head's attention over the whole context, for some rows of a run.
    fn rows<T: KvElement>(&self, run: &Run, head: usize, rows: Range<usize>, scratch: &mut AttendScratch) {
        let queries = self.queries(run, head, rows.clone());
        let (from, to) = (head * self.width(), (head + 1) * self.width());
        let mut outs: Vec<&mut [f32]> = rows
            // SAFETY: the step rule; this head of these rows is this worker's.
            .map(|r| unsafe { self.arena.row_mut::<f32>(self.out, run.rows.start + r, from, to) })
            .collect();
        // SAFETY: the step rule; the cache is not written in this step. The caller chose `T`.
        let stored = |chunk| unsafe { run.cache.head::<T>(chunk, self.layer, head) };
        attend_rows(&queries, &stored, scratch, &mut outs);
    }

    /// Combines the partial results of the chunks of a context, for one head of one row.
    fn combine(&self, share: &Share, head: usize, row: usize) {
        let Some((chunks, first)) = &share.split else { return };
        let run = &self.runs[share.run];
        let queries = self.queries(run, head, 0..run.rows.len());
        let len = chunks.len() * queries.partial_len();
        let (from, to) = (head * self.width(), (head + 1) * self.width());
        // SAFETY: partial results were written before the barrier; this head of this row is this worker's.
        let (partials, out) = unsafe {
            (
                self.split_kv.get(first + head * len..first + (head + 1) * len),
                self.arena.row_mut::<f32>(self.out, run.rows.start + row, from, to),
            )
        };
        combine(&queries, row, partials, out);
    }
}

/// The split-KV workspace: partial results of attention for each chunk of a context that is split among workers.
#[derive(Default)]
pub(crate) struct SplitKv(Option<AlignedMemory>);

impl SplitKv {
    /// Makes room for `runs`, each a number of rows and the position after its last row. The contents are lost.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn reserve(
        &mut self,
        plan: &Plan,
        runs: impl Iterator<Item = (usize, usize)> + Clone,
    ) -> Result<(), RuntimeError> {
        let split = |runs: &(usize, usize)| runs.0 <= SPLIT_ROWS;
        let len = |kv: &KvLayer| -> usize {
            let row = kv.n_heads as usize * (value_width(kv.head_dim as usize) + 2);
            runs.clone().filter(split).map(|(rows, end)| rows * row * end.div_ceil(CHUNK)).sum()
        };
        let len = plan.kv.iter().map(len).max().unwrap_or(0).min(MOST_SPLIT / size_of::<f32>());
        if self.len() < len {
            self.0 = Some(AlignedMemory::new(len.next_power_of_two(), size_of::<f32>(), "partial results")?);
        }
        Ok(())
    }

    /// How many elements there is room for.
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |memory| memory.len() / size_of::<f32>())
    }

    fn part(&self, range: &Range<usize>) -> *mut f32 {
        assert!(range.start <= range.end && range.end <= self.len());
        let base = self.0.as_ref().map_or(std::ptr::dangling_mut(), |memory| memory.base().cast::<f32>());
        base.wrapping_add(range.start)
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// No worker writes them until all workers passed the next barrier.
    unsafe fn get(&self, range: Range<usize>) -> &[f32] {
        // SAFETY: inside the memory by the assertion in `part`, aligned and initialized; the caller promises that
        // nobody writes.
        unsafe { std::slice::from_raw_parts(self.part(&range), range.len()) }
    }

    /// Elements `range`, to be written.
    ///
    /// # Safety
    /// No other worker touches them until all workers passed the next barrier.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get_mut(&self, range: Range<usize>) -> &mut [f32] {
        // SAFETY: as in `get`; the caller promises exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.part(&range), range.len()) }
    }
}
