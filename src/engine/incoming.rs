//! The receiving half: parsing what comes, matching it with receives, keeping
//! what nobody has asked for yet.

use std::collections::hash_map::Entry;
use std::mem;
use std::ptr::NonNull;

use super::credit::{ANNOUNCED_MAX, Amount, CONTROL_MAX};
use super::frame::{FRAGMENT_MAX, HEADER_LEN, Header, Kind, MessageId};
use super::outgoing::Envelope;
use super::{CallMark, Engine, LinkState, RecvKey, SendKey};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;

/// What a message that nobody has asked for yet is reckoned to cost beyond its
/// bytes, so that a flood of empty ones is bounded too: itself, and its places in a
/// slab, a queue and the list of incomplete ones, each grown ahead.
pub(super) const MESSAGE_OVERHEAD: u64 = 256;
const _: () = assert!(size_of::<Message>() <= 160);

/// From how many bytes on the buffer of a receive is worth reading into before
/// the header has been seen. (Measured at 64 KiB, one way: 16.5 us where header
/// and payload are read in turn or the first 16 KiB are copied once more, 14 us
/// where one system call puts all in place.)
pub(super) const BULK: usize = 8 << 10;

/// An incoming message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageKey(usize);

/// What a receive got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) source: u32,
    pub(crate) tag: i32,
    pub(crate) length: usize,
}

/// Which messages a receive takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selector {
    /// The message of one step of one collective call.
    Collective(Envelope),
    /// Messages of a context; a tag of `None` takes any.
    PointToPoint { context: u64, tag: Option<i32> },
}

impl Selector {
    pub(super) fn collective_context(&self) -> Option<u64> {
        match self {
            Self::Collective(envelope) => Some(envelope.id.context),
            Self::PointToPoint { .. } => None,
        }
    }

    fn takes(&self, id: MessageId) -> bool {
        match self {
            Self::Collective(envelope) => envelope.id == id,
            Self::PointToPoint { context, tag } => {
                !id.collective && id.context == *context && tag.is_none_or(|tag| tag == id.tag)
            }
        }
    }
}

/// A receive request.
pub(super) struct Posted {
    source: Option<u32>,
    pub(super) selector: Selector,
    buffer: *mut u8,
    capacity: usize,
    order: u64,
    state: RecvState,
}

enum RecvState {
    Posted,
    Matched(MessageKey),
    Failed(Error),
}

/// A message that has begun to arrive.
pub(super) struct Message {
    source: u32,
    envelope: Envelope,
    length: usize,
    received: usize,
    storage: Storage,
    recv: Option<RecvKey>,
    /// Whether its sender waits, or waited, for clear-to-send.
    needs_grant: bool,
    granted: bool,
    /// Whether it came without credit, and counts as announced until it is granted.
    is_announced: bool,
    /// Whether a DATA frame of it has begun.
    data_began: bool,
    /// What of `unexpected_bytes` it accounts for.
    charge: u64,
    /// Credit to return once it is matched or taken over.
    owed: Amount,
    arrival: u64,
}

enum Storage {
    /// The buffer of the matched receive.
    User(*mut u8),
    Owned(Vec<u8>),
    /// Still at its sender: this rank itself.
    AtSelf(SendKey),
    Discard,
}

/// Where in the stream of frames from one peer we are.
pub(super) struct Inbox {
    header: [u8; HEADER_LEN],
    have: usize,
    payload: usize,
    message: Option<MessageKey>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { header: [0; HEADER_LEN], have: 0, payload: 0, message: None }
    }
}

/// Where the next bytes from a peer go, in turn: the rest of a header, and the
/// place where a message's payload is, or is expected. What comes beyond is for
/// [`Engine::feed`].
#[derive(Clone, Copy)]
pub(crate) struct Landing {
    pub(crate) parts: [(*mut u8, usize); 2],
    guess: Option<RecvKey>,
}

impl Landing {
    pub(crate) fn length(&self) -> usize {
        self.parts[0].1 + self.parts[1].1
    }
}

/// The stream.
impl Engine {
    /// Whether a frame from `peer` has come of which payload is missing.
    pub(crate) fn is_amid_payload(&self, peer: u32) -> bool {
        self.peers[peer as usize].inbox.payload > 0
    }

    /// Where the next bytes from `peer` may be put. [`landed`](Self::landed)
    /// says how many were, before anything else happens in the engine.
    pub(crate) fn landing(&mut self, peer: u32) -> Landing {
        let nothing = (std::ptr::NonNull::<u8>::dangling().as_ptr(), 0);
        let entry = &mut self.peers[peer as usize];
        if entry.inbox.payload > 0 {
            return Landing { parts: [nothing, self.window(peer).unwrap_or(nothing)], guess: None };
        }
        // The next message is probably the one that is waited for: its payload
        // may go to the receive's buffer, whose content means nothing yet.
        let guess = entry.posted.first().copied().filter(|key| self.recvs[key.0].capacity >= BULK);
        let Some(key) = guess else { return Landing { parts: [nothing; 2], guess: None } };
        let Posted { buffer, capacity, .. } = self.recvs[key.0];
        let rest = &mut entry.inbox.header[entry.inbox.have..];
        Landing { parts: [(rest.as_mut_ptr(), rest.len()), (buffer, capacity.min(FRAGMENT_MAX))], guess }
    }

