//! Making links over TCP: the connection to the rendezvous server, and the
//! connections to peers until they are links.
//!
//! Everything is driven from inside FMI calls by [`Connector::service`]; nothing
//! here blocks, except that a host name is resolved in a helper thread, because
//! the C library offers no other way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::host::host_id;
use super::poller::{Interest, Poller, Token};
use crate::config::DirectSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::link::handshake::{Handshake, Identity};
use crate::link::tcp::TcpLink;
use crate::log::{LogLevel, Logger};
use crate::rendezvous::client::{Client, Event, JoinRequest, Missing, Reason};

/// How long a server that does not answer is tried before calls that need it
/// fail: ranks and server may start in any order.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a peer is tried once both sides have started.
const PEER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a connection may take to say who it is.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LAST_BACKOFF: Duration = Duration::from_millis(200);

/// Connections that have not said who they are yet; a further one takes the
/// place of the oldest.
const MAX_STRANGERS: usize = 64;

/// How many connections are accepted at a time: each is looked at before it may
/// have to make room.
const ACCEPTED_AT_ONCE: usize = MAX_STRANGERS / 2;

/// Of the kernel, which may cap it: peers come while this rank computes, and
/// strangers with them.
const BACKLOG: i32 = 4096;

/// How often a name that is being resolved is asked for.
const RESOLVER_INTERVAL: Duration = Duration::from_millis(5);

/// What became of the connections that were wanted.
pub(super) enum Outcome {
    Linked {
        peer: u32,
        link: TcpLink,
    },
    /// No link could be made; a later request may try again.
    Failed {
        peer: u32,
        error: Error,
    },
    /// The rank will not come any more.
    Gone {
        peer: u32,
        reason: Reason,
    },
    /// How many ranks of the job run on this host.
    RanksHere(u32),
    /// Another rank aborted the job.
    Aborted {
        rank: u32,
        code: i32,
    },
}

/// Who this rank is.
#[derive(Clone)]
pub(super) struct Membership {
    pub(super) rank: u32,
    pub(super) size: u32,
    pub(super) name: String,
    pub(super) job_id: Option<String>,
    pub(super) fingerprint: u64,
}

/// The way to the rendezvous server.
enum Server {
    /// Nothing is wanted yet.
    Idle,
    Resolving(Receiver<io::Result<Vec<SocketAddr>>>),
    Connecting {
        socket: Socket,
        others: Vec<SocketAddr>,
        since: Instant,
    },
    Open {
        socket: Socket,
        watched: Interest,
        since: Instant,
    },
    /// Broken or refused: the next try.
    Waiting {
        until: Instant,
    },
}

/// A connection on its way to be a link.
struct Pairing {
    /// `None` between two tries.
    socket: Option<Socket>,
    /// The side that connects knows whom, and where.
    target: Option<(u32, SocketAddr)>,
    handshake: Option<Handshake>,
    retry: Instant,
    backoff: Duration,
    deadline: Instant,
    last_error: Option<io::Error>,
}

/// Makes links over TCP, with the help of a rendezvous server.
pub(super) struct Connector {
    settings: DirectSettings,
    membership: Membership,
    logger: Logger,
    server: Server,
    /// When the server was first tried in vain since it was last reached.
    unreachable_since: Option<Instant>,
    backoff: Duration,
    last_error: Option<io::Error>,
    /// The server refused us for good.
    refused: Option<Error>,
    client: Option<Client>,
    listener: Option<Socket>,
    identity: Option<Identity>,
    pairings: Slab<Pairing>,
    /// Ranks that a link is wanted to; since GO, with the moment to give up.
    wanted: BTreeMap<u32, Option<Instant>>,
    outcomes: VecDeque<Outcome>,
}

impl Connector {
    pub(super) fn new(settings: DirectSettings, membership: Membership, logger: Logger) -> Self {
        Self {
            settings,
            membership,
            logger,
            server: Server::Idle,
            unreachable_since: None,
            backoff: FIRST_BACKOFF,
            last_error: None,
            refused: None,
            client: None,
            listener: None,
            identity: None,
            pairings: Slab::new(),
            wanted: BTreeMap::new(),
            outcomes: VecDeque::new(),
        }
    }

