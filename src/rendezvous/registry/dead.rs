//! The memory of runs that are over.

use std::collections::{HashSet, VecDeque};

use crate::rendezvous::protocol::Epoch as EpochId;

/// How many dead epochs are remembered by their identity, of ranks that proved
/// the secret and of others: these cannot make the server forget those.
pub(super) const MAX_DEAD: usize = 4096;

/// The identities of dead epochs, as far back as they are remembered.
#[derive(Default)]
pub(super) struct Dead {
    pub(super) order: VecDeque<EpochId>,
    pub(super) known: HashSet<EpochId>,
}

impl Dead {
    pub(super) fn insert(&mut self, id: EpochId) {
        if !self.known.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_DEAD
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
