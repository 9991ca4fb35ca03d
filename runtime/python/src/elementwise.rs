//! Packed arrays of trits, element-wise arithmetic on them and on int8 arrays, and chains of operations in one pass.

use crate::arrays::{self, Argument};
use crate::errors::of_gemm;
use crate::threads::on_pool;
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::{Arc, Mutex, PoisonError};
use trit_gemm::GemmError;
use trit_gemm::elementwise::{
    Chain, ChainBuilder, PackedTrits as Packed, Value, tadd_i8, ternary_fma_i8, tmax_i8, tmin_i8, tmul_i8,
    tnot_i8,
};

/// Elements of arrays that are worth the pool of threads.
const LARGE: usize = 1 << 20;

/// Runs `work` without the interpreter's lock, on the pool where there is enough of it.
fn run<T: Send>(py: Python<'_>, elements: usize, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    match elements < LARGE {
        true => Ok(py.detach(work)),
        false => on_pool(py, work),
    }
}

/// An array of trits in 1.6 bits each: canonical Dense243 bytes, five trits a byte, where each row of the last dimension
/// begins at a byte. It does not change, and threads may share it. trit.pack_trits and PackedTrits.from_bytes make one.
#[pyclass(frozen, module = "trit", name = "PackedTrits")]
pub struct PackedTrits {
    shape: Vec<usize>,
    packed: Packed,
}

impl PackedTrits {
    /// An array whose rows are those of the last dimension of `shape`.
    pub fn new(shape: Vec<usize>, packed: Packed) -> PackedTrits {
        PackedTrits { shape, packed }
    }
}

#[pymethods]
impl PackedTrits {
    /// Takes over canonical bytes: bytes, or uint8 of any shape, that are ceil(shape[-1] / 5) bytes for each row of the
    /// last dimension. shape is that of the trits.
    ///
    /// Raises TypeError and ValueError for arguments that do not fit, ValueError with the first byte that is 243 or above,
    /// or has a trit behind the end of its row that is not 0.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyAny>, shape: Vec<usize>) -> PyResult<PackedTrits> {
        let (rows, columns) = rows_of("shape", &shape)?;
        let packed = if let Ok(data) = data.cast::<PyBytes>() {
            Packed::from_bytes(data.as_bytes(), rows, columns)
        } else {
            let data: Argument<u8> = arrays::read("data", "bytes of packed trits", data, |_| true)?;
            let bytes = data.values()?;
            run(py, bytes.len(), || Packed::from_bytes(bytes, rows, columns))?
        };
        match packed {
            Ok(packed) => Ok(PackedTrits { shape, packed }),
            Err(error @ GemmError::Memory { .. }) => Err(of_gemm(error)),
            Err(error) => Err(PyValueError::new_err(format!("data does not fit: {error}"))),
        }
    }

    /// The shape of the trits.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Number of trits.
    #[getter]
    fn size(&self) -> usize {
        self.packed.rows() * self.packed.columns()
    }

    /// Number of bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.packed.bytes().len()
    }

    /// A copy of its bytes, uint8 [..., ceil(shape[-1] / 5)].
    fn canonical(&self, py: Python<'_>) -> PyResult<Py<PyArrayDyn<u8>>> {
        let mut shape = self.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = last.div_ceil(5);
        }
        arrays::array(py, self.packed.bytes().to_vec(), &shape)
    }

    /// Its bytes, for numpy.frombuffer and files.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.packed.bytes())
    }

    /// Its trits, int8 of its shape.
    fn unpack(&self, py: Python<'_>) -> PyResult<Py<PyArrayDyn<i8>>> {
        let array = empty(py, &self.shape)?;
        let mut target = array
            .try_readwrite()
            .map_err(|_| PyTypeError::new_err("numpy.empty gave no array of its own"))?;
        let trits = target.as_slice_mut()?;
        run(py, self.size(), || self.packed.unpack_into(trits))?.map_err(of_gemm)?;
        drop(target);
        Ok(array.unbind())
    }

    fn __eq__(&self, other: &PackedTrits) -> bool {
        self.shape == other.shape && self.packed == other.packed
    }

    fn __repr__(&self) -> String {
        format!("<trit.PackedTrits {}, {} bytes>", arrays::words(&self.shape), self.nbytes())
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        let (py, this) = (slf.py(), slf.get());
        let from_bytes = slf.get_type().getattr("from_bytes")?;
        let arguments = (this.tobytes(py), this.shape(py)?);
        Ok((from_bytes.unbind(), arguments.into_pyobject(py)?.into_any().unbind()))
    }
}

