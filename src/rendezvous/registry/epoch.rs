//! One run of one job: its members, what they want of each other, and who may
//! speak for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{ConnectionId, Refused};
use crate::engine::frame::AbortNotice;
use crate::rendezvous::allowance::Allowances;
use crate::rendezvous::protocol::{Epoch as EpochId, Hash, Join, Reason, Refusal, Token};

/// What a member takes of its source's allowance, in bytes: its entry, four
/// private addresses, and its share of the epoch, which has at least one and
/// remembers up to [`MAX_ABORTS`](super::MAX_ABORTS) failures.
pub(super) const ENTRY: usize = 2048;
/// What a pending connect takes: it stands in two B-trees, whose nodes may be
/// half empty. Measured: a million of them made a server grow by 34 bytes each.
pub(super) const WISH: usize = 40;
/// What a witness takes: 4 bytes in a B-tree.
pub(super) const WITNESS: usize = 12;
/// The most witnesses that are remembered of a member: a rank has at most some
/// 900 links, because of its descriptors.
const MAX_WITNESSES: usize = 1024;

/// Runs under the same key are told apart by size and rank alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    pub(super) job: Hash,
    pub(super) job_id: Option<Hash>,
    /// Ranks that proved the secret never meet ranks that did not.
    pub(super) authenticated: bool,
}

pub(super) struct Epoch {
    pub(super) key: JobKey,
    pub(super) size: u32,
    pub(super) fingerprint: u64,
    pub(super) open: bool,
    /// Made known by a rejoin, after this server had been restarted: then its
    /// other members are not known either, and come with tokens of their own.
    pub(super) adopted: bool,
    /// Whether two members were told to connect: from then on they rely on its
    /// identity.
    pub(super) has_gone: bool,
    pub(super) members: BTreeMap<u32, Member>,
    /// How many members each host has that are not gone.
    pub(super) hosts: HashMap<u64, u32>,
    /// A rank, joined or not, and a member that wants a link to it.
    pub(super) wanted_by: BTreeSet<(u32, u32)>,
    /// What its members said first of each context whose collectives failed,
    /// and who said it.
    pub(super) aborts: Vec<(u32, AbortNotice)>,
}

