//! Allreduce: recursive doubling; for operations that are not associative, a
//! fold at rank 0 and a broadcast.
//!
//! **Recursive doubling.** R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
//! collective communication operations in MPICH", International Journal of High
//! Performance Computing Applications 19 (2005). Where the number of ranks is not
//! a power of two, the first ones fold in pairs of neighbours until it is: so a
//! partial result is always that of neighbours, and the order of ranks is kept.
//! Each pair of partners computes the same combination, lower ranks on the left:
//! all end with the same bits.
//!
//! Cost: log2 p rounds of an exchange of n bytes in both directions and one
//! combination; floor(log2 p) + 2 rounds where p is not a power of two. Valid for
//! any number of ranks, associative operations; for short buffers (a long one
//! costs log2 p / 2 times what its bytes need).
//!
//! 5 ranks; the result is `((x0 x1) x2) (x3 x4)`:
//!
//! ```text
//!          0         1        2         3         4
//! step 0   from 1    to 0
//! step 1   with 2             with 0    with 4    with 3
//! step 2   with 3             with 4    with 0    with 2
//! step 3   to 1      from 0
//! ```
//!
//! **Fold and broadcast.** See `reduce.rs` and `bcast.rs`, whose costs add up.
//! Valid for everything.

use super::bcast::bcast_from_step;
use super::reduce::{FOLD_STEPS, fold};
use super::reduction::{Action, Partial, Side, execute};
use super::{ReduceBuffers, bcast, reduce};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::model::Cost;
use crate::op::{Op, Order};

/// Where a fold for all ranks is made.
const FOLDING_RANK: Rank = 0;

fn doubling_schedule(rank: Rank, size: u32) -> impl Iterator<Item = Action> {
    // The ranks that take part in the doubling have seats 0..2^doublings; the
    // first `pairs` seats are those of the pairs that fold.
    let doublings = size.ilog2();
    let pairs = size - (1 << doublings);
    let last = doublings as Step + 1;
    let (before, seat, after) = if rank >= 2 * pairs {
        (None, Some(rank - pairs), None)
    } else if rank.is_multiple_of(2) {
        let neighbour = rank + 1;
        (
            Some(Action::Merge { from: neighbour, step: 0, side: Side::Right }),
            Some(rank / 2),
            Some(Action::Send { to: neighbour, step: last }),
        )
    } else {
        let neighbour = rank - 1;
        (
            Some(Action::Send { to: neighbour, step: 0 }),
            None,
            Some(Action::Replace { from: neighbour, step: last }),
        )
    };
    let exchanges = seat.into_iter().flat_map(move |seat| {
        (0..doublings).map(move |doubling| {
            let other = seat ^ 1 << doubling;
            let partner = if other < pairs { 2 * other } else { other + pairs };
            let side = if other < seat { Side::Left } else { Side::Right };
            Action::Exchange { to: partner, from: partner, step: doubling as Step + 1, side }
        })
    });
    before.into_iter().chain(exchanges).chain(after)
}

/// Of an allreduce of `bytes` bytes of each of `size` ranks; `strict` if its
/// operation is not associative.
pub(super) fn cost(size: u32, bytes: usize, strict: bool) -> Cost {
    if strict {
        return reduce::cost(size, bytes, true).then(bcast::cost(size, bytes));
    }
    let doublings = size.ilog2();
    let pairs = size - (1 << doublings);
    let rounds = if pairs == 0 { doublings } else { doublings + 2 };
    // Two for each pair, and one of every seat in each doubling.
    let messages = 2 * u64::from(pairs) + (u64::from(doublings) << doublings);
    Cost::rounds(rounds, messages, bytes)
}

