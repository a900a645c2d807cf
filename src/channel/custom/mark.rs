//! Which message of which collective is on its way.
//!
//! A channel may send messages in its own way by handing them, changed or not, to
//! another channel, as the classes of the C++ layer do. The mark goes with them on
//! the calling thread, so that ranks which do not call the same collective are told
//! so there.

use std::cell::Cell;

use super::super::Step;
use super::super::direct::CallIdentity;

/// A message of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) signature: u32,
    pub(super) step: Step,
    pub(super) operation: u8,
}

thread_local! {
    static CURRENT: Cell<Option<Mark>> = const { Cell::new(None) };
}

impl Mark {
    pub(super) fn new(call: &CallIdentity, step: Step) -> Self {
        let CallIdentity { sequence, operation, signature, .. } = *call;
        Self { sequence, signature, step, operation: operation as u8 }
    }

    /// Whether both are of the same call.
    pub(super) fn is_of_call(&self, other: &Self) -> bool {
        Self { step: 0, ..*self } == Self { step: 0, ..*other }
    }
}

/// Runs `body`, which sends or receives the message `mark`.
pub(super) fn with<T>(mark: Option<Mark>, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<Mark>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = CURRENT.try_with(|current| current.set(self.0));
        }
    }
    // Where thread-local storage is gone, at exit, messages go unmarked.
    let _restore = Restore(CURRENT.try_with(|current| current.replace(mark)).unwrap_or(None));
    body()
}

/// The message that is being sent or received around this call, if any is.
pub(super) fn current() -> Option<Mark> {
    CURRENT.try_with(Cell::get).unwrap_or(None)
}
