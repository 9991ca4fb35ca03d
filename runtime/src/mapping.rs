//! Files and machine code in memory.
#![allow(unsafe_code)]

use crate::RuntimeError;
use crate::storage::Storage;
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::path::Path;
use trit_format::container::Digest;
use trit_format::kernel::{KernelArgs, KernelEntry};

/// A ternary kernel: see [`KernelArgs`].
#[cfg(target_arch = "x86_64")]
pub(crate) type KernelFn = unsafe extern "sysv64" fn(*const KernelArgs);
/// A ternary kernel: see [`KernelArgs`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) type KernelFn = unsafe extern "C" fn(*const KernelArgs);

/// Opens a file and maps it read-only.
pub(crate) fn open(path: &Path) -> Result<Storage, RuntimeError> {
    let io = |source| RuntimeError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(io(std::io::Error::new(
            std::io::ErrorKind::IsADirectory,
            "is a directory, not a .trit bundle",
        )));
    }
    // SAFETY: the mapping is private and read-only. Whoever changes or truncates a bundle while it runs breaks the
    // promise that every mapping of a file asks for; code, the dangerous part, is copied before it is checked.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Storage::new(file, map))
}

/// Embedded kernels, copied to memory of their own and made executable.
pub(crate) struct EmbeddedCode {
    memory: Mmap,
    offsets: Vec<usize>,
}

impl EmbeddedCode {
    /// Copies a code section, checks each kernel's digest on the copy, then makes it executable and unwritable.
    /// Entries have been validated to lie inside the section.
    ///
    /// # Errors
    /// [`RuntimeError::Format`] where a digest does not match, [`RuntimeError::System`] where memory is refused.
    pub fn new(path: &Path, section: &[u8], kernels: &[&KernelEntry]) -> Result<EmbeddedCode, RuntimeError> {
        let refused = |e| {
            RuntimeError::System(format!("no executable memory for kernels: {e}; try --kernels portable"))
        };
        let mut memory = MmapMut::map_anon(section.len().max(1)).map_err(refused)?;
        memory[..section.len()].copy_from_slice(section);
        for kernel in kernels {
            let start = kernel.offset as usize;
            if Digest::of(&memory[start..start + kernel.len as usize]) != kernel.digest {
                let problem = "its code does not match its digest; the file is damaged, copy it again".into();
                let source =
                    trit_format::FormatError::Record { record: format!("kernel {}", kernel.spec), problem };
                return Err(RuntimeError::Format { path: path.to_owned(), source });
            }
        }
        let memory = memory.make_exec().map_err(refused)?;
        // SAFETY: the range is the mapping just made. Other cores run the code only after it is handed to them
        // through synchronization that follows this call.
        unsafe { wasmtime_internal_jit_icache_coherence::clear_cache(memory.as_ptr().cast(), memory.len()) }
            .and_then(|()| wasmtime_internal_jit_icache_coherence::pipeline_flush_mt())
            .map_err(|e| RuntimeError::System(format!("cannot flush the instruction cache: {e}")))?;
        Ok(EmbeddedCode { memory, offsets: kernels.iter().map(|k| k.offset as usize).collect() })
    }

    /// The entry point of kernel `index`, in the order given to [`EmbeddedCode::new`]. Valid while `self` lives.
    pub fn kernel(&self, index: usize) -> KernelFn {
        let entry = self.memory[self.offsets[index]..].as_ptr();
        // SAFETY: the code at this offset was written by our compiler for this calling convention (the user's trust
        // vouches for it, the digest for its integrity) and lies in executable memory.
        unsafe { std::mem::transmute::<*const u8, KernelFn>(entry) }
    }
}
