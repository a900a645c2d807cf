//! The collectives' half of a context.

use std::task::Poll;

use super::world::{Pace, Wanted, World};
use crate::engine::frame::{AbortNotice, MessageId};
use crate::engine::{Envelope, RecvKey, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;

const CONTEXT: u64 = 3;
const SIGNATURE: u32 = 77;
const PACE: Pace = Pace { capacity: 4096, largest_step: 300 };

fn envelope(operation: Operation, sequence: u64, step: i32) -> Envelope {
    let id = MessageId { context: CONTEXT, collective: true, sequence, tag: step };
    Envelope { id, operation: operation as u8, algorithm: 0, signature: SIGNATURE }
}

fn world(size: u32) -> World {
    let mut world = World::new(1, size, 256 << 20, PACE);
    world.open_all_links();
    for rank in 0..size {
        world.engine(rank).open_context(CONTEXT, (0..size).collect());
    }
    world
}

/// Posts an empty step to `to`; its request ends with the world's bytes.
fn step_to(world: &mut World, from: u32, to: u32, envelope: Envelope) {
    let key = world.engine(from).post_send(to, envelope, std::ptr::NonNull::dangling().as_ptr(), 0);
    world.settle();
    assert_eq!(world.engine(from).poll_send(key), Poll::Ready(Ok(())));
}

fn expect_step(world: &mut World, rank: u32, from: u32, envelope: Envelope) -> RecvKey {
    let nowhere = std::ptr::NonNull::dangling().as_ptr();
    world.engine(rank).post_recv(Some(from), Selector::Collective(envelope), nowhere, 0)
}

fn outcome(world: &mut World, rank: u32, key: RecvKey) -> Poll<Result<()>> {
    world.engine(rank).poll_recv(key).map_ok(|_| ())
}

#[test]
fn a_flood_does_not_hold_up_a_barrier() {
    let mut world = world(2);
    for _ in 0..2000 {
        world.send(0, 1, 7, 0, 8);
    }
    let both = [(0, 1), (1, 0)];
    let keys = both.map(|(rank, peer)| {
        world.engine(rank).begin_collective(CONTEXT).unwrap();
        step_to(&mut world, rank, peer, envelope(Operation::Barrier, 0, 0));
        expect_step(&mut world, rank, peer, envelope(Operation::Barrier, 0, 0))
    });
    world.settle();
    for ((rank, _), key) in both.into_iter().zip(keys) {
        assert_eq!(outcome(&mut world, rank, key), Poll::Ready(Ok(())));
        world.engine(rank).end_collective(CONTEXT, None);
    }
    for _ in 0..2000 {
        world.receive(Wanted { rank: 1, source: Some(0), context: 7, tag: None, capacity: 8 });
    }
    world.settle();
    world.check_deliveries(true);
}

#[test]
fn a_rank_may_be_many_calls_ahead() {
    let mut world = world(2);
    for sequence in 0..50 {
        assert_eq!(world.engine(0).begin_collective(CONTEXT), Ok(sequence));
        step_to(&mut world, 0, 1, envelope(Operation::Bcast, sequence, 0));
        world.engine(0).end_collective(CONTEXT, None);
    }
    for sequence in 0..50 {
        assert_eq!(world.engine(1).begin_collective(CONTEXT), Ok(sequence));
        let key = expect_step(&mut world, 1, 0, envelope(Operation::Bcast, sequence, 0));
        assert_eq!(outcome(&mut world, 1, key), Poll::Ready(Ok(())));
        world.engine(1).end_collective(CONTEXT, None);
    }
    world.check_invariants();
}

#[test]
fn another_call_of_the_same_number_is_a_mismatch() {
    let right = envelope(Operation::Reduce, 0, 0);
    let wrong = [
        Envelope { operation: Operation::Bcast as u8, ..right },
        Envelope { algorithm: 1, ..right },
        Envelope { signature: 78, ..right },
    ];
    for sent in wrong {
        for posted_first in [true, false] {
            let mut world = world(2);
            world.engine(0).begin_collective(CONTEXT).unwrap();
            world.engine(1).begin_collective(CONTEXT).unwrap();
            let early = posted_first.then(|| expect_step(&mut world, 1, 0, right));
            step_to(&mut world, 0, 1, sent);
            let key = early.unwrap_or_else(|| expect_step(&mut world, 1, 0, right));
            let Poll::Ready(Err(error)) = outcome(&mut world, 1, key) else { panic!("no mismatch") };
            assert_eq!((error.kind(), error.peer()), (ErrorKind::Mismatch, Some(0)));
            world.check_invariants();
        }
    }
}

#[test]
fn what_a_finished_call_leaves_unread_is_a_mismatch() {
    for before_the_end in [true, false] {
        let mut world = world(2);
        world.engine(1).begin_collective(CONTEXT).unwrap();
        if before_the_end {
            step_to(&mut world, 0, 1, envelope(Operation::Bcast, 0, 0));
        }
        world.engine(1).end_collective(CONTEXT, None);
        if !before_the_end {
            step_to(&mut world, 0, 1, envelope(Operation::Bcast, 0, 0));
        }
        let error = world.engine(1).begin_collective(CONTEXT).unwrap_err();
        assert_eq!((error.kind(), error.peer()), (ErrorKind::Mismatch, Some(0)));
        let error = world.engine(1).begin_collective(CONTEXT).unwrap_err();
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Mismatch));
        world.check_invariants();
    }
}

