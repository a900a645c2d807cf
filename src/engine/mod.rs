//! The engine: matching, flow control and requests of one endpoint.
//!
//! It has no sockets, no clock and no threads. Whoever drives it asks for the
//! bytes that shall go to a peer ([`Engine::output`], [`Engine::written`]), hands
//! in what came ([`Engine::landing`], [`Engine::landed`], [`Engine::feed`]), tells
//! it of links that open and close, and polls requests. All ranks here are the
//! endpoint's.
//!
//! A message that fits the credit leaves as one EAGER frame. A longer one leaves
//! as an RTS frame with as many bytes inline as the credit allows; the rest
//! follows in DATA frames once the receiver says CTS, which it does as soon as a
//! receive is posted or the message fits `unexpected_limit`. Payload goes
//! straight from the sender's buffer to the link, and from the link to the
//! receiver's buffer; it is kept here only when nobody has asked for it yet.
//!
//! The engine keeps pointers to the buffers of requests. Whoever posts a request
//! keeps the buffer alive and untouched until the request has been polled to its
//! end or cancelled; the futures in [`crate::endpoint`] do so by borrowing it.

mod context;
mod credit;
pub(crate) mod frame;
mod incoming;
mod outgoing;
#[cfg(test)]
mod simulation;

use std::collections::{HashMap, VecDeque};
use std::task::Poll;

use slab::Slab;

use crate::error::{Error, ErrorKind, Result};
pub(crate) use context::CallMark;
use context::Context;
use credit::{Allowance, Ledger};
use frame::{AbortNotice, Header, MessageId};
use incoming::{Inbox, Message, MessageKey, Posted};
use outgoing::{Outbox, Outgoing};

#[cfg(test)]
use credit::WINDOW_BYTES;
pub(crate) use incoming::{Received, Selector};
pub(crate) use outgoing::Envelope;

/// A send request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendKey(usize);

/// A receive request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecvKey(usize);

/// What became of a send that was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawal {
    /// Its last byte is on the way: it counts as sent.
    Sent,
    /// The receiver will not see it, or learns that it was cancelled.
    Withdrawn,
}

/// Where the link to a peer stands.
#[derive(Clone, Debug)]
enum LinkState {
    /// None yet.
    Absent,
    Open,
    /// The peer said GOODBYE; its link is still open.
    Left,
    /// The peer left, and there is no link to it any more.
    Closed,
    /// The link broke.
    Lost(Error),
}

struct Peer {
    link: LinkState,
    allowance: Allowance,
    ledger: Ledger,
    outbox: Outbox,
    inbox: Inbox,
    /// Messages under way from this peer that are not complete.
    incomplete: Vec<MessageKey>,
    /// Receives posted for this peer and not matched yet, in posting order.
    posted: Vec<RecvKey>,
    /// Receives for this peer that wait for a message or its rest.
    expected: u32,
    /// Sends to this peer that wait for its link or its grant.
    sending: u32,
    /// Messages of each half that came without credit and are not granted.
    announced: [u32; 2],
}

impl Peer {
    fn is_busy(&self) -> bool {
        self.expected > 0 || self.sending > 0 || self.has_output() || !self.incomplete.is_empty()
    }

    fn has_output(&self) -> bool {
        !self.outbox.is_empty() || self.owes_credit()
    }

    /// Whether the peer must be told of returned credit: when it misses more
    /// than half of its window. One that leaves waits to hear of every message.
    fn owes_credit(&self) -> bool {
        match self.link {
            _ if self.outbox.has_said_goodbye() => false,
            LinkState::Open => self.ledger.is_due(),
            LinkState::Left => self.ledger.is_behind(),
            LinkState::Absent | LinkState::Closed | LinkState::Lost(_) => false,
        }
    }
}

