//! The receiving half: parsing what comes, matching it with receives, keeping
//! what nobody has asked for yet.

#[cfg(test)]
mod check;
mod matching;
mod mismatch;
mod stream;

use super::credit::Amount;
use super::frame::{HEADER_LEN, MessageId};
use super::outgoing::Envelope;
use super::{RecvKey, SendKey};
use crate::error::Error;

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
/// [`Engine::feed`](super::Engine::feed).
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
