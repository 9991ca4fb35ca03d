//! Linear layers as transformers computes them: activations are quantized, multiplied and scaled in one call.
//!
//! Rows of activations enter as float32, or as the bits of bfloat16 or float16; rows of results leave in the same type.
//! Sums are exact integers. What is rounded to the model's type, and in which order, is read off
//! `transformers/integrations/bitnet.py`, because the next layer quantizes again, and a difference in the last bit would
//! move values to the other side of a rounding boundary.

use crate::arrays::{self, Argument};
use crate::errors::of_gemm;
use crate::matrix::{Held, PackedMatrix};
use crate::threads::on_pool;
use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;
use trit_gemm::{GemmError, Precision, TernaryMatrix};

/// Rows that are quantized and multiplied together, so that what is kept for them stays small.
const ROWS: usize = 256;
/// The least absolute maximum of a row, as in BitNet.
const FLOOR: f32 = 1e-5;
/// The largest int8 activation.
const MOST: f32 = 127.0;
/// Most int8 digits of an activation that was rounded to 16 bits: float16 has 11 bits, and an int8 value is 1/128 of the
/// row's largest or 0, so that 18 bits hold every multiple.
const MOST_DIGITS: usize = 3;

/// A type of activations and results.
trait Number: Copy + Send + Sync {
    /// How an array holds it.
    type Raw: numpy::Element + Copy + Default + Send + Sync;
    /// Bits after the leading one; `None` where sums are rounded like the activations.
    const FRACTION: Option<i32>;

    fn widen(raw: Self::Raw) -> f32;
    fn narrow(value: f32) -> Self::Raw;

    /// `value`, rounded to this type.
    fn round(value: f32) -> f32 {
        Self::widen(Self::narrow(value))
    }
}

impl Number for f32 {
    type Raw = f32;
    const FRACTION: Option<i32> = None;

    fn widen(raw: f32) -> f32 {
        raw
    }
    fn narrow(value: f32) -> f32 {
        value
    }
}

impl Number for bf16 {
    type Raw = i16;
    const FRACTION: Option<i32> = Some(7);

    // Without branches, so that loops become vector instructions.
    fn widen(raw: i16) -> f32 {
        f32::from_bits(u32::from(raw as u16) << 16)
    }
    fn narrow(value: f32) -> i16 {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as i16;
        if value.is_nan() { 0x7fc0 } else { rounded }
    }
}

impl Number for f16 {
    type Raw = i16;
    const FRACTION: Option<i32> = Some(10);

    fn widen(raw: i16) -> f32 {
        f16::from_bits(raw as u16).to_f32()
    }
    fn narrow(value: f32) -> i16 {
        f16::from_f32(value).to_bits() as i16
    }
}

/// How a layer computes.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// Float activations.
    Float,
    /// `BitLinear`: the scale divides. In 16 bits its compiled functions round less often than the same functions do
    /// without a compiler.
    BitLinear { compiled: bool },
    /// `AutoBitLinear` with trits: the scale multiplies what was rounded.
    Offline,
    /// `AutoBitLinear` with latent weights: the scale is in the weights.
    Online,
}

impl Rule {
    fn read(name: &str) -> PyResult<Rule> {
        Ok(match name {
            "float" => Rule::Float,
            "bitlinear" => Rule::BitLinear { compiled: true },
            "bitlinear-eager" => Rule::BitLinear { compiled: false },
            "autobitlinear-offline" => Rule::Offline,
            "autobitlinear-online" => Rule::Online,
            other => {
                return Err(PyValueError::new_err(format!(
                    "rule is {other:?}; \"float\", \"bitlinear\", \"bitlinear-eager\", \"autobitlinear-offline\" and \
                     \"autobitlinear-online\" are possible"
                )));
            }
        })
    }
}

