//! Places emitted code in this process's memory.
#![allow(unsafe_code)]

use crate::{CodegenError, clif, emit};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Module, default_libcall_names};
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::target::Target;

/// A kernel that can be called: see [`KernelArgs`].
#[cfg(target_arch = "x86_64")]
pub type KernelFn = unsafe extern "sysv64" fn(*const KernelArgs);
/// A kernel that can be called: see [`KernelArgs`].
#[cfg(not(target_arch = "x86_64"))]
pub type KernelFn = unsafe extern "C" fn(*const KernelArgs);

/// Kernels generated in this process, the same bytes that [`emit`] gives.
pub struct JitCode {
    module: Option<JITModule>,
    entries: Vec<*const u8>,
}

// SAFETY: after construction the module is only dropped; the code it holds is immutable.
unsafe impl Send for JitCode {}
// SAFETY: as above.
unsafe impl Sync for JitCode {}

impl JitCode {
    /// Emits and places kernels, all for one target, which must be of this machine's architecture to be called.
    ///
    /// # Errors
    /// As [`emit`], and [`CodegenError::Emitter`] where memory is refused.
    pub fn new(specs: &[KernelSpec], target: Target) -> Result<JitCode, CodegenError> {
        let Some(first) = specs.first() else { return Ok(JitCode { module: None, entries: Vec::new() }) };
        let isa = clif::target_isa(target).map_err(|e| CodegenError::Emitter(*first, e))?;
        let mut module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
        let mut ids = Vec::with_capacity(specs.len());
        for spec in specs {
            let failed = |e: cranelift_module::ModuleError| CodegenError::Emitter(*spec, e.to_string());
            let code = emit(spec, target)?;
            let signature = module.make_signature();
            let id = module.declare_anonymous_function(&signature).map_err(failed)?;
            module.define_function_bytes(id, 64, &code, &[]).map_err(failed)?;
            ids.push(id);
        }
        module.finalize_definitions().map_err(|e| CodegenError::Emitter(*first, e.to_string()))?;
        let entries = ids.into_iter().map(|id| module.get_finalized_function(id)).collect();
        Ok(JitCode { module: Some(module), entries })
    }

    /// Kernel `index`, in the order given to [`JitCode::new`]. Valid while `self` lives.
    ///
    /// # Panics
    /// If there is no such kernel.
    pub fn kernel(&self, index: usize) -> KernelFn {
        // SAFETY: the address is the start of finalized code emitted for this calling convention.
        unsafe { std::mem::transmute::<*const u8, KernelFn>(self.entries[index]) }
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the pointers that `kernel` gave out are documented to be valid only while `self` lives.
            unsafe { module.free_memory() }
        }
    }
}
