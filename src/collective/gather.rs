//! Gather: direct to the root.
//!
//! "Linear" or "flat" in E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn,
//! "Collective communication: theory, practice, and experience", Concurrency and
//! Computation 19 (2007).
//!
//! Cost: (p - 1) n bytes into the root, which is optimal. All messages are in
//! flight at once: the latency of the network counts once, not p - 1 times,
//! though the root spends its processor on p - 1 messages. Valid for any number
//! of ranks, any root.
//!
//! 5 ranks, root 1; there is one step, and every rank but the root has one
//! message in it:
//!
//! ```text
//!          0      1               2      3      4
//! step 0   to 1   from 0 2 3 4    to 1   to 1   to 1
//! ```

use super::{GatherBuffers, blocks_mut};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::error::Result;
use crate::model::Cost;

const STEP: Step = 0;

/// Of a gather of `bytes` bytes from each of `size` ranks.
pub(super) fn cost(size: u32, bytes: usize) -> Cost {
    Cost::exchange(size - 1, 1, bytes)
}

/// The root gets everybody's block, in the order of ranks.
pub(super) async fn gather<C: PeerToPeer>(call: &C, buffers: GatherBuffers<'_>, root: Rank) -> Result<()> {
    let (own, recv) = match buffers {
        GatherBuffers::Leaf(block) => return call.send(root, STEP, block).await,
        GatherBuffers::Root { send, recv } => {
            debug_assert_eq!(recv.len(), send.len() * call.size() as usize);
            (Some(send), recv)
        }
        GatherBuffers::RootInPlace(recv) => (None, recv),
    };
    debug_assert_eq!(call.rank(), root);
    let mut receives = Vec::with_capacity(call.size() as usize - 1);
    for (rank, block) in (0..).zip(blocks_mut(recv, call.size())) {
        if rank != root {
            receives.push(call.recv(rank, STEP, block));
        } else if let Some(own) = own {
            block.copy_from_slice(own);
        }
    }
    for receive in receives {
        receive.await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn the_cost_is_what_a_run_takes() {
        for (size, root) in testing::sizes_and_roots() {
            for bytes in [0, 24] {
                let traffic = testing::traffic(size, |call| async move {
                    let send = vec![0; bytes];
                    let mut recv = vec![0; bytes * size as usize];
                    let buffers = if call.rank() == root {
                        GatherBuffers::Root { send: &send, recv: &mut recv }
                    } else {
                        GatherBuffers::Leaf(&send)
                    };
                    gather(&call, buffers, root).await
                });
                traffic.assert_is(cost(size, bytes));
            }
        }
    }

    #[test]
    fn the_root_gets_all_blocks_in_the_order_of_ranks() {
        for (size, root) in testing::sizes_and_roots() {
            for length in testing::counts(size) {
                for in_place in [false, true] {
                    let block = |rank| testing::bytes(u64::from(rank), length);
                    let results = testing::run(size, length as u64, |call| async move {
                        let own = block(call.rank());
                        let mut recv = Vec::new();
                        let buffers = if call.rank() != root {
                            GatherBuffers::Leaf(&own)
                        } else if in_place {
                            recv.resize(length * size as usize, 0);
                            recv[root as usize * length..][..length].copy_from_slice(&own);
                            GatherBuffers::RootInPlace(&mut recv)
                        } else {
                            recv.resize(length * size as usize, 0);
                            GatherBuffers::Root { send: &own, recv: &mut recv }
                        };
                        gather(&call, buffers, root).await.unwrap();
                        assert_eq!(own, block(call.rank()));
                        recv
                    });
                    let expected: Vec<u8> = (0..size).flat_map(block).collect();
                    assert_eq!(results[root as usize], expected);
                }
            }
        }
    }
}
