//! The stream from a peer: headers and payload, and where their bytes go.

use super::{BULK, Landing, Message, MessageKey, Posted, Storage};
use crate::engine::credit::{ANNOUNCED_MAX, Amount, CONTROL_MAX};
use crate::engine::frame::{FRAGMENT_MAX, HEADER_LEN, Header, Kind, MessageId};
use crate::engine::outgoing::Envelope;
use crate::engine::{Engine, LinkState};
use crate::error::{Error, ErrorKind, Result};

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

fn protocol(what: String) -> Error {
    Error::new(ErrorKind::Protocol, what)
}
