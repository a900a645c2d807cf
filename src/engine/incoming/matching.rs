//! Matching messages with receives, and keeping what nobody has asked for yet.

use std::collections::hash_map::Entry;
use std::mem;
use std::ptr::NonNull;

use super::mismatch::{refusal, stray};
use super::{MESSAGE_OVERHEAD, Message, MessageKey, Posted, Received, RecvState, Selector, Storage};
use crate::engine::credit::Amount;
use crate::engine::frame::{Header, Kind, MessageId};
use crate::engine::outgoing::Envelope;
use crate::engine::{Engine, RecvKey, SendKey};
use crate::error::{Error, ErrorKind, Result};

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
    pub(in crate::engine) fn take_result(&mut self, key: RecvKey) -> Option<Result<Received>> {
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
    pub(in crate::engine) fn awaits_message_of(&self, peer: u32) -> bool {
        self.recvs.iter().filter(|(_, recv)| recv.source == Some(peer)).any(|(_, recv)| match &recv.state {
            RecvState::Posted => true,
            RecvState::Matched(key) => self.messages[key.0].received < self.messages[key.0].length,
            RecvState::Failed(_) => false,
        })
    }

    /// Ends a receive with an error; it is not listed as posted any more.
    pub(in crate::engine) fn fail_recv(&mut self, key: RecvKey, error: Error) {
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
    pub(super) fn repost(&mut self, key: RecvKey) {
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
    pub(super) fn place(&mut self, key: MessageKey, inline: usize) -> Result<()> {
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
    pub(super) fn discard(&mut self, key: MessageKey) {
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
    pub(super) fn remove_unmatched(&mut self, key: MessageKey) {
        self.unqueue(key);
        self.uncharge(key);
        self.settle_account(key);
        self.messages.remove(key.0);
    }

    /// The peer is gone: what had come of a message is of no use.
    pub(in crate::engine) fn drop_message(&mut self, key: MessageKey, error: &Error) {
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
    pub(in crate::engine) fn arrive_from_self(&mut self, send: SendKey, envelope: Envelope, length: usize) {
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
    pub(in crate::engine) fn forget_self_send(&mut self, send: SendKey) {
        let found = self.messages.iter().find(|(_, m)| matches!(m.storage, Storage::AtSelf(s) if s == send));
        if let Some((key, _)) = found {
            self.unqueue(MessageKey(key));
            self.uncharge(MessageKey(key));
            self.messages.remove(key);
        }
    }
}
