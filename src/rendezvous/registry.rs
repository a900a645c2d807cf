//! What a rendezvous server knows: epochs, their members, and who wants a link
//! to whom. Pure state: events go in, messages come out; connections are
//! numbers, and the time and the random bytes are the caller's.
//!
//! An **epoch** is one run of one job. It is *open* until a member is lost or
//! all who joined have left; only an open epoch takes new members. A closed
//! one is kept for the members that it still has, and then remembered by its
//! identity alone, so that a late rejoin does not bring it back.
//!
//! The end of a member's connection makes it a **suspect**: a proxy may have cut
//! it, or a NAT forgotten it. Those that were told to connect to it are its
//! **witnesses**, and are asked. One of them with a live link is enough: then the
//! member is only out of sight, until the last such link breaks. It is lost as soon
//! as all have denied, at once where there is none, and after [`SUSPICION`] where
//! they are silent (a witness that computes does not hear the question).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::allowance::{Allowances, source_of};
use super::protocol::{
    Epoch as EpochId, Hash, Join, Joined, Membership, Missing, RANK_ANY, Reason, Refusal, ServerMessage,
    Token,
};
use crate::engine::frame::AbortNotice;

/// The largest job. What a member may make the server remember grows with the
/// size that it claims.
pub(crate) const MAX_SIZE: u32 = 1 << 16;
/// The most connects that one member may have pending: a rank that opens all
/// links of a job of 1,024 at once stays well below.
const MAX_WANTED: usize = 4096;
/// The most open epochs of one job: each newcomer looks at all of them.
const MAX_OPEN: usize = 1024;
/// What a member takes of its source's allowance, in bytes: its entry, four
/// private addresses, and its share of the epoch, which has at least one and
/// remembers up to [`MAX_ABORTS`] failures.
const ENTRY: usize = 2048;
/// What a pending connect takes: it stands in two B-trees, whose nodes may be
/// half empty. Measured: a million of them made a server grow by 34 bytes each.
const WISH: usize = 40;
/// What a witness takes: 4 bytes in a B-tree.
const WITNESS: usize = 12;
/// The most failed contexts that are remembered of an epoch.
const MAX_ABORTS: usize = 16;
/// How long an epoch without any connection is kept for members that may come
/// back.
const DETACHED_FOR: Duration = Duration::from_secs(600);
/// How long a suspect's witnesses have to speak for it.
const SUSPICION: Duration = Duration::from_millis(500);
/// The most witnesses that are remembered of a member: a rank has at most some
/// 900 links, because of its descriptors.
const MAX_WITNESSES: usize = 1024;
/// How many dead epochs are remembered by their identity, of ranks that proved
/// the secret and of others: these cannot make the server forget those.
const MAX_DEAD: usize = 4096;

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

/// The identities of dead epochs, as far back as they are remembered.
#[derive(Default)]
struct Dead {
    order: VecDeque<EpochId>,
    known: HashSet<EpochId>,
}

/// Runs under the same key are told apart by size and rank alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct JobKey {
    job: Hash,
    job_id: Option<Hash>,
    /// Ranks that proved the secret never meet ranks that did not.
    authenticated: bool,
}

struct Epoch {
    key: JobKey,
    size: u32,
    fingerprint: u64,
    open: bool,
    /// Made known by a rejoin, after this server had been restarted: then its
    /// other members are not known either, and come with tokens of their own.
    adopted: bool,
    /// Whether two members were told to connect: from then on they rely on its
    /// identity.
    has_gone: bool,
    members: BTreeMap<u32, Member>,
    /// How many members each host has that are not gone.
    hosts: HashMap<u64, u32>,
    /// A rank, joined or not, and a member that wants a link to it.
    wanted_by: BTreeSet<(u32, u32)>,
    /// What its members said first of each context whose collectives failed,
    /// and who said it.
    aborts: Vec<(u32, AbortNotice)>,
}

struct Member {
    presence: Presence,
    /// Whose allowance it, its wishes and its witnesses take from: where it
    /// joined first, wherever it has come back from. None if it has proved the
    /// secret.
    source: Option<IpAddr>,
    token: Token,
    host_id: u64,
    public: SocketAddr,
    private: Vec<SocketAddr>,
    /// The ranks that it wants a link to; mirrors [`Epoch::wanted_by`].
    wants: BTreeSet<u32>,
    /// The ranks that may have a link to it: told to connect, and neither gone
    /// nor known to have lost the link. Each is in the set of the other.
    witnesses: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Attached(ConnectionId),
    /// Its connection was closed, and its witnesses are asked.
    Suspected(Instant),
    /// Its connection was closed, but a witness has a live link to it.
    Vouched(Instant),
    /// The network says nothing of its connection any more. That is no word
    /// about the member.
    Detached(Instant),
    Left,
    Lost,
}

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
            match self
                .epochs
                .get(&id)
                .and_then(|epoch| epoch.members.get(&rank))
                .map(|member| member.presence)
            {
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

    /// What is to be done next.
    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
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

    /// Notes where the member is, and offers it what is wanted of it.
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
        let verb = if back { "rejoined" } else { "joined" };
        self.outputs.push_back(Output::Log(format!("{verb}: {} from {public}", epoch.describe(&id, rank))));
        Joined { rank, public, membership, ranks_on_host: epoch.ranks_on_host(host_id) }
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
}

impl Dead {
    fn insert(&mut self, id: EpochId) {
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

fn has_ended(ended: &HashMap<Hash, BTreeSet<u32>>, key: &JobKey, rank: u32) -> bool {
    key.job_id.and_then(|id| ended.get(&id)).is_some_and(|ranks| ranks.contains(&rank))
}

/// The ranks whose process has ended and that have not joined.
fn absentees<'a>(
    ended: &'a HashMap<Hash, BTreeSet<u32>>,
    epoch: &'a Epoch,
) -> impl Iterator<Item = u32> + 'a {
    let ended = epoch.key.job_id.and_then(|id| ended.get(&id)).into_iter().flatten().copied();
    ended.filter(|rank| *rank < epoch.size && !epoch.members.contains_key(rank))
}

impl Epoch {
    fn new(key: JobKey, join: &Join, adopted: bool) -> Self {
        Self {
            key,
            size: join.size,
            fingerprint: join.fingerprint,
            open: true,
            adopted,
            has_gone: false,
            members: BTreeMap::new(),
            hosts: HashMap::new(),
            wanted_by: BTreeSet::new(),
            aborts: Vec::new(),
        }
    }

