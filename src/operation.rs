//! The operations by name and number.

/// An operation of the library. The numbers stand in frames, in
/// `fmi_error_info` and in statistics: fixed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operation {
    /// Send to one rank.
    Send = 1,
    /// Receive from one rank.
    Recv = 2,
    /// Send to one rank and receive from another at once.
    Sendrecv = 3,
    /// One rank's buffer goes to all.
    Bcast = 16,
    /// Nobody returns before all have called.
    Barrier = 17,
    /// Every rank's block goes to one.
    Gather = 18,
    /// One rank's blocks go to each.
    Scatter = 19,
    /// All ranks' buffers are combined at one.
    Reduce = 20,
    /// All ranks' buffers are combined at all.
    Allreduce = 21,
    /// Rank r has the combination of ranks 0 to r.
    Scan = 22,
    /// Joining a job; making a communicator.
    Create = 64,
    /// Leaving a job in order.
    Close = 65,
}

impl Operation {
    /// The name, as in messages and in `fmi model explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Recv => "recv",
            Self::Sendrecv => "sendrecv",
            Self::Bcast => "bcast",
            Self::Barrier => "barrier",
            Self::Gather => "gather",
            Self::Scatter => "scatter",
            Self::Reduce => "reduce",
            Self::Allreduce => "allreduce",
            Self::Scan => "scan",
            Self::Create => "create",
            Self::Close => "close",
        }
    }

    /// The operation with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Send,
            2 => Self::Recv,
            3 => Self::Sendrecv,
            16 => Self::Bcast,
            17 => Self::Barrier,
            18 => Self::Gather,
            19 => Self::Scatter,
            20 => Self::Reduce,
            21 => Self::Allreduce,
            22 => Self::Scan,
            64 => Self::Create,
            65 => Self::Close,
            _ => return None,
        })
    }
}
