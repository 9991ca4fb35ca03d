//! What C hands over, checked: pointers enter, references and owned values leave, or what is wrong with them.
//!
//! A null pointer, one that is not aligned, a length that no memory has, bytes that are no UTF-8 are found here. That memory is as
//! long as C says, and lives as long as the header demands, nobody can check.
#![allow(unsafe_code)]

use crate::failure::{Failure, invalid};
use crate::types::trit_error;
use std::ffi::{CStr, c_char};
use std::mem::{MaybeUninit, size_of};
use std::ptr;

/// Most bytes of a structure of options, whatever later versions add: more is memory that nobody initialized.
const LARGEST_OPTIONS: usize = 4096;

/// Where a call leaves its error, if anywhere.
pub struct ErrorOut(*mut *mut trit_error);

impl ErrorOut {
    /// # Safety
    /// `to` is null, or may be written to until the call ends.
    pub unsafe fn new(to: *mut *mut trit_error) -> ErrorOut {
        ErrorOut(to)
    }

    /// For tests, which look at the status alone.
    #[cfg(test)]
    pub fn nowhere() -> ErrorOut {
        ErrorOut(ptr::null_mut())
    }

    /// Leaves an error.
    pub fn set(self, failure: Failure) {
        if !self.0.is_null() {
            let error = Box::into_raw(Box::new(failure.into_error()));
            // SAFETY: by the contract of `new` it may be written to; nothing is demanded of its alignment.
            unsafe { self.0.write_unaligned(error) };
        }
    }

    /// Leaves null.
    pub fn none(self) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(ptr::null_mut()) };
        }
    }
}

/// Where a call leaves a value.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `to` is null, or a `T` may be written to it until the call ends.
    ///
    /// # Errors
    /// Where it is null; `name` is the argument's.
    pub unsafe fn new(to: *mut T, name: &str) -> Result<Out<T>, Failure> {
        if to.is_null() { Err(null(name)) } else { Ok(Out(to)) }
    }

    /// # Safety
    /// As [`Out::new`]; null is for a caller who does not want the value.
    pub unsafe fn optional(to: *mut T) -> Option<Out<T>> {
        (!to.is_null()).then_some(Out(to))
    }

    /// Leaves a value.
    pub fn set(&self, value: T) {
        // SAFETY: by the contract of `new` it may be written to; nothing is demanded of its alignment.
        unsafe { self.0.write_unaligned(value) };
    }
}

impl<T> Out<*mut T> {
    /// Leaves a handle, which the caller owns from here on.
    pub fn hand_over(&self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// A caller's buffer, and where to say how much there is for it.
pub struct Buffer<T> {
    at: *mut T,
    capacity: usize,
    count: Out<usize>,
    name: &'static str,
}

impl<T: Copy> Buffer<T> {
    /// `name` is the argument's. Where the call fails before there is anything to write, the count is 0.
    ///
    /// # Safety
    /// `at` is null, or `capacity` values may be written to it until the call ends; `count` is null or may be written to.
    ///
    /// # Errors
    /// Where `count` is null, or `at` is and the capacity is not 0.
    pub unsafe fn new(
        at: *mut T,
        capacity: usize,
        count: *mut usize,
        name: &'static str,
    ) -> Result<Buffer<T>, Failure> {
        // SAFETY: by this function's contract.
        let count = unsafe { Out::new(count, "the pointer to the number of elements")? };
        count.set(0);
        match at.is_null() && capacity > 0 {
            true => Err(invalid(format!(
                "{name} is null, but its capacity is {capacity}; pass 0 to ask for the size"
            ))),
            false => Ok(Buffer { at, capacity, count, name }),
        }
    }

    /// Copies all values, and after them `end` without counting it. Says how many there are even where they do not fit.
    ///
    /// # Errors
    /// Where they do not fit, unless the caller gave no buffer and only asks.
    pub fn fill(self, values: &[T], end: &[T]) -> Result<(), Failure> {
        self.count.set(values.len());
        if self.at.is_null() {
            return Ok(());
        }
        let needed = values.len() + end.len();
        if needed > self.capacity {
            return Err(Failure::too_small(self.name, self.capacity, needed));
        }
        for (from, offset) in [(values, 0), (end, values.len())] {
            // SAFETY: `new` promises room for `capacity` values, and `needed` is no more; as bytes, so that nothing is demanded of
            // the buffer's alignment. Memory of ours is not among the caller's.
            unsafe {
                let to = self.at.cast::<u8>().add(offset * size_of::<T>());
                ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), to, size_of_val(from));
            }
        }
        Ok(())
    }
}