    /// Asks for a link to `peer`; asking twice is asking once.
    pub(super) fn want(&mut self, peer: u32) {
        if let Some(error) = &self.refused {
            self.outcomes.push_back(Outcome::Failed { peer, error: error.clone() });
            return;
        }
        if self.wanted.contains_key(&peer) {
            return;
        }
        self.wanted.insert(peer, None);
        if let Some(client) = &mut self.client {
            client.connect(peer);
        }
        if matches!(self.server, Server::Idle) {
            self.unreachable_since = None;
            self.server = self.resolve();
        }
    }

    /// Whether there is something to do even where no event has come.
    pub(super) fn is_at_work(&self) -> bool {
        let server_is_settled = matches!(self.server, Server::Idle | Server::Open { .. });
        !server_is_settled
            || !self.wanted.is_empty()
            || !self.pairings.is_empty()
            || !self.outcomes.is_empty()
    }

    /// Whether there is something to do at once, of which no event will tell:
    /// before a call sleeps, it is done.
    pub(super) fn has_unfinished_business(&self) -> bool {
        let has_words = self.client.as_ref().is_some_and(|client| !client.outgoing().is_empty());
        matches!(self.server, Server::Resolving(_))
            || has_words && matches!(self.server, Server::Open { .. })
            || !self.outcomes.is_empty()
    }

    pub(super) fn next_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When there is something to do even if no event comes.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let server = match &self.server {
            Server::Waiting { until } => Some(*until),
            Server::Resolving(_) => Some(Instant::now() + RESOLVER_INTERVAL),
            _ => None,
        };
        // When to give up a peer stands in `wanted`, not in its pairings.
        let retries =
            self.pairings.iter().filter_map(|(_, pairing)| match (&pairing.socket, pairing.target) {
                (None, _) => Some(pairing.retry),
                (Some(_), None) => Some(pairing.deadline),
                (Some(_), Some(_)) => None,
            });
        server.into_iter().chain(retries).chain(self.wanted.values().copied().flatten()).min()
    }

    /// Why there is no link to `peer` yet, and what kind of failure that is when
    /// the deadline passes.
    pub(super) fn explain(&self, peer: u32) -> (ErrorKind, String) {
        let DirectSettings { host, port, .. } = &self.settings;
        let is_open = matches!(self.server, Server::Open { .. });
        if !is_open || !self.client.as_ref().is_some_and(Client::is_member) {
            let why = self.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            return (
                ErrorKind::Connect,
                format!("the rendezvous server at {host}:{port} has not answered{why}"),
            );
        }
        let text = match self.client.as_ref().and_then(|client| client.missing(peer)) {
            Some(Missing::NotJoined) => format!("rank {peer} has not joined the job"),
            Some(Missing::NotReady) => format!("rank {peer} has not entered an FMI call"),
            None => format!("rank {peer} has not completed the connection; it may be outside of FMI calls"),
        };
        (ErrorKind::Timeout, text)
    }

    /// Tells the other ranks, through the server, that this one aborts.
    pub(super) fn abort(&mut self, poller: &Poller, code: i32) {
        if let Some(client) = &mut self.client {
            client.abort(code, "");
            self.write_to_server(poller);
        }
    }

    /// Leaves the job: tells the server, as far as it can be told at once.
    pub(super) fn leave(&mut self, poller: &Poller) {
        if let (Some(client), Server::Open { .. }) = (&mut self.client, &self.server) {
            client.leave();
            self.write_to_server(poller);
        }
    }

    /// Does what can be done now: `true` = something moved.
    pub(super) fn service(&mut self, poller: &Poller, now: Instant) -> bool {
        let before = self.outcomes.len();
        let moved =
            self.service_server(poller, now) | self.accept(poller, now) | self.service_pairings(poller, now);
        self.give_up_late(now);
        moved || self.outcomes.len() > before
    }

    /// A peer that both sides have started to connect to, in vain for long. Where
    /// it is only silent it may be outside of FMI calls: it is waited for. Where
    /// it cannot be reached, what waits for it fails.
    fn give_up_late(&mut self, now: Instant) {
        let is_late = |(_, at): &(&u32, &Option<Instant>)| at.is_some_and(|at| at <= now);
        let late: Vec<u32> = self.wanted.iter().filter(is_late).map(|(peer, _)| *peer).collect();
        for peer in late {
            let is_target = |pairing: &Pairing| pairing.target.is_some_and(|(rank, _)| rank == peer);
            if self.pairings.iter().any(|(_, pairing)| is_target(pairing) && pairing.handshake.is_some()) {
                self.wanted.insert(peer, Some(now + PEER_PATIENCE));
                continue;
            }
            if self.membership.rank > peer {
                // The other side connects, when it is asked again and answers.
                self.wanted.insert(peer, None);
                if let Some(client) = &mut self.client {
                    client.connect(peer);
                }
                continue;
            }
            let mut tried = String::new();
            self.pairings.retain(|_, pairing| {
                let Some((_, address)) = pairing.target.filter(|(rank, _)| *rank == peer) else {
                    return true;
                };
                let why = pairing.last_error.as_ref().map_or("no answer".into(), ToString::to_string);
                tried += &format!("; {address}: {why}");
                false
            });
            let text = format!("no connection between rank {} and rank {peer}{tried}", self.membership.rank);
            self.fail(peer, Error::new(ErrorKind::Connect, text));
        }
    }

    fn fail(&mut self, peer: u32, error: Error) {
        if self.wanted.remove(&peer).is_some() {
            self.outcomes.push_back(Outcome::Failed { peer, error });
        }
    }

    fn fail_all(&mut self, error: &Error) {
        for peer in std::mem::take(&mut self.wanted).into_keys() {
            self.outcomes.push_back(Outcome::Failed { peer, error: error.clone() });
        }
    }
}

