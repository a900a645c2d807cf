//! The epoch of a run over a store: all its ranks agree on a number that no other
//! run has, whatever earlier runs have left in the store.
//!
//! Rank 0 leads. Every communicator draws a random number, and all names hold the
//! numbers of those that they are for, so that nothing of another is ever taken, also
//! where a process uses one name again and again:
//!
//! ```text
//! member r            store                         rank 0
//! upload              join.r.<member>               finds it in the list
//! finds it            call.r.<member> = leader      upload
//! upload              here.r.<member>.<leader>      finds it: the member lives
//!                     go.r.<member> = leader        upload, when all members live
//! finds it: the epoch is <leader>
//! ```
//!
//! A join that a dead process has left is called, and never answers. A member whose
//! leader has died answers the next one that calls it. Two runs of one name at once
//! end in one that works, and ranks left over that run into their deadline, or in
//! none that works.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Rank;
use super::object::digest;
use super::{CustomChannel, Family};
use crate::endpoint::Limits;
use crate::error::{Error, ErrorKind, Result};

/// A number in the store, and a check of it.
const VALUE_LEN: usize = 16;

/// The agreement of one rank.
pub(super) struct Epoch {
    rank: Rank,
    size: u32,
    prefix: String,
    stage: Stage,
}

enum Stage {
    New,
    Member { own: u64, leader: Option<u64> },
    Leader { own: u64, called: BTreeMap<(Rank, u64), Answer> },
    Agreed(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Awaited,
    Here,
}

impl Epoch {
    pub(super) fn new(rank: Rank, size: u32, prefix: &str) -> Self {
        Self { rank, size, prefix: prefix.to_owned(), stage: Stage::New }
    }

    /// The epoch, once all ranks have agreed. A call that was cut off is continued
    /// by the next.
    ///
    /// # Errors
    /// Those of [`Limits::check`] and the channel.
    pub(super) fn agree(&mut self, channel: &dyn CustomChannel, limits: &Limits<'_>) -> Result<u64> {
        let poll = match channel.family() {
            Family::ClientServer { poll } => poll,
            Family::PeerToPeer { .. } | Family::Whole => Duration::ZERO,
        };
        loop {
            if let Stage::Agreed(epoch) = self.stage {
                return Ok(epoch);
            }
            if self.step(channel)? {
                continue;
            }
            limits.pause(poll).map_err(|error| match error.kind() {
                ErrorKind::Timeout => self.explain().unwrap_or(error),
                _ => error,
            })?;
        }
    }

    /// Does what can be done now; whether anything has come of it.
    fn step(&mut self, channel: &dyn CustomChannel) -> Result<bool> {
        match &self.stage {
            Stage::New => {
                let own = random()?;
                self.stage = if self.size == 1 {
                    Stage::Agreed(own)
                } else if self.rank == 0 {
                    Stage::Leader { own, called: BTreeMap::new() }
                } else {
                    put(channel, &self.join(self.rank, own), own)?;
                    Stage::Member { own, leader: None }
                };
                Ok(true)
            }
            Stage::Member { own, leader } => self.follow(channel, *own, *leader),
            Stage::Leader { .. } => self.lead(channel),
            Stage::Agreed(_) => Ok(true),
        }
    }

