//! The bundle's own machine code: a code section of the bundle enters, kernels that can be called leave.
#![allow(unsafe_code)]

use super::notes::NoKernels;
use crate::RuntimeError;
use crate::bundle::storage::Storage;
use memmap2::{Mmap, MmapMut};
use std::sync::Arc;
use trit_format::FormatError;
use trit_format::container::{Digest, Section};
use trit_format::kernel::KernelEntry;
use trit_format::target::Target;
use trit_gemm::{KernelFn, MachineCode};

/// The kernels of one code section, copied to memory of their own and made executable.
pub(crate) struct EmbeddedCode {
    memory: Mmap,
    offsets: Vec<usize>,
    digest: Digest,
}

impl EmbeddedCode {
    /// Copies a code section, checks the section's digest and each kernel's on the copy, then makes the copy executable
    /// and read-only. Validation has made sure that the entries lie inside the section.
    ///
    /// # Errors
    /// [`RuntimeError::Format`] where a digest does not match, [`RuntimeError::Kernels`] where the system refuses
    /// memory for code, and the errors of reading the source.
    pub fn new(
        storage: &Storage,
        section: &Section,
        kernels: &[&KernelEntry],
    ) -> Result<EmbeddedCode, RuntimeError> {
        let none = |problem| RuntimeError::Kernels { path: storage.path().to_owned(), problem };
        let refused = |e| none(NoKernels::Memory(e));
        let len = section.range().len();
        let mut memory = MmapMut::map_anon(len.max(1)).map_err(refused)?;
        storage.read(section.offset, &mut memory[..len])?;
        let digest = Digest::of(&memory[..len]);
        if digest != section.digest {
            return Err(storage.format(FormatError::Digest(section.kind)));
        }
        for kernel in kernels {
            let start = kernel.offset as usize;
            if Digest::of(&memory[start..start + kernel.len as usize]) != kernel.digest {
                let problem = "its code does not match its digest; the file is damaged, copy it again".into();
                return Err(storage
                    .format(FormatError::Record { record: format!("kernel {}", kernel.spec), problem }));
            }
        }
        let memory = memory.make_exec().map_err(refused)?;
        // SAFETY: the range is the mapping just made. Other cores run the code only after it is handed to them
        // through synchronization that follows this call.
        unsafe { wasmtime_internal_jit_icache_coherence::clear_cache(memory.as_ptr().cast(), memory.len()) }
            .and_then(|()| wasmtime_internal_jit_icache_coherence::pipeline_flush_mt())
            .map_err(|e| none(NoKernels::Flush(e)))?;
        Ok(EmbeddedCode { memory, offsets: kernels.iter().map(|k| k.offset as usize).collect(), digest })
    }

    /// The digest of the copy.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The kernels, each with its specification. `entries` must be those that [`EmbeddedCode::new`] got, and all be for
    /// `target`, which this CPU must have.
    pub fn machine_code(self, entries: &[&KernelEntry], target: Target) -> MachineCode {
        assert!(entries.len() == self.offsets.len() && entries.iter().all(|entry| entry.target == target));
        let kernels = entries.iter().zip(&self.offsets).map(|(entry, &offset)| {
            let start = self.memory[offset..].as_ptr();
            // SAFETY: the code at this offset was written by our compiler for this calling convention (the user's trust
            // vouches for it, the digest for its integrity) and lies in executable memory.
            (entry.spec, unsafe { std::mem::transmute::<*const u8, KernelFn>(start) })
        });
        let kernels: Vec<_> = kernels.collect();
        // SAFETY: as above, each is what its entry says; `self` keeps the memory, which does not move; `bind` chose a
        // target of this CPU.
        unsafe { MachineCode::new(kernels, target, Arc::new(self)) }
    }
}
