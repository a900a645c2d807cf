//! Connections between two ranks that know each other's addresses, until they
//! are links.
//!
//! Both sides start when the server says GO. From the port that the server has
//! seen, each connects to all addresses of the other and listens at once; a NAT
//! then takes the other's packets for answers to its own host's. What is refused
//! is tried again at once: where a NAT answers unsolicited packets by a reset or
//! an ICMP message, the two come together only while both have a packet under
//! way, and a rank that sends the next one as soon as the last is refused always
//! has. What is not answered is closed and started again, sooner than the kernel
//! would.
//!
//! A connection counts only after the [handshake](crate::link::handshake): a
//! stranger is dropped, and of several good ones the lower rank decides for the
//! first.
//!
//! The tries since one GO are a **round**. Where a round has come to nothing,
//! [`Punched::Exhausted`] says so; the caller has the server start another, or
//! gives up. (A relay takes over there, where there is one.)

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::Socket;

use super::listener::Listener;
use super::sockets::{bound_socket, connected, ends, listen_on, recv_from, send_to, start_connecting};
use super::{jittered, random};
use crate::descriptors::Tracked;
use crate::endpoint::poller::{Interest, Poller, Token};
use crate::error::{Error, ErrorKind};
use crate::link::handshake::{Handshake, Identity};
use crate::link::tcp::{is_same_host, unacknowledged};
use crate::log::{LogLevel, Logger};

/// How long a connection may take to say who it is.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a handshake that has begun may make no progress; and how long while
/// bytes of ours are not even acknowledged by the peer's kernel.
const STALL_PATIENCE: Duration = Duration::from_secs(2);
const ACKNOWLEDGEMENT_PATIENCE: Duration = Duration::from_millis(500);

/// How many refusals of an address are answered by the next try at once: at the
/// start of a round more than the ranks' starts lie apart, in round trips; and
/// after each pause. (A refused try costs some 20 us.)
const FIRST_BURST: u32 = 30;
const BURST: u32 = 3;

/// An address that has refused is tried without a look at anything else for this
/// time, as long as each refusal comes within the other: where a round trip takes
/// some 10 us, in a data centre's network, two NATs that answer by resets let
/// each other through only if the tries are not much farther apart.
const TIGHT: Duration = Duration::from_millis(1);
const QUICK_ANSWER: Duration = Duration::from_micros(150);

/// For all addresses of one look together, which must not hold a call: with a thousand
/// that refuse, as those of dead hosts or of a bad server may, it took 1.5 s.
const TIGHT_IN_ALL: Duration = Duration::from_millis(8);

/// Tries that follow each other come within this time, at random: two ranks whose
/// tries keep missing each other do not go on in step.
const SPREAD: Duration = Duration::from_micros(150);

/// How long the higher rank leaves it to the lower one to connect on this host,
/// where no NAT wants packets of both: two connections cost twice the work.
const COURTESY: Duration = Duration::from_millis(50);

/// The most addresses that are tried for one peer.
const MAX_CANDIDATES: usize = 16;

/// The most addresses that a listener is told to ignore.
const MAX_IGNORED: usize = 256;

/// Between the bursts: the first pause, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(5);

/// After a connection to something that is not the peer.
const STRANGER_RETRY: Duration = Duration::from_millis(100);

/// How long the first try waits for an answer; each further one twice as long as
/// the one before. A try that is given up earlier than an answer takes never
/// succeeds; the kernel itself would try again after a second.
const FIRST_ANSWER: Duration = Duration::from_millis(60);
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Accepted connections that have not said who they are yet, and those that say they
/// are of one rank; a further one takes the place of the one that has been silent
/// longest.
const MAX_STRANGERS: usize = 64;
const MAX_OF_ONE: usize = 8;

/// How many connections are accepted at a time: each is looked at before it may
/// have to make room.
const ACCEPTED_AT_ONCE: usize = MAX_STRANGERS / 2;

/// What became of a pair.
pub(super) enum Punched {
    Linked {
        peer: u32,
        socket: Tracked<Socket>,
        /// Whether the connection stays on this host.
        same_host: bool,
    },
    /// The round is over, without a link.
    Exhausted { peer: u32 },
    /// The peer is not one that could be linked with.
    Refused { peer: u32, error: Error },
}

/// A local port, by its number here.
pub(super) type PortKey = usize;

