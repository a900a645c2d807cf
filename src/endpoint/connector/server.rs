//! The connection to a rendezvous server that speaks our own protocol.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::resolver::Lookup;
use super::sockets::{bound_socket, connected, private_endpoints, recv_from, send_to, start_connecting};
use super::{Connector, Dialect, FIRST_BACKOFF, LAST_BACKOFF, Membership, Outcome, jittered, tcpunch};
use crate::config::DirectSettings;
use crate::descriptors::Tracked;
use crate::endpoint::host::host_id;
use crate::endpoint::poller::{Interest, Poller, Token};
use crate::error::{Error, ErrorKind, Result};
use crate::link::handshake::Identity;
use crate::link::tcp::keep_alive;
use crate::log::LogLevel;
use crate::rendezvous::client::{Client, Event, JoinRequest};
use crate::rendezvous::protocol::MAGIC;

/// How long a server that does not answer is tried before calls that need it
/// fail: ranks and server may start in any order.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);

/// How long one of its addresses is tried: the kernel asks a second time after
/// 1 s, and the answer has a while to come.
pub(super) const ADDRESS_PATIENCE: Duration = Duration::from_millis(1500);

/// How often a server is read from before others have their turn, and the call looks
/// at its deadline: what it says at once is far less.
const READS_AT_ONCE: usize = 16;

/// How long a server waits for a rank that joins.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// How often a rank takes another port: each costs it a descriptor.
const MAX_RENEWALS: u32 = 8;

/// How often a name that is being resolved is asked for.
const RESOLVER_INTERVAL: Duration = Duration::from_millis(5);

/// The way to the rendezvous server.
pub(super) enum Server {
    /// Nothing is wanted yet; or protocol 1, with a connection for each pair.
    Idle,
    Resolving(Lookup),
    Connecting {
        socket: Tracked<Socket>,
        others: Vec<SocketAddr>,
        since: Instant,
    },
    Open {
        socket: Tracked<Socket>,
        watched: Interest,
        since: Instant,
    },
    /// Broken or refused: the next try.
    Waiting {
        until: Instant,
    },
}

impl Server {
    pub(super) fn next_timer(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until } => Some(*until),
            Self::Connecting { since, .. } => Some(*since + ADDRESS_PATIENCE),
            Self::Resolving(_) => Some(Instant::now() + RESOLVER_INTERVAL),
            _ => None,
        }
    }
}

impl Connector {
    pub(super) fn resolve(&self) -> Server {
        Server::Resolving(Lookup::new(&self.settings.host))
    }

    pub(super) fn service_server(
        &mut self,
        poller: &Poller,
        now: Instant,
        deadline: Option<Instant>,
    ) -> bool {
        match &mut self.server {
            Server::Idle => false,
            Server::Waiting { until } if now < *until => false,
            Server::Waiting { .. } => {
                self.server = self.resolve();
                true
            }
            Server::Resolving(lookup) => match lookup.poll() {
                None => false,
                Some(Ok(addresses)) => {
                    let port = self.settings.port;
                    self.addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                    match self.dialect {
                        Dialect::TcPunch => self.server = Server::Idle,
                        _ => self.connect_server(poller, self.addresses.clone(), now),
                    }
                    true
                }
                Some(Err(why)) => {
                    self.server_unreachable(poller, io::Error::other(why), now);
                    true
                }
            },
            Server::Connecting { .. } => self.finish_connecting(poller, now),
            Server::Open { .. } => self.talk(poller, now, deadline),
        }
    }

    fn connect_server(&mut self, poller: &Poller, mut addresses: Vec<SocketAddr>, now: Instant) {
        let address = addresses.remove(0);
        let started = bound_socket(&address, 0).and_then(|socket| {
            start_connecting(&socket, &address)?;
            poller.add(socket.as_raw_fd(), Token::Rendezvous, Interest::Write)?;
            Ok(socket)
        });
        match started {
            Ok(socket) => self.server = Server::Connecting { socket, others: addresses, since: now },
            Err(_) if !addresses.is_empty() => self.connect_server(poller, addresses, now),
            Err(error) => self.server_unreachable(poller, error, now),
        }
    }

