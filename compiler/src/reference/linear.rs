//! The products of the reference: with matrices of floats, and with ternary ones, whose activations are quantized as
//! each rule says.
//!
//! Input is `[n, k]`, results are `[n, rows]`.

use super::rms_norm;
use crate::error::CompileError;
use crate::model::{Dense, Matrix, Model, Projection, Rotation, Scales, Ternary};
use rayon::prelude::*;
use trit_format::plan::{ActivationRule, ScaleRule};

/// After how many rows memory is released: some 64 MB of a large table.
const BATCH: usize = 4096;

/// One linear layer: its norm where it has one, then the product.
pub(super) fn project(
    model: &Model,
    projection: &Projection,
    x: &[f32],
    jitter: f32,
) -> Result<Vec<f32>, CompileError> {
    let normed = projection.norm.as_ref().map(|(_, weight)| rms_norm(x, weight, model.linear_rms_eps));
    let mut x = normed.unwrap_or_else(|| x.to_vec());
    x.iter_mut().enumerate().for_each(|(i, x)| *x *= 1.0 + jitter * noise(i));
    match &projection.matrix {
        Matrix::Ternary(matrix) => ternary(matrix, &x, model.rule(matrix)),
        Matrix::Dense(matrix) => dense(matrix, &x),
    }
}

/// A number in -1..1 that looks random: the fractional part of `i` times the golden ratio.
fn noise(i: usize) -> f32 {
    let golden = (i as u32).wrapping_mul(0x9e37_79b9);
    golden as i32 as f32 / -(i32::MIN as f32)
}

/// `x W^T`, sums in f64.
pub(super) fn dense(matrix: &Dense, x: &[f32]) -> Result<Vec<f32>, CompileError> {
    let &[rows, k] = &matrix.shape[..] else {
        return Err(CompileError::Internal(format!("{} is {:?}, no matrix", matrix.name, matrix.shape)));
    };
    expect_columns(&matrix.name, k, x)?;
    let row = |row: usize, weights: &mut Vec<f32>, out: &mut [f32]| {
        weights.resize(k, 0.0);
        matrix.read_row(row, weights);
        for (y, x) in out.iter_mut().zip(x.chunks_exact(k)) {
            *y = sum(weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x))) as f32;
        }
        Ok(())
    };
    by_rows(rows, x.len() / k, row, || matrix.data.release())
}

/// `x W^T`, with `x` quantized by `rule`.
pub(super) fn ternary(matrix: &Ternary, x: &[f32], rule: ActivationRule) -> Result<Vec<f32>, CompileError> {
    expect_columns(&matrix.name, matrix.k, x)?;
    let mut x = x.to_vec();
    if let Some(rotation) = &matrix.rotation {
        change_signs(&mut x, rotation);
        hadamard(&mut x, rotation.block as usize);
    }
    let x = &x;
    match rule {
        ActivationRule::AbsmaxPerToken { floor } => per_token(matrix, x, floor),
        ActivationRule::AbsmaxPerGroup { columns } => per_group(matrix, x, columns),
        // The rule's integers stand for the floats themselves, and the format bounds how far they may be from them.
        ActivationRule::Fixed24PerGroup { columns } => floats(matrix, x, columns),
        other => unreachable!("a model has no {other:?}"),
    }
}

/// Multiplies each row of `x` with the rotation's signs.
pub(super) fn change_signs(x: &mut [f32], rotation: &Rotation) {
    let Some(signs) = &rotation.signs else { return };
    x.iter_mut().zip(signs.iter().cycle()).for_each(|(x, sign)| *x *= sign);
}

/// The normalized Walsh-Hadamard transform of each run of `block` elements: that of a run follows from those of its
/// halves `a` and `b`, and is `(a + b, a - b) / sqrt(2)`.
pub(super) fn hadamard(x: &mut [f32], block: usize) {
    fn transform(x: &mut [f64]) {
        if x.len() < 2 {
            return;
        }
        let (a, b) = x.split_at_mut(x.len() / 2);
        transform(a);
        transform(b);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = ((*a + *b) / 2f64.sqrt(), (*a - *b) / 2f64.sqrt());
        }
    }
    for run in x.chunks_exact_mut(block) {
        let mut wide: Vec<f64> = run.iter().map(|&x| f64::from(x)).collect();
        transform(&mut wide);
        run.iter_mut().zip(wide).for_each(|(x, y)| *x = y as f32);
    }
}

/// The weights of one row, `[k]`.
pub(super) fn ternary_row(matrix: &Ternary, row: usize, out: &mut [f32]) -> Result<(), CompileError> {
    let columns = matrix.group_columns();
    let (mut trits, mut factors) = (vec![0; matrix.k], vec![0.0; matrix.k.div_ceil(columns as usize)]);
    matrix.trits.read_row(row, &mut trits)?;
    matrix.factors(row, columns, &mut factors)?;
    for (k, (out, trit)) in out.iter_mut().zip(trits).enumerate() {
        *out = f32::from(trit) * factors[k / columns as usize];
    }
    Ok(())
}