    /// The first `count` bytes of what [`landing`](Self::landing) returned have
    /// been written.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub(crate) fn landed(&mut self, peer: u32, landing: &Landing, count: usize) -> Result<()> {
        let Some(guess) = landing.guess else {
            if count > 0 {
                self.filled(peer, count);
            }
            return Ok(());
        };
        let [(_, missing), (buffer, _)] = landing.parts;
        let inbox = &mut self.peers[peer as usize].inbox;
        inbox.have += count.min(missing);
        if inbox.have < HEADER_LEN {
            return Ok(());
        }
        inbox.have = 0;
        let (header, kind) = Header::parse(&inbox.header)?;
        // SAFETY: the receive was posted when the landing was made and still is,
        // so its buffer is alive, and these bytes of it have been written.
        let body = unsafe { std::slice::from_raw_parts(buffer, count - missing) };
        self.receive_header(peer, &header, kind)?;
        let in_place = self.peers[peer as usize].inbox.message.is_some_and(|key| {
            self.messages[key.0].recv == Some(guess) && self.messages[key.0].received == 0
        });
        let placed = if in_place { body.len().min(self.peers[peer as usize].inbox.payload) } else { 0 };
        // What the guess put in the wrong place is taken out of it first.
        let strays = body[placed..].to_vec();
        if placed > 0 {
            self.filled(peer, placed);
        }
        self.feed(peer, &strays)
    }

    /// Where the next bytes from `peer` may be put directly, and how many.
    /// [`filled`](Self::filled) says how many were.
    fn window(&mut self, peer: u32) -> Option<(*mut u8, usize)> {
        let inbox = &self.peers[peer as usize].inbox;
        let message = &mut self.messages[inbox.message?.0];
        let at = match &mut message.storage {
            // SAFETY: `received` is at most the message's length, which is at
            // most the capacity of the receive's buffer.
            Storage::User(buffer) => unsafe { buffer.add(message.received) },
            // Capacity for what the frame holds was reserved when it began.
            Storage::Owned(bytes) => bytes.spare_capacity_mut().as_mut_ptr().cast(),
            Storage::AtSelf(_) | Storage::Discard => return None,
        };
        Some((at, inbox.payload))
    }

    /// The first `count` bytes of the window have been written.
    fn filled(&mut self, peer: u32, count: usize) {
        let inbox = &mut self.peers[peer as usize].inbox;
        assert!(count <= inbox.payload);
        inbox.payload -= count;
        let Some(key) = inbox.message else { return };
        if inbox.payload == 0 {
            inbox.message = None;
        }
        let message = &mut self.messages[key.0];
        if let Storage::Owned(bytes) = &mut message.storage {
            // SAFETY: the window lay in the spare capacity, and its first
            // `count` bytes are initialised now.
            unsafe { bytes.set_len(bytes.len() + count) };
        }
        message.received += count;
        if message.received == message.length {
            self.message_complete(key);
        }
    }

    /// Takes the next bytes of the stream from `peer`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when they are not what a peer may send; the link
    /// is of no use any more.
    pub(crate) fn feed(&mut self, peer: u32, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let inbox = &mut self.peers[peer as usize].inbox;
            if inbox.payload > 0 {
                let count = inbox.payload.min(bytes.len());
                if let Some((window, _)) = self.window(peer) {
                    // SAFETY: the window has room for `payload` bytes, and is
                    // not part of the staging buffer that `bytes` lies in.
                    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), window, count) };
                }
                self.filled(peer, count);
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEADER_LEN - inbox.have).min(bytes.len());
            inbox.header[inbox.have..][..count].copy_from_slice(&bytes[..count]);
            inbox.have += count;
            bytes = &bytes[count..];
            if inbox.have == HEADER_LEN {
                inbox.have = 0;
                let (header, kind) = Header::parse(&inbox.header)?;
                self.receive_header(peer, &header, kind)?;
            }
        }
        Ok(())
    }

    fn receive_header(&mut self, peer: u32, header: &Header, kind: Kind) -> Result<()> {
        if let LinkState::Lost(why) = &self.peers[peer as usize].link {
            // The engine itself may have given the peer up, half way in a frame.
            return Err(why.clone());
        }
        let (bytes, messages) = header.credit();
        self.peers[peer as usize].allowance.update(bytes, messages)?;
        let has_message = matches!(kind, Kind::Eager | Kind::Rts | Kind::Data);
        if has_message && matches!(self.peers[peer as usize].link, LinkState::Left) {
            return Err(protocol(format!("a {kind:?} frame after GOODBYE")));
        }
        match kind {
            Kind::Eager | Kind::Rts => self.receive_head(peer, header, kind)?,
            Kind::Data => self.receive_fragment(peer, header)?,
            Kind::Cts => self.receive_grant(peer, header.id()),
            Kind::Cancel => self.receive_cancel(peer, header.id()),
            Kind::Abort => self.receive_abort(peer, header),
            Kind::Goodbye => self.receive_goodbye(peer),
            Kind::Credit | Kind::Ack => {}
        }
        Ok(())
    }

    /// The head of a message: the whole of a small one.
    fn receive_head(&mut self, peer: u32, header: &Header, kind: Kind) -> Result<()> {
        let id = header.id();
        if id.collective && self.early_steps.contains_key(&(peer, id)) {
            return Err(protocol(format!("step {} of a collective came twice", id.tag)));
        }
        let inline = header.inline() as usize;
        let on_credit = kind == Kind::Eager || inline > 0;
        let owed = if on_credit { Amount { bytes: header.inline(), messages: 1 } } else { Amount::default() };
        let entry = &mut self.peers[peer as usize];
        entry.ledger.receive(owed)?;
        if kind == Kind::Rts && entry.outbox.controls() >= CONTROL_MAX {
            return Err(protocol("the peer asks on, and does not read the answers".into()));
        }
        if !on_credit {
            if entry.announced[id.half()] == ANNOUNCED_MAX {
                return Err(protocol(format!("more than {ANNOUNCED_MAX} messages announced without credit")));
            }
            entry.announced[id.half()] += 1;
        }
        let envelope = Envelope {
            id,
            operation: header.operation(),
            algorithm: header.algorithm(),
            signature: header.signature(),
        };
        let arrival = self.tick();
        let key = MessageKey(self.messages.insert(Message {
            source: peer,
            envelope,
            length: header.length() as usize,
            received: 0,
            storage: Storage::Owned(Vec::new()),
            recv: None,
            needs_grant: kind == Kind::Rts,
            granted: false,
            is_announced: !on_credit,
            data_began: false,
            charge: 0,
            owed,
            arrival,
        }));
        self.peers[peer as usize].incomplete.push(key);
        if inline > 0 {
            self.peers[peer as usize].inbox.payload = inline;
            self.peers[peer as usize].inbox.message = Some(key);
        }
        self.place(key, inline)?;
        if header.length() == 0 {
            self.message_complete(key);
        }
        Ok(())
    }

    fn receive_fragment(&mut self, peer: u32, header: &Header) -> Result<()> {
        let id = header.id();
        let key = self.incomplete_message(peer, id);
        let message = key.map(|key| &mut self.messages[key.0]).filter(|message| message.granted);
        let Some(message) = message else {
            return Err(protocol("a DATA frame of no message that was granted".into()));
        };
        let length = header.length() as usize;
        if length > message.length - message.received {
            return Err(protocol("more data than the message has".into()));
        }
        message.data_began = true;
        let inbox = &mut self.peers[peer as usize].inbox;
        inbox.payload = length;
        inbox.message = key;
        Ok(())
    }

    /// The sender withdraws a message that has not come whole.
    fn receive_cancel(&mut self, peer: u32, id: MessageId) {
        let Some(key) = self.incomplete_message(peer, id) else { return };
        let entry = &mut self.peers[peer as usize];
        entry.incomplete.retain(|other| *other != key);
        entry.outbox.retract_grant(id);
        let (recv, data_began) = (self.messages[key.0].recv, self.messages[key.0].data_began);
        match recv {
            None => self.remove_unmatched(key),
            Some(recv) if data_began => {
                self.messages.remove(key.0);
                let error = Error::new(ErrorKind::Cancelled, "the sender withdrew the message half way");
                self.fail_recv(recv, error.with_peer(peer));
            }
            Some(recv) => {
                self.messages.remove(key.0);
                self.repost(recv);
            }
        }
    }

    fn incomplete_message(&self, peer: u32, id: MessageId) -> Option<MessageKey> {
        let incomplete = &self.peers[peer as usize].incomplete;
        incomplete.iter().copied().find(|key| self.messages[key.0].envelope.id == id)
    }

    fn message_complete(&mut self, key: MessageKey) {
        let message = &self.messages[key.0];
        let incomplete = &mut self.peers[message.source as usize].incomplete;
        incomplete.retain(|other| *other != key);
        if matches!(message.storage, Storage::Discard) {
            self.messages.remove(key.0);
        }
    }
}

