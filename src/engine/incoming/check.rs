//! What the tests of the engine look at: whether requests, messages, queues and
//! counters agree.

use super::{Message, MessageKey, RecvState, Storage};
use crate::engine::credit::Amount;
use crate::engine::frame::MessageId;
use crate::engine::{Engine, RecvKey};

impl Engine {
    /// The messages that are under way from `peer`: their operation, the bytes
    /// that are missing, and whether these may come.
    pub(in crate::engine) fn under_way(&self, peer: u32) -> Vec<(MessageId, u8, usize, bool)> {
        let messages = self.peers[peer as usize].incomplete.iter().map(|key| &self.messages[key.0]);
        messages.map(|m| (m.envelope.id, m.envelope.operation, m.length - m.received, m.granted)).collect()
    }

    /// Panics where requests, messages, queues and counters contradict each
    /// other; returns how many bytes are kept for messages.
    pub(in crate::engine) fn check_incoming(&self) -> u64 {
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
