//! Scatter: direct from the root.
//!
//! "Linear" or "flat" in E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn,
//! "Collective communication: theory, practice, and experience", Concurrency and
//! Computation 19 (2007).
//!
//! Cost: (p - 1) n bytes out of the root, which is optimal. All messages are in
//! flight at once: the latency of the network counts once, not p - 1 times,
//! though the root spends its processor on p - 1 messages. Valid for any number
//! of ranks, any root.
//!
//! 5 ranks, root 1; there is one step, and every rank but the root has one
//! message in it:
//!
//! ```text
//!          0        1             2        3        4
//! step 0   from 1   to 0 2 3 4    from 1   from 1   from 1
//! ```

use super::{ScatterBuffers, blocks};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::error::Result;
use crate::model::Cost;

const STEP: Step = 0;

/// Of a scatter of `bytes` bytes to each of `size` ranks.
pub(super) fn cost(size: u32, bytes: usize) -> Cost {
    Cost::exchange(1, size - 1, bytes)
}

/// Everybody gets its block from the root.
pub(super) async fn scatter<C: PeerToPeer>(call: &C, buffers: ScatterBuffers<'_>, root: Rank) -> Result<()> {
    let (send, own) = match buffers {
        ScatterBuffers::Leaf(block) => return call.recv(root, STEP, block).await,
        ScatterBuffers::Root { send, recv } => {
            debug_assert_eq!(send.len(), recv.len() * call.size() as usize);
            (send, Some(recv))
        }
        ScatterBuffers::RootInPlace(send) => (send, None),
    };
    debug_assert_eq!(call.rank(), root);
    let mut own = own;
    let mut sends = Vec::with_capacity(call.size() as usize - 1);
    for (rank, block) in (0..).zip(blocks(send, call.size())) {
        if rank != root {
            sends.push(call.send(rank, STEP, block));
        } else if let Some(own) = &mut own {
            own.copy_from_slice(block);
        }
    }
    for send in sends {
        send.await?;
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
                    let send = vec![0; bytes * size as usize];
                    let mut recv = vec![0; bytes];
                    let buffers = if call.rank() == root {
                        ScatterBuffers::Root { send: &send, recv: &mut recv }
                    } else {
                        ScatterBuffers::Leaf(&mut recv)
                    };
                    scatter(&call, buffers, root).await
                });
                traffic.assert_is(cost(size, bytes));
            }
        }
    }

    #[test]
    fn every_rank_gets_its_block() {
        for (size, root) in testing::sizes_and_roots() {
            for length in testing::counts(size) {
                for in_place in [false, true] {
                    let all = testing::bytes(1, length * size as usize);
                    let results = testing::run(size, length as u64, |call| {
                        let send = all.clone();
                        async move {
                            let mut recv = vec![0; length];
                            let buffers = if call.rank() != root {
                                ScatterBuffers::Leaf(&mut recv)
                            } else if in_place {
                                ScatterBuffers::RootInPlace(&send)
                            } else {
                                ScatterBuffers::Root { send: &send, recv: &mut recv }
                            };
                            scatter(&call, buffers, root).await.unwrap();
                            (send, recv)
                        }
                    });
                    for (rank, (send, recv)) in results.iter().enumerate() {
                        assert_eq!(*send, all);
                        if rank != root as usize || !in_place {
                            assert_eq!(*recv, all[rank * length..][..length]);
                        }
                    }
                }
            }
        }
    }
}