/// Matching.
impl Engine {
    /// Starts receiving a message into `capacity` bytes at `buffer`, from
    /// `source` or from anyone. They must stay valid and untouched until the
    /// request is polled to its end or cancelled. What is in the buffer beyond
    /// the message's length is unspecified then.
    pub(crate) fn post_recv(
        &mut self,
        source: Option<u32>,
        selector: Selector,
        buffer: *mut u8,
        capacity: usize,
    ) -> RecvKey {
        let order = self.tick();
        let buffer = if capacity == 0 { NonNull::dangling().as_ptr() } else { buffer };
        let posted = Posted { source, selector, buffer, capacity, order, state: RecvState::Posted };
        let key = RecvKey(self.recvs.insert(posted));
        if let Some(peer) = source {
            self.peers[peer as usize].expected += 1;
        }
        match self.find_early(source, &selector) {
            Some(message) => self.bind(key, message),
            None => self.enqueue(key),
        }
        key
    }

    /// Withdraws a receive; its buffer is not touched after this.
    ///
    /// What had come of its message goes back to the head of the queue, whole
    /// or not, limit or not: nothing that a sender takes for delivered is lost.
    pub(crate) fn cancel_recv(&mut self, key: RecvKey) {
        let state = mem::replace(&mut self.recvs[key.0].state, RecvState::Posted);
        match state {
            RecvState::Posted => self.unlist(key),
            RecvState::Matched(message) if self.recvs[key.0].selector.collective_context().is_some() => {
                self.messages[message.0].recv = None;
                self.discard(message);
            }
            RecvState::Matched(message) => self.put_back(message),
            RecvState::Failed(_) => {}
        }
        self.remove_recv(key);
    }

