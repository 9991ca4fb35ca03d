//! Packed ternary matrices, and their products with arrays.

use crate::arrays::{self, Argument};
use crate::elementwise::PackedTrits;
use crate::errors::of_gemm;
use crate::threads::on_pool;
use numpy::PyArrayDyn;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyInt};
use trit_gemm::matrix::MAX_N;
use trit_gemm::{GemmError, KernelRequest, PackOptions, Precision, Scales, TernaryMatrix};

/// The scales of a matrix, as they were given.
pub enum Held {
    Tensor(f32),
    Rows(Vec<f32>),
    Groups { columns: usize, scales: Vec<f32> },
}

impl Held {
    fn borrowed(&self) -> Scales<'_> {
        match self {
            Held::Tensor(scale) => Scales::Tensor(*scale),
            Held::Rows(scales) => Scales::Rows(scales),
            Held::Groups { columns, scales } => Scales::Groups { columns: *columns, scales },
        }
    }
}

/// A ternary matrix [n, k] in 1.6 bits a weight, or 1 bit where it has no zeros, with its scales. It does not change, and
/// threads may share it. `trit.pack` makes one.
#[pyclass(frozen, module = "trit", name = "PackedMatrix")]
pub struct PackedMatrix {
    pub(crate) matrix: TernaryMatrix,
    pub(crate) scales: Held,
    kernels: KernelRequest,
}

#[pymethods]
impl PackedMatrix {
    /// (n, k): rows are outputs, columns inputs.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.matrix.n(), self.matrix.k())
    }

    /// The scales as they were given: a float, or float32 [n], or float32 [n, groups].
    #[getter]
    fn scales(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let n = self.matrix.n();
        match &self.scales {
            Held::Tensor(scale) => Ok(PyFloat::new(py, f64::from(*scale)).into_any().unbind()),
            Held::Rows(scales) => Ok(arrays::array(py, scales.clone(), &[n])?.into_any()),
            Held::Groups { scales, .. } => {
                Ok(arrays::array(py, scales.clone(), &[n, scales.len() / n])?.into_any())
            }
        }
    }

    /// Columns that share a scale; None where a scale is for a row or for the whole matrix.
    #[getter]
    fn group_size(&self) -> Option<usize> {
        match self.scales {
            Held::Groups { columns, .. } => Some(columns),
            _ => None,
        }
    }

    /// What multiplies it: "jit" and the tier, or "portable".
    #[getter]
    fn kernels(&self) -> String {
        self.matrix.kernels().to_string()
    }

    /// Bytes of its weights in memory, with the scales of groups.
    #[getter]
    fn nbytes(&self) -> usize {
        self.matrix.bytes().len()
    }

    /// Its trits, int8 [n, k].
    fn unpack(&self, py: Python<'_>) -> PyResult<Py<PyArrayDyn<i8>>> {
        let trits = on_pool(py, || self.matrix.unpack())?;
        arrays::array(py, trits, &[self.matrix.n(), self.matrix.k()])
    }

    /// Its trits as a packed array [n, k], without the scales.
    fn packed_trits(&self, py: Python<'_>) -> PyResult<PackedTrits> {
        let packed = on_pool(py, || self.matrix.packed_trits())?.map_err(of_gemm)?;
        Ok(PackedTrits::new(vec![self.matrix.n(), self.matrix.k()], packed))
    }

    /// Its canonical Dense243 bytes, n rows of ceil(k / 5), for numpy.frombuffer and files. The scales are not among them.
    fn tobytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let packed = on_pool(py, || self.matrix.packed_trits())?.map_err(of_gemm)?;
        Ok(PyBytes::new(py, packed.bytes()))
    }

    fn __repr__(&self) -> String {
        let (n, k) = self.shape();
        let scales = match &self.scales {
            Held::Tensor(scale) => format!("scale {scale}"),
            Held::Rows(_) => "a scale a row".to_owned(),
            Held::Groups { columns, .. } => format!("a scale for {columns} columns"),
        };
        let kib = self.nbytes().div_ceil(1024);
        format!("<trit.PackedMatrix [{n}, {k}], {scales}, {kib} KiB, {}>", self.kernels())
    }

    /// Pickles as trits and scales: what is in memory is made for this machine.
    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        let (py, this) = (slf.py(), slf.get());
        let pack = py.import("trit")?.getattr("pack")?;
        let kernels = match this.kernels {
            KernelRequest::Portable => "portable",
            _ => "auto",
        };
        let arguments = (this.unpack(py)?, this.scales(py)?, this.group_size(), kernels);
        Ok((pack.unbind(), arguments.into_pyobject(py)?.into_any().unbind()))
    }
}

