//! Whether the peers live: what the kernel knows of a link on which nothing
//! comes back, and what the rendezvous server asks and is told.
//!
//! Most deaths need nothing of this: the kernel of a dead process ends its
//! connections, and keepalive finds a dead host on an idle link within 4 s. While
//! data is unacknowledged there is no keepalive, so the kernel is asked now and
//! then. A peer that computes and does not read acknowledges all that its window
//! has room for, and answers the probes of a window that has none: it is never
//! taken for dead.

use std::time::{Duration, Instant};

use super::{Core, Transport, lost};
use crate::engine::frame::AbortNotice;
use crate::error::Error;
use crate::link::Link;

/// How often a call that waits looks at its links.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// When the links are to be looked at next.
pub(super) struct Watch {
    due: Instant,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { due: Instant::now() + LOOK_INTERVAL }
    }
}

impl Core {
    /// Gives up the links whose other side has fallen silent, where it is time
    /// to look.
    pub(super) fn watch_links(&mut self, now: Instant) -> bool {
        if now < self.watch.due {
            return false;
        }
        self.watch.due = now + LOOK_INTERVAL;
        let mut moved = false;
        for index in (0..self.linked.len()).rev() {
            let peer = self.linked[index];
            let silence = self.links[peer as usize].as_ref().and_then(|linked| linked.link.silence());
            if let Some(silence) = silence {
                let text = format!("its host has acknowledged nothing for {} ms", silence.as_millis());
                self.unlink(peer, lost(&text));
                moved = true;
            }
        }
        moved
    }

    /// How long a call may sleep until the links are to be looked at.
    pub(super) fn until_watch(&self, now: Instant) -> Option<Duration> {
        let has_connections = !self.linked.is_empty() && matches!(self.transport, Transport::Direct(_));
        has_connections.then(|| self.watch.due.saturating_duration_since(now))
    }

    /// The server has lost sight of some ranks, and asks whether our links to
    /// them live.
    pub(super) fn answer_suspicions(&mut self) {
        let Transport::Direct(connector) = &self.transport else { return };
        for peer in connector.suspects() {
            // Its end may have come, and lie there unread.
            self.read(peer);
            let Transport::Direct(connector) = &self.transport else { return };
            let is_alive = self.links[peer as usize].is_some();
            // What becomes of a link that is being made is the answer.
            if is_alive || !connector.is_pairing_with(peer) {
                self.report_link(peer, is_alive);
            }
        }
    }

    /// Fails the collectives of a context, see [`Engine::poison`], and tells all.
    ///
    /// [`Engine::poison`]: crate::engine::Engine::poison
    pub(crate) fn poison(&mut self, context: u64, error: Error, notice: &AbortNotice) {
        let told = self.engine.poison(context, error, notice);
        self.tell_unlinked(told);
    }

    /// Fails the collectives of a context because of what happened elsewhere, such as
    /// over another channel. Who has not been in touch with the others over this one
    /// does not join in order to tell them: nobody waits for it here.
    pub(crate) fn poison_along(&mut self, context: u64, error: Error, notice: &AbortNotice) {
        let is_in_touch = match &self.transport {
            Transport::Direct(connector) => connector.has_client() || !self.linked.is_empty(),
            Transport::Memory(_) => true,
        };
        if is_in_touch {
            self.poison(context, error, notice);
        } else {
            self.engine.poison(context, error, notice);
        }
    }

    /// Ends a collective, see [`Engine::end_collective`], and tells all where it
    /// failed.
    ///
    /// [`Engine::end_collective`]: crate::engine::Engine::end_collective
    pub(crate) fn end_collective(&mut self, context: u64, failure: Option<(Error, AbortNotice)>) {
        let told = self.engine.end_collective(context, failure);
        self.tell_unlinked(told);
    }

    /// Tells the ranks that have no link to this one: through the rendezvous
    /// server; over Memory, where there is none, by making the link.
    fn tell_unlinked(&mut self, told: Option<AbortNotice>) {
        let Some(notice) = told else { return };
        let port = match &mut self.transport {
            Transport::Direct(connector) => return connector.abort(&self.poller, notice),
            Transport::Memory(port) => port,
        };
        let is_unlinked = |peer: &u32| *peer != self.me && self.links[*peer as usize].is_none();
        let links: Vec<(u32, Link)> = (0..self.engine.size())
            .filter(|peer| is_unlinked(peer) && !port.has_left(*peer))
            .map(|peer| (peer, Link::Memory(port.link(peer))))
            .collect();
        for (peer, link) in links {
            self.install(peer, link);
        }
    }

    pub(super) fn report_link(&mut self, peer: u32, alive: bool) {
        if let Transport::Direct(connector) = &mut self.transport {
            connector.report_link(&self.poller, peer, alive);
        }
    }
}
