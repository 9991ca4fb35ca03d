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
use trit_format::kernel::KernelSpec;
use trit_format::target::Target;

/// From how many activation rows on the block kernel of the target for weights of this code is faster than stream
/// kernels. `None` where [`emit`] serves no such kernel.
pub(crate) fn fewest_rows(k: u32, target: Target, code: Code) -> Option<u32> {
    let rows = Tier::of(target).fewest_rows(code)?;
    Some(if k <= MAX_GROUP { rows.group } else { rows.matrix })
}

/// Machine code of a block kernel.
pub(crate) fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    check(spec)?;
    let block = Tier::of(target).block.as_ref().ok_or(CodegenError::Unsupported { target })?;
    if fewest_rows(spec.k, target, spec.code).is_none() {
        return Err(CodegenError::Code { spec: *spec, target });
    }
    match block.method {
        Method::Vector(blocking) => vector::emit(spec, blocking).map_err(|e| e.to_string()),
        Method::Amx => amx::emit(spec).map_err(|e| e.to_string()),
        Method::Neon(blocking) => neon::emit(spec, blocking),
    }
    .map_err(|e| CodegenError::backend(spec, target, e))
}
