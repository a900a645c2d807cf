//! Channels of the user's own: the trait that their code implements, and the
//! operations over it.
//!
//! A channel belongs to one of three families. *Peer-to-peer*: it moves bytes
//! between two ranks ([`messages`] makes messages of them). *Client-server*: it
//! keeps objects under names ([`store`] makes messages of these). In both the
//! library supplies the collectives, and the channel may take over any operation
//! itself. A *whole* channel takes over all of them.
//!
//! What the channel does blocks. Between two of its functions the deadline, an
//! abort and the wake-up pipe are looked at; inside one they are not. Nobody is told
//! of a failed collective over such a channel: the other ranks run into their own
//! deadlines, or hear of it over a built-in channel of the communicator.

mod epoch;
mod mark;
mod messages;
mod object;
mod store;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::direct::CallIdentity;
use super::{PeerToPeer, Rank, Step};
use crate::collective::Collective;
use crate::descriptors::Generation;
use crate::endpoint::{Limits, Until};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::poison::Poison;
use mark::Mark;
use messages::Messages;
use store::Store;

/// What kind of channel it is, and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Ranks address each other: [`send_object`](CustomChannel::send_object) and
    /// [`recv_object`](CustomChannel::recv_object), or [`send`](CustomChannel::send)
    /// and [`recv`](CustomChannel::recv).
    PeerToPeer {
        /// Sending never waits for the peer to receive. Where it may, every
        /// exchange runs in order: a rank receives first if its source's rank is
        /// above its own, else it sends first. Two ranks that send to each other
        /// outside of an exchange then wait for each other.
        full_duplex: bool,
    },
    /// Ranks meet at a store: [`upload_object`](CustomChannel::upload_object),
    /// [`download_object`](CustomChannel::download_object),
    /// [`delete_object`](CustomChannel::delete_object) and
    /// [`list_objects`](CustomChannel::list_objects).
    ClientServer {
        /// How long to wait between two looks for an object.
        poll: Duration,
    },
    /// The channel carries out every operation itself.
    Whole,
}

/// A channel of the user's own. Functions that its [`family`](Self::family) does not
/// need are never called.
///
/// All are called on the thread that is inside the operation, one at a time;
/// [`latency`](Self::latency), [`price`](Self::price) and their kin by any thread at
/// any time. They may use other communicators and channels, not the one that they
/// belong to. An error ends the operation, and is what its caller gets.
pub trait CustomChannel: Send + Sync {
    /// What kind of channel it is.
    fn family(&self) -> Family;

    /// How long an operation may take; `None` = as long as over any channel,
    /// [`Duration::MAX`] = without limit.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Moves `data` to the rank `dest`, which calls
    /// [`recv_object`](Self::recv_object) with the same length: calls between two
    /// ranks match in their order. May wait for that.
    ///
    /// # Errors
    /// The channel's own.
    fn send_object(&self, data: &[u8], dest: Rank) -> Result<()> {
        let _ = (data, dest);
        Err(missing("send_object"))
    }

    /// Fills `buffer` with what the rank `src` sends.
    ///
    /// # Errors
    /// The channel's own.
    fn recv_object(&self, buffer: &mut [u8], src: Rank) -> Result<()> {
        let _ = (buffer, src);
        Err(missing("recv_object"))
    }

    /// Stores `data`, which is not empty, under `name`, which is of this channel's
    /// job, at most 200 bytes long, and not used twice.
    ///
    /// # Errors
    /// The channel's own.
    fn upload_object(&self, name: &str, data: &[u8]) -> Result<()> {
        let _ = (name, data);
        Err(missing("upload_object"))
    }

    /// Copies as much of the object `name` as there is, and `buffer` can take;
    /// `false` = there is none yet.
    ///
    /// # Errors
    /// The channel's own.
    fn download_object(&self, name: &str, buffer: &mut [u8]) -> Result<bool> {
        let _ = (name, buffer);
        Err(missing("download_object"))
    }

    /// As [`download_object`](Self::download_object), but waits until the object is
    /// there, as long as the channel likes; `None` = the library looks now and then.
    fn download(&self, name: &str, buffer: &mut [u8]) -> Option<Result<()>> {
        let _ = (name, buffer);
        None
    }

    /// Removes the object `name`; where there is none, that is no error.
    ///
    /// # Errors
    /// The channel's own.
    fn delete_object(&self, name: &str) -> Result<()> {
        let _ = name;
        Err(missing("delete_object"))
    }

