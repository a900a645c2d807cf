//! Forks: a communicator belongs to the process that made it.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCH: Once = Once::new();

/// A number that is another one in each child of this process. (Asking for the
/// process id costs a system call each time.)
pub(super) fn generation() -> u64 {
    WATCH.call_once(|| {
        // SAFETY: the handler does nothing but an atomic addition, which a
        // child may do after a fork. Where it cannot be registered, for want of
        // memory, forks go unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
