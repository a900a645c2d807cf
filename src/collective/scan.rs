//! Scan (inclusive): recursive doubling; for operations that are not
//! associative, a chain.
//!
//! **Recursive doubling.** W. D. Hillis, G. L. Steele, "Data parallel
//! algorithms", Communications of the ACM 29 (1986). In round k every rank has
//! the combination of up to 2^k ranks that ends with itself, gives it to the rank
//! 2^k above, and puts what it gets from the rank 2^k below on the left.
//!
//! Cost: ceil(log2 p) rounds, n bytes and one combination in each. Valid for any
//! number of ranks, associative operations.
//!
//! 5 ranks; rank 4 gets `x0 ((x1 x2) (x3 x4))`:
//!
//! ```text
//!          0      1              2              3              4
//! step 0   to 1   to 2, from 0   to 3, from 1   to 4, from 2   from 3
//! step 1   to 2   to 3           to 4, from 0   from 1         from 2
//! step 2   to 4                                                from 0
//! ```
//!
//! **Chain.** Every rank waits for the result of the one below it, combines, and
//! passes its own on. Cost: p - 1 rounds, n bytes and one combination in each.
//! Valid for everything.
//!
//! ```text
//!          0      1              2              3              4
//! step 0   to 1   from 0, to 2   from 1, to 3   from 2, to 4   from 3
//! ```

use super::reduction::{Action, Partial, Side, execute};
use super::{ReduceBuffers, rounds};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::model::Cost;
use crate::op::{Op, Order};

fn doubling_schedule(rank: Rank, size: u32) -> impl Iterator<Item = Action> {
    (0..rounds(size)).filter_map(move |round| {
        let distance = 1 << round;
        let step = round as Step;
        let side = Side::Left;
        let above = (distance < size - rank).then(|| rank + distance);
        let below = rank.checked_sub(distance);
        match (above, below) {
            (Some(to), Some(from)) => Some(Action::Exchange { to, from, step, side }),
            (Some(to), None) => Some(Action::Send { to, step }),
            (None, Some(from)) => Some(Action::Merge { from, step, side }),
            (None, None) => None,
        }
    })
}

fn chain_schedule(rank: Rank, size: u32) -> impl Iterator<Item = Action> {
    let below = rank.checked_sub(1).map(|from| Action::Merge { from, step: 0, side: Side::Left });
    let above = (rank + 1 < size).then(|| Action::Send { to: rank + 1, step: 0 });
    below.into_iter().chain(above)
}

/// Of a scan over `bytes` bytes of each of `size` ranks; `strict` if its
/// operation is not associative.
pub(super) fn cost(size: u32, bytes: usize, strict: bool) -> Cost {
    if strict {
        return Cost::rounds(size - 1, u64::from(size) - 1, bytes);
    }
    let rounds = rounds(size);
    // In round k the lowest 2^k ranks get none.
    let messages = u64::from(rounds) * u64::from(size) - ((1 << rounds) - 1);
    Cost::rounds(rounds, messages, bytes)
}

/// Every rank gets the combination of the operands of ranks 0 to itself.
pub(super) async fn scan<C: PeerToPeer>(
    call: &C,
    buffers: ReduceBuffers<'_>,
    datatype: Datatype,
    op: &Op,
) -> Result<()> {
    let (rank, size) = (call.rank(), call.size());
    let partial = Partial::with_result(buffers)?;
    match op.order() {
        Order::Any | Order::Ranked => {
            execute(call, doubling_schedule(rank, size), partial, datatype, op).await
        }
        Order::Strict => execute(call, chain_schedule(rank, size), partial, datatype, op).await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{self, Reduction, ranks_in, simulate};
    use super::*;

    #[test]
    fn five_ranks_as_drawn() {
        assert_eq!(
            simulate(5, |rank| doubling_schedule(rank, 5)),
            ["0", "(0 1)", "(0 (1 2))", "((0 1) (2 3))", "(0 ((1 2) (3 4)))"]
        );
        assert_eq!(
            simulate(5, |rank| chain_schedule(rank, 5)),
            ["0", "(0 1)", "((0 1) 2)", "(((0 1) 2) 3)", "((((0 1) 2) 3) 4)"]
        );
    }

    fn check_doubling(size: u32) {
        for (rank, result) in (0..).zip(simulate(size, |rank| doubling_schedule(rank, size))) {
            assert_eq!(ranks_in(&result), (0..=rank).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_rank_ends_with_all_ranks_up_to_itself_in_order() {
        (1..=64).for_each(check_doubling);
    }

    #[test]
    fn the_chain_folds_strictly_from_the_left() {
        for size in 1..=64 {
            let mut expected = String::from("0");
            for (rank, result) in simulate(size, |rank| chain_schedule(rank, size)).iter().enumerate() {
                if rank > 0 {
                    expected = format!("({expected} {rank})");
                }
                assert_eq!(*result, expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]
        #[test]
        fn every_rank_of_large_jobs_ends_with_all_up_to_itself(size in 65u32..600) {
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
            scan(&call, buffers, case.datatype, &case.op).await.unwrap();
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
                    let expected = case.prefixes(&operands);
                    for (seed, in_place) in [(0, false), (1, false), (2, true), (3, true)] {
                        assert_eq!(run(&case, &operands, in_place, seed), expected, "{}", case.name);
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
                    scan(&call, ReduceBuffers::InPlace(&mut operand), case.datatype, &case.op).await
                });
                traffic.assert_is(cost(size, bytes, case.is_strict()));
            }
        }
    }

    #[test]
    fn float_sums_have_the_same_bits_in_every_run() {
        let case = testing::float_sum();
        for size in testing::sizes() {
            let operands = case.operands(size, 100);
            let expected = run(&case, &operands, false, 0);
            for seed in 1..6 {
                assert_eq!(run(&case, &operands, true, seed), expected);
            }
        }
    }
}
