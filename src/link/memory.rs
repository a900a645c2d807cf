//! The memory link: ranks that are threads of one process.
//!
//! A [`MemoryJob`] holds a bounded pipe for every ordered pair of ranks that
//! has talked. A rank that sleeps is woken by its doorbell, an eventfd that its
//! epoll watches.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Part;
use crate::descriptors::{Generation, PerProcess, Tracked};
use crate::error::{Error, Result};

/// What fits in a pipe, in bytes: about what a TCP connection over loopback
/// holds.
const PIPE_CAPACITY: usize = 1 << 20;

/// Jobs by name and size, the oldest first.
type Jobs = HashMap<(String, u32), Vec<Arc<MemoryJob>>>;

static JOBS: PerProcess<Mutex<Jobs>> = PerProcess::new();

/// The ranks of one job within this process.
pub(crate) struct MemoryJob {
    key: (String, u32),
    ranks: Mutex<Ranks>,
    doorbells: Box<[Doorbell]>,
}

struct Ranks {
    joined: Box<[bool]>,
    left: Box<[bool]>,
    present: u32,
    pipes: HashMap<(u32, u32), Arc<Pipe>>,
    /// For each rank, those that made a link to it, of which it does not know yet.
    newcomers: HashMap<u32, Vec<u32>>,
}

/// One rank's place in a job; giving it up closes its pipes.
pub(crate) struct MemoryPort {
    job: Arc<MemoryJob>,
    rank: u32,
    generation: Generation,
}

/// The pipes between this rank and one other.
pub(crate) struct MemoryLink {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    job: Arc<MemoryJob>,
    peer: u32,
}

#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
}

#[derive(Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    writer_closed: bool,
    reader_closed: bool,
}

struct Doorbell {
    event: Tracked<OwnedFd>,
    sleeping: AtomicBool,
    /// There are newcomers.
    has_newcomers: AtomicBool,
}

impl MemoryPort {
    /// Joins the job `name` of `size` ranks: the oldest one of that name in
    /// which the rank has not been yet, else a new one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where no eventfd can be had.
    pub(crate) fn join(name: &str, rank: u32, size: u32) -> Result<Self> {
        let key = (name.to_owned(), size);
        let generation = Generation::current();
        let mut jobs = lock(JOBS.get());
        let open = jobs.entry(key.clone()).or_default();
        for job in open.iter() {
            let mut ranks = lock(&job.ranks);
            if !ranks.joined[rank as usize] {
                ranks.joined[rank as usize] = true;
                ranks.present += 1;
                return Ok(Self { job: Arc::clone(job), rank, generation });
            }
        }
        let doorbells = (0..size).map(|_| Doorbell::new()).collect::<Result<Box<[_]>>>()?;
        let mut joined = vec![false; size as usize].into_boxed_slice();
        joined[rank as usize] = true;
        let left = vec![false; size as usize].into_boxed_slice();
        let ranks =
            Mutex::new(Ranks { joined, left, present: 1, pipes: HashMap::new(), newcomers: HashMap::new() });
        let job = Arc::new(MemoryJob { key, ranks, doorbells });
        open.push(Arc::clone(&job));
        Ok(Self { job, rank, generation })
    }

    /// The link to `peer`, which may join later.
    pub(crate) fn link(&self, peer: u32) -> MemoryLink {
        let mut ranks = lock(&self.job.ranks);
        let is_first = !ranks.pipes.contains_key(&(self.rank, peer));
        let (incoming, outgoing) = (ranks.pipe(peer, self.rank), ranks.pipe(self.rank, peer));
        if ranks.left[peer as usize] {
            lock(&incoming.state).writer_closed = true;
            lock(&outgoing.state).reader_closed = true;
        } else if is_first {
            ranks.newcomers.entry(peer).or_default().push(self.rank);
            self.job.doorbells[peer as usize].has_newcomers.store(true, Ordering::Release);
        }
        MemoryLink { incoming, outgoing, job: Arc::clone(&self.job), peer }
    }

    /// The ranks that have made a link to this one since it was last asked: what they
    /// send is read, whether it has been asked for or not.
    pub(crate) fn newcomers(&self) -> Vec<u32> {
        if !self.job.doorbells[self.rank as usize].has_newcomers.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        lock(&self.job.ranks).newcomers.remove(&self.rank).unwrap_or_default()
    }

    /// Whether `peer` has joined.
    pub(crate) fn has_joined(&self, peer: u32) -> bool {
        lock(&self.job.ranks).joined[peer as usize]
    }

