//! The gated delta rule of one value head: a matrix `S` that each row of a sequence decays, corrects and reads.
//!
//! For a row with query `q`, key `k`, value `v`, `beta` and `decay`: `S *= decay`, `d = (v - k S) * beta`, `S += outer(k,
//! d)`, `out = q S`. All of it is done in one pass over the memory of `S`, in blocks of sixteen columns that stay in L1:
//! columns do not depend on each other. Rows of a prompt go through a block one after the other while it is there. So a
//! row's result is the same bits whether rows come one by one or together, and a long prompt reads `S` from memory once.
//!
//! There is a form for chunks of rows that consists of matrix products. It takes more operations than this one (with keys
//! and values of 128 elements and chunks of 64 rows about 1.7 times as many), which pays only where matrix products are
//! faster than vector operations in L1, and its results depend on how rows are cut into chunks.
//!
//! `S` may be stored in f16. It is then rounded, half to even, after each row, so that results do not depend on how rows are
//! cut here either.
//!
//! `S` is `[key_dim, value_dim]`; element `[i][c]` stands at `(c / 16 * key_dim + i) * 16 + c % 16`. Places past the last
//! column are zero.

use crate::isa::{Isa, LANES, Tier, dispatch};
use crate::norm::sum_of_squares;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// What is added to the sum of squares before a query or key is divided by its root.
const EPS: f64 = 1e-6;
/// Sums over the keys' elements are taken in so many parts, element `i` in part `i % PARTS`.
const PARTS: usize = 4;

/// Elements of the state of a head.
pub fn state_len(key_dim: usize, value_dim: usize) -> usize {
    value_dim.next_multiple_of(LANES) * key_dim
}

/// Where element `[row][column]` of a head's state stands.
#[inline(always)]
pub const fn state_place(row: usize, column: usize, key_dim: usize) -> usize {
    (column / LANES * key_dim + row) * LANES + column % LANES
}

/// `beta` and `decay` of a row: `1 / (1 + exp(-b))` and `exp(rate * ln(1 + exp(a + bias)))`, computed in f64 by the
/// functions of the `libm` crate, which give the same bits on every CPU.
pub fn gates(b: f32, a: f32, rate: f32, bias: f32) -> (f32, f32) {
    let x = f64::from(a + bias);
    // Above this, the logarithm of 1 + e^x is x in f64 too.
    let softplus = if x > 40.0 { x } else { libm::log1p(libm::exp(x)) };
    let beta = 1.0 / (1.0 + libm::exp(-f64::from(b)));
    (beta as f32, libm::exp(f64::from(rate) * softplus) as f32)
}

/// `out = x * (factor / sqrt(sum of x^2 + 1e-6))`.
///
/// # Panics
/// If the lengths differ.
pub fn unit(x: &[f32], factor: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    unit_of(Tier::best(), x, factor, out);
}

dispatch!(fn unit_of(x: &[f32], factor: f32, out: &mut [f32]) = unit_body);

#[inline(always)]
fn unit_body<I: Isa>(isa: I, x: &[f32], factor: f32, out: &mut [f32]) {
    let factor = (f64::from(factor) / (sum_of_squares(isa, x) + EPS).sqrt()) as f32;
    out.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
}

/// Rows whose change of the state is known: `S = decay * S + outer(k, d)` for each.
#[derive(Clone, Copy, Default)]
pub struct Changes<'a> {
    /// `[rows, key_dim]`.
    pub keys: &'a [f32],
    /// `[rows]`.
    pub decays: &'a [f32],
    /// `[value_dim]` of each row.
    pub deltas: &'a [&'a [f32]],
}

/// Rows of one value head.
#[derive(Clone, Copy)]
pub struct DeltaRows<'a> {
    /// Elements of a query and a key.
    pub key_dim: usize,
    /// `[rows, key_dim]`, as [`unit()`] leaves them.
    pub queries: &'a [f32],
    /// `[rows, key_dim]`, likewise.
    pub keys: &'a [f32],
    /// `[rows]`.
    pub betas: &'a [f32],
    /// `[rows]`.
    pub decays: &'a [f32],
    /// `[value_dim]` of each row.
    pub values: &'a [&'a [f32]],
    /// So many rows change the state. The others only see it as it would be.
    pub kept: usize,
}

