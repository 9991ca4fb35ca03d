//! What can be wrong with a request for a kernel.

use std::fmt;
use trit_format::kernel::{KernelSpec, MAX_K, MAX_M, MAX_UNROLL};
use trit_format::target::Target;

/// Why no code was emitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodegenError {
    /// No emitter writes code for the target.
    #[error("target {target}: no emitter writes code for it; targets that work: {}", Supported)]
    Unsupported {
        /// What was asked for.
        target: Target,
    },
    /// The target's emitter does not read the weight code.
    #[error("kernel {spec}, target {target}: no emitter of the target reads weights stored as {:?}", spec.code)]
    Code {
        /// What was asked for.
        spec: KernelSpec,
        /// For which target.
        target: Target,
    },
    /// The target has no emitter for such kernels.
    #[error("kernel {spec}, target {target}: no emitter writes {:?} kernels for it", spec.kind)]
    Kind {
        /// What was asked for.
        spec: KernelSpec,
        /// For which target.
        target: Target,
    },
    /// A number of the specification is outside what a kernel can be made for.
    #[error("kernel {spec}: {field} is {found}, must be in 1..={max}")]
    Range {
        /// What was asked for.
        spec: KernelSpec,
        /// The field of [`KernelSpec`].
        field: &'static str,
        /// Its value.
        found: u32,
        /// Its largest value; for `k` that is [`MAX_K`].
        max: u32,
    },
    /// The code would need to be patched where it is loaded; bundles carry bytes that run as they are.
    #[error("kernel {spec}, target {target}: the code has {count} relocations, expected none")]
    Relocations {
        /// What was asked for.
        spec: KernelSpec,
        /// For which target.
        target: Target,
        /// How many.
        count: usize,
    },
    /// The code generator refused.
    #[error("kernel {name}: {message}")]
    Backend {
        /// The kernel's name, and the target's.
        name: String,
        /// In the words of the code generator.
        message: String,
    },
    /// The kernels are for another architecture than this process runs on.
    #[cfg(feature = "jit")]
    #[error("kernel {spec}, target {target}: this process runs on {}", std::env::consts::ARCH)]
    Foreign {
        /// What was asked for.
        spec: KernelSpec,
        /// For which target.
        target: Target,
    },
}

impl CodegenError {
    pub(crate) fn backend(spec: &KernelSpec, target: Target, message: impl fmt::Display) -> CodegenError {
        CodegenError::Backend { name: format!("{spec} for {target}"), message: message.to_string() }
    }
}

/// Lists the targets that have an emitter.
struct Supported;

impl fmt::Display for Supported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, target) in crate::supported().iter().enumerate() {
            write!(f, "{}{target}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Refuses what no emitter can serve, whatever the target.
pub(crate) fn check(spec: &KernelSpec) -> Result<(), CodegenError> {
    let fields = [("k", spec.k, MAX_K), ("m", spec.m, MAX_M), ("unroll", spec.unroll, MAX_UNROLL)];
    for (field, found, max) in fields {
        if !(1..=max).contains(&found) {
            return Err(CodegenError::Range { spec: *spec, field, found, max });
        }
    }
    Ok(())
}