/// Rows and columns of an array with this shape.
fn rows_of(name: &str, shape: &[usize]) -> PyResult<(usize, usize)> {
    let Some((&columns, rows)) = shape.split_last() else {
        return Err(PyValueError::new_err(format!(
            "{name} must have at least one dimension: pass a shape of (1,)"
        )));
    };
    // The bytes are no more than the trits, whose number must fit too.
    let rows = rows.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    rows.filter(|rows| rows.checked_mul(columns).is_some_and(|n| isize::try_from(n).is_ok()))
        .map(|rows| (rows, columns))
        .ok_or_else(|| {
            PyValueError::new_err(format!("{name} {} has too many elements", arrays::words(shape)))
        })
}

/// Packs an array of trits, int8 [..., k] of -1, 0 and 1, in canonical bytes: five to a byte, each row of k beginning at a
/// byte.
///
/// Raises TypeError for another type, ValueError for an array without dimensions and for the first value that is no trit,
/// MemoryError.
#[pyfunction]
#[pyo3(signature = (trits, /))]
pub fn pack_trits(py: Python<'_>, trits: &Bound<'_, PyAny>) -> PyResult<PackedTrits> {
    let fits = |shape: &[usize]| !shape.is_empty();
    let trits: Argument<i8> = arrays::read("trits", "[..., k] with at least one dimension", trits, fits)?;
    let (rows, columns) = rows_of("trits", trits.shape())?;
    let values = trits.values()?;
    let packed = match values.is_empty() {
        true => Packed::zeros(rows, columns),
        false => run(py, values.len(), || Packed::pack(values, columns))?,
    };
    match packed {
        Ok(packed) => Ok(PackedTrits { shape: trits.shape().to_vec(), packed }),
        Err(GemmError::Trit { row, column, value }) => {
            Err(no_trit("trits", row * columns + column, value, trits.shape()))
        }
        Err(other) => Err(of_gemm(other)),
    }
}

/// The trits of a packed array, int8 of its shape.
#[pyfunction]
#[pyo3(signature = (packed, /))]
pub fn unpack_trits(py: Python<'_>, packed: &PackedTrits) -> PyResult<Py<PyArrayDyn<i8>>> {
    packed.unpack(py)
}

/// The error for an element that is no trit.
fn no_trit(name: &str, index: usize, value: i8, shape: &[usize]) -> PyErr {
    let mut at = vec![0; shape.len()];
    let mut rest = index;
    for (at, n) in at.iter_mut().zip(shape).rev() {
        (*at, rest) = (rest % n.max(&1), rest / n.max(&1));
    }
    let at = at.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    PyValueError::new_err(format!(
        "{name}[{at}] is {value}; -1, 0 and 1 are possible: pass numpy.sign({name})"
    ))
}

/// A value in a function that trit.fuse puts together: what its parameters are, and what operations of them give.
#[pyclass(frozen, module = "trit", name = "TritExpression")]
pub struct TritExpression {
    builder: Arc<Mutex<ChainBuilder>>,
    value: Value,
}