    fn check_peer(&self, rank: u32, peer: u32) -> Result<(), Refused> {
        if peer < self.size && peer != rank {
            return Ok(());
        }
        let text = format!("rank {rank} asked for rank {peer} in a job of size {}", self.size);
        Err(Refused::new(Refusal::Protocol, text))
    }

    fn check_fingerprint(&self, join: &Join) -> Result<(), Refused> {
        if self.fingerprint == join.fingerprint {
            return Ok(());
        }
        let text = format!(
            "the configuration of rank {} (fingerprint {:016x}) differs from that of rank {} ({:016x})",
            join.rank,
            join.fingerprint,
            self.first_rank(),
            self.fingerprint
        );
        Err(Refused::new(Refusal::Mismatch, text))
    }

    /// A rank that has joined, to be named in a message.
    fn first_rank(&self) -> u32 {
        self.members.keys().next().copied().unwrap_or(0)
    }

    fn wants(&self, from: u32, to: u32) -> bool {
        self.members.get(&from).is_some_and(|member| member.wants.contains(&to))
    }

    /// The members that want a link to `rank`.
    fn wanting(&self, rank: u32) -> impl Iterator<Item = u32> {
        self.wanted_by.range((rank, 0)..=(rank, u32::MAX)).map(|(_, from)| *from)
    }

    fn forget_wish(&mut self, from: u32, to: u32, allowances: &mut Allowances) {
        let Some(member) = self.members.get_mut(&from) else { return };
        if member.wants.remove(&to) {
            self.wanted_by.remove(&(to, from));
            if let Some(source) = member.source {
                allowances.give_back(source, WISH);
            }
        }
    }

    fn forget_wishes_of(&mut self, rank: u32, allowances: &mut Allowances) {
        let Some(member) = self.members.get_mut(&rank) else { return };
        let wants = std::mem::take(&mut member.wants);
        if let Some(source) = member.source {
            allowances.give_back(source, WISH * wants.len());
        }
        for to in wants {
            self.wanted_by.remove(&(to, rank));
        }
    }

    fn set_presence(&mut self, rank: u32, presence: Presence) {
        if let Some(member) = self.members.get_mut(&rank) {
            member.presence = presence;
        }
    }

    /// From now on each of the two is a witness of the other, if there is room for
    /// both.
    fn pair(&mut self, a: u32, b: u32, allowances: &mut Allowances) {
        let mut add = |rank, witness| {
            self.members.get_mut(&rank).is_some_and(|member| member.add_witness(witness, allowances))
        };
        if !(add(a, b) && add(b, a)) {
            self.unpair(a, b, allowances);
        }
    }

    fn unpair(&mut self, a: u32, b: u32, allowances: &mut Allowances) {
        for (rank, witness) in [(a, b), (b, a)] {
            if let Some(member) = self.members.get_mut(&rank) {
                member.remove_witness(witness, allowances);
            }
        }
    }

    /// `rank` is nobody's witness any more; returns those that are lost without
    /// it. A link that has ended in order says nothing of its other end.
    fn unpair_all(&mut self, rank: u32, reason: Reason, allowances: &mut Allowances) -> Vec<u32> {
        let witnesses: Vec<u32> =
            self.members.get(&rank).into_iter().flat_map(|member| &member.witnesses).copied().collect();
        let mut doomed = Vec::new();
        for peer in witnesses {
            self.unpair(rank, peer, allowances);
            let is_lost = match self.members.get(&peer).map(|member| member.presence) {
                Some(Presence::Suspected(_)) => self.is_without_witness(peer),
                Some(Presence::Vouched(_)) => reason != Reason::Left && self.is_out_of_sight(peer),
                _ => false,
            };
            if is_lost {
                doomed.push(peer);
            }
        }
        doomed
    }

    /// Whether nobody is left who could have a live link to `rank`. Where members
    /// may not have come back since a restart, that is not known.
    fn is_without_witness(&self, rank: u32) -> bool {
        let knows_all = !self.adopted || self.members.len() == self.size as usize;
        knows_all && self.members.get(&rank).is_some_and(|member| member.witnesses.is_empty())
    }

    /// Whether nobody is connected that could have a live link to `rank`.
    fn is_out_of_sight(&self, rank: u32) -> bool {
        let mut witnesses = self.members.get(&rank).into_iter().flat_map(|member| &member.witnesses);
        !witnesses.any(|witness| self.connection_of(*witness).is_some())
    }

    fn attached(&self) -> impl Iterator<Item = (u32, ConnectionId)> {
        self.members.iter().filter_map(|(rank, member)| match member.presence {
            Presence::Attached(connection) => Some((*rank, connection)),
            _ => None,
        })
    }

    fn connection_of(&self, rank: u32) -> Option<ConnectionId> {
        match self.members.get(&rank)?.presence {
            Presence::Attached(connection) => Some(connection),
            _ => None,
        }
    }

    fn ranks_on_host(&self, host_id: u64) -> u32 {
        self.hosts.get(&host_id).copied().unwrap_or(0)
    }

    fn enter_host(&mut self, host_id: u64) {
        *self.hosts.entry(host_id).or_default() += 1;
    }

    fn leave_host(&mut self, host_id: u64) {
        if let Some(count) = self.hosts.get_mut(&host_id) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host_id);
            }
        }
    }

    fn describe(&self, id: &EpochId, rank: u32) -> Description {
        Description { job: self.key.job, epoch: *id, rank, size: self.size }
    }
}

impl Member {
    /// Whether there was room for it.
    fn add_witness(&mut self, rank: u32, allowances: &mut Allowances) -> bool {
        if self.witnesses.contains(&rank) {
            return true;
        }
        let has_room = self.witnesses.len() < MAX_WITNESSES
            && self.source.is_none_or(|source| allowances.take(source, WITNESS));
        has_room && self.witnesses.insert(rank)
    }

    fn remove_witness(&mut self, rank: u32, allowances: &mut Allowances) {
        if self.witnesses.remove(&rank)
            && let Some(source) = self.source
        {
            allowances.give_back(source, WITNESS);
        }
    }
}

