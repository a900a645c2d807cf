//! What reaches a blocked call from outside: a byte in the wake-up pipe, an
//! abort from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::error::{Error, Result};

/// Shared by a communicator and its endpoints; usable from any thread.
pub(crate) struct Signals {
    read: OwnedFd,
    write: OwnedFd,
    abort: Mutex<Option<i32>>,
}

impl Signals {
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where no pipe can be had.
    pub(crate) fn new() -> Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(Error::io("pipe2", &io::Error::last_os_error()));
        }
        // SAFETY: both descriptors are new and ours.
        let [read, write] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        Ok(Self { read, write, abort: Mutex::new(None) })
    }

    /// The end to write to.
    pub(crate) fn write_end(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    /// The end that becomes readable.
    pub(super) fn read_end(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// Takes what was written; `true` = there was something.
    pub(super) fn drain(&self) -> bool {
        let mut any = false;
        let mut bytes = [0u8; 64];
        // SAFETY: the buffer has the size that is stated.
        while unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) } > 0 {
            any = true;
        }
        any
    }

    /// Asks the call that is blocked, if one is, to abort.
    pub(crate) fn request_abort(&self, code: i32) {
        self.abort.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(code);
        // SAFETY: one byte is read from a valid address. A full pipe wakes too.
        unsafe { libc::write(self.write.as_raw_fd(), [1u8].as_ptr().cast(), 1) };
    }

    /// The abort that was asked for, once.
    pub(crate) fn take_abort(&self) -> Option<i32> {
        self.abort.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
