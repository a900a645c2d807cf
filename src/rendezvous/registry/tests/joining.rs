//! Which run a newcomer is of, and who is refused.

use super::*;

#[test]
fn a_rank_that_is_done_before_another_joins_is_of_the_same_run() {
    let mut bench = Bench::default();
    let epoch = bench.join(10, 0, 3).membership.epoch;
    bench.join(11, 1, 3);
    bench.registry.leave(10);
    assert_eq!(bench.join(12, 2, 3).membership.epoch, epoch);
}

#[test]
fn a_name_is_reused_at_once_by_ranks_that_go_at_their_own_pace() {
    let mut bench = Bench::default();
    let first = bench.join(10, 0, 2).membership.epoch;
    bench.join(11, 1, 2);
    bench.registry.leave(10);
    let second = bench.join(12, 0, 2).membership.epoch;
    assert_ne!(first, second);
    bench.registry.leave(11);
    assert_eq!(bench.join(13, 1, 2).membership.epoch, second);
}

#[test]
fn an_epoch_ends_when_all_who_joined_have_left() {
    let mut bench = Bench::default();
    let first = bench.join(10, 0, 2).membership.epoch;
    bench.registry.leave(10);
    assert!(bench.registry.epochs.is_empty() && bench.registry.jobs.is_empty());
    assert_ne!(bench.join(11, 1, 2).membership.epoch, first);
}

#[test]
fn two_runs_without_job_id_stay_apart() {
    let mut bench = Bench::default();
    let first = bench.join(10, 0, 2).membership.epoch;
    let second = bench.join(11, 0, 2).membership.epoch;
    assert_ne!(first, second);
    assert_eq!(bench.join(12, 1, 2).membership.epoch, first, "the oldest first");
    assert_eq!(bench.join(13, 1, 2).membership.epoch, second);
}

#[test]
fn a_second_holder_of_a_rank_is_refused_where_that_is_certain() {
    let mut bench = Bench::default();
    let join = Join { job_id: Some([9; 32]), ..join_of(0, 2) };
    bench.join_with(10, join.clone()).unwrap();
    let refused = bench.join_with(11, join.clone()).unwrap_err();
    assert_eq!(refused.refusal, Refusal::RankTaken);
    bench.registry.closed(10, End::Unknown, Instant::now());
    bench.join_with(12, join).unwrap();
}

#[test]
fn another_size_is_refused_until_somebody_has_left() {
    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    bench.join(11, 1, 2);
    let refused = bench.join_with(12, join_of(2, 3)).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Mismatch);
    assert_eq!(refused.text, "rank 2 says the size of the job is 3, rank 0 said 2");
    bench.registry.leave(10);
    bench.join(12, 2, 3);
}

#[test]
fn another_fingerprint_is_refused() {
    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    let refused = bench.join_with(11, Join { fingerprint: 6, ..join_of(1, 2) }).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Mismatch);
    assert!(refused.text.contains("0000000000000006") && refused.text.contains("0000000000000005"));
}

#[test]
fn ranks_with_and_without_the_secret_never_meet() {
    let mut bench = Bench::default();
    let fresh = bench.fresh();
    let public = public_of(10);
    bench.registry.join(10, join_of(0, 2), None, true, public, fresh).unwrap();
    assert_eq!(bench.join_with(11, join_of(1, 2)).unwrap_err().refusal, Refusal::Auth);

    let mut bench = Bench::default();
    let open = bench.join(10, 0, 2).membership.epoch;
    let fresh = bench.fresh();
    let joined = bench.registry.join(11, join_of(1, 2), None, true, public, fresh).unwrap();
    assert_ne!(joined.membership.epoch, open, "a squatter without the secret is in nobody's way");
}

#[test]
fn a_member_whose_connection_fell_silent_comes_back() {
    let mut bench = Bench::default();
    let membership = bench.join(10, 0, 2).membership;
    bench.join(11, 1, 2);
    bench.connect(11, 0);
    bench.connect(10, 1);
    bench.sent();
    bench.connect(11, 0);
    bench.registry.closed(10, End::Unknown, Instant::now());
    assert_eq!(bench.sent(), [(10, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))]);
    assert_eq!(bench.rejoin(12, join_of(0, 2), membership).unwrap().membership, membership);
    assert_eq!(
        bench.sent(),
        [(12, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))],
        "what is wanted of it is offered again"
    );
    let stolen = Membership { token: [77; 16], ..membership };
    assert_eq!(bench.rejoin(13, join_of(0, 2), stolen).unwrap_err().refusal, Refusal::RankTaken);
}

