//! Tensors of floats, checked: matrices that stay floats, and vectors of norm weights.

use crate::checkpoint::RawTensor;
use crate::error::CompileError;
use crate::model::float::FloatType;
use crate::model::{Dense, NormWeights};
use crate::weights::{affine_table, coded, order};
use rayon::prelude::*;
use std::sync::Arc;

/// How many elements one thread scans at a time. This is a constant, so that sums do not depend on the number of
/// threads.
const CHUNK: usize = 1 << 18;

/// Folds each chunk of a float tensor in parallel; the results stand in the order of the chunks.
pub(super) fn scan<T: Send + Sync + Copy>(
    tensor: &RawTensor,
    float: FloatType,
    start: T,
    fold: impl Fn(T, f32) -> T + Sync,
) -> Vec<T> {
    let chunk = CHUNK * float.dtype().size();
    let one = |chunk: &[u8]| {
        let mut folded = start;
        float.each(chunk, |x| folded = fold(folded, x));
        folded
    };
    let mut folded = Vec::new();
    for batch in tensor.bytes.batches(chunk) {
        folded.par_extend(batch.par_chunks(chunk).map(one));
    }
    folded
}

/// A tensor of floats of that shape, kept as it is stored, or where it is in integers with scales as codes.
///
/// # Errors
/// A wrong dtype or shape, or an element that is not finite.
pub(crate) fn dense(tensor: RawTensor, shape: &[usize], what: &str) -> Result<Dense, CompileError> {
    if let Some(kind) = coded::kind(&tensor) {
        return coded::dense(tensor, kind, shape, what);
    }
    if affine_table::is_one(&tensor) {
        return affine_table::dense(tensor, shape, what);
    }
    let float = expect_float(&tensor, shape, what)?;
    let finite = scan(&tensor, float, true, |finite, x| finite & x.is_finite());
    if finite.contains(&false) {
        return Err(not_finite(&tensor, float));
    }
    let tensor = order::rewritten(tensor)?;
    let (dtype, shape, data) = (float.dtype(), shape.to_vec(), Arc::new(tensor.bytes));
    Ok(Dense { name: tensor.name, dtype, shape, data, coder: None })
}

/// A vector of norm weights, widened to f32.
///
/// # Errors
/// As [`dense`].
pub(crate) fn norm(tensor: RawTensor, len: usize, what: &str) -> Result<NormWeights, CompileError> {
    let float = expect_float(&tensor, &[len], what)?;
    let mut weights = Vec::with_capacity(len);
    float.each(tensor.bytes.as_ref(), |x| weights.push(x));
    if weights.iter().any(|x| !x.is_finite()) {
        return Err(not_finite(&tensor, float));
    }
    Ok((tensor.name, weights))
}

/// The type of a tensor of floats of that shape; `what` says where the expectation comes from.
///
/// # Errors
/// A wrong dtype or shape.
pub(crate) fn expect_float(
    tensor: &RawTensor,
    shape: &[usize],
    what: &str,
) -> Result<FloatType, CompileError> {
    let float = tensor.dtype.float().ok_or_else(|| {
        let problem = format!("is {}, which is not supported; expected BF16, F16 or F32", tensor.dtype);
        tensor.unsupported(problem)
    })?;
    tensor.expect_shape(shape, what)?;
    Ok(float)
}

/// Names the first element that is NaN or infinite.
pub(crate) fn not_finite(tensor: &RawTensor, float: FloatType) -> CompileError {
    let (mut at, mut first) = (0usize, None);
    float.each(tensor.bytes.as_ref(), |x| {
        if first.is_none() && !x.is_finite() {
            first = Some((at, x));
        }
        at += 1;
    });
    match first {
        Some((at, x)) => not_finite_at(tensor, x, &place(at, &tensor.shape)),
        None => tensor.error("holds what is not a finite number"),
    }
}

/// Names an element that is NaN or infinite.
pub(super) fn not_finite_at(tensor: &RawTensor, x: f32, place: &str) -> CompileError {
    tensor.error(format!("holds {x} at {place}, which is not a finite number"))
}

/// `row R, column C` of an element of a matrix.
pub(super) fn place(at: usize, shape: &[usize]) -> String {
    match shape.last() {
        Some(&k) if shape.len() == 2 && k > 0 => format!("row {}, column {}", at / k, at % k),
        _ => format!("element {at}"),
    }
}