/// Packs a ternary matrix.
///
/// trits is int8 [n, k] of -1, 0 and 1. scales is a number for the whole matrix, float32 [n] for rows, or float32
/// [n, ceil(k / group_size)] for groups of group_size columns (a multiple of 32; without group_size all groups but the
/// last are the smallest possible). kernels is "auto", generated for this CPU, or "portable".
///
/// Raises TypeError for other types, ValueError for other shapes, a weight that is no trit (named by row and column) and
/// a scale that is not finite, MemoryError.
#[pyfunction]
#[pyo3(signature = (trits, scales=None, group_size=None, kernels="auto"))]
pub fn pack(
    py: Python<'_>,
    trits: &Bound<'_, PyAny>,
    scales: Option<&Bound<'_, PyAny>>,
    group_size: Option<usize>,
    kernels: &str,
) -> PyResult<PackedMatrix> {
    let kernels = match kernels {
        "auto" => KernelRequest::Auto,
        "portable" => KernelRequest::Portable,
        other => {
            return Err(PyValueError::new_err(format!(
                "kernels is {other:?}; \"auto\" and \"portable\" are possible"
            )));
        }
    };
    let possible = |shape: &[usize]| matches!(shape, &[n, _] if n <= MAX_N);
    let trits: Argument<i8> = arrays::read("trits", "[n, k] with at most 2^24 rows", trits, possible)?;
    let (n, k) = (trits.shape()[0], trits.shape()[1]);
    let scales = read_scales(scales, n, k, group_size)?;
    let values = trits.values()?;
    let options = PackOptions { kernels, ..PackOptions::default() };
    let matrix = on_pool(py, || TernaryMatrix::pack_with(values, n, k, scales.borrowed(), &options))?;
    Ok(PackedMatrix { matrix: matrix.map_err(of_gemm)?, scales, kernels })
}

/// Reads the scales of an [n, k] matrix.
fn read_scales(
    scales: Option<&Bound<'_, PyAny>>,
    n: usize,
    k: usize,
    group_size: Option<usize>,
) -> PyResult<Held> {
    let no_groups = |held: Held| match group_size {
        Some(columns) if !matches!(held, Held::Groups { .. }) => Err(PyValueError::new_err(format!(
            "group_size is {columns}, but scales have no groups: pass float32 [n, ceil(k / group_size)]"
        ))),
        _ => Ok(held),
    };
    let Some(scales) = scales else { return no_groups(Held::Tensor(1.0)) };
    if scales.is_instance_of::<PyFloat>() || scales.is_instance_of::<PyInt>() {
        return no_groups(Held::Tensor(scales.extract::<f64>()? as f32));
    }
    let fits = |shape: &[usize]| match *shape {
        [] => true,
        [rows] => rows == n,
        [rows, groups] => rows == n && (1..=k.max(1)).contains(&groups),
        _ => false,
    };
    let expected = format!("a number, or float32 [{n}], or float32 [{n}, groups]");
    let scales: Argument<f32> = arrays::read("scales", &expected, scales, fits)?;
    let values = scales.values()?.to_vec();
    match *scales.shape() {
        [] => no_groups(Held::Tensor(values[0])),
        [_] => no_groups(Held::Rows(values)),
        [.., groups] => {
            let columns = group_size.unwrap_or_else(|| k.div_ceil(groups).next_multiple_of(32));
            if columns == 0 || k.div_ceil(columns) != groups {
                return Err(PyValueError::new_err(format!(
                    "scales are for {groups} groups, but {k} columns in groups of {columns} are {}: pass group_size",
                    k.checked_div(columns).map_or(0, |_| k.div_ceil(columns))
                )));
            }
            Ok(Held::Groups { columns, scales: values })
        }
    }
}

