//! Who lives: the ends of connections, the words of witnesses and launchers, and
//! what becomes of a member by them.
//!
//! The end of a member's connection makes it a **suspect**: a proxy may have cut
//! it, or a NAT forgotten it. Those that were told to connect to it are its
//! **witnesses**, and are asked. One of them with a live link is enough: then the
//! member is only out of sight, until the last such link breaks. It is lost as soon
//! as all have denied, at once where there is none, and after [`SUSPICION`] where
//! they are silent (a witness that computes does not hear the question).

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::epoch::{Epoch, JobKey, Member, Presence};
use super::{ConnectionId, End, Output, Refused, Registry};
use crate::rendezvous::protocol::{Epoch as EpochId, Hash, Reason, ServerMessage};

/// How long an epoch without any connection is kept for members that may come
/// back.
pub(super) const DETACHED_FOR: Duration = Duration::from_secs(600);
/// How long a suspect's witnesses have to speak for it.
pub(super) const SUSPICION: Duration = Duration::from_millis(500);

impl Registry {
    /// The member of `connection` says whether its link to `about` lives.
    ///
    /// # Errors
    ///
    /// A refusal if there can be no such rank.
    pub(crate) fn link(&mut self, connection: ConnectionId, about: u32, alive: bool) -> Result<(), Refused> {
        let Some((id, rank)) = self.members.get(&connection).copied() else { return Ok(()) };
        let Some(epoch) = self.epochs.get_mut(&id) else { return Ok(()) };
        epoch.check_peer(rank, about)?;
        if !alive {
            epoch.unpair(rank, about, &mut self.allowances);
        }
        match epoch.members.get(&about).map(|member| member.presence) {
            Some(Presence::Suspected(since)) if alive => {
                epoch.set_presence(about, Presence::Vouched(since));
                epoch.pair(rank, about, &mut self.allowances);
                let line = format!("detached: {}, rank {rank} has a link to it", epoch.describe(&id, about));
                self.outputs.push_back(Output::Log(line));
            }
            Some(Presence::Suspected(_)) if epoch.is_without_witness(about) => {
                self.depart(id, about, Reason::Lost);
            }
            Some(Presence::Vouched(_)) if epoch.is_out_of_sight(about) => {
                self.depart(id, about, Reason::Lost);
            }
            _ => {}
        }
        Ok(())
    }

    /// The member of `connection` leaves in order.
    pub(crate) fn leave(&mut self, connection: ConnectionId) {
        let Some((id, rank)) = self.members.remove(&connection) else { return };
        self.depart(id, rank, Reason::Left);
    }

    /// `connection` has ended, without a word or after one.
    pub(crate) fn closed(&mut self, connection: ConnectionId, end: End, now: Instant) {
        let Some((id, rank)) = self.members.remove(&connection) else { return };
        match end {
            End::Closed => self.suspect(id, rank, now),
            End::Unknown => {
                let Some(epoch) = self.epochs.get_mut(&id) else { return };
                epoch.forget_wishes_of(rank, &mut self.allowances);
                epoch.set_presence(rank, Presence::Detached(now));
                self.outputs.push_back(Output::Log(format!("detached: {}", epoch.describe(&id, rank))));
            }
        }
    }

