//! Whom the server has room for: connections are counted by what they are and by
//! their source, and where a bound is reached one of them gives way.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Shared;
use crate::rendezvous::allowance::source_of;
use crate::rendezvous::registry::ConnectionId;

/// What a connection counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Handshake,
    /// Of protocol 1, for its partner.
    Waiting,
    Member {
        authenticated: bool,
    },
}

#[derive(Default)]
pub(super) struct Source {
    /// Oldest first.
    pub(super) handshakes: BTreeSet<ConnectionId>,
    /// Oldest first.
    pub(super) waiting: BTreeSet<ConnectionId>,
    /// Members that have not proved the secret.
    pub(super) strangers: usize,
}

impl Source {
    pub(super) fn is_empty(&self) -> bool {
        self.handshakes.is_empty() && self.waiting.is_empty() && self.strangers == 0
    }
}

impl Shared {
    /// Where a class that is not the members' has as many as it may, its oldest
    /// connection gives way: of the source of the newcomer, or of that which has
    /// most.
    pub(super) fn make_room(&mut self, class: Class, newcomer: IpAddr) {
        let limits = self.limits;
        let (kind, count, limit, per_source): (fn(&Source) -> &BTreeSet<ConnectionId>, _, _, _) = match class
        {
            Class::Handshake => {
                let count = self.handshakes.len();
                (|source| &source.handshakes, count, limits.handshakes, limits.handshakes_per_source)
            }
            Class::Waiting => {
                (|source| &source.waiting, self.waits, limits.waiting, limits.waiting_per_source)
            }
            Class::Member { .. } => return,
        };
        let siblings = self.sources.get(&newcomer).map(kind);
        let oldest = match siblings {
            Some(siblings) if siblings.len() >= per_source => siblings.first(),
            _ if count >= limit => self.oldest_of_most(kind),
            _ => None,
        };
        if let Some(oldest) = oldest.copied() {
            self.drop_link(oldest);
        }
    }

    /// The oldest connection of a kind, of the source that has most of them.
    fn oldest_of_most(&self, kind: fn(&Source) -> &BTreeSet<ConnectionId>) -> Option<&ConnectionId> {
        self.sources.values().map(kind).max_by_key(|siblings| siblings.len())?.first()
    }

    /// Counts a connection as one of `class`, and no more as what it was.
    pub(super) fn count(&mut self, id: ConnectionId, class: Class) {
        self.discount(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.class = class;
        if class == (Class::Member { authenticated: true }) {
            self.members += 1;
            return;
        }
        let source = self.sources.entry(source_of(link.peer)).or_default();
        match class {
            Class::Handshake => {
                self.handshakes.insert(id);
                source.handshakes.insert(id);
            }
            Class::Waiting => {
                self.waits += 1;
                source.waiting.insert(id);
            }
            Class::Member { .. } => {
                self.members += 1;
                self.strangers += 1;
                source.strangers += 1;
            }
        }
    }

    /// Takes a connection that is not a member out of the counts.
    pub(super) fn discount(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        let address = source_of(link.peer);
        self.handshakes.remove(&id);
        let Some(source) = self.sources.get_mut(&address) else { return };
        source.handshakes.remove(&id);
        self.waits -= usize::from(source.waiting.remove(&id));
        if source.is_empty() {
            self.sources.remove(&address);
        }
    }
}
