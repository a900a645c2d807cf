//! Flow control: how much may lie unmatched at a peer.
//!
//! Each direction of a link has a window, in bytes and in messages. Counters
//! are cumulative and wrap; a receiver returns credit by raising its counters,
//! which every frame carries.
//!
//! A message for which there is no credit is announced: its header goes, as an RTS
//! without payload. Announcements need no credit, so they are counted: a sender
//! keeps what is beyond [`ANNOUNCED_MAX`] in its own queue, in order, and a receiver
//! takes more for a fault of protocol. Point-to-point messages and collectives are
//! counted apart, so that a flood of the first does not hold up a barrier.

use crate::error::{Error, ErrorKind, Result};

/// Bytes that may lie unmatched at one peer.
pub(crate) const WINDOW_BYTES: u32 = 1 << 20;

/// Messages that may lie unmatched at one peer.
pub(crate) const WINDOW_MESSAGES: u32 = 1024;

/// Messages of one half of the contexts that may be announced to one peer and not
/// be granted yet: as many as on credit, which together bound what a peer can make
/// an engine keep beyond its `unexpected_limit`. Few in the engine's own tests, so
/// that random schedules get there.
pub(crate) const ANNOUNCED_MAX: u32 = if cfg!(test) { 20 } else { WINDOW_MESSAGES };

/// Control frames that may wait for a peer that asks on. One that reads what it asked
/// for has no more grants under way than both halves' announcements and the messages
/// of a window, and one more for each frame that it reads.
pub(super) const CONTROL_MAX: usize = 2 * (ANNOUNCED_MAX + WINDOW_MESSAGES) as usize;

/// Bytes and messages, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u32,
    pub(super) messages: u32,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_add(other.bytes),
            messages: self.messages.wrapping_add(other.messages),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_sub(other.bytes),
            messages: self.messages.wrapping_sub(other.messages),
        }
    }

    fn fits(self, bytes: u32, messages: u32) -> bool {
        self.bytes <= bytes && self.messages <= messages
    }
}

/// The sender's side: what it may still send.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    spent: Amount,
    returned: Amount,
}

impl Allowance {
    /// How many bytes of a message of `length` bytes may go at once; `None` =
    /// there is no credit for it at all.
    pub(super) fn grant(&self, length: usize) -> Option<u32> {
        let out = self.outstanding();
        let bytes = WINDOW_BYTES - out.bytes;
        if out.messages == WINDOW_MESSAGES || (length > 0 && bytes == 0) {
            return None;
        }
        Some(u32::try_from(length).unwrap_or(u32::MAX).min(bytes))
    }

    pub(super) fn spend(&mut self, amount: Amount) {
        self.spent = self.spent.plus(amount);
        debug_assert!(self.outstanding().fits(WINDOW_BYTES, WINDOW_MESSAGES));
    }

    /// Takes the peer's counters; they may only rise, and never above what was
    /// spent.
    pub(super) fn update(&mut self, bytes: u32, messages: u32) -> Result<()> {
        let returned = Amount { bytes, messages };
        let outstanding = self.outstanding();
        if !returned.minus(self.returned).fits(outstanding.bytes, outstanding.messages) {
            return Err(Error::new(ErrorKind::Protocol, "credit returned that was never spent"));
        }
        self.returned = returned;
        Ok(())
    }

    /// What lies unmatched at the peer, as far as it has said.
    pub(super) fn outstanding(&self) -> Amount {
        self.spent.minus(self.returned)
    }
}

/// The receiver's side: what it owes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    received: Amount,
    returned: Amount,
    announced: Amount,
}

impl Ledger {
    /// Books what arrived on credit; more than the window is a fault of the peer.
    pub(super) fn receive(&mut self, amount: Amount) -> Result<()> {
        let received = self.received.plus(amount);
        if !received.minus(self.returned).fits(WINDOW_BYTES, WINDOW_MESSAGES) {
            return Err(Error::new(ErrorKind::Protocol, "more was sent than the credit allows"));
        }
        self.received = received;
        Ok(())
    }

    pub(super) fn give_back(&mut self, amount: Amount) {
        self.returned = self.returned.plus(amount);
    }

    /// The counters for a frame that is about to leave.
    pub(super) fn counters(&self) -> (u32, u32) {
        (self.returned.bytes, self.returned.messages)
    }

    /// A frame with these counters is on its way: not before, as a frame that was
    /// made may be withdrawn before its first byte leaves.
    pub(super) fn announce(&mut self, (bytes, messages): (u32, u32)) {
        self.announced = Amount { bytes, messages };
    }

    /// Whether more than half of the window waits to be announced.
    pub(super) fn is_due(&self) -> bool {
        !self.returned.minus(self.announced).fits(WINDOW_BYTES / 2, WINDOW_MESSAGES / 2)
    }

    /// What lies unmatched here of what came on credit.
    #[cfg(test)]
    pub(super) fn owed(&self) -> Amount {
        self.received.minus(self.returned)
    }

    /// Whether anything waits to be announced.
    pub(super) fn is_behind(&self) -> bool {
        self.returned != self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_bounds_bytes_and_messages() {
        let mut allowance = Allowance::default();
        assert_eq!(allowance.grant(10), Some(10));
        assert_eq!(allowance.grant(usize::MAX), Some(WINDOW_BYTES));
        allowance.spend(Amount { bytes: WINDOW_BYTES, messages: 1 });
        assert_eq!(allowance.grant(1), None);
        assert_eq!(allowance.grant(0), Some(0));
        allowance.spend(Amount { bytes: 0, messages: WINDOW_MESSAGES - 1 });
        assert_eq!(allowance.grant(0), None);
        allowance.update(WINDOW_BYTES, 1).unwrap();
        assert_eq!(allowance.grant(5), Some(5));
    }

    #[test]
    fn credit_that_was_never_spent_is_refused() {
        let mut allowance = Allowance::default();
        allowance.spend(Amount { bytes: 5, messages: 1 });
        assert!(allowance.update(6, 1).is_err());
        assert!(allowance.update(5, 2).is_err());
        allowance.update(5, 1).unwrap();
        assert!(allowance.update(4, 1).is_err());
    }

    #[test]
    fn counters_wrap() {
        let mut allowance = Allowance::default();
        let mut ledger = Ledger::default();
        let piece = Amount { bytes: WINDOW_BYTES, messages: 1 };
        for _ in 0..5000 {
            allowance.spend(piece);
            ledger.receive(piece).unwrap();
            assert!(ledger.receive(Amount { bytes: 1, messages: 0 }).is_err());
            ledger.give_back(piece);
            assert!(ledger.is_due() && ledger.is_behind());
            let (bytes, messages) = ledger.counters();
            ledger.announce((bytes, messages));
            assert!(!ledger.is_due() && !ledger.is_behind());
            allowance.update(bytes, messages).unwrap();
        }
    }
}
