//! The sending half: send requests, and the frames on their way to each peer.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::ptr::NonNull;

use zerocopy::IntoBytes;

use super::credit::{ANNOUNCED_MAX, Amount};
use super::frame::{FRAGMENT_MAX, HEADER_LEN, Header, Kind, MessageId};
use super::{CallMark, Engine, LinkState, SendKey, Withdrawal};
use crate::error::{Error, Result};

/// What a message says of itself in its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) id: MessageId,
    pub(crate) operation: u8,
    pub(crate) algorithm: u8,
    pub(crate) signature: u32,
}

impl Envelope {
    pub(super) fn mark(&self) -> CallMark {
        let Self { operation, algorithm, signature, .. } = *self;
        CallMark { operation, algorithm, signature }
    }
}

/// A send request.
pub(super) struct Outgoing {
    pub(super) peer: u32,
    pub(super) envelope: Envelope,
    pub(super) data: *const u8,
    pub(super) length: usize,
    /// Bytes that stand in frames, written or being written.
    framed: usize,
    /// Whether the peer has seen a byte of it.
    announced: bool,
    granted: bool,
    /// Whether it may be announced: has a place among [`ANNOUNCED_MAX`].
    has_place: bool,
    stage: Stage,
}

enum Stage {
    /// In the peer's queue: its first frame or next fragment shall go. Without a
    /// place, held back until there is one.
    Queued,
    /// In the frame that is being written.
    InFrame,
    /// Until clear-to-send.
    AwaitsGrant,
    /// To oneself, too large to be kept: until a receive takes it.
    AwaitsReceive,
    Done,
    Failed(Error),
}

impl Outgoing {
    pub(super) fn result(&self) -> Option<Result<()>> {
        match &self.stage {
            Stage::Done => Some(Ok(())),
            Stage::Failed(error) => Some(Err(error.clone())),
            _ => None,
        }
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.has_place = false;
        // The first cause stays.
        if !matches!(self.stage, Stage::Done | Stage::Failed(_)) {
            self.stage = Stage::Failed(error);
        }
    }
}

enum Payload {
    /// In the buffer of the send request.
    Borrowed(*const u8, usize),
    /// Copied out, because the request was cancelled half way.
    Owned(Vec<u8>),
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Borrowed(_, len) => *len,
            Self::Owned(bytes) => bytes.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: the send request that the frame belongs to is alive, and
            // with it its buffer: cancelling it makes the payload an owned one.
            Self::Borrowed(data, len) => unsafe { std::slice::from_raw_parts(*data, *len) },
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A frame that is being written.
struct Frame {
    header: Header,
    payload: Payload,
    written: usize,
    /// The request whose bytes these are; `None` for control frames, and when
    /// the request was cancelled.
    send: Option<SendKey>,
    /// What the frame spends when its first byte leaves.
    cost: Amount,
}

impl Frame {
    fn control(header: Header) -> Self {
        let payload = Payload::Owned(Vec::new());
        Self { header, payload, written: 0, send: None, cost: Amount::default() }
    }

    /// The request is over: what is left is written from a copy.
    fn detach(&mut self) {
        if let Payload::Borrowed(..) = self.payload {
            self.payload = Payload::Owned(self.payload.bytes().to_vec());
        }
        self.send = None;
    }
}

/// A message that waits for clear-to-send.
struct Asked {
    /// `None` = the request is over: an empty message, which counts as sent.
    send: Option<SendKey>,
    has_place: bool,
}

/// Where our GOODBYE stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Farewell {
    #[default]
    Unsaid,
    /// It goes when nothing else is queued.
    Due,
    /// It is a frame already: nothing follows it.
    Said,
}