/// The state of a head, as [`state_len`] elements.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// Of 32 bits.
    F32(&'a mut [f32]),
    /// Of 16 bits.
    F16(&'a mut [f16]),
}

impl StateMut<'_> {
    /// The same state for a shorter time.
    pub fn reborrow(&mut self) -> StateMut<'_> {
        match self {
            StateMut::F32(state) => StateMut::F32(state),
            StateMut::F16(state) => StateMut::F16(state),
        }
    }

    fn len(&self) -> usize {
        match self {
            StateMut::F32(state) => state.len(),
            StateMut::F16(state) => state.len(),
        }
    }
}

/// Applies the `changes`, then runs the rows. `outs` get `[value_dim]` of each row, `deltas` the `d` of each row that is
/// not kept. `scratch` grows as needed.
///
/// # Panics
/// If a slice has another length than it says.
pub fn run(
    rows: &DeltaRows,
    changes: &Changes,
    state: StateMut,
    outs: &mut [&mut [f32]],
    deltas: &mut [&mut [f32]],
    scratch: &mut Vec<f32>,
) {
    let (count, dim) = (rows.values.len(), rows.key_dim);
    let value_dim = rows.values.first().map_or(0, |value| value.len());
    assert!(rows.queries.len() == count * dim && rows.keys.len() == count * dim && dim > 0);
    assert!(rows.betas.len() == count && rows.decays.len() == count && outs.len() == count);
    assert!(rows.kept <= count && deltas.len() == count - rows.kept);
    assert!(rows.values.iter().all(|value| value.len() == value_dim));
    assert!(outs.iter().chain(deltas.iter()).all(|out| out.len() == value_dim));
    assert!(state.len() == state_len(dim, value_dim));
    assert!(changes.keys.len() == changes.deltas.len() * dim && changes.decays.len() == changes.deltas.len());
    assert!(changes.deltas.iter().all(|delta| delta.len() == value_dim));
    if scratch.len() < 2 * dim * LANES {
        scratch.resize(2 * dim * LANES, 0.0);
    }
    let scratch = &mut scratch[..2 * dim * LANES];
    run_all(Tier::best(), rows, changes, state, outs, deltas, scratch);
}

dispatch!(fn run_all(rows: &DeltaRows, changes: &Changes, state: StateMut, outs: &mut [&mut [f32]], deltas: &mut [&mut [f32]], scratch: &mut [f32]) = run_body);

#[inline(always)]
fn run_body<I: Isa>(
    isa: I,
    rows: &DeltaRows,
    changes: &Changes,
    state: StateMut,
    outs: &mut [&mut [f32]],
    deltas: &mut [&mut [f32]],
    scratch: &mut [f32],
) {
    let dim = rows.key_dim;
    let (tried, wide) = scratch.split_at_mut(dim * LANES);
    let tried = tried.as_chunks_mut::<LANES>().0;
    match state {
        StateMut::F32(state) => {
            for (block, state) in state.as_chunks_mut::<LANES>().0.chunks_exact_mut(dim).enumerate() {
                run_block(isa, rows, changes, block, state, outs, deltas, tried, false);
            }
        }
        StateMut::F16(state) => {
            for (block, state) in state.chunks_exact_mut(dim * LANES).enumerate() {
                state.convert_to_f32_slice(wide);
                let columns = wide.as_chunks_mut::<LANES>().0;
                run_block(isa, rows, changes, block, columns, outs, deltas, tried, true);
                if rows.kept > 0 || !changes.deltas.is_empty() {
                    state.convert_from_f32_slice(wide);
                }
            }
        }
    }
}

/// All rows on one block of columns. `tried` is scratch memory for the block. Where the state `rounds`, it is rounded to f16
/// after each row.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn run_block<I: Isa>(
    isa: I,
    rows: &DeltaRows,
    changes: &Changes,
    block: usize,
    state: &mut [[f32; LANES]],
    outs: &mut [&mut [f32]],
    deltas: &mut [&mut [f32]],
    tried: &mut [[f32; LANES]],
    rounds: bool,
) {
    let dim = rows.key_dim;
    let settle = |state: &mut [[f32; LANES]]| {
        if rounds {
            round(state.as_flattened_mut());
        }
    };
    for (row, delta) in changes.deltas.iter().enumerate() {
        let (key, decay) = (&changes.keys[row * dim..][..dim], changes.decays[row]);
        change(isa, state, key, decay, isa.load(&columns(delta, block)));
        settle(state);
    }
    let (kept, tail) = outs.split_at_mut(rows.kept);
    for (row, out) in kept.iter_mut().enumerate() {
        step(isa, rows, row, block, state, out);
        settle(state);
    }
    if tail.is_empty() {
        return;
    }
    tried.copy_from_slice(state);
    for (row, (out, delta)) in tail.iter_mut().zip(deltas.iter_mut()).enumerate() {
        let d = step(isa, rows, rows.kept + row, block, tried, out);
        settle(tried);
        put(isa, d, delta, block);
    }
}

