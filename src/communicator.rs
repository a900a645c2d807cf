//! The communicator: a group of ranks and the operations among them.

use std::panic::{self, AssertUnwindSafe};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zerocopy::IntoBytes;

use crate::channel::direct::{CallIdentity, EngineCall};
use crate::collective::{self, GatherBuffers, ReduceBuffers, ScatterBuffers};
use crate::config::{Config, Settings};
use crate::datatype::{Datatype, Element};
use crate::descriptors::{self, Generation};
use crate::endpoint::{
    Deadline, Endpoint, EndpointConfig, Entered, RecvFuture, SendFuture, Signals, Stop, TransportConfig,
    Until,
};
use crate::engine::frame::{AbortNotice, MessageId};
use crate::engine::{Envelope, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::op::Op;
use crate::operation::Operation;
use crate::policy;
use crate::rendezvous::protocol::MAX_SIZE;

/// How long a call may take where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The context of a job's first communicator. Those made from it have hashes.
const FIRST_CONTEXT: u64 = 1;

/// The tag of messages whose call has none.
const NO_TAG: i32 = 0;

/// In `Communicator::timeout_ms`: nothing set; no limit.
const UNSET: u64 = 0;
const NEVER: u64 = u64::MAX;

/// What the choice of channel and algorithm goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Hint {
    /// Least price.
    #[default]
    Cheap = 1,
    /// Least latency.
    Fast = 2,
}

/// A group of ranks and the operations among them.
///
/// All operations block the calling thread, up to the timeout (60 s unless set
/// otherwise). One thread at a time may be inside an operation; a second one
/// gets [`ErrorKind::Busy`]. All ranks call the same collectives in the same
/// order; where they do not, [`ErrorKind::Mismatch`].
///
/// # Errors
///
/// Every operation may return
///
/// * [`ErrorKind::Arg`]: a rank or a length is out of range; nothing was sent;
/// * [`ErrorKind::Timeout`]: the deadline passed;
/// * [`ErrorKind::Connect`]: the rendezvous server or a peer cannot be reached;
/// * [`ErrorKind::PeerLost`], [`ErrorKind::PeerLeft`]: a rank that is needed is
///   gone; [`Error::peer`] names it;
/// * [`ErrorKind::Busy`], [`ErrorKind::Closed`], [`ErrorKind::Forked`]: not now,
///   no more, not in this process;
/// * [`ErrorKind::Interrupted`], [`ErrorKind::Aborted`].
///
/// A collective that fails after something of it has moved poisons the
/// communicator: the other ranks are told, and every later collective returns
/// [`ErrorKind::Poisoned`] with the first cause. Sends and receives go on.
/// Something has moved once a byte of this rank's part has left, or a message of
/// the call has met one of its receives; what has come and not been met yet does
/// not count. Where nothing has moved, the call counts as not called: nobody is
/// told, and it is to be made again. Another collective in its place would be a
/// mismatch.
///
/// Dropping a communicator leaves the job in order, and waits for what was sent
/// to reach the other hosts, within the timeout; [`close`](Self::close) also waits
/// for it to be read, and says whether it was.
pub struct Communicator {
    rank: u32,
    size: u32,
    channels: Vec<Channel>,
    hint: AtomicI32,
    timeout_ms: AtomicU64,
    pinned: Mutex<Option<String>>,
    signals: Arc<Signals>,
    last_error: Mutex<Option<Error>>,
    generation: Generation,
}

/// A channel that is enabled.
struct Channel {
    name: &'static str,
    endpoint: Endpoint,
    timeout: Duration,
    /// How many messages went to each rank.
    sent: Box<[AtomicU64]>,
}

/// What a collective call is, for its signature.
struct Call {
    operation: Operation,
    root: u32,
    /// Bytes that each rank passes.
    bytes: usize,
    /// Datatype and operation of a reduction.
    reduction: u64,
}

