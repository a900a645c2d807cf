//! The endpoint: one rank of one job inside a process. It owns the engine, the
//! links, and the way to new links; and it waits.
//!
//! There is no background thread: progress is made inside calls. A call enters
//! the endpoint ([`Endpoint::enter`]), starts requests, and drives the future
//! that waits for them ([`Entered::drive`]). While it waits it moves bytes on
//! every link, makes connections, and looks at the wake-up pipe.

mod connector;
mod host;
mod leaving;
mod limits;
mod liveness;
mod patience;
mod poller;
mod requests;
mod signals;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::{DirectSettings, InterruptFunction, WaitMode};
use crate::descriptors::Generation;
use crate::engine::frame::{FRAGMENT_MAX, HEADER_LEN};
use crate::engine::{Engine, Envelope, RecvKey, Selector, SendKey, left_error};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Link;
use crate::link::memory::MemoryPort;
use crate::log::Logger;
use crate::rendezvous::client::Reason;
use connector::{Connector, Membership, Outcome};
use liveness::Watch;
use patience::{Patience, Step};
use poller::{Interest, Poller, Token};

pub(crate) use leaving::Until;
pub(crate) use limits::{Deadline, Limits};
pub(crate) use requests::{RecvFuture, SendFuture};
pub(crate) use signals::Signals;

/// What one read may bring beyond the window of a message: many small messages,
/// or the head of a large one. A larger part is copied once more.
const STAGING: usize = 16 << 10;

/// How often a waiting call that spins looks at everything else.
const WIDE_LOOK: Duration = Duration::from_micros(10);

/// After how many moves in a row a call looks at its deadline, and at everything
/// else.
const MOVES_PER_LOOK: u32 = 256;

/// How long a call that has failed waits for a full link to take the notice of it:
/// as long as a peer that reads needs for the rest of a fragment, many times over.
const NOTICE_PATIENCE: Duration = Duration::from_millis(20);

/// How long a rank that aborts before it has joined has for joining: three round
/// trips, and a look-up.
const ABORT_PATIENCE: Duration = Duration::from_millis(500);

/// How many bytes a link moves each way before others, and the deadline, have
/// their turn: a peer that keeps up must not hold a call for the whole of a long
/// message. (256 turns of as much take about 15 ms.)
const TURN: usize = 512 << 10;

/// What an endpoint is made of.
pub(crate) struct EndpointConfig {
    pub(crate) rank: u32,
    pub(crate) size: u32,
    pub(crate) name: String,
    pub(crate) job_id: Option<String>,
    pub(crate) fingerprint: u64,
    pub(crate) transport: TransportConfig,
    pub(crate) wait: WaitMode,
    pub(crate) unexpected_limit: u64,
    pub(crate) logger: Logger,
    pub(crate) interrupt: Option<Arc<InterruptFunction>>,
    pub(crate) signals: Arc<Signals>,
}

/// Where links come from.
pub(crate) enum TransportConfig {
    /// TCP, by the help of a rendezvous server.
    Direct(DirectSettings),
    /// Pipes between the threads of this process.
    Memory,
}

/// One rank of one job.
pub(crate) struct Endpoint {
    core: ManuallyDrop<Mutex<RefCell<Core>>>,
    closed: AtomicBool,
    generation: Generation,
    interrupt: Option<Arc<InterruptFunction>>,
    signals: Arc<Signals>,
}

/// A call inside the endpoint.
pub(crate) struct Entered<'a> {
    core: MutexGuard<'a, RefCell<Core>>,
    endpoint: &'a Endpoint,
}

/// Why a wait ended without its result.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The deadline passed.
    Timeout,
    /// The interrupt function, or a byte in the wake-up pipe, says so.
    Interrupted,
    /// Another thread aborts, with this code.
    Aborted(i32),
    /// The endpoint itself failed.
    Failed(Error),
}