/// Matching, flow control and requests of one endpoint.
pub(crate) struct Engine {
    me: u32,
    peers: Vec<Peer>,
    contexts: HashMap<u64, Context>,
    sends: Slab<Outgoing>,
    recvs: Slab<Posted>,
    messages: Slab<Message>,
    /// Receives from any source, in posting order.
    posted_any: Vec<RecvKey>,
    /// Messages of collectives that nobody has asked for yet.
    early_steps: HashMap<(u32, MessageId), MessageKey>,
    /// Point-to-point messages that nobody has asked for yet, by context and
    /// source, in the order of arrival.
    unexpected: HashMap<(u64, u32), VecDeque<MessageKey>>,
    /// Messages of both kinds that found no room, in the order of arrival.
    waiting: Vec<MessageKey>,
    unexpected_bytes: u64,
    unexpected_limit: u64,
    /// Counts arrivals and posts: both queues are ordered by it.
    clock: u64,
}

// SAFETY: the raw pointers are to buffers that whoever posted the request keeps
// alive and does not touch meanwhile; the engine uses them only inside its
// methods, from whichever thread has exclusive access to it.
unsafe impl Send for Engine {}

impl Engine {
    /// The engine of rank `me` of `size`; it keeps up to `unexpected_limit`
    /// bytes of messages that nobody has asked for yet.
    pub(crate) fn new(me: u32, size: u32, unexpected_limit: u64) -> Self {
        assert!(me < size);
        let peers = (0..size)
            .map(|rank| Peer {
                link: if rank == me { LinkState::Open } else { LinkState::Absent },
                allowance: Allowance::default(),
                ledger: Ledger::default(),
                outbox: Outbox::default(),
                inbox: Inbox::default(),
                incomplete: Vec::new(),
                posted: Vec::new(),
                expected: 0,
                sending: 0,
                announced: [0; 2],
            })
            .collect();
        Self {
            me,
            peers,
            contexts: HashMap::new(),
            sends: Slab::new(),
            recvs: Slab::new(),
            messages: Slab::new(),
            posted_any: Vec::new(),
            early_steps: HashMap::new(),
            unexpected: HashMap::new(),
            waiting: Vec::new(),
            unexpected_bytes: 0,
            unexpected_limit,
            clock: 0,
        }
    }

    pub(crate) fn size(&self) -> u32 {
        self.peers.len() as u32
    }

    /// Whether requests wait for a link to `peer` that is not there yet.
    pub(crate) fn wants_link(&self, peer: u32) -> bool {
        let entry = &self.peers[peer as usize];
        matches!(entry.link, LinkState::Absent) && entry.is_busy()
    }

    /// Whether anything is awaited from `peer`, or on its way to it.
    pub(crate) fn is_busy_with(&self, peer: u32) -> bool {
        self.peers[peer as usize].is_busy()
    }

    /// Whether a request with `peer` is not over. (One that is over and has not
    /// been polled since still keeps the engine busy.)
    pub(crate) fn is_incomplete_with(&self, peer: u32) -> bool {
        let unsent = self.sends.iter().any(|(_, send)| send.peer == peer && send.result().is_none());
        unsent || self.awaits_message_of(peer)
    }

    /// Whether a receive from any source is posted: every link matters.
    pub(crate) fn awaits_anyone(&self) -> bool {
        !self.posted_any.is_empty()
    }

    pub(crate) fn has_output(&self, peer: u32) -> bool {
        self.peers[peer as usize].has_output()
    }

    /// Whether the peer has still to be told of a context that has failed.
    pub(crate) fn has_notice_for(&self, peer: u32) -> bool {
        self.peers[peer as usize].outbox.has_notice()
    }

    /// Whether the peer has said that it leaves, or its link is gone.
    pub(crate) fn is_gone(&self, peer: u32) -> bool {
        matches!(self.peers[peer as usize].link, LinkState::Left | LinkState::Closed | LinkState::Lost(_))
    }

    /// How many messages to `peer` it may not have read yet. None, once it is
    /// gone: whoever leaves has chosen not to receive what it has not received.
    pub(crate) fn unread_at(&self, peer: u32) -> u32 {
        let entry = &self.peers[peer as usize];
        match self.is_gone(peer) {
            true => 0,
            false => entry.allowance.outstanding().messages + entry.outbox.unread_announcements(),
        }
    }