/// The rendezvous server.
impl Connector {
    fn resolve(&self) -> Server {
        let DirectSettings { host, port, .. } = self.settings.clone();
        let (sender, receiver) = mpsc::channel();
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let _ = sender.send(Ok(vec![SocketAddr::new(ip, port)]));
            return Server::Resolving(receiver);
        }
        let lookup = move || {
            block_signals();
            let _ = sender.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        };
        let thread =
            std::thread::Builder::new().name("fmi-resolve".into()).stack_size(256 << 10).spawn(lookup);
        match thread {
            Ok(_) => Server::Resolving(receiver),
            Err(_) => Server::Waiting { until: Instant::now() + FIRST_BACKOFF },
        }
    }

    fn service_server(&mut self, poller: &Poller, now: Instant) -> bool {
        match &self.server {
            Server::Idle => false,
            Server::Waiting { until } if now < *until => false,
            Server::Waiting { .. } => {
                self.server = self.resolve();
                true
            }
            Server::Resolving(receiver) => match receiver.try_recv() {
                Err(TryRecvError::Empty) => false,
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    self.connect_server(poller, addresses, now);
                    true
                }
                Ok(Err(error)) => {
                    self.server_unreachable(error, now);
                    true
                }
                Ok(Ok(_)) | Err(TryRecvError::Disconnected) => {
                    self.server_unreachable(io::Error::other("the host name has no address"), now);
                    true
                }
            },
            Server::Connecting { .. } => self.finish_connecting(poller, now),
            Server::Open { .. } => self.talk(poller, now),
        }
    }

    fn connect_server(&mut self, poller: &Poller, mut addresses: Vec<SocketAddr>, now: Instant) {
        let address = addresses.remove(0);
        let started = reusable_socket(&address).and_then(|socket| {
            start_connecting(&socket, &address)?;
            poller.add(socket.as_raw_fd(), Token::Rendezvous, Interest::Write)?;
            Ok(socket)
        });
        match started {
            Ok(socket) => self.server = Server::Connecting { socket, others: addresses, since: now },
            Err(_) if !addresses.is_empty() => self.connect_server(poller, addresses, now),
            Err(error) => self.server_unreachable(error, now),
        }
    }

    fn finish_connecting(&mut self, poller: &Poller, now: Instant) -> bool {
        let Server::Connecting { socket, others, .. } = &mut self.server else { return false };
        let others = std::mem::take(others);
        match connected(socket) {
            Ok(false) => {
                let Server::Connecting { others: slot, .. } = &mut self.server else { return false };
                *slot = others;
                return false;
            }
            Ok(true) => {}
            Err(error) => {
                poller.remove(socket.as_raw_fd());
                match others.is_empty() {
                    true => self.server_unreachable(error, now),
                    false => self.connect_server(poller, others, now),
                }
                return true;
            }
        }
        let Server::Connecting { socket, since, .. } = std::mem::replace(&mut self.server, Server::Idle)
        else {
            return false;
        };
        if let Err(error) = self.greet_server(poller, &socket) {
            poller.remove(socket.as_raw_fd());
            self.fail_all(&error);
            return true;
        }
        self.server = Server::Open { socket, watched: Interest::Write, since };
        self.write_to_server(poller);
        true
    }

    /// A new connection to the server stands: listens on its local port, which
    /// is the one that a NAT maps, and makes the client.
    fn greet_server(&mut self, poller: &Poller, socket: &Socket) -> Result<()> {
        let io = |what: &str, error| Error::io(what, &error).with_channel("Direct");
        let _ = socket.set_tcp_nodelay(true);
        let local = socket.local_addr().map_err(|error| io("getsockname", error))?;
        let local = local.as_socket().expect("a TCP socket has an IP address");
        if let Some(listener) = self.listener.take() {
            poller.remove(listener.as_raw_fd());
        }
        let listener = listen_on(&local).map_err(|error| io("listen", error))?;
        poller
            .add(listener.as_raw_fd(), Token::Listener, Interest::Read)
            .map_err(|error| io("epoll_ctl", error))?;
        self.listener = Some(listener);
        match &mut self.client {
            Some(client) => client.reconnect()?,
            None => {
                let Membership { rank, size, name, job_id, fingerprint } = self.membership.clone();
                let client = self.client.insert(Client::new(JoinRequest {
                    name,
                    job_id,
                    rank,
                    size,
                    private_endpoints: vec![local],
                    host_id: host_id(),
                    fingerprint,
                    secret: self.settings.secret.clone(),
                })?);
                for peer in self.wanted.keys() {
                    client.connect(*peer);
                }
            }
        }
        Ok(())
    }

    fn talk(&mut self, poller: &Poller, now: Instant) -> bool {
        let mut moved = false;
        let mut bytes = [0u8; 4096];
        loop {
            let Server::Open { socket, since, .. } = &self.server else { return true };
            match recv_from(socket, &mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.server_broke(poller, error, now);
                    return true;
                }
                Ok(0) => {
                    let error =
                        io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
                    self.server_broke(poller, error, now);
                    return true;
                }
                Ok(count) => {
                    moved = true;
                    let client = self.client.as_mut().expect("an open connection has a client");
                    let had_time = now.saturating_duration_since(*since) < HANDSHAKE_PATIENCE;
                    let is_member = client.is_member();
                    if let Err(error) = client.receive(&bytes[..count]) {
                        if !had_time && !is_member && error.kind() == ErrorKind::Protocol {
                            // The server does not wait for a rank that computes
                            // in the middle of its join: it joins anew.
                            self.server_broke(poller, io::Error::other(error.message().to_owned()), now);
                            return true;
                        }
                        self.server_refused(poller, error);
                        return true;
                    }
                    self.take_events(now);
                }
            }
        }
        self.write_to_server(poller);
        moved
    }

    fn write_to_server(&mut self, poller: &Poller) {
        let Server::Open { socket, watched, .. } = &mut self.server else { return };
        let Some(client) = &mut self.client else { return };
        while !client.outgoing().is_empty() {
            match send_to(socket, client.outgoing()) {
                Ok(count) => client.advance(count),
                // What is wrong shows at the next read.
                Err(_) => break,
            }
        }
        let interest = if client.outgoing().is_empty() { Interest::Read } else { Interest::Both };
        if *watched != interest && poller.modify(socket.as_raw_fd(), Token::Rendezvous, interest).is_ok() {
            *watched = interest;
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.client.as_mut().and_then(Client::next_event) {
            match event {
                Event::Joined { epoch, ranks_on_host, .. } => {
                    self.unreachable_since = None;
                    self.last_error = None;
                    self.backoff = FIRST_BACKOFF;
                    self.identity = Some(Identity {
                        rank: self.membership.rank,
                        size: self.membership.size,
                        epoch,
                        fingerprint: self.membership.fingerprint,
                        secret: self.settings.secret.clone().unwrap_or_default(),
                    });
                    self.outcomes.push_back(Outcome::RanksHere(ranks_on_host));
                    self.logger.log(
                        LogLevel::Info,
                        format_args!("rank {} joined {:?}", self.membership.rank, self.membership.name),
                    );
                }
                Event::Offer { rank } => {
                    self.wanted.entry(rank).or_insert(None);
                    if let Some(client) = &mut self.client {
                        client.ready(rank);
                    }
                }
                Event::Go { rank, candidates, ranks_on_host } => {
                    self.outcomes.push_back(Outcome::RanksHere(ranks_on_host));
                    self.start_pairing(rank, candidates, now);
                }
                Event::Unreachable { rank, reason } => {
                    self.wanted.remove(&rank);
                    self.outcomes.push_back(Outcome::Gone { peer: rank, reason });
                }
                Event::NotYet { .. } => {}
                Event::Aborted { rank, code, .. } => self.outcomes.push_back(Outcome::Aborted { rank, code }),
            }
        }
    }

    /// The server said no: for good, unless it only had no room.
    fn server_refused(&mut self, poller: &Poller, error: Error) {
        if let Server::Open { socket, .. } = std::mem::replace(&mut self.server, Server::Idle) {
            poller.remove(socket.as_raw_fd());
        }
        let error = error.with_channel("Direct");
        self.logger.log(LogLevel::Error, format_args!("{error}"));
        if error.kind() != ErrorKind::Connect {
            self.refused = Some(error.clone());
        }
        self.fail_all(&error);
    }

    fn server_broke(&mut self, poller: &Poller, error: io::Error, now: Instant) {
        if let Server::Open { socket, .. } = std::mem::replace(&mut self.server, Server::Idle) {
            poller.remove(socket.as_raw_fd());
        }
        self.server_unreachable(error, now);
    }

    /// Tries again after a while; the calls that need the server do not wait
    /// longer than [`SERVER_PATIENCE`].
    fn server_unreachable(&mut self, error: io::Error, now: Instant) {
        let DirectSettings { host, port, .. } = &self.settings;
        let since = *self.unreachable_since.get_or_insert(now);
        if now - since >= SERVER_PATIENCE {
            let errno = error.raw_os_error().unwrap_or(0);
            let text = format!("the rendezvous server at {host}:{port} cannot be reached: {error}");
            let error = Error::new(ErrorKind::Connect, text).with_errno(errno);
            self.logger.log(LogLevel::Error, format_args!("{error}"));
            self.fail_all(&error);
        }
        self.last_error = Some(error);
        self.server = Server::Waiting { until: now + jittered(self.backoff) };
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
    }
}