impl Endpoint {
    /// No network I/O.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no descriptor can be had.
    pub(crate) fn new(config: EndpointConfig) -> Result<Self> {
        let EndpointConfig { rank, size, interrupt, signals, .. } = config;
        let poller = Poller::new()?;
        let watch = |descriptor, token| {
            poller.add(descriptor, token, Interest::Read).map_err(|error| Error::io("epoll_ctl", &error))
        };
        watch(signals.read_end(), Token::Wake)?;
        let mut patience = Patience::new(config.wait);
        let transport = match config.transport {
            TransportConfig::Direct(settings) => {
                let membership = Membership {
                    rank,
                    size,
                    name: config.name,
                    job_id: config.job_id,
                    fingerprint: config.fingerprint,
                };
                Transport::Direct(Box::new(Connector::new(settings, membership, config.logger)))
            }
            TransportConfig::Memory => {
                let port = MemoryPort::join(&config.name, rank, size)?;
                watch(port.doorbell(), Token::Doorbell)?;
                patience.set_ranks_here(size);
                Transport::Memory(port)
            }
        };
        let core = Core {
            me: rank,
            engine: Engine::new(rank, size, config.unexpected_limit),
            links: (0..size).map(|_| None).collect(),
            linked: Vec::new(),
            transport,
            poller,
            staging: vec![0; STAGING].into_boxed_slice(),
            patience,
            watch: Watch::new(),
            signals: Arc::clone(&signals),
            woken: false,
            deadline: None,
        };
        Ok(Self {
            core: ManuallyDrop::new(Mutex::new(RefCell::new(core))),
            closed: AtomicBool::new(false),
            generation: Generation::current(),
            interrupt,
            signals,
        })
    }

    /// Enters the endpoint for one call.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] where another thread is inside,
    /// [`ErrorKind::Forked`] in a child of the process that made it,
    /// [`ErrorKind::Closed`] after close.
    pub(crate) fn enter(&self) -> Result<Entered<'_>> {
        self.generation.check()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the communicator is closed"));
        }
        let core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "another thread is inside a call on this communicator",
                ));
            }
        };
        Ok(Entered { core, endpoint: self })
    }

    fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.generation.is_over() {
            // The connections are the parent's. A thread of it that was inside
            // does not exist here, and has left things half done for ever.
            if matches!(self.core.try_lock(), Err(TryLockError::WouldBlock)) {
                return;
            }
        } else if let Ok(entered) = self.enter() {
            let _ = entered.leave(Until::Arrived, &mut Deadline::after(Some(leaving::LINGER)));
            entered.close();
        }
        // SAFETY: it is dropped here and nowhere else, and not used after this.
        unsafe { ManuallyDrop::drop(&mut self.core) };
    }
}

impl<'a> Entered<'a> {
    pub(crate) fn core(&self) -> &RefCell<Core> {
        &self.core
    }

