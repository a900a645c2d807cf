//! The channels, and the contract that each must keep.
//!
//! A peer-to-peer channel hands the collectives a value that implements
//! [`PeerToPeer`]: one call of one collective, with the ranks of its
//! communicator. The contract:
//!
//! 1. **A transfer starts when its method is called**, not when its future is
//!    first polled. A caller starts several and then awaits them in turn; they
//!    progress together. The future only waits; awaiting it late costs nothing.
//! 2. **Dropping a future cancels its transfer.** The buffer is not touched
//!    after the drop, and the stream of messages between the two ranks stays in
//!    step.
//! 3. A message is identified by (call, source, step): `recv` returns the
//!    message that the peer sent in the same call with the same step, and no
//!    other. Two messages of one call between one pair of ranks have different
//!    steps. Both sides state the same length; where they do not, the receiver's
//!    future fails with [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch).
//! 4. `send` completes when its buffer may be reused; it may complete before the
//!    peer has called its `recv`, and must not depend on it for messages within
//!    the channel's buffering.
//! 5. A message to oneself is a message like any other; so is an empty one.
//! 6. Every error is typed and names the peer. After an error the call is over:
//!    the collective returns it, and starts nothing more.
//! 7. No method blocks.
//!
//! Channels of the user's own block: [`custom`] says what they keep of this.

pub(crate) mod custom;
pub(crate) mod direct;

use std::future::Future;

use crate::error::Result;

/// A rank of the communicator that the call belongs to.
pub(crate) type Rank = u32;

/// Number of a message within one call between one pair of ranks.
pub(crate) type Step = i32;

/// One call of one collective over a peer-to-peer channel. The module's
/// documentation is the contract.
pub(crate) trait PeerToPeer {
    /// This rank.
    fn rank(&self) -> Rank;

    /// The number of ranks.
    fn size(&self) -> u32;

    /// Starts sending `data` to `to`.
    fn send<'a>(&'a self, to: Rank, step: Step, data: &'a [u8]) -> impl Future<Output = Result<()>> + 'a;

    /// Starts receiving exactly `buffer.len()` bytes from `from`.
    fn recv<'a>(
        &'a self,
        from: Rank,
        step: Step,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a;

    /// Sends to one rank and receives from another, both under way at once. A
    /// channel that is not full duplex overrides the order.
    fn exchange<'a>(
        &'a self,
        step: Step,
        to: Rank,
        data: &'a [u8],
        from: Rank,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = Result<()>> + 'a {
        let received = self.recv(from, step, buffer);
        let sent = self.send(to, step, data);
        async move {
            sent.await?;
            received.await
        }
    }
}