/// Peers.
impl Connector {
    /// Both sides start now: the lower rank connects, the higher one listens.
    fn start_pairing(&mut self, peer: u32, candidates: Vec<SocketAddr>, now: Instant) {
        let deadline = now + PEER_PATIENCE;
        self.wanted.insert(peer, Some(deadline));
        if self.membership.rank > peer {
            return;
        }
        for address in candidates {
            self.pairings.insert(Pairing {
                socket: None,
                target: Some((peer, address)),
                handshake: None,
                retry: now,
                backoff: FIRST_BACKOFF,
                deadline,
                last_error: None,
            });
        }
    }

    fn accept(&mut self, poller: &Poller, now: Instant) -> bool {
        let (Some(listener), Some(identity)) = (&self.listener, &self.identity) else { return false };
        let mut moved = false;
        for _ in 0..ACCEPTED_AT_ONCE {
            let Ok((socket, _)) = listener.accept() else { break };
            moved = true;
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            // The one that has been silent longest makes room: a peer speaks at
            // once, and must find a place however many strangers there are.
            let strangers = self.pairings.iter().filter(|(_, pairing)| pairing.target.is_none());
            let count = strangers.clone().count();
            let oldest = strangers.min_by_key(|(_, pairing)| (pairing.is_introduced(), pairing.deadline));
            let oldest = oldest.map(|(key, _)| key);
            if count >= MAX_STRANGERS
                && let Some(socket) = oldest.and_then(|key| self.pairings.remove(key).socket)
            {
                poller.remove(socket.as_raw_fd());
            }
            let entry = self.pairings.vacant_entry();
            let token = Token::Pairing(entry.key() as u32);
            if poller.add(socket.as_raw_fd(), token, Interest::Read).is_ok() {
                entry.insert(Pairing {
                    socket: Some(socket),
                    target: None,
                    handshake: Some(Handshake::accepting(identity.clone())),
                    retry: now,
                    backoff: FIRST_BACKOFF,
                    deadline: now + HANDSHAKE_PATIENCE,
                    last_error: None,
                });
            }
        }
        moved
    }

