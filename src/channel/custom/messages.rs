//! Messages over a peer-to-peer channel that moves bytes.
//!
//! A message is two objects: a header of fixed size, and the payload unless it is
//! empty. Messages of one rank come in the order in which they were sent; what comes
//! before it is wanted, such as a message between two ranks while a collective waits
//! for its own, is kept.

use std::collections::{HashMap, VecDeque};

use zerocopy::byteorder::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::Rank;
use super::mark::{self, Mark};
use super::{CustomChannel, OwnMessages, check_length};
use crate::error::{Error, ErrorKind, Result};
use crate::scratch::Scratch;

const MAGIC: [u8; 4] = *b"FMIm";
const VERSION: u8 = 1;

/// In `Header::kind`.
const BETWEEN_TWO: u8 = 1;
const OF_COLLECTIVE: u8 = 2;

/// In `Header::operation`: the message bears no mark.
const UNMARKED: u8 = 0;

/// What comes before a payload.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    operation: u8,
    reserved: u8,
    step: I32,
    signature: U32,
    /// Number of the collective call.
    call: U64,
    /// Number of the message between the two ranks; 0 in a collective.
    sequence: U64,
    length: U64,
}

/// The messages of one rank.
pub(super) struct Messages {
    rank: Rank,
    own: OwnMessages,
    peers: HashMap<Rank, Peer>,
}

/// What goes to one peer and comes from it.
#[derive(Default)]
struct Peer {
    /// How many messages between two ranks it was sent.
    sent: u64,
    /// How many of its were received.
    received: u64,
    /// A payload did not follow its header: what comes now would be taken for it.
    is_torn: bool,
    /// A header whose payload is still to come.
    head: Option<Header>,
    early: VecDeque<(Header, Scratch)>,
}

/// What to do with a message that has come.
enum Fate {
    Take,
    /// A later receive will take it.
    Keep,
    Refuse(Error),
}

/// What a receive asks for.
#[derive(Clone, Copy)]
enum Wanted {
    /// The next message between two ranks, which may bear a mark.
    Between(Option<Mark>),
    Collective(Mark),
}

impl Messages {
    pub(super) fn new(rank: Rank) -> Self {
        Self { rank, own: OwnMessages::default(), peers: HashMap::new() }
    }

    pub(super) fn send(
        &mut self,
        channel: &dyn CustomChannel,
        mark: Option<Mark>,
        data: &[u8],
        dest: Rank,
    ) -> Result<()> {
        if dest == self.rank {
            return self.own.send(data);
        }
        let peer = self.peers.entry(dest).or_default();
        if peer.is_torn {
            let text = "an earlier message to this rank was sent by half";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        let header = Header::new(mark, peer.sent, data.len());
        channel.send_object(header.as_bytes(), dest)?;
        if !data.is_empty() {
            peer.is_torn = true;
            channel.send_object(data, dest)?;
            peer.is_torn = false;
        }
        if mark.is_none() {
            peer.sent += 1;
        }
        Ok(())
    }

    pub(super) fn recv(
        &mut self,
        channel: &dyn CustomChannel,
        mark: Option<Mark>,
        buffer: &mut [u8],
        src: Rank,
    ) -> Result<()> {
        if src == self.rank {
            return self.own.recv(buffer).unwrap_or_else(|| {
                let text = "this rank has sent itself no message, and cannot while it waits for one";
                Err(Error::new(ErrorKind::Timeout, text))
            });
        }
        let peer = self.peers.entry(src).or_default();
        let wanted = match mark {
            Some(mark) => Wanted::Collective(mark),
            None => Wanted::Between(mark::current()),
        };
        let is_wanted = |(header, _): &(Header, _)| matches!(header.fate(wanted, peer.received), Fate::Take);
        if let Some(place) = peer.early.iter().position(is_wanted)
            && let Some((header, payload)) = peer.early.remove(place)
        {
            peer.count(&header);
            header.check(wanted, buffer.len())?;
            buffer.copy_from_slice(&payload);
            return Ok(());
        }
        loop {
            let header = peer.next_header(channel, src)?;
            let fate = header.fate(wanted, peer.received);
            if matches!(fate, Fate::Take) && header.length() == buffer.len() as u64 {
                header.read_payload(channel, buffer, src)?;
                peer.head = None;
                peer.count(&header);
                return header.check(wanted, buffer.len());
            }
            // The payload has to be read for the next message to be found.
            let mut payload = Scratch::zeroed(usize::try_from(header.length()).unwrap_or(usize::MAX))?;
            header.read_payload(channel, &mut payload, src)?;
            peer.head = None;
            match fate {
                Fate::Keep => peer.early.push_back((header, payload)),
                Fate::Take => {
                    peer.count(&header);
                    return header.check(wanted, buffer.len());
                }
                Fate::Refuse(error) => {
                    peer.count(&header);
                    return Err(error);
                }
            }
        }
    }
}

impl Peer {
    /// The header of the next message; its payload is still to be read. A receive
    /// that failed in between is continued.
    fn next_header(&mut self, channel: &dyn CustomChannel, src: Rank) -> Result<Header> {
        if let Some(header) = self.head {
            return Ok(header);
        }
        let mut header = Header::new_zeroed();
        channel.recv_object(header.as_mut_bytes(), src)?;
        if header.magic != MAGIC || header.version != VERSION {
            let text = "what has come is no message, or one of another version of FMI";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        self.head = Some(header);
        Ok(header)
    }

    fn count(&mut self, header: &Header) {
        if header.kind == BETWEEN_TWO {
            self.received += 1;
        }
    }
}

impl Header {
    fn new(mark: Option<Mark>, sequence: u64, length: usize) -> Self {
        let (kind, sequence) = if mark.is_some() { (OF_COLLECTIVE, 0) } else { (BETWEEN_TWO, sequence) };
        let mark = mark.or(mark::current());
        Self {
            magic: MAGIC,
            version: VERSION,
            kind,
            operation: mark.map_or(UNMARKED, |mark| mark.operation),
            reserved: 0,
            step: I32::new(mark.map_or(0, |mark| mark.step)),
            signature: U32::new(mark.map_or(0, |mark| mark.signature)),
            call: U64::new(mark.map_or(0, |mark| mark.sequence)),
            sequence: U64::new(sequence),
            length: U64::new(length as u64),
        }
    }