pub(super) struct Member {
    pub(super) presence: Presence,
    /// Whose allowance it, its wishes and its witnesses take from: where it
    /// joined first, wherever it has come back from. None if it has proved the
    /// secret.
    pub(super) source: Option<IpAddr>,
    pub(super) token: Token,
    pub(super) host_id: u64,
    pub(super) public: SocketAddr,
    pub(super) private: Vec<SocketAddr>,
    /// The ranks that it wants a link to; mirrors [`Epoch::wanted_by`].
    pub(super) wants: BTreeSet<u32>,
    /// The ranks that may have a link to it: told to connect, and neither gone
    /// nor known to have lost the link. Each is in the set of the other.
    pub(super) witnesses: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
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

impl Epoch {
    pub(super) fn new(key: JobKey, join: &Join, adopted: bool) -> Self {
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

    pub(super) fn check_peer(&self, rank: u32, peer: u32) -> Result<(), Refused> {
        if peer < self.size && peer != rank {
            return Ok(());
        }
        let text = format!("rank {rank} asked for rank {peer} in a job of size {}", self.size);
        Err(Refused::new(Refusal::Protocol, text))
    }

    pub(super) fn check_fingerprint(&self, join: &Join) -> Result<(), Refused> {
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
    pub(super) fn first_rank(&self) -> u32 {
        self.members.keys().next().copied().unwrap_or(0)
    }

    pub(super) fn wants(&self, from: u32, to: u32) -> bool {
        self.members.get(&from).is_some_and(|member| member.wants.contains(&to))
    }

    /// The members that want a link to `rank`.
    pub(super) fn wanting(&self, rank: u32) -> impl Iterator<Item = u32> {
        self.wanted_by.range((rank, 0)..=(rank, u32::MAX)).map(|(_, from)| *from)
    }

    pub(super) fn forget_wish(&mut self, from: u32, to: u32, allowances: &mut Allowances) {
        let Some(member) = self.members.get_mut(&from) else { return };
        if member.wants.remove(&to) {
            self.wanted_by.remove(&(to, from));
            if let Some(source) = member.source {
                allowances.give_back(source, WISH);
            }
        }
    }

    pub(super) fn forget_wishes_of(&mut self, rank: u32, allowances: &mut Allowances) {
        let Some(member) = self.members.get_mut(&rank) else { return };
        let wants = std::mem::take(&mut member.wants);
        if let Some(source) = member.source {
            allowances.give_back(source, WISH * wants.len());
        }
        for to in wants {
            self.wanted_by.remove(&(to, rank));
        }
    }

    pub(super) fn set_presence(&mut self, rank: u32, presence: Presence) {
        if let Some(member) = self.members.get_mut(&rank) {
            member.presence = presence;
        }
    }

    /// From now on each of the two is a witness of the other, if there is room for
    /// both.
    pub(super) fn pair(&mut self, a: u32, b: u32, allowances: &mut Allowances) {
        let mut add = |rank, witness| {
            self.members.get_mut(&rank).is_some_and(|member| member.add_witness(witness, allowances))
        };
        if !(add(a, b) && add(b, a)) {
            self.unpair(a, b, allowances);
        }
    }

    pub(super) fn unpair(&mut self, a: u32, b: u32, allowances: &mut Allowances) {
        for (rank, witness) in [(a, b), (b, a)] {
            if let Some(member) = self.members.get_mut(&rank) {
                member.remove_witness(witness, allowances);
            }
        }
    }

    /// `rank` is nobody's witness any more; returns those that are lost without
    /// it. A link that has ended in order says nothing of its other end.
    pub(super) fn unpair_all(&mut self, rank: u32, reason: Reason, allowances: &mut Allowances) -> Vec<u32> {
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
    pub(super) fn is_without_witness(&self, rank: u32) -> bool {
        let knows_all = !self.adopted || self.members.len() == self.size as usize;
        knows_all && self.members.get(&rank).is_some_and(|member| member.witnesses.is_empty())
    }

    /// Whether nobody is connected that could have a live link to `rank`.
    pub(super) fn is_out_of_sight(&self, rank: u32) -> bool {
        let mut witnesses = self.members.get(&rank).into_iter().flat_map(|member| &member.witnesses);
        !witnesses.any(|witness| self.connection_of(*witness).is_some())
    }

    pub(super) fn attached(&self) -> impl Iterator<Item = (u32, ConnectionId)> {
        self.members.iter().filter_map(|(rank, member)| match member.presence {
            Presence::Attached(connection) => Some((*rank, connection)),
            _ => None,
        })
    }

    pub(super) fn connection_of(&self, rank: u32) -> Option<ConnectionId> {
        match self.members.get(&rank)?.presence {
            Presence::Attached(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) fn ranks_on_host(&self, host_id: u64) -> u32 {
        self.hosts.get(&host_id).copied().unwrap_or(0)
    }

    pub(super) fn enter_host(&mut self, host_id: u64) {
        *self.hosts.entry(host_id).or_default() += 1;
    }

    pub(super) fn leave_host(&mut self, host_id: u64) {
        if let Some(count) = self.hosts.get_mut(&host_id) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host_id);
            }
        }
    }

    pub(super) fn describe(&self, id: &EpochId, rank: u32) -> Description {
        Description { job: self.key.job, epoch: *id, rank, size: self.size }
    }
}

impl Member {
    /// Whether there was room for it.
    pub(super) fn add_witness(&mut self, rank: u32, allowances: &mut Allowances) -> bool {
        if self.witnesses.contains(&rank) {
            return true;
        }
        let has_room = self.witnesses.len() < MAX_WITNESSES
            && self.source.is_none_or(|source| allowances.take(source, WITNESS));
        has_room && self.witnesses.insert(rank)
    }

    pub(super) fn remove_witness(&mut self, rank: u32, allowances: &mut Allowances) {
        if self.witnesses.remove(&rank)
            && let Some(source) = self.source
        {
            allowances.give_back(source, WITNESS);
        }
    }
}

impl Presence {
    pub(super) fn gone(self) -> Option<Reason> {
        match self {
            Self::Left => Some(Reason::Left),
            Self::Lost => Some(Reason::Lost),
            Self::Attached(_) | Self::Suspected(_) | Self::Vouched(_) | Self::Detached(_) => None,
        }
    }

    pub(super) fn is_suspected(self) -> bool {
        matches!(self, Self::Suspected(_))
    }
}

/// A member in a log line; four bytes tell jobs and epochs apart.
pub(super) struct Description {
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
