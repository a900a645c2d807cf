//! What a rendezvous server knows: epochs, their members, and who wants a link
//! to whom. Pure state: events go in, messages come out; connections are
//! numbers, and the time and the random bytes are the caller's.
//!
//! An **epoch** is one run of one job. It is *open* until a member is lost or
//! all who joined have left; only an open epoch takes new members. A closed
//! one is kept for the members that it still has, and then remembered by its
//! identity alone, so that a late rejoin does not bring it back.
//!
//! `joining` finds the epoch of a newcomer, `liveness` decides who is lost; here is
//! what members say to each other: wishes for links, and that collectives failed.

mod dead;
mod epoch;
mod joining;
mod liveness;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use dead::Dead;
use epoch::{ENTRY, Epoch, JobKey, Presence, WISH, WITNESS};
use liveness::has_ended;

use super::allowance::Allowances;
use super::protocol::{Epoch as EpochId, Hash, Missing, Reason, Refusal, ServerMessage};
use crate::engine::frame::AbortNotice;

/// The most connects that one member may have pending: a rank that opens all
/// links of a job of 1,024 at once stays well below.
const MAX_WANTED: usize = 4096;
/// The most failed contexts that are remembered of an epoch.
const MAX_ABORTS: usize = 16;

/// A connection, by a number that the caller never uses twice.
pub(crate) type ConnectionId = u64;

/// Why a client is refused, in a code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(refusal: Refusal, text: impl Into<String>) -> Self {
        Self { refusal, text: text.into() }
    }
}

/// What the caller has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Send(ConnectionId, ServerMessage),
    /// This connection's member has come back on another.
    Close(ConnectionId),
    /// One line for the log.
    Log(String),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side closed or reset it, or broke a rule.
    Closed,
    /// The network says nothing of the other side any more.
    Unknown,
}

#[derive(Default)]
pub(crate) struct Registry {
    epochs: HashMap<EpochId, Epoch>,
    /// The open epochs of each job, oldest first.
    jobs: HashMap<JobKey, Vec<EpochId>>,
    members: HashMap<ConnectionId, (EpochId, u32)>,
    dead: Dead,
    dead_authenticated: Dead,
    /// Since when who is suspected, oldest first; also some who are not any more.
    suspects: VecDeque<(Instant, EpochId, u32)>,
    /// By job id, the ranks whose launcher says that their process has ended.
    ended: HashMap<Hash, BTreeSet<u32>>,
    outputs: VecDeque<Output>,
    /// What ranks without the secret have taken.
    pub(crate) allowances: Allowances,
}

impl Registry {
    /// The member of `connection` wants a link to `to`.
    ///
    /// # Errors
    ///
    /// A refusal if there can be no such rank, or if it has too many wishes.
    pub(crate) fn connect(&mut self, connection: ConnectionId, to: u32) -> Result<(), Refused> {
        let Some((id, rank)) = self.members.get(&connection).copied() else { return Ok(()) };
        let Some(epoch) = self.epochs.get_mut(&id) else { return Ok(()) };
        epoch.check_peer(rank, to)?;
        if epoch.wants(to, rank) {
            self.go(id, to, rank);
            return Ok(());
        }
        let presence = epoch.members.get(&to).map(|member| member.presence);
        let has_ended = presence.is_none() && has_ended(&self.ended, &epoch.key, to);
        if let Some(reason) = presence.map_or(has_ended.then_some(Reason::Ended), Presence::gone) {
            self.outputs.push_back(Output::Send(connection, ServerMessage::Unreachable { rank: to, reason }));
            return Ok(());
        }
        let Some(member) = epoch.members.get_mut(&rank) else { return Ok(()) };
        if member.wants.len() >= MAX_WANTED {
            let text = format!("more than {MAX_WANTED} connects are pending");
            return Err(Refused::new(Refusal::Protocol, text));
        }
        if member.wants.contains(&to) {
            return Ok(());
        }
        if member.source.is_some_and(|source| !self.allowances.take(source, WISH)) {
            return Err(no_allowance());
        }
        member.wants.insert(to);
        epoch.wanted_by.insert((to, rank));
        if let Some(Presence::Attached(peer)) = presence {
            self.outputs.push_back(Output::Send(peer, ServerMessage::Offer { rank }));
        }
        let missing = if presence.is_some() { Missing::NotReady } else { Missing::NotJoined };
        self.outputs.push_back(Output::Send(connection, ServerMessage::NotYet { rank: to, missing }));
        Ok(())
    }

    /// The member of `connection` answers the offer of `from`. An answer to an
    /// offer that does not stand any more means nothing.
    ///
    /// # Errors
    ///
    /// A refusal if there can be no such rank.
    pub(crate) fn ready(&mut self, connection: ConnectionId, from: u32) -> Result<(), Refused> {
        let Some((id, rank)) = self.members.get(&connection).copied() else { return Ok(()) };
        let Some(epoch) = self.epochs.get(&id) else { return Ok(()) };
        epoch.check_peer(rank, from)?;
        if epoch.wants(from, rank) {
            self.go(id, from, rank);
        }
        Ok(())
    }

