//! The rendezvous server on the network: one event loop, a small task per
//! connection, no threads.
//!
//! Everything that a stranger can make it hold is bounded ([`Limits`]). Where
//! a bound on handshakes is reached, the oldest one of the source that has most
//! gives way, not the newcomer: an honest client is through in two round trips,
//! so that whoever lets connections lie around only ever pushes out his own
//! kind.
//!
//! The first byte of a client tells which protocol it speaks: ours
//! ([`super::protocol`]) or TCPunch's ([`super::tcpunch`]).

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io::{self, ErrorKind as IoKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant as Moment;

use super::allowance::{Allowances, source_of};
use super::client::MIN_SECRET;
use super::protocol::{MAGIC, MAX_FRAME, Membership, Refusal, hash};
use super::registry::{ConnectionId, End, Output, Refused, Registry};
use super::session::{Admission, Fresh, Room, Session};
use super::tcpunch::{self, Answer, Caller, TooLong, Waiting};
use crate::error::{Error, ErrorKind, Result};
use crate::link::tcp::keep_alive;
use crate::log::{LogFunction, LogLevel, Logger};

/// How a rendezvous server is to behave.
#[derive(Clone)]
pub struct ServerOptions {
    secret: Option<Vec<u8>>,
    require_secret: bool,
    tcpunch: bool,
    logger: Logger,
    limits: Limits,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            secret: None,
            require_secret: false,
            tcpunch: true,
            logger: Logger::default(),
            limits: Limits::default(),
        }
    }
}

impl ServerOptions {
    /// Ranks that prove this secret are served as its jobs; at least 16 bytes.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Refuses ranks that do not prove the secret.
    pub fn require_secret(mut self, require: bool) -> Self {
        self.require_secret = require;
        self
    }

    /// Whether clients of TCPunch, protocol 1, are served too: by default they
    /// are. Nothing is authenticated there, so they never are where a secret
    /// is required.
    pub fn tcpunch(mut self, serve: bool) -> Self {
        self.tcpunch = serve;
        self
    }

    /// Gives log lines up to `level` to `log`: at [`LogLevel::Info`] one for
    /// each rank that joins, leaves, is lost or refused, and for each pair
    /// that is told to connect.
    pub fn log(mut self, level: LogLevel, log: Arc<LogFunction>) -> Self {
        self.logger.add_function(level, log);
        self
    }
}

/// What the server lets others take of it.
#[derive(Clone, Copy)]
struct Limits {
    /// Until a connection has joined.
    handshake: Duration,
    /// Connections that have not joined, in all and from one source.
    handshakes: usize,
    handshakes_per_source: usize,
    /// Until the partner of a client of protocol 1 has come.
    partner: Duration,
    /// Clients of protocol 1 that wait for their partners, in all and from one
    /// source.
    waiting: usize,
    waiting_per_source: usize,
    /// Members, in all.
    members: usize,
    /// Members that have not proved the secret, in all and from one source.
    /// Those that have are known to belong together, and may share the address
    /// of a NAT.
    strangers: usize,
    strangers_per_source: usize,
    /// Bytes that a member has not read.
    unread: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 4096,
            handshakes_per_source: 1024,
            // As long as a function may live on the largest of the clouds.
            partner: Duration::from_secs(900),
            waiting: 4096,
            waiting_per_source: 1024,
            members: 1 << 16,
            strangers: 1 << 16,
            strangers_per_source: 4096,
            unread: 256 * 1024,
        }
    }
}

/// Unread bytes of a stranger that do not take from its source's allowance: a
/// member that keeps up never has more.
const UNREAD_FOR_FREE: usize = MAX_FRAME;
/// How long a connection that is refused may take to read why: closing it at
/// once, with bytes of it unread, would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);
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
/// The most bytes that are read from a connection before the others have their
/// turn: some 70 short messages, 50 us of work. An honest rank seldom has more.
const TURN: usize = 512;
/// Descriptors that are not for connections.
const SPARE_DESCRIPTORS: usize = 64;
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
            Some(secret) if secret.len() < MIN_SECRET => {
                let text = format!("the job secret (FMI_SECRET) has fewer than {MIN_SECRET} bytes");
                return Err(Error::new(ErrorKind::Config, text));
            }
            _ => {}
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
            let pause = match accepted {
                Ok((stream, peer)) => match lock(&shared).admit(canonical(peer)) {
                    Ok((id, notify)) => {
                        tasks.spawn(Connection { id, stream, notify, shared: shared.clone() }.serve());
                        continue;
                    }
                    Err(error) => {
                        lock(&shared).log(LogLevel::Warn, format_args!("cannot serve {peer}: {error}"));
                        false
                    }
                },
                Err(error) => {
                    lock(&shared).log(LogLevel::Warn, format_args!("accept: {error}"));
                    let exhausted = matches!(
                        error.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                    );
                    if exhausted {
                        lock(&shared).evict(EVICT_AT_ONCE);
                    }
                    // The rest is about the one connection, which is gone.
                    exhausted
                }
            };
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
        let mut shared = lock(&self.shared);
        shared.registry.process_ended(hash(job_id), rank);
        shared.distribute();
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

/// A panic while it was held would have left the registry half changed: then
/// the server ends rather than tell nonsense.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no task panicked")
}

async fn sleep_until(timer: Option<Instant>) {
    if let Some(timer) = timer {
        tokio::time::sleep_until(timer.into()).await;
    }
}