    /// The outcome of a receive that is over.
    pub(super) fn take_result(&mut self, key: RecvKey) -> Option<Result<Received>> {
        let recv = &mut self.recvs[key.0];
        let result = match &recv.state {
            RecvState::Posted => return None,
            RecvState::Matched(message) => {
                let message = *message;
                let Message { source, envelope, length, received, .. } = self.messages[message.0];
                if received < length {
                    return None;
                }
                self.messages.remove(message.0);
                Ok(Received { source, tag: envelope.id.tag, length })
            }
            RecvState::Failed(error) => Err(error.clone()),
        };
        self.remove_recv(key);
        Some(result)
    }

    /// Whether a receive from `peer` waits for a message, or for the rest of it.
    pub(super) fn awaits_message_of(&self, peer: u32) -> bool {
        self.recvs.iter().filter(|(_, recv)| recv.source == Some(peer)).any(|(_, recv)| match &recv.state {
            RecvState::Posted => true,
            RecvState::Matched(key) => self.messages[key.0].received < self.messages[key.0].length,
            RecvState::Failed(_) => false,
        })
    }

    /// Ends a receive with an error; it is not listed as posted any more.
    pub(super) fn fail_recv(&mut self, key: RecvKey, error: Error) {
        self.recvs[key.0].state = RecvState::Failed(error);
    }

    fn remove_recv(&mut self, key: RecvKey) {
        if let Some(peer) = self.recvs.remove(key.0).source {
            self.peers[peer as usize].expected -= 1;
        }
    }

    /// Lists a receive among those that wait, in posting order.
    fn enqueue(&mut self, key: RecvKey) {
        let Posted { source, order, .. } = self.recvs[key.0];
        let gone = source.map_or_else(|| self.nobody_left(), |peer| self.gone_error(peer));
        if let Some(error) = gone {
            return self.fail_recv(key, error);
        }
        let list = match source {
            Some(peer) => &mut self.peers[peer as usize].posted,
            None => &mut self.posted_any,
        };
        let at = list.iter().rposition(|other| self.recvs[other.0].order < order).map_or(0, |last| last + 1);
        list.insert(at, key);
    }

    fn unlist(&mut self, key: RecvKey) {
        match self.recvs[key.0].source {
            Some(peer) => self.peers[peer as usize].posted.retain(|other| *other != key),
            None => self.posted_any.retain(|other| *other != key),
        }
    }

    /// A receive lost its message: it goes back to its place, or takes another
    /// message that came meanwhile.
    fn repost(&mut self, key: RecvKey) {
        let Posted { source, selector, .. } = self.recvs[key.0];
        self.recvs[key.0].state = RecvState::Posted;
        match self.find_early(source, &selector) {
            Some(message) => self.bind(key, message),
            None => self.enqueue(key),
        }
    }

    /// The receive that takes the message, in posting order, off its list.
    fn find_posted(&mut self, source: u32, id: MessageId) -> Option<RecvKey> {
        let find = |list: &[RecvKey]| list.iter().position(|key| self.recvs[key.0].selector.takes(id));
        let order = |list: &[RecvKey], at: usize| self.recvs[list[at].0].order;
        let own = &self.peers[source as usize].posted;
        match (find(own), find(&self.posted_any)) {
            (Some(at), Some(any)) if order(&self.posted_any, any) < order(own, at) => {
                Some(self.posted_any.remove(any))
            }
            (Some(at), _) => Some(self.peers[source as usize].posted.remove(at)),
            (None, Some(any)) => Some(self.posted_any.remove(any)),
            (None, None) => None,
        }
    }

