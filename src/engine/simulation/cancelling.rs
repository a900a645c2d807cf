//! Requests that are withdrawn at any moment.

use super::for_each_seed;
use super::point_to_point::{some_length, some_limit, some_pace};
use super::random::Random;
use super::world::{Wanted, World};
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