    /// The failure that ended the link to `peer`, where it did not leave in order.
    pub(crate) fn loss_of(&self, peer: u32) -> Option<&Error> {
        match &self.peers[peer as usize].link {
            LinkState::Lost(why) => Some(why),
            _ => None,
        }
    }

    /// Whether the collectives of a context have failed.
    pub(crate) fn has_failed_context(&self) -> bool {
        self.contexts.values().any(|context| context.failure().is_some())
    }

    /// The link to `peer` stands; frames may flow.
    pub(crate) fn link_opened(&mut self, peer: u32) {
        let entry = &mut self.peers[peer as usize];
        if !matches!(entry.link, LinkState::Absent) {
            return;
        }
        entry.link = LinkState::Open;
        let concerned = self.contexts.values().filter(|context| context.members.contains(&peer));
        let notices: Vec<Header> = concerned.filter_map(|context| Some(context.told?.header())).collect();
        for notice in notices {
            self.push_control(peer, notice);
        }
    }

    /// The link to `peer` ended: in order when the peer had said GOODBYE, else
    /// because of `why`. Also for a peer without a link that is known to be lost.
    pub(crate) fn link_closed(&mut self, peer: u32, why: Error) {
        let entry = &mut self.peers[peer as usize];
        let why = why.with_peer(peer);
        match entry.link {
            LinkState::Lost(_) | LinkState::Closed => return,
            LinkState::Left => {
                entry.link = LinkState::Closed;
                return self.drop_traffic_of(peer, &left_error(peer));
            }
            LinkState::Absent | LinkState::Open if why.kind() == ErrorKind::PeerLeft => {
                entry.link = LinkState::Closed;
            }
            LinkState::Absent | LinkState::Open => {
                entry.link = LinkState::Lost(why.clone());
                let concerned = |(id, entry): (&u64, &Context)| entry.members.contains(&peer).then_some(*id);
                let contexts: Vec<u64> = self.contexts.iter().filter_map(concerned).collect();
                for context in contexts {
                    self.fail_context(context, why.clone());
                }
            }
        }
        self.drop_traffic_of(peer, &why);
    }

    /// No link to `peer` could be made: what waits for it fails; a later request
    /// tries again.
    pub(crate) fn connect_failed(&mut self, peer: u32, why: Error) {
        if matches!(self.peers[peer as usize].link, LinkState::Absent) {
            self.drop_traffic_of(peer, &why.with_peer(peer));
        }
    }

    /// Queues GOODBYE for `peer`, behind what is queued already. It is the last
    /// frame to the peer; what comes from it yet is thrown away.
    pub(crate) fn say_goodbye(&mut self, peer: u32) {
        let entry = &mut self.peers[peer as usize];
        if matches!(entry.link, LinkState::Open | LinkState::Left) && peer != self.me {
            entry.outbox.say_goodbye();
        }
    }

    /// What a request with `peer` fails with, where the peer is gone.
    fn gone_error(&self, peer: u32) -> Option<Error> {
        match &self.peers[peer as usize].link {
            LinkState::Absent | LinkState::Open => None,
            LinkState::Left | LinkState::Closed => Some(left_error(peer)),
            LinkState::Lost(why) => Some(why.clone()),
        }
    }

    /// A peer without a link is known to have left. Over an open link its own
    /// GOODBYE says so, behind the messages that it has sent before.
    pub(crate) fn peer_left(&mut self, peer: u32) {
        if matches!(self.peers[peer as usize].link, LinkState::Absent) {
            self.peers[peer as usize].link = LinkState::Closed;
            self.drop_traffic_of(peer, &left_error(peer));
        }
    }

    /// GOODBYE came: the peer neither sends nor receives any more, but waits to
    /// hear that its messages have been read.
    fn receive_goodbye(&mut self, peer: u32) {
        if matches!(self.peers[peer as usize].link, LinkState::Open) {
            self.peers[peer as usize].link = LinkState::Left;
            self.drop_traffic_of(peer, &left_error(peer));
        }
    }