    fn length(&self) -> u64 {
        self.length.get()
    }

    fn mark(&self) -> Option<Mark> {
        (self.operation != UNMARKED).then(|| Mark {
            sequence: self.call.get(),
            signature: self.signature.get(),
            step: self.step.get(),
            operation: self.operation,
        })
    }

    /// What becomes of the message where `wanted` is received and `received`
    /// messages between the two ranks were before.
    fn fate(&self, wanted: Wanted, received: u64) -> Fate {
        match (wanted, self.mark()) {
            (Wanted::Between(_), _) if self.kind != BETWEEN_TWO => Fate::Keep,
            (Wanted::Between(_), _) if self.sequence.get() == received => Fate::Take,
            (Wanted::Between(_), _) => Fate::Refuse(Error::new(
                ErrorKind::Protocol,
                format!("message {} has come where message {received} is due", self.sequence),
            )),
            (Wanted::Collective(_), _) if self.kind == BETWEEN_TWO => Fate::Keep,
            (Wanted::Collective(wanted), Some(mark)) if mark == wanted => Fate::Take,
            (Wanted::Collective(wanted), Some(mark)) if mark.is_of_call(&wanted) => Fate::Keep,
            (Wanted::Collective(_), _) => Fate::Refuse(mismatch("another collective")),
        }
    }

    /// Checks a message that was taken, whose payload has been read.
    fn check(&self, wanted: Wanted, length: usize) -> Result<()> {
        let own = match wanted {
            Wanted::Between(None) => return check_length(self.length() as usize, length),
            Wanted::Between(Some(own)) | Wanted::Collective(own) => own,
        };
        if self.mark().is_some_and(|mark| !mark.is_of_call(&own)) {
            return Err(mismatch("another collective, or the same with other arguments"));
        }
        check_length(self.length() as usize, length).map_err(|error| match wanted {
            Wanted::Collective(_) => mismatch("the same collective with other lengths"),
            Wanted::Between(_) => error,
        })
    }

    fn read_payload(&self, channel: &dyn CustomChannel, buffer: &mut [u8], src: Rank) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        channel.recv_object(buffer, src)
    }
}

fn mismatch(what: &str) -> Error {
    Error::new(ErrorKind::Mismatch, format!("the ranks do not call the same: the other has called {what}"))
}