impl Communicator {
    /// Makes rank `rank` of `size` of the job `name`. All ranks of a job give
    /// the same name and size. No network I/O: an absent server shows at the
    /// first operation.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] if `rank` is not below `size`, or `size` is above
    /// 65,536; [`ErrorKind::Config`]; [`ErrorKind::Io`] if descriptors are
    /// short.
    pub fn create(rank: u32, size: u32, name: &str, config: &Config) -> Result<Self> {
        config.settings().and_then(|settings| Self::build(rank, size, name, settings)).map_err(creating)
    }

    /// As [`create`](Self::create), with everything from the environment: rank
    /// and size from `FMI_RANK` and `FMI_SIZE`, or the variables of PMI, Open
    /// MPI or Slurm.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); [`ErrorKind::Config`] if no rank or
    /// size is stated.
    pub fn from_env(name: &str) -> Result<Self> {
        let settings = Config::new().settings().map_err(creating)?;
        let (Some(rank), Some(size)) = (settings.rank, settings.size) else {
            let text =
                "neither FMI_RANK and FMI_SIZE nor another launcher's variables say which rank this is";
            return Err(creating(Error::new(ErrorKind::Config, text)));
        };
        Self::build(rank, size, name, settings).map_err(creating)
    }

    fn build(rank: u32, size: u32, name: &str, settings: Settings) -> Result<Self> {
        if size == 0 || size > MAX_SIZE {
            return Err(argument(format!("a job has 1 to {MAX_SIZE} ranks, not {size}")));
        }
        if rank >= size {
            return Err(argument(format!("rank {rank} is not in a job of size {size}")));
        }
        descriptors::watch_forks()?;
        let signals = Arc::new(Signals::new()?);
        let mut channels = Vec::new();
        let mut add = |channel, transport, max_timeout: Option<Duration>| -> Result<()> {
            let endpoint = Endpoint::new(EndpointConfig {
                rank,
                size,
                name: name.to_owned(),
                job_id: settings.job_id.clone(),
                fingerprint: settings.fingerprint,
                transport,
                wait: settings.wait,
                unexpected_limit: settings.unexpected_limit,
                logger: settings.logger.clone(),
                interrupt: settings.interrupt.clone(),
                signals: Arc::clone(&signals),
            })?;
            endpoint.enter()?.core().borrow_mut().engine.open_context(FIRST_CONTEXT, (0..size).collect());
            channels.push(Channel {
                name: channel,
                endpoint,
                timeout: settings.timeout.or(max_timeout).unwrap_or(DEFAULT_TIMEOUT),
                sent: (0..size).map(|_| AtomicU64::new(0)).collect(),
            });
            Ok(())
        };
        if settings.memory {
            add("Memory", TransportConfig::Memory, None)?;
        }
        if let Some(direct) = settings.direct.clone() {
            let max_timeout = direct.max_timeout;
            add("Direct", TransportConfig::Direct(direct), max_timeout)?;
        }
        Ok(Self {
            rank,
            size,
            channels,
            hint: AtomicI32::new(Hint::default() as i32),
            timeout_ms: AtomicU64::new(UNSET),
            pinned: Mutex::new(None),
            signals,
            last_error: Mutex::new(None),
            generation: Generation::current(),
        })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Sets what the choice of channel and algorithm goes by. All ranks must
    /// set the same.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`].
    pub fn set_hint(&self, hint: Hint) -> Result<()> {
        self.check_process()?;
        self.hint.store(hint as i32, Ordering::Relaxed);
        Ok(())
    }

    /// Sets how long a call may take; `None` = for ever. It wins over the
    /// configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] for less than a millisecond; [`ErrorKind::Forked`].
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        self.check_process()?;
        let milliseconds = match timeout {
            None => NEVER,
            Some(time) => u64::try_from(time.as_millis()).unwrap_or(NEVER - 1),
        };
        if milliseconds == UNSET {
            return Err(argument("a timeout of zero: no call could succeed".into()));
        }
        self.timeout_ms.store(milliseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Pins the channel by its name; `None` = the policy chooses. All ranks must
    /// set the same.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where that channel is not enabled,
    /// [`ErrorKind::Arg`] where there is none of that name; [`ErrorKind::Forked`].
    pub fn set_channel(&self, name: Option<&str>) -> Result<()> {
        self.check_process()?;
        let names = self.channel_names();
        if let Some(name) = name
            && !names.contains(&name)
        {
            return Err(policy::unknown(&names, name));
        }
        *lock(&self.pinned) = name.map(str::to_owned);
        Ok(())
    }

    /// A descriptor: a byte written to it interrupts a blocked call, or runs the
    /// interrupt function of the configuration. It may be written from a signal
    /// handler, never blocks, and is closed with the communicator.
    pub fn wakeup_fd(&self) -> i32 {
        self.signals.write_end()
    }

    /// Ends the collectives of all ranks, from any thread: a call that is
    /// blocked on this communicator returns [`ErrorKind::Aborted`], and so do
    /// the running or next collectives of the other ranks, which hear of it over
    /// their links and from the rendezvous server. `code` is handed on in the
    /// message.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`], [`ErrorKind::Forked`].
    pub fn abort(&self, code: i32) -> Result<()> {
        for channel in &self.channels {
            match channel.endpoint.enter() {
                Ok(entered) => {
                    self.abort_context(&entered, code);
                }
                // The thread that is inside does it.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.signals.request_abort(code);
                    self.abort_if_asked(channel);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Leaves the job in order, however it ends; later calls return
    /// [`ErrorKind::Closed`]. Waits up to `timeout` (`None` = without limit) for
    /// what was sent to be read by the peers, or for their own departure: whoever
    /// leaves has chosen not to receive what it has not received. A peer that
    /// computes, outside of calls, does not say what it has read. Where nothing is
    /// left, it waits up to a second for the peers to hear of the departure.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where a peer has not read all, or
    /// [`ErrorKind::PeerLost`] where it was lost before it had: the error names the
    /// peer and what is left. What has reached the peer's host can still be
    /// received there. [`ErrorKind::Mismatch`] where a rank called a collective that
    /// this one did not; [`ErrorKind::Interrupted`], [`ErrorKind::Aborted`];
    /// [`ErrorKind::Busy`].
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let mut outcome = Ok(());
        for channel in &self.channels {
            let left = self.leave(channel, Until::Read, &mut Deadline::after(timeout));
            outcome = outcome.and(left);
        }
        self.keep_error(Operation::Close, outcome)
    }

    fn leave(&self, channel: &Channel, until: Until, deadline: &mut Deadline) -> Result<()> {
        let entered = channel.endpoint.enter().map_err(|error| error.with_channel(channel.name))?;
        let left = entered.leave(until, deadline).map_err(|stop| self.stopped(&entered, stop));
        if let Some(code) = self.signals.take_abort() {
            self.abort_context(&entered, code);
        }
        let leftover = entered.core().borrow_mut().engine.unreported_mismatch(FIRST_CONTEXT);
        entered.close();
        leftover.map_or(Ok(()), Err).and(left).map_err(|error| located(error, channel, deadline))
    }

    /// The last error that a call on this communicator returned.
    pub fn last_error(&self) -> Option<Error> {
        if let Err(error) = self.check_process() {
            return Some(error);
        }
        lock(&self.last_error).clone()
    }

    /// Refuses a child of the process that made the communicator, which may hold
    /// its locks for ever: a thread that is not in the child had them.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.generation.check()
    }

    /// Fails the collectives because of a fault outside of them, such as a panic
    /// that was caught.
    #[cfg(feature = "capi")]
    pub(crate) fn poison(&self, error: Error) {
        for channel in &self.channels {
            if let Ok(entered) = channel.endpoint.enter() {
                self.poison_context(&entered, &error);
            }
        }
        *lock(&self.last_error) = Some(error);
    }
}

/// Point-to-point.
impl Communicator {
    /// Sends `buffer` to `dest`. Returns when the buffer may be reused, which
    /// may be before `dest` has received.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn send<T: Element>(&self, buffer: &[T], dest: u32) -> Result<()> {
        let data = buffer.as_bytes();
        self.point_to_point(Operation::Send, dest, |channel, entered, deadline| {
            let future = self.start_send(channel, entered, data, dest);
            self.finish_send(entered, future, deadline)
        })
    }

    /// Receives exactly `buffer.len()` elements from `src`. Messages of one rank
    /// arrive in the order in which they were sent.
    ///
    /// # Errors
    /// [`ErrorKind::SizeMismatch`] if the message is longer or shorter; it is
    /// used up, and the next one is received as it should be. After
    /// [`ErrorKind::Timeout`] the message is still to come: the call may be
    /// repeated. See the [type](Self#errors).
    pub fn recv<T: Element>(&self, buffer: &mut [T], src: u32) -> Result<()> {
        let buffer = buffer.as_mut_bytes();
        self.point_to_point(Operation::Recv, src, |_, entered, deadline| {
            let length = buffer.len();
            let future = start_recv(entered, buffer, src);
            let received = self.settle(entered, pin!(future), deadline)??;
            check_length(received.length, length, src)
        })
    }

    /// Sends to `dest` and receives from `src` at once.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`recv`](Self::recv).
    pub fn sendrecv<T: Element>(&self, send: &[T], dest: u32, recv: &mut [T], src: u32) -> Result<()> {
        let (data, buffer) = (send.as_bytes(), recv.as_mut_bytes());
        self.point_to_point(Operation::Sendrecv, dest.max(src), |channel, entered, deadline| {
            let length = buffer.len();
            let mut receiving = pin!(start_recv(entered, buffer, src));
            let sending = self.start_send(channel, entered, data, dest);
            self.finish_send(entered, sending, deadline)?;
            let received = self.settle(entered, receiving.as_mut(), deadline)??;
            check_length(received.length, length, src)
        })
    }

    fn point_to_point(
        &self,
        operation: Operation,
        peer: u32,
        body: impl FnOnce(&Channel, &Entered<'_>, &mut Deadline) -> Result<()>,
    ) -> Result<()> {
        let run = || {
            self.check_rank(peer)?;
            let channel = self.choose()?;
            let entered = channel.endpoint.enter()?;
            let mut deadline = Deadline::after(self.timeout(channel));
            let outcome =
                body(channel, &entered, &mut deadline).map_err(|error| located(error, channel, &deadline));
            drop(entered);
            self.abort_if_asked(channel);
            outcome
        };
        self.keep_error(operation, run())
    }

    fn start_send<'a>(
        &self,
        channel: &Channel,
        entered: &'a Entered<'_>,
        data: &'a [u8],
        dest: u32,
    ) -> SendFuture<'a> {
        let sequence = channel.sent[dest as usize].fetch_add(1, Ordering::Relaxed);
        let id = MessageId { context: FIRST_CONTEXT, collective: false, sequence, tag: NO_TAG };
        let envelope = Envelope { id, operation: Operation::Send as u8, algorithm: 0, signature: 0 };
        SendFuture::start(entered.core(), dest, envelope, data)
    }

    /// Waits for a send. One whose last byte can be copied out when the deadline
    /// passes has succeeded late.
    fn finish_send(
        &self,
        entered: &Entered<'_>,
        mut future: SendFuture<'_>,
        deadline: &mut Deadline,
    ) -> Result<()> {
        match entered.drive(Pin::new(&mut future), deadline) {
            Ok(result) => result,
            Err(stop) => {
                let error = self.stopped(entered, stop);
                let sent = future.withdraw();
                entered.flush();
                match error.kind() {
                    ErrorKind::Timeout if sent => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    fn settle<F: Future>(
        &self,
        entered: &Entered<'_>,
        future: Pin<&mut F>,
        deadline: &mut Deadline,
    ) -> Result<F::Output> {
        entered.drive(future, deadline).map_err(|stop| self.stopped(entered, stop))
    }
}

/// Collectives.
impl Communicator {
    /// The root's buffer goes to all.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn bcast<T: Element>(&self, buffer: &mut [T], root: u32) -> Result<()> {
        let buffer = buffer.as_mut_bytes();
        let call = Call { operation: Operation::Bcast, root, bytes: buffer.len(), reduction: 0 };
        self.collective(call, async |call| collective::bcast(call, buffer, root).await)
    }

    /// Returns once all ranks have called.
    ///
    /// # Errors
    /// See the [type](Self#errors).
    pub fn barrier(&self) -> Result<()> {
        let call = Call { operation: Operation::Barrier, root: 0, bytes: 0, reduction: 0 };
        self.collective(call, async |call| collective::barrier(call).await)
    }

    /// Every rank's `send` goes to `root`, whose `recv` has room for `size`
    /// times as much, in the order of ranks. `recv` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] at the root where `recv` is missing or has another
    /// length; see the [type](Self#errors).
    pub fn gather<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, root: u32) -> Result<()> {
        self.gather_bytes(
            match recv {
                Some(recv) if root == self.rank => {
                    GatherBuffers::Root { send: send.as_bytes(), recv: recv.as_mut_bytes() }
                }
                None if root == self.rank => return self.missing(Operation::Gather, "recv"),
                _ => GatherBuffers::Leaf(send.as_bytes()),
            },
            root,
        )
    }

    /// A gather as its root calls it whose own block is in its place in
    /// `buffer` already. The other ranks call [`gather`](Self::gather).
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where the length is no multiple of the size; see the
    /// [type](Self#errors).
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        self.gather_bytes(GatherBuffers::RootInPlace(buffer.as_mut_bytes()), self.rank)
    }

    /// The blocks of the `root`'s `send`, in the order of ranks, go to each
    /// rank's `recv`. `send` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] at the root where `send` is missing or has another
    /// length than `size` times `recv`'s; see the [type](Self#errors).
    pub fn scatter<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: u32) -> Result<()> {
        self.scatter_bytes(
            match send {
                Some(send) if root == self.rank => {
                    ScatterBuffers::Root { send: send.as_bytes(), recv: recv.as_mut_bytes() }
                }
                None if root == self.rank => return self.missing(Operation::Scatter, "send"),
                _ => ScatterBuffers::Leaf(recv.as_mut_bytes()),
            },
            root,
        )
    }

    /// A scatter as its root calls it whose own block stays where it is. The
    /// other ranks call [`scatter`](Self::scatter).
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where the length is no multiple of the size; see the
    /// [type](Self#errors).
    pub fn scatter_in_place<T: Element>(&self, buffer: &[T]) -> Result<()> {
        self.scatter_bytes(ScatterBuffers::RootInPlace(buffer.as_bytes()), self.rank)
    }

    /// Combines all ranks' `send` into the `root`'s `recv`, element by element.
    /// `recv` is ignored elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Arg`] where the root's `recv` is missing or has another
    /// length, or where `op` is not defined for the datatype;
    /// [`ErrorKind::Callback`] where the user's function failed; see the
    /// [type](Self#errors).
    pub fn reduce<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, op: &Op, root: u32) -> Result<()> {
        let buffers = match recv {
            Some(recv) if root == self.rank => {
                ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() }
            }
            None if root == self.rank => return self.missing(Operation::Reduce, "recv"),
            _ => ReduceBuffers::Leaf(send.as_bytes()),
        };
        self.reduce_bytes(buffers, T::DATATYPE, op, root)
    }

    /// A reduce as its root calls it whose result replaces its operand. The
    /// other ranks call [`reduce`](Self::reduce).
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.reduce_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op, self.rank)
    }

    /// Combines all ranks' `send` into every rank's `recv`, the same bits on
    /// every rank.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn allreduce<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        let buffers = ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() };
        self.allreduce_bytes(buffers, T::DATATYPE, op)
    }

    /// An allreduce whose result replaces the operand.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn allreduce_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.allreduce_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op)
    }

    /// Rank r's `recv` gets the combination of the `send` of ranks 0 to r.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn scan<T: Element>(&self, send: &[T], recv: &mut [T], op: &Op) -> Result<()> {
        let buffers = ReduceBuffers::Separate { send: send.as_bytes(), recv: recv.as_mut_bytes() };
        self.scan_bytes(buffers, T::DATATYPE, op)
    }

    /// A scan whose result replaces the operand.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], op: &Op) -> Result<()> {
        self.scan_bytes(ReduceBuffers::InPlace(buffer.as_mut_bytes()), T::DATATYPE, op)
    }

    pub(crate) fn gather_bytes(&self, buffers: GatherBuffers<'_>, root: u32) -> Result<()> {
        let block = match &buffers {
            GatherBuffers::Leaf(block) => Ok(block.len()),
            GatherBuffers::Root { send, recv } => self.check_blocks(recv.len(), send.len(), "recv", "send"),
            GatherBuffers::RootInPlace(all) => self.block_of(all.len()),
        };
        let bytes = self.keep_error(Operation::Gather, block)?;
        let call = Call { operation: Operation::Gather, root, bytes, reduction: 0 };
        self.collective(call, async |call| collective::gather(call, buffers, root).await)
    }

    pub(crate) fn scatter_bytes(&self, buffers: ScatterBuffers<'_>, root: u32) -> Result<()> {
        let block = match &buffers {
            ScatterBuffers::Leaf(block) => Ok(block.len()),
            ScatterBuffers::Root { send, recv } => self.check_blocks(send.len(), recv.len(), "send", "recv"),
            ScatterBuffers::RootInPlace(all) => self.block_of(all.len()),
        };
        let bytes = self.keep_error(Operation::Scatter, block)?;
        let call = Call { operation: Operation::Scatter, root, bytes, reduction: 0 };
        self.collective(call, async |call| collective::scatter(call, buffers, root).await)
    }

    pub(crate) fn reduce_bytes(
        &self,
        buffers: ReduceBuffers<'_>,
        datatype: Datatype,
        op: &Op,
        root: u32,
    ) -> Result<()> {
        let call = self.reduction(Operation::Reduce, &buffers, datatype, op, root)?;
        self.collective(call, async |call| collective::reduce(call, buffers, datatype, op, root).await)
    }

    pub(crate) fn allreduce_bytes(
        &self,
        buffers: ReduceBuffers<'_>,
        datatype: Datatype,
        op: &Op,
    ) -> Result<()> {
        let call = self.reduction(Operation::Allreduce, &buffers, datatype, op, 0)?;
        self.collective(call, async |call| collective::allreduce(call, buffers, datatype, op).await)
    }

    pub(crate) fn scan_bytes(&self, buffers: ReduceBuffers<'_>, datatype: Datatype, op: &Op) -> Result<()> {
        let call = self.reduction(Operation::Scan, &buffers, datatype, op, 0)?;
        self.collective(call, async |call| collective::scan(call, buffers, datatype, op).await)
    }

    /// Checks a reduction's arguments.
    fn reduction(
        &self,
        operation: Operation,
        buffers: &ReduceBuffers<'_>,
        datatype: Datatype,
        op: &Op,
        root: u32,
    ) -> Result<Call> {
        let check = || {
            let bytes = match buffers {
                ReduceBuffers::Leaf(send) => send.len(),
                ReduceBuffers::InPlace(buffer) => buffer.len(),
                ReduceBuffers::Separate { send, recv } if send.len() == recv.len() => send.len(),
                ReduceBuffers::Separate { send, recv } => {
                    return Err(argument(format!(
                        "send has {} bytes and recv has {}: they must be the same",
                        send.len(),
                        recv.len()
                    )));
                }
            };
            op.check(datatype, bytes)?;
            Ok(Call { operation, root, bytes, reduction: op.signature_code() << 8 | datatype as u64 })
        };
        self.keep_error(operation, check())
    }

    /// Runs one collective call.
    fn collective(&self, call: Call, body: impl AsyncFnOnce(&EngineCall<'_>) -> Result<()>) -> Result<()> {
        let operation = call.operation;
        let run = || {
            self.check_rank(call.root)?;
            let channel = self.choose()?;
            let entered = channel.endpoint.enter()?;
            let mut deadline = Deadline::after(self.timeout(channel));
            let begun = entered.core().borrow_mut().engine.begin_collective(FIRST_CONTEXT);
            let sequence = begun.inspect_err(|error| self.poison_context(&entered, error))?;
            let identity = CallIdentity {
                context: FIRST_CONTEXT,
                sequence,
                operation,
                signature: call.signature(self.hint.load(Ordering::Relaxed)),
            };
            let running = EngineCall::start(entered.core(), self.rank, self.size, identity);
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                let future = pin!(body(&running));
                self.settle(&entered, future, &mut deadline)?
            }));
            let outcome = match outcome {
                Ok(outcome) => outcome.map_err(|error| located(error, channel, &deadline)),
                Err(panic) => {
                    let error =
                        Error::new(ErrorKind::Internal, "a function called by this operation panicked");
                    self.end_collective(&entered, operation, Some(&error));
                    panic::resume_unwind(panic);
                }
            };
            self.end_collective(&entered, operation, outcome.as_ref().err());
            drop(entered);
            self.abort_if_asked(channel);
            outcome
        };
        self.keep_error(operation, run())
    }

    fn end_collective(&self, entered: &Entered<'_>, operation: Operation, error: Option<&Error>) {
        let failure =
            error.map(|error| (error.clone().with_operation(operation), self.notice(error, operation, 0)));
        let failed = failure.is_some();
        entered.core().borrow_mut().end_collective(FIRST_CONTEXT, failure);
        if failed {
            entered.spread_notices();
        }
    }
}

