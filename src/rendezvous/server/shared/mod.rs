//! What the tasks of all connections share: the registry, who waits by name, and
//! of each connection all but its socket. Bytes go in, bytes come out.

mod room;
#[cfg(test)]
mod siege;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::Instant as Moment;

use room::{Class, Source};

use super::options::{Limits, ServerOptions};
use crate::log::{LogLevel, Logger};
use crate::rendezvous::allowance::{Allowances, source_of};
use crate::rendezvous::protocol::{Hash, MAGIC, MAX_FRAME, Membership, Refusal};
use crate::rendezvous::registry::{ConnectionId, End, Output, Refused, Registry};
use crate::rendezvous::session::{Admission, Fresh, Room, Session};
use crate::rendezvous::tcpunch::{self, Answer, Caller, TooLong, Waiting};

/// Unread bytes of a stranger that do not take from its source's allowance: a
/// member that keeps up never has more.
const UNREAD_FOR_FREE: usize = MAX_FRAME;
/// How long a connection that is refused may take to read why: closing it at
/// once, with bytes of it unread, would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);

/// What the tasks share.
pub(super) struct Shared {
    pub(super) registry: Registry,
    /// Says that the registry's timer may have changed.
    pub(super) alarm: Arc<Notify>,
    admission: Admission,
    /// The clients of protocol 1; `None` where they are not served.
    waiting: Option<Waiting>,
    logger: Logger,
    limits: Limits,
    pub(super) links: HashMap<ConnectionId, Link>,
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
pub(super) struct Link {
    speech: Speech,
    peer: SocketAddr,
    class: Class,
    pub(super) state: LinkState,
    /// When [`Shared::expire`] is due.
    pub(super) deadline: Option<Moment>,
    /// What the socket has not taken yet.
    pub(super) outgoing: Vec<u8>,
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    Open,
    /// Ends when the outgoing bytes are sent and the other side has closed.
    Closing,
    /// Ends at once, after one attempt to send.
    Dropped,
}

impl Shared {
    pub(super) fn new(options: ServerOptions) -> Self {
        let ServerOptions { secret, require_secret, tcpunch, logger, limits } = options;
        let limits = limits.within_descriptors(secret.is_some());
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

    pub(super) fn log(&self, level: LogLevel, text: std::fmt::Arguments<'_>) {
        self.logger.log(level, text);
    }

    /// Takes a new connection; where there are too many handshakes, the oldest
    /// gives way.
    pub(super) fn admit(&mut self, peer: SocketAddr) -> io::Result<(ConnectionId, Arc<Notify>)> {
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

    /// Takes what was read from a connection.
    pub(super) fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
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

    pub(super) fn process_ended(&mut self, job_id: Hash, rank: u32) {
        self.registry.process_ended(job_id, rank);
        self.distribute();
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.registry.tick(now);
        self.distribute();
    }

    /// Ends the connection of a client that has no words for why.
    fn dismiss(&mut self, id: ConnectionId, why: &str) {
        let Some(link) = self.links.get(&id) else { return };
        self.logger.log(LogLevel::Debug, format_args!("dismissed: {}: {why}", link.peer));
        self.close(id);
    }

    /// Drops up to `count` of the oldest handshakes.
    pub(super) fn evict(&mut self, count: usize) {
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
    pub(super) fn expire(&mut self, id: ConnectionId, deadline: Option<Moment>) {
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
    pub(super) fn forget(&mut self, id: ConnectionId, end: End) {
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
    pub(super) fn advance(&mut self, sent: usize, allowances: &mut Allowances) {
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

/// A panic while it was held would have left the registry half changed: then
/// the server ends rather than tell nonsense.
pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no task panicked")
}

fn fresh() -> io::Result<Fresh> {
    let mut bytes = [[0; 16]; 3];
    getrandom::fill(bytes.as_flattened_mut()).map_err(io::Error::other)?;
    let [nonce, epoch, token] = bytes;
    Ok(Fresh { nonce, membership: Membership { epoch, token } })
}