/// The trits of a packed matrix, int8 [n, k].
#[pyfunction]
#[pyo3(signature = (matrix, /))]
pub fn unpack(py: Python<'_>, matrix: &PackedMatrix) -> PyResult<Py<PyArrayDyn<i8>>> {
    matrix.unpack(py)
}

/// x times the transposed matrix with its scales: float32 [m, k] to float32 [m, n], or [k] to [n].
///
/// activations says how x is multiplied: "float", as precise as float32 is for the largest value of 128 columns; "int8",
/// with one scale a row of x as BitNet models are trained (s = 127 / max|x|, q = round(x * s)); "int8-group", with one
/// scale for each group of columns. Sums are exact integers, so that results depend neither on threads nor on the CPU.
/// A row of x with infinity or NaN gives NaN. out is where results go, float32 of the result's shape.
///
/// Raises TypeError and ValueError for arguments that do not fit, MemoryError.
#[pyfunction]
#[pyo3(signature = (x, matrix, *, activations="float", out=None))]
pub fn gemm<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    matrix: &PackedMatrix,
    activations: &str,
    out: Option<Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let precision = match activations {
        "float" => Precision::Float,
        "int8" => Precision::Int8PerToken,
        "int8-group" => Precision::Int8PerGroup,
        other => {
            return Err(PyValueError::new_err(format!(
                "activations is {other:?}; \"float\", \"int8\" and \"int8-group\" are possible"
            )));
        }
    };
    multiply(py, x, matrix, out, |m, x, out| m.gemm_into(x, precision, out))
}

/// Exact sums of trits times int8 activations, without the scales: int8 [m, k] to int32 [m, n], or [k] to [n].
///
/// Raises TypeError and ValueError for arguments that do not fit, ValueError for a matrix with scales of groups,
/// MemoryError.
#[pyfunction]
#[pyo3(signature = (x, matrix, *, out=None))]
pub fn gemm_i8<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    matrix: &PackedMatrix,
    out: Option<Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    multiply(py, x, matrix, out, |m, x: &[i8], out: &mut [i32]| m.gemm_i8_into(x, out))
}

/// Multiplies rows of `X` into `out`, or into a new array.
fn multiply<'py, X: numpy::Element + Sync, Y: numpy::Element + Clone + Default + Send>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    matrix: &PackedMatrix,
    out: Option<Bound<'py, PyAny>>,
    product: impl Fn(&TernaryMatrix, &[X], &mut [Y]) -> Result<(), GemmError> + Sync,
) -> PyResult<Py<PyAny>> {
    let (n, k) = matrix.shape();
    let matrix = &matrix.matrix;
    let fits = |shape: &[usize]| (1..=2).contains(&shape.len()) && shape.last() == Some(&k);
    let x: Argument<X> = arrays::read("x", &format!("[m, {k}] or [{k}]"), x, fits)?;
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    let values = x.values()?;
    if let Some(out) = out {
        let mut target = arrays::write::<Y>("out", &out, &shape)?;
        let into = target.as_slice_mut()?;
        on_pool(py, || product(matrix, values, into))?.map_err(of_gemm)?;
        drop(target);
        return Ok(out.unbind());
    }
    let mut into = arrays::zeros(&shape)?;
    on_pool(py, || product(matrix, values, &mut into))?.map_err(of_gemm)?;
    Ok(arrays::array(py, into, &shape)?.into_any())
}
