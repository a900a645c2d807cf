//! The operations over an endpoint: Direct and Memory.

use std::panic::{self, AssertUnwindSafe};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::channel::direct::{CallIdentity, EngineCall};
use crate::collective::Collective;
use crate::endpoint::{
    Deadline, Endpoint, EndpointConfig, Entered, RecvFuture, SendFuture, Signals, Stop, Until,
};
use crate::engine::frame::{AbortNotice, MessageId};
use crate::engine::{Envelope, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;

/// The context of a job's first communicator. Those made from it have hashes.
const FIRST_CONTEXT: u64 = 1;

/// The tag of messages whose call has none.
const NO_TAG: i32 = 0;

/// A communicator's part of one endpoint.
pub(super) struct OverEndpoint {
    endpoint: Endpoint,
    rank: u32,
    size: u32,
    signals: Arc<Signals>,
    /// How many messages went to each rank.
    sent: Box<[AtomicU64]>,
}

impl OverEndpoint {
    /// No network I/O.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where no descriptor can be had.
    pub(super) fn new(config: EndpointConfig) -> Result<Self> {
        let (rank, size, signals) = (config.rank, config.size, Arc::clone(&config.signals));
        let endpoint = Endpoint::new(config)?;
        endpoint.enter()?.core().borrow_mut().engine.open_context(FIRST_CONTEXT, (0..size).collect());
        Ok(Self { endpoint, rank, size, signals, sent: (0..size).map(|_| AtomicU64::new(0)).collect() })
    }

    pub(super) fn send(&self, data: &[u8], dest: u32, deadline: &mut Deadline) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let future = self.start_send(&entered, data, dest);
        self.finish_send(&entered, future, deadline)
    }

    pub(super) fn recv(&self, buffer: &mut [u8], src: u32, deadline: &mut Deadline) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let length = buffer.len();
        let future = start_recv(&entered, buffer, src);
        let received = self.settle(&entered, pin!(future), deadline)??;
        check_length(received.length, length, src)
    }

    pub(super) fn sendrecv(
        &self,
        data: &[u8],
        dest: u32,
        buffer: &mut [u8],
        src: u32,
        deadline: &mut Deadline,
    ) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let length = buffer.len();
        let mut receiving = pin!(start_recv(&entered, buffer, src));
        let sending = self.start_send(&entered, data, dest);
        self.finish_send(&entered, sending, deadline)?;
        let received = self.settle(&entered, receiving.as_mut(), deadline)??;
        check_length(received.length, length, src)
    }

    fn start_send<'a>(&self, entered: &'a Entered<'_>, data: &'a [u8], dest: u32) -> SendFuture<'a> {
        let sequence = self.sent[dest as usize].fetch_add(1, Ordering::Relaxed);
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

    /// Runs one collective call; `hint` is part of what all ranks must agree on.
    pub(super) fn collective(
        &self,
        collective: Collective<'_>,
        hint: i32,
        deadline: &mut Deadline,
    ) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let operation = collective.operation();
        let begun = entered.core().borrow_mut().engine.begin_collective(FIRST_CONTEXT);
        let sequence = begun.inspect_err(|error| self.poison_context(&entered, error))?;
        let identity = CallIdentity {
            context: FIRST_CONTEXT,
            sequence,
            operation,
            signature: collective.signature(self.size, hint),
        };
        let running = EngineCall::start(entered.core(), self.rank, self.size, identity);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let future = pin!(collective.run(&running));
            self.settle(&entered, future, deadline)?
        }));
        match outcome {
            Ok(outcome) => {
                self.end_collective(&entered, operation, outcome.as_ref().err());
                outcome
            }
            Err(panic) => {
                let error = Error::new(ErrorKind::Internal, "a function called by this operation panicked");
                self.end_collective(&entered, operation, Some(&error));
                panic::resume_unwind(panic);
            }
        }
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

    fn settle<F: Future>(
        &self,
        entered: &Entered<'_>,
        future: Pin<&mut F>,
        deadline: &mut Deadline,
    ) -> Result<F::Output> {
        entered.drive(future, deadline).map_err(|stop| self.stopped(entered, stop))
    }

    /// Leaves the job, see [`Communicator::close`](super::Communicator::close).
    pub(super) fn leave(&self, until: Until, deadline: &mut Deadline) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let left = entered.leave(until, deadline).map_err(|stop| self.stopped(&entered, stop));
        if let Some(code) = self.signals.take_abort() {
            self.abort_context(&entered, code);
        }
        let leftover = entered.core().borrow_mut().engine.unreported_mismatch(FIRST_CONTEXT);
        entered.close();
        leftover.map_or(Ok(()), Err).and(left)
    }

    /// Fails the collectives because of what did not happen over this endpoint.
    ///
    /// # Errors
    /// Those of entering the endpoint.
    pub(super) fn poison(&self, error: &Error) -> Result<()> {
        let entered = self.endpoint.enter()?;
        let notice = self.notice(error, Operation::Barrier, 0);
        entered.core().borrow_mut().poison_along(FIRST_CONTEXT, error.clone(), &notice);
        entered.spread_notices();
        Ok(())
    }

    /// Whether the collectives have failed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.endpoint
            .enter()
            .is_ok_and(|entered| entered.core().borrow().engine.context_failure(FIRST_CONTEXT).is_some())
    }

    /// Aborts the job.
    ///
    /// # Errors
    /// Those of entering the endpoint.
    pub(super) fn abort(&self, code: i32) -> Result<()> {
        let entered = self.endpoint.enter()?;
        self.abort_context(&entered, code);
        Ok(())
    }

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
        let error = super::aborted(code, self.rank);
        let notice = self.notice(&error, Operation::Barrier, code);
        entered.core().borrow_mut().poison(FIRST_CONTEXT, error.clone(), &notice);
        entered.spread_notices();
        error
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
