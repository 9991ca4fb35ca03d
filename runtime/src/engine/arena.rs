//! The arena: memory for the plan's buffers, which all workers share.
#![allow(unsafe_code)]

use crate::RuntimeError;
use std::ops::Range;
use trit_format::plan::{Buffer, BufferId, DType, Plan};
use trit_gemm::AlignedMemory;

/// Element types of buffers. Every bit pattern is a valid value of such a type.
pub(crate) trait Element: Copy {
    /// The matching [`DType`].
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for i8 {
    const DTYPE: DType = DType::I8;
}

/// Memory for the buffers of a plan, `capacity` rows each. It is zero at first.
pub(crate) struct Arena {
    memory: AlignedMemory,
    buffers: Vec<Buffer>,
    capacity: usize,
}

impl Arena {
    /// An arena for a validated plan.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn new(plan: &Plan, capacity: usize) -> Result<Arena, RuntimeError> {
        let memory = AlignedMemory::new(capacity, plan.row_bytes as usize, "activations")?;
        Ok(Arena { memory, buffers: plan.buffers.clone(), capacity })
    }

    /// How many rows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many elements a row of a buffer has.
    pub fn len(&self, id: BufferId) -> usize {
        self.buffers[id.0 as usize].len as usize
    }

    fn place<T: Element>(&self, id: BufferId, row: usize) -> (*mut T, usize) {
        let buffer = &self.buffers[id.0 as usize];
        assert!(row < self.capacity && buffer.dtype == T::DTYPE);
        let byte = buffer.offset as usize * self.capacity + buffer.stride as usize * row;
        debug_assert!(byte + buffer.stride as usize <= self.memory.len());
        // SAFETY: validation keeps every buffer's offset and stride inside `row_bytes`, so the row lies inside the
        // allocation.
        (unsafe { self.memory.base().add(byte) }.cast(), buffer.stride as usize / size_of::<T>())
    }

    /// How many elements lie between the starts of consecutive rows of a buffer.
    pub fn stride<T: Element>(&self, id: BufferId) -> usize {
        self.place::<T>(id, 0).1
    }

    /// Row `row` of a buffer, without its padding.
    ///
    /// # Safety
    /// No worker writes this row until all workers passed the next barrier.
    pub unsafe fn row<T: Element>(&self, id: BufferId, row: usize) -> &[T] {
        let (start, _) = self.place(id, row);
        // SAFETY: the row is inside the allocation, aligned (offsets and strides are multiples of the element size)
        // and initialized (zeroed at first); the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(start, self.buffers[id.0 as usize].len as usize) }
    }

    /// Elements of rows `rows` of a buffer, from element `from` of the first on, padding between them included.
    ///
    /// # Safety
    /// As [`Arena::row`], for all of these rows.
    pub unsafe fn span<T: Element>(&self, id: BufferId, rows: Range<usize>, from: usize) -> &[T] {
        assert!(!rows.is_empty());
        let (start, stride) = self.place::<T>(id, rows.start);
        let _ = self.place::<T>(id, rows.end - 1);
        assert!(from <= stride);
        // SAFETY: first and last row are inside the allocation, one stride after the other; the caller promises that
        // nobody writes them.
        unsafe { std::slice::from_raw_parts(start.add(from), rows.len() * stride - from) }
    }

    /// Whether rows of two buffers share memory.
    pub fn overlap(&self, a: BufferId, b: BufferId) -> bool {
        let (a, b) = (&self.buffers[a.0 as usize], &self.buffers[b.0 as usize]);
        a.offset < b.offset + b.stride && b.offset < a.offset + a.stride
    }

    /// Elements `from..to` of row `row`, to be written. `to` may lie inside the row's padding.
    ///
    /// # Safety
    /// No other worker touches these elements until all workers passed the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row_mut<T: Element>(&self, id: BufferId, row: usize, from: usize, to: usize) -> &mut [T] {
        let (start, stride) = self.place::<T>(id, row);
        assert!(from <= to && to <= stride);
        // SAFETY: inside the row's stride by the assertion, hence inside the allocation; the caller promises
        // exclusive access.
        unsafe { std::slice::from_raw_parts_mut(start.add(from), to - from) }
    }
}

/// Row `row` of an f32 buffer, read while no worker runs.
pub(crate) fn read(arena: &Arena, id: BufferId, row: usize) -> &[f32] {
    // SAFETY: outside the engine's parallel regions, whose workers alone write rows: nobody writes while this borrow
    // lasts.
    unsafe { arena.row(id, row) }
}

/// Writes consecutive rows of an f32 buffer while no worker runs.
pub(crate) fn fill(arena: &mut Arena, id: BufferId, values: &[f32], width: usize) {
    for (r, row) in values.chunks_exact(width).enumerate() {
        // SAFETY: the exclusive borrow says that no worker runs.
        unsafe { arena.row_mut::<f32>(id, r, 0, width) }.copy_from_slice(row);
    }
}
