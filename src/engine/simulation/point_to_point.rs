//! Messages from rank to rank, without failures.

use super::for_each_seed;
use super::random::Random;
use super::world::{Pace, Wanted, World};
use crate::engine::credit::{ANNOUNCED_MAX, WINDOW_BYTES, WINDOW_MESSAGES};
use crate::engine::frame::{HEADER_LEN, MessageId};
use crate::engine::{Envelope, Selector};
use crate::operation::Operation;

const MIB: usize = 1 << 20;

/// Sizes around everything that changes at a size.
pub(super) fn some_length(random: &mut Random, may_be_large: bool) -> usize {
    match random.below(40) {
        0..8 => 0,
        8..14 => 1,
        14..20 => random.between(HEADER_LEN - 1, HEADER_LEN + 1),
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

/// How fast `bytes` move: in small steps where they are few, so that every byte
/// boundary is met, yet in not too many.
pub(super) fn some_pace(random: &mut Random, bytes: usize) -> Pace {
    let least = bytes / 1000 + 1;
    let largest_step = random.pick(&[1, 40, 100, 4000, 1 << 20]).max(least);
    Pace { capacity: random.pick(&[1, 60, 500, 5000, 3 << 20]).max(least), largest_step }
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
        let count = random.between(1, if cfg!(miri) { 12 } else { 60 });
        let contexts = [7, 8];
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
        let bytes = sends.iter().map(|send: &Send| send.length + 50).sum();
        let mut world = World::new(seed, size, limit, some_pace(&mut random, bytes));
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

#[test]
fn many_small_messages_need_no_receive() {
    for_each_seed(5, |seed| {
        let mut random = Random::new(seed);
        let count = if cfg!(miri) { 1030 } else { random.pick(&[1025, 3000]) };
        let length = random.pick(&[0, 1, 40]);
        let limit = random.pick(&[256 << 20, 256 << 20, 100_000, 0]);
        let mut world = World::new(seed, 2, limit, some_pace(&mut random, 2 * count * (length + HEADER_LEN)));
        for _ in 0..count {
            world.send(0, 1, 7, 0, length);
            world.send(1, 0, 7, 0, length);
            world.move_some();
        }
        world.settle();
        if limit > 1 << 20 {
            assert_eq!(world.pending_sends(), 0, "sends wait although all fits the limit");
        }
        for _ in 0..count {
            for rank in [0, 1] {
                world.receive(Wanted {
                    rank,
                    source: Some(1 - rank),
                    context: 7,
                    tag: Some(0),
                    capacity: 40,
                });
            }
            world.move_some();
        }
        world.settle();
        world.check_liveness();
        world.check_deliveries(true);
        world.check_end();
    });
}

#[test]
fn large_mutual_sends_and_rings_need_no_receive() {
    for_each_seed(2, |seed| {
        let mut random = Random::new(seed);
        let length = if cfg!(miri) { 3 << 20 } else { 64 << 20 };
        let size = random.between(2, 3) as u32;
        let pace = Pace { capacity: 8 << 20, largest_step: 4 << 20 };
        let mut world = World::new(seed, size, 256 << 20, pace);
        for rank in 0..size {
            world.send(rank, (rank + 1) % size, 7, 0, length);
        }
        world.settle();
        assert_eq!(world.pending_sends(), 0);
        for rank in 0..size {
            let wanted = Wanted { rank, source: None, context: 7, tag: None, capacity: length };
            world.receive(wanted);
        }
        world.settle();
        world.check_liveness();
        world.check_deliveries(true);
        world.check_end();
    });
}

#[test]
fn what_nobody_asked_for_stays_within_the_limit() {
    for_each_seed(20, |seed| {
        let mut random = Random::new(seed);
        let size = random.between(2, 5) as u32;
        let limit = random.pick(&[0, 64 << 10, 3 << 20]);
        let lengths = [1000, 70_000, MIB / 2, MIB, MIB + 1, 5 * MIB / 2];
        let sends: Vec<_> = (0..random.between(1, 12)).map(|_| random.pick(&lengths)).collect();
        let pace = some_pace(&mut random, sends.iter().sum());
        let mut world = World::new(seed, size, limit, pace);
        for &length in &sends {
            let from = random.between(1, size as usize - 1) as u32;
            world.send(from, 0, 7, 0, length);
        }
        world.settle();
        for _ in &sends {
            world.receive(Wanted { rank: 0, source: None, context: 7, tag: None, capacity: 3 * MIB });
            world.move_some();
        }
        world.settle();
        world.check_liveness();
        world.check_deliveries(true);
        world.check_end();
    });
}

/// Freed room goes to messages that found none when they came: else two ranks
/// that both wait for their sends would wait for ever, with room enough.
#[test]
fn freed_room_is_given_to_those_that_wait() {
    let pace = Pace { capacity: 1 << 20, largest_step: 1 << 20 };
    let mut world = World::new(1, 3, 5 << 20, pace);
    world.send(1, 0, 7, 0, 4 * MIB);
    world.settle();
    world.send(2, 0, 7, 0, 4 * MIB);
    world.settle();
    assert_eq!(world.pending_sends(), 1);
    world.receive(Wanted { rank: 0, source: Some(1), context: 7, tag: None, capacity: 4 * MIB });
    world.settle();
    assert_eq!(world.pending_sends(), 0);
    world.receive(Wanted { rank: 0, source: Some(2), context: 7, tag: None, capacity: 4 * MIB });
    world.settle();
    world.check_deliveries(true);
    world.check_end();
}

/// What may not even be announced waits with its sender, in order, and does not hold
/// up a collective.
#[test]
fn a_flood_beyond_the_bound_waits_in_order() {
    for_each_seed(10, |seed| {
        let mut random = Random::new(seed);
        let count = WINDOW_MESSAGES as usize + random.between(0, 3 * ANNOUNCED_MAX as usize);
        let mut world = World::new(seed, 2, 0, some_pace(&mut random, 2 * count * HEADER_LEN));
        for _ in 0..count {
            world.send(0, 1, 7, 0, random.below(3));
        }
        world.settle();
        let beyond = count - WINDOW_MESSAGES as usize;
        let announced = beyond.min(ANNOUNCED_MAX as usize);
        assert_eq!(world.engine(0).announced_to(1), ([announced as u32, 0], beyond - announced));
        // Another context's step passes.
        let id = MessageId { context: 9, collective: true, sequence: 0, tag: 0 };
        let step = Envelope { id, operation: Operation::Barrier as u8, algorithm: 0, signature: 0 };
        let sending = world.engine(0).post_send(1, step, std::ptr::null(), 0);
        let receiving =
            world.engine(1).post_recv(Some(0), Selector::Collective(step), std::ptr::null_mut(), 0);
        world.settle();
        assert!(
            world.engine(0).poll_send(sending).is_ready() && world.engine(1).poll_recv(receiving).is_ready()
        );
        for _ in 0..count {
            world.receive(Wanted { rank: 1, source: Some(0), context: 7, tag: Some(0), capacity: 2 });
            world.move_some();
        }
        world.settle();
        world.check_liveness();
        world.check_deliveries(true);
        world.check_end();
        assert_eq!(world.engine(0).announced_to(1), ([0, 0], 0));
    });
}
