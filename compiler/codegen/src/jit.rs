//! Emitted bytes in executable memory of this process.
#![allow(unsafe_code, reason = "executable memory is freed here, once")]

use crate::clif::{self, Placing};
use crate::{CodegenError, emit};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Module, ModuleError};
use std::sync::{Mutex, PoisonError};
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::target::{Arch, Target};

/// Alignment of a kernel's code in bytes, as in a bundle's code section.
const ALIGNMENT: u64 = 64;

/// A kernel that can be called.
///
/// # Safety
/// The arguments must be as [`KernelArgs`] says, the CPU must have the target's features, and the [`JitCode`] or
/// mapping that the pointer came from must still be alive.
#[cfg(target_arch = "x86_64")]
pub type KernelFn = unsafe extern "sysv64" fn(*const KernelArgs);
/// A kernel that can be called.
///
/// # Safety
/// The arguments must be as [`KernelArgs`] says, the CPU must have the target's features, and the [`JitCode`] or
/// mapping that the pointer came from must still be alive.
#[cfg(not(target_arch = "x86_64"))]
pub type KernelFn = unsafe extern "C" fn(*const KernelArgs);

/// Kernels in memory that is executable and not writable, holding exactly the bytes of [`emit`]. Dropping it frees
/// the memory.
pub struct JitCode {
    kernels: Vec<KernelFn>,
    /// This is only kept to be freed. The mutex makes it shareable between threads and is never locked.
    module: Mutex<Option<JITModule>>,
}

impl JitCode {
    /// Emits and places one kernel for each pair, in order. Other threads may call them as soon as they see them.
    ///
    /// # Errors
    /// As [`emit`]; [`CodegenError::Foreign`] for a target of another architecture; [`CodegenError::Backend`] where
    /// the system gives no executable memory.
    pub fn new(kernels: &[(KernelSpec, Target)]) -> Result<JitCode, CodegenError> {
        let mut code = JitCode { kernels: Vec::with_capacity(kernels.len()), module: Mutex::new(None) };
        if let Some(&(spec, target)) = kernels.iter().find(|(_, target)| Some(target.arch()) != host()) {
            return Err(CodegenError::Foreign { spec, target });
        }
        let Some(&(spec, target)) = kernels.first() else { return Ok(code) };
        // Only the name and the alignment of code matter here, because the module is given finished bytes.
        let isa = clif::isa(target, Placing::Here).map_err(|e| CodegenError::backend(&spec, target, e))?;
        let builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        let module =
            code.module.get_mut().unwrap_or_else(PoisonError::into_inner).insert(JITModule::new(builder));

        let mut ids = Vec::with_capacity(kernels.len());
        for (spec, target) in kernels {
            let bytes = emit(spec, *target)?;
            let id = define(module, &bytes).map_err(|e| CodegenError::backend(spec, *target, e))?;
            ids.push(id);
        }
        // Clears the instruction cache where the architecture needs it, and synchronizes other threads with that.
        module.finalize_definitions().map_err(|e| CodegenError::backend(&spec, target, e))?;
        code.kernels.extend(ids.into_iter().map(|id| {
            // SAFETY: `define` placed at this address the whole code of a kernel, which has this signature by the
            // emitter's contract. That the memory is alive and the CPU fits is the promise of whoever calls it.
            unsafe { std::mem::transmute::<*const u8, KernelFn>(module.get_finalized_function(id)) }
        }));
        Ok(code)
    }

    /// How many kernels were placed.
    pub fn len(&self) -> usize {
        self.kernels.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.kernels.is_empty()
    }

    /// The kernels in the order of the pairs that they were made from, valid until `self` is dropped.
    pub fn kernels(&self) -> &[KernelFn] {
        &self.kernels
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // SAFETY: calling a kernel requires this `JitCode` to be alive, so that none runs or is called hereafter.
            unsafe { module.free_memory() }
        }
    }
}

/// The architecture this process runs on.
fn host() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::X86_64),
        "aarch64" => Some(Arch::Aarch64),
        _ => None,
    }
}

/// Reserves memory for `bytes` and copies them there. Their constants are aligned relative to their start.
fn define(module: &mut JITModule, bytes: &[u8]) -> Result<FuncId, Box<ModuleError>> {
    let id = module.declare_anonymous_function(&module.make_signature())?;
    module.define_function_bytes(id, ALIGNMENT, bytes, &[])?;
    Ok(id)
}
