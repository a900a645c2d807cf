//! Links that break at any moment.

use super::for_each_seed;
use super::point_to_point::{some_length, some_limit, some_pace};
use super::random::Random;
use super::world::{Outcome, Pace, Wanted, World};
use crate::error::ErrorKind;

const CONTEXT: u64 = 7;
const COLLECTIVE_CONTEXT: u64 = 8;
const PACE: Pace = Pace { capacity: 4 << 20, largest_step: 2 << 20 };

/// Two ranks lose each other, each at a time of its own. Their requests with
/// each other end, whole messages that had come can be received, and what the
/// others do is not disturbed.
#[test]
fn a_lost_peer_ends_its_requests_and_no_others() {
    for_each_seed(200, |seed| {
        let mut random = Random::new(seed);
        let size = random.between(2, 4) as u32;
        let large = random.chance(20) && !cfg!(miri);
        let limit = some_limit(&mut random);
        let lengths: Vec<_> = (0..random.between(1, 25)).map(|_| some_length(&mut random, large)).collect();
        let capacity = lengths.iter().copied().max().unwrap_or(0);
        let mut world = World::new(seed, size, limit, some_pace(&mut random, lengths.iter().sum()));
        for rank in 0..size {
            world.engine(rank).open_context(COLLECTIVE_CONTEXT, (0..size).collect());
        }
        world.open_all_links();
        let (a, b) = (0, size - 1);
        let breaks_at = random.below(400);
        let notices_at = breaks_at + random.below(100);
        let mut left = lengths;
        for step in 0..600 {
            if step == breaks_at {
                world.break_link(a, b);
                world.close_side(a, b);
            }
            if step == notices_at {
                world.close_side(b, a);
            }
            match random.below(8) {
                0 => {
                    let Some(length) = left.pop() else { continue };
                    let (from, to) = (world.some_rank(), world.some_rank());
                    world.send(from, to, CONTEXT, 0, length);
                }
                1 if world.pending_receives().count() < 12 => {
                    let (rank, source) = (world.some_rank(), world.some_rank());
                    let wanted =
                        Wanted { rank, source: Some(source), context: CONTEXT, tag: Some(0), capacity };
                    world.receive(wanted);
                }
                2 => world.poll_some(),
                _ => {
                    world.move_some();
                }
            }
        }
        world.settle();
        let pair = |x: u32, y: u32| x.min(y) == a && x.max(y) == b && x != y;
        for wanted in world.pending_receives() {
            assert!(!pair(wanted.rank, wanted.source.unwrap()), "{wanted:?} waits for a rank that is lost");
        }
        for message in &world.messages {
            let waits = message.outcome == Outcome::Pending && pair(message.from, message.to);
            assert!(!waits, "{message:?} waits for a rank that is lost");
        }
        assert!(world.failures.iter().all(|(_, kind)| *kind == ErrorKind::PeerLost), "{:?}", world.failures);
        world.check_liveness();
        for rank in 0..size {
            let engine = world.engine(rank);
            let begun = engine.begin_collective(COLLECTIVE_CONTEXT);
            if rank == a || rank == b {
                let error = begun.unwrap_err();
                assert_eq!((error.kind(), error.peer()), (ErrorKind::PeerLost, Some(a + b - rank)));
                let again = engine.begin_collective(COLLECTIVE_CONTEXT).unwrap_err();
                assert_eq!((again.kind(), again.cause()), (ErrorKind::Poisoned, ErrorKind::PeerLost));
            } else {
                assert_eq!(begun, Ok(0));
            }
        }
        world.drain(&[CONTEXT]);
        world.check_deliveries_but(true, pair);
        world.check_invariants();
    });
}

/// A rank that leaves in order: what it sent is received, what is sent to it
/// fails, and it hears that all of its messages have been read.
#[test]
fn a_departure_loses_nothing() {
    for_each_seed(60, |seed| {
        let mut random = Random::new(seed);
        let count = random.between(0, 20);
        let lengths: Vec<_> = (0..count).map(|_| some_length(&mut random, false)).collect();
        let capacity = lengths.iter().copied().max().unwrap_or(0);
        let mut world = World::new(seed, 2, 256 << 20, some_pace(&mut random, lengths.iter().sum()));
        world.open_all_links();
        for &length in &lengths {
            world.send(0, 1, CONTEXT, 0, length);
            world.move_some();
        }
        while world.pending_sends() > 0 {
            world.move_some();
            world.poll_all();
        }
        world.engine(0).say_goodbye(1);
        world.settle();
        assert_eq!(world.engine(0).unread_at(1), 0, "the leaver does not hear that all was read");
        let late = world.send(1, 0, CONTEXT, 0, 5);
        for _ in 0..=count {
            let wanted = Wanted { rank: 1, source: Some(0), context: CONTEXT, tag: None, capacity };
            world.receive(wanted);
        }
        world.settle();
        assert_eq!(world.messages[late].outcome, Outcome::Failed(ErrorKind::PeerLeft));
        assert_eq!(world.failures.len(), 1, "one receive too many was posted");
        assert_eq!(world.failures[0].1, ErrorKind::PeerLeft);
        world.check_deliveries(true);
    });
}