    /// Calls `visit` with the name of every object in the store.
    ///
    /// # Errors
    /// The channel's own.
    fn list_objects(&self, visit: &mut dyn FnMut(&str)) -> Result<()> {
        let _ = visit;
        Err(missing("list_objects"))
    }

    /// Sends a message in the channel's own way; `None` = as the library does it.
    fn send(&self, data: &[u8], dest: Rank) -> Option<Result<()>> {
        let _ = (data, dest);
        None
    }

    /// Receives a message in the channel's own way; `None` = as the library does it.
    fn recv(&self, buffer: &mut [u8], src: Rank) -> Option<Result<()>> {
        let _ = (buffer, src);
        None
    }

    /// Carries out a collective in the channel's own way; `None` = as the library
    /// does it, by messages. Buffers are untouched then.
    fn collective(&self, collective: &mut Collective<'_>) -> Option<Result<()>> {
        let _ = collective;
        None
    }

    /// How long it takes, in ms, until each of `consumers` ranks has `bytes` bytes
    /// of each of `producers`.
    fn latency(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        let _ = (producers, consumers, bytes);
        0.0
    }

    /// What that costs, in USD.
    fn price(&self, producers: u32, consumers: u32, bytes: usize) -> f64 {
        let _ = (producers, consumers, bytes);
        0.0
    }

    /// How long an operation takes, in ms, in which each rank passes `bytes` bytes;
    /// `left_to_right`: a reduction that is combined strictly in the order of ranks.
    /// `None` = what follows from [`latency`](Self::latency) and the library's
    /// algorithm.
    fn operation_latency(&self, operation: Operation, bytes: usize, left_to_right: bool) -> Option<f64> {
        let _ = (operation, bytes, left_to_right);
        None
    }

    /// What an operation costs, in USD; else as
    /// [`operation_latency`](Self::operation_latency).
    fn operation_price(&self, operation: Operation, bytes: usize, left_to_right: bool) -> Option<f64> {
        let _ = (operation, bytes, left_to_right);
        None
    }

    /// A communicator that the channel is registered with, or the channel itself, is
    /// closed.
    fn finalize(&self) {}
}

fn missing(function: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the channel has no {function}"))
}

/// The operations over a channel of the user's own, for one rank of a job.
pub(crate) struct Custom {
    channel: Box<dyn CustomChannel>,
    rank: Rank,
    size: u32,
    state: Mutex<State>,
    generation: Generation,
}

struct State {
    transport: Transport,
    /// Number of the next collective.
    sequence: u64,
    poison: Poison,
}

/// How messages go.
enum Transport {
    Messages(Messages),
    Store(Box<Store>),
}

/// A call inside the channel.
struct Inside<'a> {
    custom: &'a Custom,
    limits: &'a Limits<'a>,
    state: RefCell<MutexGuard<'a, State>>,
    /// Whether the channel has done anything for the running collective.
    moved: Cell<bool>,
}

impl Custom {
    /// `channel` for `rank` of `size` of the job `name`; `job_id` is the run's
    /// identity where it has one.
    pub(crate) fn new(
        channel: Box<dyn CustomChannel>,
        rank: Rank,
        size: u32,
        name: &str,
        job_id: Option<&str>,
    ) -> Self {
        let transport = match channel.family() {
            Family::PeerToPeer { .. } | Family::Whole => Transport::Messages(Messages::new(rank)),
            Family::ClientServer { .. } => Transport::Store(Box::new(Store::new(rank, size, name, job_id))),
        };
        let state = State { transport, sequence: 0, poison: Poison::default() };
        Self { channel, rank, size, state: Mutex::new(state), generation: Generation::current() }
    }

    pub(crate) fn channel(&self) -> &dyn CustomChannel {
        &*self.channel
    }

