//! Barrier: dissemination.
//!
//! D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier
//! synchronization", International Journal of Parallel Programming 17 (1988).
//!
//! Cost: ceil(log2 p) rounds of empty messages, which is optimal. Valid for any
//! number of ranks.
//!
//! In round k every rank tells the rank 2^k above it that it, and all it has
//! heard of, have arrived. 5 ranks:
//!
//! ```text
//!          0      1      2      3      4
//! step 0   to 1   to 2   to 3   to 4   to 0   each knows of 2 ranks
//! step 1   to 2   to 3   to 4   to 0   to 1   of 4
//! step 2   to 4   to 0   to 1   to 2   to 3   of all
//! ```

use super::{above, rounds};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::error::Result;
use crate::model::Cost;

/// One round, as one rank sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    step: Step,
    to: Rank,
    from: Rank,
}

fn schedule(rank: Rank, size: u32) -> impl Iterator<Item = Round> {
    (0..rounds(size)).map(move |round| {
        let distance = 1 << round;
        Round {
            step: round as Step,
            to: above(rank, distance, size),
            from: above(rank, size - distance, size),
        }
    })
}

/// Of a barrier of `size` ranks.
pub(super) fn cost(size: u32) -> Cost {
    let rounds = rounds(size);
    Cost::rounds(rounds, u64::from(rounds) * u64::from(size), 0)
}

/// Returns when all ranks have called it.
pub(super) async fn barrier<C: PeerToPeer>(call: &C) -> Result<()> {
    for round in schedule(call.rank(), call.size()) {
        call.exchange(round.step, round.to, &[], round.from, &mut []).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::super::testing::{self, Edges};
    use super::*;

    #[test]
    fn every_rank_hears_of_all_others() {
        for size in 1..=64 {
            let mut edges = Edges::default();
            let mut known: Vec<BTreeSet<Rank>> = (0..size).map(|rank| BTreeSet::from([rank])).collect();
            let schedules: Vec<Vec<Round>> = (0..size).map(|rank| schedule(rank, size).collect()).collect();
            for step in 0..rounds(size) as usize {
                let before = known.clone();
                for (rank, rounds) in (0..).zip(&schedules) {
                    let round = rounds[step];
                    edges.send(rank, round.to, round.step);
                    edges.recv(round.from, rank, round.step);
                    known[rank as usize].extend(&before[round.from as usize]);
                }
            }
            edges.assert_paired();
            assert!(known.iter().all(|ranks| ranks.len() == size as usize), "{size} ranks");
        }
    }

    #[test]
    fn the_cost_is_what_a_run_takes() {
        for size in testing::sizes() {
            let traffic = testing::traffic(size, |call| async move { barrier(&call).await });
            traffic.assert_is(cost(size));
        }
    }

    #[test]
    fn nobody_leaves_before_the_last_has_come() {
        for size in testing::sizes() {
            for seed in 0..4 {
                let arrived = Cell::new(0);
                testing::run(size, seed, |call| {
                    let arrived = &arrived;
                    async move {
                        call.pause().await;
                        arrived.set(arrived.get() + 1);
                        barrier(&call).await.unwrap();
                        assert_eq!(arrived.get(), size);
                    }
                });
            }
        }
    }
}