/// What is on its way to one peer.
#[derive(Default)]
pub(super) struct Outbox {
    /// Control frames: they go in the next gap.
    controls: VecDeque<Header>,
    /// Messages and fragments that may go, in order. Those of which nothing has gone
    /// have a place, so that each can be announced when its turn comes.
    ready: VecDeque<SendKey>,
    /// Messages without a place, for each half, in order.
    held: [VecDeque<SendKey>; 2],
    /// Places that are taken, for each half.
    places: [u32; 2],
    asked: HashMap<MessageId, Asked>,
    frame: Option<Frame>,
    farewell: Farewell,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        let is_idle = self.controls.is_empty() && self.ready.is_empty() && self.farewell == Farewell::Unsaid;
        self.frame.is_none() && (is_idle || self.farewell == Farewell::Said)
    }

    pub(super) fn has_said_goodbye(&self) -> bool {
        self.farewell == Farewell::Said
    }

    /// Whether GOODBYE has been said, or will be.
    pub(super) fn is_closing(&self) -> bool {
        self.farewell != Farewell::Unsaid
    }

    pub(super) fn say_goodbye(&mut self) {
        if self.farewell == Farewell::Unsaid {
            self.farewell = Farewell::Due;
        }
    }

    pub(super) fn has_notice(&self) -> bool {
        let frame = self.frame.iter().map(|frame| &frame.header);
        self.controls.iter().chain(frame).any(|header| header.is(Kind::Abort))
    }

    /// How many control frames wait.
    pub(super) fn controls(&self) -> usize {
        self.controls.len()
    }

    /// Takes back a grant that has not left: its message was withdrawn.
    pub(super) fn retract_grant(&mut self, id: MessageId) {
        self.controls.retain(|header| !header.is(Kind::Cts) || header.id() != id);
    }

    /// How many messages, whose requests are over, the peer has not granted.
    pub(super) fn unread_announcements(&self) -> u32 {
        self.asked.values().filter(|asked| asked.send.is_none()).count() as u32
    }

    /// Forgets everything; where `stays_open`, all but our GOODBYE, and a frame
    /// half written is finished from a copy, so that the stream stays in step.
    pub(super) fn clear(&mut self, stays_open: bool) {
        let frame = self
            .frame
            .take()
            .filter(|frame| stays_open && (frame.written > 0 || frame.header.is(Kind::Goodbye)));
        let farewell = match self.farewell {
            Farewell::Due if !stays_open => Farewell::Said,
            farewell => farewell,
        };
        *self = Self { frame, farewell, ..Self::default() };
        if let Some(frame) = &mut self.frame {
            frame.detach();
        }
    }

    fn remove_message(&mut self, key: SendKey, half: usize, has_place: bool) {
        let queue = if has_place { &mut self.ready } else { &mut self.held[half] };
        queue.retain(|queued| *queued != key);
    }
}

impl Engine {
    /// Starts sending `length` bytes at `data` to `peer`. They must stay valid
    /// and unchanged until the request is polled to its end or cancelled.
    pub(crate) fn post_send(
        &mut self,
        peer: u32,
        envelope: Envelope,
        data: *const u8,
        length: usize,
    ) -> SendKey {
        let stage = match self.gone_error(peer) {
            Some(error) => Stage::Failed(error),
            None => Stage::Queued,
        };
        let queued = matches!(stage, Stage::Queued);
        self.peers[peer as usize].sending += 1;
        // Callers may give any pointer for nothing, a slice may not.
        let data = if length == 0 { NonNull::dangling().as_ptr() } else { data };
        let key = SendKey(self.sends.insert(Outgoing {
            peer,
            envelope,
            data,
            length,
            framed: 0,
            announced: false,
            granted: false,
            has_place: false,
            stage,
        }));
        match queued {
            true if peer == self.me => self.deliver_to_self(key),
            true => self.queue_send(key),
            false => {}
        }
        key
    }

    /// A new message goes behind those of its half: to have a turn, or a place first.
    fn queue_send(&mut self, key: SendKey) {
        let send = &mut self.sends[key.0];
        let outbox = &mut self.peers[send.peer as usize].outbox;
        let half = send.envelope.id.half();
        if outbox.places[half] == ANNOUNCED_MAX {
            outbox.held[half].push_back(key);
        } else {
            outbox.places[half] += 1;
            outbox.ready.push_back(key);
            send.has_place = true;
        }
    }