    /// # Errors
    /// [`ErrorKind::Busy`] where a call is inside: another thread's, or that which
    /// has called the channel's function that calls this. [`ErrorKind::Forked`].
    fn enter<'a>(&'a self, limits: &'a Limits<'a>) -> Result<Inside<'a>> {
        let state = RefCell::new(self.lock()?);
        limits.check()?;
        Ok(Inside { custom: self, limits, state, moved: Cell::new(false) })
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>> {
        self.generation.check()?;
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => {
                let mut state = poisoned.into_inner();
                let text = "a function called by an earlier operation panicked";
                state.poison.fail(Error::new(ErrorKind::Internal, text));
                Ok(state)
            }
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorKind::Busy, "a call is already inside this channel"))
            }
        }
    }

    /// Runs `body` with the channel, which no other call is inside of meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], [`ErrorKind::Forked`]; those of `body`.
    pub(crate) fn alone<T>(&self, body: impl FnOnce(&dyn CustomChannel) -> Result<T>) -> Result<T> {
        let _state = self.lock()?;
        body(self.channel())
    }

    pub(crate) fn send(&self, data: &[u8], dest: Rank, limits: &Limits<'_>) -> Result<()> {
        self.enter(limits)?.send(None, data, dest)
    }

    pub(crate) fn recv(&self, buffer: &mut [u8], src: Rank, limits: &Limits<'_>) -> Result<()> {
        let inside = self.enter(limits)?;
        inside.block_on(inside.recv(None, buffer, src))
    }

    pub(crate) fn sendrecv(
        &self,
        data: &[u8],
        dest: Rank,
        buffer: &mut [u8],
        src: Rank,
        limits: &Limits<'_>,
    ) -> Result<()> {
        let inside = self.enter(limits)?;
        inside.block_on(inside.exchange(None, data, dest, buffer, src))
    }

    /// Runs one collective call; `hint` is part of what all ranks must agree on.
    pub(crate) fn collective(
        &self,
        mut collective: Collective<'_>,
        hint: i32,
        limits: &Limits<'_>,
    ) -> Result<()> {
        let inside = self.enter(limits)?;
        let sequence = {
            let mut state = inside.state.borrow_mut();
            state.poison.check()?;
            state.sequence
        };
        let identity = CallIdentity {
            context: 0,
            sequence,
            operation: collective.operation(),
            signature: collective.signature(self.size, hint),
        };
        let outcome = match self.channel.collective(&mut collective) {
            Some(outcome) => {
                inside.moved.set(true);
                outcome
            }
            None if self.channel.family() == Family::Whole => Err(missing(collective.operation().name())),
            None => inside.block_on(collective.run(&CustomCall { inside: &inside, identity })),
        };
        let mut state = inside.state.borrow_mut();
        match &outcome {
            Err(_) if !inside.moved.get() => {}
            Err(error) => {
                state.sequence += 1;
                state.poison.fail(error.clone());
                state.poison.mark_reported();
            }
            Ok(()) => state.sequence += 1,
        }
        outcome
    }

    /// Fails the collectives.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], [`ErrorKind::Forked`].
    pub(crate) fn poison(&self, error: &Error) -> Result<()> {
        let mut state = self.lock()?;
        state.poison.fail(error.clone());
        state.poison.mark_reported();
        Ok(())
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.lock().is_ok_and(|state| state.poison.failure().is_some())
    }

    /// Ends a communicator's use of the channel. Over a store, waits for what was
    /// sent to be read where `until` says so.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where not all has been read, and those of
    /// [`Limits::check`] and the channel.
    pub(crate) fn leave(&self, until: Until, limits: &Limits<'_>) -> Result<()> {
        let left = self.lock().and_then(|mut state| {
            let Transport::Store(store) = &mut state.transport else { return Ok(()) };
            store.give_up(self.channel());
            match until {
                Until::Read => store.await_readers(self.channel(), limits),
                Until::Arrived => Ok(()),
            }
        });
        if self.generation.check().is_ok() {
            self.channel.finalize();
        }
        left
    }
}