    /// The message that came first of those that the receive takes, off its
    /// queue.
    fn find_early(&mut self, source: Option<u32>, selector: &Selector) -> Option<MessageKey> {
        // Every early message has a charge, or waits for one.
        if self.unexpected_bytes == 0 && self.waiting.is_empty() {
            return None;
        }
        let (context, tag) = match (selector, source) {
            (Selector::Collective(envelope), Some(peer)) => {
                let key = self.early_steps.remove(&(peer, envelope.id))?;
                self.count_early(envelope.id.context, -1);
                return Some(key);
            }
            (Selector::Collective(_), None) => return None,
            (Selector::PointToPoint { context, tag }, _) => (*context, *tag),
        };
        let position = |peer: u32| {
            let queue = self.unexpected.get(&(context, peer))?;
            let takes = |key: &MessageKey| tag.is_none_or(|tag| self.messages[key.0].envelope.id.tag == tag);
            let at = queue.iter().position(takes)?;
            Some((self.messages[queue[at].0].arrival, peer, at))
        };
        let (_, peer, at) = match source {
            Some(peer) => position(peer)?,
            None => (0..self.size()).filter_map(position).min()?,
        };
        self.unexpected.get_mut(&(context, peer)).expect("it was just there").remove(at)
    }

    /// Finds a place for a message of which `inline` bytes are about to come:
    /// the buffer of a receive, or one of ours.
    fn place(&mut self, key: MessageKey, inline: usize) -> Result<()> {
        let Message { source, envelope, .. } = self.messages[key.0];
        if envelope.id.collective && self.contexts.contains_key(&envelope.id.context) {
            let id = envelope.id;
            let context = self.context_mut(id.context);
            if context.is_finished(id.sequence) || context.contradicts(id.sequence, envelope.mark()) {
                let error = stray(source, &envelope, context.call);
                self.fail_context(id.context, error);
            }
            if self.context_failure(id.context).is_some() {
                self.discard(key);
                return Ok(());
            }
        }
        match self.find_posted(source, envelope.id) {
            Some(recv) => self.bind(recv, key),
            None if self.peers[source as usize].outbox.is_closing() => self.discard(key),
            None => self.keep(key, inline)?,
        }
        Ok(())
    }

    /// Matches a receive with a message.
    fn bind(&mut self, recv: RecvKey, key: MessageKey) {
        self.uncharge(key);
        let posted = &self.recvs[recv.0];
        let message = &mut self.messages[key.0];
        let id = message.envelope.id;
        if let Some(error) = refusal(posted, message) {
            self.fail_recv(recv, error);
            self.note_move(id);
            return self.discard(key);
        }
        let buffer = posted.buffer;
        match mem::replace(&mut message.storage, Storage::User(buffer)) {
            Storage::Owned(bytes) => {
                // SAFETY: the message fits the receive's buffer, which its owner
                // keeps valid; `bytes` is memory of our own.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, bytes.len()) };
            }
            Storage::AtSelf(send) => {
                let (data, length) = self.self_send_bytes(send);
                // SAFETY: both buffers are valid for the length; a send's and a
                // receive's may not overlap, but a copy that allows it costs
                // nothing.
                unsafe { std::ptr::copy(data, buffer, length) };
                self.messages[key.0].received = length;
                self.self_send_done(send);
            }
            Storage::User(_) | Storage::Discard => unreachable!("a matched message is not matched again"),
        }
        self.messages[key.0].recv = Some(recv);
        self.recvs[recv.0].state = RecvState::Matched(key);
        self.release(key);
        self.note_move(id);
    }

    /// Keeps a message until somebody asks for it: takes it over while the
    /// limit allows, else leaves it on its sender's credit.
    fn keep(&mut self, key: MessageKey, inline: usize) -> Result<()> {
        let Message { source, envelope: Envelope { id, .. }, .. } = self.messages[key.0];
        if !self.take_over(key) {
            if let Storage::Owned(bytes) = &mut self.messages[key.0].storage
                && bytes.try_reserve_exact(inline).is_err()
            {
                let text = format!("no memory for a message of {inline} bytes");
                return Err(Error::new(ErrorKind::NoMem, text));
            }
            self.waiting.push(key);
        }
        if id.collective {
            self.early_steps.insert((source, id), key);
            self.count_early(id.context, 1);
        } else {
            self.unexpected.entry((id.context, source)).or_default().push_back(key);
        }
        Ok(())
    }

    /// Takes a message over while the limit allows: `false` = it does not.
    fn take_over(&mut self, key: MessageKey) -> bool {
        let message = &mut self.messages[key.0];
        let charge = message.length as u64 + MESSAGE_OVERHEAD;
        if self.unexpected_bytes + charge > self.unexpected_limit {
            return false;
        }
        match &mut message.storage {
            Storage::Owned(bytes) => {
                if bytes.try_reserve_exact(message.length - bytes.len()).is_err() {
                    return false;
                }
            }
            Storage::AtSelf(send) => {
                let send = *send;
                let mut bytes = Vec::new();
                if bytes.try_reserve_exact(message.length).is_err() {
                    return false;
                }
                let (data, length) = self.self_send_bytes(send);
                // SAFETY: the send is still pending, so its buffer is valid.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(data, length) });
                let message = &mut self.messages[key.0];
                message.storage = Storage::Owned(bytes);
                message.received = length;
                self.self_send_done(send);
            }
            Storage::User(_) | Storage::Discard => return false,
        }
        self.messages[key.0].charge = charge;
        self.unexpected_bytes += charge;
        self.release(key);
        true
    }