#[test]
fn a_failure_is_told_and_point_to_point_goes_on() {
    let mut world = world(3);
    for rank in 0..3 {
        world.engine(rank).begin_collective(CONTEXT).unwrap();
    }
    let keys =
        [1, 2].map(|rank| (rank, expect_step(&mut world, rank, 0, envelope(Operation::Barrier, 0, 0))));
    step_to(&mut world, 0, 2, envelope(Operation::Barrier, 0, 1));
    let error = Error::new(ErrorKind::Timeout, "the deadline passed").with_peer(1);
    let notice = AbortNotice {
        context: CONTEXT,
        cause: ErrorKind::Timeout,
        cause_rank: 0,
        about: Some(1),
        code: 0,
        operation: Operation::Barrier as u8,
    };
    world.engine(0).end_collective(CONTEXT, Some((error, notice)));
    world.settle();
    for (rank, key) in keys {
        let Poll::Ready(Err(error)) = outcome(&mut world, rank, key) else { panic!("rank {rank} waits on") };
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Aborted, ErrorKind::Timeout));
        assert_eq!((error.cause_rank(), error.peer()), (Some(0), Some(1)));
    }
    let error = world.engine(0).begin_collective(CONTEXT).unwrap_err();
    assert_eq!((error.kind(), error.cause()), (ErrorKind::Poisoned, ErrorKind::Timeout));
    world.send(0, 2, 7, 0, 100);
    world.receive(Wanted { rank: 2, source: Some(0), context: 7, tag: None, capacity: 100 });
    world.settle();
    world.check_deliveries(true);
    world.check_invariants();
}

/// The first frame that comes is of the right call, but of another length.
#[test]
fn another_length_poisons_though_nothing_was_taken() {
    let mut world = world(2);
    world.engine(0).begin_collective(CONTEXT).unwrap();
    world.engine(1).begin_collective(CONTEXT).unwrap();
    let mut buffer = [0u8; 4];
    let wanted = envelope(Operation::Bcast, 0, 0);
    let key = world.engine(1).post_recv(Some(0), Selector::Collective(wanted), buffer.as_mut_ptr(), 4);
    step_to(&mut world, 0, 1, wanted);
    let Poll::Ready(Err(error)) = outcome(&mut world, 1, key) else { panic!("no mismatch") };
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let notice = AbortNotice {
        context: CONTEXT,
        cause: ErrorKind::Mismatch,
        cause_rank: 1,
        about: Some(0),
        code: 0,
        operation: Operation::Bcast as u8,
    };
    world.engine(1).end_collective(CONTEXT, Some((error, notice)));
    world.settle();
    for rank in [0, 1] {
        let failure = world.engine(rank).context_failure(CONTEXT);
        assert_eq!(failure.map(Error::kind), Some(ErrorKind::Mismatch), "rank {rank}");
    }
}

