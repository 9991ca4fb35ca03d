//! Block kernels: a tile's digits are decoded once into scratch memory and meet many activation rows. x86-64 only,
//! from AVX2 on.

mod amx;
mod asm;
mod decode;
mod vector;

use crate::error::{CodegenError, check};
use crate::specs::MAX_GROUP;
use asm::Width;
use trit_format::dense243::Code;
use trit_format::kernel::KernelSpec;
use trit_format::target::Target;
use vector::Shape;

/// How a target multiplies.
enum Method {
    Vector(Shape),
    Amx,
}

fn method(target: Target) -> Option<Method> {
    let vector = |width, dot, rows, vectors, tail_vectors, quads| {
        Some(Method::Vector(Shape { width, dot, rows, vectors, tail_vectors, quads }))
    };
    match target {
        Target::X86_64V3 => vector(Width::Ymm, false, 6, 2, 2, 64),
        Target::X86_64V3Vnni => vector(Width::Ymm, true, 6, 2, 2, 96),
        Target::X86_64V4Vnni | Target::X86_64V4Vbmi => vector(Width::Zmm, true, 5, 5, 5, 96),
        Target::X86_64Amx => Some(Method::Amx),
        _ => None,
    }
}

/// Activation rows from which on the kernel of the target that reads weights of the code is faster than stream kernels,
/// as measured (examples/group_speed.rs): the more decoding in registers costs, the fewer rows pay for decoding to memory.
/// `None` where [`emit`] serves no such kernel.
pub(crate) fn fewest_rows(k: u32, target: Target, code: Code) -> Option<u32> {
    // A call of a block kernel serves one group, one of a stream kernel many.
    let grouped = k <= MAX_GROUP;
    match (target, code) {
        (Target::X86_64V3, Code::SignedFix) => Some(2),
        (Target::X86_64V3Vnni, Code::SignedFix) => Some(10),
        (Target::X86_64Amx, Code::SignedFix) => Some(if grouped { 8 } else { 5 }),
        (Target::X86_64V4Vnni | Target::X86_64V4Vbmi, Code::SignedFix)
        | (Target::X86_64V4Vbmi | Target::X86_64Amx, Code::Spread) => Some(if grouped { 8 } else { 7 }),
        _ => None,
    }
}

/// Machine code of a block kernel.
pub(crate) fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    check(spec)?;
    let method = method(target).ok_or(CodegenError::Unsupported { target })?;
    if fewest_rows(spec.k, target, spec.code).is_none() {
        return Err(CodegenError::Code { spec: *spec, target });
    }
    let code = match method {
        Method::Vector(shape) => vector::emit(spec, shape),
        Method::Amx => amx::emit(spec),
    };
    code.map_err(|e| CodegenError::backend(spec, target, e))
}