    /// Runs `future` to its end, moving everything of the endpoint meanwhile.
    /// The future may be polled again, or must be dropped, when this returns a
    /// [`Stop`].
    pub(crate) fn drive<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        deadline: &mut Deadline,
    ) -> std::result::Result<F::Output, Stop> {
        let mut context = Context::from_waker(Waker::noop());
        let mut idle: Option<Idle> = None;
        let mut moves = 0;
        let mut overdue = false;
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            if overdue {
                return Err(Stop::Timeout);
            }
            let mut core = self.core.borrow_mut();
            if core.progress() {
                idle = None;
                moves += 1;
                if moves % MOVES_PER_LOOK == 0 {
                    // Not the end yet, and no time to sleep: what moved last may
                    // be what the future waits for.
                    let is_first = deadline.is_unstarted();
                    overdue = deadline.remaining(Instant::now()) == Some(Duration::ZERO);
                    let is_stale = is_first && core.signals.drain();
                    core.look(Some(Duration::ZERO)).map_err(Stop::Failed)?;
                    let is_woken = std::mem::take(&mut core.woken);
                    if is_stale || is_woken {
                        drop(core);
                        self.answer_wake(!is_woken)?;
                    }
                }
                continue;
            }
            let now = Instant::now();
            let is_first = deadline.is_unstarted();
            if deadline.remaining(now) == Some(Duration::ZERO) {
                return Err(Stop::Timeout);
            }
            if is_first && core.signals.drain() {
                drop(core);
                self.answer_wake(true)?;
                continue;
            }
            let idle = idle.get_or_insert(Idle { since: now, looked: now });
            core.idle(idle, deadline.remaining(now), now).map_err(Stop::Failed)?;
            if std::mem::take(&mut core.woken) {
                drop(core);
                self.answer_wake(false)?;
            }
        }
    }

    /// Something was written to the wake-up pipe. What was written before the
    /// call began to wait interrupts only through the interrupt function.
    fn answer_wake(&self, is_stale: bool) -> std::result::Result<(), Stop> {
        if let Some(code) = self.endpoint.signals.take_abort() {
            return Err(Stop::Aborted(code));
        }
        match &self.endpoint.interrupt {
            Some(interrupt) => {
                let is_interrupted = interrupt();
                // A child that the function made goes no further than here.
                self.endpoint.generation.check().map_err(Stop::Failed)?;
                if is_interrupted { Err(Stop::Interrupted) } else { Ok(()) }
            }
            None if is_stale => Ok(()),
            None => Err(Stop::Interrupted),
        }
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn flush(&self) {
        if self.endpoint.generation.is_over() {
            return;
        }
        let mut core = self.core.borrow_mut();
        for peer in core.linked.clone() {
            core.flush(peer);
        }
    }

    /// Has the others hear that a context has failed, before the call returns that
    /// saw it: this rank may compute for long then. A link that is full has a moment
    /// to take the notice; a peer that does not read hears of it later.
    pub(crate) fn spread_notices(&self) {
        self.flush();
        let mut core = self.core.borrow_mut();
        // Not that of the call, which is over.
        core.deadline = None;
        let start = Instant::now();
        while let Some(patience) = core.notice_patience() {
            let now = Instant::now();
            let left = patience.saturating_sub(now - start);
            if left.is_zero() || core.park(Some(left), now).is_err() {
                break;
            }
        }
        // What was written to the wake-up pipe meanwhile came between two calls.
        core.woken = false;
    }

    /// Whom the call waits for, why, and what kind of failure that is when the
    /// deadline passes.
    pub(crate) fn explain_wait(&self) -> Error {
        self.core.borrow().explain_wait()
    }
}

/// A wait in which nothing moves.
struct Idle {
    since: Instant,
    /// When everything was last looked at, or need not have been.
    looked: Instant,
}

enum Transport {
    Direct(Box<Connector>),
    Memory(MemoryPort),
}

struct Linked {
    link: Link,
    /// Cleared when a write fails: what the peer said before can still be read.
    writable: bool,
    /// What the poller tells of it.
    watched: Interest,
    /// We have said that nothing more will be sent.
    is_shut_down: bool,
}

/// The endpoint's inside.
pub(crate) struct Core {
    me: u32,
    pub(crate) engine: Engine,
    links: Vec<Option<Linked>>,
    /// The ranks that have a link.
    linked: Vec<u32>,
    transport: Transport,
    poller: Poller,
    staging: Box<[u8]>,
    patience: Patience,
    watch: Watch,
    signals: Arc<Signals>,
    /// Something was written to the wake-up pipe.
    woken: bool,
    /// When the running call ends; known once it waits.
    deadline: Option<Instant>,
}

/// Requests.
impl Core {
    /// Starts a send, and sends at once what the link takes.
    ///
    /// The buffer must stay valid and unchanged until the request has ended.
    fn post_send(&mut self, peer: u32, envelope: Envelope, data: *const u8, length: usize) -> SendKey {
        let key = self.engine.post_send(peer, envelope, data, length);
        if self.links[peer as usize].is_some() {
            self.flush(peer);
        } else {
            self.want_link(peer);
        }
        key
    }

    /// Starts a receive. The buffer must stay valid and untouched until the
    /// request has ended.
    fn post_recv(
        &mut self,
        source: Option<u32>,
        selector: Selector,
        buffer: *mut u8,
        capacity: usize,
    ) -> RecvKey {
        let key = self.engine.post_recv(source, selector, buffer, capacity);
        if let Some(peer) = source
            && self.links[peer as usize].is_none()
        {
            self.want_link(peer);
        }
        key
    }