/// A local port that peers connect to and from.
struct Port {
    local: SocketAddr,
    listener: Listener,
}

/// The way to one peer, while it is tried.
struct Attempt {
    port: PortKey,
    /// The first GO.
    since: Instant,
    round: u32,
    round_end: Instant,
    is_over: bool,
    candidates: Vec<Candidate>,
}

/// An address at which a peer may be.
struct Candidate {
    address: SocketAddr,
    /// The connection that is under way.
    pairing: Option<usize>,
    retry: Instant,
    pause: Duration,
    answer: Duration,
    /// Tries at once that are left before the next pause.
    eager: u32,
    tries: u32,
    is_refusing: bool,
    setback: Option<Setback>,
    is_stranger: bool,
}

/// What became of the last try of an address.
enum Setback {
    /// A connection stood, and carried no more.
    Stalled,
    Silent,
    Failed(String),
}

/// A connection on its way to be a link.
struct Pairing {
    socket: Tracked<Socket>,
    origin: Origin,
    /// `None` until it is connected.
    handshake: Option<Handshake>,
    watched: Interest,
    since: Instant,
    /// When to give it up, where it makes no progress until then.
    patience: Option<Instant>,
    round: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Connected { peer: u32, address: SocketAddr },
    Accepted,
}

/// The connections that are being made.
pub(super) struct Punching {
    logger: Logger,
    /// Who this rank is; known once it has joined.
    identity: Option<Identity>,
    ports: Slab<Port>,
    attempts: BTreeMap<u32, Attempt>,
    pairings: Slab<Pairing>,
    /// The connection that this rank, the lower one, has decided for.
    decided: BTreeMap<u32, usize>,
    linked: Box<[bool]>,
    results: VecDeque<Punched>,
}

impl Punching {
    pub(super) fn new(size: u32, logger: Logger) -> Self {
        Self {
            logger,
            identity: None,
            ports: Slab::new(),
            attempts: BTreeMap::new(),
            pairings: Slab::new(),
            decided: BTreeMap::new(),
            linked: vec![false; size as usize].into_boxed_slice(),
            results: VecDeque::new(),
        }
    }

