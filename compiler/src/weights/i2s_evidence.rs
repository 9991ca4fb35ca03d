//! Finds out from the weights themselves in which layout an I2_S file holds them.
//!
//! The three layouts hold the same codes in different places, so that every reading of a file gives ternary matrices of
//! the right sizes. Between x86 and ARM not even the columns of a matrix change, only their order. What tells the
//! readings apart is how a model is wired: what row `i` of `ffn_gate` and `ffn_up` computes is multiplied with column `i`
//! of `ffn_down`, and what row `i` of `attn_v` computes reaches the columns of `attn_output` for the same element of the
//! heads that share it. In training both adapt to each other. Where a unit is used little, both its row and its column
//! have many zeros, or one makes up for the other. In a wrong reading, rows meet columns of other units.
//!
//! For each such pair of vectors, shares of weights that are not zero, the square of their correlation is taken; the mean
//! of each 128 units is taken out before, so that differences between heads do not count, which several readings keep. Times
//! the number of units it is the evidence for the reading. It is about 1 where the vectors have nothing to do with each
//! other. Summed over `n` pairs its mean is then `n` and its deviation `sqrt(2 n)`, as those of a chi-squared variable.
//! What is beyond the mean counts. A reading is taken where three things hold, and otherwise the file is undecided:
//!
//! - the evidence is at least [`DEVIATIONS`] deviations, so that it is no chance;
//! - it is at least [`RATIO`] times as much as that of the second best reading;
//! - the squared correlation, all pairs together, is at least [`LEAST`]. Where x86 is read as ARM, or the other way round,
//!   32 of 128 units stay in their place, which leaves at most a quarter of the correlation and a sixteenth of its square.
//!   So this also keeps away files in a fourth layout that is as near to one of the three as these are to each other.
//!
//! The margin: on `fables-12m` and `fables-30m`, the trained models that this is tested with, in each of the three layouts,
//! the right reading has a squared correlation of 0.45 or more and at least 1,500 deviations. The second best has 0.036 or
//! less, at least 14 times less evidence. A matrix of random trits has none.

use crate::checkpoint::{ElementType, I2sLayout, RawTensor};
use crate::weights::i2s::read_row;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// How far beyond chance the evidence for the best reading must be, in standard deviations.
const DEVIATIONS: f64 = 16.0;
/// How many times as much evidence the best reading must have as the second best.
const RATIO: f64 = 4.0;
/// The least squared correlation of a reading, all pairs together.
const LEAST: f64 = 1.0 / 16.0;
/// Units whose mean is taken out together.
const TOGETHER: usize = 128;
/// Rows that one thread counts in one go.
const ROWS: usize = 64;

/// What was found out about the layout of a file.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The layout, where it is decided.
    pub(crate) layout: Option<I2sLayout>,
    /// The squared correlation in each layout that all matrices fit into, the largest first.
    pub(crate) correlations: Vec<(I2sLayout, f64)>,
}

/// Looks at all I2_S matrices of a file, by their names in GGUF files. `heads` are the numbers of query and KV heads.
pub(crate) fn decide(tensors: &BTreeMap<String, RawTensor>, heads: [usize; 2]) -> Verdict {
    let possible: Vec<I2sLayout> =
        I2sLayout::ALL.into_iter().filter(|layout| matrices(tensors).all(|m| layout.fits(m.shape))).collect();
    let mut sums = vec![0.0; possible.len()];
    let (mut pairs, mut freedom) = (0, 0);
    let layers = matrices(tensors).filter_map(|m| Some((m.tensor.name.strip_suffix(".ffn_down.weight")?, m)));
    for (name, down) in layers {
        let of = |part: &str| Matrix::of(tensors.get(&format!("{name}.{part}.weight"))?);
        let gates = ["ffn_gate", "ffn_up"].into_iter().filter_map(of).filter(|m| m.shape[0] == down.shape[1]);
        let gates: Vec<Matrix> = gates.collect();
        for (sum, layout) in sums.iter_mut().zip(&possible) {
            let columns = down.count(*layout).columns;
            *sum += gates.iter().map(|gate| evidence(&gate.count(*layout).rows, &columns)).sum::<f64>();
        }
        pairs += gates.len();
        freedom += gates.len() * free(down.shape[1]);
        let (Some(value), Some(output)) = (of("attn_v"), of("attn_output")) else { continue };
        let Some(units) = shared_units(value.shape[0], output.shape[1], heads) else { continue };
        for (sum, layout) in sums.iter_mut().zip(&possible) {
            let rows = value.count(*layout).rows;
            let rows: Vec<f64> = units.iter().map(|&unit| rows[unit]).collect();
            *sum += evidence(&rows, &output.count(*layout).columns);
        }
        pairs += 1;
        freedom += free(output.shape[1]);
    }
    verdict(possible.into_iter().zip(sums).collect(), pairs as f64, freedom as f64)
}

/// Decides by the sums of evidence over that many pairs of vectors, which have that much freedom together.
fn verdict(mut sums: Vec<(I2sLayout, f64)>, pairs: f64, freedom: f64) -> Verdict {
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let beyond_chance = |at: usize| sums.get(at).map_or(0.0, |(_, sum)| (sum - pairs).max(0.0));
    let is_clear = beyond_chance(0) >= DEVIATIONS * (2.0 * pairs).sqrt().max(1.0)
        && beyond_chance(0) >= RATIO * beyond_chance(1)
        && sums.first().is_some_and(|(_, sum)| *sum >= LEAST * freedom);
    let layout = sums.first().filter(|_| is_clear).map(|(layout, _)| *layout);
    let correlations = sums.into_iter().map(|(layout, sum)| (layout, sum / freedom.max(1.0))).collect();
    Verdict { layout, correlations }
}