    fn want_link(&mut self, peer: u32) {
        if !self.engine.wants_link(peer) {
            return;
        }
        match &mut self.transport {
            Transport::Direct(connector) => connector.want(peer),
            Transport::Memory(port) => {
                let link = Link::Memory(port.link(peer));
                self.install(peer, link);
            }
        }
    }
}

/// Links.
impl Core {
    fn install(&mut self, peer: u32, link: Link) {
        if self.links[peer as usize].is_some() || self.engine.is_gone(peer) {
            return;
        }
        if let Some(descriptor) = link.descriptor()
            && let Err(error) = self.poller.add(descriptor, Token::Link(peer), Interest::Read)
        {
            return self.engine.connect_failed(peer, Error::io("epoll_ctl", &error));
        }
        self.links[peer as usize] =
            Some(Linked { link, writable: true, watched: Interest::Read, is_shut_down: false });
        self.linked.push(peer);
        self.engine.link_opened(peer);
        self.flush(peer);
    }

    /// Sends what is queued for `peer`, as far as its link takes it.
    fn flush(&mut self, peer: u32) -> bool {
        let mut sent = 0;
        while sent < TURN
            && let Some(linked) = self.links[peer as usize].as_mut().filter(|linked| linked.writable)
        {
            let Some(buffers) = self.engine.output(peer) else { break };
            let total = buffers[0].len() + buffers[1].len();
            match linked.link.send(&buffers) {
                Ok(count) => {
                    self.engine.written(peer, count);
                    sent += count;
                    if count < total {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    linked.writable = false;
                    // GOODBYE perhaps, at the end of much else.
                    while self.read(peer) {}
                    self.unlink(peer, lost(&error.to_string()).with_errno(error.raw_os_error().unwrap_or(0)));
                    return true;
                }
            }
        }
        sent > 0
    }

    /// Reads what has come from `peer`, a turn of it.
    fn read(&mut self, peer: u32) -> bool {
        let mut received = 0;
        while received < TURN
            && let Some(linked) = &mut self.links[peer as usize]
        {
            let landing = self.engine.landing(peer);
            // SAFETY: the landing is in the buffer of a request that is alive,
            // or in the engine's own memory; staging is apart from both.
            match unsafe { linked.link.recv(&landing.parts, &mut self.staging) } {
                Ok(0) => {
                    self.end_of_stream(peer);
                    return true;
                }
                Ok(count) => {
                    received += count;
                    let placed = count.min(landing.length());
                    let taken = self.engine.landed(peer, &landing, placed);
                    let staged = &self.staging[..count - placed];
                    if let Err(error) = taken.and_then(|()| self.engine.feed(peer, staged)) {
                        self.unlink(peer, error);
                        return true;
                    }
                    // The rest of a message that has begun is on its way.
                    let is_drained = count < landing.length() + self.staging.len();
                    if is_drained && !self.engine.is_amid_payload(peer) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.unlink(peer, lost(&error.to_string()).with_errno(error.raw_os_error().unwrap_or(0)));
                    return true;
                }
            }
        }
        if received > 0 && self.engine.has_output(peer) {
            // Clear-to-send, credit: the peer waits for it.
            self.flush(peer);
        }
        received > 0
    }

    fn end_of_stream(&mut self, peer: u32) {
        if self.engine.is_gone(peer) {
            // It waits to hear that everything has been read, and it has been: its
            // GOODBYE came last. The answer cannot hurt, whether it still listens.
            self.engine.say_goodbye(peer);
            self.flush(peer);
        }
        if let Transport::Memory(port) = &self.transport
            && port.has_left(peer)
        {
            // It may have had no link to this rank, over which to say so.
            return self.unlink(peer, left_error(peer));
        }
        self.unlink(peer, lost("it closed its connection without a goodbye"));
    }

    fn unlink(&mut self, peer: u32, why: Error) {
        if let Some(mut linked) = self.links[peer as usize].take() {
            // Over Memory nothing else tells the peer.
            linked.link.shut_down_sending();
            if let Some(descriptor) = linked.link.descriptor() {
                self.poller.remove(descriptor);
            }
            self.linked.retain(|other| *other != peer);
            if !self.engine.is_gone(peer) {
                self.report_link(peer, false);
            }
        }
        self.engine.link_closed(peer, why);
    }

    fn touch(&mut self, peer: u32) -> bool {
        self.flush(peer) | self.read(peer)
    }
}

/// Waiting.
impl Core {
    /// Looks at the links that requests wait for: `true` = something moved.
    fn progress(&mut self) -> bool {
        let mut moved = false;
        let mut index = 0;
        while let Some(&peer) = self.linked.get(index) {
            if self.engine.is_busy_with(peer) {
                moved |= self.touch(peer);
            }
            index += 1;
        }
        moved
    }

