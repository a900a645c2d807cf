//! The collectives: one file each, one function per algorithm.
//!
//! Every algorithm has a schedule, a pure function of (rank, size, root) that
//! says who talks to whom in which step, and an execution of that schedule over
//! the [`PeerToPeer`](crate::channel::PeerToPeer) trait.

mod allreduce;
mod barrier;
mod bcast;
mod gather;
mod reduce;
mod scan;
mod scatter;

pub(crate) use allreduce::allreduce;
pub(crate) use barrier::barrier;
pub(crate) use bcast::bcast;
pub(crate) use gather::gather;
pub(crate) use reduce::reduce;
pub(crate) use scan::scan;
pub(crate) use scatter::scatter;

/// The buffers of a gather, as this rank holds them. `block` is what each rank
/// contributes, in bytes.
pub(crate) enum GatherBuffers<'a> {
    /// Not the root: its block.
    Leaf(&'a [u8]),
    /// The root: its block, and room for `size` blocks in the order of ranks.
    Root { send: &'a [u8], recv: &'a mut [u8] },
    /// The root: `size` blocks, of which its own is in its place already.
    RootInPlace(&'a mut [u8]),
}

/// The buffers of a scatter, as this rank holds them.
pub(crate) enum ScatterBuffers<'a> {
    /// Not the root: room for its block.
    Leaf(&'a mut [u8]),
    /// The root: `size` blocks in the order of ranks, and room for its own.
    Root { send: &'a [u8], recv: &'a mut [u8] },
    /// The root: `size` blocks, of which its own stays where it is.
    RootInPlace(&'a [u8]),
}

/// The buffers of a reduction, as this rank holds them.
pub(crate) enum ReduceBuffers<'a> {
    /// A rank that gets no result (reduce, not the root): its operand.
    Leaf(&'a [u8]),
    /// Operand, and room for the result.
    Separate { send: &'a [u8], recv: &'a mut [u8] },
    /// Operand, which the result replaces.
    InPlace(&'a mut [u8]),
}