/// A schedule may post a step to its own rank after the context has failed.
#[test]
fn a_step_to_oneself_is_not_kept_for_a_failed_call() {
    let mut world = world(2);
    world.engine(0).begin_collective(CONTEXT).unwrap();
    world.engine(0).link_closed(1, Error::new(ErrorKind::PeerLost, "the connection broke"));
    let nowhere = std::ptr::NonNull::dangling().as_ptr();
    let key = world.engine(0).post_send(0, envelope(Operation::Bcast, 0, 0), nowhere, 0);
    assert!(world.engine(0).poll_send(key).is_ready());
    assert_eq!(world.engine(0).check_invariants().messages, 0);
}

/// A frame of a later call, which this rank merely takes over, is no move of the
/// call that runs.
#[test]
fn making_room_for_a_later_call_is_no_move() {
    let mut world = world(2);
    let data = vec![0; 2 << 20];
    world.engine(0).begin_collective(CONTEXT).unwrap();
    let key = world.engine(1).post_send(0, envelope(Operation::Bcast, 1, 0), data.as_ptr(), data.len());
    world.settle();
    assert_eq!(world.engine(1).poll_send(key), Poll::Ready(Ok(())));
    let notice = AbortNotice {
        context: CONTEXT,
        cause: ErrorKind::Timeout,
        cause_rank: 0,
        about: None,
        code: 0,
        operation: Operation::Bcast as u8,
    };
    let error = Error::new(ErrorKind::Timeout, "the deadline passed");
    world.engine(0).end_collective(CONTEXT, Some((error, notice)));
    assert_eq!(world.engine(0).begin_collective(CONTEXT), Ok(0));
}

/// A rank that has had no link so far is told when one opens.
#[test]
fn a_failure_is_told_to_those_that_come_late() {
    let mut world = World::new(1, 3, 256 << 20, PACE);
    for rank in 0..3 {
        world.engine(rank).open_context(CONTEXT, vec![0, 1, 2]);
        world.engine(rank).begin_collective(CONTEXT).unwrap();
    }
    world.open_link(0, 1);
    step_to(&mut world, 0, 1, envelope(Operation::Barrier, 0, 0));
    let error = Error::new(ErrorKind::Timeout, "the deadline passed").with_peer(1);
    let notice = AbortNotice {
        context: CONTEXT,
        cause: ErrorKind::Timeout,
        cause_rank: 0,
        about: Some(1),
        code: 0,
        operation: Operation::Barrier as u8,
    };
    world.engine(0).end_collective(CONTEXT, Some((error, notice)));
    world.settle();
    assert!(world.engine(2).context_failure(CONTEXT).is_none());
    world.open_link(0, 2);
    world.settle();
    let error = world.engine(2).context_failure(CONTEXT).expect("it is told").clone();
    assert_eq!((error.kind(), error.cause_rank()), (ErrorKind::Aborted, Some(0)));
}

#[test]
fn a_call_of_which_nothing_has_moved_may_be_repeated() {
    let mut world = world(2);
    assert_eq!(world.engine(0).begin_collective(CONTEXT), Ok(0));
    let key = expect_step(&mut world, 0, 1, envelope(Operation::Barrier, 0, 0));
    world.engine(0).cancel_recv(key);
    let error = Error::new(ErrorKind::Connect, "no server");
    let notice = AbortNotice {
        context: CONTEXT,
        cause: ErrorKind::Connect,
        cause_rank: 0,
        about: None,
        code: 0,
        operation: Operation::Barrier as u8,
    };
    world.engine(0).end_collective(CONTEXT, Some((error, notice)));
    assert_eq!(world.engine(0).begin_collective(CONTEXT), Ok(0));
}