    /// Nothing moved: looks at everything else now and then, and waits as the
    /// policy says, at most `remaining`.
    fn idle(&mut self, idle: &mut Idle, remaining: Option<Duration>, now: Instant) -> Result<()> {
        if self.watch_links(now) {
            idle.since = now;
            return Ok(());
        }
        let awaited = self.linked.iter().any(|peer| self.engine.is_busy_with(*peer));
        let overdue = now - idle.looked >= WIDE_LOOK;
        self.deadline = remaining.and_then(|left| now.checked_add(left));
        let pressing =
            matches!(&self.transport, Transport::Direct(connector) if connector.has_unfinished_business());
        if overdue || !awaited || pressing || self.engine.awaits_anyone() {
            idle.looked = now;
            if self.look(Some(Duration::ZERO))? {
                idle.since = now;
                return Ok(());
            }
        }
        match self.patience.step(now - idle.since) {
            // The kernel wakes a rank on the processor of the one that woke it,
            // and then takes both for busy there: without a yield now and then
            // they would spin in turn, one waiting for the other's 200 us.
            // (Measured: 187 us instead of 9 for an allreduce of two ranks.)
            Step::Spin if !overdue => std::hint::spin_loop(),
            Step::Spin => yield_processor(),
            Step::Yield => yield_processor(),
            Step::Park => {
                if self.park(remaining, now)? {
                    idle.since = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// Sleeps until something happens.
    fn park(&mut self, remaining: Option<Duration>, now: Instant) -> Result<bool> {
        for index in 0..self.linked.len() {
            self.watch_output(self.linked[index]);
        }
        let timer = match &self.transport {
            Transport::Direct(connector) => {
                connector.next_timer().map(|at| at.saturating_duration_since(now))
            }
            Transport::Memory(port) => {
                port.fall_asleep();
                // Who wrote before it saw us asleep has not rung.
                let moved = self.touch_all();
                if moved {
                    if let Transport::Memory(port) = &self.transport {
                        port.wake_up();
                    }
                    return Ok(true);
                }
                None
            }
        };
        let limit = [remaining, timer, self.until_watch(now)].into_iter().flatten().min();
        let moved = self.look(limit)?;
        if let Transport::Memory(port) = &self.transport {
            port.wake_up();
        }
        Ok(moved)
    }

    /// Over Memory there are no events: looks at every link.
    fn touch_all(&mut self) -> bool {
        if let Transport::Memory(port) = &self.transport {
            let arrived = port.newcomers().into_iter().map(|peer| (peer, port.link(peer)));
            for (peer, link) in arrived.collect::<Vec<_>>() {
                self.install(peer, Link::Memory(link));
            }
        }
        let mut moved = false;
        let mut index = 0;
        while let Some(&peer) = self.linked.get(index) {
            moved |= self.touch(peer);
            index += 1;
        }
        moved
    }

    /// Has the poller tell when a link that has output takes bytes again.
    fn watch_output(&mut self, peer: u32) {
        let Some(linked) = &mut self.links[peer as usize] else { return };
        let interest = if self.engine.has_output(peer) { Interest::Both } else { Interest::Read };
        if linked.watched != interest
            && let Some(descriptor) = linked.link.descriptor()
            && self.poller.modify(descriptor, Token::Link(peer), interest).is_ok()
        {
            linked.watched = interest;
        }
    }

    /// Waits for events and serves them: `true` = something moved, or the call was
    /// woken, which it must see before it sleeps.
    fn look(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let count = self.poller.wait(timeout)?;
        let mut moved = false;
        let mut connecting = false;
        for index in 0..count {
            match self.poller.token(index) {
                Token::Link(peer) => moved |= self.touch(peer),
                Token::Wake => self.woken |= self.signals.drain(),
                Token::Doorbell => {}
                Token::Rendezvous | Token::Listener | Token::Pairing(_) => connecting = true,
            }
        }
        match &self.transport {
            Transport::Direct(connector) if connecting || connector.is_at_work() => moved |= self.connect(),
            Transport::Direct(_) => {}
            Transport::Memory(_) => moved |= self.touch_all(),
        }
        Ok(moved || self.woken)
    }

    /// Serves the connections that are being made.
    fn connect(&mut self) -> bool {
        let Transport::Direct(connector) = &mut self.transport else { return false };
        let mut moved = connector.service(&self.poller, Instant::now(), self.deadline);
        loop {
            let Transport::Direct(connector) = &mut self.transport else { return moved };
            let Some(outcome) = connector.next_outcome() else {
                self.answer_suspicions();
                return moved;
            };
            moved = true;
            match outcome {
                Outcome::Linked { peer, link } => self.install(peer, Link::Tcp(link)),
                Outcome::Failed { peer, error } => self.engine.connect_failed(peer, error),
                Outcome::RanksHere(count) => self.patience.set_ranks_here(count),
                // A link that lives knows better than the server.
                Outcome::Gone { peer, .. } if self.links[peer as usize].is_some() => {}
                Outcome::Gone { peer, reason: Reason::Left } => self.engine.peer_left(peer),
                Outcome::Gone { peer, reason: Reason::Lost } => {
                    self.engine.link_closed(peer, lost("the rendezvous server has lost it"));
                }
                Outcome::Gone { peer, reason: Reason::Ended } => {
                    let text = format!("the process of rank {peer} has ended");
                    self.engine.link_closed(peer, Error::new(ErrorKind::PeerLost, text));
                }
                Outcome::Aborted { rank, notice } => self.engine.hear_from(rank, &notice),
            }
        }
    }

    /// How long to wait in all for others to be told that a context has failed;
    /// `None` = they are.
    fn notice_patience(&self) -> Option<Duration> {
        if matches!(&self.transport, Transport::Direct(connector) if connector.is_about_to_tell()) {
            return Some(ABORT_PATIENCE);
        }
        self.linked.iter().any(|peer| self.engine.has_notice_for(*peer)).then_some(NOTICE_PATIENCE)
    }

    fn explain_wait(&self) -> Error {
        let awaited =
            (0..self.engine.size()).find(|peer| *peer != self.me && self.engine.is_incomplete_with(*peer));
        let Some(peer) = awaited else {
            return match self.engine.is_incomplete_with(self.me) {
                true => Error::new(ErrorKind::Timeout, "this rank waits for a message to itself")
                    .with_peer(self.me),
                false => Error::new(ErrorKind::Timeout, "the deadline passed"),
            };
        };
        let (kind, text) = match &self.transport {
            _ if self.links[peer as usize].is_some() && self.engine.has_output(peer) => {
                (ErrorKind::Timeout, format!("rank {peer} does not read"))
            }
            Transport::Memory(port) if !port.has_joined(peer) => {
                (ErrorKind::Timeout, format!("rank {peer} has not joined the job"))
            }
            Transport::Direct(connector) if self.links[peer as usize].is_none() => connector.explain(peer),
            _ => (
                ErrorKind::Timeout,
                format!("rank {peer} has not sent, or not received, what this call needs"),
            ),
        };
        Error::new(kind, text).with_peer(peer)
    }
}

fn yield_processor() {
    // SAFETY: a plain system call; it cannot fail.
    unsafe { libc::sched_yield() };
}

fn lost(why: &str) -> Error {
    Error::new(ErrorKind::PeerLost, format!("the connection broke: {why}"))
}

const _: () = assert!(STAGING >= HEADER_LEN && STAGING <= FRAGMENT_MAX);
