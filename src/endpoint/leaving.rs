//! Leaving a job in order: nothing that was sent is destroyed on its way.
//!
//! Each linked peer is told GOODBYE, and the sending side is shut down behind it;
//! then the link is read until the peer's own GOODBYE or end, and only then closed:
//! closing a TCP socket with unread bytes, and any frame to a closed one, would
//! reset the connection and destroy what the peer's host has not taken yet.
//!
//! What the wait is for, peer by peer:
//!
//! * frames of ours that the link does not take, or that the peer's kernel has not
//!   acknowledged: to the deadline. What the other host has is safe: even a reset
//!   leaves it readable there;
//! * messages that the peer has not read, as far as it has said: to the deadline of
//!   a close, which reports them. The peer says so by returning credit, or by a
//!   GOODBYE. One in a call answers our GOODBYE with its own, because it has
//!   everything by then; one that leaves too has chosen not to receive what it has
//!   not received, so two that leave with messages for each other do not wait for
//!   each other. Where the collectives have failed nobody waits for readers, who may
//!   never come;
//! * nothing of these: for a second, in which a peer that is about to write to us
//!   may hear that we leave. A destroy waits no longer for readers either: a peer
//!   outside of calls cannot say even what it has received long ago, and a worker
//!   would wait, and be paid for, while the root computes on what it got.

use std::time::{Duration, Instant};

use super::{Core, Deadline, Entered, Stop, Transport, lost};
use crate::error::{Error, ErrorKind};

/// How long a departure waits for peers that are not in a call, once nothing of
/// ours is on its way.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Acknowledgements make no event: how soon to look whether they have come.
const ACKNOWLEDGEMENT_INTERVAL: Duration = Duration::from_millis(2);

/// What a departure waits for, to its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Everything is with the peers' hosts.
    Arrived,
    /// The peers have also read it.
    Read,
}

/// What a peer has not got yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// This many messages that it has not said to have read.
    Messages(u32),
    /// Bytes that are not with its host.
    Bytes,
}

impl Entered<'_> {
    /// Says goodbye to every linked peer, and waits until each has heard it and has
    /// what was sent to it; see the [module](self). [`close`](Self::close) follows,
    /// however this ends.
    ///
    /// # Errors
    /// [`Stop::Failed`] with [`ErrorKind::Timeout`] or [`ErrorKind::PeerLost`] that
    /// names a peer and what it has not got; the other stops.
    pub(crate) fn leave(&self, until: Until, deadline: &mut Deadline) -> Result<(), Stop> {
        if self.core.borrow().signals.drain() {
            self.answer_wake(true)?;
        }
        let mut rests = Vec::new();
        let mut failure = None;
        let mut quiet_since = None;
        loop {
            let mut core = self.core.borrow_mut();
            let before = std::mem::take(&mut rests);
            core.bid_farewell(until, &mut rests);
            for (peer, rest) in before {
                if let Some(error) = core.unheard(peer, rest) {
                    failure.get_or_insert(error);
                }
            }
            let now = Instant::now();
            let remaining = deadline.remaining(now);
            core.deadline = remaining.and_then(|left| now.checked_add(left));
            let unheard = rests.iter().find(|(_, rest)| *rest != Rest::Nothing);
            let is_over = match unheard {
                Some(_) => {
                    quiet_since = None;
                    remaining == Some(Duration::ZERO)
                }
                None => {
                    let since = *quiet_since.get_or_insert(now);
                    let is_alone = rests.is_empty() && !core.is_about_to_link();
                    is_alone || now - since >= LINGER || remaining == Some(Duration::ZERO)
                }
            };
            if is_over {
                let late = unheard.map(|(peer, rest)| rest.error(ErrorKind::Timeout, *peer));
                return failure.or(late).map_or(Ok(()), |error| Err(Stop::Failed(error)));
            }
            let pause = match unheard {
                Some((_, Rest::Bytes)) => ACKNOWLEDGEMENT_INTERVAL,
                _ => LINGER,
            };
            core.park(Some(remaining.map_or(pause, |left| left.min(pause))), now).map_err(Stop::Failed)?;
            if std::mem::take(&mut core.woken) {
                drop(core);
                self.answer_wake(false)?;
            }
        }
    }

    /// Closes everything, with a goodbye where none has been said; later calls find
    /// the endpoint closed.
    pub(crate) fn close(&self) {
        let mut core = self.core.borrow_mut();
        core.bid_farewell(Until::Arrived, &mut Vec::new());
        self.endpoint.set_closed();
        core.leave_server();
        for peer in core.linked.clone() {
            core.unlink(peer, lost("this rank closes"));
        }
    }
}

impl Core {
    /// Whether a connection stands that may become a link: the other side may take
    /// it for one already, and is owed a goodbye.
    fn is_about_to_link(&self) -> bool {
        let Transport::Direct(connector) = &self.transport else { return false };
        (0..self.engine.size()).any(|peer| connector.is_pairing_with(peer))
    }

    fn leave_server(&mut self) {
        if let Transport::Direct(connector) = &mut self.transport {
            connector.leave(&self.poller);
        }
    }

    /// Says goodbye to those that have not heard it, moves what can be moved, and
    /// tells for each linked peer what it has not got.
    fn bid_farewell(&mut self, until: Until, rests: &mut Vec<(u32, Rest)>) {
        let awaits_readers = until == Until::Read && !self.engine.has_failed_context();
        for peer in self.linked.clone() {
            // Once for each: also where the link was made only now.
            self.engine.say_goodbye(peer);
            self.touch(peer);
            let Some(linked) = &mut self.links[peer as usize] else { continue };
            let has_output = self.engine.has_output(peer);
            if !has_output && !std::mem::replace(&mut linked.is_shut_down, true) {
                linked.link.shut_down_sending();
            }
            let unread = if awaits_readers { self.engine.unread_at(peer) } else { 0 };
            let rest = match linked.link.unacknowledged() {
                0 if has_output => Rest::Bytes,
                0 if unread > 0 => Rest::Messages(unread),
                0 => Rest::Nothing,
                _ => Rest::Bytes,
            };
            rests.push((peer, rest));
        }
    }

    /// What the loss of a peer means for what it had not got.
    fn unheard(&self, peer: u32, rest: Rest) -> Option<Error> {
        (rest != Rest::Nothing && self.engine.loss_of(peer).is_some())
            .then(|| rest.error(ErrorKind::PeerLost, peer))
    }
}

impl Rest {
    fn error(self, kind: ErrorKind, peer: u32) -> Error {
        let what = match self {
            Self::Bytes => format!("bytes for rank {peer} have not reached its host"),
            Self::Messages(1) => format!("a message for rank {peer} is unread there, as far as it has said"),
            Self::Messages(count) => {
                format!("{count} messages for rank {peer} are unread there, as far as it has said")
            }
            Self::Nothing => unreachable!("nothing is left"),
        };
        let text = match kind {
            ErrorKind::PeerLost => format!("the connection broke: {what}"),
            _ => what,
        };
        Error::new(kind, text).with_peer(peer)
    }
}
