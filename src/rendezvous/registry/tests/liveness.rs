//! Who is given up when, as single stories.

use super::super::liveness::{DETACHED_FOR, SUSPICION};
use super::*;

#[test]
fn a_loss_is_told_to_all_and_closes_the_epoch() {
    let mut bench = Bench::default();
    let first = bench.join(10, 0, 3).membership.epoch;
    bench.join(11, 1, 3);
    bench.connect(10, 1);
    bench.sent();
    bench.close(11);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
    bench.connect(10, 1);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
    assert_ne!(bench.join(12, 2, 3).membership.epoch, first, "nobody enters it any more");
    bench.connect(10, 2);
    assert_eq!(bench.sent(), [(10, not_yet(2, Missing::NotJoined))], "the newcomer is of another run");
}

#[test]
fn a_suspect_is_lost_as_soon_as_all_its_witnesses_have_denied() {
    let mut bench = Bench::meshed(3);
    bench.close(11);
    let asked = ServerMessage::Suspect { rank: 1 };
    assert_eq!(bench.sent(), [(10, asked.clone()), (12, asked)]);
    bench.link(10, 1, false);
    assert_eq!(bench.sent(), []);
    bench.link(12, 1, false);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
}

#[test]
fn who_has_seen_its_link_break_need_not_be_asked() {
    let mut bench = Bench::meshed(3);
    bench.link(10, 1, false);
    bench.link(12, 1, false);
    assert_eq!(bench.sent(), [], "its connection stands: the network may be cut elsewhere");
    bench.close(11);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
}

#[test]
fn one_live_link_is_enough_until_it_breaks() {
    let mut bench = Bench::meshed(3);
    let now = Instant::now();
    bench.registry.closed(11, End::Closed, now);
    bench.link(10, 1, false);
    bench.link(12, 1, true);
    bench.sent();
    bench.registry.tick(now + 2 * SUSPICION);
    assert_eq!(bench.sent(), []);
    bench.connect(10, 1);
    assert_eq!(bench.sent(), [(10, not_yet(1, Missing::NotReady))], "it is out of sight, no more");
    bench.link(12, 1, false);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (12, unreachable(1, Reason::Lost))]);
}

#[test]
fn a_suspect_for_whom_nobody_speaks_is_lost_in_the_end() {
    let mut bench = Bench::meshed(2);
    let now = Instant::now();
    assert_eq!(bench.registry.next_timer(), None);
    bench.registry.closed(11, End::Closed, now);
    bench.sent();
    let timer = bench.registry.next_timer().unwrap();
    assert_eq!(timer, now + SUSPICION);
    bench.registry.tick(timer - Duration::from_millis(1));
    assert_eq!(bench.sent(), []);
    bench.registry.tick(timer);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
    assert_eq!(bench.registry.next_timer(), None);
}

#[test]
fn silence_of_the_network_stays_unknown_whatever_links_say() {
    let mut bench = Bench::meshed(2);
    let now = Instant::now();
    bench.registry.closed(11, End::Unknown, now);
    bench.link(10, 1, false);
    bench.registry.tick(now + 10 * SUSPICION);
    assert_eq!(bench.sent(), []);
}

#[test]
fn those_that_died_together_do_not_wait_for_each_other_for_ever() {
    let mut bench = Bench::meshed(3);
    let now = Instant::now();
    bench.registry.closed(11, End::Closed, now);
    bench.registry.closed(12, End::Closed, now);
    bench.link(10, 1, false);
    bench.link(10, 2, false);
    bench.sent();
    bench.registry.tick(now + SUSPICION);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost)), (10, unreachable(2, Reason::Lost))]);
}

