//! Collective calls on several ranks that run to their end, or fail on one of
//! them at any moment.

use std::task::Poll;

use super::buffer::{BLANK, Buffer, is_content};
use super::for_each_seed;
use super::point_to_point::{some_length, some_limit, some_pace};
use super::random::Random;
use super::world::World;
use crate::engine::frame::{AbortNotice, MessageId};
use crate::engine::{Envelope, RecvKey, Selector, SendKey};
use crate::error::{Error, ErrorKind};
use crate::operation::Operation;

const CONTEXT: u64 = 3;
const P2P: u64 = 7;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// A rank gives up in the middle of a call.
    GivesUp(u32),
    /// Two ranks lose each other.
    Parts(u32, u32),
    /// A rank calls something else.
    Differs(u32, u64),
}

/// One rank in its row of calls. In each it sends to its right neighbour and
/// receives from its left one.
struct Caller {
    sequence: u64,
    sending: Option<(SendKey, Buffer)>,
    receiving: Option<(RecvKey, Buffer)>,
    running: bool,
    failure: Option<Error>,
}

struct Calls {
    lengths: Vec<usize>,
    size: u32,
    fault: Fault,
    callers: Vec<Caller>,
}

/// Which content travels in a call, so that no two are alike.
fn number(sequence: u64, from: u32) -> u64 {
    1_000_000 + sequence * 16 + u64::from(from)
}

fn notice(rank: u32, error: &Error) -> AbortNotice {
    AbortNotice {
        context: CONTEXT,
        cause: error.kind(),
        cause_rank: rank,
        about: error.peer(),
        code: 0,
        operation: Operation::Bcast as u8,
    }
}

impl Calls {
    fn envelope(&self, rank: u32, sequence: u64) -> Envelope {
        let other = self.fault == Fault::Differs(rank, sequence);
        let operation = if other { Operation::Reduce } else { Operation::Bcast } as u8;
        let id = MessageId { context: CONTEXT, collective: true, sequence, tag: 0 };
        Envelope { id, operation, algorithm: 0, signature: 0 }
    }

    fn is_over(&self, rank: u32) -> bool {
        let caller = &self.callers[rank as usize];
        !caller.running && (caller.failure.is_some() || caller.sequence == self.lengths.len() as u64)
    }

