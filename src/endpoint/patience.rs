//! How to wait: spin, yield or sleep.
//!
//! Waking a sleeping process costs tens of microseconds, ten times a small
//! transfer, so a wait looks on for a while before it sleeps; but only where
//! the rank that it waits for can run meanwhile.

use std::time::Duration;

use crate::config::WaitMode;

/// How long a wait looks on before it sleeps: about four times what waking up
/// costs (50 us, measured).
const LOOK_ON: Duration = Duration::from_micros(200);

/// What a wait does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again at once.
    Spin,
    /// Let others run, then look again.
    Yield,
    /// Sleep until something happens.
    Park,
}

/// The waiting policy of one endpoint.
pub(super) struct Patience {
    mode: WaitMode,
    ranks_here: u32,
    machine: Machine,
}

/// What this process may use.
#[derive(Clone, Copy)]
struct Machine {
    /// Processors that it may run on.
    processors: u32,
    /// Processors' worth of time that its control group may use.
    quota: u32,
}

impl Patience {
    pub(super) fn new(mode: WaitMode) -> Self {
        Self { mode, ranks_here: 1, machine: Machine::detect() }
    }

    /// How many ranks of the job run on this host.
    pub(super) fn set_ranks_here(&mut self, ranks: u32) {
        self.ranks_here = self.ranks_here.max(ranks);
    }

    /// What to do after having looked in vain for `waited`.
    pub(super) fn step(&self, waited: Duration) -> Step {
        let looks_on = waited < LOOK_ON;
        match self.mode {
            WaitMode::Spin => Step::Spin,
            WaitMode::Yield => Step::Yield,
            WaitMode::Park => Step::Park,
            WaitMode::Auto if !looks_on || self.machine.is_rationed_for(self.ranks_here) => Step::Park,
            WaitMode::Auto if self.ranks_here <= self.machine.processors => Step::Spin,
            WaitMode::Auto => Step::Yield,
        }
    }
}

impl Machine {
    fn detect() -> Self {
        // SAFETY: a cpu_set_t of zeros is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set has the size that is stated.
        let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        // SAFETY: only reads the set.
        let processors = if status == 0 { unsafe { libc::CPU_COUNT(&set) } } else { 1 };
        let processors = u32::try_from(processors).unwrap_or(1).max(1);
        // The smaller of affinity and the control groups' quota.
        let quota = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        Self { processors, quota }
    }

    /// Whether the time that others spin away is taken from the ranks they
    /// wait for.
    fn is_rationed_for(&self, ranks: u32) -> bool {
        self.quota < self.processors && self.quota < ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(mode: WaitMode, ranks_here: u32, processors: u32, quota: u32) -> Patience {
        Patience { mode, ranks_here, machine: Machine { processors, quota } }
    }

    #[test]
    fn auto_spins_only_where_the_others_can_run() {
        let early = Duration::from_micros(10);
        assert_eq!(patience(WaitMode::Auto, 2, 2, 2).step(early), Step::Spin);
        assert_eq!(patience(WaitMode::Auto, 3, 2, 2).step(early), Step::Yield);
        assert_eq!(patience(WaitMode::Auto, 2, 4, 1).step(early), Step::Park);
        assert_eq!(patience(WaitMode::Auto, 1, 4, 1).step(early), Step::Spin);
        assert_eq!(patience(WaitMode::Auto, 1, 2, 2).step(LOOK_ON), Step::Park);
    }

    #[test]
    fn the_other_modes_do_as_told() {
        for waited in [Duration::ZERO, Duration::from_secs(9)] {
            assert_eq!(patience(WaitMode::Spin, 9, 1, 1).step(waited), Step::Spin);
            assert_eq!(patience(WaitMode::Yield, 1, 9, 9).step(waited), Step::Yield);
            assert_eq!(patience(WaitMode::Park, 1, 9, 9).step(waited), Step::Park);
        }
    }
}
