//! A context's collective half: which call is running, and whether an earlier
//! one failed.

use crate::error::{Error, ErrorKind, Result};
use crate::poison::Poison;

use super::frame::AbortNotice;

/// What all frames of one collective call say alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallMark {
    pub(crate) operation: u8,
    pub(crate) algorithm: u8,
    pub(crate) signature: u32,
}

pub(super) struct Context {
    /// The endpoint ranks of the members.
    pub(super) members: Vec<u32>,
    /// Number of the next collective, or of the running one.
    pub(super) sequence: u64,
    /// Whether a frame of the running collective has left or been matched.
    pub(super) moved: bool,
    /// How many frames of collectives lie unmatched.
    pub(super) early: u32,
    /// What the members have been told of the failure; those whose link opens
    /// later are told then.
    pub(super) told: Option<AbortNotice>,
    /// What the running collective is, for comparison with the others' frames.
    pub(super) call: Option<CallMark>,
    /// What another rank told first.
    pub(super) heard: Option<AbortNotice>,
    poison: Poison,
}

impl Context {
    pub(super) fn new(members: Vec<u32>) -> Self {
        Self {
            members,
            sequence: 0,
            moved: false,
            early: 0,
            told: None,
            call: None,
            heard: None,
            poison: Poison::default(),
        }
    }

    pub(super) fn begin(&mut self) -> Result<u64> {
        self.poison.check()?;
        self.moved = false;
        self.call = None;
        Ok(self.sequence)
    }

    /// The running collective is over; its number is used up.
    pub(super) fn finish(&mut self) {
        self.call = None;
        self.sequence += 1;
    }

    /// Whether a collective with this number is over.
    pub(super) fn is_finished(&self, sequence: u64) -> bool {
        sequence < self.sequence
    }

    /// Whether a frame of the collective with this number contradicts the running
    /// one.
    pub(super) fn contradicts(&self, sequence: u64, mark: CallMark) -> bool {
        sequence == self.sequence && self.call.is_some_and(|call| call != mark)
    }

    /// Keeps the first failure; whether this is it.
    pub(super) fn fail(&mut self, error: Error) -> bool {
        self.poison.fail(error)
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.poison.failure()
    }

    /// A mismatch that has not been returned to the user, once.
    pub(super) fn take_mismatch(&mut self) -> Option<Error> {
        self.poison.take_mismatch()
    }

    pub(super) fn mark_reported(&mut self) {
        self.poison.mark_reported();
    }
}

impl AbortNotice {
    /// The error of a collective that another rank's failure ended. A lost rank
    /// and a mismatch are what they are wherever they were seen.
    pub(super) fn error(&self) -> Error {
        let rank = self.cause_rank;
        let (kind, text) = match (self.cause, self.about) {
            (ErrorKind::Aborted, _) => {
                (ErrorKind::Aborted, format!("rank {rank} aborted the job with code {}", self.code))
            }
            (ErrorKind::PeerLost, Some(lost)) => {
                (ErrorKind::PeerLost, format!("rank {lost} was lost, as rank {rank} has seen"))
            }
            (ErrorKind::Mismatch, _) => {
                (ErrorKind::Mismatch, format!("rank {rank} has found that the ranks do not call the same"))
            }
            (cause, Some(peer)) => (
                ErrorKind::Aborted,
                format!("the operation failed on rank {rank} with {} on rank {peer}", cause.name()),
            ),
            (cause, None) => {
                (ErrorKind::Aborted, format!("the operation failed on rank {rank} with {}", cause.name()))
            }
        };
        let error = Error::new(kind, text).with_cause(self.cause, Some(rank));
        match self.about {
            Some(peer) => error.with_peer(peer),
            None => error,
        }
    }
}
