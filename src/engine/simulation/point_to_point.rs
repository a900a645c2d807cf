//! Messages from rank to rank, without failures.

use super::for_each_seed;
use super::random::Random;
use super::world::{Pace, Wanted, World};
use crate::engine::WINDOW_BYTES;

const MIB: usize = 1 << 20;

/// Sizes around everything that changes at a size.
pub(super) fn some_length(random: &mut Random, may_be_large: bool) -> usize {
    match random.below(40) {
        0..8 => 0,
        8..14 => 1,
        14..20 => random.between(47, 49),
        20..26 => 100,
        26 if may_be_large => WINDOW_BYTES as usize - 1 + random.below(3),
        27 if may_be_large && random.chance(30) => random.between(MIB, 4 * MIB),
        28..30 if !cfg!(miri) => random.between(1, 70_000),
        _ => random.between(0, 3000),
    }
}

pub(super) fn some_limit(random: &mut Random) -> u64 {
    random.pick(&[0, 0, 1000, 64 << 10, 1 << 20, 256 << 20])
}

/// Small steps where little moves, so that every byte boundary is met.
pub(super) fn some_pace(random: &mut Random, large: bool) -> Pace {
    if large {
        let capacity = random.pick(&[20_000, 200_000, 3 << 20]);
        return Pace { capacity, largest_step: random.pick(&[10_000, 100_000, 2 << 20]) };
    }
    Pace { capacity: random.pick(&[1, 60, 500, 5000, 1 << 20]), largest_step: random.pick(&[1, 40, 100, 4000, 1 << 20]) }
}

struct Send {
    from: u32,
    to: u32,
    context: u64,
    tag: i32,
    length: usize,
}

#[test]
fn random_traffic_arrives_whole_and_in_order() {
    for_each_seed(300, |seed| {
        let mut random = Random::new(seed);
        let size = random.between(1, 5) as u32;
        let large = random.chance(20) && !cfg!(miri);
        let limit = some_limit(&mut random);
        let pace = some_pace(&mut random, large);
        let count = random.between(1, if cfg!(miri) { 12 } else { 60 });
        let contexts = [7, 8];
        let mut world = World::new(seed, size, limit, pace);
        let mut sends = Vec::new();
        let mut receives = Vec::new();
        for _ in 0..count {
            let (from, to) = (random.below(size as usize) as u32, random.below(size as usize) as u32);
            let (context, tag) = (random.pick(&contexts), random.below(3) as i32);
            let length = some_length(&mut random, large);
            sends.push(Send { from, to, context, tag, length });
            let short = length > 0 && random.chance(5);
            let source = (short || random.chance(60)).then_some(from);
            let wanted_tag = (short || random.chance(60)).then_some(tag);
            let capacity = if short { random.below(length) } else { 4 * MIB * usize::from(large) + 70_000 };
            receives.push(Wanted { rank: to, source, context, tag: wanted_tag, capacity });
        }
        // The receives come in another order than the sends.
        for at in 0..receives.len() {
            let other = random.below(receives.len());
            receives.swap(at, other);
        }
        let receives_late = random.chance(30);
        let mut sends = sends.into_iter().peekable();
        while sends.peek().is_some() || !receives.is_empty() {
            match random.below(12) {
                0 => {
                    if let Some(Send { from, to, context, tag, length }) = sends.next() {
                        world.send(from, to, context, tag, length);
                    }
                }
                1 if !receives_late || sends.peek().is_none() => {
                    if let Some(wanted) = receives.pop() {
                        world.receive(wanted);
                    }
                }
                2 => world.poll_some(),
                3 if random.chance(20) => world.check_invariants(),
                _ => {
                    world.move_some();
                }
            }
        }
        world.settle();
        world.check_liveness();
        world.drain(&contexts);
        world.check_deliveries(true);
        world.check_end();
    });
}
