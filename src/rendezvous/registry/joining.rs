//! Joining: which epoch a newcomer is of, and what it is told at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::epoch::{ENTRY, Epoch, JobKey, Member, Presence, WISH};
use super::liveness::absentees;
use super::{ConnectionId, Output, Refused, Registry, no_allowance};
use crate::rendezvous::allowance::source_of;
use crate::rendezvous::protocol::{
    Epoch as EpochId, Join, Joined, MAX_SIZE, Membership, Missing, RANK_ANY, Reason, Refusal, ServerMessage,
};

/// The most open epochs of one job: each newcomer looks at all of them.
pub(super) const MAX_OPEN: usize = 1024;

impl Registry {
    /// Makes `connection` a member. `fresh` are random bytes for the
    /// membership, should it be a new one.
    ///
    /// # Errors
    ///
    /// The refusal that the newcomer is to be sent.
    pub(crate) fn join(
        &mut self,
        connection: ConnectionId,
        join: Join,
        previous: Option<Membership>,
        authenticated: bool,
        public: SocketAddr,
        fresh: Membership,
    ) -> Result<Joined, Refused> {
        if join.rank == RANK_ANY {
            return Err(Refused::new(Refusal::Unsupported, "this server does not choose ranks"));
        }
        if join.size > MAX_SIZE || join.rank >= join.size {
            let text = format!("rank {} of a job of size {} (at most {MAX_SIZE})", join.rank, join.size);
            return Err(Refused::new(Refusal::Protocol, text));
        }
        let source = (!authenticated).then(|| source_of(public));
        if source.is_some_and(|source| !self.allowances.take(source, ENTRY)) {
            return Err(no_allowance());
        }
        let key = JobKey { job: join.job, job_id: join.job_id, authenticated };
        let membership = match previous {
            None => self.place(&key, &join, fresh),
            Some(previous) => self.replace(&key, &join, previous),
        };
        let membership = membership.inspect_err(|_| {
            if let Some(source) = source {
                self.allowances.give_back(source, ENTRY);
            }
        })?;
        Ok(self.attach(connection, join, membership, public, source))
    }

    /// The membership of a newcomer, in the oldest open epoch that has room
    /// for it or in a new one.
    fn place(&mut self, key: &JobKey, join: &Join, fresh: Membership) -> Result<Membership, Refused> {
        if !key.authenticated && self.jobs.contains_key(&JobKey { authenticated: true, ..*key }) {
            let text = "the job has a secret, and this rank did not prove it (FMI_SECRET)";
            return Err(Refused::new(Refusal::Auth, text));
        }
        let mut place = None;
        for id in self.jobs.get(key).into_iter().flatten() {
            let Some(epoch) = self.epochs.get(id) else { continue };
            if epoch.size != join.size {
                // Once somebody has left, the newcomer may be of the next run.
                if epoch.members.values().any(|member| member.presence == Presence::Left) {
                    continue;
                }
                let text = format!(
                    "rank {} says the size of the job is {}, rank {} said {}",
                    join.rank,
                    join.size,
                    epoch.first_rank(),
                    epoch.size
                );
                return Err(Refused::new(Refusal::Mismatch, text));
            }
            match epoch.members.get(&join.rank).map(|member| member.presence) {
                None => place = place.or(Some((id, epoch))),
                // Without a job id it may well be of another run.
                Some(Presence::Attached(_)) if key.job_id.is_some() => {
                    let text = format!("rank {} is taken by a live process of the same job", join.rank);
                    return Err(Refused::new(Refusal::RankTaken, text));
                }
                Some(_) => {}
            }
        }
        if let Some((id, epoch)) = place {
            epoch.check_fingerprint(join)?;
            return Ok(Membership { epoch: *id, token: fresh.token });
        }
        if self.jobs.get(key).is_some_and(|open| open.len() >= MAX_OPEN) {
            let text = format!("{MAX_OPEN} runs of this job are open already");
            return Err(Refused::new(Refusal::Full, text));
        }
        self.epochs.insert(fresh.epoch, Epoch::new(*key, join, false));
        self.jobs.entry(*key).or_default().push(fresh.epoch);
        Ok(fresh)
    }

    /// The membership of a rank that says it has been a member.
    fn replace(&mut self, key: &JobKey, join: &Join, previous: Membership) -> Result<Membership, Refused> {
        let gone = |text: &str| Err(Refused::new(Refusal::Gone, text));
        if self.dead(key.authenticated).known.contains(&previous.epoch) {
            return gone("this run of the job is over");
        }
        let Some(epoch) = self.epochs.get(&previous.epoch) else {
            self.epochs.insert(previous.epoch, Epoch::new(*key, join, true));
            // It is older than what was opened since this server started.
            self.jobs.entry(*key).or_default().insert(0, previous.epoch);
            self.move_newcomers(key, join, previous.epoch);
            return Ok(previous);
        };
        if epoch.key != *key || epoch.size != join.size {
            return Err(Refused::new(Refusal::Mismatch, "the rejoin names another job than its epoch has"));
        }
        epoch.check_fingerprint(join)?;
        match epoch.members.get(&join.rank) {
            None if epoch.adopted && epoch.open => Ok(previous),
            None => gone("this run of the job does not know the rank"),
            Some(member) if member.token != previous.token => {
                let text = format!("rank {} is taken by another process", join.rank);
                Err(Refused::new(Refusal::RankTaken, text))
            }
            Some(member) => match member.presence {
                Presence::Attached(_)
                | Presence::Suspected(_)
                | Presence::Vouched(_)
                | Presence::Detached(_) => Ok(previous),
                Presence::Left => gone("the rank has left this run of the job"),
                Presence::Lost => gone("the rank was declared lost when its connection ended"),
            },
        }
    }