    fn follow(&mut self, channel: &dyn CustomChannel, own: u64, answered: Option<u64>) -> Result<bool> {
        if let Some(epoch) = fetch(channel, &self.go(self.rank, own))? {
            for name in [self.join(self.rank, own), self.call(self.rank, own), self.go(self.rank, own)] {
                channel.delete_object(&name)?;
            }
            self.stage = Stage::Agreed(epoch);
            return Ok(true);
        }
        match fetch(channel, &self.call(self.rank, own))? {
            Some(leader) if Some(leader) != answered => {
                put(channel, &self.here(self.rank, own, leader), own)?;
                self.stage = Stage::Member { own, leader: Some(leader) };
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn lead(&mut self, channel: &dyn CustomChannel) -> Result<bool> {
        let mut joined = Vec::new();
        let start = format!("{}.join.", self.prefix);
        channel.list_objects(&mut |name| joined.extend(parse_join(name, &start)))?;
        let Stage::Leader { own, called } = &mut self.stage else { return Ok(true) };
        let own = *own;
        let mut called = std::mem::take(called);
        let outcome = self.call_all(channel, own, joined, &mut called);
        let is_complete = (1..self.size).all(|rank| member(&called, rank).is_some());
        if outcome.is_ok() && is_complete {
            for (rank, number) in called.keys().copied() {
                if member(&called, rank) == Some(number) {
                    put(channel, &self.go(rank, number), own)?;
                } else {
                    channel.delete_object(&self.call(rank, number))?;
                }
            }
            self.stage = Stage::Agreed(own);
            return Ok(true);
        }
        self.stage = Stage::Leader { own, called };
        outcome.map(|()| false)
    }

    /// Calls those who have joined, and looks who answers.
    fn call_all(
        &self,
        channel: &dyn CustomChannel,
        own: u64,
        joined: Vec<(Rank, u64)>,
        called: &mut BTreeMap<(Rank, u64), Answer>,
    ) -> Result<()> {
        for (rank, number) in joined {
            if (1..self.size).contains(&rank) && !called.contains_key(&(rank, number)) {
                put(channel, &self.call(rank, number), own)?;
                called.insert((rank, number), Answer::Awaited);
            }
        }
        for (&(rank, number), answer) in called.iter_mut() {
            let name = self.here(rank, number, own);
            if *answer == Answer::Awaited && fetch(channel, &name)?.is_some() {
                channel.delete_object(&name)?;
                *answer = Answer::Here;
            }
        }
        Ok(())
    }

    /// Removes what an unfinished agreement has left.
    pub(super) fn give_up(&mut self, channel: &dyn CustomChannel) {
        let names = match &self.stage {
            Stage::Member { own, leader } => {
                let here = leader.map(|leader| self.here(self.rank, *own, leader));
                [Some(self.join(self.rank, *own)), here].into_iter().flatten().collect()
            }
            Stage::Leader { called, .. } => {
                called.keys().map(|(rank, number)| self.call(*rank, *number)).collect()
            }
            Stage::New | Stage::Agreed(_) => Vec::new(),
        };
        for name in names {
            let _ = channel.delete_object(&name);
        }
    }

    /// Whom an unfinished agreement waits for.
    pub(super) fn explain(&self) -> Option<Error> {
        let text = match &self.stage {
            Stage::Agreed(_) => return None,
            Stage::Leader { called, .. } => {
                let rank = (1..self.size).find(|rank| member(called, *rank).is_none())?;
                return Some(
                    Error::new(ErrorKind::Timeout, format!("rank {rank} has not joined the job"))
                        .with_peer(rank),
                );
            }
            Stage::New | Stage::Member { leader: None, .. } => "rank 0 has not joined the job",
            Stage::Member { .. } => "rank 0 waits for other ranks to join the job, or has ended",
        };
        Some(Error::new(ErrorKind::Timeout, text).with_peer(0))
    }

    fn join(&self, rank: Rank, member: u64) -> String {
        format!("{}.join.{rank}.{member:016x}", self.prefix)
    }

    fn call(&self, rank: Rank, member: u64) -> String {
        format!("{}.call.{rank}.{member:016x}", self.prefix)
    }

    fn here(&self, rank: Rank, member: u64, leader: u64) -> String {
        format!("{}.here.{rank}.{member:016x}.{leader:016x}", self.prefix)
    }

    fn go(&self, rank: Rank, member: u64) -> String {
        format!("{}.go.{rank}.{member:016x}", self.prefix)
    }
}

/// The number of the process that is rank `rank` of the run: of several that have
/// answered, always the same.
fn member(called: &BTreeMap<(Rank, u64), Answer>, rank: Rank) -> Option<u64> {
    let of_rank = called.range((rank, 0)..=(rank, u64::MAX));
    of_rank.filter(|(_, answer)| **answer == Answer::Here).map(|((_, number), _)| *number).next()
}

/// Rank and number in the name of a join.
fn parse_join(name: &str, start: &str) -> Option<(Rank, u64)> {
    let (rank, number) = name.strip_prefix(start)?.split_once('.')?;
    Some((rank.parse().ok()?, u64::from_str_radix(number, 16).ok()?))
}

fn put(channel: &dyn CustomChannel, name: &str, value: u64) -> Result<()> {
    let mut object = [0; VALUE_LEN];
    object[..8].copy_from_slice(&value.to_le_bytes());
    object[8..].copy_from_slice(&digest(&value.to_le_bytes()).to_le_bytes());
    channel.upload_object(name, &object)
}

/// The value under a name; `None` where there is none yet, or not all of it.
fn fetch(channel: &dyn CustomChannel, name: &str) -> Result<Option<u64>> {
    let mut object = [0; VALUE_LEN];
    if !channel.download_object(name, &mut object)? {
        return Ok(None);
    }
    let (value, check) = object.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok((number(check) == digest(value)).then(|| number(value)))
}

fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|error| Error::new(ErrorKind::Io, format!("no random number can be had: {error}")))
}