    /// The rank takes its next step, where it can.
    fn act(&mut self, world: &mut World, rank: u32) {
        if self.is_over(rank) {
            return;
        }
        if !self.callers[rank as usize].running {
            return self.begin(world, rank);
        }
        let (left, right) = ((rank + self.size - 1) % self.size, (rank + 1) % self.size);
        let caller = &mut self.callers[rank as usize];
        let mut failure = None;
        if let Some((key, buffer)) = caller.sending.take() {
            match world.engine(rank).poll_send(key) {
                Poll::Pending => caller.sending = Some((key, buffer)),
                Poll::Ready(Ok(())) => assert!(is_content(number(caller.sequence, rank), buffer.bytes())),
                Poll::Ready(Err(error)) => failure = Some(error.with_peer(right)),
            }
        }
        if let Some((key, buffer)) = caller.receiving.take() {
            match world.engine(rank).poll_recv(key) {
                Poll::Pending => caller.receiving = Some((key, buffer)),
                Poll::Ready(Ok(received)) => {
                    assert_eq!((received.source, received.length), (left, buffer.len()));
                    assert!(is_content(number(caller.sequence, left), buffer.bytes()), "another's step");
                    buffer.check_guards();
                }
                Poll::Ready(Err(error)) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => self.fail(world, rank, error),
            None if caller.sending.is_none() && caller.receiving.is_none() => {
                world.engine(rank).end_collective(CONTEXT, None);
                caller.running = false;
                caller.sequence += 1;
            }
            None => {}
        }
    }

    fn begin(&mut self, world: &mut World, rank: u32) {
        let (left, right) = ((rank + self.size - 1) % self.size, (rank + 1) % self.size);
        let sequence = self.callers[rank as usize].sequence;
        let own = self.envelope(rank, sequence);
        let length = self.lengths[sequence as usize];
        let engine = world.engine(rank);
        let caller = &mut self.callers[rank as usize];
        match engine.begin_collective(CONTEXT) {
            Err(error) => {
                // As a communicator does: the others hear of it from any call.
                engine.poison(CONTEXT, error.clone(), &notice(rank, &error));
                caller.failure = Some(error);
            }
            Ok(begun) => {
                assert_eq!(begun, sequence);
                engine.declare_call(CONTEXT, own.mark());
                let from = Buffer::of_message(number(sequence, rank), length);
                let to = Buffer::filled_with(BLANK, length);
                let receive = engine.post_recv(Some(left), Selector::Collective(own), to.pointer(), length);
                let send = engine.post_send(right, own, from.pointer(), length);
                caller.sending = Some((send, from));
                caller.receiving = Some((receive, to));
                caller.running = true;
            }
        }
    }

    /// The rank gives its call up: what it waits for is withdrawn.
    fn fail(&mut self, world: &mut World, rank: u32, error: Error) {
        let caller = &mut self.callers[rank as usize];
        let engine = world.engine(rank);
        if let Some((key, _)) = caller.sending.take() {
            engine.cancel_send(key);
        }
        if let Some((key, _)) = caller.receiving.take() {
            engine.cancel_recv(key);
        }
        engine.end_collective(CONTEXT, Some((error.clone(), notice(rank, &error))));
        caller.running = false;
        // A call of which nothing has moved is as if it had not been made.
        caller.failure = engine.context_failure(CONTEXT).is_some().then_some(error);
    }

    fn strike(&mut self, world: &mut World) {
        match self.fault {
            Fault::GivesUp(rank) if self.callers[rank as usize].running => {
                self.fail(world, rank, Error::new(ErrorKind::Timeout, "the deadline passed"));
            }
            Fault::Parts(a, b) => {
                world.break_link(a, b);
                world.close_side(a, b);
                world.close_side(b, a);
            }
            _ => {}
        }
    }
}

fn run(seed: u64, fault: impl Fn(&mut Random, u32, usize) -> Fault) {
    let mut random = Random::new(seed);
    let size = random.between(2, 4) as u32;
    let large = random.chance(15) && !cfg!(miri);
    let lengths: Vec<_> = (0..random.between(1, 8)).map(|_| some_length(&mut random, large)).collect();
    let limit = some_limit(&mut random);
    let mut world = World::new(seed, size, limit, some_pace(&mut random, lengths.iter().sum::<usize>() * 4));
    world.open_all_links();
    for rank in 0..size {
        world.engine(rank).open_context(CONTEXT, (0..size).collect());
    }
    let fault = fault(&mut random, size, lengths.len());
    let fresh = || Caller { sequence: 0, sending: None, receiving: None, running: false, failure: None };
    let callers = (0..size).map(|_| fresh()).collect();
    let mut calls = Calls { lengths, size, fault, callers };
    let strikes_at = random.below(400);
    let mut chatter = 15;
    let mut idle = 0;
    let mut step = 0;
    while idle < 200 || step <= strikes_at {
        if step == strikes_at {
            calls.strike(&mut world);
        }
        step += 1;
        idle += 1;
        match random.below(6) {
            0 if chatter > 0 => {
                let (from, to) = (world.some_rank(), world.some_rank());
                world.send(from, to, P2P, 0, random.below(2000));
                chatter -= 1;
            }
            1 => world.poll_some(),
            2 | 3 => {
                let rank = world.some_rank();
                calls.act(&mut world, rank);
            }
            _ => {
                if world.move_some() {
                    idle = 0;
                }
            }
        }
        if random.chance(3) {
            world.check_invariants();
        }
    }
    world.settle();
    // Whoever waits is woken by what has come: nobody needs a deadline.
    for _ in 0..200 {
        (0..size).for_each(|rank| calls.act(&mut world, rank));
        world.settle();
    }
    calls.check(&mut world);
    let parted =
        |x: u32, y: u32| matches!(calls.fault, Fault::Parts(a, b) if (x, y) == (a, b) || (x, y) == (b, a));
    world.drain(&[P2P]);
    world.check_deliveries_but(true, parted);
    world.check_end();
}

impl Calls {
    fn check(&self, world: &mut World) {
        let all = self.lengths.len() as u64;
        for rank in 0..self.size {
            assert!(self.is_over(rank), "rank {rank} waits in call {}", self.callers[rank as usize].sequence);
        }
        let failed: Vec<_> = self.callers.iter().filter_map(|caller| caller.failure.as_ref()).collect();
        let parted = matches!(self.fault, Fault::Parts(..));
        match self.fault {
            Fault::None => assert!(failed.is_empty(), "{failed:?}"),
            Fault::GivesUp(_) | Fault::Parts(..) => {
                let lost = |error: &&Error| error.kind() == ErrorKind::PeerLost;
                let told = |error: &&Error| matches!(error.cause(), ErrorKind::Timeout | ErrorKind::PeerLost);
                assert!(failed.iter().all(|error| told(error) && (!parted || lost(error))), "{failed:?}");
            }
            Fault::Differs(..) => {
                let mismatch = |error: &&Error| error.cause() == ErrorKind::Mismatch;
                assert!(failed.iter().any(mismatch) && failed.iter().all(mismatch), "{failed:?}");
            }
        }
        for (rank, caller) in (0..self.size).zip(&self.callers) {
            let failure = world.engine(rank).context_failure(CONTEXT).cloned();
            if caller.failure.is_none() {
                assert_eq!(caller.sequence, all);
                continue;
            }
            assert!(failure.is_some(), "rank {rank} failed, but its context has not");
            let error = world.engine(rank).begin_collective(CONTEXT).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "the second call after the failure");
        }
    }
}

#[test]
fn calls_run_to_their_end() {
    for_each_seed(60, |seed| run(seed, |_, _, _| Fault::None));
}

#[test]
fn a_rank_that_gives_up_takes_all_along() {
    for_each_seed(80, |seed| run(seed, |random, size, _| Fault::GivesUp(random.below(size as usize) as u32)));
}

#[test]
fn ranks_that_part_fail_at_once() {
    for_each_seed(80, |seed| {
        run(seed, |random, size, _| {
            let a = random.below(size as usize) as u32;
            Fault::Parts(a, (a + random.between(1, size as usize - 1) as u32) % size)
        });
    });
}

#[test]
fn a_rank_that_calls_something_else_is_found_out() {
    for_each_seed(60, |seed| {
        run(seed, |random, size, count| {
            Fault::Differs(random.below(size as usize) as u32, random.below(count) as u64)
        });
    });
}
