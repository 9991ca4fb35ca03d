//! The steps that touch the KV cache, for one run of rows.
#![allow(unsafe_code)]

use crate::arena::{Arena, Exchange};
use crate::execute::{Run, Scratch};
use crate::kv::LayerCache;
use crate::pool::Worker;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use trit_format::plan::{BufferId, KvLayer, Plan};
use trit_kernels::attention::{CHUNK, KvElement, Queries, attend_rows, combine, partial, value_width};
use trit_kernels::norm::rms_norm_in_place;
use trit_kernels::rope::RopeTable;

/// Most rows whose attention is split along the context; more rows are work enough for all.
const SPLIT_ROWS: usize = 8;
/// Rows of a long run that are handled together: enough to widen a chunk of the cache only once in a while, few enough
/// to balance.
const ROWS: usize = 128;

/// RMSNorms of single heads, `[head_dim]` each.
#[derive(Clone, Copy)]
pub(crate) struct AppendNorms<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub eps: f32,
}

/// Rotates and appends one head.
pub(crate) struct Append<'a> {
    pub run: &'a Run<'a>,
    pub qkv: BufferId,
    pub norms: Option<AppendNorms<'a>>,
    pub rope: &'a RopeTable,
    pub cache: &'a LayerCache,
    /// KV head; its query heads are rotated too.
    pub head: usize,
    pub shape: KvLayer,
    /// The first row whose keys or values the cache cannot hold becomes at most this.
    pub overflow: &'a AtomicUsize,
}

impl Append<'_> {
    /// Normalizes where there are norms, rotates the query heads in place, and appends the rotated keys and the values. `T` is the cache's element type.
    pub fn run<T: KvElement>(&self, arena: &Arena, scratch: &mut Scratch) {
        let KvLayer { n_heads, n_kv_heads, head_dim } = self.shape;
        let (dim, group) = (head_dim as usize, (n_heads / n_kv_heads) as usize);
        let q = self.head * group * dim;
        let k = (n_heads as usize + self.head) * dim;
        let v = k + n_kv_heads as usize * dim;
        let rows = self.run.rows.len();
        scratch.heads.resize(2 * rows * dim, 0.0);
        let (keys, values) = scratch.heads.split_at_mut(rows * dim);
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
            if let Some(norms) = self.norms {
                q.chunks_exact_mut(dim).for_each(|head| rms_norm_in_place(head, norms.q, norms.eps));
                rms_norm_in_place(k, norms.k, norms.eps);
            }
            self.rope.rotate(q, position);
            self.rope.rotate(k, position);
            keys[i * dim..][..dim].copy_from_slice(k);
            values[i * dim..][..dim].copy_from_slice(v);
        }
        if !(T::holds(keys) && T::holds(values)) {
            let row = |i: &usize| [&keys[i * dim..][..dim], &values[i * dim..][..dim]];
            let first = (0..rows).find(|i| row(i).iter().any(|row| !T::holds(row))).unwrap_or(0);
            self.overflow.fetch_min(self.run.rows.start + first, Ordering::Relaxed);
        }
        // SAFETY: the step rule; this head of the cache is this worker's. The caller chose `T`.
        let mut cache = unsafe { self.cache.head_mut::<T>(self.head) };
        cache.append(self.run.position, rows, keys, values, dim);
    }
}

/// Attention of one run.
pub(crate) struct Attend<'a> {
    pub run: &'a Run<'a>,
    pub qkv: BufferId,
    pub cache: &'a LayerCache,
    pub shape: KvLayer,
    pub scale: f32,
    pub window: usize,
    pub out: BufferId,
    pub exchange: &'a Exchange,
}