/// x times the transposed matrix, computed as a linear layer of transformers computes it.
///
/// x is float32 [m, k], or int16 [m, k] that holds the bits of elements, "bfloat16" or "float16"; the result is [m, n] of
/// the same type. rule is "float" for float activations with any scales; or "bitlinear" (the scale divides; with
/// "bitlinear-eager" in 16 bits as without a compiler), "autobitlinear-offline" (the scale multiplies) or
/// "autobitlinear-online" (the scale is in the weights) for int8 activations with one scale a row, which need a matrix
/// with one scale. bias is float32 [n]. A row of x with infinity or NaN gives NaN.
///
/// Raises TypeError and ValueError for arguments that do not fit, MemoryError.
#[pyfunction]
#[pyo3(signature = (x, matrix, *, rule, elements="float32", bias=None))]
pub fn linear<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    matrix: &PackedMatrix,
    rule: &str,
    elements: &str,
    bias: Option<&Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let n = matrix.matrix.n();
    let bias: Option<Argument<f32>> = match bias {
        Some(bias) => Some(arrays::read("bias", &format!("[{n}]"), bias, |shape| shape == [n])?),
        None => None,
    };
    let bias = bias.as_ref().map(Argument::values).transpose()?;
    let rule = Rule::read(rule)?;
    let scale = match (rule, &matrix.scales) {
        (Rule::Float, _) => 1.0,
        (_, Held::Tensor(scale)) => *scale,
        _ => return Err(PyValueError::new_err("matrix has several scales: rule must be \"float\" then")),
    };
    let layer = Layer { matrix: &matrix.matrix, rule, scale, bias };
    match elements {
        "float32" => layer.call::<f32>(py, x),
        "bfloat16" => layer.call::<bf16>(py, x),
        "float16" => layer.call::<f16>(py, x),
        other => Err(PyValueError::new_err(format!(
            "elements is {other:?}; \"float32\", \"bfloat16\" and \"float16\" are possible"
        ))),
    }
}

/// A layer's weights and how it computes.
struct Layer<'a> {
    matrix: &'a TernaryMatrix,
    rule: Rule,
    /// The scale of the whole matrix; 1 for [`Rule::Float`].
    scale: f32,
    /// `[n]`
    bias: Option<&'a [f32]>,
}

