//! The steps with a recurrent state: convolutions and delta rules.
//!
//! A unit of work is a block of channels or a value head of one run (the rows of one sequence). It reads and writes only
//! its own part of the state, so that workers claim units over all runs between two barriers.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::execute::Run;
use super::pool::Worker;
use super::state::State;
use std::ops::Range;
use trit_format::plan::{Activation, BufferId, DeltaHeads};
use trit_kernels::convolve::Convolution;
use trit_kernels::delta::{Changes, DeltaRows, gates, run, unit};

/// Channels of a unit of a convolution.
const CHANNELS: usize = 512;
/// Rows whose queries and keys are prepared together. With 128 elements each they take 64 KB, beside a block of the
/// state of 8 KB.
const ROWS: usize = 64;

/// Working memory of a worker, kept from step to step.
#[derive(Default)]
pub(crate) struct RecurScratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    betas: Vec<f32>,
    decays: Vec<f32>,
    tried: Vec<f32>,
}

fn state<'a>(run: &Run<'a>) -> &'a State {
    run.state.expect("every sequence of a plan with states has one")
}

/// A convolution.
pub(crate) struct Convolve<'a> {
    pub runs: &'a [Run<'a>],
    pub arena: &'a Arena,
    pub input: BufferId,
    /// `[taps, channels]`.
    pub weight: &'a [f32],
    pub taps: usize,
    pub activation: Activation,
    pub state: u32,
    pub out: BufferId,
}

impl Convolve<'_> {
    /// Runs all rows. Every worker of the region calls this.
    pub fn run(&self, worker: &Worker) {
        let channels = self.weight.len() / self.taps;
        let blocks = channels.div_ceil(CHANNELS);
        for unit in worker.claim(self.runs.len() * blocks, 1).flatten() {
            let (run, block) = (&self.runs[unit / blocks], unit % blocks);
            self.unit(run, channels, block * CHANNELS..((block + 1) * CHANNELS).min(channels));
        }
    }

    fn unit(&self, run: &Run, channels: usize, range: Range<usize>) {
        let state = state(run);
        let place = state.layout().inputs(self.state);
        let (weight, taps, activation) = (&self.weight[range.start..], self.taps, self.activation);
        let convolution =
            Convolution { weight, weight_stride: channels, taps, channels: range.len(), activation };
        // SAFETY: the step rule; the input is not written in this step, and these channels of the state are this worker's.
        let input = |row: usize| unsafe {
            &self.arena.row::<f32>(self.input, run.rows.start + row)[range.start..range.end]
        };
        // Input `i` of those before the run, counted from the first that the state holds.
        // SAFETY: as above; nothing of the state is written while this borrow lasts.
        let earlier = |i: usize| unsafe { state.get(place.input(i, range.clone())) };
        let first = place.rows + state.tried();
        let at = |row: usize, tap: usize| match (row + tap).checked_sub(taps - 1) {
            Some(row) => input(row),
            None => earlier(first + row + tap - (taps - 1)),
        };
        for row in 0..run.rows.len() {
            let rows: Vec<&[f32]> = (0..taps).map(|tap| at(row, tap)).collect();
            // SAFETY: the step rule; these channels of the row are this worker's.
            let out = unsafe { self.arena.row_mut(self.out, run.rows.start + row, range.start, range.end) };
            convolution.row(&rows, out);
        }
        // The last inputs before the next row, and after them those of rows that were tried. What is read stands behind
        // what is written.
        let copy = |to: usize, from: &[f32]| {
            // SAFETY: these channels of the state are this worker's; `from` was copied out before.
            unsafe { state.get_mut(place.input(to, range.clone())) }.copy_from_slice(from);
        };
        for i in 0..place.rows {
            let from = match (run.kept + i).checked_sub(place.rows) {
                Some(row) => input(row).to_vec(),
                None => earlier(first + run.kept + i - place.rows).to_vec(),
            };
            copy(i, &from);
        }
        for i in 0..run.rows.len() - run.kept {
            copy(place.rows + i, &input(run.kept + i).to_vec());
        }
    }
}

/// A delta rule.
pub(crate) struct Delta<'a> {
    pub runs: &'a [Run<'a>],
    pub arena: &'a Arena,
    pub qkv: BufferId,
    pub gates: BufferId,
    pub at: usize,
    pub rates: &'a [f32],
    pub bias: &'a [f32],
    pub heads: DeltaHeads,
    pub state: u32,
    pub out: BufferId,
}