/// What the tasks share.
struct Shared {
    registry: Registry,
    /// Says that the registry's timer may have changed.
    alarm: Arc<Notify>,
    admission: Admission,
    /// The clients of protocol 1; `None` where they are not served.
    waiting: Option<Waiting>,
    logger: Logger,
    limits: Limits,
    links: HashMap<ConnectionId, Link>,
    next_id: ConnectionId,
    /// The connections that are neither members nor wait, oldest first.
    handshakes: BTreeSet<ConnectionId>,
    sources: HashMap<IpAddr, Source>,
    members: usize,
    /// How many of these have not proved the secret.
    strangers: usize,
    /// How many wait.
    waits: usize,
}

/// A connection, without its socket.
struct Link {
    speech: Speech,
    peer: SocketAddr,
    class: Class,
    state: LinkState,
    /// When [`Shared::expire`] is due.
    deadline: Option<Moment>,
    /// What the socket has not taken yet.
    outgoing: Vec<u8>,
    /// How much of the source's allowance that takes.
    taken: usize,
    /// Wakes the task: there is something to send, or the state has changed.
    notify: Arc<Notify>,
}

/// Which protocol the client speaks.
enum Speech {
    /// It has not said anything.
    Silent(Fresh),
    Frames(Session),
    Name(Caller),
}

/// What a connection counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Handshake,
    /// Of protocol 1, for its partner.
    Waiting,
    Member {
        authenticated: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    /// Ends when the outgoing bytes are sent and the other side has closed.
    Closing,
    /// Ends at once, after one attempt to send.
    Dropped,
}

#[derive(Default)]
struct Source {
    /// Oldest first.
    handshakes: BTreeSet<ConnectionId>,
    /// Oldest first.
    waiting: BTreeSet<ConnectionId>,
    /// Members that have not proved the secret.
    strangers: usize,
}

impl Source {
    fn is_empty(&self) -> bool {
        self.handshakes.is_empty() && self.waiting.is_empty() && self.strangers == 0
    }
}

impl Shared {
    fn new(options: ServerOptions) -> Self {
        let ServerOptions { secret, require_secret, tcpunch, logger, mut limits } = options;
        let descriptors = descriptor_limit().saturating_sub(SPARE_DESCRIPTORS).max(4);
        limits.handshakes = limits.handshakes.min(descriptors / 2);
        limits.waiting = limits.waiting.min(descriptors / 4);
        limits.members = limits.members.min(descriptors - limits.handshakes - limits.waiting);
        // Strangers cannot take all the room of those who know the secret.
        let reserved = if secret.is_some() { limits.members / 4 } else { 0 };
        limits.strangers = limits.strangers.min(limits.members - reserved);
        Self {
            registry: Registry::default(),
            alarm: Arc::new(Notify::new()),
            admission: Admission { secret, required: require_secret },
            waiting: (tcpunch && !require_secret).then(Waiting::default),
            logger,
            limits,
            links: HashMap::new(),
            next_id: 0,
            handshakes: BTreeSet::new(),
            sources: HashMap::new(),
            members: 0,
            strangers: 0,
            waits: 0,
        }
    }

    fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        self.logger.log(level, text);
    }

    /// Takes a new connection; where there are too many handshakes, the oldest
    /// gives way.
    fn admit(&mut self, peer: SocketAddr) -> io::Result<(ConnectionId, Arc<Notify>)> {
        let fresh = fresh()?;
        self.make_room(Class::Handshake, source_of(peer));
        self.next_id += 1;
        let id = self.next_id;
        let notify = Arc::new(Notify::new());
        let link = Link {
            speech: Speech::Silent(fresh),
            peer,
            class: Class::Handshake,
            state: LinkState::Open,
            deadline: Some(Moment::now() + self.limits.handshake),
            outgoing: Vec::new(),
            taken: 0,
            notify: notify.clone(),
        };
        self.links.insert(id, link);
        self.count(id, Class::Handshake);
        Ok((id, notify))
    }

    /// Where a class that is not the members' has as many as it may, its oldest
    /// connection gives way: of the source of the newcomer, or of that which has
    /// most.
    fn make_room(&mut self, class: Class, newcomer: IpAddr) {
        let limits = self.limits;
        let (kind, count, limit, per_source): (fn(&Source) -> &BTreeSet<ConnectionId>, _, _, _) = match class
        {
            Class::Handshake => {
                let count = self.handshakes.len();
                (|source| &source.handshakes, count, limits.handshakes, limits.handshakes_per_source)
            }
            Class::Waiting => {
                (|source| &source.waiting, self.waits, limits.waiting, limits.waiting_per_source)
            }
            Class::Member { .. } => return,
        };
        let siblings = self.sources.get(&newcomer).map(kind);
        let oldest = match siblings {
            Some(siblings) if siblings.len() >= per_source => siblings.first(),
            _ if count >= limit => self.oldest_of_most(kind),
            _ => None,
        };
        if let Some(oldest) = oldest.copied() {
            self.drop_link(oldest);
        }
    }

    /// The oldest connection of a kind, of the source that has most of them.
    fn oldest_of_most(&self, kind: fn(&Source) -> &BTreeSet<ConnectionId>) -> Option<&ConnectionId> {
        self.sources.values().map(kind).max_by_key(|siblings| siblings.len())?.first()
    }

    /// Drops up to `count` of the oldest handshakes.
    fn evict(&mut self, count: usize) {
        for _ in 0..count {
            let Some(oldest) = self.handshakes.first().copied() else { return };
            self.drop_link(oldest);
        }
    }

    /// Lets the connection's task end. It does not count any more from now on:
    /// else a storm would find the same ones again before their tasks ran.
    fn drop_link(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.state = LinkState::Dropped;
        link.notify.notify_one();
        self.free_name(id);
        self.discount(id);
    }

    /// Nobody will be paired with a connection.
    fn free_name(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        if let (Speech::Name(caller), Some(waiting)) = (&link.speech, &mut self.waiting) {
            waiting.withdraw(id, caller);
        }
    }

    /// Counts a connection as one of `class`, and no more as what it was.
    fn count(&mut self, id: ConnectionId, class: Class) {
        self.discount(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.class = class;
        if class == (Class::Member { authenticated: true }) {
            self.members += 1;
            return;
        }
        let source = self.sources.entry(source_of(link.peer)).or_default();
        match class {
            Class::Handshake => {
                self.handshakes.insert(id);
                source.handshakes.insert(id);
            }
            Class::Waiting => {
                self.waits += 1;
                source.waiting.insert(id);
            }
            Class::Member { .. } => {
                self.members += 1;
                self.strangers += 1;
                source.strangers += 1;
            }
        }
    }

    /// Takes a connection that is not a member out of the counts.
    fn discount(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        let address = source_of(link.peer);
        self.handshakes.remove(&id);
        let Some(source) = self.sources.get_mut(&address) else { return };
        source.handshakes.remove(&id);
        self.waits -= usize::from(source.waiting.remove(&id));
        if source.is_empty() {
            self.sources.remove(&address);
        }
    }

    /// Takes what was read from a connection.
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(first) = bytes.first() else { return };
        if link.state != LinkState::Open {
            return;
        }
        if let Speech::Silent(fresh) = link.speech {
            link.speech = match link.peer {
                _ if *first == MAGIC[0] || self.waiting.is_none() => {
                    Speech::Frames(Session::new(id, link.peer, fresh))
                }
                SocketAddr::V4(public) => Speech::Name(Caller::new(public)),
                SocketAddr::V6(_) => return self.dismiss(id, "protocol 1 knows IPv4 only"),
            };
        }
        match link.speech {
            Speech::Name(_) => self.receive_name(id, bytes),
            _ => self.receive_frames(id, bytes),
        }
    }

    /// Takes a piece of a name.
    fn receive_name(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Speech::Name(caller), Some(waiting)) = (&mut link.speech, &mut self.waiting) else { return };
        waiting.withdraw(id, caller);
        let taken = caller.receive(bytes);
        link.deadline = Some(Moment::now() + tcpunch::QUIET);
        if link.class == Class::Waiting {
            let source = source_of(link.peer);
            self.make_room(Class::Handshake, source);
            self.count(id, Class::Handshake);
        }
        if taken == Err(TooLong) {
            self.dismiss(id, "neither protocol's first words");
        }
    }

    /// A name is at its end: its client is paired, or waits.
    fn enter(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Speech::Name(caller), Some(waiting)) = (&mut link.speech, &mut self.waiting) else { return };
        let Answer { bytes, partner } = waiting.enter(id, caller);
        link.outgoing.extend_from_slice(&bytes);
        link.deadline = Some(Moment::now() + self.limits.partner);
        link.notify.notify_one();
        let peer = link.peer;
        if partner.is_none() {
            self.make_room(Class::Waiting, source_of(peer));
        }
        self.count(id, Class::Waiting);
        if let Some((partner, bytes)) = partner {
            self.logger.log(LogLevel::Info, format_args!("paired by name: {peer}"));
            if let Some(link) = self.links.get_mut(&partner) {
                link.outgoing.extend_from_slice(&bytes);
            }
            self.close(id);
            self.close(partner);
        }
    }

    /// Takes what a client of our protocol sent.
    fn receive_frames(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Speech::Frames(session) = &mut link.speech else { return };
        let strangers = self.sources.get(&source_of(link.peer)).map_or(0, |source| source.strangers);
        let room = self.members < self.limits.members;
        let room = Room {
            authenticated: room,
            strangers: room
                && self.strangers < self.limits.strangers
                && strangers < self.limits.strangers_per_source,
        };
        let out = &mut link.outgoing;
        let result = session.receive(bytes, &mut self.registry, &self.admission, room, out);
        let (joined, over) = (session.membership(), session.is_over());
        link.notify.notify_one();
        if let (Class::Handshake, Some(authenticated)) = (link.class, joined) {
            link.deadline = None;
            self.count(id, Class::Member { authenticated });
        }
        self.distribute();
        match result {
            Ok(()) if over => self.close(id),
            Ok(()) => {}
            Err(refused) => self.refuse(id, refused),
        }
    }

    /// Tells the client why, and lets its connection end.
    fn refuse(&mut self, id: ConnectionId, refused: Refused) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Speech::Frames(session) = &link.speech else { return self.dismiss(id, &refused.text) };
        // Garbage from strangers is no event.
        let stranger = link.class == Class::Handshake && refused.refusal == Refusal::Protocol;
        let level = if stranger { LogLevel::Debug } else { LogLevel::Info };
        self.logger.log(level, format_args!("refused: {}: {}", link.peer, refused.text));
        session.refuse(refused, &mut link.outgoing);
        self.close(id);
        self.end_member(id, End::Closed);
    }

    /// The connection of a member, if it is one, has ended.
    fn end_member(&mut self, id: ConnectionId, end: End) {
        self.registry.closed(id, end, Instant::now());
        self.alarm.notify_one();
        self.distribute();
    }

    fn tick(&mut self, now: Instant) {
        self.registry.tick(now);
        self.distribute();
    }

    /// Ends the connection of a client that has no words for why.
    fn dismiss(&mut self, id: ConnectionId, why: &str) {
        let Some(link) = self.links.get(&id) else { return };
        self.logger.log(LogLevel::Debug, format_args!("dismissed: {}: {why}", link.peer));
        self.close(id);
    }

    /// Lets the connection end when its outgoing bytes are sent.
    fn close(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.state == LinkState::Open {
            link.state = LinkState::Closing;
            link.deadline = Some(Moment::now() + LINGER);
            link.notify.notify_one();
            self.free_name(id);
        }
    }

    /// The connection's deadline has passed, if it has not been moved meanwhile.
    fn expire(&mut self, id: ConnectionId, deadline: Option<Moment>) {
        let Some(link) = self.links.get(&id) else { return };
        if link.deadline != deadline {
            return;
        }
        match (link.state, link.class, &link.speech) {
            (LinkState::Open, Class::Handshake, Speech::Name(_)) => self.enter(id),
            (LinkState::Open, Class::Waiting, _) => self.dismiss(id, "no partner has come"),
            (LinkState::Open, ..) => {
                let text = format!("no handshake within {:?}", self.limits.handshake);
                self.refuse(id, Refused::new(Refusal::Protocol, text));
            }
            _ => self.drop_link(id),
        }
    }

    /// Hands out what the registry has put out.
    fn distribute(&mut self) {
        while let Some(output) = self.registry.next_output() {
            match output {
                Output::Log(line) => self.logger.log(LogLevel::Info, format_args!("{line}")),
                Output::Close(id) => self.drop_link(id),
                Output::Send(id, message) => {
                    let Some(link) = self.links.get_mut(&id) else { continue };
                    if link.state != LinkState::Open {
                        continue;
                    }
                    message.encode(&mut link.outgoing);
                    link.notify.notify_one();
                    if link.outgoing.len() > self.limits.unread || !link.settle(&mut self.registry.allowances)
                    {
                        let (peer, unread) = (link.peer, link.outgoing.len());
                        let text = format_args!("dropped: {peer} has not read {unread} bytes");
                        self.logger.log(LogLevel::Info, text);
                        self.drop_link(id);
                    }
                }
            }
        }
    }

    /// The connection is gone.
    fn forget(&mut self, id: ConnectionId, end: End) {
        self.free_name(id);
        self.discount(id);
        let Some(link) = self.links.remove(&id) else { return };
        let address = source_of(link.peer);
        self.registry.allowances.give_back(address, link.taken);
        if let Class::Member { authenticated } = link.class {
            self.members -= 1;
            self.strangers -= usize::from(!authenticated);
            if !authenticated && let Some(source) = self.sources.get_mut(&address) {
                source.strangers -= 1;
                if source.is_empty() {
                    self.sources.remove(&address);
                }
            }
        }
        self.end_member(id, end);
    }
}

