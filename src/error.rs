//! The one error type of the library, and the status table that C sees.
//!
//! An [`Error`] says what kind of failure it was ([`ErrorKind`], one for each
//! status code), which operation failed, with which peer, over which channel,
//! how long the call had waited, and, for the failure of a group, which rank
//! failed first and how.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::operation::Operation;

/// What every fallible function of the crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure. The numbers are the status codes of the C API: fixed,
/// never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of range or contradicts another; nothing was sent.
    Arg = -1,
    /// A pointer that must not be null is null.
    Null = -2,
    /// The configuration is missing, malformed, or holds a wrong value.
    Config = -3,
    /// The build or the channel cannot do this.
    Unsupported = -4,
    /// Memory could not be had.
    NoMem = -5,
    /// Another thread is inside a call on the same endpoint.
    Busy = -6,
    /// FMI was called from a place where it may not be called.
    Reentrant = -7,
    /// The communicator was made before a fork, by the parent.
    Forked = -8,
    /// The communicator is closed.
    Closed = -9,
    /// The deadline passed.
    Timeout = -10,
    /// The call was interrupted.
    Interrupted = -11,
    /// The sender withdrew the message half way.
    Cancelled = -12,
    /// A message is longer or shorter than the buffer of its receive.
    SizeMismatch = -13,
    /// The ranks do not call the same operation with the same arguments.
    Mismatch = -14,
    /// A rank died, or its connection broke.
    PeerLost = -15,
    /// A rank closed its communicator in order, and is gone.
    PeerLeft = -16,
    /// The job was aborted.
    Aborted = -17,
    /// An earlier collective of this communicator failed.
    Poisoned = -18,
    /// A server, a store or a peer cannot be reached.
    Connect = -19,
    /// Another live process already has this rank.
    RankTaken = -20,
    /// The secret is wrong or missing.
    Auth = -21,
    /// The other side speaks another protocol or version, or sends garbage.
    Protocol = -22,
    /// The operating system reported an error.
    Io = -23,
    /// A function supplied by the user failed.
    Callback = -24,
    /// A bug in FMI.
    Internal = -25,
}

impl ErrorKind {
    /// The status code of the C API.
    pub const fn status(self) -> i32 {
        self as i32
    }

    /// The name of the status code in the C API, such as `FMI_ERR_TIMEOUT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arg => "FMI_ERR_ARG",
            Self::Null => "FMI_ERR_NULL",
            Self::Config => "FMI_ERR_CONFIG",
            Self::Unsupported => "FMI_ERR_UNSUPPORTED",
            Self::NoMem => "FMI_ERR_NOMEM",
            Self::Busy => "FMI_ERR_BUSY",
            Self::Reentrant => "FMI_ERR_REENTRANT",
            Self::Forked => "FMI_ERR_FORKED",
            Self::Closed => "FMI_ERR_CLOSED",
            Self::Timeout => "FMI_ERR_TIMEOUT",
            Self::Interrupted => "FMI_ERR_INTERRUPTED",
            Self::Cancelled => "FMI_ERR_CANCELLED",
            Self::SizeMismatch => "FMI_ERR_SIZE_MISMATCH",
            Self::Mismatch => "FMI_ERR_MISMATCH",
            Self::PeerLost => "FMI_ERR_PEER_LOST",
            Self::PeerLeft => "FMI_ERR_PEER_LEFT",
            Self::Aborted => "FMI_ERR_ABORTED",
            Self::Poisoned => "FMI_ERR_POISONED",
            Self::Connect => "FMI_ERR_CONNECT",
            Self::RankTaken => "FMI_ERR_RANK_TAKEN",
            Self::Auth => "FMI_ERR_AUTH",
            Self::Protocol => "FMI_ERR_PROTOCOL",
            Self::Io => "FMI_ERR_IO",
            Self::Callback => "FMI_ERR_CALLBACK",
            Self::Internal => "FMI_ERR_INTERNAL",
        }
    }

    /// The kind that has this status code, if any has.
    pub fn from_status(status: i32) -> Option<Self> {
        ALL_KINDS.iter().copied().find(|kind| kind.status() == status)
    }
}

/// Every kind, in the order of its status code.
pub const ALL_KINDS: [ErrorKind; 25] = [
    ErrorKind::Arg,
    ErrorKind::Null,
    ErrorKind::Config,
    ErrorKind::Unsupported,
    ErrorKind::NoMem,
    ErrorKind::Busy,
    ErrorKind::Reentrant,
    ErrorKind::Forked,
    ErrorKind::Closed,
    ErrorKind::Timeout,
    ErrorKind::Interrupted,
    ErrorKind::Cancelled,
    ErrorKind::SizeMismatch,
    ErrorKind::Mismatch,
    ErrorKind::PeerLost,
    ErrorKind::PeerLeft,
    ErrorKind::Aborted,
    ErrorKind::Poisoned,
    ErrorKind::Connect,
    ErrorKind::RankTaken,
    ErrorKind::Auth,
    ErrorKind::Protocol,
    ErrorKind::Io,
    ErrorKind::Callback,
    ErrorKind::Internal,
];

