//! Counts the memory that the sequences of a model take.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use trit_gemm::AlignedMemory;

/// Bytes that live sequences take together. Pages and states that several sequences share count once.
#[derive(Clone, Default)]
pub(crate) struct LiveBytes(Arc<AtomicUsize>);

impl LiveBytes {
    /// How many there are now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts memory until it is dropped.
    pub fn count(&self, memory: AlignedMemory, bytes: usize) -> Counted {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { memory, bytes, live: self.clone() }
    }
}

/// Memory that is counted.
pub(crate) struct Counted {
    memory: AlignedMemory,
    bytes: usize,
    live: LiveBytes,
}

impl Deref for Counted {
    type Target = AlignedMemory;

    fn deref(&self) -> &AlignedMemory {
        &self.memory
    }
}

impl DerefMut for Counted {
    fn deref_mut(&mut self) -> &mut AlignedMemory {
        &mut self.memory
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
