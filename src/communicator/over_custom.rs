//! The operations over a channel of the user's own, which may serve several
//! communicators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::channel::custom::Custom;
use crate::collective::Collective;
use crate::endpoint::{Limits, Until};
use crate::error::{Error, ErrorKind, Result};

/// A communicator's use of a channel.
pub(super) struct OverCustom {
    custom: Arc<Custom>,
    is_closed: AtomicBool,
}

impl OverCustom {
    pub(super) fn new(custom: &Arc<Custom>) -> Self {
        Self { custom: Arc::clone(custom), is_closed: AtomicBool::new(false) }
    }

    /// # Errors
    /// [`ErrorKind::Closed`].
    fn custom(&self) -> Result<&Custom> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the communicator is closed"));
        }
        Ok(&self.custom)
    }

    pub(super) fn send(&self, data: &[u8], dest: u32, limits: &Limits<'_>) -> Result<()> {
        self.custom()?.send(data, dest, limits)
    }

    pub(super) fn recv(&self, buffer: &mut [u8], src: u32, limits: &Limits<'_>) -> Result<()> {
        self.custom()?.recv(buffer, src, limits)
    }

    pub(super) fn sendrecv(
        &self,
        data: &[u8],
        dest: u32,
        buffer: &mut [u8],
        src: u32,
        limits: &Limits<'_>,
    ) -> Result<()> {
        self.custom()?.sendrecv(data, dest, buffer, src, limits)
    }

    pub(super) fn collective(
        &self,
        collective: Collective<'_>,
        hint: i32,
        limits: &Limits<'_>,
    ) -> Result<()> {
        self.custom()?.collective(collective, hint, limits)
    }

    /// Ends the communicator's use, and finalizes the channel, once.
    pub(super) fn leave(&self, until: Until, limits: &Limits<'_>) -> Result<()> {
        let custom = self.custom()?;
        self.is_closed.store(true, Ordering::Release);
        custom.leave(until, limits)
    }

    pub(super) fn poison(&self, error: &Error) -> Result<()> {
        self.custom()?.poison(error)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.custom.is_poisoned()
    }
}