impl TritExpression {
    /// The value of an operation of expressions.
    fn of(
        operands: &[&Bound<'_, TritExpression>],
        operation: impl FnOnce(&mut ChainBuilder, &[Value]) -> Value,
    ) -> PyResult<TritExpression> {
        let builder = operands[0].get().builder.clone();
        if operands.iter().any(|operand| !Arc::ptr_eq(&operand.get().builder, &builder)) {
            return Err(PyValueError::new_err("these values belong to different calls of trit.fuse"));
        }
        let values: Vec<Value> = operands.iter().map(|operand| operand.get().value).collect();
        let value = operation(&mut builder.lock().unwrap_or_else(PoisonError::into_inner), &values);
        Ok(TritExpression { builder, value })
    }
}

#[pymethods]
impl TritExpression {
    fn __repr__(&self) -> &'static str {
        "<trit.TritExpression>"
    }
}

/// Operations of arrays in one pass over memory, which trit.fuse makes.
#[pyclass(frozen, module = "trit", name = "FusedTrits")]
pub struct FusedTrits {
    chain: Chain,
    names: Vec<String>,
}

#[pymethods]
impl FusedTrits {
    /// Runs on arrays of equal shape, all packed or all int8; see trit.fuse.
    #[pyo3(signature = (*arrays, out=None))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arrays: Vec<Bound<'py, PyAny>>,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        if arrays.len() != self.names.len() {
            let (names, given) = (self.names.join(", "), arrays.len());
            let takes = self.names.len();
            return Err(PyTypeError::new_err(format!(
                "it takes {takes} arrays ({names}), and {given} were given"
            )));
        }
        let operands: Vec<(&str, &Bound<'py, PyAny>)> =
            self.names.iter().map(String::as_str).zip(&arrays).collect();
        if let Some(packed) = all_packed(&operands, out.as_ref())? {
            return packed_result(py, &packed, |x| self.chain.run(x));
        }
        trits_result(py, &operands, out, |x, out| self.chain.run_i8(x, out))
    }

    /// Names of the arrays it takes.
    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.names)
    }

    /// Number of operations it does; opposites cost nothing and are not counted.
    #[getter]
    fn operations(&self) -> usize {
        self.chain.operations()
    }

    fn __repr__(&self) -> String {
        format!("<trit.FusedTrits of {}, {} operations>", self.names.join(", "), self.operations())
    }
}

/// Values for the parameters of a function that trit.fuse puts together.
#[pyfunction]
pub fn _expressions(count: usize) -> Vec<TritExpression> {
    let mut builder = Chain::builder();
    let values: Vec<Value> = (0..count).map(|_| builder.input()).collect();
    let builder = Arc::new(Mutex::new(builder));
    values.into_iter().map(|value| TritExpression { builder: builder.clone(), value }).collect()
}

/// The operations that give a value.
#[pyfunction]
pub fn _fused(result: &TritExpression, parameters: Vec<String>) -> PyResult<FusedTrits> {
    let builder = result.builder.lock().unwrap_or_else(PoisonError::into_inner);
    let chain = builder.finish(result.value).map_err(of_gemm)?;
    match chain.inputs() == parameters.len() {
        true => Ok(FusedTrits { chain, names: parameters }),
        false => Err(PyValueError::new_err("the result belongs to another call of trit.fuse")),
    }
}