    /// A message needs no place any more: the next one has it.
    fn free_place(&mut self, peer: u32, half: usize) {
        let outbox = &mut self.peers[peer as usize].outbox;
        outbox.places[half] -= 1;
        if let Some(next) = outbox.held[half].pop_front() {
            self.queue_send(next);
        }
    }

    fn deliver_to_self(&mut self, key: SendKey) {
        let send = &mut self.sends[key.0];
        send.stage = Stage::AwaitsReceive;
        let (envelope, length) = (send.envelope, send.length);
        self.note_move(envelope.id);
        self.arrive_from_self(key, envelope, length);
    }

    /// A receive has taken the message that this request sends to oneself.
    pub(super) fn self_send_done(&mut self, key: SendKey) {
        self.sends[key.0].stage = Stage::Done;
    }

    pub(super) fn self_send_bytes(&self, key: SendKey) -> (*const u8, usize) {
        let send = &self.sends[key.0];
        (send.data, send.length)
    }

    /// Withdraws a send; its buffer is free when this returns.
    ///
    /// A frame that is half written is finished from a copy: the stream stays
    /// in step, and where it was the message's last, the message counts as sent.
    pub(crate) fn cancel_send(&mut self, key: SendKey) -> Withdrawal {
        let send = self.remove_send(key);
        let id = send.envelope.id;
        let outbox = &mut self.peers[send.peer as usize].outbox;
        let whole = send.framed == send.length;
        let is_sent = match send.stage {
            Stage::Done => return Withdrawal::Sent,
            Stage::Failed(_) => return Withdrawal::Withdrawn,
            Stage::AwaitsReceive => {
                self.forget_self_send(key);
                return Withdrawal::Withdrawn;
            }
            // An empty message that waits for its grant is all there already.
            Stage::AwaitsGrant => whole,
            Stage::Queued => {
                outbox.remove_message(key, id.half(), send.has_place || send.announced);
                false
            }
            Stage::InFrame => {
                let frame = outbox.frame.as_mut().expect("the request is in the frame");
                if frame.written == 0 {
                    outbox.frame = None;
                    false
                } else {
                    frame.detach();
                    whole
                }
            }
        };
        if is_sent {
            if let Some(asked) = outbox.asked.get_mut(&id) {
                asked.send = None;
            }
            return Withdrawal::Sent;
        }
        let asked = outbox.asked.remove(&id);
        if send.has_place || asked.is_some_and(|asked| asked.has_place) {
            self.free_place(send.peer, id.half());
        }
        if send.announced {
            self.send_cancel(send.peer, &send.envelope);
        }
        Withdrawal::Withdrawn
    }

    pub(super) fn remove_send(&mut self, key: SendKey) -> Outgoing {
        let send = self.sends.remove(key.0);
        self.peers[send.peer as usize].sending -= 1;
        send
    }

    fn send_cancel(&mut self, peer: u32, envelope: &Envelope) {
        self.push_control(peer, Header::control(Kind::Cancel, envelope.operation, envelope.id));
    }

    /// Queues a control frame for the next gap, where the peer can still hear it:
    /// one that leaves waits for nothing but to hear that its messages are read.
    pub(super) fn push_control(&mut self, peer: u32, header: Header) {
        let entry = &mut self.peers[peer as usize];
        let listens = match entry.link {
            LinkState::Open => true,
            LinkState::Left => header.is(Kind::Cts),
            LinkState::Absent | LinkState::Closed | LinkState::Lost(_) => false,
        };
        if listens && !entry.outbox.has_said_goodbye() && peer != self.me {
            entry.outbox.controls.push_back(header);
        }
    }