    fn service_pairings(&mut self, poller: &Poller, now: Instant) -> bool {
        let mut moved = false;
        let keys: Vec<usize> = self.pairings.iter().map(|(key, _)| key).collect();
        for key in keys {
            // A pairing that ended another's may have removed it.
            if self.pairings.contains(key) {
                moved |= self.service_pairing(poller, key, now);
            }
        }
        moved
    }

    fn service_pairing(&mut self, poller: &Poller, key: usize, now: Instant) -> bool {
        let pairing = &mut self.pairings[key];
        let stale = pairing.target.is_some_and(|(peer, _)| !self.wanted.contains_key(&peer));
        if stale {
            self.drop_pairing(poller, key);
            return false;
        }
        let is_late = pairing.target.is_none() && now >= pairing.deadline;
        if pairing.socket.is_none() {
            if now < pairing.retry {
                return false;
            }
            let (_, address) = pairing.target.expect("an accepted connection is not tried again");
            match connect_peer(poller, &address, Token::Pairing(key as u32)) {
                Ok(socket) => pairing.socket = Some(socket),
                Err(error) => pairing.try_later(poller, error, now),
            }
            return true;
        }
        match self.advance_pairing(poller, key) {
            // Late only if it is still silent: it may have spoken in time, while
            // this rank was outside of FMI calls.
            Ok(Progress::Nothing) if is_late => {
                self.drop_pairing(poller, key);
                false
            }
            Ok(Progress::Nothing) => false,
            Ok(Progress::Moved) => true,
            Ok(Progress::Finished(peer)) => {
                self.finish_pairing(poller, key, peer);
                true
            }
            Err(Trouble::Io(error)) if self.pairings[key].target.is_some() => {
                self.pairings[key].try_later(poller, error, now);
                true
            }
            Err(Trouble::Io(_)) => {
                self.drop_pairing(poller, key);
                true
            }
            Err(Trouble::Handshake(error)) => {
                self.logger.log(LogLevel::Warn, format_args!("{error}"));
                let target = self.pairings[key].target;
                match (error.kind(), target.map(|(peer, _)| peer).or(error.peer())) {
                    (ErrorKind::Mismatch | ErrorKind::Auth, Some(peer)) => self.fail(peer, error),
                    _ if target.is_some() => {
                        self.pairings[key].try_later(poller, io::Error::other(error), now);
                        return true;
                    }
                    _ => {}
                }
                self.drop_pairing(poller, key);
                true
            }
        }
    }