/// Every rank gets the combination of all ranks' operands.
pub(super) async fn allreduce<C: PeerToPeer>(
    call: &C,
    buffers: ReduceBuffers<'_>,
    datatype: Datatype,
    op: &Op,
) -> Result<()> {
    if op.order() != Order::Strict {
        let actions = doubling_schedule(call.rank(), call.size());
        return execute(call, actions, Partial::with_result(buffers)?, datatype, op).await;
    }
    let result = buffers.into_result()?;
    fold(call, 0, ReduceBuffers::InPlace(result), datatype, op, FOLDING_RANK).await?;
    bcast_from_step(call, FOLD_STEPS, result, FOLDING_RANK).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{self, Reduction, ranks_in, simulate};
    use super::*;

    #[test]
    fn five_ranks_as_drawn() {
        let results = simulate(5, |rank| doubling_schedule(rank, 5));
        assert!(results.iter().all(|result| result == "(((0 1) 2) (3 4))"), "{results:?}");
        assert_eq!(
            doubling_schedule(3, 5).collect::<Vec<_>>(),
            [
                Action::Exchange { to: 4, from: 4, step: 1, side: Side::Right },
                Action::Exchange { to: 0, from: 0, step: 2, side: Side::Left },
            ]
        );
    }

    /// All ranks end with the same brackets around the same ranks in order.
    fn check_doubling(size: u32) {
        let results = simulate(size, |rank| doubling_schedule(rank, size));
        assert_eq!(ranks_in(&results[0]), (0..size).collect::<Vec<_>>());
        assert!(results.iter().all(|result| *result == results[0]), "{size} ranks");
    }

    #[test]
    fn doubling_gives_all_ranks_the_same_result_in_order() {
        (1..=64).for_each(check_doubling);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]
        #[test]
        fn doubling_gives_all_ranks_of_large_jobs_the_same_result(size in 65u32..1000) {
            check_doubling(size);
        }
    }

    fn run(case: &Reduction, operands: &[Vec<u8>], in_place: bool, seed: u64) -> Vec<Vec<u8>> {
        testing::run(operands.len() as u32, seed, |call| async move {
            let mut operand = operands[call.rank() as usize].clone();
            let mut result = vec![0; operand.len()];
            let buffers = if in_place {
                ReduceBuffers::InPlace(&mut operand)
            } else {
                ReduceBuffers::Separate { send: &operand, recv: &mut result }
            };
            allreduce(&call, buffers, case.datatype, &case.op).await.unwrap();
            if in_place {
                return operand;
            }
            assert_eq!(operand, operands[call.rank() as usize]);
            result
        })
    }

    #[test]
    fn every_rank_gets_what_the_definition_says() {
        for size in testing::sizes() {
            for case in testing::reductions() {
                for count in testing::counts(size) {
                    let operands = case.operands(size, count);
                    let expected = case.prefixes(&operands).pop().unwrap();
                    for (seed, in_place) in [(0, false), (1, false), (2, true), (3, true)] {
                        let results = run(&case, &operands, in_place, seed);
                        assert!(results.iter().all(|result| *result == expected), "{}", case.name);
                    }
                }
            }
        }
    }

    #[test]
    fn the_cost_is_what_a_run_takes() {
        for size in testing::sizes() {
            for (case, bytes) in testing::reductions().iter().flat_map(|case| [(case, 0), (case, 24)]) {
                let traffic = testing::traffic(size, |call| async move {
                    let mut operand = vec![0; bytes];
                    allreduce(&call, ReduceBuffers::InPlace(&mut operand), case.datatype, &case.op).await
                });
                traffic.assert_is(cost(size, bytes, case.is_strict()));
            }
        }
    }

    #[test]
    fn float_sums_have_the_same_bits_on_every_rank_and_in_every_run() {
        let case = testing::float_sum();
        for size in testing::sizes() {
            let operands = case.operands(size, 100);
            let expected = run(&case, &operands, false, 0).swap_remove(0);
            for seed in 0..6 {
                let results = run(&case, &operands, seed % 3 == 0, seed);
                assert!(results.iter().all(|result| *result == expected), "{size} ranks, seed {seed}");
            }
        }
    }
}