    /// A message is no longer among those that nobody has asked for: its room
    /// goes to those that found none when they came.
    fn uncharge(&mut self, key: MessageKey) {
        let arrival = self.messages[key.0].arrival;
        let charge = mem::take(&mut self.messages[key.0].charge);
        if charge == 0 {
            let at = self.waiting.binary_search_by_key(&arrival, |other| self.messages[other.0].arrival);
            if let Ok(at) = at {
                self.waiting.remove(at);
            }
            return;
        }
        self.unexpected_bytes -= charge;
        let mut waiting = mem::take(&mut self.waiting);
        waiting.retain(|other| !self.take_over(*other));
        self.waiting = waiting;
    }

    /// A message is matched, taken over or thrown away: its credit returns, and
    /// its rest may come.
    fn release(&mut self, key: MessageKey) {
        self.settle_account(key);
        let message = &mut self.messages[key.0];
        let peer = message.source;
        if message.needs_grant && !mem::replace(&mut message.granted, true) {
            let Envelope { id, operation, .. } = message.envelope;
            self.push_control(peer, Header::control(Kind::Cts, operation, id));
        }
    }

    /// A message no longer counts against its sender.
    fn settle_account(&mut self, key: MessageKey) {
        let message = &mut self.messages[key.0];
        let entry = &mut self.peers[message.source as usize];
        entry.ledger.give_back(mem::take(&mut message.owed));
        if mem::take(&mut message.is_announced) {
            entry.announced[message.envelope.id.half()] -= 1;
        }
    }

    /// Throws a message away, what has come and what will. It is on no queue.
    fn discard(&mut self, key: MessageKey) {
        self.uncharge(key);
        self.release(key);
        let message = &mut self.messages[key.0];
        if let Storage::AtSelf(send) = mem::replace(&mut message.storage, Storage::Discard) {
            self.self_send_done(send);
        }
        let source = self.messages[key.0].source;
        if !self.peers[source as usize].incomplete.contains(&key) {
            self.messages.remove(key.0);
        }
    }

    /// A matched message whose receive is withdrawn goes back to the head of
    /// its queue.
    fn put_back(&mut self, key: MessageKey) {
        let message = &mut self.messages[key.0];
        let (source, context, arrival) = (message.source, message.envelope.id.context, message.arrival);
        message.recv = None;
        let Storage::User(buffer) = message.storage else {
            unreachable!("the bytes of a matched message are in the receive's buffer")
        };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(message.length).is_err() {
            let error =
                Error::new(ErrorKind::NoMem, "no memory to keep a message whose receive was withdrawn");
            self.discard(key);
            return self.link_closed(source, error);
        }
        // SAFETY: the first `received` bytes of the buffer were written by us,
        // and the buffer is valid until the receive is cancelled.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(buffer, message.received) });
        message.storage = Storage::Owned(bytes);
        message.charge = message.length as u64 + MESSAGE_OVERHEAD;
        self.unexpected_bytes += message.charge;
        let queue = self.unexpected.entry((context, source)).or_default();
        let at = queue.iter().take_while(|other| self.messages[other.0].arrival < arrival).count();
        queue.insert(at, key);
        self.offer_again(key);
    }

    /// A message that went back to its queue may suit a receive that was posted
    /// after the one it belonged to.
    fn offer_again(&mut self, key: MessageKey) {
        let Message { source, envelope, .. } = self.messages[key.0];
        if let Some(recv) = self.find_posted(source, envelope.id) {
            self.unqueue(key);
            self.bind(recv, key);
        }
    }

    fn unqueue(&mut self, key: MessageKey) {
        let Message { source, envelope, .. } = self.messages[key.0];
        if envelope.id.collective {
            // A refused message is on no queue, but one by its name may be.
            if self.early_steps.get(&(source, envelope.id)) == Some(&key) {
                self.early_steps.remove(&(source, envelope.id));
                self.count_early(envelope.id.context, -1);
            }
        } else if let Entry::Occupied(mut queue) = self.unexpected.entry((envelope.id.context, source)) {
            queue.get_mut().retain(|other| *other != key);
            if queue.get().is_empty() {
                queue.remove();
            }
        }
    }

    /// Forgets an unmatched message that will not come whole.
    fn remove_unmatched(&mut self, key: MessageKey) {
        self.unqueue(key);
        self.uncharge(key);
        self.settle_account(key);
        self.messages.remove(key.0);
    }

    /// The peer is gone: what had come of a message is of no use.
    pub(super) fn drop_message(&mut self, key: MessageKey, error: &Error) {
        match self.messages[key.0].recv {
            Some(recv) => {
                self.messages.remove(key.0);
                self.fail_recv(recv, error.clone());
            }
            None => self.remove_unmatched(key),
        }
    }
}

