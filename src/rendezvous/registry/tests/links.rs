//! Who is told what when ranks want links, and when collectives have failed.

use super::*;
use crate::rendezvous::protocol::{MAX_SIZE, RANK_ANY};

#[test]
fn a_wish_and_its_answer_start_both() {
    let mut bench = Bench::default();
    bench.join(10, 0, 3);
    bench.join(11, 1, 3);
    bench.sent();
    bench.connect(10, 1);
    bench.connect(10, 1);
    assert_eq!(
        bench.sent(),
        [(11, ServerMessage::Offer { rank: 0 }), (10, not_yet(1, Missing::NotReady))],
        "asking twice is asking once"
    );
    bench.registry.ready(11, 0).unwrap();
    assert_eq!(bench.sent(), [(10, go(1, 11)), (11, go(0, 10))]);
    bench.registry.ready(11, 0).unwrap();
    assert_eq!(bench.sent(), [], "the offer stands no more");
    bench.connect(10, 1);
    assert_eq!(bench.sent().len(), 2, "a new attempt is a new offer");
}

#[test]
fn two_wishes_that_cross_start_both() {
    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    bench.join(11, 1, 2);
    bench.connect(10, 1);
    bench.sent();
    bench.connect(11, 0);
    assert_eq!(bench.sent(), [(10, go(1, 11)), (11, go(0, 10))]);
}

#[test]
fn a_wish_waits_for_who_has_not_joined() {
    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    bench.connect(10, 1);
    assert_eq!(bench.sent(), [(10, not_yet(1, Missing::NotJoined))]);
    bench.join(11, 1, 2);
    assert_eq!(bench.sent(), [(11, ServerMessage::Offer { rank: 0 }), (10, not_yet(1, Missing::NotReady))]);
}

#[test]
fn who_left_is_told_to_those_who_want_it() {
    let mut bench = Bench::default();
    for rank in 0..3 {
        bench.join(10 + u64::from(rank), rank, 3);
    }
    bench.connect(10, 2);
    bench.sent();
    bench.registry.leave(12);
    assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Left))]);
    bench.connect(11, 2);
    assert_eq!(bench.sent(), [(11, unreachable(2, Reason::Left))]);
    bench.close(12);
    assert_eq!(bench.sent(), [], "the end of its connection is no loss");
}

/// Their link may not stand yet, and then never will.
#[test]
fn who_left_is_told_to_those_who_were_to_connect() {
    let mut bench = Bench::default();
    for rank in 0..3 {
        bench.join(10 + u64::from(rank), rank, 3);
    }
    bench.connect(10, 2);
    bench.registry.ready(12, 0).unwrap();
    bench.sent();
    bench.registry.leave(12);
    assert_eq!(bench.sent(), [(10, unreachable(2, Reason::Left))]);
}

#[test]
fn an_abort_reaches_all_others_once() {
    let mut bench = Bench::default();
    for rank in 0..2 {
        bench.join(10 + u64::from(rank), rank, 3);
    }
    let two = bench.join(12, 2, 3).membership;
    bench.sent();
    let first = notice_of(1);
    bench.registry.abort(11, first).unwrap();
    bench.registry.abort(11, AbortNotice { code: 8, ..first }).unwrap();
    bench.registry.abort(10, AbortNotice { cause_rank: 0, ..first }).unwrap();
    let aborted = |notice| ServerMessage::Aborted { rank: 1, notice };
    assert_eq!(bench.sent(), [(10, aborted(first)), (12, aborted(first))]);
    bench.registry.closed(12, End::Unknown, Instant::now());
    let other = AbortNotice { context: 2, ..first };
    bench.registry.abort(11, other).unwrap();
    assert_eq!(bench.sent(), [(10, aborted(other))], "of another communicator");
    bench.rejoin(22, join_of(2, 3), two).unwrap();
    assert_eq!(bench.sent(), [(22, aborted(first)), (22, aborted(other))], "who was away hears it too");
    for wrong in [AbortNotice { cause_rank: 3, ..first }, AbortNotice { about: Some(3), ..first }] {
        assert_eq!(bench.registry.abort(11, wrong).unwrap_err().refusal, Refusal::Protocol);
    }
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let mut bench = Bench::default();
    for (rank, size, refusal) in [
        (2, 2, Refusal::Protocol),
        (0, 0, Refusal::Protocol),
        (0, MAX_SIZE + 1, Refusal::Protocol),
        (RANK_ANY, 2, Refusal::Unsupported),
    ] {
        let join = Join { private: Vec::new(), ..join_of(0, size) };
        assert_eq!(bench.join_with(10, Join { rank, ..join }).unwrap_err().refusal, refusal);
    }
    bench.join(10, 0, 2);
    for peer in [0, 2, u32::MAX] {
        assert_eq!(bench.registry.connect(10, peer).unwrap_err().refusal, Refusal::Protocol);
        assert_eq!(bench.registry.ready(10, peer).unwrap_err().refusal, Refusal::Protocol);
    }
}
