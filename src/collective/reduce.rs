//! Reduce: binomial tree in the order of ranks; for operations that are not
//! associative, a fold at the root.
//!
//! **Tree.** The binomial tree of R. Thakur, R. Rabenseifner, W. Gropp,
//! "Optimization of collective communication operations in MPICH", International
//! Journal of High Performance Computing Applications 19 (2005), but with
//! leaders: ranks form groups of 1, 2, 4, ... neighbours, each led by its lowest
//! rank, or by the root where that is in it. When two groups become one, the
//! leader of the new one gets the other's partial result. So operands stay in
//! the order of ranks for every root without a last hop from rank 0, and the
//! brackets, hence the bits of the result, are the same for every root.
//!
//! Cost: ceil(log2 p) rounds, n bytes and one combination in each. Valid for any
//! number of ranks, any root, associative operations; for short buffers (a long
//! one costs log2 p times what its bytes need).
//!
//! 5 ranks, root 3; the result is `((x0 x1) (x2 x3)) x4`:
//!
//! ```text
//!          0        1      2      3                    4
//! step 0   from 1   to 0   to 3   from 2, on the left
//! step 1   to 3                   from 0, on the left
//! step 2                          from 4               to 3
//! ```
//!
//! **Fold.** Every rank sends its operand to the root, which combines them in
//! the order of ranks: `((x0 x1) x2) ...`. Cost: one latency, (p - 1) n bytes
//! into the root, p - 1 combinations one after the other; a chain through the
//! ranks would move as many bytes one after the other, with p - 1 latencies.
//! Valid for everything.
//!
//! ```text
//!          0      1      2      3                                      4
//! step 0   to 3   to 3   to 3   x0, from 1, from 2; then x3, from 4    to 3
//! ```

use super::reduction::{Action, Partial, Side, execute};
use super::{ReduceBuffers, rounds};
use crate::channel::{PeerToPeer, Rank, Step};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::model::Cost;
use crate::op::{Op, Order};
use crate::scratch::Scratch;

/// The steps of a fold.
pub(super) const FOLD_STEPS: Step = 1;

fn tree_schedule(rank: Rank, size: u32, root: Rank) -> impl Iterator<Item = Action> {
    (0..rounds(size)).filter_map(move |level| {
        // The group of 2^level ranks that begins with `first` is led by:
        let leader = |first: Rank| if root >> level == first >> level { root } else { first };
        let (lower, upper) = {
            let first_of_upper = (rank >> level | 1) << level;
            (first_of_upper ^ 1 << level, first_of_upper)
        };
        if upper >= size {
            return None;
        }
        let (lower, upper) = (leader(lower), leader(upper));
        let (winner, loser, side) =
            if upper == root { (upper, lower, Side::Left) } else { (lower, upper, Side::Right) };
        let step = level as Step;
        if rank == winner {
            Some(Action::Merge { from: loser, step, side })
        } else if rank == loser {
            Some(Action::Send { to: winner, step })
        } else {
            None
        }
    })
}

/// What the root of a fold does with the operands of the ranks below it; what
/// comes of them is to be combined with its own.
fn fold_below(root: Rank, step: Step) -> impl Iterator<Item = Action> {
    (0..root).map(move |from| match from {
        0 => Action::Replace { from, step },
        _ => Action::Merge { from, step, side: Side::Right },
    })
}

/// What it does with those of the ranks above it.
fn fold_above(root: Rank, size: u32, step: Step) -> impl Iterator<Item = Action> {
    (root + 1..size).map(move |from| Action::Merge { from, step, side: Side::Right })
}

/// Of a reduction of `bytes` bytes of each of `size` ranks; `strict` if its
/// operation is not associative.
pub(super) fn cost(size: u32, bytes: usize, strict: bool) -> Cost {
    if strict {
        Cost::exchange(size - 1, 1, bytes)
    } else {
        Cost::rounds(rounds(size), u64::from(size) - 1, bytes)
    }
}

/// The root gets the combination of all ranks' operands.
pub(super) async fn reduce<C: PeerToPeer>(
    call: &C,
    buffers: ReduceBuffers<'_>,
    datatype: Datatype,
    op: &Op,
    root: Rank,
) -> Result<()> {
    if op.order() == Order::Strict {
        return fold(call, 0, buffers, datatype, op, root).await;
    }
    let actions = tree_schedule(call.rank(), call.size(), root);
    if call.rank() == root {
        execute(call, actions, Partial::with_result(buffers)?, datatype, op).await
    } else {
        execute(call, actions, Partial::Operand(buffers.operand()), datatype, op).await
    }
}