#[test]
fn ranks_that_lose_the_server_all_at_once_and_come_back_are_not_lost() {
    let mut bench = Bench::default();
    let memberships: Vec<_> =
        (0..3).map(|rank| bench.join(10 + u64::from(rank), rank, 3).membership).collect();
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        bench.connect(10 + u64::from(from), to);
        bench.connect(10 + u64::from(to), from);
    }
    let now = Instant::now();
    (10..13).for_each(|connection| bench.registry.closed(connection, End::Closed, now));
    bench.sent();
    bench.rejoin(20, join_of(0, 3), memberships[0]).unwrap();
    let asked = |rank| (20, ServerMessage::Suspect { rank });
    assert_eq!(bench.sent(), [asked(1), asked(2)], "who comes back is asked");
    bench.link(20, 1, true);
    bench.rejoin(22, join_of(2, 3), memberships[2]).unwrap();
    bench.registry.tick(now + SUSPICION);
    assert_eq!(bench.sent(), []);
    bench.rejoin(21, join_of(1, 3), memberships[1]).unwrap();
}

#[test]
fn a_process_that_ended_is_lost_when_its_connection_is_gone() {
    let mut bench = Bench::default();
    let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 4) };
    for rank in 0..2 {
        bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
    }
    bench.connect(10, 1);
    bench.connect(11, 0);
    bench.connect(10, 3);
    bench.sent();
    bench.registry.process_ended([9; 32], 1);
    bench.registry.process_ended([8; 32], 0);
    assert_eq!(bench.sent(), [], "a wrapper: who holds the connection lives");
    bench.close(11);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Ended))], "nobody is asked");
    bench.registry.process_ended([9; 32], 3);
    assert_eq!(bench.sent(), [(10, unreachable(3, Reason::Ended))], "it has never joined");
    bench.connect(10, 3);
    assert_eq!(bench.sent(), [(10, unreachable(3, Reason::Ended))]);
    bench.join_with(12, of_job(2)).unwrap();
    let ended = |rank| (12, unreachable(rank, Reason::Ended));
    assert_eq!(bench.sent(), [ended(1), ended(3)], "who comes later hears it too");
}

#[test]
fn a_suspect_whose_process_has_ended_is_lost_at_once() {
    let mut bench = Bench::default();
    let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 2) };
    for rank in 0..2 {
        bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
    }
    bench.connect(10, 1);
    bench.connect(11, 0);
    bench.close(11);
    bench.sent();
    bench.registry.process_ended([9; 32], 1);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Ended))]);
}

#[test]
fn a_rank_that_left_has_left_also_when_its_process_ends() {
    let mut bench = Bench::default();
    let of_job = |rank| Join { job_id: Some([9; 32]), ..join_of(rank, 2) };
    for rank in 0..2 {
        bench.join_with(10 + u64::from(rank), of_job(rank)).unwrap();
    }
    bench.registry.leave(11);
    bench.registry.process_ended([9; 32], 1);
    bench.connect(10, 1);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Left))]);
}

#[test]
fn after_a_restart_everybody_is_asked() {
    let mut bench = Bench::default();
    for rank in 0..2 {
        let membership = Membership { epoch: [50; 16], token: [rank as u8; 16] };
        bench.rejoin(10 + u64::from(rank), join_of(rank, 3), membership).unwrap();
    }
    let now = Instant::now();
    bench.registry.closed(11, End::Closed, now);
    assert_eq!(bench.sent(), [(10, ServerMessage::Suspect { rank: 1 })]);
    bench.link(10, 1, false);
    assert_eq!(bench.sent(), [], "rank 2 has not come back, and may have a link");
    bench.registry.tick(now + SUSPICION);
    assert_eq!(bench.sent(), [(10, unreachable(1, Reason::Lost))]);
}

#[test]
fn an_epoch_without_connections_is_forgotten_in_the_end() {
    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    let now = Instant::now();
    bench.registry.closed(10, End::Unknown, now);
    bench.registry.expire(now + DETACHED_FOR / 2);
    assert_eq!(bench.registry.epochs.len(), 1);
    bench.registry.expire(now + DETACHED_FOR);
    assert!(bench.registry.epochs.is_empty() && bench.registry.jobs.is_empty());
}