impl Layer<'_> {
    fn call<T: Number>(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let (n, k) = (self.matrix.n(), self.matrix.k());
        let fits = |shape: &[usize]| matches!(*shape, [_, columns] if columns == k);
        let x: Argument<T::Raw> = arrays::read("x", &format!("[m, {k}]"), x, fits)?;
        let (m, x) = (x.shape()[0], x.values()?);
        let mut out = arrays::zeros::<T::Raw>(&[m, n])?;
        on_pool(py, || {
            let parts = x.chunks(ROWS * k).zip(out.chunks_mut(ROWS * n));
            parts.into_iter().try_for_each(|(x, out)| match self.rule {
                Rule::Float => self.float::<T>(x, out),
                _ => self.int8::<T>(x, out),
            })
        })?
        .map_err(of_gemm)?;
        Ok(arrays::array(py, out, &[m, n])?.into_any())
    }

    fn bias(&self, row: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[row])
    }

    fn float<T: Number>(&self, x: &[T::Raw], out: &mut [T::Raw]) -> Result<(), GemmError> {
        let wide: Vec<f32> = x.iter().map(|&x| T::widen(x)).collect();
        let y = self.matrix.gemm(&wide, Precision::Float)?;
        for (out, y) in out.chunks_exact_mut(self.matrix.n()).zip(y.chunks_exact(self.matrix.n())) {
            for (row, (out, &y)) in out.iter_mut().zip(y).enumerate() {
                *out = T::narrow(y + self.bias(row));
            }
        }
        Ok(())
    }

    fn int8<T: Number>(&self, x: &[T::Raw], out: &mut [T::Raw]) -> Result<(), GemmError> {
        let (n, k) = (self.matrix.n(), self.matrix.k());
        let rows: Vec<Row> = x.par_chunks_exact(k).map(|x| self.quantize::<T>(x)).collect();
        let digits: Vec<&[i8]> = rows.iter().map(|row| &row.digits[..]).collect();
        let sums = self.matrix.gemm_i8(&digits.concat())?;
        let mut firsts = Vec::with_capacity(rows.len());
        let mut first = 0;
        for row in &rows {
            firsts.push(first);
            first += row.digits.len() / k;
        }
        out.par_chunks_exact_mut(n).zip(&rows).zip(firsts).for_each(|((out, row), first)| {
            let digits = row.digits.len() / k;
            self.finish::<T>(row, &sums[first * n..(first + digits) * n], out);
        });
        Ok(())
    }

    /// Quantizes a row as the rule says.
    fn quantize<T: Number>(&self, x: &[T::Raw]) -> Row {
        let x: Vec<f32> = x.iter().map(|&x| T::widen(x)).collect();
        // The bits of magnitudes are in the order of magnitudes, and those of NaN are the largest.
        let largest = f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
        if !largest.is_finite() {
            return Row { s: f32::NAN, unit: 1.0, digits: vec![0; x.len()] };
        }
        // torch divides by multiplying with the reciprocal.
        let s = match self.rule {
            Rule::BitLinear { compiled: true } => T::round(MOST * (1.0 / largest.max(FLOOR))),
            Rule::BitLinear { compiled: false } => {
                T::round(MOST * T::round(1.0 / largest.max(T::round(FLOOR))))
            }
            _ => MOST * (1.0 / largest.max(FLOOR)),
        };
        let fraction = match (self.rule, T::FRACTION) {
            (Rule::BitLinear { compiled: false }, _) => return Row::of(&x, s, |x| T::round(x * s)),
            (Rule::BitLinear { .. }, _) | (_, None) => return Row::of(&x, s, |x| x * s),
            (_, Some(fraction)) => fraction,
        };
        // The values q / s, rounded to the type, are multiples of this unit: those of 1 / s have an exponent that is at
        // most 7 less than that of the largest.
        let rounded: Vec<f32> = x.iter().map(|&x| T::round(nearest(x * s) / s)).collect();
        let top = f32::from_bits(rounded.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
        let exponent = (top.max(FLOOR / MOST).to_bits() >> 23) as i32 - 127 - fraction - 7;
        let units = 2f32.powi(-exponent);
        let mut rest: Vec<i32> = rounded.iter().map(|&x| integer(x * units)).collect();
        let mut digits = Vec::with_capacity(2 * x.len());
        for _ in 0..MOST_DIGITS {
            digits.extend(rest.iter().map(|&rest| rest as i8));
            rest.iter_mut().for_each(|rest| *rest = (*rest - i32::from(*rest as i8)) >> 8);
            if rest.iter().all(|&rest| rest == 0) {
                break;
            }
        }
        Row { s, unit: 2f32.powi(exponent), digits }
    }

    /// Writes the results `[n]` of a row from the sums `[digits, n]`.
    fn finish<T: Number>(&self, row: &Row, sums: &[i32], out: &mut [T::Raw]) {
        let (n, w, s, unit) = (self.matrix.n(), T::round(self.scale), row.s, row.unit);
        if s.is_nan() {
            return out.fill(T::narrow(f32::NAN));
        }
        let (low, more) = sums.split_at(n);
        let total: Vec<f32> = match more.len() / n {
            0 => low.iter().map(|&sum| sum as f32).collect(),
            1 => low.iter().zip(more).map(|(&low, &high)| both(low, high) as f32).collect(),
            _ => {
                let (middle, high) = more.split_at(n);
                let higher = middle.iter().zip(high).map(|(&middle, &high)| both(middle, high));
                low.iter().zip(higher).map(|(&low, high)| (f64::from(low) + 256.0 * high) as f32).collect()
            }
        };
        match (self.rule, T::FRACTION) {
            (Rule::BitLinear { compiled }, _) => {
                let divisor = if compiled { w * s } else { T::round(w * s) };
                self.each::<T>(&total, out, |sum, bias| T::round(T::round(sum) / divisor) + bias);
            }
            (Rule::Online, None) => self.each::<T>(&total, out, |sum, bias| sum / s * w + bias),
            (_, None) => self.each::<T>(&total, out, |sum, bias| (sum / s + bias) * w),
            (Rule::Online, _) => self.each::<T>(&total, out, |sum, bias| sum * unit * w + bias),
            (..) => self.each::<T>(&total, out, |sum, bias| T::round(sum * unit + bias) * w),
        }
    }

    /// Writes `y` of each sum and the bias there.
    fn each<T: Number>(&self, sums: &[f32], out: &mut [T::Raw], y: impl Fn(f32, f32) -> f32) {
        let sums = out.iter_mut().zip(sums);
        match self.bias {
            Some(bias) => sums.zip(bias).for_each(|((out, &sum), &bias)| *out = T::narrow(y(sum, bias))),
            None => sums.for_each(|(out, &sum)| *out = T::narrow(y(sum, 0.0))),
        }
    }
}

/// A quantized row: the sum of its digits `[digits, k]`, each 256 times the one before, times `unit`, where it was rounded
/// to 16 bits; else one digit, to be divided by `s`.
struct Row {
    s: f32,
    unit: f32,
    digits: Vec<i8>,
}

impl Row {
    /// The row of one digit, `scaled` and rounded to integers.
    fn of(x: &[f32], s: f32, scaled: impl Fn(f32) -> f32) -> Row {
        Row { s, unit: 1.0, digits: x.iter().map(|&x| integer(nearest(scaled(x))) as i8).collect() }
    }
}

/// Adding 1.5 * 2^23 leaves no bits after the point. That needs no instruction that the oldest CPUs lack.
const SHIFT: f32 = 12_582_912.0;

/// The integer nearest to `x`, halves to even, for magnitudes below 2^22.
fn integer(x: f32) -> i32 {
    (x + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32
}

/// The nearest integer that int8 holds, halves to even.
fn nearest(x: f32) -> f32 {
    x.clamp(-128.0, MOST) + SHIFT - SHIFT
}

/// Two digits of a sum.
fn both(low: i32, high: i32) -> f64 {
    f64::from(low) + 256.0 * f64::from(high)
}
