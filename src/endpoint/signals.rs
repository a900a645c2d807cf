//! What reaches a blocked call from outside: a byte in the wake-up pipe, an
//! abort from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crate::descriptors::Tracked;
use crate::error::{Error, Result};

/// Shared by a communicator and its endpoints; usable from any thread.
pub(crate) struct Signals {
    read: Tracked<OwnedFd>,
    write: Tracked<OwnedFd>,
    abort: Mutex<Option<i32>>,
    abort_is_pending: AtomicBool,
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
        let [read, write] = ends.map(|end| Tracked::new(unsafe { OwnedFd::from_raw_fd(end) }));
        Ok(Self { read, write, abort: Mutex::new(None), abort_is_pending: AtomicBool::new(false) })
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

    /// Asks the call that is blocked, if one is, to abort. It may be about to
    /// return instead: whoever asks then looks whether it has, and a call looks
    /// at [`has_abort`](Self::has_abort) when it has left the endpoint, so that
    /// one of the two sees the other.
    pub(crate) fn request_abort(&self, code: i32) {
        self.abort.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(code);
        self.abort_is_pending.store(true, Ordering::SeqCst);
        // SAFETY: one byte is read from a valid address. A full pipe wakes too.
        unsafe { libc::write(self.write.as_raw_fd(), [1u8].as_ptr().cast(), 1) };
    }

    /// Whether an abort that was asked for has not been taken.
    pub(crate) fn has_abort(&self) -> bool {
        fence(Ordering::SeqCst);
        self.abort_is_pending.load(Ordering::SeqCst)
    }

    /// The abort that was asked for; it remains to be taken.
    pub(super) fn abort_code(&self) -> Option<i32> {
        *self.abort.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The abort that was asked for, once.
    pub(crate) fn take_abort(&self) -> Option<i32> {
        self.abort_is_pending.store(false, Ordering::SeqCst);
        self.abort.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