impl Inside<'_> {
    /// Sends the message `mark` of a collective, or one between two ranks.
    fn send(&self, mark: Option<Mark>, data: &[u8], dest: Rank) -> Result<()> {
        self.limits.check()?;
        self.moved.set(true);
        let channel = self.custom.channel();
        if dest != self.custom.rank || channel.family() == Family::Whole {
            let sent = mark::with(mark, || channel.send(data, dest));
            if let Some(outcome) = sent {
                return outcome;
            }
        }
        let outcome = match &mut self.state.borrow_mut().transport {
            Transport::Messages(messages) => messages.send(channel, mark, data, dest),
            Transport::Store(store) => store.send(channel, self.limits, mark, data, dest),
        };
        outcome.map_err(|error| error.with_peer(dest))
    }

    /// Receives it.
    async fn recv(&self, mark: Option<Mark>, buffer: &mut [u8], src: Rank) -> Result<()> {
        self.limits.check()?;
        let channel = self.custom.channel();
        if src != self.custom.rank || channel.family() == Family::Whole {
            let received = mark::with(mark, || channel.recv(buffer, src));
            if let Some(outcome) = received {
                self.moved.set(true);
                return outcome;
            }
        }
        let received = std::future::poll_fn(|_| match &mut self.state.borrow_mut().transport {
            Transport::Messages(messages) => Poll::Ready(messages.recv(channel, mark, buffer, src)),
            Transport::Store(store) => store.try_recv(channel, self.limits, mark, buffer, src),
        });
        let outcome = received.await.map_err(|error| error.with_peer(src));
        self.moved.set(true);
        outcome
    }

    async fn exchange(
        &self,
        mark: Option<Mark>,
        data: &[u8],
        dest: Rank,
        buffer: &mut [u8],
        src: Rank,
    ) -> Result<()> {
        let waits_for_receivers = match self.custom.channel.family() {
            Family::PeerToPeer { full_duplex } => !full_duplex,
            Family::ClientServer { .. } => false,
            Family::Whole => true,
        };
        if waits_for_receivers && src > self.custom.rank {
            self.recv(mark, buffer, src).await?;
            return self.send(mark, data, dest);
        }
        self.send(mark, data, dest)?;
        self.recv(mark, buffer, src).await
    }

    /// Runs `future`, which waits for nothing but objects in the store, to its end.
    fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut context) {
                return outcome;
            }
            let poll = match self.custom.channel.family() {
                Family::ClientServer { poll } => poll,
                Family::PeerToPeer { .. } | Family::Whole => Duration::ZERO,
            };
            if let Err(error) = self.limits.pause(poll) {
                return Err(self.explain(error));
            }
        }
    }

    /// Says what the call waited for.
    fn explain(&self, error: Error) -> Error {
        match &self.state.borrow().transport {
            Transport::Store(store) if error.kind() == ErrorKind::Timeout => store.explain(),
            _ => error,
        }
    }
}

/// One call of one collective.
struct CustomCall<'a, 'b> {
    inside: &'a Inside<'b>,
    identity: CallIdentity,
}

impl CustomCall<'_, '_> {
    fn mark(&self, step: Step) -> Option<Mark> {
        Some(Mark::new(&self.identity, step))
    }
}

/// The channel's functions block, so a transfer runs when its future is polled, one
/// after the other in the order of the schedule.
impl PeerToPeer for CustomCall<'_, '_> {
    fn rank(&self) -> Rank {
        self.inside.custom.rank
    }

    fn size(&self) -> u32 {
        self.inside.custom.size
    }

    async fn send(&self, to: Rank, step: Step, data: &[u8]) -> Result<()> {
        self.inside.send(self.mark(step), data, to)
    }

    fn recv<'a>(
        &'a self,
        from: Rank,
        step: Step,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a {
        self.inside.recv(self.mark(step), buffer, from)
    }

    fn exchange<'a>(
        &'a self,
        step: Step,
        to: Rank,
        data: &'a [u8],
        from: Rank,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a {
        self.inside.exchange(self.mark(step), data, to, buffer, from)
    }
}

/// Messages to oneself, in order.
#[derive(Default)]
struct OwnMessages(VecDeque<Vec<u8>>);

impl OwnMessages {
    fn send(&mut self, data: &[u8]) -> Result<()> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(data.len()).map_err(|_| {
            Error::new(ErrorKind::NoMem, format!("cannot keep a message of {} bytes to oneself", data.len()))
        })?;
        copy.extend_from_slice(data);
        self.0.push_back(copy);
        Ok(())
    }

    /// `None` = there is none.
    fn recv(&mut self, buffer: &mut [u8]) -> Option<Result<()>> {
        let message = self.0.pop_front()?;
        Some(check_length(message.len(), buffer.len()).map(|()| buffer.copy_from_slice(&message)))
    }
}

/// Refuses a message between two ranks whose length is not what the receiver wants.
fn check_length(has: usize, wants: usize) -> Result<()> {
    if has == wants {
        return Ok(());
    }
    Err(Error::new(ErrorKind::SizeMismatch, format!("a message of {has} bytes for a buffer of {wants}")))
}