    /// The launcher of the job says that the process of `rank` has ended. Whoever
    /// still holds a connection under that rank speaks for it, until that ends.
    pub(crate) fn process_ended(&mut self, job_id: Hash, rank: u32) {
        self.ended.entry(job_id).or_default().insert(rank);
        let epochs: Vec<EpochId> = (self.epochs.iter())
            .filter(|(_, epoch)| epoch.key.job_id == Some(job_id) && rank < epoch.size)
            .map(|(id, _)| *id)
            .collect();
        for id in epochs {
            let member = self.epochs.get(&id).and_then(|epoch| epoch.members.get(&rank));
            match member.map(|member| member.presence) {
                Some(Presence::Attached(_) | Presence::Left | Presence::Lost) => {}
                Some(_) => self.depart(id, rank, Reason::Ended),
                None => self.give_up_absentee(id, rank),
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.suspects.front().map(|(since, ..)| *since + SUSPICION)
    }

    /// Gives up the suspects for whom nobody has spoken in time.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((since, id, rank)) =
            self.suspects.pop_front_if(|(since, ..)| now.saturating_duration_since(*since) >= SUSPICION)
        {
            let member = self.epochs.get(&id).and_then(|epoch| epoch.members.get(&rank));
            if member.is_some_and(|member| member.presence == Presence::Suspected(since)) {
                self.depart(id, rank, Reason::Lost);
            }
        }
    }

    /// Forgets the epochs whose members are all detached since long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let expired = |member: &Member| match member.presence {
            Presence::Attached(_) | Presence::Suspected(_) => false,
            Presence::Detached(since) | Presence::Vouched(since) => {
                now.saturating_duration_since(since) >= DETACHED_FOR
            }
            Presence::Left | Presence::Lost => true,
        };
        let ids: Vec<EpochId> = (self.epochs.iter())
            .filter(|(_, epoch)| epoch.members.values().all(expired))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.close_epoch(id);
            self.remove_epoch(id);
        }
    }

    /// The connection of `rank` has been closed: asks its witnesses. After a
    /// restart the server does not know who they are, and asks everybody.
    fn suspect(&mut self, id: EpochId, rank: u32, now: Instant) {
        let Some(epoch) = self.epochs.get_mut(&id) else { return };
        if has_ended(&self.ended, &epoch.key, rank) {
            return self.depart(id, rank, Reason::Ended);
        }
        epoch.forget_wishes_of(rank, &mut self.allowances);
        if epoch.adopted {
            let others: Vec<u32> =
                epoch.attached().map(|(peer, _)| peer).filter(|peer| *peer != rank).collect();
            others.into_iter().for_each(|peer| epoch.pair(peer, rank, &mut self.allowances));
        }
        epoch.set_presence(rank, Presence::Suspected(now));
        if epoch.is_without_witness(rank) {
            return self.depart(id, rank, Reason::Lost);
        }
        for witness in epoch.members.get(&rank).iter().flat_map(|member| &member.witnesses) {
            if let Some(connection) = epoch.connection_of(*witness) {
                self.outputs.push_back(Output::Send(connection, ServerMessage::Suspect { rank }));
            }
        }
        self.suspects.push_back((now, id, rank));
    }

    /// `rank` will not come back. Those of whom it was the last witness are lost
    /// with it.
    fn depart(&mut self, id: EpochId, rank: u32, reason: Reason) {
        let mut doomed = self.remove_member(id, rank, reason);
        while let Some(next) = doomed.pop() {
            doomed.extend(self.remove_member(id, next, Reason::Lost));
        }
    }

    /// Returns those whom nobody vouches for without it.
    fn remove_member(&mut self, id: EpochId, rank: u32, reason: Reason) -> Vec<u32> {
        let Some(epoch) = self.epochs.get_mut(&id) else { return Vec::new() };
        let Some(member) = epoch.members.get_mut(&rank) else { return Vec::new() };
        let was_gone = member.presence.gone().is_some();
        member.presence = match reason {
            Reason::Left => Presence::Left,
            Reason::Lost | Reason::Ended => Presence::Lost,
        };
        if !was_gone {
            let host_id = member.host_id;
            epoch.leave_host(host_id);
        }
        epoch.forget_wishes_of(rank, &mut self.allowances);
        let waiting: BTreeSet<u32> = epoch.wanting(rank).collect();
        for from in &waiting {
            epoch.forget_wish(*from, rank, &mut self.allowances);
        }
        // A link to it may have been on its way to stand: who tries on is told.
        let witnesses = epoch.members.get(&rank).map(|member| member.witnesses.clone()).unwrap_or_default();
        for (peer, connection) in epoch.attached() {
            if reason != Reason::Left || waiting.contains(&peer) || witnesses.contains(&peer) {
                let message = ServerMessage::Unreachable { rank, reason };
                self.outputs.push_back(Output::Send(connection, message));
            }
        }
        let verb = if reason == Reason::Left { "left" } else { "lost" };
        self.outputs.push_back(Output::Log(format!("{verb}: {}", epoch.describe(&id, rank))));
        let doomed = epoch.unpair_all(rank, reason, &mut self.allowances);
        let empty = epoch.members.values().all(|member| member.presence.gone().is_some());
        if empty || reason != Reason::Left {
            self.close_epoch(id);
        }
        if empty {
            self.remove_epoch(id);
        }
        doomed
    }

    /// The process of `rank`, which has not joined, has ended: all are told. The
    /// epoch stays open to the others.
    fn give_up_absentee(&mut self, id: EpochId, rank: u32) {
        let Some(epoch) = self.epochs.get_mut(&id) else { return };
        for from in epoch.wanting(rank).collect::<Vec<_>>() {
            epoch.forget_wish(from, rank, &mut self.allowances);
        }
        for (_, connection) in epoch.attached() {
            let message = ServerMessage::Unreachable { rank, reason: Reason::Ended };
            self.outputs.push_back(Output::Send(connection, message));
        }
        self.outputs.push_back(Output::Log(format!("ended before it joined: {}", epoch.describe(&id, rank))));
    }
}

pub(super) fn has_ended(ended: &HashMap<Hash, BTreeSet<u32>>, key: &JobKey, rank: u32) -> bool {
    key.job_id.and_then(|id| ended.get(&id)).is_some_and(|ranks| ranks.contains(&rank))
}

/// The ranks whose process has ended and that have not joined.
pub(super) fn absentees<'a>(
    ended: &'a HashMap<Hash, BTreeSet<u32>>,
    epoch: &'a Epoch,
) -> impl Iterator<Item = u32> + 'a {
    let ended = epoch.key.job_id.and_then(|id| ended.get(&id)).into_iter().flatten().copied();
    ended.filter(|rank| *rank < epoch.size && !epoch.members.contains_key(rank))
}