/// The fold, with `first` for its step.
pub(super) async fn fold<C: PeerToPeer>(
    call: &C,
    first: Step,
    buffers: ReduceBuffers<'_>,
    datatype: Datatype,
    op: &Op,
    root: Rank,
) -> Result<()> {
    if call.rank() != root {
        return call.send(root, first, buffers.operand()).await;
    }
    let result = buffers.into_result()?;
    if root > 0 {
        let mut below = Scratch::zeroed(result.len())?;
        execute(call, fold_below(root, first), Partial::Result(&mut below), datatype, op).await?;
        op.combine_into_right(datatype, &mut below, result)?;
    }
    execute(call, fold_above(root, call.size(), first), Partial::Result(result), datatype, op).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{self, Reduction, ranks_in, simulate};
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn five_ranks_as_drawn() {
        let actions = |rank| tree_schedule(rank, 5, 3).collect::<Vec<_>>();
        assert_eq!(
            actions(0),
            [Action::Merge { from: 1, step: 0, side: Side::Right }, Action::Send { to: 3, step: 1 }]
        );
        assert_eq!(
            actions(3),
            [
                Action::Merge { from: 2, step: 0, side: Side::Left },
                Action::Merge { from: 0, step: 1, side: Side::Left },
                Action::Merge { from: 4, step: 2, side: Side::Right },
            ]
        );
        assert_eq!(actions(4), [Action::Send { to: 3, step: 2 }]);
        assert_eq!(simulate(5, |rank| tree_schedule(rank, 5, 3))[3], "(((0 1) (2 3)) 4)");
    }

    #[test]
    fn the_tree_keeps_the_order_of_ranks_and_the_brackets_whatever_the_root() {
        for size in 1..=64 {
            let at_zero = simulate(size, |rank| tree_schedule(rank, size, 0)).swap_remove(0);
            assert_eq!(ranks_in(&at_zero), (0..size).collect::<Vec<_>>());
            for root in 1..size {
                let results = simulate(size, |rank| tree_schedule(rank, size, root));
                assert_eq!(results[root as usize], at_zero);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn the_tree_keeps_the_order_of_large_jobs((size, root) in testing::size_and_root(2000)) {
            let results = simulate(size, |rank| tree_schedule(rank, size, root));
            prop_assert_eq!(ranks_in(&results[root as usize]), (0..size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_fold_takes_every_other_rank_once_and_in_order() {
        for size in 1..=64 {
            for root in 0..size {
                let sources: Vec<Rank> = fold_below(root, 0)
                    .chain(fold_above(root, size, 0))
                    .map(|action| match action {
                        Action::Replace { from, .. } => from,
                        Action::Merge { from, side: Side::Right, .. } => from,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(sources, (0..size).filter(|rank| *rank != root).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_root_gets_what_the_definition_says() {
        for size in testing::sizes() {
            for case in testing::reductions() {
                for count in testing::counts(size) {
                    let operands = case.operands(size, count);
                    let expected = case.prefixes(&operands).pop().unwrap();
                    for root in testing::roots(size) {
                        for in_place in [false, true] {
                            let result = run(&case, &operands, root, in_place, u64::from(root / 2));
                            assert_eq!(result, expected, "{} of {count}", case.name);
                        }
                    }
                }
            }
        }
    }

    /// What the root gets.
    fn run(case: &Reduction, operands: &[Vec<u8>], root: Rank, in_place: bool, seed: u64) -> Vec<u8> {
        let mut results = testing::run(operands.len() as u32, seed, |call| async move {
            let mut operand = operands[call.rank() as usize].clone();
            let mut result = vec![0; operand.len()];
            let buffers = match in_place {
                _ if call.rank() != root => ReduceBuffers::Leaf(&operand),
                true => ReduceBuffers::InPlace(&mut operand),
                false => ReduceBuffers::Separate { send: &operand, recv: &mut result },
            };
            reduce(&call, buffers, case.datatype, &case.op, root).await.unwrap();
            if in_place && call.rank() == root {
                return operand;
            }
            assert_eq!(operand, operands[call.rank() as usize]);
            result
        });
        results.swap_remove(root as usize)
    }

    #[test]
    fn the_cost_is_what_a_run_takes() {
        for (size, root) in testing::sizes_and_roots() {
            for (case, bytes) in testing::reductions().iter().flat_map(|case| [(case, 0), (case, 24)]) {
                let traffic = testing::traffic(size, |call| async move {
                    let (send, mut recv) = (vec![0; bytes], vec![0; bytes]);
                    let buffers = if call.rank() == root {
                        ReduceBuffers::Separate { send: &send, recv: &mut recv }
                    } else {
                        ReduceBuffers::Leaf(&send)
                    };
                    reduce(&call, buffers, case.datatype, &case.op, root).await
                });
                traffic.assert_is(cost(size, bytes, case.is_strict()));
            }
        }
    }

    #[test]
    fn float_sums_have_the_same_bits_in_every_run_and_at_every_root() {
        let case = testing::float_sum();
        for size in testing::sizes() {
            let operands = case.operands(size, 100);
            let expected = run(&case, &operands, 0, false, 0);
            for root in 0..size {
                assert_eq!(run(&case, &operands, root, true, u64::from(root) + 1), expected);
            }
        }
    }

    #[test]
    fn a_function_that_fails_ends_the_call() {
        for associative in [false, true] {
            let op = Op::user(|_, _, _, _| Err(5), true, associative, None);
            let kinds = testing::run(2, 0, |call| {
                let op = &op;
                async move {
                    let (send, mut recv) = ([1, 2], [0, 0]);
                    let buffers = if call.rank() == 0 {
                        ReduceBuffers::Separate { send: &send, recv: &mut recv }
                    } else {
                        ReduceBuffers::Leaf(&send)
                    };
                    reduce(&call, buffers, Datatype::Byte, op, 0).await.map_err(|error| error.kind())
                }
            });
            assert_eq!(kinds, [Err(ErrorKind::Callback), Ok(())]);
        }
    }
}
