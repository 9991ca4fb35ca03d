//! Zeroed memory that begins at a page, in huge pages on request. No other module knows of huge pages.
//!
//! Weights are read at the full bandwidth of memory only from huge pages. With pages of 4 KiB the translation of
//! addresses costs a quarter of it. A system without huge pages gives small pages, and nothing else changes.
#![allow(unsafe_code)]

use crate::GemmError;
use memmap2::{Mmap, MmapMut};

/// Alignment in bytes of everything that kernels touch. [`AlignedMemory::new`] gives no less.
const LINE: usize = 64;
/// Size and alignment of a huge page in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory that begins at a page. The system commits pages only when they are first written.
///
/// Through [`AlignedMemory::base`] several threads can write to parts that they share out among themselves, as the
/// workers of an engine do. The slices are for a single owner.
pub struct AlignedMemory {
    map: MmapMut,
    base: *mut u8,
    len: usize,
}

// SAFETY: a value owns its memory. Whoever makes references from `base` promises that they do not conflict.
unsafe impl Send for AlignedMemory {}
// SAFETY: as above.
unsafe impl Sync for AlignedMemory {}

impl AlignedMemory {
    /// `rows * row` bytes, at least 64. `what` names their purpose in the error.
    ///
    /// # Errors
    /// [`GemmError::Memory`] where the system refuses them.
    pub fn new(rows: usize, row: usize, what: &str) -> Result<AlignedMemory, GemmError> {
        let len = rows.checked_mul(row).map(|len| len.max(LINE));
        // They do not come from the allocator, which would write zeros to all of them.
        let map = len.and_then(|len| Some((MmapMut::map_anon(len).ok()?, len)));
        let memory = map.map(|(mut map, len)| AlignedMemory { base: map.as_mut_ptr(), len, map });
        memory.ok_or_else(|| GemmError::Memory { what: what.to_owned(), rows, row })
    }

    /// `rows * row` bytes in huge pages, if the system has them, for data that is read in long runs. Pages are
    /// committed 2 MiB at a time. `what` names their purpose in the error.
    ///
    /// # Errors
    /// [`GemmError::Memory`] where the system refuses them.
    pub fn huge(rows: usize, row: usize, what: &str) -> Result<AlignedMemory, GemmError> {
        let len = rows.checked_mul(row);
        let map = len.and_then(|len| Some((MmapMut::map_anon(len.checked_add(HUGE_PAGE)?).ok()?, len)));
        let Some((mut map, len)) = map else {
            return Err(GemmError::Memory { what: what.to_owned(), rows, row });
        };
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE) - map.as_ptr().addr();
        let base = map.as_mut_ptr().wrapping_add(start);
        Ok(AlignedMemory { map, base, len })
    }

    /// The first byte.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the mapping before `base`.
    fn start(&self) -> usize {
        self.base.addr() - self.map.as_ptr().addr()
    }

    /// All of it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start()..][..self.len]
    }

    /// All of it.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.start();
        &mut self.map[start..][..self.len]
    }

    /// All of it as i8.
    #[inline]
    pub fn signed(&self) -> &[i8] {
        let bytes = self.bytes();
        // SAFETY: i8 and u8 have the same layout and every bit pattern.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// All of it as i8.
    #[inline]
    pub fn signed_mut(&mut self) -> &mut [i8] {
        let bytes = self.bytes_mut();
        // SAFETY: i8 and u8 have the same layout and every bit pattern.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    /// Makes the memory read-only.
    ///
    /// # Errors
    /// [`GemmError::Protection`] where the system refuses.
    pub fn read_only(self) -> Result<ReadOnlyMemory, GemmError> {
        let (start, len) = (self.start(), self.len);
        let map = self.map.make_read_only().map_err(protection("read-only"))?;
        Ok(ReadOnlyMemory { map, start, len })
    }
}

/// [`AlignedMemory`] that nothing writes to any more: a stray write ends the process instead of changing a weight.
pub struct ReadOnlyMemory {
    map: Mmap,
    start: usize,
    len: usize,
}

impl ReadOnlyMemory {
    /// All of it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }

    /// Changes the bytes in place. If `change` fails, the bytes are lost and the memory is empty.
    ///
    /// # Errors
    /// Those of `change`, and [`GemmError::Protection`] where the system refuses to make memory writable.
    pub fn rewrite<E: From<GemmError>>(
        &mut self,
        change: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let none = MmapMut::map_anon(1).and_then(MmapMut::make_read_only).map_err(protection("writable"))?;
        let (start, len) = (std::mem::take(&mut self.start), std::mem::take(&mut self.len));
        let mut map = std::mem::replace(&mut self.map, none).make_mut().map_err(protection("writable"))?;
        change(&mut map[start..][..len])?;
        self.map = map.make_read_only().map_err(protection("read-only"))?;
        (self.start, self.len) = (start, len);
        Ok(())
    }
}

/// `rows * row` zeros from the allocator, for data that is written from front to back anyway. `what` names their
/// purpose in the error.
pub(crate) fn zeros<T: Copy + Default>(rows: usize, row: usize, what: &str) -> Result<Vec<T>, GemmError> {
    let mut zeros = Vec::new();
    match rows.checked_mul(row).filter(|&len| zeros.try_reserve_exact(len).is_ok()) {
        Some(len) => {
            zeros.resize(len, T::default());
            Ok(zeros)
        }
        None => {
            Err(GemmError::Memory { what: what.to_owned(), rows, row: row.saturating_mul(size_of::<T>()) })
        }
    }
}

fn protection(access: &'static str) -> impl FnOnce(std::io::Error) -> GemmError {
    move |source| GemmError::Protection { access, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_of_the_length_asked_for() {
        for (memory, align) in [
            (AlignedMemory::new(3, 100, "rows").unwrap(), LINE),
            (AlignedMemory::huge(3, 100, "rows").unwrap(), HUGE_PAGE),
        ] {
            assert_eq!((memory.len(), memory.bytes().len()), (300, 300));
            assert!(memory.base().addr().is_multiple_of(align) && memory.bytes().iter().all(|&b| b == 0));
            assert_eq!(memory.bytes().as_ptr(), memory.base().cast_const());
        }
        assert_eq!(AlignedMemory::new(0, 7, "nothing").unwrap().len(), LINE);
        assert!(AlignedMemory::huge(0, 7, "nothing").unwrap().is_empty());
    }

    #[test]
    fn read_only_memory_is_changed_in_place_or_lost() {
        let mut memory = AlignedMemory::huge(1, 5, "five").unwrap();
        memory.bytes_mut().copy_from_slice(&[1, 2, 3, 4, 5]);
        let mut memory = memory.read_only().unwrap();
        let reversed = |bytes: &mut [u8]| {
            bytes.reverse();
            Ok::<(), GemmError>(())
        };
        memory.rewrite(reversed).unwrap();
        assert_eq!(memory.bytes(), [5, 4, 3, 2, 1]);
        assert!(memory.rewrite(|_| Err(GemmError::NoJit)).is_err());
        assert!(memory.bytes().is_empty());
    }

    #[test]
    fn memory_that_is_not_there_is_refused() {
        for (rows, row) in [(usize::MAX, 2), (1, usize::MAX), (1, usize::MAX / 2)] {
            let error = AlignedMemory::huge(rows, row, "a test").err().unwrap().to_string();
            assert!(error.contains("no memory for a test"), "{error}");
            assert!(AlignedMemory::new(rows, row, "a test").is_err());
            assert!(zeros::<f32>(rows, row, "a test").is_err());
        }
    }
}