impl Attend<'_> {
    /// Elements of a query group.
    fn width(&self) -> usize {
        (self.shape.n_heads / self.shape.n_kv_heads * self.shape.head_dim) as usize
    }

    /// The queries of KV head `head` for rows `rows` of the run.
    fn queries<'q>(&self, arena: &'q Arena, head: usize, rows: Range<usize>) -> Queries<'q> {
        let first = self.run.rows.start;
        // SAFETY: the step rule; queries are not written in this step.
        let q =
            unsafe { arena.span::<f32>(self.qkv, first + rows.start..first + rows.end, head * self.width()) };
        Queries {
            q,
            stride: arena.stride::<f32>(self.qkv),
            rows: rows.len(),
            group: (self.shape.n_heads / self.shape.n_kv_heads) as usize,
            head_dim: self.shape.head_dim as usize,
            visible: self.run.position + rows.start + 1,
            window: self.window,
            scale: self.scale,
        }
    }

    /// Attends. `T` is the cache's element type; every worker of the region calls this. The result is the same bits
    /// however the work is cut.
    pub fn run<T: KvElement>(&self, arena: &Arena, worker: &Worker, scratch: &mut Scratch) {
        let (rows, heads) = (self.run.rows.len(), self.shape.n_kv_heads as usize);
        let chunks = self.queries(arena, 0, 0..rows).chunks();
        if rows <= SPLIT_ROWS && chunks.len() > 1 && worker.count > 1 {
            return self.split::<T>(arena, worker, scratch, chunks);
        }
        let blocks = rows.div_ceil(ROWS);
        // The last rows see most: they first, so that what is left at the end is small.
        for unit in worker.claim(heads * blocks, 1).flatten() {
            let (block, head) = (blocks - 1 - unit / heads, unit % heads);
            let part = block * ROWS..((block + 1) * ROWS).min(rows);
            let queries = self.queries(arena, head, part.clone());
            let (from, to) = (head * self.width(), (head + 1) * self.width());
            let mut outs: Vec<&mut [f32]> = part
                // SAFETY: the step rule; this head of these rows is this worker's.
                .map(|r| unsafe { arena.row_mut::<f32>(self.out, self.run.rows.start + r, from, to) })
                .collect();
            // SAFETY: the step rule; the cache is not written in this step. The caller chose `T`.
            let cache = unsafe { self.cache.head::<T>(head) };
            attend_rows(&queries, &cache, &mut scratch.attend, &mut outs);
        }
    }

    /// Few rows, a long context: chunks of it are shared out, then brought together.
    fn split<T: KvElement>(
        &self,
        arena: &Arena,
        worker: &Worker,
        scratch: &mut Scratch,
        range: Range<usize>,
    ) {
        let chunks = range.len();
        let (rows, heads) = (self.run.rows.len(), self.shape.n_kv_heads as usize);
        let len = self.queries(arena, 0, 0..rows).partial_len();
        for unit in worker.claim(heads * chunks, chunks).flatten() {
            let (head, chunk) = (unit / chunks, range.start + unit % chunks);
            // SAFETY: the step rule; the cache is not written in this step, and this part of the exchange is this
            // worker's. The caller chose `T`.
            let (cache, out) =
                unsafe { (self.cache.head::<T>(head), self.exchange.get_mut(unit * len..(unit + 1) * len)) };
            partial(&self.queries(arena, head, 0..rows), &cache, chunk, &mut scratch.attend, out);
        }
        worker.wait();
        for unit in worker.claim(heads * rows, 1).flatten() {
            let (head, row) = (unit / rows, unit % rows);
            let (from, to) = (head * self.width(), (head + 1) * self.width());
            // SAFETY: partial results were written before the barrier; this head of this row is this worker's.
            let (partials, out) = unsafe {
                (
                    self.exchange.get(head * chunks * len..(head + 1) * chunks * len),
                    arena.row_mut::<f32>(self.out, self.run.rows.start + row, from, to),
                )
            };
            combine(&self.queries(arena, head, 0..rows), row, partials, out);
        }
    }
}

/// Elements of an [`Exchange`] that serves `rows` rows at up to `positions` positions.
pub(crate) fn exchange_len(plan: &Plan, rows: usize, positions: usize) -> usize {
    let rows = rows.min(SPLIT_ROWS);
    let len = |kv: &KvLayer| {
        rows * kv.n_heads as usize * (value_width(kv.head_dim as usize) + 2) * positions.div_ceil(CHUNK)
    };
    plan.kv.iter().map(len).max().unwrap_or(0)
}