    /// Clear-to-send came for one of our messages.
    pub(super) fn receive_grant(&mut self, peer: u32, id: MessageId) {
        // A grant for a message that we have withdrawn meanwhile finds nothing.
        let Some(asked) = self.peers[peer as usize].outbox.asked.remove(&id) else { return };
        if asked.has_place {
            self.free_place(peer, id.half());
        }
        let Some(key) = asked.send else { return };
        let send = &mut self.sends[key.0];
        send.granted = true;
        if matches!(send.stage, Stage::AwaitsGrant) {
            self.continue_send(key);
        }
    }

    /// The bytes that shall go to `peer` next, header and payload; empty when
    /// there is nothing. Ask again after [`written`](Self::written).
    pub(crate) fn output(&mut self, peer: u32) -> Option<[IoSlice<'_>; 2]> {
        if self.peers[peer as usize].outbox.frame.is_none() {
            let frame = self.next_frame(peer)?;
            self.peers[peer as usize].outbox.frame = Some(frame);
        }
        let entry = &mut self.peers[peer as usize];
        let frame = entry.outbox.frame.as_mut().expect("just made");
        if frame.written == 0 {
            let (bytes, messages) = entry.ledger.counters();
            frame.header.set_credit(bytes, messages);
        }
        let head = &frame.header.as_bytes()[frame.written.min(HEADER_LEN)..];
        let body = &frame.payload.bytes()[frame.written.saturating_sub(HEADER_LEN)..];
        Some([IoSlice::new(head), IoSlice::new(body)])
    }

    fn next_frame(&mut self, peer: u32) -> Option<Frame> {
        let entry = &mut self.peers[peer as usize];
        if entry.outbox.has_said_goodbye() {
            return None;
        }
        if let Some(header) = entry.outbox.controls.pop_front() {
            return Some(Frame::control(header));
        }
        let Some(key) = entry.outbox.ready.pop_front() else {
            if entry.outbox.farewell == Farewell::Due {
                entry.outbox.farewell = Farewell::Said;
                return Some(Frame::control(Header::bare(Kind::Goodbye)));
            }
            // Any frame returns credit: one for it alone is made where none waits.
            return entry.owes_credit().then(|| Frame::control(Header::bare(Kind::Credit)));
        };
        let send = &mut self.sends[key.0];
        send.stage = Stage::InFrame;
        let Envelope { id, operation, algorithm, signature } = send.envelope;
        let rest = send.length - send.framed;
        let (kind, bytes, messages) = if send.granted {
            (Kind::Data, rest.min(FRAGMENT_MAX), 0)
        } else {
            match entry.allowance.grant(send.length).map(|bytes| bytes as usize) {
                Some(bytes) if bytes == send.length => (Kind::Eager, bytes, 1),
                Some(bytes) => (Kind::Rts, bytes, 1),
                None => (Kind::Rts, 0, 0),
            }
        };
        let (length, inline) = match kind {
            Kind::Data => (bytes as u64, 0),
            _ => (send.length as u64, bytes as u32),
        };
        let cost = Amount { bytes: if messages > 0 { bytes as u32 } else { 0 }, messages };
        // SAFETY: `framed` is at most `length`, so the pointer stays in the buffer
        // or one past its end.
        let payload = Payload::Borrowed(unsafe { send.data.add(send.framed) }, bytes);
        send.framed += bytes;
        let header = Header::control(kind, operation, id)
            .with_algorithm(algorithm, signature)
            .with_length(length, inline);
        Some(Frame { header, payload, written: 0, send: Some(key), cost })
    }

    /// The link took `count` more bytes of what [`output`](Self::output) showed.
    pub(crate) fn written(&mut self, peer: u32, count: usize) {
        let entry = &mut self.peers[peer as usize];
        let Some(frame) = entry.outbox.frame.as_mut().filter(|_| count > 0) else { return };
        let first = frame.written == 0;
        frame.written += count;
        let (header, send, cost) = (frame.header, frame.send, frame.cost);
        let is_written = frame.written == HEADER_LEN + frame.payload.len();
        if is_written {
            entry.outbox.frame = None;
        }
        if first {
            entry.allowance.spend(cost);
            entry.ledger.announce(header.credit());
            if let Some(key) = send {
                self.message_begun(key, &header, cost);
            }
        }
        if is_written && let Some(key) = send {
            self.frame_sent(key, header.is(Kind::Eager));
        }
    }

