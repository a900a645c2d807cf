//! What the registry remembers is bounded, and given back.

use super::super::dead::MAX_DEAD;
use super::super::joining::MAX_OPEN;
use super::super::liveness::DETACHED_FOR;
use super::*;

#[test]
fn nothing_is_kept_of_members_that_are_gone() {
    let mut bench = Bench::default();
    bench.join(10, 0, 4);
    bench.join(11, 1, 4);
    for to in 1..4 {
        bench.connect(10, to);
    }
    bench.registry.leave(10);
    bench.sent();
    assert!(bench.registry.epochs.values().all(|epoch| epoch.wanted_by.is_empty()));
    bench.close(11);
    assert!(bench.registry.epochs.is_empty() && bench.registry.members.is_empty());
    assert_eq!(bench.registry.allowances.in_all(), 0);
}

#[test]
fn a_source_cannot_make_it_remember_more_than_its_allowance() {
    let mut bench = Bench::default();
    bench.registry.allowances = Allowances::new(3 * ENTRY + 3 * WISH, usize::MAX);
    bench.join(10, 0, 9);
    bench.join(11, 1, 9);
    bench.join(12, 2, 9);
    let refused = bench.join_with(13, join_of(3, 9)).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Full);
    for (connection, to) in [(10, 3), (11, 3), (11, 4)] {
        bench.connect(connection, to);
        bench.connect(connection, to);
    }
    assert_eq!(bench.registry.connect(12, 3).unwrap_err().refusal, Refusal::Full);

    let proven = Join { job: [2; 32], ..join_of(3, 9) };
    let (public, fresh) = (public_of(13), bench.fresh());
    bench.registry.join(13, proven, None, true, public, fresh).unwrap();
    bench.connect(13, 1);
    let fresh = bench.fresh();
    let elsewhere = "2.2.2.2:2".parse().unwrap();
    bench.registry.join(14, join_of(3, 9), None, false, elsewhere, fresh).unwrap();
}

#[test]
fn witnesses_take_from_the_allowance_and_without_it_nobody_is_asked() {
    // Rank 2 is from elsewhere, and has less than a witness left.
    let greedy = ENTRY + 60 * WISH;
    let mut bench = Bench::default();
    bench.registry.allowances = Allowances::new(greedy + WITNESS - 1, usize::MAX);
    bench.join(10, 0, 64);
    bench.join(11, 1, 64);
    let (elsewhere, fresh) = ("2.2.2.2:2".parse().unwrap(), bench.fresh());
    bench.registry.join(12, join_of(2, 64), None, false, elsewhere, fresh).unwrap();
    (3..63).for_each(|to| bench.connect(12, to));
    for to in 1..3 {
        bench.connect(10, to);
        bench.registry.ready(10 + u64::from(to), 0).unwrap();
    }
    let taken = |bench: &Bench| bench.registry.allowances.in_all();
    assert_eq!(taken(&bench), 2 * ENTRY + 2 * WITNESS + greedy);
    bench.sent();
    bench.close(12);
    assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Lost)), (11, unreachable(2, Reason::Lost))]);
    bench.registry.link(11, 0, false).unwrap();
    bench.registry.link(11, 0, false).unwrap();
    assert_eq!(taken(&bench), 3 * ENTRY);
}

/// A rank whose public address has changed still has its links.
#[test]
fn who_comes_back_from_elsewhere_keeps_its_witnesses() {
    let mut bench = Bench::default();
    let membership = bench.join(10, 0, 2).membership;
    bench.join(11, 1, 2);
    bench.connect(10, 1);
    bench.registry.ready(11, 0).unwrap();
    let taken = bench.registry.allowances.in_all();
    bench.registry.closed(10, End::Unknown, Instant::now());
    let (elsewhere, fresh) = ("2.2.2.2:2".parse().unwrap(), bench.fresh());
    bench.registry.join(12, join_of(0, 2), Some(membership), false, elsewhere, fresh).unwrap();
    assert_eq!(bench.registry.allowances.in_all(), taken);
    bench.sent();
    bench.close(12);
    assert_eq!(bench.sent(), [(11, ServerMessage::Suspect { rank: 0 })]);
}

/// Whatever it was that it did: a source that is gone has taken nothing.
#[test]
fn what_was_taken_is_given_back() {
    let mut bench = Bench::default();
    let now = Instant::now();
    let membership = bench.join(10, 0, 4).membership;
    bench.join(11, 1, 4);
    bench.join(12, 2, 4);
    for (connection, to) in [(10, 1), (10, 2), (10, 3), (11, 3), (12, 1), (12, 3)] {
        bench.connect(connection, to);
    }
    bench.registry.ready(11, 0).unwrap();
    assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 5 * WISH + 2 * WITNESS);
    bench.rejoin(13, join_of(0, 4), membership).unwrap();
    assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 3 * WISH + 2 * WITNESS);
    bench.join_with(14, Join { fingerprint: 6, ..join_of(3, 4) }).unwrap_err();
    bench.registry.closed(11, End::Unknown, now);
    assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY + 2 * WISH + 2 * WITNESS);
    bench.registry.leave(12);
    bench.close(13);
    bench.registry.tick(now + DETACHED_FOR);
    assert_eq!(bench.registry.allowances.in_all(), 3 * ENTRY, "as long as the run has a member");
    bench.registry.expire(now + DETACHED_FOR);
    assert_eq!(bench.registry.allowances.in_all(), 0);
}

#[test]
fn the_runs_of_a_job_and_what_is_known_of_dead_ones_are_bounded() {
    let mut bench = Bench::default();
    let fresh = bench.fresh();
    let public = public_of(0);
    let proven = bench.registry.join(0, join_of(0, 2), None, true, public, fresh).unwrap().membership;
    bench.close(0);
    let join = |bench: &mut Bench, number: usize| {
        let mut epoch = [0; 16];
        epoch[..8].copy_from_slice(&number.to_le_bytes());
        let fresh = Membership { epoch, token: [0; 16] };
        let connection = number as ConnectionId;
        bench.registry.join(connection, join_of(0, 2), None, false, public_of(0), fresh)
    };
    for number in 0..MAX_OPEN {
        join(&mut bench, number).unwrap();
    }
    assert_eq!(join(&mut bench, MAX_OPEN).unwrap_err().refusal, Refusal::Full);
    (0..MAX_OPEN).for_each(|number| bench.registry.leave(number as ConnectionId));
    for number in MAX_OPEN..MAX_OPEN + 2 * MAX_DEAD {
        join(&mut bench, number).unwrap();
        bench.registry.leave(number as ConnectionId);
    }
    let registry = &bench.registry;
    assert!(registry.epochs.is_empty() && registry.jobs.is_empty() && registry.members.is_empty());
    assert_eq!((registry.dead.order.len(), registry.dead.known.len()), (MAX_DEAD, MAX_DEAD));
    assert_eq!(registry.allowances.in_all(), 0);
    let fresh = bench.fresh();
    let refused = bench.registry.join(0, join_of(0, 2), Some(proven), true, public, fresh).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Gone, "strangers have not made it forget");
}