impl Link {
    /// The socket has taken the first `sent` of the outgoing bytes.
    fn advance(&mut self, sent: usize, allowances: &mut Allowances) {
        self.outgoing.drain(..sent);
        if self.outgoing.is_empty() {
            // An idle connection holds no buffer.
            self.outgoing = Vec::new();
        }
        if self.taken > 0 {
            self.settle(allowances);
        }
    }

    /// Takes from the allowance of a stranger's source, or gives back, as the
    /// outgoing bytes ask for; false if there is not so much.
    fn settle(&mut self, allowances: &mut Allowances) -> bool {
        let due = match self.class {
            Class::Member { authenticated: true } => 0,
            _ => self.outgoing.len().saturating_sub(UNREAD_FOR_FREE),
        };
        let source = source_of(self.peer);
        if due < self.taken {
            allowances.give_back(source, self.taken - due);
        } else if !allowances.take(source, due - self.taken) {
            return false;
        }
        self.taken = due;
        true
    }
}

fn fresh() -> io::Result<Fresh> {
    let mut bytes = [[0; 16]; 3];
    getrandom::fill(bytes.as_flattened_mut()).map_err(io::Error::other)?;
    let [nonce, epoch, token] = bytes;
    Ok(Fresh { nonce, membership: Membership { epoch, token } })
}

/// How many descriptors this process may have.
fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// The task of one connection.
struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    notify: Arc<Notify>,
    shared: Arc<Mutex<Shared>>,
}

/// What the task waits for.
struct Wish {
    send: bool,
    state: LinkState,
    deadline: Option<Moment>,
}

impl Connection {
    async fn serve(self) {
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

#[cfg(test)]
mod siege;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream as Socket};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::client::{Client, Event, JoinRequest, Reason};
    use super::*;

