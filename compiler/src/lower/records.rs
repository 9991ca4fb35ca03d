//! Records of what stands in a bundle beside the plan: packed matrices, tensors, planes, each with its place in its
//! section.

use super::{ALIGNMENT, TensorData};
use crate::error::CompileError;
use crate::model::{Dense, NormWeights, Scales, Ternary};
use crate::pack::planes;
use std::borrow::Cow;
use trit_format::dense243::Code;
use trit_format::kernel::MAX_K;
use trit_format::manifest::{Grouping, PackedMatrix, Planes, RowOrder, Segment, Tensor};
use trit_format::plan::{ActivationRule, DType, PackedMatrixId, PlanesId, ScaleRule, TensorId};

/// Records made so far.
pub(super) struct Records<'m> {
    pub code: Code,
    pub packed_matrices: Vec<PackedMatrix>,
    pub matrices: Vec<Vec<&'m Ternary>>,
    pub planes: Vec<Planes>,
    pub tensors: Vec<Tensor>,
    pub data: Vec<TensorData<'m>>,
}

impl<'m> Records<'m> {
    pub fn new(code: Code) -> Records<'m> {
        let (packed_matrices, matrices, planes) = (Vec::new(), Vec::new(), Vec::new());
        Records { code, packed_matrices, matrices, planes, tensors: Vec::new(), data: Vec::new() }
    }

    /// Planes of a head's table, where it is large enough for them.
    pub fn planes(&mut self, table: TensorId) -> Option<PlanesId> {
        planes::layout(&self.tensors[table.0 as usize].shape)?;
        // A model has one head.
        self.planes.push(Planes { table, offset: 0 });
        Some(PlanesId(self.planes.len() as u32 - 1))
    }

    pub fn f32(&mut self, name: &str, shape: Vec<usize>, values: Cow<'m, [f32]>) -> TensorId {
        let data = TensorData::F32(values);
        push_tensor(&mut self.tensors, &mut self.data, name, DType::F32, shape, data)
    }

    pub fn norm(&mut self, (name, weights): &'m NormWeights) -> TensorId {
        self.f32(name, vec![weights.len()], Cow::Borrowed(weights))
    }

    pub fn dense(&mut self, dense: &'m Dense) -> Result<TensorId, CompileError> {
        let found = (*dense.data).as_ref().len();
        if dense.stored_bytes() != Some(found) {
            return Err(CompileError::Internal(format!(
                "tensor {} {:?} of {} has {found} bytes",
                dense.name, dense.shape, dense.dtype
            )));
        }
        let (shape, data) = (dense.shape.clone(), TensorData::Checkpoint(dense));
        Ok(push_tensor(&mut self.tensors, &mut self.data, &dense.name, dense.dtype, shape, data))
    }

    /// A packed matrix of `matrices`, whose input is quantized by `rule`.
    pub fn pack(
        &mut self,
        name: String,
        order: RowOrder,
        matrices: Vec<&'m Ternary>,
        rule: ActivationRule,
    ) -> Result<PackedMatrixId, CompileError> {
        let k = matrices.first().map_or(0, |m| m.k);
        if let Some(other) = matrices.iter().find(|m| m.k != k || m.rows == 0) {
            return Err(CompileError::Internal(format!(
                "product {name}: {} is [{}, {}] beside matrices with {k} columns",
                other.name, other.rows, other.k
            )));
        }
        let grouping = rule.columns().map(|columns| grouping(&matrices, columns)).transpose()?;
        if grouping.is_none() && !(1..=MAX_K as usize).contains(&k) {
            return Err(CompileError::Unsupported {
                path: name.into(),
                problem: format!(
                    "has {k} columns; integer sums are exact for 1 to {MAX_K}, so larger matrices are not compiled"
                ),
            });
        }
        let segments = matrices.iter().map(|m| segment(m, grouping.is_some())).collect::<Result<_, _>>()?;
        let code = if matrices.iter().all(|m| m.is_signs()) { Code::Binary } else { self.code };
        let offset = self.packed_matrices.last().map_or(0, |p| p.offset + packed_bytes(p));
        self.packed_matrices.push(PackedMatrix {
            name,
            k: k as u32,
            code,
            order,
            grouping,
            segments,
            offset,
        });
        self.matrices.push(matrices);
        Ok(PackedMatrixId(self.packed_matrices.len() as u32 - 1))
    }
}

/// One matrix in a packed matrix. A grouped packed matrix holds the scales of its matrices itself.
fn segment(matrix: &Ternary, grouped: bool) -> Result<Segment, CompileError> {
    let (name, rows) = (matrix.name.clone(), matrix.rows as u32);
    match matrix.scales {
        _ if grouped => Ok(Segment { name, rows, scale: 1.0, rule: ScaleRule::Multiply }),
        Scales::Tensor { scale, rule } => Ok(Segment { name, rows, scale, rule }),
        Scales::Rows { .. } => {
            Err(CompileError::Internal(format!("{name} has scales of rows, but its product is not grouped")))
        }
    }
}

/// How scales stand in a packed matrix of `matrices` with groups of `columns`. They are as fine as the finest matrix
/// needs, in a type that holds them all exactly.
fn grouping(matrices: &[&Ternary], columns: u32) -> Result<Grouping, CompileError> {
    let mut scale_columns = 0;
    for matrix in matrices {
        let Scales::Rows { columns: own, .. } = matrix.scales else { continue };
        if !own.is_multiple_of(columns) {
            return Err(CompileError::Unsupported {
                path: matrix.name.clone().into(),
                problem: format!(
                    "has a scale for each {own} columns; kernels have groups of 32, 64 or 128 columns, so only \
                     multiples of 32 can be compiled"
                ),
            });
        }
        scale_columns = gcd(scale_columns, own);
    }
    let mut types = matrices.iter().map(|m| m.scale_dtype());
    let first = types.next().unwrap_or(DType::F32);
    let scale = if types.all(|dtype| dtype == first) { first } else { DType::F32 };
    Ok(Grouping { columns, scale_columns, scale })
}

/// 0 means one scale a row, and every other number is finer.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes of a packed matrix in the weight section. They fit, because the matrices were in memory or in a file.
pub(crate) fn packed_bytes(packed: &PackedMatrix) -> u64 {
    packed.bytes().expect("a matrix that exists has a size")
}

pub(super) fn push_tensor<'m>(
    tensors: &mut Vec<Tensor>,
    data: &mut Vec<TensorData<'m>>,
    name: &str,
    dtype: DType,
    shape: Vec<usize>,
    source: TensorData<'m>,
) -> TensorId {
    let end = tensors.last().map_or(0, |t| t.offset + t.bytes().expect("a tensor that exists has a size"));
    let shape = shape.into_iter().map(|d| d as u64).collect();
    tensors.push(Tensor { name: name.to_owned(), dtype, shape, offset: end.next_multiple_of(ALIGNMENT) });
    data.push(source);
    TensorId(tensors.len() as u32 - 1)
}
