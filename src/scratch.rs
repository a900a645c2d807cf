//! Working memory of a call: bytes that any element type may be laid over.

use std::alloc::{self, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::error::{Error, ErrorKind, Result};

/// The alignment that a user's reduction function is promised. It is also what
/// the system's `calloc` gives without being asked, which is how a large
/// `Scratch` gets pages that are zero already; a larger alignment would touch
/// them all.
pub(crate) const ALIGNMENT: usize = 16;

/// A buffer of bytes, aligned to [`ALIGNMENT`].
pub(crate) struct Scratch {
    start: NonNull<u8>,
    length: usize,
}

impl Scratch {
    /// No bytes, and no allocation.
    pub(crate) const fn empty() -> Self {
        Self { start: NonNull::<Aligned>::dangling().cast(), length: 0 }
    }

    /// `length` zero bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NoMem`]
    pub(crate) fn zeroed(length: usize) -> Result<Self> {
        if length == 0 {
            return Ok(Self::empty());
        }
        let layout = Layout::from_size_align(length, ALIGNMENT).map_err(|_| no_memory(length))?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        Ok(Self { start: NonNull::new(start).ok_or_else(|| no_memory(length))?, length })
    }

    /// The same bytes as in `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::NoMem`]
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }
}

/// Lends its alignment to the pointer of an empty buffer.
#[repr(align(16))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGNMENT);

fn no_memory(length: usize) -> Error {
    Error::new(ErrorKind::NoMem, format!("cannot allocate {length} bytes of working memory"))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: `start` comes from `alloc_zeroed` with this size and
            // alignment, of which `zeroed` has checked that they make a layout.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.length, ALIGNMENT);
                alloc::dealloc(self.start.as_ptr(), layout);
            }
        }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is not null, and points to `length` initialised bytes
        // that this value owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

// SAFETY: the memory is owned, like a boxed slice's.
unsafe impl Send for Scratch {}

// SAFETY: a shared reference gives only shared access to the bytes.
unsafe impl Sync for Scratch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zero_and_aligned_whatever_its_length() {
        for length in [0, 1, 7, 16, 4097, 1 << 20] {
            let scratch = Scratch::zeroed(length).unwrap();
            assert_eq!(scratch.len(), length);
            assert!(scratch.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(scratch.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn copies_and_is_writable() {
        let mut scratch = Scratch::copy_of(b"abc").unwrap();
        scratch[1] = b'-';
        assert_eq!(&*scratch, b"a-c");
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        for length in [usize::MAX, isize::MAX as usize - 4096] {
            assert_eq!(Scratch::zeroed(length).err().unwrap().kind(), ErrorKind::NoMem);
        }
    }
}