    fn finish_connecting(&mut self, poller: &Poller, now: Instant) -> bool {
        let Server::Connecting { socket, others, since } = &mut self.server else { return false };
        let outcome = match connected(socket) {
            Ok(false) if now < *since + ADDRESS_PATIENCE => return false,
            Ok(false) => Err(io::ErrorKind::TimedOut.into()),
            outcome => outcome,
        };
        if let Err(error) = outcome {
            poller.remove(socket.as_raw_fd());
            let others = std::mem::take(others);
            match others.is_empty() {
                true => self.server_unreachable(poller, error, now),
                false => self.connect_server(poller, others, now),
            }
            return true;
        }
        let Server::Connecting { socket, since, .. } = std::mem::replace(&mut self.server, Server::Idle)
        else {
            return false;
        };
        if let Err(error) = self.greet_server(poller, &socket) {
            poller.remove(socket.as_raw_fd());
            self.fail_all(poller, &error);
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
        let local = socket.local_addr().map_err(|error| io("getsockname", error))?;
        let local = local.as_socket().expect("a TCP socket has an IP address");
        let _ = keep_alive(socket);
        if let Some(port) = self.port.take()
            && self.retired.is_none()
        {
            self.punching.close_port(poller, port);
        }
        self.port = Some(self.punching.open_port(local).map_err(|error| io("listen", error))?);
        match &mut self.client {
            Some(client) => {
                client.move_to(private_endpoints(local));
                client.reconnect()?;
            }
            None => {
                let Membership { rank, size, name, job_id, fingerprint } = self.membership.clone();
                let client = self.client.insert(Client::new(JoinRequest {
                    name,
                    job_id,
                    rank,
                    size,
                    private_endpoints: private_endpoints(local),
                    host_id: host_id(),
                    fingerprint,
                    secret: self.settings.secret.clone(),
                })?);
                for peer in &self.wanted {
                    client.connect(*peer);
                }
                if let Some(notice) = self.untold.take() {
                    client.abort(notice);
                }
            }
        }
        Ok(())
    }

    fn talk(&mut self, poller: &Poller, now: Instant, deadline: Option<Instant>) -> bool {
        let mut moved = false;
        let mut bytes = [0u8; 4096];
        for _ in 0..READS_AT_ONCE {
            let Server::Open { socket, since, .. } = &self.server else { return true };
            let since = *since;
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
                    if self.dialect == Dialect::Unknown && !self.recognise(poller, &bytes[..count]) {
                        return true;
                    }
                    let client = self.client.as_mut().expect("an open connection has a client");
                    let had_time = now.saturating_duration_since(since) < JOIN_PATIENCE;
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
                    self.take_events(poller, now, deadline);
                }
            }
        }
        self.write_to_server(poller);
        moved
    }

    pub(super) fn write_to_server(&mut self, poller: &Poller) {
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

    fn take_events(&mut self, poller: &Poller, now: Instant, deadline: Option<Instant>) {
        while let Some(event) = self.client.as_mut().and_then(Client::next_event) {
            match event {
                Event::Joined { epoch, ranks_on_host, .. } => {
                    self.note_reached();
                    self.retired = None;
                    self.punching.introduce(self.identity(epoch));
                    self.outcomes.push_back(Outcome::RanksHere(ranks_on_host));
                    self.logger.log(
                        LogLevel::Info,
                        format_args!("rank {} joined {:?}", self.membership.rank, self.membership.name),
                    );
                }
                Event::Offer { rank } => {
                    if let Some(client) = &mut self.client {
                        client.ready(rank);
                    }
                }
                Event::Go { rank, candidates, ranks_on_host } => {
                    self.outcomes.push_back(Outcome::RanksHere(ranks_on_host));
                    if let Some(port) = self.port {
                        let patience = self.punch_timeout(now, deadline);
                        self.punching.start(rank, port, candidates, now, patience);
                    }
                }
                Event::Unreachable { rank, reason } => {
                    // Its last words may have come before, over a link that only
                    // this side has not seen to stand.
                    self.punch(poller, now);
                    // A rank that gave up first, and left, says less than why.
                    if self.punching.has_failed(rank)
                        && let Some(error) = self.no_path(rank)
                    {
                        self.fail(poller, rank, error);
                    }
                    self.forget(poller, rank);
                    self.outcomes.push_back(Outcome::Gone { peer: rank, reason });
                }
                // What is missing, and who is suspected, the client keeps.
                Event::NotYet { .. } | Event::Suspect { .. } => {}
                Event::Moved { epoch } => self.punching.introduce(self.identity(epoch)),
                Event::Aborted { rank, notice } => self.outcomes.push_back(Outcome::Aborted { rank, notice }),
            }
        }
    }

    /// The connection to the server is not the present one any more.
    fn hang_up(&mut self, poller: &Poller) -> Option<Tracked<Socket>> {
        let Server::Open { socket, .. } = std::mem::replace(&mut self.server, Server::Idle) else {
            return None;
        };
        poller.remove(socket.as_raw_fd());
        Some(socket)
    }

    /// The server said no: for good, unless it only had no room.
    fn server_refused(&mut self, poller: &Poller, error: Error) {
        self.hang_up(poller);
        let error = error.with_channel("Direct");
        self.logger.log(LogLevel::Error, format_args!("{error}"));
        if error.kind() != ErrorKind::Connect {
            self.refused = Some(error.clone());
        }
        self.fail_all(poller, &error);
    }

    fn server_broke(&mut self, poller: &Poller, error: io::Error, now: Instant) {
        self.hang_up(poller);
        self.server_unreachable(poller, error, now);
    }

    /// Connects to the server anew, and so from another port: a NAT that has lost
    /// the thread of a connection may keep its two ends apart for long. The old
    /// connection stays until the server knows the new one, which would take its
    /// end for ours; so does the old port, for the pairs that are under way there.
    pub(super) fn renew_port(&mut self, poller: &Poller, now: Instant) {
        let is_member = self.client.as_ref().is_some_and(Client::is_member);
        if !matches!(self.server, Server::Open { .. }) || !is_member || self.renewals >= MAX_RENEWALS {
            return;
        }
        self.renewals += 1;
        self.retired = self.hang_up(poller);
        self.connect_server(poller, self.addresses.clone(), now);
    }

    /// The server's first bytes: whether it speaks our protocol. Else it is
    /// spoken to as it can be, or refused.
    fn recognise(&mut self, poller: &Poller, bytes: &[u8]) -> bool {
        if bytes.first() == MAGIC.first() {
            self.speak(Dialect::Own);
            return true;
        }
        self.hang_up(poller);
        self.client = None;
        if let Some(port) = self.port.take() {
            self.punching.close_port(poller, port);
        }
        if tcpunch::is_answer(bytes) {
            self.logger.log(LogLevel::Info, format_args!("the rendezvous server speaks protocol 1"));
            self.speak(Dialect::TcPunch);
        } else {
            let text = "the rendezvous server does not speak FMI's protocol";
            self.refused = Some(Error::new(ErrorKind::Protocol, text).with_channel("Direct"));
        }
        if let Some(error) = self.refused.clone() {
            self.server_refused(poller, error);
        }
        false
    }

    /// From now on the server is spoken to in this protocol.
    pub(super) fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
        if dialect == Dialect::TcPunch {
            if self.settings.secret.is_some() {
                let text = "protocol 1 of the rendezvous server has no place for the job secret (FMI_SECRET)";
                self.refused = Some(Error::new(ErrorKind::Auth, text).with_channel("Direct"));
                return;
            }
            self.punching.introduce(self.identity(tcpunch::epoch_of(&self.membership)));
            for peer in self.wanted.clone() {
                self.pairs.ask(peer);
            }
        }
    }

    fn identity(&self, epoch: [u8; 16]) -> Identity {
        Identity {
            rank: self.membership.rank,
            size: self.membership.size,
            epoch,
            fingerprint: self.membership.fingerprint,
            secret: self.settings.secret.clone().unwrap_or_default(),
        }
    }

    /// Tries again after a while.
    fn server_unreachable(&mut self, poller: &Poller, error: io::Error, now: Instant) {
        self.note_unreachable(poller, error, now);
        self.server = Server::Waiting { until: now + jittered(self.backoff) };
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
    }

    /// The server could not be reached. Where it never has been, what needs it fails
    /// once that has lasted long enough; a rank that was a member knows that there
    /// is one, and waits to the deadlines of its calls.
    pub(super) fn note_unreachable(&mut self, poller: &Poller, error: io::Error, now: Instant) {
        let DirectSettings { host, port, .. } = &self.settings;
        let since = *self.unreachable_since.get_or_insert(now);
        let has_been_member = self.client.as_ref().is_some_and(Client::has_been_member);
        let is_given_up = !has_been_member && now - since >= SERVER_PATIENCE;
        let text = format!("the rendezvous server at {host}:{port} cannot be reached: {error}");
        if (is_given_up || has_been_member) && !std::mem::replace(&mut self.outage_is_logged, true) {
            let level = if is_given_up { LogLevel::Error } else { LogLevel::Warn };
            self.logger.log(level, format_args!("rank {}: {text}", self.membership.rank));
        }
        if is_given_up {
            let errno = error.raw_os_error().unwrap_or(0);
            self.fail_all(poller, &Error::new(ErrorKind::Connect, text).with_errno(errno));
        }
        self.last_error = Some(error);
    }

    /// The server has answered.
    pub(super) fn note_reached(&mut self) {
        self.unreachable_since = None;
        self.outage_is_logged = false;
        self.last_error = None;
        self.backoff = FIRST_BACKOFF;
    }
}
