//! Machine code for the packed matrices of a model: decides which kernels a bundle carries, and makes the bytes of a
//! code section.

use crate::error::CompileError;
use rayon::prelude::*;
use std::collections::BTreeSet;
use trit_format::container::Digest;
use trit_format::dense243::Code;
use trit_format::kernel::{ABI_VERSION, KernelEntry, KernelSpec};
use trit_format::manifest::PackedMatrix;
use trit_format::target::Target;

/// Kernels start at multiples of this many bytes, a cache line, from which the CPU fetches instructions fastest.
const ALIGNMENT: usize = 64;

/// The code section of one target and the records of the kernels in it.
pub(crate) struct CodeSection {
    pub target: Target,
    pub bytes: Vec<u8>,
    pub entries: Vec<KernelEntry>,
}

/// How a bundle for `targets` stores its weights.
pub(crate) fn weight_code(targets: &[Target]) -> Code {
    trit_codegen::best_code(targets)
}

/// The kernels that `packed_matrices` need on `target`.
pub(crate) fn specs(
    packed_matrices: &[PackedMatrix],
    target: Target,
) -> Result<Vec<KernelSpec>, CompileError> {
    let shapes: BTreeSet<_> = packed_matrices.iter().map(|p| (p.kernel_k(), p.code)).collect();
    let mut specs = Vec::new();
    for (k, code) in shapes {
        let fitting = trit_codegen::default_specs(k, code, target);
        let before = specs.len();
        specs.extend(fitting);
        if specs.len() == before {
            return Err(CompileError::Codegen {
                kernel: format!("products of {k} columns on {target}"),
                problem: format!("no kernel reads weights stored as {}", code.name()),
            });
        }
    }
    Ok(specs)
}

/// Generates the kernels `specs` for `target`, one after another in this order.
///
/// # Errors
/// [`CompileError::Codegen`] for the first that the emitter refuses.
pub(crate) fn assemble(specs: &[KernelSpec], target: Target) -> Result<CodeSection, CompileError> {
    let emit = |spec: &KernelSpec| {
        trit_codegen::emit(spec, target).map_err(|e| CompileError::Codegen {
            kernel: format!("{spec} on {target}"),
            problem: e.to_string(),
        })
    };
    let codes: Vec<Result<Vec<u8>, CompileError>> = specs.par_iter().map(emit).collect();
    let mut section = CodeSection { target, bytes: Vec::new(), entries: Vec::with_capacity(specs.len()) };
    for (&spec, code) in specs.iter().zip(codes) {
        let code = code?;
        section.bytes.resize(section.bytes.len().next_multiple_of(ALIGNMENT), 0);
        section.entries.push(KernelEntry {
            spec,
            target,
            abi: ABI_VERSION,
            offset: section.bytes.len() as u64,
            len: code.len() as u64,
            digest: Digest::of(&code),
        });
        section.bytes.extend_from_slice(&code);
    }
    Ok(section)
}