/// Rounds each number to the nearest that f16 has.
fn round(x: &mut [f32]) {
    let mut narrow = [f16::ZERO; 512];
    for x in x.chunks_mut(narrow.len()) {
        let narrow = &mut narrow[..x.len()];
        narrow.convert_from_f32_slice(x);
        narrow.convert_to_f32_slice(x);
    }
}

/// The columns of a block, zeros past the last.
#[inline(always)]
fn columns(x: &[f32], block: usize) -> [f32; LANES] {
    let x = &x[block * LANES..];
    match x.first_chunk() {
        Some(whole) => *whole,
        None => crate::dot::padded(x),
    }
}

#[inline(always)]
fn put<I: Isa>(isa: I, x: I::F32, to: &mut [f32], block: usize) {
    let mut lanes = [0.0; LANES];
    isa.store(x, &mut lanes);
    let to = &mut to[block * LANES..];
    let len = to.len().min(LANES);
    to[..len].copy_from_slice(&lanes[..len]);
}

/// `S = decay * S + outer(k, d)`.
#[inline(always)]
fn change<I: Isa>(isa: I, state: &mut [[f32; LANES]], key: &[f32], decay: f32, d: I::F32) {
    let decay = isa.splat(decay);
    for (s, k) in state.iter_mut().zip(key) {
        let x = isa.mul_add(isa.splat(*k), d, isa.mul(decay, isa.load(s)));
        isa.store(x, s);
    }
}

/// One row on one block of columns; returns `d`.
#[inline(always)]
fn step<I: Isa>(
    isa: I,
    rows: &DeltaRows,
    row: usize,
    block: usize,
    state: &mut [[f32; LANES]],
    out: &mut [f32],
) -> I::F32 {
    let dim = rows.key_dim;
    let (query, key) = (&rows.queries[row * dim..][..dim], &rows.keys[row * dim..][..dim]);
    let (decay, beta) = (isa.splat(rows.decays[row]), isa.splat(rows.betas[row]));
    let mut sums = [isa.splat(0.0); PARTS];
    {
        let (states, last) = state.as_chunks::<PARTS>();
        let (keys, last_keys) = key.as_chunks::<PARTS>();
        for (s, k) in states.iter().zip(keys) {
            for i in 0..PARTS {
                sums[i] = isa.mul_add(isa.splat(k[i]), isa.load(&s[i]), sums[i]);
            }
        }
        for (i, (s, k)) in last.iter().zip(last_keys).enumerate() {
            sums[i] = isa.mul_add(isa.splat(*k), isa.load(s), sums[i]);
        }
    }
    let known = isa.mul(total(isa, sums), decay);
    let value = isa.load(&columns(rows.values[row], block));
    let d = isa.mul(isa.add(value, isa.mul(isa.splat(-1.0), known)), beta);
    let mut sums = [isa.splat(0.0); PARTS];
    let (states, last) = state.as_chunks_mut::<PARTS>();
    let ((keys, last_keys), (queries, last_queries)) = (key.as_chunks::<PARTS>(), query.as_chunks::<PARTS>());
    for ((s, k), q) in states.iter_mut().zip(keys).zip(queries) {
        for i in 0..PARTS {
            let x = isa.mul_add(isa.splat(k[i]), d, isa.mul(decay, isa.load(&s[i])));
            isa.store(x, &mut s[i]);
            sums[i] = isa.mul_add(isa.splat(q[i]), x, sums[i]);
        }
    }
    for (i, ((s, k), q)) in last.iter_mut().zip(last_keys).zip(last_queries).enumerate() {
        let x = isa.mul_add(isa.splat(*k), d, isa.mul(decay, isa.load(s)));
        isa.store(x, s);
        sums[i] = isa.mul_add(isa.splat(*q), x, sums[i]);
    }
    put(isa, total(isa, sums), out, block);
    d
}