/// Messages to oneself.
impl Engine {
    /// Takes a message from this rank to itself: to the receive that waits for
    /// it, else kept; where there is no room, it stays with its sender.
    pub(super) fn arrive_from_self(&mut self, send: SendKey, envelope: Envelope, length: usize) {
        if self.failure_of(envelope.id.collective.then_some(envelope.id.context)).is_some() {
            return self.self_send_done(send);
        }
        let arrival = self.tick();
        let key = MessageKey(self.messages.insert(Message {
            source: self.me,
            envelope,
            length,
            received: 0,
            storage: Storage::AtSelf(send),
            recv: None,
            needs_grant: false,
            granted: false,
            is_announced: false,
            data_began: false,
            charge: 0,
            owed: Amount::default(),
            arrival,
        }));
        if let Some(recv) = self.find_posted(self.me, envelope.id) {
            return self.bind(recv, key);
        }
        // Nothing is to come, so there is nothing that it could want memory for.
        let kept = self.keep(key, 0);
        debug_assert!(kept.is_ok());
    }

    /// The send of a message to oneself that nobody has taken is withdrawn.
    pub(super) fn forget_self_send(&mut self, send: SendKey) {
        let found = self.messages.iter().find(|(_, m)| matches!(m.storage, Storage::AtSelf(s) if s == send));
        if let Some((key, _)) = found {
            self.unqueue(MessageKey(key));
            self.uncharge(MessageKey(key));
            self.messages.remove(key);
        }
    }
}

/// Messages of collectives that do not belong to the running call.
impl Engine {
    fn count_early(&mut self, context: u64, change: i32) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.early = context.early.wrapping_add_signed(change);
        }
    }

    /// How many frames of the context's collectives came before it was opened.
    pub(super) fn early_of(&self, context: u64) -> u32 {
        self.early_steps.keys().filter(|(_, id)| id.context == context).count() as u32
    }

    /// A message of a collective that is over, and that nobody took, or one that
    /// contradicts the running collective: the ranks did not call the same.
    pub(super) fn check_early_steps(&mut self, context: u64) {
        let Some(entry) = self.contexts.get(&context) else { return };
        let error = self.early_steps.iter().find_map(|((source, id), key)| {
            let envelope = &self.messages[key.0].envelope;
            let wrong = entry.is_finished(id.sequence) || entry.contradicts(id.sequence, envelope.mark());
            (id.context == context && wrong).then(|| stray(*source, envelope, entry.call))
        });
        if let Some(error) = error {
            self.fail_context(context, error);
        }
    }

    /// The context's collectives fail from now on; what had come for them is
    /// dropped.
    pub(super) fn fail_context(&mut self, context: u64, error: Error) {
        if self.context_mut(context).fail(error) {
            self.drop_early_steps(context);
        }
    }

    fn drop_early_steps(&mut self, context: u64) {
        let of_context = |(_, id): &(u32, MessageId), _: &mut MessageKey| id.context == context;
        let dropped: Vec<_> = self.early_steps.extract_if(of_context).map(|(_, key)| key).collect();
        for key in dropped {
            self.discard(key);
        }
        if let Some(entry) = self.contexts.get_mut(&context) {
            entry.early = 0;
        }
    }
}

/// Why a receive cannot take a message that is meant for it.
fn refusal(posted: &Posted, message: &Message) -> Option<Error> {
    let (has, wants) = (message.length, posted.capacity);
    let error = match &posted.selector {
        Selector::Collective(own) => {
            let other = &message.envelope;
            let same = own.operation == other.operation
                && own.algorithm == other.algorithm
                && own.signature == other.signature;
            if same && has == wants {
                return None;
            }
            let text = if own.mark() == other.mark() || own.operation == other.operation && has != wants {
                format!("rank {} sends {has} bytes where this rank expects {wants}", message.source)
            } else {
                disagreement(message.source, other.mark(), Some(own.mark()))
            };
            Error::new(ErrorKind::Mismatch, text)
        }
        Selector::PointToPoint { .. } if has > wants => {
            Error::new(ErrorKind::SizeMismatch, format!("a message of {has} bytes for a buffer of {wants}"))
        }
        Selector::PointToPoint { .. } => return None,
    };
    Some(error.with_peer(message.source))
}

/// The error of a frame that belongs to no collective that this rank calls.
fn stray(source: u32, envelope: &Envelope, own: Option<CallMark>) -> Error {
    Error::new(ErrorKind::Mismatch, disagreement(source, envelope.mark(), own)).with_peer(source)
}

/// In words, how a rank's call differs from this rank's.
fn disagreement(source: u32, other: CallMark, own: Option<CallMark>) -> String {
    let theirs = operation_name(other.operation);
    match own {
        None => format!("rank {source} calls {theirs} where this rank has called another collective"),
        Some(own) if own.operation == other.operation => format!(
            "rank {source} calls {theirs} with other arguments: root, length, datatype, operation or hint differ"
        ),
        Some(own) => {
            format!("rank {source} calls {theirs} where this rank calls {}", operation_name(own.operation))
        }
    }
}

fn operation_name(code: u8) -> &'static str {
    Operation::from_code(code).map_or("an unknown operation", Operation::name)
}

