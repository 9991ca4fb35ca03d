//! Generates machine code for shapes of matrices with feature `jit`. Without the feature nothing is generated.
#![cfg_attr(feature = "jit", allow(unsafe_code))]

use crate::{GemmError, KernelShape, MachineCode};
use trit_format::dense243::Code;
use trit_format::target::Target;

/// Tiers for which kernels of all `shapes` can be generated, on whatever CPU. Not every tier has kernels for every
/// code.
#[cfg(feature = "jit")]
pub fn generated_targets(shapes: &[KernelShape]) -> impl Iterator<Item = Target> {
    let reads =
        move |t: &Target| shapes.iter().all(|s| !trit_codegen::default_specs(s.k, s.code, *t).is_empty());
    trit_codegen::supported().iter().copied().filter(reads)
}

/// Tiers for which kernels of all `shapes` can be generated: none without feature `jit`.
#[cfg(not(feature = "jit"))]
pub fn generated_targets(_: &[KernelShape]) -> impl Iterator<Item = Target> {
    std::iter::empty()
}

/// The weight code that kernels for `target` are fastest with.
#[cfg(feature = "jit")]
pub(crate) fn fastest_code(target: Option<Target>) -> Code {
    trit_codegen::best_code(target.as_slice())
}

#[cfg(not(feature = "jit"))]
pub(crate) fn fastest_code(_: Option<Target>) -> Code {
    Code::SignedFix
}

impl MachineCode {
    /// Generates the kernels of `target` for some shapes. Each shape costs milliseconds.
    ///
    /// # Errors
    /// [`GemmError::Target`] where this machine does not run such code, [`GemmError::Generate`] where no code can be
    /// generated or placed, [`GemmError::NoJit`] where this was built without feature `jit`.
    #[cfg(feature = "jit")]
    pub fn generate(shapes: &[KernelShape], target: Target) -> Result<MachineCode, GemmError> {
        use std::sync::Arc;
        if !crate::CpuTiers::detect().contains(target) {
            return Err(GemmError::Target(target));
        }
        let specs = shapes.iter().flat_map(|s| trit_codegen::default_specs(s.k, s.code, target));
        let pairs: Vec<_> = specs.map(|spec| (spec, target)).collect();
        let code = trit_codegen::JitCode::new(&pairs).map_err(|e| GemmError::Generate(e.to_string()))?;
        let kernels: Vec<_> =
            pairs.iter().zip(code.kernels()).map(|((spec, _), kernel)| (*spec, *kernel)).collect();
        // SAFETY: the kernels were emitted for these specifications and for this target, which this CPU runs, and
        // `code` owns their memory.
        Ok(unsafe { MachineCode::new(kernels, target, Arc::new(code)) })
    }

    /// Generates nothing: this was built without feature `jit`.
    ///
    /// # Errors
    /// [`GemmError::NoJit`], always.
    #[cfg(not(feature = "jit"))]
    pub fn generate(_: &[KernelShape], _: Target) -> Result<MachineCode, GemmError> {
        Err(GemmError::NoJit)
    }
}