/// A failure, with everything that is known of it.
#[derive(Clone, PartialEq)]
pub struct Error(Box<Detail>);

#[derive(Clone, PartialEq)]
struct Detail {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<Operation>,
    peer: Option<u32>,
    channel: Option<Cow<'static, str>>,
    waited: Option<Duration>,
    os_errno: i32,
    cause: Option<(ErrorKind, Option<u32>)>,
}

impl Error {
    /// An error of `kind`; `message` says in a sentence, without a final stop,
    /// what went wrong.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Detail {
            kind,
            message: message.into(),
            operation: None,
            peer: None,
            channel: None,
            waited: None,
            os_errno: 0,
            cause: None,
        }))
    }

    /// An [`ErrorKind::Io`] error from what the operating system said while
    /// doing `what`.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("{what}: {error}")).with_errno(error.raw_os_error().unwrap_or(0))
    }

    /// Names the operation, unless one is named already.
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the peer by its rank, unless one is named already.
    pub fn with_peer(mut self, rank: u32) -> Self {
        self.0.peer.get_or_insert(rank);
        self
    }

    /// Names the channel, unless one is named already.
    pub fn with_channel(mut self, channel: impl Into<Cow<'static, str>>) -> Self {
        self.0.channel.get_or_insert_with(|| channel.into());
        self
    }

    /// Says how long the call had waited, unless that is said already.
    pub fn with_waited(mut self, waited: Duration) -> Self {
        self.0.waited.get_or_insert(waited);
        self
    }

    /// Keeps the `errno` of the operating system.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.os_errno = errno;
        self
    }

    /// Says what failed first, and on which rank, where this error only
    /// follows from that.
    pub fn with_cause(mut self, kind: ErrorKind, rank: Option<u32>) -> Self {
        self.0.cause = Some((kind, rank));
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The rank of the peer that the failure concerns.
    pub fn peer(&self) -> Option<u32> {
        self.0.peer
    }

    /// The name of the channel.
    pub fn channel(&self) -> Option<&str> {
        self.0.channel.as_deref()
    }

    /// How long the call had waited.
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// The `errno` of the operating system; 0 = none.
    pub fn os_errno(&self) -> i32 {
        self.0.os_errno
    }

    /// The first failure that led to this one; its own kind where there is no
    /// earlier.
    pub fn cause(&self) -> ErrorKind {
        self.0.cause.map_or(self.0.kind, |(kind, _)| kind)
    }

    /// The rank on which the first failure was seen, where that is known.
    pub fn cause_rank(&self) -> Option<u32> {
        self.0.cause.and_then(|(_, rank)| rank)
    }

    /// The sentence alone, without operation, peer, channel and time.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    /// For instance `allreduce with rank 3 over Direct: rank 3 has not joined
    /// the job (FMI_ERR_TIMEOUT after 2000 ms)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &*self.0;
        let mut said = false;
        if let Some(operation) = detail.operation {
            write!(f, "{}", operation.name())?;
            said = true;
        }
        if let Some(peer) = detail.peer {
            write!(f, "{}with rank {peer}", if said { " " } else { "" })?;
            said = true;
        }
        if let Some(channel) = &detail.channel {
            write!(f, "{}over {channel}", if said { " " } else { "" })?;
            said = true;
        }
        write!(f, "{}{} ({}", if said { ": " } else { "" }, detail.message, detail.kind.name())?;
        if let Some((kind, rank)) = detail.cause {
            write!(f, ", first cause {}", kind.name())?;
            if let Some(rank) = rank {
                write!(f, " on rank {rank}")?;
            }
        }
        if let Some(waited) = detail.waited {
            write!(f, ", after {} ms", waited.as_millis())?;
        }
        write!(f, ")")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_dense_and_their_names_unique() {
        for (index, kind) in ALL_KINDS.iter().enumerate() {
            assert_eq!(kind.status(), -(index as i32) - 1);
            assert_eq!(ErrorKind::from_status(kind.status()), Some(*kind));
        }
        let names: std::collections::HashSet<_> = ALL_KINDS.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), ALL_KINDS.len());
        assert_eq!(ErrorKind::from_status(0), None);
        assert_eq!(ErrorKind::from_status(-26), None);
    }

    #[test]
    fn an_error_tells_operation_peer_channel_cause_and_time() {
        let error = Error::new(ErrorKind::Poisoned, "an earlier collective failed")
            .with_operation(Operation::Allreduce)
            .with_peer(3)
            .with_channel("Direct")
            .with_cause(ErrorKind::PeerLost, Some(2))
            .with_waited(Duration::from_millis(12));
        assert_eq!(
            error.to_string(),
            "allreduce with rank 3 over Direct: an earlier collective failed (FMI_ERR_POISONED, \
             first cause FMI_ERR_PEER_LOST on rank 2, after 12 ms)"
        );
        assert_eq!(Error::new(ErrorKind::Arg, "bad").to_string(), "bad (FMI_ERR_ARG)");
    }

    #[test]
    fn the_first_name_given_stays() {
        let error = Error::new(ErrorKind::Io, "x").with_peer(1).with_peer(2);
        assert_eq!(error.peer(), Some(1));
    }
}