/// BitNet's linear layer: exact integer sums, then the scale in the checkpoint's direction. `x` is quantized as by
/// `ActQuant` in transformers' `integrations/bitnet.py`.
fn per_token(matrix: &Ternary, x: &[f32], floor: f32) -> Result<Vec<f32>, CompileError> {
    let k = matrix.k;
    let Scales::Tensor { scale, rule } = matrix.scales else {
        return Err(CompileError::Internal(format!("{} has several scales", matrix.name)));
    };
    let mut values: Vec<i8> = Vec::with_capacity(x.len());
    let mut factors = Vec::new(); // [n], what each row was multiplied with
    for x in x.chunks_exact(k) {
        let max = x.iter().fold(floor, |max, x| max.max(x.abs()));
        let s = 127.0 * (1.0 / max);
        values.extend(x.iter().map(|x| (x * s).round_ties_even().clamp(-128.0, 127.0) as i8));
        factors.push(s);
    }
    let row = |row: usize, trits: &mut Vec<i8>, out: &mut [f32]| {
        trits.resize(k, 0);
        matrix.trits.read_row(row, trits)?;
        for ((y, s), values) in out.iter_mut().zip(&factors).zip(values.chunks_exact(k)) {
            let sum = dot(trits, values);
            *y = match rule {
                ScaleRule::Multiply => sum as f32 / s * scale,
                ScaleRule::Divide => sum as f32 / (s * scale),
                other => unreachable!("the format has no {other:?}"),
            };
        }
        Ok(())
    };
    by_rows(matrix.rows, factors.len(), row, || matrix.trits.release())
}

/// Int8 activations in groups: exact integer sums of each, added in order in f32.
fn per_group(matrix: &Ternary, x: &[f32], columns: u32) -> Result<Vec<f32>, CompileError> {
    let (k, width) = (matrix.k, columns as usize);
    let groups = k.div_ceil(width);
    let mut values: Vec<i8> = Vec::with_capacity(x.len());
    let mut units = Vec::new(); // [n, groups], what a value of 1 stands for
    for group in x.chunks_exact(k).flat_map(|x| x.chunks(width)) {
        let max = group.iter().fold(0f32, |max, x| max.max(x.abs()));
        let s = 127.0 * (1.0 / max);
        // The reciprocal is not finite, because the values are zero or nearly so.
        let usable = (1.0 / max).is_finite();
        values.extend(group.iter().map(|x| if usable { (x * s).round_ties_even() as i8 } else { 0 }));
        units.push(if usable { max / 127.0 } else { 0.0 });
    }
    let row = |row: usize, (trits, factors): &mut (Vec<i8>, Vec<f32>), out: &mut [f32]| {
        trits.resize(k, 0);
        factors.resize(groups, 0.0);
        matrix.trits.read_row(row, trits)?;
        matrix.factors(row, columns, factors)?;
        let tokens = values.chunks_exact(k).zip(units.chunks_exact(groups));
        for (y, (values, units)) in out.iter_mut().zip(tokens) {
            let sums = trits.chunks(width).zip(values.chunks(width)).map(|(t, q)| dot(t, q) as f32);
            let scales = units.iter().zip(&*factors).map(|(a, w)| a * w);
            *y = sums.zip(scales).fold(0.0, |y, (sum, scale)| y + sum * scale);
        }
        Ok(())
    };
    by_rows(matrix.rows, x.len() / k, row, || matrix.trits.release())
}

/// Activations as they are, sums in f64.
fn floats(matrix: &Ternary, x: &[f32], columns: u32) -> Result<Vec<f32>, CompileError> {
    let (k, width) = (matrix.k, columns as usize);
    let row = |row: usize, (trits, factors): &mut (Vec<i8>, Vec<f32>), out: &mut [f32]| {
        trits.resize(k, 0);
        factors.resize(k.div_ceil(width), 0.0);
        matrix.trits.read_row(row, trits)?;
        matrix.factors(row, columns, factors)?;
        for (y, x) in out.iter_mut().zip(x.chunks_exact(k)) {
            let signed = |(t, x): (&i8, &f32)| f64::from(*t) * f64::from(*x);
            let groups = trits.chunks(width).zip(x.chunks(width)).zip(&*factors);
            let scaled = groups.map(|((t, x), w)| sum(t.iter().zip(x).map(signed)) * f64::from(*w));
            *y = scaled.sum::<f64>() as f32;
        }
        Ok(())
    };
    by_rows(matrix.rows, x.len() / k, row, || matrix.trits.release())
}

fn dot(trits: &[i8], values: &[i8]) -> i32 {
    trits.iter().zip(values).map(|(t, q)| i32::from(*t) * i32::from(*q)).sum()
}

/// A sum in eight parts, which is faster than one after the other.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let mut parts = [0.0; 8];
    terms.enumerate().for_each(|(i, term)| parts[i % 8] += term);
    parts.iter().sum()
}

/// The results `[n, rows]` of `row`, which computes those of one row for all `n` tokens. It gets memory that it may
/// use again for its next row. `release` releases memory that reading rows has pulled in.
fn by_rows<T: Default>(
    rows: usize,
    n: usize,
    row: impl Fn(usize, &mut T, &mut [f32]) -> Result<(), CompileError> + Sync,
    release: impl Fn(),
) -> Result<Vec<f32>, CompileError> {
    if n == 0 {
        return Ok(Vec::new());
    }
    let mut by_row = vec![0.0; rows * n]; // [rows, n]: a thread owns whole rows
    for (batch, out) in by_row.chunks_mut(BATCH * n).enumerate() {
        let rows = out.par_chunks_exact_mut(n).enumerate();
        rows.try_for_each_init(T::default, |memory, (index, out)| row(batch * BATCH + index, memory, out))?;
        release();
    }
    Ok((0..n).flat_map(|t| by_row.iter().skip(t).step_by(n).copied()).collect())
}

fn expect_columns(name: &str, k: usize, x: &[f32]) -> Result<(), CompileError> {
    if k > 0 && x.len().is_multiple_of(k) {
        return Ok(());
    }
    Err(CompileError::Internal(format!("{name} has {k} columns, its input {} elements", x.len())))
}