impl Delta<'_> {
    /// Runs all rows. Every worker of the region calls this.
    pub fn run(&self, worker: &Worker, scratch: &mut RecurScratch) {
        let heads = self.heads.values as usize;
        for unit in worker.claim(self.runs.len() * heads, 1).flatten() {
            self.unit(&self.runs[unit / heads], unit % heads, scratch);
        }
    }

    fn unit(&self, sequence: &Run, head: usize, scratch: &mut RecurScratch) {
        let [keys, values, key_dim, value_dim] =
            [self.heads.keys, self.heads.values, self.heads.key_dim, self.heads.value_dim]
                .map(|n| n as usize);
        let state = state(sequence);
        let place = state.layout().matrices(self.state);
        let [matrix, log_keys, log_deltas, log_decays] = place.head(head);
        // SAFETY: the step rule; this head of the state is this worker's, and its parts are apart.
        let (mut matrix, log_keys, log_deltas, log_decays) = unsafe {
            (
                state.matrix_mut(place.kind, matrix),
                state.get_mut(log_keys),
                state.get_mut(log_deltas),
                state.get_mut(log_decays),
            )
        };
        let key_head = head / (values / keys);
        let (q, k, v) =
            (key_head * key_dim, (keys + key_head) * key_dim, 2 * keys * key_dim + head * value_dim);
        let scale = (1.0 / (key_dim as f64).sqrt()) as f32;
        let (rows, kept) = (sequence.rows.len(), sequence.kept);
        let mut pending = state.tried();
        let mut from = 0;
        while from < rows {
            // The last part holds all rows that are tried, because what they see is not kept.
            let to = if from + ROWS < kept { from + ROWS } else { rows };
            let count = to - from;
            let RecurScratch { queries, keys, betas, decays, tried } = scratch;
            queries.resize(count * key_dim, 0.0);
            keys.resize(count * key_dim, 0.0);
            (betas.clear(), decays.clear());
            let mut inputs = Vec::with_capacity(count);
            for i in 0..count {
                let row = sequence.rows.start + from + i;
                // SAFETY: the step rule; neither buffer is written in this step.
                let (qkv, gate) = unsafe { (self.arena.row(self.qkv, row), self.arena.row(self.gates, row)) };
                unit(&qkv[q..q + key_dim], scale, &mut queries[i * key_dim..][..key_dim]);
                unit(&qkv[k..k + key_dim], 1.0, &mut keys[i * key_dim..][..key_dim]);
                inputs.push(&qkv[v..v + value_dim]);
                let (b, a) = (gate[self.at + head], gate[self.at + values + head]);
                let (beta, decay) = gates(b, a, self.rates[head], self.bias[head]);
                betas.push(beta);
                decays.push(decay);
            }
            let part = DeltaRows {
                key_dim,
                queries,
                keys,
                betas,
                decays,
                values: &inputs,
                kept: kept.saturating_sub(from).min(count),
            };
            let mut outs: Vec<&mut [f32]> = (from..to)
                // SAFETY: the step rule; this head of these rows is this worker's.
                .map(|row| unsafe {
                    let (start, end) = (head * value_dim, (head + 1) * value_dim);
                    self.arena.row_mut(self.out, sequence.rows.start + row, start, end)
                })
                .collect();
            // The log of the last pass is copied out, because that of this one is written over it.
            let old_keys = log_keys[..pending * key_dim].to_vec();
            let old_decays = log_decays[..pending].to_vec();
            let old_deltas = log_deltas[..pending * value_dim].to_vec();
            let old_deltas: Vec<&[f32]> = old_deltas.chunks_exact(value_dim).collect();
            let changes = Changes { keys: &old_keys, decays: &old_decays, deltas: &old_deltas };
            let tail = count - part.kept;
            let first = part.kept;
            let mut deltas: Vec<&mut [f32]> = log_deltas.chunks_exact_mut(value_dim).take(tail).collect();
            run(&part, &changes, matrix.reborrow(), &mut outs, &mut deltas, tried);
            pending = 0;
            log_keys[..tail * key_dim].copy_from_slice(&keys[first * key_dim..]);
            log_decays[..tail].copy_from_slice(&decays[first..]);
            from = to;
        }
    }
}
