//! Broadcast: binomial tree.
//!
//! As in R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective
//! communication operations in MPICH", International Journal of High Performance
//! Computing Applications 19 (2005).
//!
//! Cost: ceil(log2 p) rounds, n bytes in each. Valid for any number of ranks, any
//! root; for short buffers (a long one costs log2 p times what its bytes need).
//!
//! Ranks count from the root. Each gets the buffer from the rank whose number is
//! its own without the lowest bit, and gives it to its children, those with the
//! largest subtree first. 5 ranks, root 0:
//!
//! ```text
//!          0      1      2      3      4
//! step 0   to 4                        from 0
//! step 1   to 2          from 0
//! step 2   to 1   from 0 to 3   from 2
//! ```

use super::{Transfer, above, distance, rounds};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::error::Result;
use crate::model::Cost;

/// From whom a rank gets the buffer; `None` for the root.
fn parent(rank: Rank, size: u32, root: Rank) -> Option<Transfer> {
    let number = distance(rank, root, size);
    (number != 0).then(|| {
        let bit = number.trailing_zeros();
        Transfer { peer: above(root, number & (number - 1), size), step: (rounds(size) - 1 - bit) as Step }
    })
}

/// To whom a rank gives it, in this order.
fn children(rank: Rank, size: u32, root: Rank) -> impl Iterator<Item = Transfer> {
    let number = distance(rank, root, size);
    let bits = number.trailing_zeros().min(rounds(size));
    (0..bits).rev().filter(move |bit| 1 << bit < size - number).map(move |bit| Transfer {
        peer: above(rank, 1 << bit, size),
        step: (rounds(size) - 1 - bit) as Step,
    })
}

/// Of a broadcast of `bytes` bytes to `size` ranks.
pub(super) fn cost(size: u32, bytes: usize) -> Cost {
    Cost::rounds(rounds(size), u64::from(size) - 1, bytes)
}

/// The root's `buffer` replaces everybody's.
pub(super) async fn bcast<C: PeerToPeer>(call: &C, buffer: &mut [u8], root: Rank) -> Result<()> {
    bcast_from_step(call, 0, buffer, root).await
}

/// As [`bcast`], with `first` for its first step: for algorithms of which it is
/// the last part.
pub(super) async fn bcast_from_step<C: PeerToPeer>(
    call: &C,
    first: Step,
    buffer: &mut [u8],
    root: Rank,
) -> Result<()> {
    let (rank, size) = (call.rank(), call.size());
    if let Some(Transfer { peer, step }) = parent(rank, size, root) {
        call.recv(peer, first + step, buffer).await?;
    }
    let buffer = &*buffer;
    let sends: Vec<_> = children(rank, size, root)
        .map(|Transfer { peer, step }| call.send(peer, first + step, buffer))
        .collect();
    for send in sends {
        send.await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{self, Edges};
    use super::*;

    #[test]
    fn five_ranks_as_drawn() {
        let transfers = |rank| children(rank, 5, 0).map(|t| (t.peer, t.step)).collect::<Vec<_>>();
        assert_eq!(transfers(0), [(4, 0), (2, 1), (1, 2)]);
        assert_eq!(transfers(2), [(3, 2)]);
        assert_eq!(parent(3, 5, 0), Some(Transfer { peer: 2, step: 2 }));
        assert_eq!(parent(0, 5, 0), None);
    }

    /// Every send has its receive, and nobody passes on what has not come yet:
    /// so, as every rank but the root has a parent, all are reached.
    fn check_tree(size: u32, root: Rank) {
        let mut edges = Edges::default();
        for rank in 0..size {
            let received = parent(rank, size, root);
            assert_eq!(received.is_none(), rank == root);
            let mut last = -1;
            if let Some(Transfer { peer, step }) = received {
                edges.recv(peer, rank, step);
                last = step;
            }
            for Transfer { peer, step } in children(rank, size, root) {
                assert!(step > last && step < rounds(size) as Step);
                last = step;
                edges.send(rank, peer, step);
            }
        }
        edges.assert_paired();
    }

    #[test]
    fn the_tree_reaches_all_ranks_from_every_root() {
        for size in 1..=64 {
            for root in 0..size {
                check_tree(size, root);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn the_tree_reaches_all_ranks_of_large_jobs((size, root) in testing::size_and_root(3000)) {
            check_tree(size, root);
        }
    }

    #[test]
    fn the_cost_is_what_a_run_takes() {
        for (size, root) in testing::sizes_and_roots() {
            for bytes in [0, 24] {
                let traffic = testing::traffic(size, |call| async move {
                    let mut buffer = vec![0; bytes];
                    bcast(&call, &mut buffer, root).await
                });
                traffic.assert_is(cost(size, bytes));
            }
        }
    }

    #[test]
    fn everybody_gets_the_roots_bytes() {
        for (size, root) in testing::sizes_and_roots() {
            for length in testing::counts(size) {
                let expected = testing::bytes(u64::from(root), length);
                let results = testing::run(size, length as u64, |call| {
                    let mut buffer = testing::bytes(u64::from(call.rank()), length);
                    async move {
                        bcast(&call, &mut buffer, root).await.unwrap();
                        buffer
                    }
                });
                assert!(results.iter().all(|result| *result == expected));
            }
        }
    }
}
