//! The endpoint's epoll: level-triggered, one for everything that it waits for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::descriptors::Tracked;
use crate::error::{Error, Result};

/// How many events one look takes; the rest is still there at the next.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The wake-up pipe.
    Wake,
    /// The bell of the Memory channel.
    Doorbell,
    /// The connection to the rendezvous server.
    Rendezvous,
    /// The listening socket.
    Listener,
    /// A connection whose handshake is under way, by its number.
    Pairing(u32),
    /// The link to a rank.
    Link(u32),
}

impl Token {
    fn encode(self) -> u64 {
        match self {
            Self::Wake => 0,
            Self::Doorbell => 1,
            Self::Rendezvous => 2,
            Self::Listener => 3,
            Self::Pairing(number) => 1 << 32 | u64::from(number),
            Self::Link(rank) => 2 << 32 | u64::from(rank),
        }
    }

    fn decode(code: u64) -> Self {
        let number = code as u32;
        match code >> 32 {
            1 => Self::Pairing(number),
            2 => Self::Link(number),
            _ => match number {
                0 => Self::Wake,
                1 => Self::Doorbell,
                2 => Self::Rendezvous,
                _ => Self::Listener,
            },
        }
    }
}

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
    Both,
}

pub(super) struct Poller {
    epoll: Tracked<OwnedFd>,
    events: Box<[libc::epoll_event; EVENTS]>,
}

impl Poller {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: a plain system call.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(Error::io("epoll_create1", &io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and ours.
        let epoll = Tracked::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Ok(Self { epoll, events: Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS]) })
    }

    pub(super) fn add(&self, descriptor: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, token, interest)
    }

    pub(super) fn modify(&self, descriptor: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, token, interest)
    }

    pub(super) fn remove(&self, descriptor: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, descriptor, Token::Wake, Interest::Read);
    }

    fn control(&self, operation: i32, descriptor: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token.encode() };
        // SAFETY: the event outlives the call.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, descriptor, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits up to `timeout` (`None` = without limit) for events; returns how
    /// many there are. A signal ends the wait early.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let milliseconds = match timeout {
            None => -1,
            Some(Duration::ZERO) => 0,
            // Rounded up: never awake before the time, then asleep for nothing.
            Some(time) => i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
        };
        // SAFETY: the buffer has room for EVENTS events.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, milliseconds)
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(Error::io("epoll_wait", &error)),
            },
        }
    }

    /// What the event with this index of the last wait is about.
    pub(super) fn token(&self, index: usize) -> Token {
        Token::decode(self.events[index].u64)
    }
}
