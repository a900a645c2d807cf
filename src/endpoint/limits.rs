//! What ends a call: its deadline, and what reaches it from outside.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::Signals;
use crate::config::InterruptFunction;
use crate::descriptors::Generation;
use crate::error::{Error, ErrorKind, Result};

/// The moment by which a call returns. The clock is read only once the call has
/// to wait.
pub(crate) struct Deadline {
    limit: Option<Duration>,
    started: Option<Instant>,
}

impl Deadline {
    /// `None` = never.
    pub(crate) fn after(limit: Option<Duration>) -> Self {
        Self { limit, started: None }
    }

    /// Whether the call has not had to wait so far.
    pub(super) fn is_unstarted(&self) -> bool {
        self.started.is_none()
    }

    pub(super) fn start(&mut self, now: Instant) -> Instant {
        *self.started.get_or_insert(now)
    }

    /// What is left; `None` = no limit.
    pub(super) fn remaining(&mut self, now: Instant) -> Option<Duration> {
        let started = self.start(now);
        self.limit.map(|limit| limit.saturating_sub(now - started))
    }

    /// How long the call has waited.
    pub(crate) fn waited(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }
}

/// The limits of a call that runs outside of an endpoint, over a channel of the
/// user's own: they are looked at between two of its functions, and while the
/// library itself waits.
pub(crate) struct Limits<'a> {
    /// `None` = never.
    until: Option<Instant>,
    signals: &'a Signals,
    interrupt: Option<&'a InterruptFunction>,
    /// Something was written to the wake-up pipe before the call.
    stale: Cell<bool>,
    generation: Generation,
}

impl<'a> Limits<'a> {
    /// What was written to the wake-up pipe before the call interrupts it only
    /// through the interrupt function.
    pub(crate) fn new(
        deadline: &mut Deadline,
        signals: &'a Signals,
        interrupt: Option<&'a InterruptFunction>,
    ) -> Self {
        let started = deadline.start(Instant::now());
        Self {
            until: deadline.limit.and_then(|limit| started.checked_add(limit)),
            signals,
            interrupt,
            stale: Cell::new(signals.drain()),
            generation: Generation::current(),
        }
    }

    /// Whether the call may go on.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`]; [`ErrorKind::Aborted`],
    /// where the abort remains to be carried out.
    pub(crate) fn check(&self) -> Result<()> {
        if self.remaining() == Some(Duration::ZERO) {
            return Err(Error::new(ErrorKind::Timeout, "the deadline passed"));
        }
        let is_woken = self.signals.drain();
        if !self.stale.take() && !is_woken {
            return Ok(());
        }
        if let Some(code) = self.signals.abort_code() {
            return Err(Error::new(
                ErrorKind::Aborted,
                format!("this rank aborted the job with code {code}"),
            ));
        }
        let is_interrupted = match self.interrupt {
            None => is_woken,
            Some(interrupt) => {
                let is_interrupted = interrupt();
                self.generation.check()?;
                is_interrupted
            }
        };
        if is_interrupted {
            return Err(Error::new(ErrorKind::Interrupted, "the call was interrupted"));
        }
        Ok(())
    }

    /// Sleeps for `time`, or until one of the limits is reached.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        let time = self.remaining().map_or(time, |remaining| remaining.min(time));
        wait_readable(self.signals.read_end(), time);
        self.check()
    }

    fn remaining(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// Waits for a descriptor to become readable; wakes early where a signal comes.
fn wait_readable(descriptor: RawFd, time: Duration) {
    let mut wanted = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: one descriptor and a time, both of which live.
    unsafe { libc::ppoll(&raw mut wanted, 1, &raw const time, std::ptr::null()) };
}
