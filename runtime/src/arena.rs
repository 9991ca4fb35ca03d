//! The memory that steps work in, shared by the workers of one region.
#![allow(unsafe_code)]

use half::f16;
use half::slice::HalfBitsSliceExt;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use trit_format::plan::{Buffer, BufferId, DType, Plan};

/// Types whose every bit pattern is a value.
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

/// Room for the buffers of a plan, `capacity` rows each, zeroed.
pub(crate) struct Arena {
    base: *mut u8,
    layout: Layout,
    buffers: Vec<Buffer>,
    capacity: usize,
}

// SAFETY: the arena owns its memory; access follows the rule of `rows` and `rows_mut`.
unsafe impl Send for Arena {}
// SAFETY: as above; concurrent access is the promise of the callers of the unsafe methods.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena for a validated plan. The system commits pages only when they are first written.
    pub fn new(plan: &Plan, capacity: usize) -> Arena {
        let bytes =
            (plan.row_bytes as usize).checked_mul(capacity).expect("row_bytes is bounded by validation");
        let layout =
            Layout::from_size_align(bytes.max(64), 64).expect("a validated plan's arena fits memory");
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Arena { base, layout, buffers: plan.buffers.clone(), capacity }
    }

    /// Rows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn place<T: Element>(&self, id: BufferId, row: usize) -> (*mut T, usize) {
        let buffer = &self.buffers[id.0 as usize];
        assert!(row < self.capacity && buffer.dtype == T::DTYPE);
        let byte = buffer.offset as usize * self.capacity + buffer.stride as usize * row;
        debug_assert!(byte + buffer.stride as usize <= self.layout.size());
        // SAFETY: validation keeps every buffer's offset and stride inside `row_bytes`, so the row lies inside the
        // allocation.
        (unsafe { self.base.add(byte) }.cast(), buffer.stride as usize / size_of::<T>())
    }

    /// Elements from one row of a buffer to the next.
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

    /// Elements `from..to` of row `row`; `to` may reach into the row's padding.
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

    /// Address of row `row`, for a kernel that reads several rows.
    pub fn address<T: Element>(&self, id: BufferId, row: usize) -> *const T {
        self.place(id, row).0
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, self.layout) }
    }
}

/// Row `row` of an f32 buffer, between regions.
pub(crate) fn read(arena: &Arena, id: BufferId, row: usize) -> &[f32] {
    // SAFETY: a shared borrow of the session's arena outside a region: no worker runs, so nobody writes.
    unsafe { arena.row(id, row) }
}

/// Writes consecutive rows of an f32 buffer, between regions.
pub(crate) fn fill(arena: &mut Arena, id: BufferId, values: &[f32], width: usize) {
    for (r, row) in values.chunks_exact(width).enumerate() {
        // SAFETY: the exclusive borrow says that no worker runs.
        unsafe { arena.row_mut::<f32>(id, r, 0, width) }.copy_from_slice(row);
    }
}

/// Memory of one KV layer's keys or values that workers write row by row, `[positions, width]`.
pub(crate) struct Rows<T> {
    base: *mut T,
    // Owns the memory; u16 for f16, because the allocator zeroes plain integers lazily.
    _f32: Vec<f32>,
    _f16: Vec<u16>,
    positions: usize,
    width: usize,
}

// SAFETY: owns its memory; access follows the rule of its unsafe methods.
unsafe impl<T> Send for Rows<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Rows<T> {}

impl Rows<f32> {
    /// Zeroed f32 rows.
    pub fn zeroed_f32(positions: usize, width: usize) -> Rows<f32> {
        let mut data = vec![0f32; positions * width];
        Rows { base: data.as_mut_ptr(), _f32: data, _f16: Vec::new(), positions, width }
    }
}

impl Rows<f16> {
    /// Zeroed f16 rows.
    pub fn zeroed_f16(positions: usize, width: usize) -> Rows<f16> {
        let mut data = vec![0u16; positions * width];
        let base = data.reinterpret_cast_mut::<f16>().as_mut_ptr();
        Rows { base, _f32: Vec::new(), _f16: data, positions, width }
    }
}

impl<T> Rows<T> {
    /// Elements of one row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The first `count` rows.
    ///
    /// # Safety
    /// No worker writes them until all workers passed the next barrier.
    pub unsafe fn first(&self, count: usize) -> &[T] {
        assert!(count <= self.positions);
        // SAFETY: inside the owned vector by the assertion; the caller promises that nobody writes.
        unsafe { std::slice::from_raw_parts(self.base, count * self.width) }
    }

    /// Row `row`.
    ///
    /// # Safety
    /// No other worker touches this row until all workers passed the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row_mut(&self, row: usize) -> &mut [T] {
        assert!(row < self.positions);
        // SAFETY: inside the owned vector by the assertion; the caller promises exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(row * self.width), self.width) }
    }
}
