//! Block kernels: a tile's digits are decoded once into scratch memory and meet many activation rows. x86-64 only,
//! from AVX2 on.

mod amx;
mod asm;
mod decode;
mod vector;

use crate::error::{CodegenError, check};
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

/// Whether [`emit`] serves kernels of the target that read weights of the code.
pub(crate) fn serves(target: Target, code: Code) -> bool {
    method(target).is_some()
        && match code {
            Code::SignedFix => true,
            Code::Spread => target.features().contains(&"avx512vbmi"),
            _ => false,
        }
}

/// Machine code of a block kernel.
pub(crate) fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    check(spec)?;
    let method = method(target).ok_or(CodegenError::Unsupported { target })?;
    if !serves(target, spec.code) {
        return Err(CodegenError::Code { spec: *spec, target });
    }
    let code = match method {
        Method::Vector(shape) => vector::emit(spec, shape),
        Method::Amx => amx::emit(spec),
    };
    code.map_err(|e| CodegenError::backend(spec, target, e))
}