/// All operands, where they are packed; `None` where they are arrays. What is mixed is refused.
fn all_packed<'a, 'py>(
    operands: &[(&str, &'a Bound<'py, PyAny>)],
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Vec<(String, &'a PackedTrits)>>> {
    let packed: Vec<_> = operands.iter().map(|(_, operand)| operand.cast::<PackedTrits>()).collect();
    if !packed.iter().any(Result::is_ok) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for ((name, operand), packed) in operands.iter().zip(packed) {
        let packed = packed.map_err(|_| {
            let kind = operand.get_type();
            PyTypeError::new_err(format!(
                "{name} must be a trit.PackedTrits as other operands are, not {kind}: pass trit.pack_trits({name})"
            ))
        })?;
        found.push(((*name).to_owned(), packed.get()));
    }
    if out.is_some() {
        return Err(PyTypeError::new_err(
            "out is for int8 arrays, and packed arrays do not change: leave it away",
        ));
    }
    Ok(Some(found))
}

/// The result of packed operands.
fn packed_result(
    py: Python<'_>,
    operands: &[(String, &PackedTrits)],
    work: impl FnOnce(&[&Packed]) -> Result<Packed, GemmError> + Send,
) -> PyResult<Py<PyAny>> {
    let Some(((first_name, first), others)) = operands.split_first() else {
        return Err(PyTypeError::new_err("there are no operands"));
    };
    for (name, other) in others {
        if other.shape != first.shape {
            return Err(other_shape(name, &other.shape, first_name, &first.shape));
        }
    }
    let packed: Vec<&Packed> = operands.iter().map(|(_, operand)| &operand.packed).collect();
    let packed = run(py, first.nbytes(), || work(&packed))?.map_err(of_gemm)?;
    Ok(Py::new(py, PackedTrits { shape: first.shape.clone(), packed })?.into_any())
}

fn other_shape(name: &str, found: &[usize], first: &str, expected: &[usize]) -> PyErr {
    PyValueError::new_err(format!(
        "{name} must have the shape of {first}, {}, but has the shape {}: arrays are not broadcast, pass \
         numpy.broadcast_to({name}, {first}.shape)",
        arrays::words(expected),
        arrays::words(found)
    ))
}

/// The result of int8 operands, into `out` or a new array.
fn trits_result<'py>(
    py: Python<'py>,
    operands: &[(&str, &Bound<'py, PyAny>)],
    out: Option<Bound<'py, PyAny>>,
    work: impl FnOnce(&[&[i8]], &mut [i8]) -> Result<(), GemmError> + Send,
) -> PyResult<Py<PyAny>> {
    let mut read: Vec<Argument<i8>> = Vec::new();
    for (name, operand) in operands {
        let mut found = None;
        // Before anything is copied.
        let fits = |shape: &[usize]| {
            let fits = read.first().is_none_or(|first| first.shape() == shape);
            if !fits {
                found = Some(shape.to_vec());
            }
            fits
        };
        let argument = arrays::read(name, "of the same shape", operand, fits);
        if let (Some(found), Some(first)) = (found, read.first()) {
            return Err(other_shape(name, &found, operands[0].0, first.shape()));
        }
        read.push(argument?);
    }
    let Some(shape) = read.first().map(|first| first.shape().to_vec()) else {
        return Err(PyTypeError::new_err("there are no operands"));
    };
    let values = read.iter().map(Argument::values).collect::<PyResult<Vec<&[i8]>>>()?;
    let named = |error| match error {
        GemmError::Operand { operand, index, value } => {
            no_trit(operands.get(operand).map_or("an operand", |(name, _)| name), index, value, &shape)
        }
        other => of_gemm(other),
    };
    let len = values.first().map_or(0, |first| first.len());
    if let Some(out) = out {
        let mut target = arrays::write::<i8>("out", &out, &shape)?;
        let into = target.as_slice_mut()?;
        run(py, len, || work(&values, into))?.map_err(named)?;
        drop(target);
        return Ok(out.unbind());
    }
    // NumPy's own memory, which nobody fills with zeros first.
    let result = empty(py, &shape)?;
    let mut target =
        result.try_readwrite().map_err(|_| PyTypeError::new_err("numpy.empty gave no array of its own"))?;
    let into = target.as_slice_mut()?;
    run(py, len, || work(&values, into))?.map_err(named)?;
    drop(target);
    Ok(result.into_any().unbind())
}

/// An int8 array of this shape that nothing was written to.
fn empty<'py>(py: Python<'py>, shape: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<i8>>> {
    let shape = PyTuple::new(py, shape)?;
    let array = py
        .import(intern!(py, "numpy"))?
        .call_method1(intern!(py, "empty"), (shape, numpy::dtype::<i8>(py)))?;
    Ok(array.cast_into::<PyArrayDyn<i8>>()?)
}

/// Expressions, where all operands are.
fn all_expressions<'a, 'py>(
    operands: &[(&str, &'a Bound<'py, PyAny>)],
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Vec<&'a Bound<'py, TritExpression>>>> {
    let found: Vec<_> = operands.iter().map(|(_, operand)| operand.cast::<TritExpression>()).collect();
    if !found.iter().any(Result::is_ok) {
        return Ok(None);
    }
    if out.is_some() {
        return Err(PyTypeError::new_err("out is for arrays: pass it to the fused function instead"));
    }
    let all = found.into_iter().zip(operands).map(|(found, (name, operand))| {
        found.map_err(|_| {
            let kind = operand.get_type();
            PyTypeError::new_err(format!(
                "{name} must be a parameter of the function that trit.fuse is given, or a result of these, not {kind}: make \
                 it a parameter"
            ))
        })
    });
    Ok(Some(all.collect::<PyResult<Vec<_>>>()?))
}

macro_rules! operations {
    ($($(#[$meta:meta])* $name:ident($($arg:ident),+) = $packed:expr, $int8:expr, $expression:expr;)*) => {
        $(
            $(#[$meta])*
            ///
            /// Operands are all int8 arrays or all PackedTrits, of equal shape: nothing is broadcast. The result is a new array of
            /// that kind and shape; int8 results go into out, int8 of that shape, where it is given.
            ///
            /// Raises TypeError and ValueError for arguments that do not fit, ValueError with the first element that is no trit
            /// (out then holds nothing of use), MemoryError.
            #[pyfunction]
            #[pyo3(signature = ($($arg,)+ /, *, out=None))]
            pub fn $name<'py>(
                py: Python<'py>,
                $($arg: &Bound<'py, PyAny>,)+
                out: Option<Bound<'py, PyAny>>,
            ) -> PyResult<Py<PyAny>> {
                let operands = [$((stringify!($arg), $arg)),+];
                if let Some(packed) = all_packed(&operands, out.as_ref())? {
                    return packed_result(py, &packed, $packed);
                }
                if let Some(expressions) = all_expressions(&operands, out.as_ref())? {
                    let expression = TritExpression::of(&expressions, $expression)?;
                    return Ok(Py::new(py, expression)?.into_any());
                }
                trits_result(py, &operands, out, $int8)
            }
        )*
    };
}

operations! {
    /// The saturating sum of trits, clip(a + b, -1, 1).
    tadd(a, b) = |x| x[0].tadd(x[1]), |x, out| tadd_i8(x[0], x[1], out), |b, x| b.tadd(x[0], x[1]);
    /// The product of trits, a * b.
    tmul(a, b) = |x| x[0].tmul(x[1]), |x, out| tmul_i8(x[0], x[1], out), |b, x| b.tmul(x[0], x[1]);
    /// The smaller of each two trits, minimum(a, b): Kleene's and.
    tmin(a, b) = |x| x[0].tmin(x[1]), |x, out| tmin_i8(x[0], x[1], out), |b, x| b.tmin(x[0], x[1]);
    /// The larger of each two trits, maximum(a, b): Kleene's or.
    tmax(a, b) = |x| x[0].tmax(x[1]), |x, out| tmax_i8(x[0], x[1], out), |b, x| b.tmax(x[0], x[1]);
    /// The opposite of each trit, -a: Kleene's not.
    tnot(a) = |x| x[0].tnot(), |x, out| tnot_i8(x[0], out), |b, x| b.tnot(x[0]);
    /// clip(a * b + c, -1, 1) of trits. The product of two trits is a trit, so that it saturates only once.
    ternary_fma(a, b, c) = |x| x[0].ternary_fma(x[1], x[2]), |x, out| ternary_fma_i8(x[0], x[1], x[2], out),
        |b, x| b.ternary_fma(x[0], x[1], x[2]);
}
