//! The descriptors of this library, and what becomes of them in a fork.
//!
//! A child inherits every open descriptor. Were it to keep those of a rank, a
//! helper that outlives the rank would keep its connections open, and the other
//! ranks would wait for a peer that is dead. So a handler closes them in the
//! child, before `fork` returns there. It finds them in a table that is only
//! ever read and written by atomic operations: what other threads of the parent
//! were doing does not matter.
//!
//! A descriptor enters the table right after it was opened and leaves it right
//! before it is closed; a fork in another thread within those few instructions
//! leaves that one descriptor to the child. `_Fork` and the bare system call run
//! no handlers, nor does `vfork`, whose child may only `exec`: for programs that
//! are executed all descriptors are close-on-exec as well.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

const BITS: usize = u64::BITS as usize;

/// How many descriptors the table can hold: Linux allows a process this many
/// unless its administrator raised `fs.nr_open`, and gives the lowest number
/// that is free. (128 KiB, of which memory is taken only for what is written.)
const CAPACITY: usize = 1 << 20;

/// A bit for each descriptor number.
static TABLE: [AtomicU64; CAPACITY / BITS] = [const { AtomicU64::new(0) }; CAPACITY / BITS];

/// How many words of the table were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Has forks noticed from now on. To be called before the first descriptor is
/// opened.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where there is no memory for it.
pub(crate) fn watch_forks() -> Result<()> {
    // No lock: a child of another thread's fork would find it taken for ever.
    // Threads that get here together register the handler twice, which is as
    // good as once.
    if !WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handler does only what is allowed after a fork: atomic
        // operations, and close.
        let errno = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if errno != 0 {
            return Err(Error::io("pthread_atfork", &io::Error::from_raw_os_error(errno)));
        }
        WATCHED.store(true, Ordering::Release);
    }
    Ok(())
}

/// The process that something belongs to, told from its children. (To ask for
/// the process id costs a system call each time.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// This process.
    pub(crate) fn current() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this is a child of that process.
    pub(crate) fn is_over(self) -> bool {
        self != Self::current()
    }

    /// Refuses what belongs to a parent.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`].
    pub(crate) fn check(self) -> Result<()> {
        if self.is_over() {
            let text = "the communicator belongs to the parent process; make one after the fork";
            return Err(Error::new(ErrorKind::Forked, text));
        }
        Ok(())
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let used = USED.load(Ordering::Relaxed);
    for (index, word) in TABLE.iter().enumerate().take(used) {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let descriptor = index * BITS + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            // SAFETY: it is one of ours; what owned it sees the new generation
            // and leaves the number alone.
            unsafe { libc::close(descriptor as RawFd) };
        }
    }
}

/// What owns a descriptor of this library, and nothing besides. In a child of
/// the process that made it the descriptor is closed, its number perhaps in
/// use by somebody else: dropping it there does nothing.
#[derive(Debug)]
pub(crate) struct Tracked<T: AsRawFd> {
    owner: ManuallyDrop<T>,
    generation: Generation,
}

impl<T: AsRawFd> Tracked<T> {
    /// Takes what has just been opened.
    pub(crate) fn new(owner: T) -> Self {
        if let Some((word, bit)) = place(owner.as_raw_fd()) {
            USED.fetch_max(word + 1, Ordering::Relaxed);
            TABLE[word].fetch_or(bit, Ordering::Relaxed);
        }
        Self { owner: ManuallyDrop::new(owner), generation: Generation::current() }
    }
}

impl<T: AsRawFd> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owner
    }
}

impl<T: AsRawFd> Drop for Tracked<T> {
    fn drop(&mut self) {
        if self.generation.is_over() {
            return;
        }
        if let Some((word, bit)) = place(self.owner.as_raw_fd()) {
            TABLE[word].fetch_and(!bit, Ordering::Relaxed);
        }
        // SAFETY: it is dropped here and nowhere else, and not used after this.
        unsafe { ManuallyDrop::drop(&mut self.owner) };
    }
}

/// What all endpoints of a process share; a child starts with a new one. It never
/// meets the parent's, which another thread of the parent may have been changing.
pub(crate) struct PerProcess<T: 'static> {
    instance: AtomicPtr<Instance<T>>,
}

struct Instance<T> {
    generation: Generation,
    value: T,
    /// The parent's, which is kept: a thread that was using it does not tell.
    _inherited: *const Instance<T>,
}

impl<T: Default + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { instance: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn get(&'static self) -> &'static T {
        let mut known = self.instance.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or an instance that is never freed.
            match unsafe { known.as_ref() } {
                Some(instance) if !instance.generation.is_over() => return &instance.value,
                _ => {}
            }
            let generation = Generation::current();
            let new =
                Box::into_raw(Box::new(Instance { generation, value: T::default(), _inherited: known }));
            match self.instance.compare_exchange(known, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just made, and never freed.
                Ok(_) => return unsafe { &(*new).value },
                Err(other) => {
                    // SAFETY: made above, and nobody has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    known = other;
                }
            }
        }
    }
}

/// The word and the bit of a descriptor.
fn place(descriptor: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(descriptor).ok().filter(|number| *number < CAPACITY)?;
    Some((number / BITS, 1 << (number % BITS)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;

    fn is_in_table(descriptor: RawFd) -> bool {
        place(descriptor).is_some_and(|(word, bit)| TABLE[word].load(Ordering::Relaxed) & bit != 0)
    }

    #[test]
    fn the_table_holds_what_is_open() {
        let null = File::open("/dev/null").unwrap();
        // So high that no other test uses the number meanwhile.
        // SAFETY: the descriptor is open; the copy is new.
        let copy = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 700) };
        assert!(copy >= 700);
        // SAFETY: the descriptor is new and ours.
        let tracked = Tracked::new(unsafe { OwnedFd::from_raw_fd(copy) });
        assert!(is_in_table(copy) && USED.load(Ordering::Relaxed) > copy as usize / BITS);
        drop(tracked);
        assert!(!is_in_table(copy));
    }

    #[test]
    fn numbers_that_the_table_cannot_hold_are_left_out() {
        assert_eq!(place(-1), None);
        assert_eq!(place(0), Some((0, 1)));
        assert_eq!(place(CAPACITY as RawFd - 1), Some((CAPACITY / BITS - 1, 1 << 63)));
        assert_eq!(place(CAPACITY as RawFd), None);
    }
}
