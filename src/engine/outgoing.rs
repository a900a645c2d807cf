//! The sending half: send requests, and the frames on their way to each peer.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;

use zerocopy::IntoBytes;

use super::credit::Amount;
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
    stage: Stage,
}

enum Stage {
    /// In the peer's queue: its first frame or next fragment shall go.
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
        if !matches!(self.stage, Stage::Done) {
            self.stage = Stage::Failed(error);
        }
    }
}

enum Item {
    Control(Header),
    Message(SendKey),
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
    /// The request is over: what is left is written from a copy.
    fn detach(&mut self) {
        if let Payload::Borrowed(..) = self.payload {
            self.payload = Payload::Owned(self.payload.bytes().to_vec());
        }
        self.send = None;
    }
}

/// What is on its way to one peer.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Item>,
    frame: Option<Frame>,
    /// Our GOODBYE is a frame already: nothing follows it.
    ended: bool,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.frame.is_none() && (self.ended || self.queue.is_empty())
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Queues a control frame behind everything else.
    pub(super) fn push_control_last(&mut self, header: Header) {
        self.queue.push_back(Item::Control(header));
    }

    /// Queues a control frame before the messages: it goes in the next gap.
    pub(super) fn push_control_first(&mut self, header: Header) {
        let at = self.queue.iter().take_while(|item| matches!(item, Item::Control(_))).count();
        self.queue.insert(at, Item::Control(header));
    }

    /// Forgets everything; where `stays_open`, all but our GOODBYE, and a frame
    /// half written is finished from a copy, so that the stream stays in step.
    pub(super) fn clear(&mut self, stays_open: bool) {
        let is_goodbye = |item: &Item| matches!(item, Item::Control(header) if header.is(Kind::Goodbye));
        self.queue.retain(|item| stays_open && is_goodbye(item));
        match &mut self.frame {
            Some(frame) if stays_open && (frame.written > 0 || frame.header.is(Kind::Goodbye)) => {
                frame.detach();
            }
            frame => *frame = None,
        }
    }

    fn remove_message(&mut self, key: SendKey) {
        self.queue.retain(|item| !matches!(item, Item::Message(queued) if *queued == key));
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
            stage,
        }));
        match queued {
            true if peer == self.me => self.deliver_to_self(key),
            true => self.peers[peer as usize].outbox.queue.push_back(Item::Message(key)),
            false => {}
        }
        key
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
        let peer = &mut self.peers[send.peer as usize];
        let whole = send.framed == send.length;
        match send.stage {
            Stage::Done => return Withdrawal::Sent,
            Stage::Failed(_) => return Withdrawal::Withdrawn,
            Stage::AwaitsReceive => {
                self.forget_self_send(key);
                return Withdrawal::Withdrawn;
            }
            // An empty message that waits for its grant is all there already.
            Stage::AwaitsGrant if whole => return Withdrawal::Sent,
            Stage::AwaitsGrant => {}
            Stage::Queued => peer.outbox.remove_message(key),
            Stage::InFrame => {
                let frame = peer.outbox.frame.as_mut().expect("the request is in the frame");
                if frame.written == 0 {
                    peer.outbox.frame = None;
                } else {
                    frame.detach();
                    if whole {
                        return Withdrawal::Sent;
                    }
                }
            }
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
        if listens && !entry.outbox.ended && peer != self.me {
            entry.outbox.push_control_first(header);
        }
    }

    /// Clear-to-send came for one of our messages.
    pub(super) fn receive_grant(&mut self, peer: u32, id: MessageId) {
        // A grant for a message that we have withdrawn meanwhile finds nothing.
        let found = self
            .sends
            .iter_mut()
            .find(|(_, send)| send.peer == peer && send.envelope.id == id && !send.granted);
        let Some((key, send)) = found else { return };
        send.granted = true;
        if matches!(send.stage, Stage::AwaitsGrant) {
            self.continue_send(SendKey(key));
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
        if entry.outbox.ended {
            return None;
        }
        // Any frame returns credit: one for it alone is made where none waits.
        let item = match entry.outbox.queue.pop_front() {
            None if entry.owes_credit() => Item::Control(Header::bare(Kind::Credit)),
            item => item?,
        };
        Some(match item {
            Item::Control(header) => {
                entry.outbox.ended = header.is(Kind::Goodbye);
                Frame {
                    header,
                    payload: Payload::Owned(Vec::new()),
                    written: 0,
                    send: None,
                    cost: Amount::default(),
                }
            }
            Item::Message(key) => {
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
                // SAFETY: `framed` is at most `length`, so the pointer stays in
                // the buffer or one past its end.
                let payload = Payload::Borrowed(unsafe { send.data.add(send.framed) }, bytes);
                send.framed += bytes;
                let header = Header::control(kind, operation, id)
                    .with_algorithm(algorithm, signature)
                    .with_length(length, inline);
                Frame { header, payload, written: 0, send: Some(key), cost }
            }
        })
    }

    /// The link took `count` more bytes of what [`output`](Self::output) showed.
    pub(crate) fn written(&mut self, peer: u32, count: usize) {
        let entry = &mut self.peers[peer as usize];
        let Some(frame) = entry.outbox.frame.as_mut().filter(|_| count > 0) else { return };
        let first = frame.written == 0;
        frame.written += count;
        let (header, send) = (frame.header, frame.send);
        if first {
            entry.allowance.spend(frame.cost);
            entry.ledger.announce(header.credit());
        }
        if frame.written == HEADER_LEN + frame.payload.len() {
            entry.outbox.frame = None;
            if let Some(key) = send {
                self.frame_sent(key, header.is(Kind::Eager));
            }
        }
        if first && let Some(key) = send {
            self.sends[key.0].announced = true;
            self.note_move(header.id());
        }
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
            self.peers[send.peer as usize].outbox.queue.push_back(Item::Message(key));
        }
    }
}

#[cfg(test)]
impl Engine {
    /// Panics where the stages of sends and what is queued contradict each other.
    pub(super) fn check_outgoing(&self) {
        for (key, send) in &self.sends {
            let outbox = &self.peers[send.peer as usize].outbox;
            let queued =
                outbox.queue.iter().filter(|item| matches!(item, Item::Message(k) if k.0 == key)).count();
            let in_frame = outbox.frame.as_ref().and_then(|frame| frame.send) == Some(SendKey(key));
            let wanted = match send.stage {
                Stage::Queued => (1, false),
                Stage::InFrame => (0, true),
                _ => (0, false),
            };
            assert_eq!((queued, in_frame), wanted, "where a send is queued");
            assert!(send.framed <= send.length);
        }
        for (rank, peer) in self.peers.iter().enumerate() {
            for item in &peer.outbox.queue {
                let Item::Message(key) = item else { continue };
                assert!(self.sends.get(key.0).is_some_and(|send| send.peer == rank as u32), "a queued send");
            }
        }
    }
}
