//! The listening socket: connections of peers, and of strangers, come here.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::sockets::ignore_connects_of;
use crate::descriptors::Tracked;
use crate::endpoint::poller::{Interest, Poller, Token};

/// How long nothing is accepted after the process, or the system, had no
/// descriptor or memory left for it. The connection stays in the kernel's queue,
/// where it would have a waiting call look at it without end.
const REST: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    socket: Tracked<Socket>,
    /// Whether the poller tells of connections.
    is_watched: bool,
    /// Until when none is accepted.
    rests_until: Option<Instant>,
    /// Whose connections are ignored.
    ignored: Vec<SocketAddrV4>,
}

impl Listener {
    /// Nothing is accepted, and no event comes, before the first
    /// [`accept`](Self::accept).
    pub(super) fn new(socket: Tracked<Socket>) -> Self {
        Self { socket, is_watched: false, rests_until: None, ignored: Vec::new() }
    }

    /// The next connection, which does not block.
    pub(super) fn accept(&mut self, poller: &Poller, now: Instant) -> Option<Tracked<Socket>> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.rests_until = None;
        if !self.is_watched {
            let added = poller.add(self.socket.as_raw_fd(), Token::Listener, Interest::Read);
            self.is_watched = added.is_ok();
        }
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    let socket = Tracked::new(socket);
                    // It has inherited the listener's.
                    let _ = socket.detach_filter();
                    if socket.set_nonblocking(true).is_ok() {
                        return Some(socket);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    // The connection that was next has ended: there may be others.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        self.unwatch(poller);
                        self.rests_until = Some(now + REST);
                        return None;
                    }
                },
            }
        }
    }

    /// Whether an [`accept`](Self::accept) is due although no event comes.
    pub(super) fn needs_a_look(&self) -> bool {
        !self.is_watched
    }

    /// When to accept again although no event comes.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Ignores who connects from these addresses; see [`ignore_connects_of`].
    /// Where the kernel has no filters, it does not.
    pub(super) fn ignore(&mut self, sources: Vec<SocketAddrV4>) {
        if sources != self.ignored && ignore_connects_of(&self.socket, &sources).is_ok() {
            self.ignored = sources;
        }
    }

    pub(super) fn unwatch(&mut self, poller: &Poller) {
        if std::mem::take(&mut self.is_watched) {
            poller.remove(self.socket.as_raw_fd());
        }
    }
}