#[test]
fn a_member_may_be_back_before_its_old_connection_is_known_to_be_gone() {
    let mut bench = Bench::default();
    let membership = bench.join(10, 0, 2).membership;
    while bench.registry.next_output().is_some() {}
    bench.rejoin(12, join_of(0, 2), membership).unwrap();
    assert_eq!(bench.registry.next_output(), Some(Output::Close(10)));
    bench.close(10);
    bench.join(11, 1, 2);
    bench.sent();
    bench.connect(11, 0);
    assert_eq!(bench.sent(), [(12, ServerMessage::Offer { rank: 1 }), (11, not_yet(0, Missing::NotReady))]);
}

#[test]
fn a_restarted_server_adopts_what_its_members_remember() {
    let mut bench = Bench::default();
    let membership = |token| Membership { epoch: [50; 16], token: [token; 16] };
    bench.rejoin(10, join_of(0, 3), membership(1)).unwrap();
    bench.rejoin(11, join_of(1, 3), membership(2)).unwrap();
    let refused = |bench: &mut Bench, join, membership| {
        bench.rejoin(12, join, membership).map(drop).unwrap_err().refusal
    };
    assert_eq!(refused(&mut bench, join_of(1, 3), membership(3)), Refusal::RankTaken, "the first counts");
    assert_eq!(refused(&mut bench, join_of(2, 4), membership(3)), Refusal::Mismatch);
    let other = Join { fingerprint: 6, ..join_of(2, 3) };
    assert_eq!(refused(&mut bench, other, membership(3)), Refusal::Mismatch);
    assert_eq!(bench.join(13, 2, 3).membership.epoch, [50; 16], "who had not joined yet joins them");
    bench.connect(10, 1);
    bench.sent();
    bench.registry.ready(11, 0).unwrap();
    assert_eq!(bench.sent().len(), 2);
}

#[test]
fn who_joins_a_restarted_server_first_is_moved_to_the_run_that_comes_back() {
    let mut bench = Bench::default();
    bench.join(12, 2, 3);
    bench.connect(12, 0);
    bench.sent();
    let membership = Membership { epoch: [50; 16], token: [1; 16] };
    bench.rejoin(10, join_of(0, 3), membership).unwrap();
    assert_eq!(bench.sent(), [(12, ServerMessage::Moved { epoch: [50; 16] })]);
    bench.connect(12, 0);
    bench.registry.ready(10, 2).unwrap();
    assert_eq!(
        bench.sent(),
        [
            (10, ServerMessage::Offer { rank: 2 }),
            (12, not_yet(0, Missing::NotReady)),
            (12, go(0, 10)),
            (10, go(2, 12))
        ]
    );
    bench.close(12);
    assert_eq!(bench.sent(), [(10, ServerMessage::Suspect { rank: 2 })]);
}

#[test]
fn who_has_begun_another_run_stays_in_it() {
    let mut bench = Bench::meshed(2);
    let membership = Membership { epoch: [50; 16], token: [1; 16] };
    bench.rejoin(20, join_of(0, 2), membership).unwrap();
    assert_eq!(bench.sent(), [], "they have their GO");

    let mut bench = Bench::default();
    bench.join(10, 0, 2);
    bench.rejoin(20, join_of(0, 2), membership).unwrap();
    assert_eq!(bench.sent(), [], "the same rank twice: two runs");
}

#[test]
fn a_run_that_is_over_is_not_brought_back() {
    let mut bench = Bench::default();
    let (zero, one) = (bench.join(10, 0, 2).membership, bench.join(11, 1, 2).membership);
    bench.close(10);
    assert_eq!(bench.rejoin(12, join_of(0, 2), zero).unwrap_err().refusal, Refusal::Gone);
    bench.registry.leave(11);
    assert_eq!(bench.rejoin(12, join_of(0, 2), zero).unwrap_err().refusal, Refusal::Gone);
    assert_eq!(bench.rejoin(12, join_of(1, 2), one).unwrap_err().refusal, Refusal::Gone);
}
