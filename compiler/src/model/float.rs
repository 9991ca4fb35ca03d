//! Floats as checkpoints store them, widened to f32.

use half::{bf16, f16};
use trit_format::coded::{self, RowLayout};
use trit_format::plan::DType;

/// Element types of float tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatType {
    F32,
    F16,
    Bf16,
}

impl FloatType {
    pub(crate) fn dtype(self) -> DType {
        match self {
            FloatType::F32 => DType::F32,
            FloatType::F16 => DType::F16,
            FloatType::Bf16 => DType::Bf16,
        }
    }

    /// Calls `f` with every element of `bytes`, widened to f32.
    pub(crate) fn each(self, bytes: &[u8], mut f: impl FnMut(f32)) {
        match self {
            FloatType::F32 => bytes.as_chunks().0.iter().for_each(|&b| f(f32::from_le_bytes(b))),
            FloatType::F16 => bytes.as_chunks().0.iter().for_each(|&b| f(f16::from_le_bytes(b).to_f32())),
            FloatType::Bf16 => bytes.as_chunks().0.iter().for_each(|&b| f(widen_bf16(b))),
        }
    }
}

/// A bf16 is the upper half of an f32. The crate `half` treats NaN apart; this function does not, so that loops over
/// it vectorize.
pub(crate) fn widen_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Widens row `row` of a matrix of little-endian floats, or of codes, to f32.
pub(crate) fn widen_row(dtype: DType, matrix: &[u8], row: usize, out: &mut [f32]) {
    if let Some(layout) = RowLayout::new(dtype, out.len() as u64) {
        let bytes = &matrix[row * layout.bytes()..][..layout.bytes()];
        return coded::decode_row(layout, bytes, out).expect("slices of the layout's own lengths");
    }
    let len = out.len() * dtype.size();
    let bytes = &matrix[row * len..][..len];
    match dtype {
        DType::F32 => widen(bytes, out, f32::from_le_bytes),
        DType::F16 => widen(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::Bf16 => widen(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        // Checkpoints give no other type, and `Model::check` refuses others in models that were made by hand.
        other => unreachable!("matrices hold no {other:?}"),
    }
}

fn widen<const N: usize>(bytes: &[u8], out: &mut [f32], one: impl Fn([u8; N]) -> f32) {
    for (x, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *x = one(b);
    }
}