#[inline(always)]
fn total<I: Isa>(isa: I, sums: [I::F32; PARTS]) -> I::F32 {
    isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]))
}

/// The rule by its definition in f64, with `S` as `[key_dim, value_dim]`, for tests. Returns the rows' results.
pub fn reference(rows: &DeltaRows, state: &mut [f64]) -> Vec<Vec<f32>> {
    let dim = rows.key_dim;
    let row = |row: usize| {
        let value_dim = rows.values[row].len();
        let (q, k) = (&rows.queries[row * dim..][..dim], &rows.keys[row * dim..][..dim]);
        state.iter_mut().for_each(|s| *s *= f64::from(rows.decays[row]));
        let read = |x: &[f32], state: &[f64], c: usize| -> f64 {
            x.iter().enumerate().map(|(i, x)| f64::from(*x) * state[i * value_dim + c]).sum()
        };
        let value = |c: usize| f64::from(rows.values[row][c]);
        let d: Vec<f64> =
            (0..value_dim).map(|c| (value(c) - read(k, state, c)) * f64::from(rows.betas[row])).collect();
        for (i, k) in k.iter().enumerate() {
            for (c, d) in d.iter().enumerate() {
                state[i * value_dim + c] += f64::from(*k) * d;
            }
        }
        (0..value_dim).map(|c| read(q, state, c) as f32).collect()
    };
    (0..rows.values.len()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::floats;

    /// Operands of `count` rows.
    struct Case {
        dim: usize,
        queries: Vec<f32>,
        keys: Vec<f32>,
        betas: Vec<f32>,
        decays: Vec<f32>,
        values: Vec<Vec<f32>>,
    }

    impl Case {
        fn new(count: usize, dim: usize, value_dim: usize) -> Case {
            let units = |seed| {
                let x = floats(count * dim, seed);
                let mut units = x.clone();
                units.chunks_mut(dim).zip(x.chunks(dim)).for_each(|(y, x)| unit(x, 1.0, y));
                units
            };
            let positive = |seed| floats(count, seed).iter().map(|x| 0.5 + 0.499 * x).collect();
            Case {
                dim,
                queries: units(1),
                keys: units(2),
                betas: positive(3),
                decays: positive(4),
                values: (0..count).map(|row| floats(value_dim, 10 + row as u64)).collect(),
            }
        }

        /// Runs rows `range` on a tier; gives their results and the deltas of those not kept.
        fn run(
            &self,
            tier: Tier,
            range: std::ops::Range<usize>,
            kept: usize,
            changes: &Changes,
            state: &mut [f32],
        ) -> [Vec<Vec<f32>>; 2] {
            self.run_on(tier, range, kept, changes, StateMut::F32(state))
        }

        fn run_on(
            &self,
            tier: Tier,
            range: std::ops::Range<usize>,
            kept: usize,
            changes: &Changes,
            state: StateMut,
        ) -> [Vec<Vec<f32>>; 2] {
            let part = |x: &'_ [f32]| x[range.start * self.dim..range.end * self.dim].to_vec();
            let (queries, keys) = (part(&self.queries), part(&self.keys));
            let values: Vec<&[f32]> = self.values[range.clone()].iter().map(Vec::as_slice).collect();
            let rows = DeltaRows {
                key_dim: self.dim,
                queries: &queries,
                keys: &keys,
                betas: &self.betas[range.clone()],
                decays: &self.decays[range.clone()],
                values: &values,
                kept,
            };
            let value_dim = self.values[0].len();
            let mut outs = vec![vec![0.0; value_dim]; range.len()];
            let mut deltas = vec![vec![0.0; value_dim]; range.len() - kept];
            {
                let mut outs: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
                let mut deltas: Vec<&mut [f32]> = deltas.iter_mut().map(Vec::as_mut_slice).collect();
                let mut scratch = vec![0.0; 2 * self.dim * LANES];
                run_all(tier, &rows, changes, state, &mut outs, &mut deltas, &mut scratch);
            }
            [outs, deltas]
        }
    }

    #[test]
    fn matches_the_reference_and_is_the_same_bits_in_any_cut_on_every_tier() {
        for (dim, value_dim) in [(128, 128), (64, 64), (16, 40), (7, 5), (1, 1)] {
            let case = Case::new(9, dim, value_dim);
            let none = Changes::default();
            let mut state = vec![0.0; state_len(dim, value_dim)];
            let [whole, _] = case.run(Tier::best(), 0..9, 9, &none, &mut state);
            let values: Vec<&[f32]> = case.values.iter().map(Vec::as_slice).collect();
            let rows = DeltaRows {
                key_dim: dim,
                queries: &case.queries,
                keys: &case.keys,
                betas: &case.betas,
                decays: &case.decays,
                values: &values,
                kept: 9,
            };
            let mut exact = vec![0.0; dim * value_dim];
            for (ours, expected) in whole.iter().zip(reference(&rows, &mut exact)) {
                for (a, b) in ours.iter().zip(expected) {
                    assert!((a - b).abs() < 1e-5, "{dim} {value_dim}: {a} {b}");
                }
            }
            for tier in Tier::supported() {
                let mut again = vec![0.0; state.len()];
                let mut outs = Vec::new();
                for range in [0..1, 1..5, 5..9] {
                    let len = range.len();
                    let [part, _] = case.run(tier, range, len, &none, &mut again);
                    outs.extend(part);
                }
                assert!(outs == whole && again == state, "{tier:?} {dim} {value_dim}");
            }
        }
    }

    /// In f16, too, a row's result does not depend on how rows are cut, and it is near that of f32.
    #[test]
    fn a_state_of_f16_is_rounded_after_each_row() {
        let (dim, value_dim) = (32, 40);
        let case = Case::new(8, dim, value_dim);
        let none = Changes::default();
        let mut wide = vec![0.0; state_len(dim, value_dim)];
        let [exact, _] = case.run(Tier::best(), 0..8, 8, &none, &mut wide);
        let mut expected: Option<Vec<Vec<f32>>> = None;
        for tier in Tier::supported() {
            for cut in [1, 3, 8] {
                let mut state = vec![f16::ZERO; state_len(dim, value_dim)];
                let mut outs = Vec::new();
                for from in (0..8).step_by(cut) {
                    let range = from..(from + cut).min(8);
                    let len = range.len();
                    outs.extend(case.run_on(tier, range, len, &none, StateMut::F16(&mut state))[0].clone());
                }
                for (ours, exact) in outs.iter().flatten().zip(exact.iter().flatten()) {
                    assert!((ours - exact).abs() < 1e-3, "{ours} {exact}");
                }
                assert!(outs != exact);
                assert_eq!(&outs, expected.get_or_insert_with(|| outs.clone()), "{tier:?} {cut}");
            }
        }
    }

    /// Rows that are tried do not change the state; some of them are then accepted by their deltas.
    #[test]
    fn tried_rows_that_are_accepted_later_are_rows_that_were_run() {
        for tier in Tier::supported() {
            let (dim, value_dim) = (32, 48);
            let case = Case::new(8, dim, value_dim);
            let none = Changes::default();
            let mut expected = vec![0.0; state_len(dim, value_dim)];
            let [whole, _] = case.run(tier, 0..8, 8, &none, &mut expected);
            for accepted in 0..=3 {
                let mut state = vec![0.0; state_len(dim, value_dim)];
                let [outs, deltas] = case.run(tier, 0..5, 2, &none, &mut state);
                assert_eq!(outs, whole[..5]);
                let deltas: Vec<&[f32]> = deltas[..accepted].iter().map(Vec::as_slice).collect();
                let changes = Changes {
                    keys: &case.keys[2 * dim..(2 + accepted) * dim],
                    decays: &case.decays[2..2 + accepted],
                    deltas: &deltas,
                };
                let [outs, _] = case.run(tier, 2 + accepted..8, 6 - accepted, &changes, &mut state);
                assert_eq!(outs, whole[2 + accepted..], "{tier:?} {accepted}");
                assert_eq!(state, expected);
            }
        }
    }

    #[test]
    fn gates_are_those_of_their_definition() {
        let (beta, decay) = gates(0.5, 1.5, -0.75, 0.25);
        assert!((beta - 0.622_459_35).abs() < 1e-7);
        // softplus(1.75) = 1.910224, times -0.75, exponentiated.
        assert!((decay - 0.238_671_27).abs() < 1e-5, "{decay}");
        let (_, decay) = gates(0.0, 1000.0, -1e-3, 0.0);
        assert!((decay - (-1f32).exp()).abs() < 1e-6);
        assert_eq!(gates(0.0, -1000.0, -1.0, 0.0), (0.5, 1.0));
        assert!(gates(f32::NAN, f32::NAN, -1.0, 0.0).1.is_nan());
    }
}