/// Failures.
impl Communicator {
    /// What the others are told of a failure.
    fn notice(&self, error: &Error, operation: Operation, code: i32) -> AbortNotice {
        AbortNotice {
            context: FIRST_CONTEXT,
            cause: error.cause(),
            cause_rank: error.cause_rank().unwrap_or(self.rank),
            about: error.peer(),
            code,
            operation: operation as u8,
        }
    }

    fn poison_context(&self, entered: &Entered<'_>, error: &Error) {
        let notice = self.notice(error, Operation::Barrier, 0);
        entered.core().borrow_mut().poison(FIRST_CONTEXT, error.clone(), &notice);
        entered.spread_notices();
    }

    fn abort_context(&self, entered: &Entered<'_>, code: i32) -> Error {
        let error = Error::new(ErrorKind::Aborted, format!("this rank aborted the job with code {code}"))
            .with_cause(ErrorKind::Aborted, Some(self.rank));
        let notice = self.notice(&error, Operation::Barrier, code);
        entered.core().borrow_mut().poison(FIRST_CONTEXT, error.clone(), &notice);
        entered.spread_notices();
        error
    }

    /// Does what another thread asked the last call for, and the call did not do
    /// any more.
    fn abort_if_asked(&self, channel: &Channel) {
        if self.signals.has_abort()
            && let Ok(entered) = channel.endpoint.enter()
            && let Some(code) = self.signals.take_abort()
        {
            self.abort_context(&entered, code);
        }
    }

