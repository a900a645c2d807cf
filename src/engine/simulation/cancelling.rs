//! Requests that are withdrawn at any moment.

use super::for_each_seed;
use super::point_to_point::{some_length, some_limit, some_pace};
use super::random::Random;
use super::world::{Outcome, Pace, Wanted, World};
use crate::error::ErrorKind;

const CONTEXT: u64 = 7;

/// What is cancelled, and how much of it.
struct Habits {
    sends: usize,
    receives: usize,
    /// Whether a rank has several receives posted at a time. Where a withdrawn
    /// message goes back behind one that was matched meanwhile, order is lost.
    overlap: bool,
}

fn run(seed: u64, habits: impl Fn(&mut Random) -> Habits) {
    let mut random = Random::new(seed);
    let habits = habits(&mut random);
    let size = random.between(1, 4) as u32;
    let large = random.chance(25) && !cfg!(miri);
    let limit = some_limit(&mut random);
    let mut left: Vec<_> = (0..random.between(1, if cfg!(miri) { 8 } else { 30 }))
        .map(|_| some_length(&mut random, large))
        .collect();
    let capacity = left.iter().copied().max().unwrap_or(0);
    let bytes = left.iter().map(|length| length + 50).sum();
    let mut world = World::new(seed, size, limit, some_pace(&mut random, bytes));
    let mut cancels = 60;
    let mut idle = 0;
    while idle < 100 {
        idle += 1;
        match random.below(10) {
            0 => {
                if let Some(length) = left.pop() {
                    let (from, to) = (world.some_rank(), world.some_rank());
                    world.send(from, to, CONTEXT, 0, length);
                    idle = 0;
                }
            }
            1 => {
                let rank = world.some_rank();
                let posted = world.pending_receives().filter(|wanted| wanted.rank == rank).count();
                if posted < if habits.overlap { 4 } else { 1 } {
                    let source = random.chance(50).then(|| world.some_rank());
                    let tag = random.chance(50).then_some(0);
                    world.receive(Wanted { rank, source, context: CONTEXT, tag, capacity });
                    idle = 0;
                }
            }
            2 if cancels > 0 && random.chance(habits.sends) => {
                if let Some(message) = world.cancel_some_send() {
                    cancels -= 1;
                    if random.chance(70) {
                        world.send(message.from, message.to, CONTEXT, 0, message.length);
                    }
                    idle = 0;
                }
            }
            3 if cancels > 0 && random.chance(habits.receives) => {
                if world.cancel_some_receive().is_some() {
                    cancels -= 1;
                    idle = 0;
                }
            }
            4 => world.poll_some(),
            5 if random.chance(30) => world.check_invariants(),
            _ => {
                if world.move_some() {
                    idle = 0;
                }
            }
        }
    }
    world.settle();
    world.check_liveness();
    world.drain(&[CONTEXT]);
    let halfway = world.failures.iter().all(|(_, kind)| *kind == ErrorKind::Cancelled && habits.sends > 0);
    assert!(halfway, "{:?}", world.failures);
    world.check_deliveries(!habits.overlap);
    world.check_end();
}

#[test]
fn withdrawn_receives_lose_nothing() {
    for_each_seed(150, |seed| {
        run(seed, |random| Habits {
            sends: 0,
            receives: random.pick(&[10, 40, 100]),
            overlap: random.chance(50),
        });
    });
}

#[test]
fn withdrawn_sends_arrive_whole_or_not_at_all() {
    for_each_seed(150, |seed| {
        run(seed, |random| Habits {
            sends: random.pick(&[10, 40, 100]),
            receives: 0,
            overlap: random.chance(50),
        });
    });
}

#[test]
fn both_sides_may_withdraw() {
    for_each_seed(150, |seed| {
        run(seed, |random| {
            let percents = [10, 40, 100];
            let (sends, receives) = (random.pick(&percents), random.pick(&percents));
            Habits { sends, receives, overlap: random.chance(50) }
        });
    });
}

/// A send of more than the credit, withdrawn as soon as `reached` says so of the
/// bytes that its receiver misses yet; then it is repeated.
fn withdraw_large(seed: u64, limit: u64, receives_first: bool, reached: impl Fn(usize) -> bool) -> World {
    const LENGTH: usize = 4 << 20;
    let pace = Pace { capacity: 200_000, largest_step: 100_000 };
    let mut world = World::new(seed, 2, limit, pace);
    world.open_all_links();
    let wanted = Wanted { rank: 1, source: Some(0), context: CONTEXT, tag: Some(0), capacity: LENGTH };
    if receives_first {
        world.receive(wanted);
    }
    let first = world.send(0, 1, CONTEXT, 0, LENGTH);
    let misses = |world: &mut World| world.engine(1).under_way(0).first().map(|(_, _, missing, _)| *missing);
    while !misses(&mut world).is_some_and(&reached) {
        world.carry(0, 1);
        world.carry(1, 0);
    }
    world.cancel_sends_of(0);
    assert_eq!(world.messages[first].outcome, Outcome::Withdrawn);
    world.send(0, 1, CONTEXT, 0, LENGTH);
    world.settle();
    if !receives_first {
        world.receive(wanted);
        world.settle();
    }
    world
}

/// Once DATA has begun, the receive that has the message learns that it was
/// withdrawn; where nobody has it yet, nobody learns of it.
#[test]
fn a_message_withdrawn_half_way_is_told_to_its_receive() {
    for_each_seed(10, |seed| {
        let mut random = Random::new(seed);
        let receives_first = random.chance(60);
        let limit = if receives_first { some_limit(&mut random) } else { 256 << 20 };
        let still_missing = (3 << 20) - random.between(1, 3 << 19);
        let mut world = withdraw_large(seed, limit, receives_first, |missing| missing <= still_missing);
        let kinds: Vec<_> = world.failures.iter().map(|(_, kind)| *kind).collect();
        let told: &[_] = if receives_first { &[ErrorKind::Cancelled] } else { &[] };
        assert_eq!(kinds, told);
        world.drain(&[CONTEXT]);
        world.check_deliveries(true);
        world.check_end();
    });
}

/// Before that the receive goes back to its place, and takes the message when it
/// is repeated.
#[test]
fn a_message_withdrawn_before_its_data_leaves_the_receive_waiting() {
    for_each_seed(10, |seed| {
        let mut random = Random::new(seed);
        let limit = some_limit(&mut random);
        // With a pipe and a step in hand: the sender has begun no DATA frame either.
        let still_missing = (3 << 20) + random.between(300_000, 1 << 20);
        let world = &mut withdraw_large(seed, limit, true, |missing| missing <= still_missing);
        assert!(world.failures.is_empty(), "{:?}", world.failures);
        assert_eq!((world.pending_receives().count(), world.pending_sends()), (0, 0));
        world.check_deliveries(true);
        world.check_end();
    });
}
