//! The task of one connection: moves bytes between its socket and what the tasks
//! share.

use std::io::{self, ErrorKind as IoKind, Read};
use std::sync::{Arc, Mutex};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant as Moment;

use super::shared::{LinkState, Shared, lock};
use crate::link::tcp::keep_alive;
use crate::rendezvous::registry::{ConnectionId, End};

/// The most bytes that are read from a connection before the others have their
/// turn: some 70 short messages, 50 us of work. An honest rank seldom has more.
const TURN: usize = 512;

/// The task of one connection.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) stream: TcpStream,
    pub(super) notify: Arc<Notify>,
    pub(super) shared: Arc<Mutex<Shared>>,
}

/// What the task waits for.
struct Wish {
    send: bool,
    state: LinkState,
    deadline: Option<Moment>,
}

impl Connection {
    pub(super) async fn serve(self) {
        let end = self.exchange().await;
        lock(&self.shared).forget(self.id, end);
    }

    async fn exchange(&self) -> End {
        // Neither matters enough to refuse a client for it.
        let socket = SockRef::from(&self.stream);
        let _ = socket.set_tcp_nodelay(true);
        let _ = keep_alive(&socket);
        loop {
            let wish = match self.send() {
                Ok(wish) => wish,
                Err(end) => {
                    self.hear_last_words();
                    return end;
                }
            };
            match wish.state {
                LinkState::Dropped => return End::Closed,
                // The other side sees the end after our last word.
                LinkState::Closing if !wish.send => drop(socket.shutdown(std::net::Shutdown::Write)),
                _ => {}
            }
            tokio::select! {
                () = self.notify.notified() => {}
                _ = self.stream.writable(), if wish.send => {}
                _ = self.stream.readable() => {
                    if let Err(end) = self.receive() {
                        return end;
                    }
                    // Else it would go on until the socket is empty.
                    tokio::task::yield_now().await;
                }
                () = until(wish.deadline) => lock(&self.shared).expire(self.id, wish.deadline),
            }
        }
    }

    /// Sends what the socket takes.
    fn send(&self) -> Result<Wish, End> {
        let mut shared = lock(&self.shared);
        let Shared { links, registry, .. } = &mut *shared;
        let Some(link) = links.get_mut(&self.id) else { return Err(End::Closed) };
        while !link.outgoing.is_empty() {
            match self.stream.try_write(&link.outgoing) {
                Ok(sent) => link.advance(sent, &mut registry.allowances),
                Err(error) if error.kind() == IoKind::WouldBlock => break,
                Err(error) => return Err(end_of(&error)),
            }
        }
        Ok(Wish { send: !link.outgoing.is_empty(), state: link.state, deadline: link.deadline })
    }

    /// Who cannot be told any more may have said before that it leaves in order.
    /// This reads past tokio, which may not have seen yet that there is something.
    fn hear_last_words(&self) {
        let socket = SockRef::from(&self.stream);
        let mut buffer = [0; TURN];
        while let Ok(length) = (&*socket).read(&mut buffer)
            && length > 0
        {
            lock(&self.shared).receive(self.id, &buffer[..length]);
        }
    }

    /// Takes a little of what the socket has: the others shall have their turn.
    fn receive(&self) -> Result<(), End> {
        let mut buffer = [0; TURN];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(End::Closed),
            Ok(length) => {
                lock(&self.shared).receive(self.id, &buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == IoKind::WouldBlock => Ok(()),
            Err(error) => Err(end_of(&error)),
        }
    }
}

async fn until(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What the keepalive finds out says nothing of the rank.
fn end_of(error: &io::Error) -> End {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
            End::Unknown
        }
        _ => End::Closed,
    }
}