impl Buffer<u8> {
    /// Copies a text and a NUL behind it.
    ///
    /// # Errors
    /// As [`Buffer::fill`].
    pub fn fill_text(self, text: &str) -> Result<(), Failure> {
        self.fill(text.as_bytes(), &[0])
    }
}

/// A structure of plain numbers and pointers that begins with its size, so that later versions can add fields.
///
/// # Safety
/// Every pattern of bits is a value, and the first field is a `usize`.
pub unsafe trait Versioned: Copy {
    /// What it is called in the header.
    const NAME: &'static str;
    /// The function that initializes it.
    const INIT: &'static str;
}

/// A structure as the caller gave it, with `defaults` for the fields that the caller's version does not have; `defaults` where there
/// is none. Its size is the caller's.
///
/// # Safety
/// `from` is null, or can be read for as many bytes as its first field says.
///
/// # Errors
/// Where the size makes no sense, or a later version's fields have values that this one does not know.
pub unsafe fn versioned<T: Versioned>(from: *const T, defaults: T) -> Result<T, Failure> {
    if from.is_null() {
        return Ok(defaults);
    }
    // SAFETY: by this function's contract; the first field is a `usize`.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=LARGEST_OPTIONS).contains(&size) {
        let (name, init) = (T::NAME, T::INIT);
        return Err(invalid(format!(
            "{name}: its size is {size}; call {init}, and then set what is to be otherwise"
        )));
    }
    let known = size_of::<T>().min(size);
    // SAFETY: `size` bytes can be read.
    let beyond = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(invalid(format!(
            "{}: it has {size} bytes, of which this library knows {known}, and one of the others is set; use a newer library, or \
             leave the new fields as they were initialized",
            T::NAME
        )));
    }
    let mut value = MaybeUninit::new(defaults);
    // SAFETY: both have `known` bytes, and every pattern of bits is a value of `T`.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known);
        Ok(value.assume_init())
    }
}

/// Fills in a caller's structure whose version has `size` bytes: what of `value` it has, and zeros for what it has beyond.
///
/// # Safety
/// `to` is null, or `size` bytes may be written to it.
///
/// # Errors
/// Where it is null, or its size makes no sense.
pub unsafe fn write_versioned<T: Versioned>(to: *mut T, size: usize, value: &T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(null(T::NAME));
    }
    if !(size_of::<usize>()..=LARGEST_OPTIONS).contains(&size) {
        return Err(invalid(format!("{}: its size is {size}; pass sizeof({})", T::NAME, T::NAME)));
    }
    let known = size_of::<T>().min(size);
    // SAFETY: `size` bytes may be written, of which the structure's own are `known`.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), to.cast::<u8>(), known);
        ptr::write_bytes(to.cast::<u8>().add(known), 0, size - known);
        to.cast::<usize>().write_unaligned(size);
    }
    Ok(())
}

/// As [`write_versioned`], for a structure whose first field the caller has set.
///
/// # Safety
/// `to` is null, or can be read and written for as many bytes as its first field says.
///
/// # Errors
/// As [`write_versioned`].
pub unsafe fn answer_versioned<T: Versioned>(to: *mut T, value: &T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(null(T::NAME));
    }
    // SAFETY: by this function's contract.
    unsafe { write_versioned(to, to.cast::<usize>().read_unaligned(), value) }
}

fn null(name: &str) -> Failure {
    invalid(format!("{name} is null"))
}

/// What a pointer points to.
///
/// # Safety
/// `from` is null, or points to a `T` that lives and is not written to until the call ends.
///
/// # Errors
/// Where it is null or not aligned.
pub unsafe fn required<'a, T>(from: *const T, name: &str) -> Result<&'a T, Failure> {
    match () {
        () if from.is_null() => Err(null(name)),
        () if !from.is_aligned() => {
            Err(invalid(format!("{name} is no pointer to such a thing: it is not aligned")))
        }
        // SAFETY: by this function's contract.
        () => Ok(unsafe { &*from }),
    }
}

/// What a handle points to, for the length of a call. A caller who closed it has null.
///
/// # Safety
/// As [`required`].
///
/// # Errors
/// As [`required`].
pub unsafe fn handle<'a, T>(from: *const T, name: &str) -> Result<&'a T, Failure> {
    if from.is_null() {
        return Err(invalid(format!("{name} is null: it was not opened, or it was closed")));
    }
    // SAFETY: by this function's contract.
    unsafe { required(from, name) }
}

