//! Block kernels: a tile's digits are decoded once into scratch memory and multiplied with many activation rows. x86-64
//! has them from AVX2 on, aarch64 always.

mod amx;
mod arguments;
pub(crate) mod asm;
mod decode;
pub(crate) mod neon;
pub(crate) mod vector;

use crate::error::{CodegenError, check};
use crate::specs::MAX_GROUP;
use crate::tier::{Method, Tier};
use trit_format::dense243::Code;
use trit_format::kernel::{GROUP_COLUMNS, KernelKind, KernelSpec};
use trit_format::target::Target;
use trit_format::tile::padded_k;

/// From how many activation rows on the block kernel of the target for weights of this code is faster than stream
/// kernels. `None` where [`emit`] serves no such kernel.
pub(crate) fn fewest_rows(k: u32, target: Target, code: Code) -> Option<u32> {
    let rows = Tier::of(target).fewest_rows(code)?;
    Some(if k <= MAX_GROUP { rows.group } else { rows.matrix })
}

/// The same of kernels that turn the sums of groups of `k` columns into floats.
pub(crate) fn fewest_grouped_rows(k: u32, target: Target, code: Code) -> Option<u32> {
    let has_some = matches!(Tier::of(target).block.as_ref()?.method, Method::Vector(_) | Method::Amx);
    fewest_rows(k, target, code).filter(|_| has_some && GROUP_COLUMNS.contains(&k))
}

/// How `k` columns, filled up to a multiple of `unit`, are cut into chunks of at most `most`, a multiple of it, and of about
/// the same size: columns of all chunks but the last, of the last, and how many chunks.
fn chunks(k: usize, unit: usize, most: usize) -> (usize, usize, usize) {
    let columns = padded_k(k).next_multiple_of(unit);
    let size = columns.div_ceil(columns.div_ceil(most)).next_multiple_of(unit);
    let count = columns.div_ceil(size);
    (size, columns - (count - 1) * size, count)
}

/// Machine code of a block kernel.
pub(crate) fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    check(spec)?;
    let block = Tier::of(target).block.as_ref().ok_or(CodegenError::Unsupported { target })?;
    if fewest_rows(spec.k, target, spec.code).is_none() {
        return Err(CodegenError::Code { spec: *spec, target });
    }
    if spec.kind == KernelKind::Grouped && fewest_grouped_rows(spec.k, target, spec.code).is_none() {
        return Err(CodegenError::Kind { spec: *spec, target });
    }
    match block.method {
        Method::Vector(blocking) => vector::emit(spec, blocking).map_err(|e| e.to_string()),
        Method::Amx if spec.kind == KernelKind::Grouped => {
            amx::grouped::emit(spec).map_err(|e| e.to_string())
        }
        Method::Amx => amx::emit(spec).map_err(|e| e.to_string()),
        Method::Neon(blocking) => neon::emit(spec, blocking),
    }
    .map_err(|e| CodegenError::backend(spec, target, e))
}
