//! Types of PyTorch's storages.

use crate::checkpoint::ElementType;
use safetensors::Dtype;

/// A class of storages: the type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageType {
    /// The type of elements as safetensors names it.
    dtype: Dtype,
    /// Bytes of an element.
    pub(super) size: u64,
}

const TYPES: [(&str, Dtype, u64); 10] = [
    ("FloatStorage", Dtype::F32, 4),
    ("HalfStorage", Dtype::F16, 2),
    ("BFloat16Storage", Dtype::BF16, 2),
    ("DoubleStorage", Dtype::F64, 8),
    ("ByteStorage", Dtype::U8, 1),
    ("CharStorage", Dtype::I8, 1),
    ("ShortStorage", Dtype::I16, 2),
    ("IntStorage", Dtype::I32, 4),
    ("LongStorage", Dtype::I64, 8),
    ("BoolStorage", Dtype::BOOL, 1),
];

impl StorageType {
    /// The type of the class `torch.NAME`.
    pub(super) fn of(name: &str) -> Option<StorageType> {
        let (_, dtype, size) = TYPES.into_iter().find(|(class, ..)| *class == name)?;
        Some(StorageType { dtype, size })
    }

    pub(super) fn element(self) -> ElementType {
        self.dtype.into()
    }
}
