//! Ternary matrix kernels as machine code.
//!
//! A [`KernelSpec`] and a [`Target`] enter, bytes that run wherever they are placed leave. Nothing here runs them,
//! except that feature `jit` places them in this process's memory.
//!
//! | module | holds |
//! |---|---|
//! | [`program`] | a kernel as a small program over virtual vectors; its text form is [`program_text`] |
//! | `clif` | 128-bit vectors by Cranelift, for x86-64 and aarch64 |
//! | `jit` (feature `jit`) | emitted bytes, callable |
//!
//! The emitter is chosen by target. The x86-64 tiers with 512-bit vectors have none yet; asking for one gives
//! [`CodegenError::Unsupported`].
#![deny(unsafe_code)]

mod block;
mod clif;
mod disasm;
mod error;
#[cfg(feature = "jit")]
pub mod jit;
pub mod program;
mod text;

pub use disasm::disassemble_bytes;
pub use error::CodegenError;
#[cfg(feature = "jit")]
pub use jit::{JitCode, KernelFn};
pub use program::Program;

use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::target::{Arch, Target};
use trit_format::tile;

/// Most activation rows one call handles.
pub const MAX_M: u32 = 64;
/// Most quads one iteration of the inner loop handles.
pub const MAX_UNROLL: u32 = 16;
/// Activation rows of the block kernels in [`default_specs`].
pub const BLOCK_M: u32 = 4;

/// Targets that have an emitter, in the order of [`Target::ALL`].
pub const fn supported() -> &'static [Target] {
    &[Target::X86_64V2, Target::X86_64V3, Target::X86_64V3Vnni, Target::Aarch64, Target::Aarch64Dotprod]
}

/// The kernels a bundle carries for matrices of `k` columns stored as `code`: one activation row, then a block of
/// [`BLOCK_M`]. Empty where no emitter of the target reads the code.
pub fn default_specs(k: u32, code: Code, target: Target) -> Vec<KernelSpec> {
    if !supported().contains(&target) || code != Code::SignedFix {
        return Vec::new();
    }
    // One row is bound by memory, and on x86-64 passes over a tile more than once; see `clif` for what is prefetched.
    // On aarch64 it is read once, in order, which hardware prefetches. A block is bound by arithmetic.
    let ahead = if target.arch() == Arch::X86_64 { tile::bytes(k as usize) as u32 } else { 0 };
    let spec = |m, prefetch| KernelSpec { k, m, kind: KernelKind::Stream, code, unroll: 2, prefetch };
    vec![spec(1, ahead), spec(BLOCK_M, 0)]
}

/// Position-independent machine code of a kernel, without relocations: it may be placed at any multiple of 64 bytes
/// and is called as [`KernelArgs`](trit_format::kernel::KernelArgs) says. The same arguments give the same bytes.
///
/// # Errors
/// [`CodegenError`] for a target without an emitter or a specification out of range.
pub fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    if spec.kind == KernelKind::Block {
        return block::emit(spec, target);
    }
    clif::emit(&Program::new(spec, target)?)
}

/// The instructions of a kernel as the emitter names them, with its labels. For bytes from elsewhere see
/// [`disassemble_bytes`].
///
/// # Errors
/// As [`emit`].
pub fn disassemble(spec: &KernelSpec, target: Target) -> Result<String, CodegenError> {
    if spec.kind == KernelKind::Block {
        return Ok(disassemble_bytes(&block::emit(spec, target)?, target));
    }
    clif::disassemble(&Program::new(spec, target)?)
}

/// The text form of a kernel's program.
///
/// # Errors
/// As [`emit`].
pub fn program_text(spec: &KernelSpec, target: Target) -> Result<String, CodegenError> {
    Ok(Program::new(spec, target)?.to_string())
}
