//! The rendezvous server on the network: one event loop, a small task per
//! connection, no threads.
//!
//! Everything that a stranger can make it hold is bounded ([`options::Limits`]). Where
//! a bound on handshakes is reached, the oldest one of the source that has most
//! gives way, not the newcomer: an honest client is through in two round trips,
//! so that whoever lets connections lie around only ever pushes out his own
//! kind.
//!
//! The first byte of a client tells which protocol it speaks: ours
//! ([`super::protocol`]) or TCPunch's ([`super::tcpunch`]).

mod connection;
mod options;
mod shared;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use connection::Connection;
pub use options::ServerOptions;
use shared::{Shared, lock};

use super::protocol::hash;
use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLevel;
use crate::proof::check_secret;

/// How many connections are taken before those that are there have a turn. The
/// runtime lets 61 of them run before it comes back, so that even a storm is
/// served faster than it comes in, and pushes nobody out.
const ACCEPT_AT_ONCE: usize = 8;
/// How long accepting pauses when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many handshakes give way when there are no descriptors left.
const EVICT_AT_ONCE: usize = 16;
/// How often forgotten epochs are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Of the kernel; it may cap it.
const BACKLOG: i32 = 4096;

/// A rendezvous server: tells the ranks of a job each other's addresses.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    /// Listens on `address`; port 0 is any free port.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the address cannot be had, [`ErrorKind::Config`]
    /// if a secret is required and there is none, or it is too short.
    pub fn bind(address: SocketAddr, options: ServerOptions) -> Result<Self> {
        match &options.secret {
            None if options.require_secret => {
                return Err(Error::new(
                    ErrorKind::Config,
                    "a secret is required, but none is set (FMI_SECRET)",
                ));
            }
            None => {}
            Some(secret) => check_secret(secret)?,
        }
        let listener =
            listen(address).map_err(|error| Error::io(&format!("cannot listen on {address}"), &error))?;
        let address = listener.local_addr().map_err(|error| Error::io("getsockname", &error))?;
        Ok(Self { listener, address, shared: Arc::new(Mutex::new(Shared::new(options))) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, inside a tokio runtime that has I/O
    /// and time enabled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the listener cannot be registered. What clients do
    /// is never an error.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let listener = AsyncListener::from_std(self.listener)
            .map_err(|error| Error::io("cannot register the listener", &error))?;
        let shared = self.shared;
        let mut tasks = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        tokio::pin!(shutdown);
        let alarm = lock(&shared).alarm.clone();
        let mut burst = 0;
        loop {
            burst += 1;
            if burst == ACCEPT_AT_ONCE {
                burst = 0;
                tokio::task::yield_now().await;
            }
            let timer = lock(&shared).registry.next_timer();
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                () = alarm.notified() => continue,
                () = sleep_until(timer), if timer.is_some() => {
                    lock(&shared).tick(Instant::now());
                    continue;
                }
                _ = sweep.tick() => {
                    lock(&shared).registry.expire(Instant::now());
                    continue;
                }
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let pause = take(&shared, &mut tasks, accepted);
            if pause {
                tokio::select! {
                    () = &mut shutdown => return Ok(()),
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }

    /// Serves on a thread of its own until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if there is no thread or runtime to be had.
    pub fn spawn_thread(self) -> Result<ServerThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| Error::io("cannot make a runtime for the rendezvous server", &error))?;
        let (address, shared) = (self.address, Arc::clone(&self.shared));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("fmi-rendezvous".into())
            .spawn(move || runtime.block_on(self.run(async { drop(stopped.await) })))
            .map_err(|error| Error::io("cannot start a thread for the rendezvous server", &error))?;
        Ok(ServerThread { address, shared, stop: Some(stop), thread: Some(thread) })
    }
}

/// A [`Server`] on a thread of its own; stops when dropped.
pub struct ServerThread {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl ServerThread {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Says that the process of a rank has ended, as its launcher knows. The
    /// others are told that the rank is lost as soon as no connection of it is
    /// left, or at once where it has never joined.
    pub fn process_ended(&self, job_id: &str, rank: u32) {
        lock(&self.shared).process_ended(hash(job_id), rank);
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its hook.
            let _ = thread.join();
        }
    }
}

/// Gives an accepted connection its task. Whether accepting has to pause, because
/// there are no descriptors left.
fn take(
    shared: &Arc<Mutex<Shared>>,
    tasks: &mut JoinSet<()>,
    accepted: io::Result<(TcpStream, SocketAddr)>,
) -> bool {
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            lock(shared).log(LogLevel::Warn, format_args!("accept: {error}"));
            let exhausted = matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
            );
            if exhausted {
                lock(shared).evict(EVICT_AT_ONCE);
            }
            // The rest is about the one connection, which is gone.
            return exhausted;
        }
    };
    let admitted = lock(shared).admit(canonical(peer));
    match admitted {
        Ok((id, notify)) => {
            tasks.spawn(Connection { id, stream, notify, shared: shared.clone() }.serve());
        }
        Err(error) => lock(shared).log(LogLevel::Warn, format_args!("cannot serve {peer}: {error}")),
    }
    false
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restarted server takes its port back although connections of the old
    // one still linger.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// An IPv4 peer of a socket for both families looks like what it is.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

async fn sleep_until(timer: Option<Instant>) {
    if let Some(timer) = timer {
        tokio::time::sleep_until(timer.into()).await;
    }
}
