//! Ternary matrix kernels as machine code.
//!
//! A [`KernelSpec`] and a [`Target`] enter, bytes that run wherever they are placed leave. Nothing here runs them,
//! except that feature `jit` places them in this process's memory.
//!
//! | module | holds |
//! |---|---|
//! | [`program`] | a kernel as a small program over virtual vectors; its text form is [`program_text`] |
//! | `clif` | 128-bit vectors by Cranelift, for x86-64 and aarch64 |
//! | `wide` | 256 and 512-bit vectors by iced-x86's assembler |
//! | `block` | kernels for blocks of rows, by the same assembler; for aarch64 by one of its own |
//! | `tier` | what sets one target apart from the others, and the numbers found by measuring |
//! | `specs` | which kernels a bundle carries |
//! | `jit` (feature `jit`) | emitted bytes, callable |
//!
//! The emitter is chosen by target.
//!
//! `unsafe` stands in 1 file: `jit.rs`, which places code in memory. The others deny it.
#![deny(unsafe_code)]

mod block;
mod clif;
mod disasm;
mod error;
#[cfg(feature = "jit")]
pub mod jit;
pub mod program;
mod specs;
mod text;
mod tier;
mod wide;

pub use disasm::disassemble_bytes;
pub use error::CodegenError;
#[cfg(feature = "jit")]
pub use jit::{JitCode, KernelFn};
pub use program::Program;
pub use specs::default_specs;

use tier::{Backend, Tier};
use trit_format::dense243::Code;
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::target::Target;

/// Targets that have an emitter, in the order of [`Target::ALL`].
pub const fn supported() -> &'static [Target] {
    &Target::ALL
}

/// The weight code that the kernels of all of `targets` read, the fastest such.
pub fn best_code(targets: &[Target]) -> Code {
    let reads = |target: &Target| Tier::of(*target).registers(Code::Spread).is_some();
    if !targets.is_empty() && targets.iter().all(reads) { Code::Spread } else { Code::SignedFix }
}

/// Position-independent machine code of a kernel, without relocations: it may be placed at any multiple of 64 bytes
/// and is called as [`KernelArgs`](trit_format::kernel::KernelArgs) says. The same arguments give the same bytes.
///
/// # Errors
/// [`CodegenError`] for a target without an emitter or a specification out of range.
pub fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    if spec.kind != KernelKind::Stream {
        return block::emit(spec, target);
    }
    let program = Program::new(spec, target)?;
    match Tier::of(target).backend {
        Backend::Cranelift { .. } => clif::emit(&program),
        Backend::Wide => wide::emit(&program),
    }
}

/// The instructions of a kernel: as Cranelift names them, with its labels, where Cranelift emits it. For bytes from
/// elsewhere see [`disassemble_bytes`].
///
/// # Errors
/// As [`emit`].
pub fn disassemble(spec: &KernelSpec, target: Target) -> Result<String, CodegenError> {
    if spec.kind != KernelKind::Stream {
        return Ok(disassemble_bytes(&block::emit(spec, target)?, target));
    }
    let program = Program::new(spec, target)?;
    match Tier::of(target).backend {
        Backend::Cranelift { .. } => clif::disassemble(&program),
        Backend::Wide => Ok(disassemble_bytes(&wide::emit(&program)?, target)),
    }
}

/// The text form of a kernel's program.
///
/// # Errors
/// As [`emit`].
pub fn program_text(spec: &KernelSpec, target: Target) -> Result<String, CodegenError> {
    Ok(Program::new(spec, target)?.to_string())
}
