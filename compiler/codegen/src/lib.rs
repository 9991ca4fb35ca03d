//! Kernel specifications to machine code.
//!
//! A [`KernelSpec`] and a [`Target`] become a [`Program`], a dozen operations over vectors of some lanes
//! (`program`); an emitter lowers the program to bytes: Cranelift for 128-bit vectors on x86-64 and aarch64 (`clif`).
//! Wider x86-64 vectors need an emitter of their own, which will lower the same programs.
//!
//! The bytes are position independent, have no relocations and depend on nothing but the specification and target.
#![deny(unsafe_code)]

mod clif;
mod disasm;
#[cfg(feature = "jit")]
mod jit;
mod program;

pub use disasm::disassemble;
#[cfg(feature = "jit")]
pub use jit::{JitCode, KernelFn};
pub use program::{Dot, Op, Program};

use trit_format::dense243::Code;
use trit_format::kernel::{KernelSpec, MAX_K};
use trit_format::target::{Arch, Target};

/// Why no code was generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodegenError {
    /// No emitter for this tier yet.
    #[error("no code can be generated for {0} yet; use {1}")]
    Target(Target, &'static str),
    /// The specification is outside what kernels can compute.
    #[error("kernel {0}: {1}")]
    Spec(KernelSpec, &'static str),
    /// The emitter failed: a defect here.
    #[error("kernel {0}: {1}")]
    Emitter(KernelSpec, String),
}

/// Targets that code can be generated for, least capable first within an architecture.
pub fn supported() -> &'static [Target] {
    &[Target::X86_64V2, Target::X86_64V3, Target::X86_64V3Vnni, Target::Aarch64, Target::Aarch64Dotprod]
}

/// The kernels a product of `k` columns needs on `target`: one for a single activation row, and one for a block of
/// rows where sharing the decoded weights among rows pays.
pub fn default_specs(k: u32, target: Target) -> Vec<KernelSpec> {
    let spec = |m, unroll| KernelSpec { k, m, code: Code::SignedFix, unroll, prefetch: 0 };
    match target {
        // The activations' signs are applied to the weights there, so rows have nothing to share.
        Target::X86_64V2 | Target::X86_64V3 => vec![spec(1, 4)],
        Target::Aarch64 => vec![spec(1, 2), spec(2, 2)],
        Target::Aarch64Dotprod => vec![spec(1, 2), spec(4, 2)],
        _ => vec![spec(1, 4), spec(2, 4)],
    }
}

/// The program of a kernel, or why there is none.
///
/// # Errors
/// [`CodegenError::Target`] where there is no emitter, [`CodegenError::Spec`] where the specification is out of range.
pub fn program(spec: &KernelSpec, target: Target) -> Result<Program, CodegenError> {
    if !supported().contains(&target) {
        return Err(CodegenError::Target(target, match target.arch() {
            Arch::X86_64 => "x86-64-v3-vnni, which the same CPUs run",
            Arch::Aarch64 => "aarch64",
        }));
    }
    if spec.k == 0 || spec.k > MAX_K {
        return Err(CodegenError::Spec(*spec, "k must be 1 to 33000, so that sums are exact in 32 bits"));
    }
    if spec.code != Code::SignedFix {
        return Err(CodegenError::Spec(*spec, "only the signed fix code has kernels on this target"));
    }
    if !(1..=4).contains(&spec.m) || !(1..=16).contains(&spec.unroll) {
        return Err(CodegenError::Spec(*spec, "m must be 1 to 4 and unroll 1 to 16"));
    }
    Ok(Program::new(spec, target))
}

/// The machine code of a kernel.
///
/// # Errors
/// As [`program`], and [`CodegenError::Emitter`] where the emitter fails.
pub fn emit(spec: &KernelSpec, target: Target) -> Result<Vec<u8>, CodegenError> {
    clif::emit(&program(spec, target)?)
}