impl Presence {
    fn gone(self) -> Option<Reason> {
        match self {
            Self::Left => Some(Reason::Left),
            Self::Lost => Some(Reason::Lost),
            Self::Attached(_) | Self::Suspected(_) | Self::Vouched(_) | Self::Detached(_) => None,
        }
    }

    fn is_suspected(self) -> bool {
        matches!(self, Self::Suspected(_))
    }
}

fn no_allowance() -> Refused {
    let text =
        "this server remembers no more for ranks at this address that do not prove a secret (FMI_SECRET)";
    Refused::new(Refusal::Full, text)
}

/// A member in a log line; four bytes tell jobs and epochs apart.
struct Description {
    job: Hash,
    epoch: EpochId,
    rank: u32,
    size: u32,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("job ")?;
        self.job[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(" epoch ")?;
        self.epoch[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " rank {} of {}", self.rank, self.size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    /// A registry whose members are named by their connection.
    #[derive(Default)]
    struct Bench {
        registry: Registry,
        fresh: u8,
    }

    fn join_of(rank: u32, size: u32) -> Join {
        Join {
            job: [1; 32],
            job_id: None,
            rank,
            size,
            host_id: 0,
            fingerprint: 5,
            private: vec![format!("10.0.0.{rank}:1").parse().unwrap()],
        }
    }

    fn public_of(connection: ConnectionId) -> SocketAddr {
        format!("1.1.1.1:{}", 1000 + connection).parse().unwrap()
    }

    impl Bench {
        fn fresh(&mut self) -> Membership {
            self.fresh += 1;
            Membership { epoch: [self.fresh; 16], token: [self.fresh; 16] }
        }

        fn join_with(&mut self, connection: ConnectionId, join: Join) -> Result<Joined, Refused> {
            let fresh = self.fresh();
            self.registry.join(connection, join, None, false, public_of(connection), fresh)
        }

        fn join(&mut self, connection: ConnectionId, rank: u32, size: u32) -> Joined {
            self.join_with(connection, join_of(rank, size)).unwrap()
        }

        fn rejoin(
            &mut self,
            connection: ConnectionId,
            join: Join,
            membership: Membership,
        ) -> Result<Joined, Refused> {
            let fresh = self.fresh();
            self.registry.join(connection, join, Some(membership), false, public_of(connection), fresh)
        }

        fn close(&mut self, connection: ConnectionId) {
            self.registry.closed(connection, End::Closed, Instant::now());
        }

        /// A job of `size` whose ranks are connected each with each; rank r is
        /// behind connection 10 + r.
        fn meshed(size: u32) -> Self {
            let mut bench = Self::default();
            for rank in 0..size {
                bench.join(10 + u64::from(rank), rank, size);
                for peer in 0..rank {
                    bench.connect(10 + u64::from(peer), rank);
                    bench.connect(10 + u64::from(rank), peer);
                }
            }
            bench.sent();
            bench
        }

        fn link(&mut self, connection: ConnectionId, about: u32, alive: bool) {
            self.registry.link(connection, about, alive).unwrap();
        }

        fn connect(&mut self, connection: ConnectionId, to: u32) {
            self.registry.connect(connection, to).unwrap();
        }

        /// The messages since the last call, without the log.
        fn sent(&mut self) -> Vec<(ConnectionId, ServerMessage)> {
            std::iter::from_fn(|| self.registry.next_output())
                .filter_map(|output| match output {
                    Output::Send(connection, message) => Some((connection, message)),
                    Output::Close(_) | Output::Log(_) => None,
                })
                .collect()
        }
    }

    fn notice_of(rank: u32) -> AbortNotice {
        AbortNotice {
            context: 1,
            cause: ErrorKind::Timeout,
            cause_rank: rank,
            about: Some(0),
            code: 7,
            operation: 21,
        }
    }

    fn go(rank: u32, connection: ConnectionId) -> ServerMessage {
        let candidates = vec![format!("10.0.0.{rank}:1").parse().unwrap(), public_of(connection)];
        ServerMessage::Go { rank, ranks_on_host: 2, candidates }
    }

    fn not_yet(rank: u32, missing: Missing) -> ServerMessage {
        ServerMessage::NotYet { rank, missing }
    }

    fn unreachable(rank: u32, reason: Reason) -> ServerMessage {
        ServerMessage::Unreachable { rank, reason }
    }

    #[test]
    fn a_wish_and_its_answer_start_both() {
        let mut bench = Bench::default();
        bench.join(10, 0, 3);
        bench.join(11, 1, 3);
        bench.sent();
        bench.connect(10, 1);
        bench.connect(10, 1);
        assert_eq!(
            bench.sent(),
            [(11, ServerMessage::Offer { rank: 0 }), (10, not_yet(1, Missing::NotReady))],
            "asking twice is asking once"
        );
        bench.registry.ready(11, 0).unwrap();
        assert_eq!(bench.sent(), [(10, go(1, 11)), (11, go(0, 10))]);
        bench.registry.ready(11, 0).unwrap();
        assert_eq!(bench.sent(), [], "the offer stands no more");
        bench.connect(10, 1);
        assert_eq!(bench.sent().len(), 2, "a new attempt is a new offer");
    }

    #[test]
    fn two_wishes_that_cross_start_both() {
        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        bench.join(11, 1, 2);
        bench.connect(10, 1);
        bench.sent();
        bench.connect(11, 0);
        assert_eq!(bench.sent(), [(10, go(1, 11)), (11, go(0, 10))]);
    }

    #[test]
    fn a_wish_waits_for_who_has_not_joined() {
        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        bench.connect(10, 1);
        assert_eq!(bench.sent(), [(10, not_yet(1, Missing::NotJoined))]);
        bench.join(11, 1, 2);
        assert_eq!(
            bench.sent(),
            [(11, ServerMessage::Offer { rank: 0 }), (10, not_yet(1, Missing::NotReady))]
        );
    }

    #[test]
    fn who_left_is_told_to_those_who_want_it() {
        let mut bench = Bench::default();
        for rank in 0..3 {
            bench.join(10 + u64::from(rank), rank, 3);
        }
        bench.connect(10, 2);
        bench.sent();
        bench.registry.leave(12);
        assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Left))]);
        bench.connect(11, 2);
        assert_eq!(bench.sent(), [(11, unreachable(2, Reason::Left))]);
        bench.close(12);
        assert_eq!(bench.sent(), [], "the end of its connection is no loss");
    }

    /// Their link may not stand yet, and then never will.
    #[test]
    fn who_left_is_told_to_those_who_were_to_connect() {
        let mut bench = Bench::default();
        for rank in 0..3 {
            bench.join(10 + u64::from(rank), rank, 3);
        }
        bench.connect(10, 2);
        bench.registry.ready(12, 0).unwrap();
        bench.sent();
        bench.registry.leave(12);
        assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Left))]);
    }

    #[test]
    fn a_loss_is_told_to_all_and_closes_the_epoch() {
        let mut bench = Bench::default();
        let first = bench.join(10, 0, 3).membership.epoch;
        bench.join(11, 1, 3);
        bench.connect(10, 1);
        bench.sent();
        bench.close(11);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
        bench.connect(10, 1);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
        assert_ne!(bench.join(12, 2, 3).membership.epoch, first, "nobody enters it any more");
        bench.connect(10, 2);
        assert_eq!(bench.sent(), [(10, not_yet(2, Missing::NotJoined))], "the newcomer is of another run");
    }

    #[test]
    fn a_suspect_is_lost_as_soon_as_all_its_witnesses_have_denied() {
        let mut bench = Bench::meshed(3);
        bench.close(11);
        let asked = ServerMessage::Suspect { rank: 1 };
        assert_eq!(bench.sent(), [(10, asked.clone()), (12, asked)]);
        bench.link(10, 1, false);
        assert_eq!(bench.sent(), []);
        bench.link(12, 1, false);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
    }

    #[test]
    fn who_has_seen_its_link_break_need_not_be_asked() {
        let mut bench = Bench::meshed(3);
        bench.link(10, 1, false);
        bench.link(12, 1, false);
        assert_eq!(bench.sent(), [], "its connection stands: the network may be cut elsewhere");
        bench.close(11);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
    }

    #[test]
    fn one_live_link_is_enough_until_it_breaks() {
        let mut bench = Bench::meshed(3);
        let now = Instant::now();
        bench.registry.closed(11, End::Closed, now);
        bench.link(10, 1, false);
        bench.link(12, 1, true);
        bench.sent();
        bench.registry.tick(now + 2 * SUSPICION);
        assert_eq!(bench.sent(), []);
        bench.connect(10, 1);
        assert_eq!(bench.sent(), [(10, not_yet(1, Missing::NotReady))], "it is out of sight, no more");
        bench.link(12, 1, false);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
    }

    #[test]
    fn a_suspect_for_whom_nobody_speaks_is_lost_in_the_end() {
        let mut bench = Bench::meshed(2);
        let now = Instant::now();
        assert_eq!(bench.registry.next_timer(), None);
        bench.registry.closed(11, End::Closed, now);
        bench.sent();
        let timer = bench.registry.next_timer().unwrap();
        assert_eq!(timer, now + SUSPICION);
        bench.registry.tick(timer - Duration::from_millis(1));
        assert_eq!(bench.sent(), []);
        bench.registry.tick(timer);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
        assert_eq!(bench.registry.next_timer(), None);
    }

    #[test]
    fn silence_of_the_network_stays_unknown_whatever_links_say() {
        let mut bench = Bench::meshed(2);
        let now = Instant::now();
        bench.registry.closed(11, End::Unknown, now);
        bench.link(10, 1, false);
        bench.registry.tick(now + 10 * SUSPICION);
        assert_eq!(bench.sent(), []);
    }

    #[test]
    fn those_that_died_together_do_not_wait_for_each_other_for_ever() {
        let mut bench = Bench::meshed(3);
        let now = Instant::now();
        bench.registry.closed(11, End::Closed, now);
        bench.registry.closed(12, End::Closed, now);
        bench.link(10, 1, false);
        bench.link(10, 2, false);
        bench.sent();
        bench.registry.tick(now + SUSPICION);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (10, unreachable(2, Reason::Lost))]);
    }

    #[test]
    fn ranks_that_lose_the_server_all_at_once_and_come_back_are_not_lost() {
        let mut bench = Bench::default();
        let memberships: Vec<_> =
            (0..3).map(|rank| bench.join(10 + u64::from(rank), rank, 3).membership).collect();
        for (from, to) in [(0, 1), (0, 2), (1, 2)] {
            bench.connect(10 + u64::from(from), to);
            bench.connect(10 + u64::from(to), from);
        }
        let now = Instant::now();
        (10..13).for_each(|connection| bench.registry.closed(connection, End::Closed, now));
        bench.sent();
        bench.rejoin(20, join_of(0, 3), memberships[0]).unwrap();
        let asked = |rank| (20, ServerMessage::Suspect { rank });
        assert_eq!(bench.sent(), [asked(1), asked(2)], "who comes back is asked");
        bench.link(20, 1, true);
        bench.rejoin(22, join_of(2, 3), memberships[2]).unwrap();
        bench.registry.tick(now + SUSPICION);
        assert_eq!(bench.sent(), []);
        bench.rejoin(21, join_of(1, 3), memberships[1]).unwrap();
    }

    #[test]
    fn a_process_that_ended_is_lost_when_its_connection_is_gone() {
        let mut bench = Bench::default();
        let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 4) };
        for rank in 0..2 {
            bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
        }
        bench.connect(10, 1);
        bench.connect(11, 0);
        bench.connect(10, 3);
        bench.sent();
        bench.registry.process_ended([9; 32], 1);
        bench.registry.process_ended([8; 32], 0);
        assert_eq!(bench.sent(), [], "a wrapper: who holds the connection lives");
        bench.close(11);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Ended))], "nobody is asked");
        bench.registry.process_ended([9; 32], 3);
        assert_eq!(bench.sent(), [(10, unreachable(3, Reason::Ended))], "it has never joined");
        bench.connect(10, 3);
        assert_eq!(bench.sent(), [(10, unreachable(3, Reason::Ended))]);
        bench.join_with(12, of_job(2)).unwrap();
        let ended = |rank| (12, unreachable(rank, Reason::Ended));
        assert_eq!(bench.sent(), [ended(1), ended(3)], "who comes later hears it too");
    }

    #[test]
    fn a_suspect_whose_process_has_ended_is_lost_at_once() {
        let mut bench = Bench::default();
        let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 2) };
        for rank in 0..2 {
            bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
        }
        bench.connect(10, 1);
        bench.connect(11, 0);
        bench.close(11);
        bench.sent();
        bench.registry.process_ended([9; 32], 1);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Ended))]);
    }

    #[test]
    fn a_rank_that_left_has_left_also_when_its_process_ends() {
        let mut bench = Bench::default();
        let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 2) };
        for rank in 0..2 {
            bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
        }
        bench.registry.leave(11);
        bench.registry.process_ended([9; 32], 1);
        bench.connect(10, 1);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Left))]);
    }

    #[test]
    fn after_a_restart_everybody_is_asked() {
        let mut bench = Bench::default();
        for rank in 0..2 {
            let membership = Membership { epoch: [50; 16], token: [rank as u8; 16] };
            bench.rejoin(10 + u64::from(rank), join_of(rank, 3), membership).unwrap();
        }
        let now = Instant::now();
        bench.registry.closed(11, End::Closed, now);
        assert_eq!(bench.sent(), [(10, ServerMessage::Suspect { rank: 1 })]);
        bench.link(10, 1, false);
        assert_eq!(bench.sent(), [], "rank 2 has not come back, and may have a link");
        bench.registry.tick(now + SUSPICION);
        assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
    }

    #[test]
    fn a_rank_that_is_done_before_another_joins_is_of_the_same_run() {
        let mut bench = Bench::default();
        let epoch = bench.join(10, 0, 3).membership.epoch;
        bench.join(11, 1, 3);
        bench.registry.leave(10);
        assert_eq!(bench.join(12, 2, 3).membership.epoch, epoch);
    }

    #[test]
    fn a_name_is_reused_at_once_by_ranks_that_go_at_their_own_pace() {
        let mut bench = Bench::default();
        let first = bench.join(10, 0, 2).membership.epoch;
        bench.join(11, 1, 2);
        bench.registry.leave(10);
        let second = bench.join(12, 0, 2).membership.epoch;
        assert_ne!(first, second);
        bench.registry.leave(11);
        assert_eq!(bench.join(13, 1, 2).membership.epoch, second);
    }

    #[test]
    fn an_epoch_ends_when_all_who_joined_have_left() {
        let mut bench = Bench::default();
        let first = bench.join(10, 0, 2).membership.epoch;
        bench.registry.leave(10);
        assert!(bench.registry.epochs.is_empty() && bench.registry.jobs.is_empty());
        assert_ne!(bench.join(11, 1, 2).membership.epoch, first);
    }

    #[test]
    fn two_runs_without_job_id_stay_apart() {
        let mut bench = Bench::default();
        let first = bench.join(10, 0, 2).membership.epoch;
        let second = bench.join(11, 0, 2).membership.epoch;
        assert_ne!(first, second);
        assert_eq!(bench.join(12, 1, 2).membership.epoch, first, "the oldest first");
        assert_eq!(bench.join(13, 1, 2).membership.epoch, second);
    }

    #[test]
    fn a_second_holder_of_a_rank_is_refused_where_that_is_certain() {
        let mut bench = Bench::default();
        let join = Join { job_id: Some([9; 32]), ..join_of(0, 2) };
        bench.join_with(10, join.clone()).unwrap();
        let refused = bench.join_with(11, join.clone()).unwrap_err();
        assert_eq!(refused.refusal, Refusal::RankTaken);
        bench.registry.closed(10, End::Unknown, Instant::now());
        bench.join_with(12, join).unwrap();
    }

    #[test]
    fn another_size_is_refused_until_somebody_has_left() {
        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        bench.join(11, 1, 2);
        let refused = bench.join_with(12, join_of(2, 3)).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Mismatch);
        assert_eq!(refused.text, "rank 2 says the size of the job is 3, rank 0 said 2");
        bench.registry.leave(10);
        bench.join(12, 2, 3);
    }

    #[test]
    fn another_fingerprint_is_refused() {
        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        let refused = bench.join_with(11, Join { fingerprint: 6, ..join_of(1, 2) }).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Mismatch);
        assert!(refused.text.contains("0000000000000006") && refused.text.contains("0000000000000005"));
    }

    #[test]
    fn ranks_with_and_without_the_secret_never_meet() {
        let mut bench = Bench::default();
        let fresh = bench.fresh();
        let public = public_of(10);
        bench.registry.join(10, join_of(0, 2), None, true, public, fresh).unwrap();
        assert_eq!(bench.join_with(11, join_of(1, 2)).unwrap_err().refusal, Refusal::Auth);

        let mut bench = Bench::default();
        let open = bench.join(10, 0, 2).membership.epoch;
        let fresh = bench.fresh();
        let joined = bench.registry.join(11, join_of(1, 2), None, true, public, fresh).unwrap();
        assert_ne!(joined.membership.epoch, open, "a squatter without the secret is in nobody's way");
    }

    #[test]
    fn a_member_whose_connection_fell_silent_comes_back() {
        let mut bench = Bench::default();
        let membership = bench.join(10, 0, 2).membership;
        bench.join(11, 1, 2);
        bench.connect(11, 0);
        bench.connect(10, 1);
        bench.sent();
        bench.connect(11, 0);
        bench.registry.closed(10, End::Unknown, Instant::now());
        assert_eq!(
            bench.sent(),
            [(10, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))]
        );
        assert_eq!(bench.rejoin(12, join_of(0, 2), membership).unwrap().membership, membership);
        assert_eq!(
            bench.sent(),
            [(12, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))],
            "what is wanted of it is offered again"
        );
        let stolen = Membership { token: [77; 16], ..membership };
        assert_eq!(bench.rejoin(13, join_of(0, 2), stolen).unwrap_err().refusal, Refusal::RankTaken);
    }

    #[test]
    fn a_member_may_be_back_before_its_old_connection_is_known_to_be_gone() {
        let mut bench = Bench::default();
        let membership = bench.join(10, 0, 2).membership;
        while bench.registry.next_output().is_some() {}
        bench.rejoin(12, join_of(0, 2), membership).unwrap();
        assert_eq!(bench.registry.next_output(), Some(Output::Close(10)));
        bench.close(10);
        bench.join(11, 1, 2);
        bench.sent();
        bench.connect(11, 0);
        assert_eq!(
            bench.sent(),
            [(12, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))]
        );
    }

    #[test]
    fn a_restarted_server_adopts_what_its_members_remember() {
        let mut bench = Bench::default();
        let membership = |token| Membership { epoch: [50; 16], token: [token; 16] };
        bench.rejoin(10, join_of(0, 3), membership(1)).unwrap();
        bench.rejoin(11, join_of(1, 3), membership(2)).unwrap();
        let refused = |bench: &mut Bench, join, membership| {
            bench.rejoin(12, join, membership).map(drop).unwrap_err().refusal
        };
        assert_eq!(refused(&mut bench, join_of(1, 3), membership(3)), Refusal::RankTaken, "the first counts");
        assert_eq!(refused(&mut bench, join_of(2, 4), membership(3)), Refusal::Mismatch);
        let other = Join { fingerprint: 6, ..join_of(2, 3) };
        assert_eq!(refused(&mut bench, other, membership(3)), Refusal::Mismatch);
        assert_eq!(bench.join(13, 2, 3).membership.epoch, [50; 16], "who had not joined yet joins them");
        bench.connect(10, 1);
        bench.sent();
        bench.registry.ready(11, 0).unwrap();
        assert_eq!(bench.sent().len(), 2);
    }

    #[test]
    fn who_joins_a_restarted_server_first_is_moved_to_the_run_that_comes_back() {
        let mut bench = Bench::default();
        bench.join(12, 2, 3);
        bench.connect(12, 0);
        bench.sent();
        let membership = Membership { epoch: [50; 16], token: [1; 16] };
        bench.rejoin(10, join_of(0, 3), membership).unwrap();
        assert_eq!(bench.sent(), [(12, ServerMessage::Moved { epoch: [50; 16] })]);
        bench.connect(12, 0);
        bench.registry.ready(10, 2).unwrap();
        assert_eq!(
            bench.sent(),
            [
                (10, ServerMessage::Offer { rank: 2 }),
                (12, not_yet(0, Missing::NotReady)),
                (12, go(0, 10)),
                (10, go(2, 12))
            ]
        );
        bench.close(12);
        assert_eq!(bench.sent(), [(10, ServerMessage::Suspect { rank: 2 })]);
    }

    #[test]
    fn who_has_begun_another_run_stays_in_it() {
        let mut bench = Bench::meshed(2);
        let membership = Membership { epoch: [50; 16], token: [1; 16] };
        bench.rejoin(20, join_of(0, 2), membership).unwrap();
        assert_eq!(bench.sent(), [], "they have their GO");

        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        bench.rejoin(20, join_of(0, 2), membership).unwrap();
        assert_eq!(bench.sent(), [], "the same rank twice: two runs");
    }

    #[test]
    fn a_run_that_is_over_is_not_brought_back() {
        let mut bench = Bench::default();
        let (zero, one) = (bench.join(10, 0, 2).membership, bench.join(11, 1, 2).membership);
        bench.close(10);
        assert_eq!(bench.rejoin(12, join_of(0, 2), zero).unwrap_err().refusal, Refusal::Gone);
        bench.registry.leave(11);
        assert_eq!(bench.rejoin(12, join_of(0, 2), zero).unwrap_err().refusal, Refusal::Gone);
        assert_eq!(bench.rejoin(12, join_of(1, 2), one).unwrap_err().refusal, Refusal::Gone);
    }

    #[test]
    fn an_epoch_without_connections_is_forgotten_in_the_end() {
        let mut bench = Bench::default();
        bench.join(10, 0, 2);
        let now = Instant::now();
        bench.registry.closed(10, End::Unknown, now);
        bench.registry.expire(now + DETACHED_FOR / 2);
        assert_eq!(bench.registry.epochs.len(), 1);
        bench.registry.expire(now + DETACHED_FOR);
        assert!(bench.registry.epochs.is_empty() && bench.registry.jobs.is_empty());
    }

    #[test]
    fn an_abort_reaches_all_others_once() {
        let mut bench = Bench::default();
        for rank in 0..2 {
            bench.join(10 + u64::from(rank), rank, 3);
        }
        let two = bench.join(12, 2, 3).membership;
        bench.sent();
        let first = notice_of(1);
        bench.registry.abort(11, first).unwrap();
        bench.registry.abort(11, AbortNotice { code: 8, ..first }).unwrap();
        bench.registry.abort(10, AbortNotice { cause_rank: 0, ..first }).unwrap();
        let aborted = |notice| ServerMessage::Aborted { rank: 1, notice };
        assert_eq!(bench.sent(), [(10, aborted(first)), (12, aborted(first))]);
        bench.registry.closed(12, End::Unknown, Instant::now());
        let other = AbortNotice { context: 2, ..first };
        bench.registry.abort(11, other).unwrap();
        assert_eq!(bench.sent(), [(10, aborted(other))], "of another communicator");
        bench.rejoin(22, join_of(2, 3), two).unwrap();
        assert_eq!(bench.sent(), [(22, aborted(first)), (22, aborted(other))], "who was away hears it too");
        for wrong in [AbortNotice { cause_rank: 3, ..first }, AbortNotice { about: Some(3), ..first }] {
            assert_eq!(bench.registry.abort(11, wrong).unwrap_err().refusal, Refusal::Protocol);
        }
    }

    #[test]
    fn ranks_that_cannot_be_are_refused() {
        let mut bench = Bench::default();
        for (rank, size, refusal) in [
            (2, 2, Refusal::Protocol),
            (0, 0, Refusal::Protocol),
            (0, MAX_SIZE + 1, Refusal::Protocol),
            (RANK_ANY, 2, Refusal::Unsupported),
        ] {
            let join = Join { private: Vec::new(), ..join_of(0, size) };
            assert_eq!(bench.join_with(10, Join { rank, ..join }).unwrap_err().refusal, refusal);
        }
        bench.join(10, 0, 2);
        for peer in [0, 2, u32::MAX] {
            assert_eq!(bench.registry.connect(10, peer).unwrap_err().refusal, Refusal::Protocol);
            assert_eq!(bench.registry.ready(10, peer).unwrap_err().refusal, Refusal::Protocol);
        }
    }

    #[test]
    fn nothing_is_kept_of_members_that_are_gone() {
        let mut bench = Bench::default();
        bench.join(10, 0, 4);
        bench.join(11, 1, 4);
        for to in 1..4 {
            bench.connect(10, to);
        }
        bench.registry.leave(10);
        bench.sent();
        assert!(bench.registry.epochs.values().all(|epoch| epoch.wanted_by.is_empty()));
        bench.close(11);
        assert!(bench.registry.epochs.is_empty() && bench.registry.members.is_empty());
        assert_eq!(bench.registry.allowances.in_all(), 0);
    }

    #[test]
    fn a_source_cannot_make_it_remember_more_than_its_allowance() {
        let mut bench = Bench::default();
        bench.registry.allowances = Allowances::new(3 * ENTRY + 3 * WISH, usize::MAX);
        bench.join(10, 0, 9);
        bench.join(11, 1, 9);
        bench.join(12, 2, 9);
        let refused = bench.join_with(13, join_of(3, 9)).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Full);
        for (connection, to) in [(10, 3), (11, 3), (11, 4)] {
            bench.connect(connection, to);
            bench.connect(connection, to);
        }
        assert_eq!(bench.registry.connect(12, 3).unwrap_err().refusal, Refusal::Full);

        let proven = Join { job: [2; 32], ..join_of(3, 9) };
        let (public, fresh) = (public_of(13), bench.fresh());
        bench.registry.join(13, proven, None, true, public, fresh).unwrap();
        bench.connect(13, 1);
        let fresh = bench.fresh();
        let elsewhere = "2.2.2.2:2".parse().unwrap();
        bench.registry.join(14, join_of(3, 9), None, false, elsewhere, fresh).unwrap();
    }

    #[test]
    fn witnesses_take_from_the_allowance_and_without_it_nobody_is_asked() {
        // Rank 2 is from elsewhere, and has less than a witness left.
        let greedy = ENTRY + 60 * WISH;
        let mut bench = Bench::default();
        bench.registry.allowances = Allowances::new(greedy + WITNESS - 1, usize::MAX);
        bench.join(10, 0, 64);
        bench.join(11, 1, 64);
        let (elsewhere, fresh) = ("2.2.2.2:2".parse().unwrap(), bench.fresh());
        bench.registry.join(12, join_of(2, 64), None, false, elsewhere, fresh).unwrap();
        (3..63).for_each(|to| bench.connect(12, to));
        for to in 1..3 {
            bench.connect(10, to);
            bench.registry.ready(10 + u64::from(to), 0).unwrap();
        }
        let taken = |bench: &Bench| bench.registry.allowances.in_all();
        assert_eq!(taken(&bench), 2 * ENTRY + 2 * WITNESS + greedy);
        bench.sent();
        bench.close(12);
        assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Lost)), (11, unreachable(2, Reason::Lost))]);
        bench.registry.link(11, 0, false).unwrap();
        bench.registry.link(11, 0, false).unwrap();
        assert_eq!(taken(&bench), 3 * ENTRY);
    }

    /// A rank whose public address has changed still has its links.
    #[test]
    fn who_comes_back_from_elsewhere_keeps_its_witnesses() {
        let mut bench = Bench::default();
        let membership = bench.join(10, 0, 2).membership;
        bench.join(11, 1, 2);
        bench.connect(10, 1);
        bench.registry.ready(11, 0).unwrap();
        let taken = bench.registry.allowances.in_all();
        bench.registry.closed(10, End::Unknown, Instant::now());
        let (elsewhere, fresh) = ("2.2.2.2:2".parse().unwrap(), bench.fresh());
        bench.registry.join(12, join_of(0, 2), Some(membership), false, elsewhere, fresh).unwrap();
        assert_eq!(bench.registry.allowances.in_all(), taken);
        bench.sent();
        bench.close(12);
        assert_eq!(bench.sent(), [(11, ServerMessage::Suspect { rank: 0 })]);
    }

    /// Whatever it was that it did: a source that is gone has taken nothing.
    #[test]
    fn what_was_taken_is_given_back() {
        let mut bench = Bench::default();
        let now = Instant::now();
        let membership = bench.join(10, 0, 4).membership;
        bench.join(11, 1, 4);
        bench.join(12, 2, 4);
        for (connection, to) in [(10, 1), (10, 2), (10, 3), (11, 3), (12, 1), (12, 3)] {
            bench.connect(connection, to);
        }
        bench.registry.ready(11, 0).unwrap();
        assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 5 * WISH + 2 * WITNESS);
        bench.rejoin(13, join_of(0, 4), membership).unwrap();
        assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 3 * WISH + 2 * WITNESS);
        bench.join_with(14, Join { fingerprint: 6, ..join_of(3, 4) }).unwrap_err();
        bench.registry.closed(11, End::Unknown, now);
        assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 2 * WISH + 2 * WITNESS);
        bench.registry.leave(12);
        bench.close(13);
        bench.registry.tick(now + DETACHED_FOR);
        assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY, "as long as the run has a member");
        bench.registry.expire(now + DETACHED_FOR);
        assert_eq!(bench.registry.allowances.in_all(), 0);
    }

    #[test]
    fn the_runs_of_a_job_and_what_is_known_of_dead_ones_are_bounded() {
        let mut bench = Bench::default();
        let fresh = bench.fresh();
        let public = public_of(0);
        let proven = bench.registry.join(0, join_of(0, 2), None, true, public, fresh).unwrap().membership;
        bench.close(0);
        let join = |bench: &mut Bench, number: usize| {
            let mut epoch = [0; 16];
            epoch[..8].copy_from_slice(&number.to_le_bytes());
            let fresh = Membership { epoch, token: [0; 16] };
            let connection = number as ConnectionId;
            bench.registry.join(connection, join_of(0, 2), None, false, public_of(0), fresh)
        };
        for number in 0..MAX_OPEN {
            join(&mut bench, number).unwrap();
        }
        assert_eq!(join(&mut bench, MAX_OPEN).unwrap_err().refusal, Refusal::Full);
        (0..MAX_OPEN).for_each(|number| bench.registry.leave(number as ConnectionId));
        for number in MAX_OPEN..MAX_OPEN + 2 * MAX_DEAD {
            join(&mut bench, number).unwrap();
            bench.registry.leave(number as ConnectionId);
        }
        let registry = &bench.registry;
        assert!(registry.epochs.is_empty() && registry.jobs.is_empty() && registry.members.is_empty());
        assert_eq!((registry.dead.order.len(), registry.dead.known.len()), (MAX_DEAD, MAX_DEAD));
        assert_eq!(registry.allowances.in_all(), 0);
        let fresh = bench.fresh();
        let refused = bench.registry.join(0, join_of(0, 2), Some(proven), true, public, fresh).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Gone, "strangers have not made it forget");
    }

    /// Ranks that all are connected to the server and linked in pairs, until they
    /// are cut off from it, die, and come back; and what they know.
    struct Job {
        bench: Bench,
        now: Instant,
        connections: ConnectionId,
        /// The connection that is being made.
        newcomer: Option<ConnectionId>,
        ranks: Vec<Rank>,
        links: BTreeSet<(u32, u32)>,
    }

    struct Rank {
        membership: Membership,
        /// `None` = cut off.
        connection: Option<ConnectionId>,
        is_dead: bool,
        is_lost: bool,
        /// What the server has asked.
        suspects: Vec<u32>,
        /// Links that have broken.
        broken: BTreeSet<u32>,
    }

    impl Job {
        fn new(size: u32, links: impl Iterator<Item = (u32, u32)>) -> Self {
            let mut bench = Bench::default();
            let ranks = (0..size).map(|rank| Rank {
                membership: bench.join(u64::from(rank), rank, size).membership,
                connection: Some(rank.into()),
                is_dead: false,
                is_lost: false,
                suspects: Vec::new(),
                broken: BTreeSet::new(),
            });
            let ranks = ranks.collect();
            let links: BTreeSet<_> = links.filter(|(a, b)| a < b).collect();
            for &(a, b) in &links {
                bench.connect(a.into(), b);
                bench.connect(b.into(), a);
            }
            Self { bench, now: Instant::now(), connections: size.into(), newcomer: None, ranks, links }
        }

        fn is_linked(&self, a: u32, b: u32) -> bool {
            self.links.contains(&(a.min(b), a.max(b)))
        }

        /// The connection to the server ends; the rank may have died.
        fn cut(&mut self, rank: u32, dies: bool) {
            let this = &mut self.ranks[rank as usize];
            let connection = this.connection.take();
            if dies && !std::mem::replace(&mut this.is_dead, true) {
                for peer in (0..self.ranks.len() as u32)
                    .filter(|peer| self.is_linked(*peer, rank))
                    .collect::<Vec<_>>()
                {
                    self.links.remove(&(peer.min(rank), peer.max(rank)));
                    self.ranks[peer as usize].broken.insert(rank);
                    self.tell(peer, rank, false);
                }
            }
            if let Some(connection) = connection {
                self.bench.registry.closed(connection, End::Closed, self.now);
            }
            self.deliver();
        }

        fn come_back(&mut self, rank: u32) {
            let this = &mut self.ranks[rank as usize];
            if this.is_dead || this.connection.is_some() {
                return;
            }
            self.connections += 1;
            let (connection, size) = (self.connections, self.ranks.len() as u32);
            let membership = self.ranks[rank as usize].membership;
            // One that was declared lost is refused.
            if self.bench.rejoin(connection, join_of(rank, size), membership).is_ok() {
                self.ranks[rank as usize].connection = Some(connection);
                self.newcomer = Some(connection);
                self.deliver();
                self.newcomer = None;
                for broken in self.ranks[rank as usize].broken.clone() {
                    self.tell(rank, broken, false);
                }
            }
            self.deliver();
        }

        /// The ranks answer what they were asked.
        fn answer(&mut self) {
            for rank in 0..self.ranks.len() as u32 {
                for suspect in std::mem::take(&mut self.ranks[rank as usize].suspects) {
                    self.tell(rank, suspect, self.is_linked(rank, suspect));
                }
            }
            self.deliver();
        }

        fn tell(&mut self, rank: u32, about: u32, alive: bool) {
            let Rank { connection, is_dead, .. } = self.ranks[rank as usize];
            if let (Some(connection), false) = (connection, is_dead) {
                self.bench.link(connection, about, alive);
            }
        }

        fn pass_time(&mut self) {
            self.now += SUSPICION / 2;
            self.bench.registry.tick(self.now);
            self.deliver();
        }

        /// Takes what the server says, and sees whether it is right.
        fn deliver(&mut self) {
            for (connection, message) in self.bench.sent() {
                match message {
                    ServerMessage::Suspect { rank } => {
                        let asked = self.ranks.iter_mut().find(|asked| asked.connection == Some(connection));
                        if let Some(asked) = asked {
                            asked.suspects.push(rank);
                        }
                    }
                    ServerMessage::Unreachable { rank, reason } => {
                        assert_eq!(reason, Reason::Lost);
                        self.ranks[rank as usize].is_lost = true;
                        // Who comes back hears what was decided without it.
                        if self.newcomer == Some(connection) {
                            continue;
                        }
                        let speaks_for_it = |peer: &u32| {
                            self.is_linked(*peer, rank) && self.ranks[*peer as usize].connection.is_some()
                        };
                        let witness = (0..self.ranks.len() as u32).find(speaks_for_it);
                        assert_eq!(witness, None, "rank {rank} was given up, but has a live link");
                    }
                    _ => {}
                }
            }
        }
    }

    proptest! {
        /// Whatever is cut and dies in whatever order, as long as ranks that are
        /// connected answer in time: nobody with a live link to one of them is
        /// given up, and in the end all that died are.
        #[test]
        fn the_dead_are_given_up_and_the_living_are_not(
            size in 2u32..6,
            links in proptest::collection::vec((0u32..6, 0u32..6), 0..12),
            steps in proptest::collection::vec((0u8..8, 0u32..6), 0..40),
        ) {
            let mut job = Job::new(size, links.into_iter().filter(|(a, b)| *a < size && *b < size));
            job.deliver();
            for (what, rank) in steps {
                let rank = rank % size;
                match what {
                    0 => job.cut(rank, true),
                    1..=3 => job.cut(rank, false),
                    4..=5 => job.come_back(rank),
                    6 => job.answer(),
                    _ => {
                        job.answer();
                        job.pass_time();
                    }
                }
            }
            (0..size).for_each(|rank| job.come_back(rank));
            for _ in 0..4 {
                job.answer();
                job.pass_time();
            }
            let is_heard = job.ranks.iter().filter(|rank| rank.connection.is_some()).count() > 0;
            for rank in job.ranks.iter().filter(|rank| rank.is_dead && is_heard) {
                prop_assert!(rank.is_lost, "a dead rank is not given up");
            }
        }
    }
}