    /// Fails what waits for a peer. Whole messages from it stay.
    fn drop_traffic_of(&mut self, peer: u32, error: &Error) {
        let entry = &mut self.peers[peer as usize];
        let stays_open = matches!(entry.link, LinkState::Left);
        entry.outbox.clear(stays_open);
        for (_, send) in &mut self.sends {
            if send.peer == peer {
                send.fail(error.clone());
            }
        }
        for key in std::mem::take(&mut self.peers[peer as usize].incomplete) {
            self.drop_message(key, error);
        }
        self.peers[peer as usize].inbox = Inbox::default();
        for key in std::mem::take(&mut self.peers[peer as usize].posted) {
            self.fail_recv(key, error.clone());
        }
        if let Some(error) = self.nobody_left() {
            for key in std::mem::take(&mut self.posted_any) {
                self.fail_recv(key, error.clone());
            }
        }
    }

    /// What a receive from anyone fails with, where all others are gone: as the one
    /// that was lost, if one was. (A rank alone may still send to itself.)
    fn nobody_left(&self) -> Option<Error> {
        let others = (0..self.size()).filter(|rank| *rank != self.me);
        let errors = others.map(|rank| self.gone_error(rank)).collect::<Option<Vec<_>>>()?;
        errors.into_iter().max_by_key(|error| error.kind() == ErrorKind::PeerLost)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Contexts: the collectives' half.
impl Engine {
    /// Makes a context known, with the endpoint ranks of its members.
    pub(crate) fn open_context(&mut self, context: u64, members: Vec<u32>) {
        let mut failure = None;
        let mut entry = Context::new(members);
        for rank in &entry.members {
            if let LinkState::Lost(why) = &self.peers[*rank as usize].link {
                failure.get_or_insert_with(|| why.clone());
            }
        }
        entry.early = self.early_of(context);
        self.contexts.insert(context, entry);
        if let Some(why) = failure {
            self.fail_context(context, why);
        }
    }

    /// Starts the context's next collective and returns its sequence number.
    ///
    /// # Errors
    /// The failure that poisoned the context: as it is to the first call that
    /// meets it, as [`ErrorKind::Poisoned`] with that cause to the others.
    pub(crate) fn begin_collective(&mut self, context: u64) -> Result<u64> {
        self.context_mut(context).begin()
    }

    /// Says what the collective is that has begun: frames that contradict it, come
    /// already or to come, fail the context.
    pub(crate) fn declare_call(&mut self, context: u64, mark: CallMark) {
        let entry = self.context_mut(context);
        entry.call = Some(mark);
        if entry.early > 0 {
            self.check_early_steps(context);
        }
    }

    /// Ends the collective that `begin_collective` started. When it failed
    /// after a frame of it had left or come, the context is poisoned and its
    /// members are told; when nothing had moved, it is as if it had not been
    /// called. Returns what [`poison`](Self::poison) returns.
    pub(crate) fn end_collective(
        &mut self,
        context: u64,
        failure: Option<(Error, AbortNotice)>,
    ) -> Option<AbortNotice> {
        let entry = self.context_mut(context);
        match failure {
            None => {
                entry.finish();
                if entry.early > 0 {
                    self.check_early_steps(context);
                }
                None
            }
            Some((error, notice)) if entry.moved || entry.failure().is_some() => {
                entry.finish();
                self.poison(context, error, &notice)
            }
            Some(_) => None,
        }
    }

    /// Fails the context's collectives with `error`, and tells the members what
    /// `notice` says, now or when their link opens. A failure that was heard from
    /// another rank is handed on as it was heard. Returns what is told, the first
    /// time: those without a link must hear it too.
    pub(crate) fn poison(&mut self, context: u64, error: Error, notice: &AbortNotice) -> Option<AbortNotice> {
        self.fail_context(context, error);
        let entry = self.context_mut(context);
        let notice = entry.heard.unwrap_or(*notice);
        entry.mark_reported();
        if entry.told.replace(notice).is_some() {
            return None;
        }
        let members = std::mem::take(&mut entry.members);
        for &rank in &members {
            self.push_control(rank, notice.header());
        }
        self.context_mut(context).members = members;
        Some(notice)
    }

    /// Why the context's collectives fail, if they do.
    pub(crate) fn context_failure(&self, context: u64) -> Option<&Error> {
        self.contexts.get(&context).and_then(Context::failure)
    }

    /// Notes that a frame of the running collective has left or been matched:
    /// from here on its failure concerns the others.
    fn note_move(&mut self, id: MessageId) {
        if id.collective
            && let Some(context) = self.contexts.get_mut(&id.context)
        {
            context.moved = true;
        }
    }

    fn context_mut(&mut self, context: u64) -> &mut Context {
        self.contexts.get_mut(&context).expect("contexts are opened before they are used")
    }

    /// A failure that no call has returned yet, where it is a mismatch.
    pub(crate) fn unreported_mismatch(&mut self, context: u64) -> Option<Error> {
        self.context_mut(context).take_mismatch()
    }

    fn receive_abort(&mut self, source: u32, header: &Header) {
        self.hear_from(source, &AbortNotice::parse(header));
    }

    /// A context's collectives failed on `source`, which says so over its link or
    /// through the rendezvous server.
    pub(crate) fn hear_from(&mut self, source: u32, notice: &AbortNotice) {
        if self.contexts.get(&notice.context).is_some_and(|context| context.members.contains(&source)) {
            self.context_mut(notice.context).heard.get_or_insert(*notice);
            self.fail_context(notice.context, notice.error());
        }
    }
}

/// Requests.
impl Engine {
    /// The state of a send; a finished one is forgotten. A step of a collective
    /// that fails does so for the reason why the context failed, where it has.
    pub(crate) fn poll_send(&mut self, key: SendKey) -> Poll<Result<()>> {
        let send = &self.sends[key.0];
        let context = send.envelope.id.collective.then_some(send.envelope.id.context);
        match (send.result(), self.failure_of(context)) {
            (None, None) => Poll::Pending,
            (None, Some(failure)) => {
                self.cancel_send(key);
                Poll::Ready(Err(failure))
            }
            (Some(result), failure) => {
                self.remove_send(key);
                Poll::Ready(result.map_err(|own| failure.unwrap_or(own)))
            }
        }
    }

    /// The state of a receive; a finished one is forgotten. Failures as in
    /// [`poll_send`](Self::poll_send).
    pub(crate) fn poll_recv(&mut self, key: RecvKey) -> Poll<Result<Received>> {
        let context = self.recvs[key.0].selector.collective_context();
        match (self.take_result(key), self.failure_of(context)) {
            (None, None) => Poll::Pending,
            (None, Some(failure)) => {
                self.cancel_recv(key);
                Poll::Ready(Err(failure))
            }
            (Some(result), failure) => Poll::Ready(result.map_err(|own| failure.unwrap_or(own))),
        }
    }

    fn failure_of(&self, context: Option<u64>) -> Option<Error> {
        context.and_then(|context| self.context_failure(context)).cloned()
    }
}

/// What an engine holds.
#[cfg(test)]
pub(crate) struct Census {
    pub(crate) sends: usize,
    pub(crate) recvs: usize,
    pub(crate) messages: usize,
    pub(crate) kept_bytes: u64,
}

#[cfg(test)]
impl Engine {
    /// Bytes and messages that lie at `peer` on credit, as far as is known here.
    pub(crate) fn spent_at(&self, peer: u32) -> (u32, u32) {
        let amount = self.peers[peer as usize].allowance.outstanding();
        (amount.bytes, amount.messages)
    }

    /// Bytes and messages of `peer` that lie here on credit.
    pub(crate) fn owed_to(&self, peer: u32) -> (u32, u32) {
        let amount = self.peers[peer as usize].ledger.owed();
        (amount.bytes, amount.messages)
    }

    /// Panics where the engine's state contradicts itself.
    pub(crate) fn check_invariants(&self) -> Census {
        self.check_outgoing();
        Census {
            sends: self.sends.len(),
            recvs: self.recvs.len(),
            messages: self.messages.len(),
            kept_bytes: self.check_incoming(),
        }
    }
}

/// A peer has left in order.
pub(crate) fn left_error(peer: u32) -> Error {
    Error::new(ErrorKind::PeerLeft, format!("rank {peer} has left the job")).with_peer(peer)
}