fn protocol(what: String) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

#[cfg(test)]
impl Engine {
    /// The messages that are under way from `peer`: their operation, the bytes
    /// that are missing, and whether these may come.
    pub(super) fn under_way(&self, peer: u32) -> Vec<(MessageId, u8, usize, bool)> {
        let messages = self.peers[peer as usize].incomplete.iter().map(|key| &self.messages[key.0]);
        messages.map(|m| (m.envelope.id, m.envelope.operation, m.length - m.received, m.granted)).collect()
    }

    /// Panics where requests, messages, queues and counters contradict each
    /// other; returns how many bytes are kept for messages.
    pub(super) fn check_incoming(&self) -> u64 {
        let mut kept = 0;
        let mut charges = 0;
        let mut owed = vec![Amount::default(); self.peers.len()];
        for (key, message) in &self.messages {
            self.check_message(MessageKey(key), message);
            charges += message.charge;
            let owed = &mut owed[message.source as usize];
            *owed = Amount {
                bytes: owed.bytes + message.owed.bytes,
                messages: owed.messages + message.owed.messages,
            };
            if let Storage::Owned(bytes) = &message.storage {
                kept += bytes.capacity() as u64;
            }
        }
        assert_eq!(self.unexpected_bytes, charges, "unexpected bytes");
        for (rank, peer) in self.peers.iter().enumerate() {
            assert_eq!(peer.ledger.owed(), owed[rank], "credit that is owed to rank {rank}");
            for (half, count) in peer.announced.iter().enumerate() {
                let announced = self.messages.iter().filter(|(_, message)| {
                    let is_of_half = message.envelope.id.half() == half;
                    message.source == rank as u32 && message.is_announced && is_of_half
                });
                assert_eq!(*count as usize, announced.count(), "messages announced by rank {rank}");
            }
            let expected = self.recvs.iter().filter(|(_, recv)| recv.source == Some(rank as u32)).count();
            assert_eq!(peer.expected as usize, expected, "receives from rank {rank}");
            self.check_posted(&peer.posted, Some(rank as u32));
            for key in &peer.incomplete {
                let message = &self.messages[key.0];
                assert!(message.source == rank as u32 && message.received < message.length, "incomplete");
            }
            if let Some(key) = peer.inbox.message {
                assert!(peer.inbox.payload > 0 && peer.incomplete.contains(&key), "a frame half read");
            }
        }
        self.check_posted(&self.posted_any, None);
        let listed = self.peers.iter().map(|peer| peer.posted.len()).sum::<usize>() + self.posted_any.len();
        let posted = self.recvs.iter().filter(|(_, recv)| matches!(recv.state, RecvState::Posted)).count();
        assert_eq!(listed, posted, "posted receives");
        for (id, context) in &self.contexts {
            assert_eq!(context.early, self.early_of(*id), "early frames of context {id}");
            assert!(context.failure().is_none() || context.early == 0, "early frames of a failed context");
        }
        for queue in self.unexpected.values() {
            let arrivals: Vec<_> = queue.iter().map(|key| self.messages[key.0].arrival).collect();
            assert!(arrivals.is_sorted(), "messages out of their order of arrival");
        }
        kept
    }

    fn check_message(&self, key: MessageKey, message: &Message) {
        assert!(message.received <= message.length);
        let id = message.envelope.id;
        let queued = if id.collective {
            usize::from(self.early_steps.get(&(message.source, id)) == Some(&key))
        } else {
            let queue = self.unexpected.get(&(id.context, message.source));
            queue.map_or(0, |queue| queue.iter().filter(|other| **other == key).count())
        };
        let matched =
            self.recvs.iter().any(|(_, recv)| matches!(recv.state, RecvState::Matched(k) if k == key));
        let is_incomplete = self.peers[message.source as usize].incomplete.contains(&key);
        assert_eq!(matched, message.recv.is_some());
        match &message.storage {
            Storage::User(_) => assert!(matched && queued == 0, "a message in a user's buffer"),
            Storage::Owned(bytes) => {
                assert!(!matched && queued == 1 && bytes.len() == message.received, "a message that is kept");
            }
            Storage::AtSelf(_) => assert!(!matched && queued == 1, "a message to oneself"),
            Storage::Discard => assert!(!matched && queued == 0 && is_incomplete, "a message thrown away"),
        }
        let at_self = matches!(message.storage, Storage::AtSelf(_));
        assert_eq!(is_incomplete, message.received < message.length && !at_self, "listed as incomplete");
        assert!(message.charge == 0 || matches!(message.storage, Storage::Owned(_)), "charged, but not kept");
    }

    fn check_posted(&self, list: &[RecvKey], source: Option<u32>) {
        let orders: Vec<_> = list.iter().map(|key| self.recvs[key.0].order).collect();
        assert!(orders.is_sorted(), "receives out of their order of posting");
        for key in list {
            let recv = &self.recvs[key.0];
            assert!(matches!(recv.state, RecvState::Posted) && recv.source == source, "a posted receive");
        }
    }
}
