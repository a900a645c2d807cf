//! The peer-to-peer channel over an endpoint's engine: Direct and Memory.

use std::cell::RefCell;

use super::{PeerToPeer, Rank, Step};
use crate::endpoint::{Core, RecvFuture, SendFuture};
use crate::engine::frame::MessageId;
use crate::engine::{CallMark, Envelope, Selector};
use crate::error::Result;
use crate::operation::Operation;

/// What every frame of a collective call says of the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallIdentity {
    pub(crate) context: u64,
    pub(crate) sequence: u64,
    pub(crate) operation: Operation,
    pub(crate) signature: u32,
}

/// One call of one collective over an endpoint whose ranks are the
/// communicator's.
pub(crate) struct EngineCall<'a> {
    core: &'a RefCell<Core>,
    rank: Rank,
    size: u32,
    identity: CallIdentity,
}

impl<'a> EngineCall<'a> {
    /// Starts the call: what the others' frames say is compared from here on.
    pub(crate) fn start(core: &'a RefCell<Core>, rank: Rank, size: u32, identity: CallIdentity) -> Self {
        let CallIdentity { context, operation, signature, .. } = identity;
        let mark = CallMark { operation: operation as u8, algorithm: 0, signature };
        core.borrow_mut().engine.declare_call(context, mark);
        Self { core, rank, size, identity }
    }

    fn envelope(&self, step: Step) -> Envelope {
        let CallIdentity { context, sequence, operation, signature } = self.identity;
        Envelope {
            id: MessageId { context, collective: true, sequence, tag: step },
            operation: operation as u8,
            algorithm: 0,
            signature,
        }
    }
}

impl PeerToPeer for EngineCall<'_> {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn send<'a>(&'a self, to: Rank, step: Step, data: &'a [u8]) -> impl Future<Output = Result<()>> + 'a {
        SendFuture::start(self.core, to, self.envelope(step), data)
    }

    fn recv<'a>(
        &'a self,
        from: Rank,
        step: Step,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a {
        let selector = Selector::Collective(self.envelope(step));
        let received = RecvFuture::start(self.core, Some(from), selector, buffer);
        async move { received.await.map(|_| ()) }
    }
}