    /// The error of a call whose wait ended without its result.
    fn stopped(&self, entered: &Entered<'_>, stop: Stop) -> Error {
        match stop {
            Stop::Timeout => entered.explain_wait(),
            Stop::Interrupted => Error::new(ErrorKind::Interrupted, "the call was interrupted"),
            Stop::Aborted(code) => self.abort_context(entered, code),
            Stop::Failed(error) => error,
        }
    }

    /// Names the operation in a failed call's error, and keeps the error.
    fn keep_error<T>(&self, operation: Operation, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let error = error.with_operation(operation);
            if self.check_process().is_ok() {
                *lock(&self.last_error) = Some(error.clone());
            }
            error
        })
    }

    fn missing<T>(&self, operation: Operation, buffer: &str) -> Result<T> {
        self.keep_error(operation, Err(argument(format!("the root needs {buffer}"))))
    }
}

/// Checks and choices.
impl Communicator {
    fn choose(&self) -> Result<&Channel> {
        self.check_process()?;
        let pinned = lock(&self.pinned);
        match (&self.channels[..], pinned.as_deref()) {
            ([only], None) => Ok(only),
            (channels, pinned) => Ok(&channels[policy::choose(&self.channel_names(), pinned)?]),
        }
    }

    fn channel_names(&self) -> Vec<&'static str> {
        self.channels.iter().map(|channel| channel.name).collect()
    }

    fn timeout(&self, channel: &Channel) -> Option<Duration> {
        match self.timeout_ms.load(Ordering::Relaxed) {
            UNSET => Some(channel.timeout).filter(|time| *time != Duration::MAX),
            NEVER => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        }
    }

    fn check_rank(&self, rank: u32) -> Result<()> {
        if rank < self.size {
            return Ok(());
        }
        Err(argument(format!("rank {rank} is not in a communicator of size {}", self.size)))
    }

    /// Checks that `all` bytes are one block of `block` bytes for each rank.
    fn check_blocks(&self, all: usize, block: usize, whole: &str, part: &str) -> Result<usize> {
        if block.checked_mul(self.size as usize) == Some(all) {
            return Ok(block);
        }
        Err(argument(format!(
            "{whole} has {all} bytes at the root; {} ranks with {part} of {block} bytes need {}",
            self.size,
            block.saturating_mul(self.size as usize)
        )))
    }

    fn block_of(&self, all: usize) -> Result<usize> {
        if all.is_multiple_of(self.size as usize) {
            return Ok(all / self.size as usize);
        }
        Err(argument(format!("a buffer of {all} bytes does not hold {} equal blocks", self.size)))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        for channel in &self.channels {
            let _ = self.leave(channel, Until::Arrived, &mut Deadline::after(self.timeout(channel)));
        }
    }
}

impl Call {
    /// FNV-1a over everything that all ranks must pass alike.
    fn signature(&self, hint: i32) -> u32 {
        let parts = [self.operation as u64, self.root.into(), self.bytes as u64, self.reduction, hint as u64];
        let bytes = parts.into_iter().flat_map(u64::to_le_bytes);
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }
}

fn start_recv<'a>(entered: &'a Entered<'_>, buffer: &'a mut [u8], src: u32) -> RecvFuture<'a> {
    let selector = Selector::PointToPoint { context: FIRST_CONTEXT, tag: Some(NO_TAG) };
    RecvFuture::start(entered.core(), Some(src), selector, buffer)
}

fn check_length(has: usize, wants: usize, src: u32) -> Result<()> {
    if has == wants {
        return Ok(());
    }
    let text = format!("a message of {has} bytes for a buffer of {wants}");
    Err(Error::new(ErrorKind::SizeMismatch, text).with_peer(src))
}

fn located(error: Error, channel: &Channel, deadline: &Deadline) -> Error {
    error.with_channel(channel.name).with_waited(deadline.waited())
}

fn creating(error: Error) -> Error {
    error.with_operation(Operation::Create)
}

fn argument(text: String) -> Error {
    Error::new(ErrorKind::Arg, text)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
