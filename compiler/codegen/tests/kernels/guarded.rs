//! Memory that ends, or begins, at a page nobody may touch.

/// Where the bytes stand against the guard pages.
#[derive(Clone, Copy, Debug)]
pub enum Against {
    /// The first byte follows a guard page.
    Start,
    /// A guard page follows the last byte.
    End,
}

/// `len` elements between two guard pages; the rest of the page they stand in holds a pattern.
pub struct Guarded<T> {
    map: *mut u8,
    map_len: usize,
    data: *mut T,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    pub fn new(values: &[T], against: Against) -> Guarded<T> {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let bytes = size_of_val(values);
        let inner = bytes.next_multiple_of(page).max(page);
        let map_len = inner + 2 * page;
        // SAFETY: a fresh anonymous mapping, whose inner pages alone are made accessible.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), map_len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let map: *mut u8 = map.cast();
            assert_eq!(libc::mprotect(map.add(page).cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            std::slice::from_raw_parts_mut(map.add(page), inner).fill(0x5a);
            map
        };
        let offset = match against {
            Against::Start => page,
            Against::End => page + inner - bytes,
        };
        // SAFETY: `offset + bytes` is within the accessible pages. Pages are aligned beyond any `T`, and `bytes` is a
        // multiple of its size.
        let data = unsafe {
            let data: *mut T = map.add(offset).cast();
            std::ptr::copy_nonoverlapping(values.as_ptr(), data, values.len());
            data
        };
        Guarded { map, map_len, data, len: values.len() }
    }

    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.data
    }

    pub fn values(&self) -> &[T] {
        // SAFETY: `new` wrote `len` elements there, which live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// Whether nothing beside the elements was written.
    pub fn surroundings_are_intact(&self) -> bool {
        // SAFETY: as in `new`.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: the inner pages are accessible and initialized.
        let inner = unsafe { std::slice::from_raw_parts(self.map.add(page), self.map_len - 2 * page) };
        let start = self.data as usize - self.map as usize - page;
        let end = start + self.len * size_of::<T>();
        inner[..start].iter().chain(&inner[end..]).all(|&b| b == 0x5a)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing points into any more.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}
