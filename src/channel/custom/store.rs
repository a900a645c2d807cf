//! Messages over a client-server channel.
//!
//! A message is an object, under a name that both ranks know: the job, the run's
//! epoch, source, destination, and the number of the message between the two, or of
//! the collective and its step. The receiver looks for it until it is there, and
//! removes it. A name is used once, so that no old object is ever read.

use std::collections::HashMap;
use std::task::Poll;

use zerocopy::IntoBytes;

use super::super::Rank;
use super::epoch::Epoch;
use super::mark::Mark;
use super::object::{HEADER_LEN, Header, Identity, digest};
use super::{CustomChannel, Family, OwnMessages, check_length};
use crate::endpoint::Limits;
use crate::error::{Error, ErrorKind, Result};
use crate::scratch::Scratch;

/// How much of a job's name stands in the names of objects, in bytes; a longer one
/// is cut, and told apart by a hash.
const MAX_JOB: usize = 100;

/// The messages of one rank.
pub(super) struct Store {
    rank: Rank,
    /// What all names of the job begin with.
    prefix: String,
    epoch: Epoch,
    own: OwnMessages,
    /// How many messages between two ranks went to each, and came from each.
    sent: HashMap<Rank, u64>,
    received: HashMap<Rank, u64>,
    /// The last object for each rank, of a collective or not: ranks read in order,
    /// so that all are read where it is.
    last: HashMap<(Rank, bool), String>,
    incoming: Scratch,
    /// What the running call waits for, from whom, and whether something unfit lies there.
    awaited: String,
    awaited_from: Rank,
    is_damaged: bool,
}

impl Store {
    pub(super) fn new(rank: Rank, size: u32, job: &str, job_id: Option<&str>) -> Self {
        let prefix = prefix(job, job_id);
        Self {
            rank,
            epoch: Epoch::new(rank, size, &prefix),
            prefix,
            own: OwnMessages::default(),
            sent: HashMap::new(),
            received: HashMap::new(),
            last: HashMap::new(),
            incoming: Scratch::empty(),
            awaited: String::new(),
            awaited_from: rank,
            is_damaged: false,
        }
    }

    pub(super) fn send(
        &mut self,
        channel: &dyn CustomChannel,
        limits: &Limits<'_>,
        mark: Option<Mark>,
        data: &[u8],
        dest: Rank,
    ) -> Result<()> {
        if dest == self.rank {
            return self.own.send(data);
        }
        let sequence = self.sent.get(&dest).copied().unwrap_or(0);
        let epoch = self.epoch.agree(channel, limits)?;
        let identity = Identity { epoch, source: self.rank, dest, sequence, mark };
        let name = self.name(&identity);
        let mut object = Vec::new();
        object.try_reserve_exact(HEADER_LEN + data.len()).map_err(|_| {
            Error::new(ErrorKind::NoMem, format!("cannot make an object of {} bytes", data.len()))
        })?;
        object.extend_from_slice(Header::new(&identity, data).as_bytes());
        object.extend_from_slice(data);
        channel.upload_object(&name, &object)?;
        if mark.is_none() {
            self.sent.insert(dest, sequence + 1);
        }
        self.last.insert((dest, mark.is_some()), name);
        Ok(())
    }