    /// No test waits longer: a hang is a failure.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn serve(limits: Limits) -> ServerThread {
        serve_with(ServerOptions { limits, ..ServerOptions::default() })
    }

    fn serve_with(options: ServerOptions) -> ServerThread {
        Server::bind("127.0.0.1:0".parse().unwrap(), options).unwrap().spawn_thread().unwrap()
    }

    fn stranger(server: &ServerThread) -> Socket {
        let socket = Socket::connect(server.local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A client on a blocking socket.
    struct Rank {
        client: Client,
        socket: Socket,
    }

    impl Rank {
        fn start(server: &ServerThread, name: &str, rank: u32, size: u32, secret: Option<&[u8]>) -> Self {
            let request = JoinRequest {
                name: name.into(),
                job_id: None,
                rank,
                size,
                private_endpoints: Vec::new(),
                host_id: 1,
                fingerprint: 0,
                secret: secret.map(Into::into),
            };
            Self { client: Client::new(request).unwrap(), socket: stranger(server) }
        }

        fn member(server: &ServerThread, name: &str, rank: u32, size: u32) -> Self {
            let mut member = Self::start(server, name, rank, size, None);
            assert!(matches!(member.event(), Ok(Event::Joined { .. })));
            member
        }

        fn flush(&mut self) {
            self.socket.write_all(self.client.outgoing()).unwrap();
            self.client.advance(self.client.outgoing().len());
        }

        /// The next event, sending what there is to send.
        fn event(&mut self) -> Result<Event> {
            loop {
                if let Some(event) = self.client.next_event() {
                    return Ok(event);
                }
                self.flush();
                let mut buffer = [0; 1024];
                let length = self.socket.read(&mut buffer).expect("an answer in time");
                assert_ne!(length, 0, "the server closed the connection");
                self.client.receive(&buffer[..length])?;
            }
        }

        fn event_but_not_yet(&mut self) -> Event {
            loop {
                match self.event().unwrap() {
                    Event::NotYet { .. } => {}
                    event => return event,
                }
            }
        }
    }

    /// Two ranks find each other; how long that took.
    fn honest_pair(server: &ServerThread, name: &str) -> Duration {
        let start = Instant::now();
        let mut zero = Rank::member(server, name, 0, 2);
        zero.client.connect(1);
        zero.flush();
        let mut one = Rank::member(server, name, 1, 2);
        assert_eq!(one.event().unwrap(), Event::Offer { rank: 0 });
        one.client.ready(0);
        let Event::Go { rank: 0, candidates, ranks_on_host: 2 } = one.event().unwrap() else { panic!() };
        assert_eq!(candidates, [zero.socket.local_addr().unwrap()]);
        let Event::Go { rank: 1, candidates, ranks_on_host: 2 } = zero.event_but_not_yet() else { panic!() };
        assert_eq!(candidates, [one.socket.local_addr().unwrap()]);
        for rank in [&mut zero, &mut one] {
            rank.client.leave();
            rank.flush();
        }
        start.elapsed()
    }

    /// Waits until the other side has closed the connection.
    fn ends(mut socket: Socket) -> bool {
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == IoKind::ConnectionReset,
        }
    }

    #[test]
    fn a_pair_finds_each_other() {
        let server = serve(Limits::default());
        honest_pair(&server, "job");
        honest_pair(&server, "job");
    }

    #[test]
    fn a_pair_with_a_secret_finds_each_other_and_others_are_refused() {
        let secret = b"0123456789abcdef";
        let server = serve_with(ServerOptions::default().secret(*secret).require_secret(true));
        assert!(matches!(Rank::start(&server, "job", 0, 2, Some(secret)).event(), Ok(Event::Joined { .. })));
        for wrong in [Some(&b"0123456789abcdeX"[..]), None] {
            let error = Rank::start(&server, "job", 1, 2, wrong).event().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth);
        }
    }

    #[test]
    fn a_secret_that_is_missing_or_short_is_refused_at_the_start() {
        let kind =
            |options| Server::bind("127.0.0.1:0".parse().unwrap(), options).err().map(|error| error.kind());
        assert_eq!(kind(ServerOptions::default().require_secret(true)), Some(ErrorKind::Config));
        assert_eq!(kind(ServerOptions::default().secret(*b"short")), Some(ErrorKind::Config));
    }

    #[test]
    fn a_taken_address_is_an_error_that_names_it() {
        let server = serve(Limits::default());
        let error = Server::bind(server.local_addr(), ServerOptions::default()).err().unwrap();
        assert_eq!((error.kind(), error.os_errno()), (ErrorKind::Io, libc::EADDRINUSE));
        assert!(error.message().contains(&server.local_addr().to_string()), "{error}");
    }

    #[test]
    fn a_port_is_taken_back_at_once() {
        let server = serve(Limits::default());
        let address = server.local_addr();
        let member = Rank::member(&server, "job", 0, 2);
        drop(server);
        assert!(ends(member.socket), "a server that stops says so");
        let server = Server::bind(address, ServerOptions::default()).unwrap().spawn_thread().unwrap();
        honest_pair(&server, "job");
    }

    #[test]
    fn a_restarted_server_takes_its_members_back() {
        let server = serve(Limits::default());
        let address = server.local_addr();
        let mut zero = Rank::member(&server, "job", 0, 2);
        zero.client.connect(1);
        let epoch = zero.client.epoch();
        drop(server);
        let server = Server::bind(address, ServerOptions::default()).unwrap().spawn_thread().unwrap();
        zero.client.reconnect().unwrap();
        zero.socket = stranger(&server);
        assert!(matches!(zero.event_but_not_yet(), Event::Joined { .. }));
        assert!(matches!(zero.event().unwrap(), Event::NotYet { rank: 1, .. }));
        let mut one = Rank::member(&server, "job", 1, 2);
        assert_eq!(one.client.epoch(), epoch);
        assert_eq!(one.event().unwrap(), Event::Offer { rank: 0 });
    }

    #[test]
    fn the_end_of_a_connection_is_a_loss_unless_it_was_announced() {
        let server = serve(Limits::default());
        let mut ranks: Vec<_> = (0..4).map(|rank| Rank::member(&server, "job", rank, 4)).collect();
        for peer in 1..4 {
            ranks[0].client.connect(peer);
        }
        ranks[0].flush();
        let reset = ranks.pop().unwrap();
        let closed = ranks.pop().unwrap();
        let mut left = ranks.pop().unwrap();
        left.client.leave();
        left.flush();
        let mut next = || ranks[0].event_but_not_yet();
        assert_eq!(next(), Event::Unreachable { rank: 1, reason: Reason::Left });
        drop(closed);
        assert_eq!(next(), Event::Unreachable { rank: 2, reason: Reason::Lost });
        SockRef::from(&reset.socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        assert_eq!(next(), Event::Unreachable { rank: 3, reason: Reason::Lost });
        assert!(ends(left.socket), "a connection of a rank that left is closed");
    }

    #[test]
    fn refusals_arrive_and_name_the_difference() {
        let server = serve(Limits::default());
        let _zero = Rank::member(&server, "job", 0, 2);
        let error = Rank::start(&server, "job", 2, 3, None).event().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.message().contains("is 3, rank 0 said 2"), "{error}");
    }

    #[test]
    fn a_handshake_that_stalls_is_cut_off() {
        let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
        let server = serve(limits);
        let mut member = Rank::member(&server, "job", 0, 2);
        let idle = stranger(&server);
        let mut half = stranger(&server);
        half.write_all(&Client::new(request()).unwrap().outgoing()[..14]).unwrap();
        assert!(ends(idle) && ends(half));
        member.client.connect(1);
        assert!(matches!(member.event().unwrap(), Event::NotYet { .. }), "members may be silent for longer");
    }

    fn request() -> JoinRequest {
        JoinRequest {
            name: "x".into(),
            job_id: None,
            rank: 0,
            size: 1,
            private_endpoints: Vec::new(),
            host_id: 0,
            fingerprint: 0,
            secret: None,
        }
    }

    #[test]
    fn garbage_ends_its_own_connection_only() {
        let server = serve(Limits::default());
        for garbage in [&[b'G'; 101][..], &[0; 141], &[0xf5; 5000], b"\xf5FMI\r\nrx"] {
            let mut socket = stranger(&server);
            socket.write_all(garbage).unwrap();
            assert!(ends(socket));
        }
        let mut after_hello = stranger(&server);
        after_hello.write_all(Client::new(request()).unwrap().outgoing()).unwrap();
        after_hello.write_all(&[0xff; 300]).unwrap();
        assert!(ends(after_hello));
        honest_pair(&server, "job");
    }

    #[test]
    fn idle_connections_push_each_other_out_not_the_honest() {
        // No handshake times out while the test has patience.
        let handshake = PATIENCE * 2;
        let server = serve(Limits { handshakes_per_source: 50, handshake, ..Limits::default() });
        let idle: Vec<_> = (0..300).map(|_| stranger(&server)).collect();
        assert!(honest_pair(&server, "job") < Duration::from_secs(1));
        let mut pushed_out = 0;
        for socket in &idle[..250] {
            pushed_out += usize::from(ends(socket.try_clone().unwrap()));
        }
        assert_eq!(pushed_out, 250);
    }

    /// A link of `shared`, whose client has sent `bytes`.
    fn client_of(shared: &mut Shared, peer: &str, bytes: &[u8]) -> ConnectionId {
        let (id, _) = shared.admit(peer.parse().unwrap()).unwrap();
        shared.receive(id, bytes);
        id
    }

    /// Lets the link's deadline pass.
    fn pass_deadline(shared: &mut Shared, id: ConnectionId) {
        let deadline = shared.links[&id].deadline;
        shared.expire(id, deadline);
    }

    /// A client of protocol 1 whose name has come to its end.
    fn caller_of(shared: &mut Shared, peer: &str, name: &str) -> ConnectionId {
        let id = client_of(shared, peer, name.as_bytes());
        pass_deadline(shared, id);
        id
    }

    fn shared_with(limits: Limits) -> Shared {
        Shared::new(ServerOptions { limits, ..ServerOptions::default() })
    }

    #[test]
    fn the_first_byte_tells_the_protocol() {
        let mut shared = shared_with(Limits::default());
        let hello = Client::new(request()).unwrap().outgoing().to_vec();
        for start in [&hello[..1], &hello[..5], b"\xf5"] {
            for _ in 0..2 {
                let id = client_of(&mut shared, "9.9.9.9:9", start);
                assert!(matches!(shared.links[&id].speech, Speech::Frames(_)));
                pass_deadline(&mut shared, id);
                assert!(shared.links[&id].outgoing.starts_with(&MAGIC), "never an endpoint");
            }
        }
        assert_eq!(shared.waiting.as_ref().unwrap().len(), 0);
        let six = client_of(&mut shared, "[2001:db8::1]:9", b"name");
        assert!(shared.links[&six].state == LinkState::Closing && shared.links[&six].outgoing.is_empty());
        let long = client_of(&mut shared, "9.9.9.9:9", &[b'n'; 141]);
        assert!(shared.links[&long].state == LinkState::Closing && shared.links[&long].outgoing.is_empty());
    }

    #[test]
    fn without_protocol_1_a_name_is_closed_without_a_word() {
        let secret = || ServerOptions::default().secret(*b"0123456789abcdef");
        for options in [ServerOptions::default().tcpunch(false), secret().require_secret(true)] {
            let mut shared = Shared::new(options);
            let id = client_of(&mut shared, "9.9.9.9:9", b"name");
            assert!(shared.links[&id].state == LinkState::Closing);
            assert!(shared.links[&id].outgoing.is_empty(), "our words would be an endpoint to it");
        }
        assert!(Shared::new(secret()).waiting.is_some());
    }

    #[test]
    fn callers_that_wait_push_out_the_oldest_of_their_kind() {
        let mut shared = shared_with(Limits { waiting: 4, waiting_per_source: 3, ..Limits::default() });
        let open = |shared: &Shared, id: ConnectionId| shared.links[&id].state == LinkState::Open;
        let honest = caller_of(&mut shared, "8.8.8.8:8", "honest");
        let first = caller_of(&mut shared, "9.9.9.9:1", "a");
        for name in ["b", "c", "d", "e"] {
            caller_of(&mut shared, "9.9.9.9:2", name);
        }
        assert!(open(&shared, honest) && !open(&shared, first));
        let other = caller_of(&mut shared, "7.7.7.7:1", "f");
        assert!(open(&shared, honest) && open(&shared, other), "the source that has most gives way");
        assert_eq!(shared.waits, 4);
        let again = caller_of(&mut shared, "9.9.9.9:1", "a");
        assert_eq!(shared.links[&again].outgoing.len(), 8, "its name is free");
        let partner = caller_of(&mut shared, "6.6.6.6:1", "honest");
        assert_eq!((shared.links[&honest].outgoing.len(), shared.links[&partner].outgoing.len()), (16, 16));
    }

    #[test]
    fn the_source_with_most_handshakes_gives_way() {
        let mut shared = shared_with(Limits { handshakes: 5, handshakes_per_source: 3, ..Limits::default() });
        let honest = client_of(&mut shared, "8.8.8.8:8", b"\xf5FMI");
        let crowd =
            ["9.9.9.1:1", "9.9.9.2:1", "9.9.9.1:2", "9.9.9.2:2", "9.9.9.1:3", "9.9.9.2:3", "7.7.7.7:7"];
        let crowd = crowd.map(|peer| client_of(&mut shared, peer, b""));
        let open = |id: &ConnectionId| shared.links[id].state == LinkState::Open;
        assert!(open(&honest) && open(&crowd[6]), "who comes alone");
        assert_eq!(crowd.iter().filter(|id| open(id)).count(), 4);
    }

    #[test]
    fn a_caller_waits_so_long_and_then_its_name_is_free() {
        let mut shared = shared_with(Limits::default());
        let first = caller_of(&mut shared, "9.9.9.9:1", "name");
        pass_deadline(&mut shared, first);
        assert!(shared.links[&first].state == LinkState::Closing);
        let second = caller_of(&mut shared, "9.9.9.9:2", "name");
        assert_eq!(shared.links[&second].outgoing.len(), 8);
        shared.forget(second, End::Closed);
        shared.forget(first, End::Closed);
        assert!(shared.waiting.unwrap().len() == 0 && shared.sources.is_empty() && shared.waits == 0);
    }

    #[test]
    fn a_name_that_goes_on_is_looked_up_again() {
        let mut shared = shared_with(Limits::default());
        let slow = caller_of(&mut shared, "9.9.9.9:1", "job0");
        shared.receive(slow, b"_1");
        let other = caller_of(&mut shared, "9.9.9.9:2", "job0");
        assert_eq!(shared.links[&other].outgoing.len(), 8, "it is no name any more");
        pass_deadline(&mut shared, slow);
        let partner = caller_of(&mut shared, "9.9.9.9:3", "job0_1");
        assert_eq!((shared.links[&slow].outgoing.len(), shared.links[&partner].outgoing.len()), (16, 16));
    }

    #[test]
    fn a_storm_of_connects_and_resets_is_weathered() {
        let server = serve(Limits::default());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let hello = Client::new(request()).unwrap().outgoing().to_vec();
                    // Bounded, so that it ends also where the others get no time.
                    for _ in 0..2000 {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let Ok(mut socket) = Socket::connect(server.local_addr()) else { continue };
                        let _ = socket.write_all(&hello);
                        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                });
            }
            for number in 0..20 {
                honest_pair(&server, &format!("job {number}"));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn strangers_cannot_take_all_the_room() {
        let limits = Limits { strangers_per_source: 3, ..Limits::default() };
        let options = ServerOptions { limits, ..ServerOptions::default() };
        let secret = b"0123456789abcdef";
        let server = serve_with(options.secret(*secret));
        let strangers: Vec<_> = (0..3).map(|rank| Rank::member(&server, "open", rank, 9)).collect();
        let error = Rank::start(&server, "open", 3, 9, None).event().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        for rank in 0..9 {
            let mut rank = Rank::start(&server, "job", rank, 9, Some(secret));
            assert!(matches!(rank.event(), Ok(Event::Joined { .. })), "proven ranks count apart");
        }
        let mut zero = strangers.into_iter().next().unwrap();
        zero.client.connect(1);
        assert!(
            matches!(zero.event_but_not_yet(), Event::Unreachable { reason: Reason::Lost, .. }),
            "and the room is free again once they are gone"
        );
        Rank::member(&server, "open", 3, 9);
    }

    #[test]
    fn who_does_not_read_is_dropped() {
        let mut shared = Shared::new(ServerOptions {
            limits: Limits { unread: 512, ..Limits::default() },
            ..Default::default()
        });
        let mut clients: Vec<_> = (0..2)
            .map(|rank| {
                let (id, _) = shared.admit("9.9.9.9:9".parse().unwrap()).unwrap();
                (id, Client::new(JoinRequest { rank, size: 2, ..request() }).unwrap())
            })
            .collect();
        let exchange = |shared: &mut Shared, id: ConnectionId, client: &mut Client| {
            shared.receive(id, client.outgoing());
            client.advance(client.outgoing().len());
            client.receive(&std::mem::take(&mut shared.links.get_mut(&id).unwrap().outgoing)).unwrap();
            std::iter::from_fn(|| client.next_event()).collect::<Vec<_>>()
        };
        for (id, client) in &mut clients {
            exchange(&mut shared, *id, client);
            exchange(&mut shared, *id, client);
        }
        // The deaf one keeps asking, the other keeps answering.
        let deaf = clients[0].0;
        let mut wish = Vec::new();
        super::super::protocol::ClientMessage::Connect { rank: 1 }.encode(&mut wish);
        let (id, client) = &mut clients[1];
        for _ in 0..100 {
            shared.receive(deaf, &wish);
            exchange(&mut shared, *id, client);
            client.ready(0);
            exchange(&mut shared, *id, client);
        }
        assert!(shared.links[&deaf].state == LinkState::Dropped);
        assert!(shared.links[&deaf].outgoing.len() <= 512 + MAX_FRAME);
        shared.forget(deaf, End::Closed);
        assert_eq!(exchange(&mut shared, *id, client).last(), Some(&Event::Suspect { rank: 0 }));
        client.report_link(0, false);
        assert_eq!(
            exchange(&mut shared, *id, client),
            [Event::Unreachable { rank: 0, reason: Reason::Lost }]
        );
    }

    /// A member of `shared` whose peer has left, so that each of its wishes is
    /// answered, and the wishes.
    fn deaf_member(shared: &mut Shared, peer: &str) -> (ConnectionId, Vec<u8>) {
        use super::super::protocol::ClientMessage;
        let name = format!("job of {peer}");
        let mut member = |rank| {
            let request = JoinRequest { name: name.clone(), rank, size: 2, ..request() };
            let (id, _) = shared.admit(peer.parse().unwrap()).unwrap();
            let mut client = Client::new(request).unwrap();
            for _ in 0..2 {
                shared.receive(id, client.outgoing());
                client.advance(client.outgoing().len());
                client.receive(&std::mem::take(&mut shared.links.get_mut(&id).unwrap().outgoing)).unwrap();
            }
            assert!(client.is_member());
            id
        };
        let (deaf, peer) = (member(0), member(1));
        let mut leave = Vec::new();
        ClientMessage::Leave.encode(&mut leave);
        shared.receive(peer, &leave);
        shared.forget(peer, End::Closed);
        let mut wish = Vec::new();
        ClientMessage::Connect { rank: 1 }.encode(&mut wish);
        (deaf, wish.repeat(100))
    }

    #[test]
    fn what_a_source_has_not_read_takes_from_its_allowance() {
        let mut shared = shared_with(Limits::default());
        shared.registry.allowances = Allowances::new(20_000, 1 << 20);
        let (first, wishes) = deaf_member(&mut shared, "9.9.9.9:1");
        let (second, _) = deaf_member(&mut shared, "9.9.9.9:2");
        let (neighbour, few) = deaf_member(&mut shared, "9.9.9.9:3");
        let (elsewhere, _) = deaf_member(&mut shared, "8.8.8.8:1");
        for _ in 0..20 {
            shared.receive(first, &wishes);
            shared.receive(second, &wishes);
            shared.receive(elsewhere, &wishes);
        }
        let state = |shared: &Shared, id| {
            (shared.links[&id].state == LinkState::Open, shared.links[&id].outgoing.len())
        };
        assert_eq!(state(&shared, elsewhere), (true, 20 * 100 * 8));
        let (open, unread) = state(&shared, second);
        assert!(!open && unread < 20_000, "{unread} bytes");
        shared.receive(neighbour, &few[..70]);
        assert_eq!(state(&shared, neighbour), (true, 80), "who keeps up is served");
        let Shared { links, registry, .. } = &mut shared;
        let link = links.get_mut(&elsewhere).unwrap();
        link.advance(15_000, &mut registry.allowances);
        assert_eq!((link.outgoing.len(), link.taken), (1000, 0));
        for id in [first, second, neighbour, elsewhere] {
            shared.forget(id, End::Closed);
        }
        assert_eq!(shared.registry.allowances.in_all(), 0);
        assert!(shared.registry.is_empty());
    }

    #[test]
    fn strangers_leave_room_for_those_who_know_the_secret() {
        let limits = Limits { members: 8, ..Limits::default() };
        let secret = b"0123456789abcdef";
        let server = serve_with(ServerOptions { limits, ..ServerOptions::default() }.secret(*secret));
        let _strangers: Vec<_> = (0..6).map(|rank| Rank::member(&server, "open", rank, 9)).collect();
        let error = Rank::start(&server, "open", 6, 9, None).event().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        let mut zero = Rank::start(&server, "job", 0, 2, Some(secret));
        assert!(matches!(zero.event(), Ok(Event::Joined { .. })));
    }

    #[test]
    fn running_out_of_descriptors_is_no_end() {
        // In a process of its own: the limit is the process's.
        let this = std::env::current_exe().unwrap();
        let status = std::process::Command::new(this)
            .args(["--exact", "rendezvous::server::tests::out_of_descriptors_inner", "--ignored", "--quiet"])
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    #[ignore = "run by running_out_of_descriptors_is_no_end"]
    fn out_of_descriptors_inner() {
        let server = serve(Limits::default());
        honest_pair(&server, "warm up");
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: `limit` is valid.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        // All of these but a few are the server's too.
        let mut idle = Vec::new();
        while let Ok(socket) = Socket::connect(server.local_addr()) {
            idle.push(socket);
        }
        std::thread::sleep(Duration::from_millis(300));
        idle.truncate(idle.len() / 2);
        honest_pair(&server, "job");
    }

    #[test]
    fn events_are_logged_one_line_each() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let log = Arc::new(move |_: LogLevel, line: &str| sink.lock().unwrap().push(line.to_owned()));
        let server = serve_with(ServerOptions::default().log(LogLevel::Info, log));
        honest_pair(&server, "job");
        let start = Instant::now();
        while lines.lock().unwrap().len() < 5 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(server);
        let lines = lines.lock().unwrap();
        let verbs: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(verbs, ["joined", "joined", "go", "left", "left"], "{lines:?}");
        assert!(lines[0].contains("rank 0 of 2 from 127.0.0.1:"), "{lines:?}");
    }

    #[test]
    fn a_half_closed_member_is_lost() {
        let server = serve(Limits::default());
        let mut zero = Rank::member(&server, "job", 0, 2);
        let one = Rank::member(&server, "job", 1, 2);
        one.socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(zero.event().unwrap(), Event::Unreachable { rank: 1, reason: Reason::Lost });
    }
}