    /// The first byte of a message's frame has left.
    fn message_begun(&mut self, key: SendKey, header: &Header, cost: Amount) {
        let send = &mut self.sends[key.0];
        let (peer, id) = (send.peer, send.envelope.id);
        send.announced = true;
        let had_place = std::mem::take(&mut send.has_place);
        let is_on_credit = cost.messages > 0;
        if header.is(Kind::Rts) {
            let asked = Asked { send: Some(key), has_place: !is_on_credit };
            self.peers[peer as usize].outbox.asked.insert(id, asked);
        }
        if had_place && is_on_credit {
            self.free_place(peer, id.half());
        }
        self.note_move(id);
    }

    fn frame_sent(&mut self, key: SendKey, is_whole: bool) {
        let send = &mut self.sends[key.0];
        if is_whole {
            send.stage = Stage::Done;
        } else if send.granted {
            self.continue_send(key);
        } else {
            send.stage = Stage::AwaitsGrant;
        }
    }

    /// A granted message: its next fragment, if there is one.
    fn continue_send(&mut self, key: SendKey) {
        let send = &mut self.sends[key.0];
        if send.framed == send.length {
            send.stage = Stage::Done;
        } else {
            send.stage = Stage::Queued;
            self.peers[send.peer as usize].outbox.ready.push_back(key);
        }
    }
}

#[cfg(test)]
impl Engine {
    /// How many messages are announced to `peer`, or may be, for each half; and how
    /// many are held back.
    pub(super) fn announced_to(&self, peer: u32) -> ([u32; 2], usize) {
        let outbox = &self.peers[peer as usize].outbox;
        (outbox.places, outbox.held.iter().map(VecDeque::len).sum())
    }

    /// Panics where the stages of sends and what is queued contradict each other.
    pub(super) fn check_outgoing(&self) {
        for (key, send) in &self.sends {
            let outbox = &self.peers[send.peer as usize].outbox;
            let count = |queue: &VecDeque<SendKey>| queue.iter().filter(|queued| queued.0 == key).count();
            let queued = (count(&outbox.ready), count(&outbox.held[send.envelope.id.half()]));
            let in_frame = outbox.frame.as_ref().and_then(|frame| frame.send) == Some(SendKey(key));
            let wanted = match send.stage {
                Stage::Queued if send.has_place || send.announced => ((1, 0), false),
                Stage::Queued => ((0, 1), false),
                Stage::InFrame => ((0, 0), true),
                _ => ((0, 0), false),
            };
            assert_eq!((queued, in_frame), wanted, "where a send is queued");
            assert!(send.framed <= send.length);
            let is_new = matches!(send.stage, Stage::Queued | Stage::InFrame) && !send.announced;
            assert!(!send.has_place || is_new, "a place that is not needed");
        }
        for (rank, peer) in self.peers.iter().enumerate() {
            let outbox = &peer.outbox;
            for key in outbox.ready.iter().chain(outbox.held.iter().flatten()) {
                assert!(self.sends.get(key.0).is_some_and(|send| send.peer == rank as u32), "a queued send");
            }
            for half in 0..2 {
                let sends = self.sends.iter().filter(|(_, send)| {
                    send.peer == rank as u32 && send.has_place && send.envelope.id.half() == half
                });
                let asked = outbox.asked.iter().filter(|(id, asked)| asked.has_place && id.half() == half);
                assert_eq!(outbox.places[half] as usize, sends.count() + asked.count(), "places");
                let is_full = outbox.places[half] == ANNOUNCED_MAX;
                assert!(is_full || outbox.held[half].is_empty(), "held back, though there is a place");
            }
        }
    }
}