/// The freedom of a vector of `len` elements without the means of each [`TOGETHER`].
fn free(len: usize) -> usize {
    len - len.div_ceil(TOGETHER)
}

/// For each column of `attn_output` the row of `attn_v` that computes what it is multiplied with.
fn shared_units(value_rows: usize, columns: usize, [heads, kv_heads]: [usize; 2]) -> Option<Vec<usize>> {
    let head_dim = columns.checked_div(heads)?;
    let group = heads.checked_div(kv_heads)?;
    let whole = group > 0
        && head_dim * heads == columns
        && kv_heads * head_dim == value_rows
        && group * kv_heads == heads;
    whole.then(|| (0..columns).map(|at| at / head_dim / group * head_dim + at % head_dim).collect())
}

/// An I2_S matrix.
struct Matrix<'a> {
    tensor: &'a RawTensor,
    shape: [usize; 2],
}

fn matrices(tensors: &BTreeMap<String, RawTensor>) -> impl Iterator<Item = Matrix<'_>> {
    tensors.values().filter_map(Matrix::of)
}

/// For each row and each column, how many of its weights are not zero.
struct Counts {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl<'a> Matrix<'a> {
    fn of(tensor: &'a RawTensor) -> Option<Matrix<'a>> {
        match (tensor.dtype, tensor.shape.as_slice()) {
            (ElementType::I2s(_), &[rows, k]) => Some(Matrix { tensor, shape: [rows, k] }),
            _ => None,
        }
    }

    fn count(&self, layout: I2sLayout) -> Counts {
        let ([rows, k], codes) = (self.shape, self.tensor.bytes.as_ref());
        let starts: Vec<usize> = (0..rows).step_by(ROWS).collect();
        let some = |start: usize| {
            let (mut trits, mut columns, mut counts) =
                (vec![0i8; k], vec![0u32; k], Vec::with_capacity(ROWS));
            for row in start..(start + ROWS).min(rows) {
                // A row that is not there has no weights. What is wrong with it is said when it is read.
                if read_row(codes, layout, row, k, &mut trits).is_none() {
                    trits.fill(0);
                }
                columns.iter_mut().zip(&trits).for_each(|(count, trit)| *count += u32::from(*trit != 0));
                counts.push(trits.iter().map(|trit| u32::from(*trit != 0)).sum::<u32>());
            }
            (counts, columns)
        };
        let found: Vec<(Vec<u32>, Vec<u32>)> = starts.into_par_iter().map(some).collect();
        self.tensor.bytes.release();
        let mut counts = Counts { rows: Vec::with_capacity(rows), columns: vec![0.0; k] };
        for (of_rows, of_columns) in found {
            counts.rows.extend(of_rows.into_iter().map(f64::from));
            counts.columns.iter_mut().zip(of_columns).for_each(|(sum, count)| *sum += f64::from(count));
        }
        counts
    }
}

/// The square of the correlation of two vectors times their freedom, without the means of each [`TOGETHER`].
fn evidence(a: &[f64], b: &[f64]) -> f64 {
    let (mut products, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.chunks(TOGETHER).zip(b.chunks(TOGETHER)) {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (mean_a, mean_b) = (mean(a), mean(b));
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (a - mean_a, b - mean_b);
            products += a * b;
            squares_a += a * a;
            squares_b += b * b;
        }
    }
    match squares_a * squares_b {
        // A vector without differences says nothing.
        0.0 => 0.0,
        squares => free(b.len()) as f64 * products * products / squares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_heads_that_share_values_meet_the_same_rows() {
        // Four query heads of 2, two KV heads.
        assert_eq!(shared_units(4, 8, [4, 2]), Some(vec![0, 1, 0, 1, 2, 3, 2, 3]));
        assert_eq!(shared_units(8, 8, [4, 4]), Some((0..8).collect()));
        for (rows, columns, heads) in
            [(4, 8, [3, 2]), (4, 8, [4, 0]), (4, 8, [0, 0]), (4, 9, [4, 2]), (6, 8, [4, 2])]
        {
            assert_eq!(shared_units(rows, columns, heads), None);
        }
    }

    #[test]
    fn evidence_is_the_squared_correlation_without_means_of_blocks() {
        let a: Vec<f64> = (0..256).map(|i| f64::from(i * 37 % 11)).collect();
        let shifted: Vec<f64> =
            a.iter().enumerate().map(|(i, x)| -2.0 * x + if i < 128 { 50.0 } else { 0.0 }).collect();
        assert!((evidence(&a, &shifted) - 254.0).abs() < 1e-6);
        assert_eq!(evidence(&a, &vec![3.0; 256]), 0.0);
        let other: Vec<f64> = (0..256).map(|i| f64::from(i * 53 % 13)).collect();
        assert!(evidence(&a, &other) < 10.0);
    }

    #[test]
    fn what_is_near_to_chance_or_to_another_reading_is_undecided() {
        use I2sLayout::{Arm, FourRows, X86};
        let decided = |sums: [f64; 3]| {
            verdict([X86, Arm, FourRows].into_iter().zip(sums).collect(), 8.0, 2400.0).layout
        };
        assert_eq!(decided([8.0, 200.0, 9.0]), Some(Arm));
        assert_eq!(decided([8.0, 9.0, 60.0]), None);
        assert_eq!(decided([60.0, 200.0, 9.0]), None);
        // A squared correlation below a sixteenth.
        assert_eq!(decided([8.0, 149.0, 9.0]), None);
        assert_eq!(decided([0.0; 3]), None);
        assert_eq!(verdict(Vec::new(), 0.0, 0.0).layout, None);
    }
}