    /// Moves the handshake's bytes.
    fn advance_pairing(&mut self, poller: &Poller, key: usize) -> std::result::Result<Progress, Trouble> {
        let pairing = &mut self.pairings[key];
        let socket = pairing.socket.as_ref().expect("it has a socket");
        let mut progress = Progress::Nothing;
        let handshake = match &mut pairing.handshake {
            Some(handshake) => handshake,
            None => {
                if !connected(socket)? {
                    return Ok(Progress::Nothing);
                }
                let (peer, _) = pairing.target.expect("the side that connects knows whom");
                let identity = self.identity.clone().expect("GO comes after the join");
                poller.modify(socket.as_raw_fd(), Token::Pairing(key as u32), Interest::Read)?;
                progress = Progress::Moved;
                pairing.handshake.insert(Handshake::connecting(identity, peer).map_err(Trouble::Handshake)?)
            }
        };
        loop {
            while !handshake.outgoing().is_empty() {
                // A hundred bytes fit the buffer of a new connection.
                let count = send_to(socket, handshake.outgoing())?;
                handshake.advance(count);
                progress = Progress::Moved;
            }
            if handshake.is_finished() {
                return Ok(Progress::Finished(handshake.peer().expect("a finished one names its peer")));
            }
            let mut bytes = [0u8; 64];
            let wanted = handshake.wanted().min(bytes.len());
            match recv_from(socket, &mut bytes[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(progress),
                Err(error) => return Err(Trouble::Io(error)),
                Ok(0) => return Err(Trouble::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    handshake.receive(&bytes[..count]).map_err(Trouble::Handshake)?;
                    progress = Progress::Moved;
                }
            }
        }
    }

    fn finish_pairing(&mut self, poller: &Poller, key: usize, peer: u32) {
        let mut pairing = self.pairings.remove(key);
        let socket = pairing.socket.take().expect("a finished pairing has a socket");
        poller.remove(socket.as_raw_fd());
        // A second connection of a pair that is linked already, or a late one.
        if self.wanted.remove(&peer).is_none() {
            return;
        }
        match TcpLink::new(socket, self.settings.congestion.as_deref()) {
            Ok(link) => {
                self.logger.log(
                    LogLevel::Info,
                    format_args!("rank {} linked with rank {peer}", self.membership.rank),
                );
                self.outcomes.push_back(Outcome::Linked { peer, link });
            }
            Err(error) => {
                let error = Error::io("setting the options of a link", &error).with_channel("Direct");
                self.outcomes.push_back(Outcome::Failed { peer, error });
            }
        }
    }

    fn drop_pairing(&mut self, poller: &Poller, key: usize) {
        if let Some(socket) = self.pairings.remove(key).socket {
            poller.remove(socket.as_raw_fd());
        }
    }
}

enum Progress {
    Nothing,
    Moved,
    Finished(u32),
}

enum Trouble {
    Io(io::Error),
    Handshake(Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Pairing {
    /// Whether the other side has said who it is.
    fn is_introduced(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.peer().is_some())
    }

    fn try_later(&mut self, poller: &Poller, error: io::Error, now: Instant) {
        if let Some(socket) = self.socket.take() {
            poller.remove(socket.as_raw_fd());
        }
        self.handshake = None;
        self.last_error = Some(error);
        self.retry = now + jittered(self.backoff);
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
    }
}

/// A socket on a local port of its own that others may share: the listener and
/// the connections to peers come from the port that the server has seen.
fn reusable_socket(address: &SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket)
}

fn listen_on(local: &SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*local), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let any: IpAddr = match local {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, local.port()).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn connect_peer(poller: &Poller, address: &SocketAddr, token: Token) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    start_connecting(&socket, address)?;
    poller.add(socket.as_raw_fd(), token, Interest::Write)?;
    Ok(socket)
}

fn start_connecting(socket: &Socket, address: &SocketAddr) -> io::Result<()> {
    match socket.connect(&(*address).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a connect that was started has succeeded.
fn connected(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn send_to(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

fn recv_from(socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is initialised, and recv only writes to it what it
    // received.
    let bytes = unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [std::mem::MaybeUninit<u8>]) };
    socket.recv_with_flags(bytes, libc::MSG_DONTWAIT)
}

/// Between half of the time and the whole: ranks that failed together do not
/// come back together.
fn jittered(time: Duration) -> Duration {
    let mut byte = [0u8; 1];
    let _ = getrandom::fill(&mut byte);
    time / 2 + time * u32::from(byte[0]) / 512
}

/// The helper thread takes no signal that the host process waits for.
fn block_signals() {
    // SAFETY: the set is filled before it is used; the calls touch only this
    // thread's mask.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}