    /// Looks whether the message is there.
    pub(super) fn try_recv(
        &mut self,
        channel: &dyn CustomChannel,
        limits: &Limits<'_>,
        mark: Option<Mark>,
        buffer: &mut [u8],
        src: Rank,
    ) -> Poll<Result<()>> {
        self.awaited_from = src;
        if src == self.rank {
            if let Some(received) = self.own.recv(buffer) {
                return Poll::Ready(received);
            }
            self.awaited = "a message of this rank to itself".to_owned();
            return Poll::Pending;
        }
        match self.look(channel, limits, mark, buffer, src) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn look(
        &mut self,
        channel: &dyn CustomChannel,
        limits: &Limits<'_>,
        mark: Option<Mark>,
        buffer: &mut [u8],
        src: Rank,
    ) -> Result<bool> {
        let sequence = self.received.get(&src).copied().unwrap_or(0);
        let epoch = self.epoch.agree(channel, limits)?;
        let wanted = Identity { epoch, source: src, dest: self.rank, sequence, mark };
        let name = self.name(&wanted);
        let length = HEADER_LEN + buffer.len();
        if self.incoming.len() < length {
            self.incoming = Scratch::zeroed(length)?;
        }
        let object = &mut self.incoming[..length];
        // What a look has left of the header would pass for what this one finds.
        object[..HEADER_LEN].fill(0);
        let is_there = match channel.download(&name, object) {
            Some(downloaded) => downloaded.map(|()| true),
            None => channel.download_object(&name, object),
        };
        if !is_there? {
            self.awaited = name;
            self.is_damaged = false;
            return Ok(false);
        }
        let (head, payload) = object.split_at(HEADER_LEN);
        let header = Header::parse(head);
        let is_whole =
            header.is_some_and(|header| header.length() != payload.len() as u64 || header.is_of(payload));
        let Some(header) = header.filter(|_| is_whole) else {
            // Perhaps it is being written.
            self.awaited = name;
            self.is_damaged = true;
            return Ok(false);
        };
        if mark.is_none() {
            self.received.insert(src, sequence + 1);
        }
        // The message has come, whatever becomes of the object.
        let _ = channel.delete_object(&name);
        header.check_identity(&wanted)?;
        check_length(usize::try_from(header.length()).unwrap_or(usize::MAX), buffer.len())?;
        buffer.copy_from_slice(payload);
        Ok(true)
    }

    /// Waits until the other ranks have read everything.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where one has not.
    pub(super) fn await_readers(&mut self, channel: &dyn CustomChannel, limits: &Limits<'_>) -> Result<()> {
        let Family::ClientServer { poll } = channel.family() else { return Ok(()) };
        for ((dest, _), name) in std::mem::take(&mut self.last) {
            while channel.download_object(&name, &mut [0])? {
                limits.pause(poll).map_err(|error| match error.kind() {
                    ErrorKind::Timeout => {
                        let text = format!("rank {dest} has not read the object {name} and perhaps others");
                        Error::new(ErrorKind::Timeout, text).with_peer(dest)
                    }
                    _ => error,
                })?;
            }
        }
        Ok(())
    }

    /// Removes what an unfinished agreement has left.
    pub(super) fn give_up(&mut self, channel: &dyn CustomChannel) {
        self.epoch.give_up(channel);
    }

    /// What a call waited for whose deadline has passed.
    pub(super) fn explain(&self) -> Error {
        if let Some(error) = self.epoch.explain() {
            return error;
        }
        let error = if self.is_damaged {
            Error::new(ErrorKind::Protocol, format!("the object {} is damaged", self.awaited))
        } else {
            Error::new(ErrorKind::Timeout, format!("{} is not there", self.awaited))
        };
        error.with_peer(self.awaited_from)
    }

    fn name(&self, identity: &Identity) -> String {
        let Identity { epoch, source, dest, sequence, mark } = identity;
        let prefix = &self.prefix;
        match mark {
            None => format!("{prefix}.{epoch:016x}.{source}-{dest}.{sequence}"),
            Some(Mark { sequence, step, .. }) => {
                format!("{prefix}.{epoch:016x}.{source}-{dest}.c{sequence}-{step}")
            }
        }
    }
}

/// What the names of a job's objects begin with. Runs that have an identity, and so
/// different ones, do not see each other.
fn prefix(job: &str, job_id: Option<&str>) -> String {
    let job = if job.len() <= MAX_JOB {
        job.to_owned()
    } else {
        let kept = &job[..job.floor_char_boundary(MAX_JOB - 17)];
        format!("{kept}-{:016x}", digest(job.as_bytes()))
    };
    // A store may hide names that begin with a dot, as a job's name may, and names of
    // objects do where a job has none.
    match job_id {
        Some(id) => format!("fmi.{job}.{:016x}", digest(id.as_bytes())),
        None => format!("fmi.{job}"),
    }
}