/// Some values in a row; none where `count` is 0.
///
/// # Safety
/// `from` is null, or points to `count` values that live and are not written to until the call ends.
///
/// # Errors
/// Where it is null or not aligned and `count` is not 0, and where no memory has so many.
pub unsafe fn slice<'a, T>(from: *const T, count: usize, name: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(invalid(format!("{name}: {count} elements are more than fit any memory")));
    }
    // SAFETY: by this function's contract there are `count` values; null and alignment are checked.
    unsafe {
        required(from, name)?;
        Ok(std::slice::from_raw_parts(from, count))
    }
}

/// A text of `length` bytes.
///
/// # Safety
/// As [`slice`].
///
/// # Errors
/// As [`slice`], and where it is no UTF-8.
pub unsafe fn text<'a>(from: *const c_char, length: usize, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    let bytes = unsafe { slice(from.cast::<u8>(), length, name)? };
    utf8(bytes, name)
}

/// A text that ends before a NUL.
///
/// # Safety
/// `from` is null, or points to bytes of which one is NUL, and which live and are not written to until the call ends.
///
/// # Errors
/// Where it is null, or no UTF-8.
pub unsafe fn c_text<'a>(from: *const c_char, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: by this function's contract.
    utf8(unsafe { c_bytes(from, name)? }, name)
}

/// Bytes that end before a NUL, such as a path.
///
/// # Safety
/// As [`c_text`].
///
/// # Errors
/// Where it is null.
pub unsafe fn c_bytes<'a>(from: *const c_char, name: &str) -> Result<&'a [u8], Failure> {
    // SAFETY: by this function's contract.
    if from.is_null() { Err(null(name)) } else { Ok(unsafe { CStr::from_ptr(from) }.to_bytes()) }
}

fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes).map_err(|error| {
        invalid(format!("{name} is no UTF-8: byte {} begins no character; pass UTF-8", error.valid_up_to()))
    })
}

/// Bytes of the caller that stay where they are until the last user of a model has gone.
pub struct Borrowed {
    from: *const u8,
    length: usize,
}

// SAFETY: they are only read, and the contract of `Borrowed::new` is that nobody writes to them.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl Borrowed {
    /// # Safety
    /// They live, and nobody writes to them, as long as this value does.
    ///
    /// # Errors
    /// As [`slice`].
    pub unsafe fn new(bytes: *const u8, length: usize) -> Result<Borrowed, Failure> {
        // SAFETY: by this function's contract.
        let bytes = unsafe { slice(bytes, length, "bytes")? };
        Ok(Borrowed { from: bytes.as_ptr(), length })
    }
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: by the contract of `new`, which also checked the pointer; it is never null there.
        unsafe { std::slice::from_raw_parts(self.from, self.length) }
    }
}

/// A handle that its caller closes: `at` points to the caller's pointer. Makes that null. `None` where there is nothing to close.
///
/// # Safety
/// `at` is null, or points to a pointer that is null or came from [`Out::hand_over`], and that nobody else uses from here on.
pub unsafe fn take<T>(at: *mut *mut T) -> Option<Box<T>> {
    if at.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    unsafe {
        let handle = at.read_unaligned();
        at.write_unaligned(ptr::null_mut());
        (!handle.is_null()).then(|| Box::from_raw(handle))
    }
}

/// What a caller's pointer points to, which stays the caller's.
///
/// # Safety
/// `at` is null, or points to a pointer that is null or came from [`Out::hand_over`].
pub unsafe fn peek<'a, T>(at: *const *mut T) -> Option<&'a T> {
    // SAFETY: by this function's contract.
    unsafe { if at.is_null() { None } else { at.read_unaligned().as_ref() } }
}

/// A copy of a descriptor, which the caller keeps.
///
/// # Safety
/// Nobody closes `fd` until the call ends.
///
/// # Errors
/// Where it is none, or the process may have no more.
#[cfg(unix)]
pub unsafe fn duplicate(fd: i32) -> Result<std::fs::File, Failure> {
    use std::os::fd::BorrowedFd;
    let failed = |error: std::io::Error| Failure::io(format!("file descriptor {fd}: {error}"));
    if fd < 0 {
        return Err(invalid(format!("{fd} is no file descriptor")));
    }
    // SAFETY: it is no negative number; a descriptor that is not open makes duplicating fail.
    let given = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(given.try_clone_to_owned().map_err(failed)?.into())
}