/// What lies at a peer on credit counts as unread until somebody asks for it,
/// also when that is after the GOODBYE.
#[test]
fn a_leaver_hears_when_its_last_message_is_matched() {
    for_each_seed(20, |seed| {
        let mut random = Random::new(seed);
        let count = random.between(1, 20);
        let mut world = World::new(seed, 2, 0, some_pace(&mut random, count * 1000));
        world.open_all_links();
        for _ in 0..count {
            world.send(0, 1, CONTEXT, 0, random.between(0, 1000));
        }
        world.settle();
        assert_eq!(world.pending_sends(), 0);
        world.engine(0).say_goodbye(1);
        world.settle();
        assert_ne!(world.engine(0).unread_at(1), 0);
        for _ in 0..count {
            let wanted = Wanted { rank: 1, source: Some(0), context: CONTEXT, tag: None, capacity: 1000 };
            world.receive(wanted);
        }
        world.settle();
        assert_eq!(world.engine(0).unread_at(1), 0, "the leaver does not hear that all was read");
        world.check_deliveries(true);
        world.close_side(0, 1);
        world.close_side(1, 0);
        world.check_end();
    });
}

/// A receive from anyone ends when nobody is left who could send: at once, but not
/// before the messages of those that are gone have been received.
#[test]
fn a_receive_from_anyone_ends_with_the_last_of_them() {
    let mut world = World::new(1, 3, 256 << 20, PACE);
    world.open_all_links();
    let anyone = Wanted { rank: 0, source: None, context: CONTEXT, tag: None, capacity: 10 };
    world.receive(anyone);
    world.close_side(0, 1);
    world.settle();
    assert_eq!(world.pending_receives().count(), 1);
    world.receive(Wanted { tag: Some(5), ..anyone });
    world.send(2, 0, CONTEXT, 0, 10);
    world.send(2, 0, CONTEXT, 0, 10);
    world.settle();
    world.engine(2).say_goodbye(0);
    world.settle();
    assert_eq!((world.delivered(), world.failures.len()), (1, 1), "one waited for nobody");
    world.receive(anyone);
    world.receive(anyone);
    world.settle();
    assert_eq!((world.delivered(), world.pending_receives().count()), (2, 0));
    assert_eq!(world.failures.len(), 2);
    assert!(world.failures.iter().all(|(_, kind)| *kind == ErrorKind::PeerLost));
}

/// Ranks that leave at the same time hear of each other's departure, whatever
/// was queued and half written when it came.
#[test]
fn two_may_leave_at_once() {
    for_each_seed(60, |seed| {
        let mut random = Random::new(seed);
        let mut world = World::new(seed, 2, 256 << 20, some_pace(&mut random, 20_000));
        world.open_all_links();
        let mut leaving = [random.below(60), random.below(60)];
        for step in 0..60 {
            let rank = world.some_rank();
            if step < leaving[rank as usize] {
                world.send(rank, 1 - rank, CONTEXT, 0, random.between(0, 2000));
            }
            for rank in [0, 1] {
                if step == leaving[rank as usize] {
                    // A caller leaves when its sends are over.
                    world.cancel_sends_of(rank);
                    world.engine(rank).say_goodbye(1 - rank);
                    leaving[rank as usize] = 0;
                }
            }
            for _ in 0..random.below(6) {
                world.move_some();
            }
        }
        world.settle();
        for rank in [0, 1] {
            assert!(world.engine(rank).is_gone(1 - rank), "rank {rank} did not hear that the other left");
            world.close_side(rank, 1 - rank);
        }
        world.drain(&[CONTEXT]);
        world.check_end();
    });
}

/// A frame that was made, but not begun, takes no returned credit with it when
/// its request is withdrawn.
#[test]
fn a_withdrawn_frame_does_not_swallow_credit() {
    let mut world = World::new(1, 2, 256 << 20, PACE);
    world.open_all_links();
    world.send(1, 0, CONTEXT, 0, 10);
    world.send(0, 1, CONTEXT, 0, 700_000);
    while world.pending_sends() > 1 {
        // Rank 1 reads, but its link takes nothing.
        world.carry(0, 1);
        world.poll_all();
    }
    assert!(world.engine(1).output(0).is_some());
    world.cancel_sends_of(1);
    world.settle();
    world.drain(&[CONTEXT]);
    world.check_end();
}
