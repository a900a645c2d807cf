//! Links: the way to one peer, a stream of bytes in each direction.
//!
//! A link never blocks. What a link carries is the engine's business.

pub(crate) mod handshake;
pub(crate) mod memory;
pub(crate) mod tcp;

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::time::Duration;

use memory::MemoryLink;
use tcp::TcpLink;

/// Memory that bytes may be received into: where it is, and how long.
pub(crate) type Part = (*mut u8, usize);

/// The way to one peer.
pub(crate) enum Link {
    Tcp(TcpLink),
    Memory(MemoryLink),
}

impl Link {
    /// Sends from the two buffers in turn; returns how many bytes were taken.
    /// [`io::ErrorKind::WouldBlock`] = none just now.
    pub(crate) fn send(&mut self, buffers: &[IoSlice<'_>; 2]) -> io::Result<usize> {
        match self {
            Self::Tcp(link) => link.send(buffers),
            Self::Memory(link) => link.send(buffers),
        }
    }

    /// Receives into the `parts` in turn, then into `staging`; returns how many
    /// bytes came. 0 = the peer has closed its side;
    /// [`io::ErrorKind::WouldBlock`] = none just now.
    ///
    /// # Safety
    /// The parts are valid for writes of their lengths, and apart from
    /// `staging`.
    pub(crate) unsafe fn recv(&mut self, parts: &[Part; 2], staging: &mut [u8]) -> io::Result<usize> {
        match self {
            // SAFETY: the caller's promise is handed on.
            Self::Tcp(link) => unsafe { link.recv(parts, staging) },
            // SAFETY: as above.
            Self::Memory(link) => unsafe { link.recv(parts, staging) },
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shut_down_sending(&mut self) {
        match self {
            Self::Tcp(link) => link.shut_down_sending(),
            Self::Memory(link) => link.shut_down_sending(),
        }
    }

    /// Bytes that the other side's kernel has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        match self {
            Self::Tcp(link) => link.unacknowledged(),
            Self::Memory(_) => 0,
        }
    }

    /// How long the other side's host has acknowledged nothing, where that means
    /// that it is gone.
    pub(crate) fn silence(&self) -> Option<Duration> {
        match self {
            Self::Tcp(link) => link.silence(),
            Self::Memory(_) => None,
        }
    }

    /// What an epoll can watch.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(link) => Some(link.descriptor()),
            Self::Memory(_) => None,
        }
    }
}