    /// Whether `peer` has joined and gone. It can only go in order.
    pub(crate) fn has_left(&self, peer: u32) -> bool {
        lock(&self.job.ranks).left[peer as usize]
    }

    /// What the owner's epoll watches while it sleeps.
    pub(crate) fn doorbell(&self) -> RawFd {
        self.job.doorbells[self.rank as usize].event.as_raw_fd()
    }

    /// Announces that the owner is about to sleep: whoever writes to it from
    /// now on rings. The owner looks at its links once more before it sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.job.doorbells[self.rank as usize].sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake again.
    pub(crate) fn wake_up(&self) {
        let bell = &self.job.doorbells[self.rank as usize];
        bell.sleeping.store(false, Ordering::SeqCst);
        let mut count = [0u8; 8];
        // SAFETY: the buffer has the eight bytes that an eventfd delivers.
        unsafe { libc::read(bell.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        if self.generation.is_over() {
            // The place is the parent's: it is not given up here, and no lock is
            // taken, which a thread of the parent may have held.
            return;
        }
        let mut jobs = lock(JOBS.get());
        let mut ranks = lock(&self.job.ranks);
        ranks.left[self.rank as usize] = true;
        for (&(from, to), pipe) in &ranks.pipes {
            let mut state = lock(&pipe.state);
            state.writer_closed |= from == self.rank;
            state.reader_closed |= to == self.rank;
            let other = if from == self.rank { to } else { from };
            self.job.doorbells[other as usize].ring();
        }
        ranks.present -= 1;
        if ranks.present == 0
            && let Some(open) = jobs.get_mut(&self.job.key)
        {
            open.retain(|job| !Arc::ptr_eq(job, &self.job));
            if open.is_empty() {
                jobs.remove(&self.job.key);
            }
        }
    }
}

impl Ranks {
    fn pipe(&mut self, from: u32, to: u32) -> Arc<Pipe> {
        Arc::clone(self.pipes.entry((from, to)).or_default())
    }
}

impl MemoryLink {
    pub(super) fn send(&mut self, buffers: &[IoSlice<'_>; 2]) -> io::Result<usize> {
        let mut state = lock(&self.outgoing.state);
        if state.reader_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = PIPE_CAPACITY - state.bytes.len();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for buffer in buffers {
            let count = buffer.len().min(room);
            state.bytes.extend(&buffer[..count]);
            room -= count;
            taken += count;
        }
        drop(state);
        self.ring();
        Ok(taken)
    }

    /// # Safety
    /// The parts are valid for writes of their lengths, and apart from
    /// `staging`.
    pub(super) unsafe fn recv(&mut self, parts: &[Part; 2], staging: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.incoming.state);
        if state.bytes.is_empty() {
            return if state.writer_closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let before = state.bytes.len();
        for (at, length) in [parts[0], parts[1], (staging.as_mut_ptr(), staging.len())] {
            // SAFETY: the parts are valid for writes by the caller's promise,
            // and may be uninitialised: they are only written to. The last is a
            // slice.
            unsafe { state.take_to(at, length) };
        }
        let taken = before - state.bytes.len();
        drop(state);
        if before == PIPE_CAPACITY {
            self.ring();
        }
        Ok(taken)
    }

    pub(super) fn shut_down_sending(&mut self) {
        lock(&self.outgoing.state).writer_closed = true;
        self.ring();
    }

    fn ring(&self) {
        self.job.doorbells[self.peer as usize].ring();
    }
}

impl PipeState {
    /// Moves up to `length` bytes out of the pipe.
    ///
    /// # Safety
    /// `at` is valid for writes of `length` bytes.
    unsafe fn take_to(&mut self, at: *mut u8, length: usize) {
        let count = length.min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let from_front = count.min(front.len());
        // SAFETY: `at` has room for `count` bytes by the caller's promise, and
        // is memory apart from the pipe's.
        unsafe {
            std::ptr::copy_nonoverlapping(front.as_ptr(), at, from_front);
            std::ptr::copy_nonoverlapping(back.as_ptr(), at.add(from_front), count - from_front);
        }
        self.bytes.drain(..count);
    }
}

impl Doorbell {
    fn new() -> Result<Self> {
        // SAFETY: a plain system call.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(Error::io("eventfd", &io::Error::last_os_error()).with_channel("Memory"));
        }
        // SAFETY: the descriptor is new and ours.
        let event = Tracked::new(unsafe { OwnedFd::from_raw_fd(event) });
        Ok(Self { event, sleeping: AtomicBool::new(false), has_newcomers: AtomicBool::new(false) })
    }

    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the buffer has the eight bytes that an eventfd takes.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