    /// The member of `connection` tells all others that the collectives of a
    /// context have failed. Every rank that hears of it says so: only the first
    /// word about a context is passed on, also to those that come later.
    ///
    /// # Errors
    ///
    /// A refusal if it names a rank that there cannot be.
    pub(crate) fn abort(&mut self, connection: ConnectionId, notice: AbortNotice) -> Result<(), Refused> {
        let Some((id, rank)) = self.members.get(&connection).copied() else { return Ok(()) };
        let Some(epoch) = self.epochs.get_mut(&id) else { return Ok(()) };
        if notice.cause_rank >= epoch.size || notice.about.is_some_and(|about| about >= epoch.size) {
            let text = format!("rank {rank} spoke of a failure outside of its job of size {}", epoch.size);
            return Err(Refused::new(Refusal::Protocol, text));
        }
        let is_known = epoch.aborts.iter().any(|(_, told)| told.context == notice.context);
        if is_known || epoch.aborts.len() >= MAX_ABORTS {
            return Ok(());
        }
        epoch.aborts.push((rank, notice));
        for (_, peer) in epoch.attached().filter(|&(peer, _)| peer != rank) {
            self.outputs.push_back(Output::Send(peer, ServerMessage::Aborted { rank, notice }));
        }
        let cause = notice.cause.name();
        self.outputs.push_back(Output::Log(format!("aborted: {}, {cause}", epoch.describe(&id, rank))));
        Ok(())
    }

    /// What is to be done next.
    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Both sides may start.
    fn go(&mut self, id: EpochId, from: u32, to: u32) {
        let Some(epoch) = self.epochs.get_mut(&id) else { return };
        epoch.forget_wish(from, to, &mut self.allowances);
        epoch.forget_wish(to, from, &mut self.allowances);
        epoch.pair(from, to, &mut self.allowances);
        epoch.has_gone = true;
        for (rank, peer) in [(from, to), (to, from)] {
            let (Some(here), Some(there)) = (epoch.members.get(&rank), epoch.members.get(&peer)) else {
                return;
            };
            let Presence::Attached(connection) = here.presence else { continue };
            let mut candidates = there.private.clone();
            if !candidates.contains(&there.public) {
                candidates.push(there.public);
            }
            let ranks_on_host = epoch.ranks_on_host(here.host_id);
            let message = ServerMessage::Go { rank: peer, ranks_on_host, candidates };
            self.outputs.push_back(Output::Send(connection, message));
        }
        self.outputs.push_back(Output::Log(format!("go: {} and rank {to}", epoch.describe(&id, from))));
    }

    /// No newcomer enters it any more.
    fn close_epoch(&mut self, id: EpochId) {
        let Some(epoch) = self.epochs.get_mut(&id) else { return };
        epoch.open = false;
        if let Some(open) = self.jobs.get_mut(&epoch.key) {
            open.retain(|other| *other != id);
            if open.is_empty() {
                self.jobs.remove(&epoch.key);
            }
        }
    }

    fn remove_epoch(&mut self, id: EpochId) {
        let Some(epoch) = self.epochs.remove(&id) else { return };
        for member in epoch.members.values() {
            if let Some(source) = member.source {
                self.allowances.give_back(source, ENTRY + WITNESS * member.witnesses.len());
            }
        }
        self.dead(epoch.key.authenticated).insert(id);
    }

    fn dead(&mut self, authenticated: bool) -> &mut Dead {
        if authenticated { &mut self.dead_authenticated } else { &mut self.dead }
    }

    /// Whether it remembers nothing but the identities of dead runs.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.epochs.is_empty() && self.jobs.is_empty() && self.members.is_empty() && self.outputs.is_empty()
    }

    /// Checks that what it keeps twice agrees; returns the bytes that its members
    /// owe to the allowances.
    #[cfg(test)]
    pub(crate) fn check(&self) -> usize {
        let mut owed = 0;
        for epoch in self.epochs.values() {
            let mut hosts = HashMap::new();
            let mut wanted_by = BTreeSet::new();
            for (rank, member) in &epoch.members {
                if member.presence.gone().is_none() {
                    *hosts.entry(member.host_id).or_default() += 1;
                }
                wanted_by.extend(member.wants.iter().map(|to| (*to, *rank)));
                let is_witness = |of: &u32| epoch.members[of].witnesses.contains(rank);
                assert!(member.witnesses.iter().all(is_witness));
                if member.source.is_some() {
                    owed += ENTRY + WISH * member.wants.len() + WITNESS * member.witnesses.len();
                }
            }
            assert_eq!((&epoch.hosts, &epoch.wanted_by), (&hosts, &wanted_by));
        }
        owed
    }
}

fn no_allowance() -> Refused {
    let text =
        "this server remembers no more for ranks at this address that do not prove a secret (FMI_SECRET)";
    Refused::new(Refusal::Full, text)
}