    /// Ranks that joined before anybody told this server, which was restarted, of
    /// the run `to` are of that run, unless the rank of `join` is among them.
    fn move_newcomers(&mut self, key: &JobKey, join: &Join, to: EpochId) {
        let is_of_this_run = |epoch: &Epoch| {
            let all_here =
                epoch.members.values().all(|member| matches!(member.presence, Presence::Attached(_)));
            all_here
                && !epoch.has_gone
                && (epoch.size, epoch.fingerprint) == (join.size, join.fingerprint)
                && !epoch.members.contains_key(&join.rank)
        };
        let young = self
            .jobs
            .get(key)
            .into_iter()
            .flatten()
            .copied()
            .find(|id| *id != to && self.epochs.get(id).is_some_and(is_of_this_run));
        let Some(young) = young else { return };
        self.close_epoch(young);
        let Some(epoch) = self.epochs.get_mut(&young) else { return };
        let members = std::mem::take(&mut epoch.members);
        self.remove_epoch(young);
        let Some(epoch) = self.epochs.get_mut(&to) else { return };
        for (rank, mut member) in members {
            // They ask anew for the links that they want.
            if let Some(source) = member.source {
                self.allowances.give_back(source, WISH * member.wants.len());
            }
            member.wants.clear();
            if let Presence::Attached(connection) = member.presence {
                self.members.insert(connection, (to, rank));
                self.outputs.push_back(Output::Send(connection, ServerMessage::Moved { epoch: to }));
            }
            epoch.enter_host(member.host_id);
            epoch.members.insert(rank, member);
            self.outputs.push_back(Output::Log(format!("moved: {}", epoch.describe(&to, rank))));
        }
    }

    /// Notes where the member is.
    fn attach(
        &mut self,
        connection: ConnectionId,
        join: Join,
        membership: Membership,
        public: SocketAddr,
        source: Option<IpAddr>,
    ) -> Joined {
        let id = membership.epoch;
        let epoch = self.epochs.get_mut(&id).expect("the membership is of an epoch that is kept");
        let (rank, host_id) = (join.rank, join.host_id);
        // It repeats the wishes that it still has.
        epoch.forget_wishes_of(rank, &mut self.allowances);
        let mut before = epoch.members.remove(&rank);
        let first_source = before.as_ref().map_or(source, |member| member.source);
        if let (Some(source), Some(_)) = (source, &before) {
            // It has an entry already.
            self.allowances.give_back(source, ENTRY);
        }
        let member = Member {
            presence: Presence::Attached(connection),
            source: first_source,
            token: membership.token,
            host_id,
            public,
            private: join.private,
            wants: BTreeSet::new(),
            witnesses: before
                .as_mut()
                .map(|member| std::mem::take(&mut member.witnesses))
                .unwrap_or_default(),
        };
        epoch.enter_host(host_id);
        epoch.members.insert(rank, member);
        let back = before.is_some();
        if let Some(member) = &before {
            epoch.leave_host(member.host_id);
        }
        if let Some(Presence::Attached(old)) = before.map(|member| member.presence) {
            self.members.remove(&old);
            self.outputs.push_back(Output::Close(old));
        }
        self.members.insert(connection, (id, rank));
        let verb = if back { "rejoined" } else { "joined" };
        self.outputs.push_back(Output::Log(format!("{verb}: {} from {public}", epoch.describe(&id, rank))));
        let ranks_on_host = epoch.ranks_on_host(host_id);
        self.brief(connection, id, rank);
        Joined { rank, public, membership, ranks_on_host }
    }

    /// Tells a member that has just come what the others know, and asks it what it
    /// may know.
    fn brief(&mut self, connection: ConnectionId, id: EpochId, rank: u32) {
        let Some(epoch) = self.epochs.get_mut(&id) else { return };
        if !epoch.open {
            // What the others were told while it was away.
            let lost = epoch.members.iter().filter(|(_, member)| member.presence == Presence::Lost);
            for (gone, _) in lost {
                let message = ServerMessage::Unreachable { rank: *gone, reason: Reason::Lost };
                self.outputs.push_back(Output::Send(connection, message));
            }
        }
        for absentee in absentees(&self.ended, epoch) {
            let message = ServerMessage::Unreachable { rank: absentee, reason: Reason::Ended };
            self.outputs.push_back(Output::Send(connection, message));
        }
        for from in epoch.wanting(rank) {
            self.outputs.push_back(Output::Send(connection, ServerMessage::Offer { rank: from }));
            if let Some(peer) = epoch.connection_of(from) {
                let message = ServerMessage::NotYet { rank, missing: Missing::NotReady };
                self.outputs.push_back(Output::Send(peer, message));
            }
        }
        for &(teller, notice) in epoch.aborts.iter().filter(|(teller, _)| *teller != rank) {
            let message = ServerMessage::Aborted { rank: teller, notice };
            self.outputs.push_back(Output::Send(connection, message));
        }
        for (_, _, suspect) in self.suspects.iter().filter(|(_, of, suspect)| *of == id && *suspect != rank) {
            if epoch.adopted {
                epoch.pair(rank, *suspect, &mut self.allowances);
            }
            let suspected = epoch.members.get(suspect).filter(|member| member.presence.is_suspected());
            if suspected.is_some_and(|member| member.witnesses.contains(&rank)) {
                self.outputs.push_back(Output::Send(connection, ServerMessage::Suspect { rank: *suspect }));
            }
        }
    }
}
