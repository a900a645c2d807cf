//! The collectives: one file each, one function per algorithm.
//!
//! Every algorithm has a schedule, a pure function of (rank, size, root) that
//! says who talks to whom in which step, and an execution of that schedule over
//! the [`PeerToPeer`](crate::channel::PeerToPeer) trait.

mod allreduce;
mod barrier;
mod bcast;
mod call;
mod gather;
mod reduce;
mod reduction;
mod scan;
mod scatter;
#[cfg(test)]
mod testing;

pub use call::{Collective, Reduction};

use crate::channel::{Rank, Step};
use crate::error::{Error, ErrorKind, Result};

/// One message of a schedule, as one of its two ranks sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    peer: Rank,
    step: Step,
}

/// The rounds that it takes to reach `size` ranks where their number doubles in
/// each: the logarithm to base 2, rounded up.
const fn rounds(size: u32) -> u32 {
    u32::BITS - (size - 1).leading_zeros()
}

/// The rank `distance` above `rank` on the circle of all ranks.
const fn above(rank: Rank, distance: u32, size: u32) -> Rank {
    let gap = size - rank;
    if distance < gap { rank + distance } else { distance - gap }
}

/// How far `rank` is above `other` on the circle of all ranks.
const fn distance(rank: Rank, other: Rank, size: u32) -> u32 {
    if rank >= other { rank - other } else { size - other + rank }
}

/// The `size` blocks of `buffer`, in the order of ranks. Blocks may be empty.
fn blocks(buffer: &[u8], size: u32) -> impl Iterator<Item = &[u8]> {
    let length = buffer.len() / size as usize;
    (0..size as usize).map(move |rank| &buffer[rank * length..][..length])
}

/// As [`blocks`], to write to.
fn blocks_mut(mut buffer: &mut [u8], size: u32) -> impl Iterator<Item = &mut [u8]> {
    let length = buffer.len() / size as usize;
    (0..size).map_while(move |_| buffer.split_off_mut(..length))
}

/// The buffers of a gather, as this rank holds them. `block` is what each rank
/// contributes, in bytes.
pub enum GatherBuffers<'a> {
    /// Not the root: its block.
    Leaf(&'a [u8]),
    /// The root: its block, and room for `size` blocks in the order of ranks.
    Root {
        /// The block.
        send: &'a [u8],
        /// The room.
        recv: &'a mut [u8],
    },
    /// The root: `size` blocks, of which its own is in its place already.
    RootInPlace(&'a mut [u8]),
}

/// The buffers of a scatter, as this rank holds them.
pub enum ScatterBuffers<'a> {
    /// Not the root: room for its block.
    Leaf(&'a mut [u8]),
    /// The root: `size` blocks in the order of ranks, and room for its own.
    Root {
        /// The blocks.
        send: &'a [u8],
        /// The room.
        recv: &'a mut [u8],
    },
    /// The root: `size` blocks, of which its own stays where it is.
    RootInPlace(&'a [u8]),
}

/// The buffers of a reduction, as this rank holds them.
pub enum ReduceBuffers<'a> {
    /// A rank that gets no result (reduce, not the root): its operand.
    Leaf(&'a [u8]),
    /// Operand, and room for the result.
    Separate {
        /// The operand.
        send: &'a [u8],
        /// The room.
        recv: &'a mut [u8],
    },
    /// Operand, which the result replaces.
    InPlace(&'a mut [u8]),
}

impl<'a> ReduceBuffers<'a> {
    /// The operand.
    pub(crate) fn operand(&self) -> &[u8] {
        match self {
            Self::Leaf(operand) | Self::Separate { send: operand, .. } => operand,
            Self::InPlace(buffer) => buffer,
        }
    }

    /// The buffer of the result, with the operand in it.
    fn into_result(self) -> Result<&'a mut [u8]> {
        match self {
            Self::Separate { send, recv } => {
                debug_assert_eq!(send.len(), recv.len());
                recv.copy_from_slice(send);
                Ok(recv)
            }
            Self::InPlace(buffer) => Ok(buffer),
            Self::Leaf(_) => Err(Error::new(ErrorKind::Internal, "a rank with a result has no room for it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_the_logarithm_rounded_up() {
        let expected =
            [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (1 << 31, 31), (u32::MAX, 32)];
        for (size, number) in expected {
            assert_eq!(rounds(size), number, "{size}");
        }
    }

    #[test]
    fn the_circle_closes_at_every_size() {
        assert_eq!(above(3, 4, 5), 2);
        assert_eq!(distance(2, 3, 5), 4);
        for (rank, by) in [(0, 0), (7, u32::MAX - 1), (u32::MAX - 1, u32::MAX - 1)] {
            assert_eq!(distance(above(rank, by, u32::MAX), rank, u32::MAX), by);
        }
    }

    #[test]
    fn there_is_a_block_for_every_rank_also_where_it_is_empty() {
        let mut bytes = *b"aabbcc";
        assert_eq!(blocks(&bytes, 3).collect::<Vec<_>>(), [b"aa", b"bb", b"cc"]);
        assert_eq!(blocks_mut(&mut bytes, 3).collect::<Vec<_>>(), [b"aa", b"bb", b"cc"]);
        assert_eq!(blocks(&[], 3).count(), 3);
        assert_eq!(blocks_mut(&mut [], 3).count(), 3);
    }
}
