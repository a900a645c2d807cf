//! The collectives: one file each, one function per algorithm.
//!
//! Every algorithm has a schedule, a pure function of (rank, size, root) that
//! says who talks to whom in which step, an execution of that schedule over the
//! [`PeerToPeer`](crate::channel::PeerToPeer) trait, and a `cost`, by which the
//! model predicts it; a test compares that with the messages of a run.

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
use crate::model::Cost;
use crate::operation::Operation;

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

/// The messages of `operation` among `size` ranks. `bytes` is what every rank
/// passes; `strict` says that a reduction's operation is not associative.
#[allow(dead_code, reason = "for the choice of the channel, which is to come")]
pub(crate) fn operation_cost(operation: Operation, size: u32, bytes: usize, strict: bool) -> Cost {
    match operation {
        Operation::Send | Operation::Recv => Cost::exchange(1, 1, bytes),
        // Both ways at once.
        Operation::Sendrecv => Cost::rounds(1, 2, bytes),
        Operation::Bcast => bcast::cost(size, bytes),
        Operation::Barrier => barrier::cost(size),
        Operation::Gather => gather::cost(size, bytes),
        Operation::Scatter => scatter::cost(size, bytes),
        Operation::Reduce => reduce::cost(size, bytes, strict),
        Operation::Allreduce => allreduce::cost(size, bytes, strict),
        Operation::Scan => scan::cost(size, bytes, strict),
        Operation::Create | Operation::Close => Cost::NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    const OPERATIONS: [Operation; 12] = [
        Operation::Send,
        Operation::Recv,
        Operation::Sendrecv,
        Operation::Bcast,
        Operation::Barrier,
        Operation::Gather,
        Operation::Scatter,
        Operation::Reduce,
        Operation::Allreduce,
        Operation::Scan,
        Operation::Create,
        Operation::Close,
    ];

    /// As numbers of bytes in all: an exchange costs the bytes that it moves.
    fn moved(cost: Cost) -> f64 {
        cost.price(&|producers, consumers, bytes| f64::from(producers) * f64::from(consumers) * bytes as f64)
    }

    #[test]
    fn operations_by_hand() {
        // Rounds and bytes in all of 5 ranks with 10 bytes each.
        let rounds = |cost: Cost| cost.path().map(|exchanges| exchanges.count).sum::<u64>();
        for (operation, strict, expected_rounds, bytes) in [
            (Operation::Send, false, 1, 10.0),
            (Operation::Recv, false, 1, 10.0),
            (Operation::Sendrecv, false, 1, 20.0),
            (Operation::Bcast, false, 3, 40.0),
            (Operation::Barrier, false, 3, 0.0),
            (Operation::Gather, false, 1, 40.0),
            (Operation::Scatter, false, 1, 40.0),
            (Operation::Reduce, false, 3, 40.0),
            (Operation::Reduce, true, 1, 40.0),
            (Operation::Allreduce, false, 4, 100.0),
            (Operation::Allreduce, true, 4, 80.0),
            (Operation::Scan, false, 3, 80.0),
            (Operation::Scan, true, 4, 40.0),
            (Operation::Create, false, 0, 0.0),
        ] {
            let cost = operation_cost(operation, 5, 10, strict);
            assert_eq!(
                (rounds(cost), moved(cost)),
                (expected_rounds, bytes),
                "{operation:?}, strict: {strict}"
            );
        }
    }

    #[test]
    fn one_rank_alone_exchanges_nothing() {
        for operation in OPERATIONS {
            if !matches!(operation, Operation::Send | Operation::Recv | Operation::Sendrecv) {
                for strict in [false, true] {
                    assert_eq!(operation_cost(operation, 1, 10, strict), Cost::NOTHING, "{operation:?}");
                }
            }
        }
    }

    proptest! {
        /// With one exception in time: a power of two spares an allreduce a round.
        #[test]
        fn more_bytes_and_more_ranks_never_take_or_cost_less(
            index in 0..OPERATIONS.len(),
            (size, more_ranks) in (1u32..70_000, 0u32..10_000),
            (bytes, more_bytes) in (0usize..1 << 30, 0usize..1 << 30),
            strict in any::<bool>(),
        ) {
            let operation = OPERATIONS[index];
            let time = |cost: &Cost| {
                cost.latency(&|producers, consumers, bytes| {
                    1.0 + f64::from(producers) * f64::from(consumers) * bytes as f64
                })
            };
            let cost = operation_cost(operation, size, bytes, strict);
            let longer = operation_cost(operation, size, bytes + more_bytes, strict);
            let larger = operation_cost(operation, size + more_ranks, bytes, strict);
            prop_assert!(time(&longer) >= time(&cost));
            prop_assert!(moved(longer) >= moved(cost) && moved(larger) >= moved(cost));
            let spared = match operation {
                Operation::Allreduce if !strict => 1.0 + bytes as f64,
                _ => 0.0,
            };
            prop_assert!(time(&larger) + spared >= time(&cost));
        }
    }
}