    pub(super) fn introduce(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Listens on the port of `local`.
    pub(super) fn open_port(&mut self, local: SocketAddr) -> io::Result<PortKey> {
        let listener = Listener::new(listen_on(&local)?);
        Ok(self.ports.insert(Port { local, listener }))
    }

    pub(super) fn close_port(&mut self, poller: &Poller, port: PortKey) {
        if let Some(mut port) = self.ports.try_remove(port) {
            port.listener.unwatch(poller);
        }
    }

    /// Both sides start now; the round ends after `patience`.
    pub(super) fn start(
        &mut self,
        peer: u32,
        port: PortKey,
        candidates: Vec<SocketAddr>,
        now: Instant,
        patience: Duration,
    ) {
        if self.linked[peer as usize] {
            return;
        }
        let own = self.ports.get(port).map(|port| port.local);
        let attempt = self.attempts.entry(peer).or_insert_with(|| Attempt {
            port,
            since: now,
            round: 0,
            round_end: now,
            is_over: true,
            candidates: Vec::new(),
        });
        attempt.port = port;
        // Both may have asked for the round, and have been told GO twice.
        if attempt.is_over || attempt.round_end.saturating_duration_since(now) < patience / 2 {
            attempt.round += 1;
            attempt.round_end = now + patience;
        }
        attempt.is_over = false;
        for candidate in &mut attempt.candidates {
            candidate.start_over(now);
        }
        for &address in &candidates {
            if may_be_a_peer(&address) && Some(address) != own {
                attempt.add_candidate(address, &candidates, now);
            }
        }
        let is_higher = self.identity.as_ref().is_some_and(|identity| identity.rank > peer);
        let local = own.map(|own| own.ip());
        for candidate in &mut attempt.candidates {
            if is_higher && is_on_this_host(candidate.address.ip(), local) {
                candidate.retry = now + COURTESY;
            }
        }
        self.update_ignored(port);
    }

    /// Has the listener ignore the addresses that are being connected to. Those
    /// of this host have no NAT before them.
    fn update_ignored(&mut self, key: PortKey) {
        let Some(port) = self.ports.get_mut(key) else { return };
        let running = self.attempts.values().filter(|attempt| attempt.port == key && !attempt.is_over);
        let addresses = running.flat_map(|attempt| &attempt.candidates).map(|candidate| candidate.address);
        let away = addresses.filter(|address| !is_on_this_host(address.ip(), Some(port.local.ip())));
        let ignored: Vec<SocketAddrV4> = away
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })
            .take(MAX_IGNORED)
            .collect();
        port.listener.ignore(ignored);
    }

    /// How many rounds with `peer` have begun since there was a link or a failure.
    pub(super) fn rounds(&self, peer: u32) -> u32 {
        self.attempts.get(&peer).map_or(0, |attempt| attempt.round)
    }

    /// Whether a round with `peer` has come to nothing.
    pub(super) fn has_failed(&self, peer: u32) -> bool {
        self.attempts.get(&peer).is_some_and(|attempt| attempt.is_over || attempt.round > 1)
    }

    /// Whether a connection with `peer` stands, and waits for the peer's word.
    pub(super) fn is_talking(&self, peer: u32) -> bool {
        self.pairings.iter().any(|(_, pairing)| pairing.handshake.is_some() && pairing.peer() == Some(peer))
    }

    /// Whether a connection with `peer` stood, and carried no more.
    pub(super) fn has_stalled(&self, peer: u32) -> bool {
        let candidates = self.attempts.get(&peer).map_or(&[][..], |attempt| &attempt.candidates);
        candidates.iter().any(|candidate| matches!(candidate.setback, Some(Setback::Stalled)))
    }

    /// What was tried to reach `peer`, and what came of it.
    pub(super) fn report(&self, peer: u32) -> Option<String> {
        let attempt = self.attempts.get(&peer)?;
        let mut text = String::new();
        for candidate in &attempt.candidates {
            let why = match (&candidate.setback, candidate.pairing) {
                (Some(Setback::Stalled), _) => "a connection stood, and stalled",
                (Some(Setback::Silent), _) => "no answer",
                (Some(Setback::Failed(why)), _) => why,
                (None, Some(_)) => "no answer yet",
                (None, None) => "not tried",
            };
            let separator = if text.is_empty() { "" } else { "; " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{}: {why}, {} tries", candidate.address, candidate.tries);
        }
        Some(text)
    }

    /// Ends what is left of rounds with peers that are not `wanted`, where no connection
    /// stands that may become a link.
    pub(super) fn clean_up(&mut self, poller: &Poller, wanted: &BTreeSet<u32>) {
        let is_left = |(peer, attempt): &(&u32, &Attempt)| {
            attempt.is_over && !wanted.contains(*peer) && !self.is_talking(**peer)
        };
        let left: Vec<u32> = self.attempts.iter().filter(is_left).map(|(peer, _)| *peer).collect();
        for peer in left {
            self.forget(poller, peer);
        }
    }

    /// Ends everything with `peer`.
    pub(super) fn forget(&mut self, poller: &Poller, peer: u32) {
        if let Some(attempt) = self.attempts.remove(&peer) {
            self.update_ignored(attempt.port);
        }
        let theirs = |(key, pairing): (usize, &Pairing)| (pairing.peer() == Some(peer)).then_some(key);
        let keys: Vec<usize> = self.pairings.iter().filter_map(theirs).collect();
        for key in keys {
            self.remove(poller, key);
        }
    }

    pub(super) fn is_at_work(&self) -> bool {
        let mut listeners = self.ports.iter().map(|(_, port)| &port.listener);
        !self.attempts.is_empty()
            || !self.pairings.is_empty()
            || !self.results.is_empty()
            || listeners.any(|listener| listener.needs_a_look())
    }

    pub(super) fn next_result(&mut self) -> Option<Punched> {
        self.results.pop_front()
    }

    /// When there is something to do even if no event comes.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let running = self.attempts.values().filter(|attempt| !attempt.is_over);
        let retries = running.flat_map(|attempt| {
            let idle = attempt.candidates.iter().filter(|candidate| candidate.pairing.is_none());
            idle.map(|candidate| candidate.retry).chain([attempt.round_end])
        });
        let patience = self.pairings.iter().filter_map(|(_, pairing)| pairing.patience);
        let listeners = self.ports.iter().filter_map(|(_, port)| port.listener.next_timer());
        retries.chain(patience).chain(listeners).min()
    }

    /// Does what can be done now: `true` = something moved.
    pub(super) fn service(&mut self, poller: &Poller, now: Instant) -> bool {
        if self.identity.is_none() {
            return false;
        }
        let moved = self.accept(poller, now) | self.advance_all(poller, now) | self.connect(poller, now);
        self.end_rounds(poller, now);
        moved
    }

    fn accept(&mut self, poller: &Poller, now: Instant) -> bool {
        let Some(identity) = self.identity.clone() else { return false };
        let mut moved = false;
        let ports: Vec<PortKey> = self.ports.iter().map(|(key, _)| key).collect();
        for port in ports {
            for _ in 0..ACCEPTED_AT_ONCE {
                let Some(socket) = self.ports[port].listener.accept(poller, now) else { break };
                moved = true;
                let Ok(same_host) = is_same_host(&socket) else { continue };
                self.make_room(poller);
                let entry = self.pairings.vacant_entry();
                let token = Token::Pairing(entry.key() as u32);
                if poller.add(socket.as_raw_fd(), token, Interest::Read).is_ok() {
                    entry.insert(Pairing {
                        socket,
                        origin: Origin::Accepted,
                        handshake: Some(Handshake::accepting(identity.clone(), !same_host)),
                        watched: Interest::Read,
                        since: now,
                        patience: Some(now + HANDSHAKE_PATIENCE),
                        round: 0,
                    });
                }
            }
        }
        moved
    }

    /// Of a crowd, the connection that has been silent longest makes room: a peer
    /// speaks at once, and must find a place however many strangers there are. Each
    /// rank has places of its own: one that has said who it is may have taken the
    /// connection for the link.
    fn make_room(&mut self, poller: &Poller) {
        let mut crowds: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
        for (key, pairing) in &self.pairings {
            if pairing.origin == Origin::Accepted {
                crowds.entry(pairing.peer()).or_default().push(key);
            }
        }
        for (rank, keys) in crowds {
            let most = if rank.is_some() { MAX_OF_ONE } else { MAX_STRANGERS };
            if keys.len() >= most
                && let Some(oldest) = keys.into_iter().min_by_key(|key| self.pairings[*key].since)
            {
                self.remove(poller, oldest);
            }
        }
    }

    /// Starts the connections that are due.
    fn connect(&mut self, poller: &Poller, now: Instant) -> bool {
        let mut moved = false;
        let running = self.attempts.values().filter(|attempt| !attempt.is_over);
        let refusing =
            running.flat_map(|attempt| &attempt.candidates).filter(|candidate| candidate.is_refusing);
        let tight = TIGHT.min(TIGHT_IN_ALL / refusing.count().max(1) as u32);
        for (&peer, attempt) in &mut self.attempts {
            let Some(port) = self.ports.get(attempt.port).filter(|_| !attempt.is_over) else { continue };
            for candidate in &mut attempt.candidates {
                if candidate.pairing.is_some() || now < candidate.retry || now >= attempt.round_end {
                    continue;
                }
                moved = true;
                candidate.tries += 1;
                let address = candidate.address;
                let entry = self.pairings.vacant_entry();
                let token = Token::Pairing(entry.key() as u32);
                let started = match candidate.is_refusing {
                    true => connect_tightly(port.local.port(), &address, tight),
                    false => connect_from(port.local.port(), &address),
                };
                let watched = started.and_then(|socket| {
                    poller.add(socket.as_raw_fd(), token, Interest::Write)?;
                    Ok(socket)
                });
                match watched {
                    Ok(socket) => {
                        candidate.pairing = Some(entry.key());
                        entry.insert(Pairing {
                            socket,
                            origin: Origin::Connected { peer, address },
                            handshake: None,
                            watched: Interest::Write,
                            since: now,
                            patience: Some(now + candidate.answer),
                            round: attempt.round,
                        });
                    }
                    Err(error) => candidate.refused(&error, now),
                }
            }
        }
        moved
    }

    fn advance_all(&mut self, poller: &Poller, now: Instant) -> bool {
        let mut moved = false;
        let keys: Vec<usize> = self.pairings.iter().map(|(key, _)| key).collect();
        for key in keys {
            // One that was finished may have ended others.
            if self.pairings.contains(key) {
                moved |= self.service_pairing(poller, key, now);
            }
        }
        moved
    }

    fn service_pairing(&mut self, poller: &Poller, key: usize, now: Instant) -> bool {
        match self.advance(poller, key) {
            Ok(Progress::Nothing) => {
                // Late only if it is still silent: it may have spoken in time,
                // while this rank was outside of FMI calls.
                if self.pairings[key].patience.is_some_and(|patience| now >= patience) {
                    self.give_up(poller, key, now);
                }
                false
            }
            Ok(Progress::Moved) => {
                self.pairings[key].note_progress(now);
                true
            }
            Ok(Progress::Finished(peer)) => {
                self.finish(poller, key, peer, now);
                true
            }
            Err(Trouble::Io(error)) => {
                self.drop_failed(poller, key, |candidate| candidate.refused(&error, now));
                true
            }
            Err(Trouble::Handshake(error)) => {
                self.refuse(poller, key, error, now);
                true
            }
        }
    }

    /// Moves the bytes of one connection.
    fn advance(&mut self, poller: &Poller, key: usize) -> Result<Progress, Trouble> {
        let pairing = &mut self.pairings[key];
        let mut progress = Progress::Nothing;
        let handshake = match (&mut pairing.handshake, pairing.origin) {
            (Some(handshake), _) => handshake,
            (None, Origin::Connected { peer, .. }) => {
                if !connected(&pairing.socket)? {
                    return Ok(Progress::Nothing);
                }
                let Some(identity) = self.identity.clone() else { return Ok(Progress::Nothing) };
                let leaves_host = !is_same_host(&pairing.socket)?;
                progress = Progress::Moved;
                let handshake = Handshake::connecting(identity, peer, leaves_host);
                pairing.handshake.insert(handshake.map_err(Trouble::Handshake)?)
            }
            (None, Origin::Accepted) => return Ok(Progress::Nothing),
        };
        let mut bytes = [0u8; 16 << 10];
        loop {
            while !handshake.outgoing().is_empty() {
                match send_to(&pairing.socket, handshake.outgoing()) {
                    Ok(count) => handshake.advance(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Trouble::Io(error)),
                }
                progress = Progress::Moved;
            }
            let interest = if handshake.outgoing().is_empty() { Interest::Read } else { Interest::Both };
            if pairing.watched != interest {
                poller.modify(pairing.socket.as_raw_fd(), Token::Pairing(key as u32), interest)?;
                pairing.watched = interest;
            }
            if handshake.may_decide() {
                let peer = handshake.peer().expect("who has proven itself is known");
                if self.linked[peer as usize] || *self.decided.entry(peer).or_insert(key) != key {
                    return Err(Trouble::Io(io::Error::other("the other connection of the pair is kept")));
                }
                handshake.decide();
                continue;
            }
            if handshake.is_finished() {
                return Ok(Progress::Finished(handshake.peer().expect("a finished one names its peer")));
            }
            let wanted = handshake.wanted().min(bytes.len());
            if wanted == 0 {
                return Ok(progress);
            }
            match recv_from(&pairing.socket, &mut bytes[..wanted]) {
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

    fn finish(&mut self, poller: &Poller, key: usize, peer: u32, now: Instant) {
        let pairing = self.pairings.remove(key);
        poller.remove(pairing.socket.as_raw_fd());
        let since = self.attempts.get(&peer).map_or(now, |attempt| attempt.since);
        self.forget(poller, peer);
        self.decided.remove(&peer);
        // A late one of a pair that is linked already.
        if std::mem::replace(&mut self.linked[peer as usize], true) {
            return;
        }
        let Some(identity) = &self.identity else { return };
        if let Ok((_, address)) = ends(&pairing.socket) {
            let took = (now - since).as_secs_f64() * 1e3;
            self.logger.log(
                LogLevel::Info,
                format_args!(
                    "rank {} linked with rank {peer} at {address} after {took:.3} ms",
                    identity.rank
                ),
            );
        }
        // A peer that has gone meanwhile has no address, but its last words are here.
        let same_host = is_same_host(&pairing.socket).unwrap_or(false);
        self.results.push_back(Punched::Linked { peer, socket: pairing.socket, same_host });
    }

    /// The handshake went wrong: with a stranger, or with a rank that cannot be
    /// linked with.
    fn refuse(&mut self, poller: &Poller, key: usize, error: Error, now: Instant) {
        let peer = self.pairings[key].peer().or(error.peer());
        let mut is_news = true;
        self.drop_failed(poller, key, |candidate| {
            is_news = !std::mem::replace(&mut candidate.is_stranger, true);
            candidate.setback = Some(Setback::Failed(error.message().to_owned()));
            candidate.retry = now + jittered(STRANGER_RETRY);
        });
        if is_news {
            self.logger.log(LogLevel::Warn, format_args!("{error}"));
        }
        if let (ErrorKind::Mismatch | ErrorKind::Auth, Some(peer)) = (error.kind(), peer) {
            self.results.push_back(Punched::Refused { peer, error });
        }
    }

    /// A connection has made no progress for a while.
    fn give_up(&mut self, poller: &Poller, key: usize, now: Instant) {
        let pairing = &mut self.pairings[key];
        let is_connected = pairing.handshake.is_some();
        let is_dead = unacknowledged(&pairing.socket) > 0;
        if is_connected && !is_dead {
            // It is the peer's turn. Before its hello it may be outside of FMI
            // calls.
            let until = pairing.since + STALL_PATIENCE;
            match (pairing.is_introduced(), pairing.origin) {
                (true, _) if now < until => return pairing.patience = Some(until),
                (false, Origin::Connected { .. }) => return pairing.patience = None,
                _ => {}
            }
        }
        // A reset: a NAT that has a wrong idea of the connection forgets it.
        let _ = pairing.socket.set_linger(Some(Duration::ZERO));
        self.drop_failed(poller, key, |candidate| {
            if is_connected {
                candidate.setback = Some(Setback::Stalled);
            } else if !matches!(candidate.setback, Some(Setback::Stalled)) {
                // That one stood would say more than that the next ones did not.
                candidate.setback = Some(Setback::Silent);
            }
            candidate.answer = (candidate.answer * 2).min(LAST_ANSWER);
            candidate.retry = now;
        });
    }

    /// Removes a connection that failed, and notes it at its candidate. The
    /// source address of a peer that has made itself known is one too.
    fn drop_failed(&mut self, poller: &Poller, key: usize, note: impl FnOnce(&mut Candidate)) {
        let Some(pairing) = self.remove(poller, key) else { return };
        let address = match pairing.origin {
            Origin::Connected { address, .. } => Some(address),
            Origin::Accepted => ends(&pairing.socket).ok().map(|(_, peer)| peer),
        };
        let (Some(peer), Some(address)) = (pairing.peer(), address) else { return };
        let Some(attempt) = self.attempts.get_mut(&peer) else { return };
        match attempt.candidates.iter().position(|candidate| candidate.address == address) {
            Some(known) => note(&mut attempt.candidates[known]),
            None if attempt.candidates.len() < MAX_CANDIDATES => {
                attempt.candidates.push(Candidate::new(address, Instant::now()));
            }
            None => {}
        }
    }

    /// Removes a connection.
    fn remove(&mut self, poller: &Poller, key: usize) -> Option<Pairing> {
        let pairing = self.pairings.try_remove(key)?;
        poller.remove(pairing.socket.as_raw_fd());
        self.decided.retain(|_, decided| *decided != key);
        for attempt in self.attempts.values_mut() {
            for candidate in attempt.candidates.iter_mut().filter(|candidate| candidate.pairing == Some(key))
            {
                candidate.pairing = None;
            }
        }
        Some(pairing)
    }

    /// Ends the rounds whose time is over.
    fn end_rounds(&mut self, poller: &Poller, now: Instant) {
        let is_due = |attempt: &Attempt| !attempt.is_over && now >= attempt.round_end;
        let due: Vec<(u32, u32)> = (self.attempts.iter())
            .filter(|(_, attempt)| is_due(attempt))
            .map(|(peer, attempt)| (*peer, attempt.round))
            .collect();
        for (peer, round) in due {
            // What is not connected by now has no part in another round; and one
            // that was silent for the whole of a round that the peer has taken
            // part in is not the peer.
            let ends = |pairing: &Pairing| match pairing.origin {
                Origin::Connected { peer: target, .. } if target == peer => {
                    pairing.handshake.is_none() || !pairing.is_introduced() && pairing.round < round
                }
                _ => false,
            };
            let over: Vec<usize> =
                (self.pairings.iter()).filter_map(|(key, pairing)| ends(pairing).then_some(key)).collect();
            for key in over {
                self.drop_failed(poller, key, |candidate| {
                    candidate.setback.get_or_insert(Setback::Silent);
                });
            }
            if let Some(attempt) = self.attempts.get_mut(&peer) {
                attempt.is_over = true;
                let port = attempt.port;
                self.update_ignored(port);
            }
            self.results.push_back(Punched::Exhausted { peer });
        }
    }
}

impl Attempt {
    /// Tries this address too. Where there are too many, one makes room that is not
    /// being tried, and not among the `latest`.
    fn add_candidate(&mut self, address: SocketAddr, latest: &[SocketAddr], now: Instant) {
        if self.candidates.iter().any(|candidate| candidate.address == address) {
            return;
        }
        if self.candidates.len() >= MAX_CANDIDATES {
            let is_spare =
                |candidate: &Candidate| candidate.pairing.is_none() && !latest.contains(&candidate.address);
            let Some(spare) = self.candidates.iter().position(is_spare) else { return };
            self.candidates.remove(spare);
        }
        self.candidates.push(Candidate::new(address, now));
    }
}

/// Whether a rank could listen at this address.
fn may_be_a_peer(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

impl Candidate {
    fn new(address: SocketAddr, now: Instant) -> Self {
        Self {
            address,
            pairing: None,
            retry: now,
            pause: FIRST_RETRY,
            answer: FIRST_ANSWER,
            eager: FIRST_BURST,
            tries: 0,
            is_refusing: false,
            setback: None,
            is_stranger: false,
        }
    }

    fn start_over(&mut self, now: Instant) {
        self.retry = now;
        self.pause = FIRST_RETRY;
        self.answer = FIRST_ANSWER;
        self.eager = FIRST_BURST;
    }

    fn refused(&mut self, error: &io::Error, now: Instant) {
        // The peer's own connection has taken the pair of addresses: it waits at
        // our listener.
        if error.kind() != io::ErrorKind::AddrNotAvailable {
            self.setback = Some(Setback::Failed(error.to_string()));
        }
        self.is_refusing = error.kind() == io::ErrorKind::ConnectionRefused;
        if self.is_refusing && self.eager > 0 {
            self.eager -= 1;
            self.retry = now + random(SPREAD);
            return;
        }
        self.eager = BURST;
        self.retry = now + jittered(self.pause);
        self.pause = (self.pause * 3 / 2).min(LAST_RETRY);
    }
}

impl Pairing {
    /// The rank at the other end, as far as it is known or meant.
    fn peer(&self) -> Option<u32> {
        match self.origin {
            Origin::Connected { peer, .. } => Some(peer),
            Origin::Accepted => self.handshake.as_ref().and_then(Handshake::peer),
        }
    }

    fn is_introduced(&self) -> bool {
        self.handshake.as_ref().is_some_and(Handshake::is_introduced)
    }

    fn note_progress(&mut self, now: Instant) {
        match self.origin {
            _ if self.is_introduced() => {
                self.since = now;
                self.patience = Some(now + ACKNOWLEDGEMENT_PATIENCE);
            }
            // It stands, and our hello is on its way.
            Origin::Connected { .. } => {
                let round_trip = now - self.since;
                self.patience = Some(now + 4 * round_trip + FIRST_ANSWER);
            }
            Origin::Accepted => {}
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

fn is_on_this_host(address: IpAddr, local: Option<IpAddr>) -> bool {
    address.to_canonical().is_loopback() || Some(address) == local
}

fn connect_from(port: u16, address: &SocketAddr) -> io::Result<Tracked<Socket>> {
    let socket = bound_socket(address, port)?;
    start_connecting(&socket, address)?;
    Ok(socket)
}

/// Tries again and again while the refusals come quickly, for about this `time`.
fn connect_tightly(port: u16, address: &SocketAddr, time: Duration) -> io::Result<Tracked<Socket>> {
    let start = Instant::now();
    loop {
        let socket = connect_from(port, address)?;
        let sent = Instant::now();
        let outcome = loop {
            match connected(&socket) {
                Ok(false) if sent.elapsed() < QUICK_ANSWER => std::hint::spin_loop(),
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(_) => return Ok(socket),
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused || start.elapsed() >= time => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
}
